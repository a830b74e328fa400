//! One place in the pool, kept filled: start, watch, replace, stop.
//!
//! A slot decides what takes the place of what, and when; a process is signalled and reaped by its
//! [`LiveProcess`] alone. A process that must go leaves the slot at once and is seen to its end beside
//! its successor; where it can be helped, the successor comes up first. Few are leaving at a time,
//! so that a handler which ignores its end cannot pile up.

mod backoff;
mod events;
mod live;
mod member;
mod retirement;
mod start;

use super::dispatch::Dispatcher;
use super::rollout::{Renewal, RenewalOutcome, Renewed};
use crate::cause::Cause;
use crate::config::ProcessConfig;
use crate::logging::milliseconds;
use crate::process::conversation::Fault;
use crate::process::launch::{LaunchError, Launcher};
use crate::process::output_log::LogAllowance;
use crate::shutdown::Stage;
use backoff::Backoff;
use events::SlotEvent;
use live::{LiveProcess, StopPolicy, StopReason};
use member::Role;
use retirement::Due;
use start::{PendingStart, Started, Starter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A process that has lived this long has done well, whether or not it has served.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// Processes of one slot that may be leaving when another is started.
const MOST_LEAVING: usize = 1;

/// A process that has had nothing to do for so long while the worker drains is stopped.
const IDLE_IN_A_DRAIN: Duration = Duration::from_millis(100);

/// How often a process is looked at, for its memory and whether it has anything to do.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What a slot is told of the settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) process: ProcessConfig,
    /// How long a process may have nothing to do where there are more than must be.
    pub(super) idle_timeout: Duration,
    pub(super) is_empty_at_first: bool,
}

/// One place in the pool.
#[derive(Debug)]
pub(super) struct Slot {
    starter: Starter,
    grace: Duration,
    idle_timeout: Duration,
    renewals: mpsc::Receiver<Renewal>,
    backoff: Backoff,
    /// The process that serves.
    current: Option<Box<LiveProcess>>,
    /// What it did at the last looks.
    idle_time: IdleTime,
    /// What is to take its place.
    successor: Successor,
    /// Who wants to know how that goes.
    renewal: Option<Renewal>,
    /// Whether the process is to be stopped as soon as it has nothing to do.
    is_draining: bool,
    leaving: JoinSet<()>,
    /// Cancelled when those that are leaving have had their time.
    hurry: CancellationToken,
}

/// What a process did at the last looks.
#[derive(Debug)]
struct IdleTime {
    next_look: Instant,
    taken: u64,
    idle_since: Instant,
    /// Whether it was over the limit of memory before its first request.
    is_too_large: bool,
}

/// What is to take the place of the current process.
#[derive(Debug)]
enum Successor {
    Nothing,
    /// The place is to stay empty until more processes are needed.
    NotNeeded,
    /// One is to be started after this time, and when few enough are leaving.
    Wanted(Duration),
    Starting(PendingStart),
    /// It runs, and is not up yet; there is a current process.
    Trying(Box<LiveProcess>),
}

impl Slot {
    /// An empty place, filled by [`Slot::keep_filled`].
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        launcher: Launcher,
        settings: Settings,
        renewals: mpsc::Receiver<Renewal>,
    ) -> Slot {
        Slot {
            grace: settings.process.grace,
            idle_timeout: settings.idle_timeout,
            hurry: dispatcher.shutdown.child_token(Stage::Killing),
            starter: Starter {
                dispatcher,
                launcher,
                config: settings.process,
                allowance: LogAllowance::new(Instant::now()),
            },
            renewals,
            backoff: Backoff::default(),
            current: None,
            idle_time: IdleTime::now(),
            successor: if settings.is_empty_at_first {
                Successor::NotNeeded
            } else {
                Successor::Nothing
            },
            renewal: None,
            is_draining: false,
            leaving: JoinSet::new(),
        }
    }

    /// Keeps a process running until the pool stops, then sees the last ones to their end.
    pub(super) async fn keep_filled(mut self) {
        loop {
            self.fill();
            match self.next_event().await {
                SlotEvent::Stop => break,
                SlotEvent::Renew(renewal) => self.renew(renewal),
                SlotEvent::RenewalGone => self.forget_renewal(),
                SlotEvent::CurrentUp => self.report(Ok(Renewed::Process)),
                SlotEvent::CurrentDue(due) => self.recycle(due),
                SlotEvent::LookDue => self.look(),
                SlotEvent::Needed => self.successor = Successor::Nothing,
                SlotEvent::Drains => self.drain(),
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

    /// Does what must be done without waiting: an empty place is taken or asked for.
    fn fill(&mut self) {
        if self.current.is_none() {
            match std::mem::replace(&mut self.successor, Successor::Nothing) {
                Successor::Nothing => self.successor = Successor::Wanted(Duration::ZERO),
                Successor::Trying(mut running) => {
                    running.member_mut().set_role(Role::Serving);
                    self.install(running);
                }
                successor @ (Successor::NotNeeded
                | Successor::Wanted(_)
                | Successor::Starting(_)) => self.successor = successor,
            }
        }
        if let Successor::Wanted(delay) = self.successor
            && self.leaving.len() <= MOST_LEAVING
        {
            self.successor = Successor::Starting(self.starter.start(delay));
        }
    }

    /// A process takes the place; gives the one that had it.
    fn install(&mut self, running: Box<LiveProcess>) -> Option<Box<LiveProcess>> {
        self.idle_time = IdleTime::now();
        self.current.replace(running)
    }

    /// Somebody wants the process replaced by a new one of the same command.
    fn renew(&mut self, renewal: Renewal) {
        if matches!(self.successor, Successor::NotNeeded) {
            return renewal.report(Ok(Renewed::Nothing));
        }
        self.abandon_successor();
        self.renewal = Some(renewal);
        // What failed before may have been mended.
        self.backoff.reset();
        self.supersede();
    }

    /// The process has served for long enough.
    fn recycle(&mut self, due: Due) {
        if let Some(current) = &self.current {
            info!(process = current.number(), limit = %due, "process is due to be replaced");
        }
        self.supersede();
    }

    /// The worker drains: what has nothing to do is not needed.
    fn drain(&mut self) {
        self.is_draining = true;
        self.idle_timeout = self.idle_timeout.min(IDLE_IN_A_DRAIN);
        self.idle_time.next_look = Instant::now() + look_period(self.idle_timeout);
    }

    /// Looks at what the process has and does.
    fn look(&mut self) {
        let now = Instant::now();
        let Some(current) = &self.current else { return };
        self.idle_time.next_look = now + look_period(self.idle_timeout);
        let taken = current.member().taken();
        if current.is_busy() || taken != self.idle_time.taken {
            self.idle_time.taken = taken;
            self.idle_time.idle_since = now;
        }
        let lifetime = current.lifetime();
        let memory = lifetime.memory_bytes.and_then(|_| current.resident_bytes());
        match memory.and_then(|bytes| lifetime.judge_memory(bytes)) {
            Some(due) if taken > 0 || self.idle_time.is_too_large => return self.recycle(due),
            Some(due) => {
                // The next one will be, too: not at full speed for ever.
                let delay = self.backoff.next(fastrand::f64());
                warn!(
                    process = current.number(),
                    limit = %due,
                    replaced_in_ms = milliseconds(delay),
                    "process is over its limit before its first request"
                );
                self.idle_time.is_too_large = true;
                self.idle_time.next_look = now + delay;
            }
            None if memory.is_some() => self.backoff.reset(),
            None => {}
        }
        let is_idle = now.saturating_duration_since(self.idle_time.idle_since) >= self.idle_timeout;
        if is_idle && self.starter.dispatcher.lock().scaling.shrink() {
            self.successor = Successor::NotNeeded;
            if let Some(idle) = self.current.take() {
                info!(
                    process = idle.number(),
                    "process has had nothing to do, and is not needed"
                );
                self.stop_aside(idle, StopReason::Replaced);
            }
        }
    }

    /// Asks for a successor of the current process, which goes on until that one is up.
    fn supersede(&mut self) {
        if let Some(current) = &mut self.current {
            current.member_mut().set_role(Role::Superseded);
        }
        self.successor = Successor::Wanted(Duration::ZERO);
    }

    fn forget_renewal(&mut self) {
        self.renewal = None;
        if self.current.is_some() {
            self.keep_current();
        }
    }

    /// No successor after all.
    fn keep_current(&mut self) {
        self.abandon_successor();
        if let Some(current) = &mut self.current {
            current.member_mut().set_role(Role::Serving);
        }
    }

    fn abandon_successor(&mut self) {
        match std::mem::replace(&mut self.successor, Successor::Nothing) {
            Successor::Nothing | Successor::NotNeeded | Successor::Wanted(_) => {}
            Successor::Starting(start) => {
                // It may be running by now, and must be seen to its end.
                let abandoned = start.abandon();
                let policy = self.policy();
                self.leaving.spawn(async move {
                    if let Some(running) = abandoned.await {
                        running.stop(StopReason::Replaced, policy).await;
                    }
                });
            }
            Successor::Trying(running) => self.stop_aside(running, StopReason::Replaced),
        }
    }

    fn started(&mut self, started: Started) {
        self.successor = Successor::Nothing;
        let error = match started {
            Ok(Some(mut running)) if self.current.is_some() => {
                running.member_mut().set_role(Role::Candidate);
                self.successor = Successor::Trying(running);
                return;
            }
            Ok(Some(running)) => {
                self.install(running);
                return;
            }
            Ok(None) => return,
            Err(error) => error,
        };
        let delay = self.backoff.next(fastrand::f64());
        match error {
            LaunchError::Command(why) => {
                if self.current.is_none() {
                    let note = without_path(&why);
                    let dispatcher = &self.starter.dispatcher;
                    dispatcher.record(|health| health.cannot_execute(note, delay));
                }
                self.successor_failed(why, delay);
            }
            LaunchError::System(why) => {
                warn!(%why, retry_in_ms = milliseconds(delay), "process not started");
                let note = why.clone().into();
                let dispatcher = &self.starter.dispatcher;
                dispatcher.record(|health| health.not_started(note, delay));
                self.successor_failed(why, delay);
            }
        }
    }

    /// What was to take the place will not: whoever asked is told, and decides; else it is tried
    /// again.
    fn successor_failed(&mut self, why: String, delay: Duration) {
        let was_asked_for = self.renewal.is_some();
        self.report(Err(why));
        if was_asked_for && self.current.is_some() {
            self.keep_current();
        } else {
            self.successor = Successor::Wanted(delay);
        }
    }

    fn begin_trial(&mut self) {
        if let Successor::Trying(running) = &mut self.successor {
            running.member_mut().set_role(Role::OnTrial);
        }
    }

    fn successor_left(&mut self, reason: StopReason) {
        let Successor::Trying(running) = std::mem::replace(&mut self.successor, Successor::Nothing)
        else {
            return;
        };
        let delay = self.backoff.next(fastrand::f64());
        let why = self.note_end(running, reason);
        self.successor_failed(why.to_string(), delay);
    }

    /// The successor is up: it takes the place.
    fn take_over(&mut self) {
        let Successor::Trying(running) = std::mem::replace(&mut self.successor, Successor::Nothing)
        else {
            return;
        };
        if let Some(replaced) = self.install(running) {
            debug!(process = replaced.number(), "process replaced in turn");
            self.stop_aside(replaced, StopReason::Replaced);
        }
    }

    fn current_left(&mut self, reason: StopReason) {
        let Some(mut running) = self.current.take() else {
            return;
        };
        if reason == StopReason::Ended {
            // What it said at the end counts, for its standing too.
            running.read_a_turn();
        }
        let was_up = running.member().is_up();
        let was_up_in_time = was_up && reason == StopReason::Fault(Fault::TimedOut);
        let has_lived = running.started().elapsed() >= LIVED_WELL;
        if running.has_replied() || has_lived || was_up_in_time {
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

    /// Logs why a process has left by itself, and sees it to its end; says why.
    fn note_end(&mut self, mut running: Box<LiveProcess>, reason: StopReason) -> Cause {
        let number = running.number();
        match reason {
            StopReason::Ended => {
                let lived_ms = running.started().elapsed().as_millis() as u64;
                let was_up = running.member().is_up();
                let end = running.reap(!was_up);
                let is_repeated = end.repeated > 0;
                let repeated = is_repeated.then_some(end.repeated);
                let last_line = Some(&end.last_line).filter(|_| !is_repeated);
                let last_line = last_line.filter(|line| !line.is_empty());
                let status = &end.status;
                warn!(process = number, %status, lived_ms, last_line, repeated, "process ended");
                self.stop_aside(running, reason);
                if was_up {
                    return end.status.into();
                }
                // A one-shot command, most likely.
                let hint = if end.code == Some(0) {
                    ": a handler must go on reading requests from stdin until that ends"
                } else {
                    "; the log has what it printed"
                };
                let last_line = Some(&end.last_line).filter(|line| !line.is_empty());
                let last_line =
                    last_line.map(|line| format!("; the last line on its stderr: {line}"));
                let limit = self.starter.launcher.memory_limit();
                let limit = limit.filter(|_| end.code != Some(0));
                let limit = limit.map_or_else(String::new, |bytes| {
                    format!("; --limit-memory (FAAS_LIMIT_MEMORY) left it {bytes} bytes")
                });
                let before = format!("{}, before it was up", end.status);
                let general = format!("{before}{hint}{limit}");
                match last_line {
                    Some(line) if end.code != Some(0) => {
                        Cause::quoting(general, format!("{before}{line}{limit}"))
                    }
                    Some(line) => Cause::quoting(&*general, format!("{general}{line}")),
                    None => general.into(),
                }
            }
            StopReason::Fault(fault) => {
                warn!(process = number, reason = %fault, "process replaced");
                let is_slow = matches!(fault, Fault::TimedOut | Fault::TooSlowToStart);
                if is_slow && !running.has_replied() {
                    let age = running.started().elapsed();
                    self.starter.dispatcher.record_start(2 * age);
                }
                self.stop_aside(running, reason);
                fault.to_string().into()
            }
            StopReason::Replaced | StopReason::Stopped => {
                self.stop_aside(running, reason);
                Cause::from("")
            }
        }
    }

    /// Sees a process to its end, beside what comes next.
    fn stop_aside(&mut self, mut running: Box<LiveProcess>, reason: StopReason) {
        running.member_mut().retire();
        if !matches!(reason, StopReason::Stopped | StopReason::Ended) {
            // One that still ignores its end from before has had its time.
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

    /// The pool stops.
    async fn empty(mut self) {
        if let Some(current) = self.current.take() {
            debug!(process = current.number(), "process asked to end");
            self.stop_aside(current, StopReason::Stopped);
        }
        match std::mem::replace(&mut self.successor, Successor::Nothing) {
            Successor::Trying(running) => self.stop_aside(running, StopReason::Stopped),
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

impl IdleTime {
    fn now() -> IdleTime {
        let now = Instant::now();
        IdleTime {
            next_look: now + LOOK_PERIOD,
            taken: 0,
            idle_since: now,
            is_too_large: false,
        }
    }
}

/// Why a command cannot be executed; the PATH in it is for operators.
fn without_path(why: &str) -> Cause {
    let general = match why.split_once(" (PATH=") {
        Some((before, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{before}{after}")
        }
        None => why.to_owned(),
    };
    Cause::quoting(general, why)
}

fn look_period(idle_timeout: Duration) -> Duration {
    (idle_timeout / 4).clamp(Duration::from_millis(10), LOOK_PERIOD)
}
