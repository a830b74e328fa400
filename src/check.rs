//! `faas-worker check`: whether a handler's command keeps the rules of the line protocol.
//!
//! A check starts processes as the worker does and talks to them through the worker's own owner and
//! conversation ([`crate::process`]), so that both find the same. It owns the rules, their trials
//! and the words of its findings; it never serves callers, and knows neither the pool nor HTTP.
//!
//! Modules: `session` (the rules in turn, and what is known by then), `rules` (one trial for each),
//! `checked_process` (a process of the check, its requests and replies), `desk` (its request source
//! and observer), `relay` (hands request lines over in pieces), `reply`, `lines`, `payloads` and
//! `damage` (what is wrong with output), `overdue` and `flood` (why there is none), `stopwatch`
//! (time without the waits of a busy machine), `orphans` (processes left behind), `rule`,
//! `finding`, `mend` and `language` (what is said).

mod checked_process;
mod damage;
mod desk;
mod finding;
mod flood;
mod language;
mod lines;
mod mend;
mod orphans;
mod overdue;
mod payloads;
mod relay;
mod reply;
mod rule;
mod rules;
mod session;
mod stopwatch;

use crate::config::{Command, IsolationConfig};
use crate::process::launch::{Directory, LaunchError, Launcher, check_platform};
use crate::process::reaping::{end_orphans, reap_in_time, take_in_orphans};
use session::Session;
use std::time::Duration;

pub use finding::{Finding, Verdict};
pub use mend::{Mend, general_mend, mends_by_language};
pub use rule::{Level, Rule};

/// The form of the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportForm {
    /// For people.
    Text,
    /// TAP 14, for test harnesses.
    Tap,
    /// One JSON object a line.
    Json,
    /// JUnit's XML, for the servers of continuous integration.
    Junit,
}

/// What a check tries.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// The handler's command.
    pub command: Command,
    /// The rules that are reported.
    pub rules: Vec<Rule>,
    /// Payloads that the handler should answer.
    pub payloads: Vec<String>,
    /// Payloads that the handler should answer with an error.
    pub failing: Vec<String>,
    /// How long a reply may take.
    pub timeout: Duration,
}

/// Checks a handler. Each finding is reported as soon as it is there, in the order of
/// [`Rule::ALL`]. Fails where the system lacks what every start of a process needs.
pub async fn check(
    config: &CheckConfig,
    report: &mut dyn FnMut(&Finding),
) -> Result<(), LaunchError> {
    check_platform().map_err(LaunchError::System)?;
    take_in_orphans();
    let launcher = Launcher::new(
        config.command.clone(),
        IsolationConfig::default(),
        Directory::find(None),
        None,
    );
    let launcher = launcher.map_err(|error| LaunchError::System(error.to_string()))?;
    let mut session = Session::new(config, &launcher, report);
    // Cancel-safe: orphans that it has not reaped are reaped by `end_orphans`.
    tokio::select! {
        () = session.run() => {}
        never = reap_in_time() => match never {},
    }
    end_orphans().await;
    Ok(())
}
