//! Flags about the isolation of processes: resource limits and the sandbox.

use crate::cli::values::{count, memory_limit, readable_path, whole_seconds};
use crate::config::{IsolationConfig, SandboxPaths};
use clap::Args;
use clap::builder::BoolishValueParser;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = "Isolation, of each process")]
pub(super) struct IsolationOptions {
    /// Most private memory that a process may write to; an allocation beyond fails
    #[arg(long, env = "FAAS_LIMIT_MEMORY", value_name = "SIZE", value_parser = memory_limit)]
    limit_memory: Option<u64>,
    /// Most processor time of a process over its life, in whole seconds; SIGXCPU or SIGKILL beyond
    #[arg(long, env = "FAAS_LIMIT_CPU", value_name = "DURATION", value_parser = whole_seconds)]
    limit_cpu: Option<u64>,
    /// Most descriptors that a process may have open
    #[arg(long, env = "FAAS_LIMIT_FILES", value_name = "N", value_parser = count)]
    limit_files: Option<NonZeroUsize>,
    /// No file but the system's may be read, and none written (Landlock, Linux 6.2)
    #[arg(long, env = "FAAS_SANDBOX", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    sandbox: bool,
    /// A path to read below, too (repeatable); implies --sandbox
    #[arg(long, env = "FAAS_SANDBOX_READ", value_name = "PATH", value_delimiter = ',',
          value_parser = readable_path)]
    sandbox_read: Vec<PathBuf>,
    /// A path to read and write below, too (repeatable); implies --sandbox
    #[arg(long, env = "FAAS_SANDBOX_WRITE", value_name = "PATH", value_delimiter = ',',
          value_parser = readable_path)]
    sandbox_write: Vec<PathBuf>,
}

impl IsolationOptions {
    pub(super) fn into_config(self) -> IsolationConfig {
        let paths = SandboxPaths {
            read: self.sandbox_read,
            write: self.sandbox_write,
        };
        let is_wanted = self.sandbox || paths != SandboxPaths::default();
        IsolationConfig {
            memory_bytes: self.limit_memory,
            cpu_seconds: self.limit_cpu,
            files: self.limit_files.map(|files| files.get() as u64),
            sandbox: is_wanted.then_some(paths),
        }
    }
}
