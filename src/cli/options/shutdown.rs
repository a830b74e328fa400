//! Flags about the end of the worker, and about its log.

use crate::cli::LogSettings;
use crate::cli::values::{access_log, duration, handler_log, log_format, log_level};
use crate::config::{AccessLog, HandlerLog, LogFormat, ShutdownConfig};
use clap::Args;
use std::time::Duration;
use tracing::Level;

#[derive(Debug, Args)]
#[command(next_help_heading = "Shutdown and log")]
pub(super) struct ShutdownOptions {
    /// After SIGTERM: how long the listener stays open
    #[arg(long, env = "FAAS_DRAIN_DELAY", value_name = "DURATION", default_value = "0s",
          value_parser = duration)]
    drain_delay: Duration,
    /// After that: how long requests and processes may take to finish
    #[arg(long, env = "FAAS_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = duration)]
    drain_timeout: Duration,
    /// text, json, gcp for Google Cloud Logging, or ecs for Elasticsearch [default: text on a
    /// terminal, else json]
    #[arg(long, env = "FAAS_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug or trace
    #[arg(long, env = "FAAS_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = log_level)]
    log_level: Level,
    /// Log each POST /, or with =errors each that fails
    #[arg(long, env = "FAAS_ACCESS_LOG", value_name = "WHICH", num_args = 0..=1,
          require_equals = true, default_value = "off", default_missing_value = "on",
          value_parser = access_log)]
    pub(super) access_log: AccessLog,
    /// How the stderr of handlers is logged: event, or raw, which writes its lines as they are
    #[arg(long, env = "FAAS_LOG_HANDLER", value_name = "FORM", default_value = "event",
          value_parser = handler_log)]
    pub(super) log_handler: HandlerLog,
}

impl ShutdownOptions {
    /// How much is logged, and how.
    pub(super) fn log(&self) -> LogSettings {
        LogSettings {
            format: self.log_format,
            level: self.log_level,
        }
    }

    pub(super) fn into_config(self) -> ShutdownConfig {
        ShutdownConfig {
            drain_delay: self.drain_delay,
            drain_timeout: self.drain_timeout,
        }
    }
}
