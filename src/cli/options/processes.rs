//! Flags about the processes: how many there are, when they are replaced, how they start and stop.

use super::requests::TIMEOUT;
use super::{Defaults, RequestOptions};
use crate::cli::values::{ReloadFolder, age, count, duration, folder, limit_of_time, reload, size};
use crate::config::{HandlerLog, PoolConfig, ProcessConfig, RecycleConfig};
use clap::Args;
use clap::builder::BoolishValueParser;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Processes")]
pub(super) struct ProcessOptions {
    /// Processes to keep alive [default: the CPUs it may use, at least 2; on AWS
    /// Lambda --lambda-max-concurrency]
    #[arg(long, env = "FAAS_PROCESSES", value_name = "N", value_parser = count)]
    processes: Option<NonZeroUsize>,
    /// Processes to grow to while requests wait for more than 20 ms [default: no more]
    #[arg(long, env = "FAAS_MAX_PROCESSES", value_name = "N", value_parser = count)]
    max_processes: Option<NonZeroUsize>,
    /// How long a process beyond --processes may be idle
    #[arg(long, env = "FAAS_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = limit_of_time)]
    idle_timeout: Duration,
    /// Replace a process after about so many requests
    #[arg(long, env = "FAAS_MAX_REQUESTS", value_name = "N", value_parser = count)]
    max_requests: Option<NonZeroUsize>,
    /// Replace a process when it is about so old
    #[arg(long, env = "FAAS_MAX_AGE", value_name = "DURATION", value_parser = age)]
    max_age: Option<Duration>,
    /// Replace a process when it and its descendants have more memory
    #[arg(long, env = "FAAS_MAX_MEMORY", value_name = "SIZE", value_parser = size)]
    max_memory: Option<u64>,
    /// Most requests at once for one process, whatever it announces
    #[arg(long, env = "FAAS_MAX_CONCURRENCY", value_name = "N", value_parser = count,
          default_value = "64")]
    max_concurrency: NonZeroUsize,
    /// Most requests given ahead to a process that promised order; 1 turns it off
    #[arg(long, env = "FAAS_READ_AHEAD", value_name = "N", value_parser = count,
          default_value = "32")]
    read_ahead: NonZeroUsize,
    /// Give a process no request before its ready line
    #[arg(long, env = "FAAS_WAIT_READY", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    wait_ready: bool,
    /// Where processes start, and relative commands are looked for [default: where PWD points at
    /// that moment]
    #[arg(long, env = "FAAS_CHDIR", value_name = "DIR", value_parser = folder)]
    pub(super) chdir: Option<PathBuf>,
    /// End with exit status 3 when no process ever came up
    #[arg(long, env = "FAAS_EXIT_ON_FAILURE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub(super) exit_on_failure: bool,
    /// Longest wait for the ready line; a first slow start is spared as long
    #[arg(long, env = "FAAS_STARTUP_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = limit_of_time)]
    startup_timeout: Duration,
    /// Time from asking a process to stop until SIGKILL
    #[arg(long, env = "FAAS_GRACE", value_name = "DURATION", default_value = "5s",
          value_parser = duration)]
    grace: Duration,
    /// For development: replace the processes when files below PATH change [PATH by default: .]
    #[arg(long, env = "FAAS_RELOAD", value_name = "PATH", num_args = 0..=1, require_equals = true,
          default_missing_value = ".", value_parser = reload)]
    pub(super) reload: Option<ReloadFolder>,
}

impl ProcessOptions {
    /// The settings of the pool and of each process, with the limits of requests.
    pub(super) fn into_config(
        self,
        requests: &RequestOptions,
        defaults: &Defaults,
        max_reply_bytes: u64,
        log: HandlerLog,
    ) -> Result<(PoolConfig, ProcessConfig), String> {
        let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let at_least_two = cpus.max(NonZeroUsize::MIN.saturating_add(1));
        let processes = self.processes.or(defaults.processes);
        let processes = processes.unwrap_or(at_least_two);
        let max_processes = self.max_processes.unwrap_or(processes);
        if max_processes < processes {
            return Err(format!(
                "--max-processes (FAAS_MAX_PROCESSES): fewer than --processes, which is \
                 {processes}: \"{max_processes}\""
            ));
        }
        let pool = PoolConfig {
            processes,
            max_processes,
            idle_timeout: self.idle_timeout,
            processes_starting_at_once: at_least_two,
            queue: requests.queue,
            queue_timeout: requests.queue_timeout,
            timeout: requests.timeout.or(defaults.timeout).unwrap_or(TIMEOUT),
        };
        let process = ProcessConfig {
            max_concurrency: self.max_concurrency,
            read_ahead: self.read_ahead,
            wait_ready: self.wait_ready || !requests.pass_header.is_empty(),
            startup_timeout: self.startup_timeout,
            max_reply_bytes: usize::try_from(max_reply_bytes).unwrap_or(usize::MAX),
            grace: self.grace,
            log,
            recycle: RecycleConfig {
                max_requests: self.max_requests,
                max_age: self.max_age,
                max_memory_bytes: self.max_memory,
            },
        };
        Ok((pool, process))
    }
}
