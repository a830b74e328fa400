//! What a slot waits for: its process, a successor, a reload, the shutdown, all at the same time.
//!
//! Reports what has happened; decides nothing.

use super::departure::StopReason;
use super::live::{LiveProcess, START_PERMIT_TIME};
use super::retirement::Due;
use super::start::Started;
use super::{Slot, Successor};
use crate::pool::dispatch::Dispatcher;
use crate::pool::rollout::Renewal;
use crate::process::conversation::UP_AFTER;
use crate::shutdown::Stage;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// An event that a slot acts on.
#[derive(Debug)]
pub(super) enum SlotEvent {
    Stop,
    Renew(Renewal),
    /// The reload that asked for a renewal has been called off.
    RenewalGone,
    CurrentUp,
    CurrentLeft(StopReason),
    CurrentDue(Due),
    InspectionDue,
    Needed,
    StopWhenIdle,
    Started(Started),
    TrialDue,
    SuccessorUp,
    SuccessorLeft(StopReason),
    StopFinished,
}

impl Slot {
    /// Waits for the next event.
    // Cancel-safe: see the arms.
    pub(super) async fn next_event(&mut self) -> SlotEvent {
        let Slot {
            current,
            inspection,
            successor,
            renewal,
            renewals,
            stops_when_idle,
            leaving,
            starter,
            ..
        } = self;
        let interest = Interest {
            reports: renewal.is_some() && matches!(successor, Successor::Nothing),
            replaces: matches!(successor, Successor::Nothing),
            next_inspection: inspection.next,
        };
        // Cancel-safe: a process and a start keep their progress in themselves, a received
        // renewal is given out immediately, and the rest is only asked whether it has happened.
        tokio::select! {
            biased;
            // First: `stop` also cancels a pending start, which would otherwise be seen as finished
            // and requested again.
            () = starter.dispatcher.shutdown.reached(Stage::Stopping) => SlotEvent::Stop,
            // Successor before current: on trial, both are woken for the same call, and it is meant
            // for the successor.
            event = successor_event(successor, &starter.dispatcher) => event,
            event = current_event(current, &interest) => event,
            Some(renewal) = renewals.recv() => SlotEvent::Renew(renewal),
            () = starter.dispatcher.shutdown.reached(Stage::IdleStopped), if !*stops_when_idle => SlotEvent::StopWhenIdle,
            () = gone(renewal) => SlotEvent::RenewalGone,
            Some(_) = leaving.join_next() => SlotEvent::StopFinished,
        }
    }
}

/// Which events of the current process count.
struct Interest {
    /// Whether a reload waits for the process to be up.
    reports: bool,
    /// Whether the process is replaced when it is due; not while a successor is on its way.
    replaces: bool,
    next_inspection: Instant,
}

// Cancel-safe: all progress lives in the process.
async fn current_event(current: &mut Option<Box<LiveProcess>>, interest: &Interest) -> SlotEvent {
    let Some(current) = current else {
        return std::future::pending().await;
    };
    let came_up = current.member().came_up_token().clone();
    let has_taken_most = current.member().has_taken_most().clone();
    let end = current.lifetime().age.map(|age| current.started() + age);
    let old = async {
        match end {
            Some(end) => sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
    };
    // Cancel-safe: each of these keeps its progress in the process, or only asks.
    tokio::select! {
        biased;
        reason = current.serve() => SlotEvent::CurrentLeft(reason),
        () = came_up.cancelled(), if interest.reports => SlotEvent::CurrentUp,
        () = has_taken_most.cancelled(), if interest.replaces => SlotEvent::CurrentDue(Due::Requests),
        () = old, if interest.replaces => SlotEvent::CurrentDue(Due::Age),
        () = sleep_until(interest.next_inspection.into()), if interest.replaces => SlotEvent::InspectionDue,
    }
}

// Cancel-safe: all progress lives in the start and in the process.
async fn successor_event(successor: &mut Successor, dispatcher: &Dispatcher) -> SlotEvent {
    match successor {
        Successor::Nothing | Successor::Wanted(_) => std::future::pending().await,
        Successor::NotNeeded => match dispatcher.fills.acquire().await {
            Ok(permit) => {
                permit.forget();
                SlotEvent::Needed
            }
            Err(_) => std::future::pending().await,
        },
        Successor::Starting(start) => SlotEvent::Started(start.await),
        Successor::ComingUp(running) => {
            let came_up = running.member().came_up_token().clone();
            let trial = trial_begins(running, dispatcher);
            let is_tried = running.member().is_on_trial();
            // Cancel-safe: each of these keeps its progress in the process, or only asks.
            tokio::select! {
                biased;
                reason = running.serve() => SlotEvent::SuccessorLeft(reason),
                () = came_up.cancelled() => SlotEvent::SuccessorUp,
                () = sleep_until(trial.into()), if !is_tried => SlotEvent::TrialDue,
            }
        }
    }
}

/// When a silent successor may be given one request to show that it works: after the slowest first
/// answer seen in this pool. Where processes of this pool have sent ready lines, the successor has
/// [`UP_AFTER`] for its own; after that it counts as up by its age.
fn trial_begins(running: &LiveProcess, dispatcher: &Dispatcher) -> Instant {
    let patience = if dispatcher.has_seen_ready_line.load(Ordering::Relaxed) {
        UP_AFTER
    } else {
        let slowest = dispatcher.slowest_start().unwrap_or(Duration::ZERO);
        slowest.clamp(START_PERMIT_TIME, UP_AFTER)
    };
    running.started() + patience
}

// Cancel-safe: only asks whether the receiver has been dropped.
async fn gone(renewal: &mut Option<Renewal>) {
    match renewal {
        Some(renewal) => renewal.gone().await,
        None => std::future::pending().await,
    }
}
