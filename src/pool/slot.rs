//! One place in the pool, kept filled: start, watch, replace, stop.
//!
//! A slot decides what takes the place of what, and when; a process is signalled and reaped by its
//! [`Running`] alone. A process that must go leaves the slot at once and is seen to its end beside
//! its successor; where it can be helped, the successor comes up first. Few are leaving at a time,
//! so that a handler which ignores its end cannot pile up.

mod start;

use super::Shared;
use super::backoff::Backoff;
use super::member::Part;
use super::rollout::Renewal;
use super::running::{Departure, Farewell, Running, START_LASTS};
use crate::config::ProcessConfig;
use crate::process::launch::{LaunchError, Launcher};
use start::{Start, Started, Starter};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// A process that has lived this long has done well, whether or not it has served.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// Processes of one slot that may be leaving when another is started.
const MOST_LEAVING: usize = 1;

/// One place in the pool.
#[derive(Debug)]
pub(super) struct Slot {
    starter: Starter,
    grace: Duration,
    stop: CancellationToken,
    renewals: mpsc::Receiver<Renewal>,
    backoff: Backoff,
    /// The process that serves.
    current: Option<Box<Running>>,
    /// What is to take its place.
    next: Next,
    /// Who wants to know how that goes.
    renewal: Option<Renewal>,
    leaving: JoinSet<()>,
    /// Cancelled when those that are leaving have had their time.
    hurry: CancellationToken,
}

/// What is to take the place of the current process.
#[derive(Debug)]
enum Next {
    Nothing,
    /// One is to be started after this time, and when few enough are leaving.
    Wanted(Duration),
    Starting(Start),
    /// It runs, and is not up yet; there is a current process.
    Trying(Box<Running>),
}

/// What a slot acts on.
#[derive(Debug)]
enum Happening {
    Stop,
    Renew(Renewal),
    /// Nobody wants to know any more.
    RenewalGone,
    CurrentUp,
    CurrentLeft(Departure),
    Started(Started),
    TrialDue,
    NextUp,
    NextLeft(Departure),
    OneIsGone,
}

impl Slot {
    /// An empty place, filled by [`Slot::keep_filled`].
    pub(super) fn new(
        shared: Arc<Shared>,
        launcher: Launcher,
        config: ProcessConfig,
        stop: CancellationToken,
        renewals: mpsc::Receiver<Renewal>,
    ) -> Slot {
        Slot {
            grace: config.grace,
            hurry: shared.kill.child_token(),
            starter: Starter {
                shared,
                launcher,
                config,
            },
            stop,
            renewals,
            backoff: Backoff::default(),
            current: None,
            next: Next::Nothing,
            renewal: None,
            leaving: JoinSet::new(),
        }
    }

    /// Keeps a process running until the pool stops, then sees the last ones to their end.
    pub(super) async fn keep_filled(mut self) {
        loop {
            self.fill();
            match self.happens().await {
                Happening::Stop => break,
                Happening::Renew(renewal) => self.renew(renewal),
                Happening::RenewalGone => self.forget_renewal(),
                Happening::CurrentUp => self.report(Ok(())),
                Happening::CurrentLeft(departure) => self.current_left(departure),
                Happening::Started(started) => self.started(started),
                Happening::TrialDue => self.begin_trial(),
                Happening::NextUp => self.take_over(),
                Happening::NextLeft(departure) => self.next_left(departure),
                Happening::OneIsGone => {}
            }
        }
        self.empty().await;
    }

    /// Does what must be done without waiting: an empty place is taken or asked for.
    fn fill(&mut self) {
        if self.current.is_none() {
            match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Nothing => self.next = Next::Wanted(Duration::ZERO),
                Next::Trying(mut running) => {
                    running.member_mut().play(Part::Serving);
                    self.current = Some(running);
                }
                next @ (Next::Wanted(_) | Next::Starting(_)) => self.next = next,
            }
        }
        if let Next::Wanted(delay) = self.next
            && self.leaving.len() <= MOST_LEAVING
        {
            self.next = Next::Starting(self.starter.start(delay, &self.stop));
        }
    }

    async fn happens(&mut self) -> Happening {
        let Slot {
            current,
            next,
            renewal,
            renewals,
            leaving,
            stop,
            starter,
            ..
        } = self;
        let reports_current = renewal.is_some() && matches!(next, Next::Nothing);
        // Cancel-safe: a process and a start keep their progress in themselves, a received
        // renewal is given out at once, and the rest is only asked whether it has happened.
        tokio::select! {
            biased;
            // Before the current one: both are woken together, and the request is for this one.
            happening = next_happens(next, &starter.shared) => happening,
            happening = current_happens(current, reports_current) => happening,
            () = stop.cancelled() => Happening::Stop,
            Some(renewal) = renewals.recv() => Happening::Renew(renewal),
            () = gone(renewal) => Happening::RenewalGone,
            Some(_) = leaving.join_next() => Happening::OneIsGone,
        }
    }

    /// Somebody wants the process replaced by a new one of the same command.
    fn renew(&mut self, renewal: Renewal) {
        self.abandon_next();
        self.renewal = Some(renewal);
        // What failed before may have been mended.
        self.backoff.reset();
        self.supersede();
    }

    /// Asks for a successor of the current process, which goes on until that one is up.
    fn supersede(&mut self) {
        if let Some(current) = &mut self.current {
            current.member_mut().play(Part::Superseded);
        }
        self.next = Next::Wanted(Duration::ZERO);
    }

    fn forget_renewal(&mut self) {
        self.renewal = None;
        if self.current.is_some() {
            self.keep_current();
        }
    }

    /// No successor after all.
    fn keep_current(&mut self) {
        self.abandon_next();
        if let Some(current) = &mut self.current {
            current.member_mut().play(Part::Serving);
        }
    }

    fn abandon_next(&mut self) {
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing | Next::Wanted(_) => {}
            Next::Starting(start) => {
                // It may be running by now, and must be seen to its end.
                let abandoned = start.abandon();
                let farewell = self.farewell();
                self.leaving.spawn(async move {
                    if let Some(running) = abandoned.await {
                        running.leave(Departure::Replaced, farewell).await;
                    }
                });
            }
            Next::Trying(running) => self.send_off(running, Departure::Replaced),
        }
    }

    fn started(&mut self, started: Started) {
        self.next = Next::Nothing;
        let error = match started {
            Ok(Some(mut running)) if self.current.is_some() => {
                running.member_mut().play(Part::Candidate);
                self.next = Next::Trying(running);
                return;
            }
            Ok(running) => {
                self.current = running;
                return;
            }
            Err(error) => error,
        };
        let delay = self.backoff.next(fastrand::f64());
        match error {
            LaunchError::Command(why) => {
                if self.current.is_none() {
                    let note = why.clone();
                    let shared = &self.starter.shared;
                    if shared.note(|condition| condition.cannot_execute(note, delay)) {
                        error!(%why, "the handler's command cannot be executed");
                    }
                }
                self.next_failed(why, delay);
            }
            LaunchError::System(why) => {
                warn!(%why, retry_in = ?delay, "process not started");
                self.next = Next::Wanted(delay);
            }
        }
    }

    /// What was to take the place will not: whoever asked is told, and decides; else it is tried
    /// again.
    fn next_failed(&mut self, why: String, delay: Duration) {
        let was_asked_for = self.renewal.is_some();
        self.report(Err(why));
        if was_asked_for && self.current.is_some() {
            self.keep_current();
        } else {
            self.next = Next::Wanted(delay);
        }
    }

    fn begin_trial(&mut self) {
        if let Next::Trying(running) = &mut self.next {
            running.member_mut().play(Part::OnTrial);
        }
    }

    fn next_left(&mut self, departure: Departure) {
        let Next::Trying(running) = std::mem::replace(&mut self.next, Next::Nothing) else {
            return;
        };
        let delay = self.backoff.next(fastrand::f64());
        let why = self.see_off(running, departure);
        self.next_failed(why, delay);
    }

    /// The successor is up: it takes the place.
    fn take_over(&mut self) {
        let Next::Trying(running) = std::mem::replace(&mut self.next, Next::Nothing) else {
            return;
        };
        if let Some(replaced) = self.current.replace(running) {
            debug!(process = replaced.number(), "process replaced in turn");
            self.send_off(replaced, Departure::Replaced);
        }
    }

    fn current_left(&mut self, departure: Departure) {
        let Some(mut running) = self.current.take() else {
            return;
        };
        if departure == Departure::Ended {
            // What it said at the end counts, for its standing too.
            running.read_rest();
        }
        let was_up = running.member().is_up();
        if running.has_replied() || running.started().elapsed() >= LIVED_WELL {
            self.backoff.reset();
        }
        let delay = self.backoff.next(fastrand::f64());
        let why = self.see_off(running, departure);
        if !was_up {
            let note = why.clone();
            let shared = &self.starter.shared;
            shared.note(|condition| condition.start_failed(note, delay));
        }
        if matches!(self.next, Next::Nothing) {
            self.report(Err(why));
            self.next = Next::Wanted(delay);
        }
    }

    /// Logs why a process has left by itself, and sees it to its end; says why.
    fn see_off(&mut self, mut running: Box<Running>, departure: Departure) -> String {
        let number = running.number();
        match departure {
            Departure::Ended => {
                let lived_ms = running.started().elapsed().as_millis();
                let was_up = running.member().is_up();
                let (status, last_line) = running.bury(departure);
                let last_line = (!last_line.is_empty()).then_some(last_line);
                warn!(process = number, %status, lived_ms, last_line, "process ended");
                if was_up {
                    return status;
                }
                format!("{status}, before it was up; the log has what it printed")
            }
            Departure::Fault(fault) => {
                warn!(process = number, reason = %fault, "process replaced");
                self.send_off(running, departure);
                fault.to_string()
            }
            Departure::Replaced | Departure::Stopped => {
                self.send_off(running, departure);
                String::new()
            }
        }
    }

    /// Sees a process to its end, beside what comes next.
    fn send_off(&mut self, mut running: Box<Running>, departure: Departure) {
        running.member_mut().retire();
        if departure != Departure::Stopped {
            // One that still ignores its end from before has had its time.
            self.hurry.cancel();
            self.hurry = self.starter.shared.kill.child_token();
        }
        let farewell = self.farewell();
        self.leaving.spawn(running.leave(departure, farewell));
    }

    fn farewell(&self) -> Farewell {
        Farewell {
            grace: self.grace,
            stop: self.stop.clone(),
            hurry: self.hurry.clone(),
            kill: self.starter.shared.kill.clone(),
        }
    }

    fn report(&mut self, outcome: Result<(), String>) {
        if let Some(renewal) = self.renewal.take() {
            renewal.report(outcome);
        }
    }

    /// The pool stops.
    async fn empty(mut self) {
        if let Some(current) = self.current.take() {
            debug!(process = current.number(), "process asked to end");
            self.send_off(current, Departure::Stopped);
        }
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Trying(running) => self.send_off(running, Departure::Stopped),
            next @ (Next::Nothing | Next::Wanted(_) | Next::Starting(_)) => {
                self.next = next;
                self.abandon_next();
            }
        }
        self.report(Err("the worker is shutting down".to_owned()));
        while self.leaving.join_next().await.is_some() {}
    }
}

// Cancel-safe: all progress lives in the process.
async fn current_happens(current: &mut Option<Box<Running>>, reports_current: bool) -> Happening {
    let Some(current) = current else {
        return std::future::pending().await;
    };
    let came_up = current.member().coming_up().clone();
    // Cancel-safe, see there.
    tokio::select! {
        biased;
        departure = current.serve() => Happening::CurrentLeft(departure),
        () = came_up.cancelled(), if reports_current => Happening::CurrentUp,
    }
}

// Cancel-safe: all progress lives in the start and in the process.
async fn next_happens(next: &mut Next, shared: &Shared) -> Happening {
    match next {
        Next::Nothing | Next::Wanted(_) => std::future::pending().await,
        Next::Starting(start) => Happening::Started(start.await),
        Next::Trying(running) => {
            let came_up = running.member().coming_up().clone();
            let trial = trial_begins(running, shared);
            let is_tried = running.member().is_on_trial();
            // Cancel-safe, see there.
            tokio::select! {
                biased;
                departure = running.serve() => Happening::NextLeft(departure),
                () = came_up.cancelled() => Happening::NextUp,
                () = sleep_until(trial.into()), if !is_tried => Happening::TrialDue,
            }
        }
    }
}

/// When a successor that has said nothing may be given a request, to show that it can answer one:
/// as late as the slowest one was to answer its first. Where processes of this pool have sent
/// ready lines, the one of this process is waited for; without one it counts as up by its age.
fn trial_begins(running: &Running, shared: &Shared) -> Instant {
    let patience = if shared.announces.load(Ordering::Relaxed) {
        LIVED_WELL
    } else {
        let slowest = shared.slowest_start().unwrap_or(Duration::ZERO);
        slowest.clamp(START_LASTS, LIVED_WELL)
    };
    running.started() + patience
}

// Cancel-safe: only asks whether the other side is gone.
async fn gone(renewal: &mut Option<Renewal>) {
    match renewal {
        Some(renewal) => renewal.gone().await,
        None => std::future::pending().await,
    }
}
