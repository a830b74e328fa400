//! A slot of the pool, kept filled with one process, which it starts, watches, replaces and stops.
//!
//! The slot decides which process serves in it, and when; a process is signalled and reaped by
//! its [`LiveProcess`] alone. A process that must stop leaves the slot immediately and is stopped
//! beside its successor; a planned replacement comes up first. Few processes of a slot may be
//! stopping at a time, so that a handler that ignores SIGTERM cannot pile up.

mod backoff;
mod departure;
mod events;
mod idle;
mod live;
mod member;
mod retirement;
mod start;
mod succession;

use super::dispatch::Dispatcher;
use super::rollout::{Renewal, RenewalOutcome, Renewed};
use crate::cause::Cause;
use crate::config::ProcessConfig;
use crate::metrics::StartReason;
use crate::pool::status::SlotFacts;
use crate::process::conversation::{Fault, UP_AFTER};
use crate::process::launch::Launcher;
use crate::process::output_log::LogAllowance;
use crate::process::owner::RequestSource as _;
use crate::process::repeats::StartEnd;
use crate::shutdown::Stage;
use backoff::Backoff;
use departure::{ProcessEnd, StopReason};
use events::SlotEvent;
use idle::Inspection;
use live::{LiveProcess, StopPolicy};
use member::Role;
use retirement::Due;
use start::{PendingStart, Starter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Processes of one slot that may be stopping when another is started.
const MAX_LEAVING: usize = 1;

/// The settings of a slot.
#[derive(Debug)]
pub(super) struct SlotSettings {
    pub(super) process: ProcessConfig,
    /// How long a process beyond `--processes` may be idle.
    pub(super) idle_timeout: Duration,
    pub(super) is_empty_at_first: bool,
    /// The number of the slot.
    pub(super) number: usize,
    /// Whether operators can ask which request a process works on.
    pub(super) tells_requests: bool,
}

/// A slot of the pool, for one process that serves.
#[derive(Debug)]
pub(super) struct Slot {
    starter: Starter,
    grace: Duration,
    idle_timeout: Duration,
    renewals: mpsc::Receiver<Renewal>,
    backoff: Backoff,
    /// The process that serves.
    current: Option<Box<LiveProcess>>,
    /// Idle time and memory at the last inspection.
    inspection: Inspection,
    /// The process that is to follow the current one.
    successor: Successor,
    /// The reload that waits for the successor, if one does.
    renewal: Option<Renewal>,
    /// Why the next process is started.
    start_reason: StartReason,
    /// Whether the process is stopped as soon as it is idle.
    stops_when_idle: bool,
    leaving: JoinSet<()>,
    /// Cancelled when the processes that are stopping have no more grace.
    hurry: CancellationToken,
}

/// The successor of the current process, at its stages.
#[derive(Debug)]
enum Successor {
    Nothing,
    /// The slot stays empty until the pool needs more processes.
    NotNeeded,
    /// To be started after this delay, once few enough processes of the slot are stopping.
    Wanted(Duration),
    Starting(PendingStart),
    /// Running and not up yet, beside a current process.
    ComingUp(Box<LiveProcess>),
}

impl Slot {
    /// An empty slot; [`Slot::keep_filled`] fills it.
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        launcher: Launcher,
        settings: SlotSettings,
        renewals: mpsc::Receiver<Renewal>,
    ) -> Slot {
        let metrics = Arc::clone(&dispatcher.metrics);
        Slot {
            grace: settings.process.grace,
            idle_timeout: settings.idle_timeout,
            hurry: dispatcher.shutdown.child_token(Stage::Killing),
            starter: Starter {
                dispatcher,
                launcher,
                config: settings.process,
                allowance: LogAllowance::new(Instant::now(), metrics),
                facts: SlotFacts {
                    slot: settings.number,
                    restarts: 0,
                    tells_requests: settings.tells_requests,
                },
            },
            start_reason: StartReason::Initial,
            renewals,
            backoff: Backoff::default(),
            current: None,
            inspection: Inspection::new(),
            successor: if settings.is_empty_at_first {
                Successor::NotNeeded
            } else {
                Successor::Nothing
            },
            renewal: None,
            stops_when_idle: false,
            leaving: JoinSet::new(),
        }
    }

    /// Keeps a process running until the pool stops, then stops the last ones.
    pub(super) async fn keep_filled(mut self) {
        loop {
            self.fill();
            match self.next_event().await {
                SlotEvent::Stop => break,
                SlotEvent::Renew(renewal) => self.renew(renewal),
                SlotEvent::RenewalGone => self.forget_renewal(),
                SlotEvent::CurrentUp => self.report(Ok(Renewed::Process)),
                SlotEvent::CurrentDue(due) => self.recycle(due),
                SlotEvent::InspectionDue => self.inspect(),
                SlotEvent::Needed => {
                    self.start_reason = StartReason::Growth;
                    self.successor = Successor::Nothing;
                }
                SlotEvent::StopWhenIdle => self.stop_when_idle(),
                SlotEvent::CurrentLeft(reason) => self.current_left(reason),
                SlotEvent::Started(started) => self.started(started),
                SlotEvent::TrialDue => self.begin_trial(),
                SlotEvent::SuccessorUp => self.take_over(),
                SlotEvent::SuccessorLeft(reason) => self.successor_left(reason),
                SlotEvent::StopFinished => {}
            }
        }
        self.empty().await;
    }

    /// Fills an empty slot, as far as that needs no waiting: with a successor, or by asking for
    /// one.
    fn fill(&mut self) {
        if self.current.is_none() {
            match std::mem::replace(&mut self.successor, Successor::Nothing) {
                Successor::Nothing => self.successor = Successor::Wanted(Duration::ZERO),
                Successor::ComingUp(mut running) => {
                    running.member_mut().set_role(Role::Serving);
                    self.install(running);
                }
                successor @ (Successor::NotNeeded
                | Successor::Wanted(_)
                | Successor::Starting(_)) => self.successor = successor,
            }
        }
        if let Successor::Wanted(delay) = self.successor
            && self.leaving.len() <= MAX_LEAVING
        {
            self.successor = Successor::Starting(self.starter.start(delay));
        }
    }

    /// Makes a process the current one; returns the previous one.
    fn install(&mut self, running: Box<LiveProcess>) -> Option<Box<LiveProcess>> {
        self.inspection = Inspection::new();
        self.current.replace(running)
    }

    /// Replaces the process for a reload.
    fn renew(&mut self, renewal: Renewal) {
        if matches!(self.successor, Successor::NotNeeded) {
            return renewal.report(Ok(Renewed::Nothing));
        }
        self.abandon_successor();
        self.renewal = Some(renewal);
        self.start_reason = StartReason::Reload;
        // The edit may have mended what failed before.
        self.backoff.reset();
        self.supersede();
    }

    /// Replaces the process because it has reached one of its limits.
    fn recycle(&mut self, due: Due) {
        if let Some(current) = &self.current {
            info!(process = current.number(), limit = %due, "process is due to be replaced");
        }
        self.start_reason = StartReason::Replace;
        self.supersede();
    }

    fn current_left(&mut self, reason: StopReason) {
        let Some(mut running) = self.current.take() else {
            return;
        };
        if reason == StopReason::Ended {
            // The last output counts, also for whether the process was up.
            running.read_a_turn();
        }
        let was_up = running.member().is_up();
        let timed_out_when_up = was_up && reason == StopReason::Fault(Fault::TimedOut);
        // Whether or not it has served.
        let has_lived = running.started().elapsed() >= UP_AFTER;
        if running.has_replied() || has_lived || timed_out_when_up {
            self.backoff.reset();
        }
        let delay = self.backoff.next(fastrand::f64());
        let why = self.note_end(running, reason);
        if !was_up {
            let note = why.clone();
            let dispatcher = &self.starter.dispatcher;
            dispatcher.record(|health| health.start_failed(note, delay));
        }
        if matches!(self.successor, Successor::Nothing) {
            self.report(Err(why.to_string()));
            self.successor = Successor::Wanted(delay);
        }
    }

    /// Logs why a process left by itself and stops what is left of it; returns the cause.
    fn note_end(&mut self, mut running: Box<LiveProcess>, reason: StopReason) -> Cause {
        let number = running.number();
        match reason {
            StopReason::Ended => {
                let lived = running.started().elapsed();
                let lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX);
                let was_up = running.member().is_up();
                let end = running.reap(match was_up {
                    true => StartEnd::NotFailed,
                    false => StartEnd::Failed,
                });
                let is_repeated = end.repeated > 0;
                let repeated = is_repeated.then_some(end.repeated);
                let last_line = Some(&end.last_line).filter(|_| !is_repeated);
                let last_line = last_line.filter(|line| !line.is_empty());
                let status = &end.status;
                warn!(process = number, %status, lived_ms, last_line, repeated, "process ended");
                self.stop_aside(running, reason);
                if was_up {
                    end.status.into()
                } else {
                    why_not_up(&end, &limits_of(&self.starter.launcher))
                }
            }
            StopReason::Fault(fault) => {
                warn!(process = number, reason = %fault, check = fault.rule(), "process replaced");
                let is_slow = matches!(fault, Fault::TimedOut | Fault::TooSlowToStart);
                if is_slow && !running.has_replied() {
                    let age = running.started().elapsed();
                    self.starter.dispatcher.record_start(2 * age);
                }
                self.stop_aside(running, reason);
                fault.to_string().into()
            }
            StopReason::Replaced(_) | StopReason::Idle | StopReason::Stopped => {
                self.stop_aside(running, reason);
                Cause::from("")
            }
        }
    }

    /// Stops a process while the slot goes on with the next one.
    fn stop_aside(&mut self, mut running: Box<LiveProcess>, reason: StopReason) {
        running.member_mut().leave();
        if !matches!(reason, StopReason::Stopped | StopReason::Ended) {
            // An earlier process that still ignores SIGTERM has had its time.
            self.hurry.cancel();
            self.hurry = self.starter.dispatcher.shutdown.child_token(Stage::Killing);
        }
        let policy = self.policy();
        self.leaving.spawn(running.stop(reason, policy));
    }

    fn policy(&self) -> StopPolicy {
        StopPolicy {
            grace: self.grace,
            hurry: self.hurry.clone(),
            shutdown: self.starter.dispatcher.shutdown.clone(),
        }
    }

    fn report(&mut self, outcome: RenewalOutcome) {
        if let Some(renewal) = self.renewal.take() {
            renewal.report(outcome);
        }
    }

    /// Stops the last processes.
    async fn empty(mut self) {
        if let Some(current) = self.current.take() {
            debug!(process = current.number(), "process asked to end");
            self.stop_aside(current, StopReason::Stopped);
        }
        match std::mem::replace(&mut self.successor, Successor::Nothing) {
            Successor::ComingUp(running) => self.stop_aside(running, StopReason::Stopped),
            successor @ (Successor::Nothing
            | Successor::NotNeeded
            | Successor::Wanted(_)
            | Successor::Starting(_)) => {
                self.successor = successor;
                self.abandon_successor();
            }
        }
        self.report(Err("the worker is shutting down".to_owned()));
        while self.leaving.join_next().await.is_some() {}
    }
}

/// The limits that may keep a process from coming up, for the end of a sentence.
fn limits_of(launcher: &Launcher) -> String {
    let memory = launcher
        .memory_limit()
        .map(|bytes| format!("; --limit-memory (FAAS_LIMIT_MEMORY) left it {bytes} bytes"));
    let files = launcher.files_limit().map(|files| {
        format!("; --limit-files (FAAS_LIMIT_FILES) left it no more open files than {files}")
    });
    memory.into_iter().chain(files).collect()
}

/// Why a process that ended before it was up did so, with what is known to help.
fn why_not_up(end: &ProcessEnd, limits: &str) -> Cause {
    let was_successful = end.code == Some(0);
    let hint = if was_successful {
        // Most likely a one-shot command.
        ": a handler must go on reading requests from stdin until that ends"
    } else {
        "; the log has what it printed"
    };
    let limit = if was_successful { "" } else { limits };
    let before = format!("{}, before it was up", end.status);
    let general = format!("{before}{hint}{limit}");
    if end.last_line.is_empty() {
        return general.into();
    }
    let last_line = format!("; the last line on its stderr: {}", end.last_line);
    let full = if was_successful {
        format!("{general}{last_line}")
    } else {
        format!("{before}{last_line}{limit}")
    };
    Cause::quoting(general, full)
}
