//! Flags about AWS Lambda. Lambda sets their variables.

use crate::cli::values::{count, socket_address};
use crate::config::{LambdaConfig, LambdaStart};
use clap::Args;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

/// The longest time that Lambda gives to an event.
const LONGEST_EVENT: Duration = Duration::from_mins(15);

/// How Lambda starts the worker.
const INITIALIZATION: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";

/// The function's handler, as it is set in Lambda.
const HANDLER: &str = "_HANDLER";

#[derive(Debug, Args)]
#[command(next_help_heading = "AWS Lambda")]
pub(super) struct LambdaOptions {
    /// Take events from the runtime API at this address, instead of listening; set by Lambda
    #[arg(long, env = "AWS_LAMBDA_RUNTIME_API", value_name = "ADDR", value_parser = socket_address)]
    lambda_runtime_api: Option<SocketAddr>,
    /// Events to work on at one time; set by Lambda
    #[arg(long, env = "AWS_LAMBDA_MAX_CONCURRENCY", value_name = "N", value_parser = count,
          default_value = "1")]
    lambda_max_concurrency: NonZeroUsize,
}

impl LambdaOptions {
    /// The settings, where Lambda runs the worker.
    pub(super) fn config(&self) -> Option<LambdaConfig> {
        let runtime_api = self.lambda_runtime_api?;
        let start = std::env::var(INITIALIZATION).unwrap_or_default();
        Some(LambdaConfig {
            runtime_api,
            events: self.lambda_max_concurrency,
            start: start_named(&start),
        })
    }

    /// The command where no other is given: the function's handler.
    pub(super) fn handler(&self) -> Option<String> {
        self.lambda_runtime_api?;
        std::env::var(HANDLER).ok()
    }

    /// The time for a reply where none is given: Lambda ends an event by its own deadline.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.lambda_runtime_api.map(|_| LONGEST_EVENT)
    }

    /// The number of processes where none is given: one for each event.
    pub(super) fn processes(&self) -> Option<NonZeroUsize> {
        let events = self.lambda_max_concurrency;
        self.lambda_runtime_api.map(|_| events)
    }
}

/// The start that Lambda has this name for.
fn start_named(name: &str) -> LambdaStart {
    match name {
        "snap-start" => LambdaStart::Snapshot,
        "provisioned-concurrency" | "lambda-managed-instances" => LambdaStart::Ahead,
        _ => LambdaStart::OnDemand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_on_demand_unless_lambda_says_otherwise() {
        for (name, start) in [
            ("snap-start", LambdaStart::Snapshot),
            ("provisioned-concurrency", LambdaStart::Ahead),
            ("lambda-managed-instances", LambdaStart::Ahead),
            ("on-demand", LambdaStart::OnDemand),
            ("", LambdaStart::OnDemand),
        ] {
            assert_eq!(start_named(name), start, "{name:?}");
        }
    }
}
