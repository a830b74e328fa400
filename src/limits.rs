//! What the worker sets for itself alone: its limit of descriptors, and who may look into it.
//!
//! Handlers get back what the worker was given; `process::launch` sees to that.

use crate::config::Config;
use crate::control_group;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use std::num::NonZeroUsize;
use tracing::warn;

/// Descriptors beside connections and pipes: the log, the runtime, listeners.
const SPARE: u64 = 64;

/// Connections to the address of `--admin`; they do not count as connections of callers.
pub const ADMIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Descriptors for one process: three pipes and the process itself, twice while it is replaced.
const PER_PROCESS: u64 = 12;

/// Raises the soft limit so that all connections and processes fit, as far as the hard limit
/// allows. Gives the limit as it was before, for handlers.
pub fn raise_descriptor_limit(config: &Config) -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let admin = config.http.admin.map_or(0, |_| ADMIN_CONNECTIONS.get());
    let connections = (config.http.max_connections.get() + admin) as u64;
    let needed = connections + PER_PROCESS * config.pool.max_processes.get() as u64 + SPARE;
    let current = before.current.unwrap_or(u64::MAX);
    if current >= needed {
        return before;
    }
    let wanted = before.maximum.map_or(needed, |maximum| maximum.min(needed));
    if wanted < needed {
        warn!(
            limit = wanted,
            needed, "descriptor limit is too low for --max-connections"
        );
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "descriptor limit not raised");
    }
    before
}

/// Warns where the kernel ends the whole control group, the worker included, for the memory of one
/// process, as Kubernetes sets it from 1.28 on.
pub fn warn_of_group_kill(config: &Config) {
    if config.isolation.memory_bytes.is_some() {
        return;
    }
    // Version 1 has none.
    let texts = control_group::files("memory.oom.group", "memory.oom.group");
    let mut texts = texts
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    if texts.next().is_some_and(|text| text.trim() == "1") {
        warn!(
            "out of memory, the kernel kills the worker along with its processes \
             (memory.oom.group is 1); with --limit-memory (FAAS_LIMIT_MEMORY) one process fails alone"
        );
    }
}

/// Closes the worker's memory, environment and descriptors in `/proc` to other processes of the
/// same user, and with them to handlers. It leaves no core file either.
pub fn hide_from_processes() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "the worker's environment can be read by its processes");
    }
}
