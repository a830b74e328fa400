//! Flags about one request: its time, its place in the queue, its bytes.

use crate::cli::sizes::Given;
use crate::cli::values::{count, header_name, limit_of_time, memory_budget, size};
use clap::Args;
use std::num::NonZeroUsize;
use std::time::Duration;

/// The time for one reply, where neither a setting nor the platform says it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Limits of requests. The pool, the processes and HTTP keep one part each, so the
/// configuration of each is made by its own options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
pub(super) struct RequestOptions {
    /// Longest time for one reply; a caller may ask for less with x-faas-timeout-ms [default: 30s,
    /// on AWS Lambda 15m]
    #[arg(long, env = "FAAS_TIMEOUT", value_name = "DURATION", value_parser = limit_of_time)]
    pub(super) timeout: Option<Duration>,
    /// Requests that may wait
    #[arg(long, env = "FAAS_QUEUE", value_name = "N", value_parser = count, default_value = "1024")]
    pub(super) queue: NonZeroUsize,
    /// How long a request may wait
    #[arg(long, env = "FAAS_QUEUE_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = limit_of_time)]
    pub(super) queue_timeout: Duration,
    /// Largest request body [default: 8MiB, at most half of --max-buffered]
    #[arg(long, env = "FAAS_MAX_BODY", value_name = "SIZE", value_parser = size)]
    max_body: Option<u64>,
    /// Largest result [default: 8MiB, at most half of --max-buffered]
    #[arg(long, env = "FAAS_MAX_REPLY", value_name = "SIZE", value_parser = size)]
    max_reply: Option<u64>,
    /// All bodies and replies held at one time [default: 256MiB, at most a quarter of the control
    /// group's memory limit; twice --max-body if that is more]
    #[arg(long, env = "FAAS_MAX_BUFFERED", value_name = "SIZE", value_parser = memory_budget)]
    max_buffered: Option<u64>,
    /// A header that handlers may ask for (repeatable); implies --wait-ready
    #[arg(long, env = "FAAS_PASS_HEADER", value_name = "NAME", value_delimiter = ',',
          value_parser = header_name)]
    pub(super) pass_header: Vec<String>,
}

impl RequestOptions {
    /// The sizes that were set.
    pub(super) fn sizes(&self, connections: Option<NonZeroUsize>) -> Given {
        Given {
            body: self.max_body,
            reply: self.max_reply,
            buffered: self.max_buffered,
            connections,
        }
    }
}
