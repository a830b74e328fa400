//! Sets up the worker's own process: its limit of descriptors, and its protection from handlers.
//!
//! Handlers start with the limit that the worker was started with; `process::launch` restores it.

use crate::config::{HttpConfig, IsolationConfig};
use crate::control_group;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use std::num::NonZeroUsize;
use tracing::warn;

/// Descriptors of the log, the runtime and the listeners.
const OWN_DESCRIPTORS: u64 = 64;

/// Most connections to the address of `--admin`, which do not count as connections of callers.
pub(crate) const ADMIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Descriptors for one process: three pipes, the process itself and the watch for its exit, twice
/// while it is replaced, and both ends of the pipe on which a start reports.
const DESCRIPTORS_PER_PROCESS: u64 = 12;

/// Raises the soft limit of descriptors so that all connections and processes fit, as far as the
/// hard limit allows. A listener may have `beyond` connections open beyond its limit. Returns the
/// limit as it was before, for handlers.
pub(crate) fn raise_descriptor_limit(
    config: &HttpConfig,
    max_processes: NonZeroUsize,
    beyond: usize,
) -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let admin = config.admin.map(|_| ADMIN_CONNECTIONS);
    let listeners = [Some(config.max_connections), admin];
    let needed = descriptors_needed(&listeners, beyond, max_processes);
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

/// Descriptors for listeners with these limits of connections and `beyond` more for each, and for
/// processes.
fn descriptors_needed(
    listeners: &[Option<NonZeroUsize>],
    beyond: usize,
    processes: NonZeroUsize,
) -> u64 {
    let limits = listeners.iter().flatten();
    let connections = limits.map(|most| most.get().saturating_add(beyond) as u64);
    connections.sum::<u64>() + DESCRIPTORS_PER_PROCESS * processes.get() as u64 + OWN_DESCRIPTORS
}

/// Warns where the kernel ends the whole control group, the worker included, for the memory of one
/// process, as Kubernetes sets it from 1.28 on.
pub(crate) fn warn_of_group_kill(config: &IsolationConfig) {
    if config.memory_bytes.is_some() {
        return;
    }
    // Version 1 of control groups has no such file.
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

/// Hides the worker's memory, environment and descriptors in `/proc` from other processes of the
/// same user, so from handlers. A worker that is not dumpable leaves no core file either.
pub(crate) fn hide_from_processes() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "the worker's environment can be read by its processes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_there_for_connections_that_wait_for_a_place_at_each_listener() {
        let [one, two, thousand] = [1, 2, 1000].map(|number| NonZeroUsize::new(number).unwrap());
        assert_eq!(
            descriptors_needed(&[Some(thousand), None], 144, two),
            1000 + 144 + 24 + 64
        );
        assert_eq!(
            descriptors_needed(&[Some(thousand), Some(ADMIN_CONNECTIONS)], 144, one),
            1000 + 144 + 64 + 144 + 12 + 64
        );
    }
}
