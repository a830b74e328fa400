//! What a slot waits for, all at once.
//!
//! Decides nothing: says what has happened.

use super::start::Started;
use super::{LIVED_WELL, Next, Slot};
use crate::pool::Shared;
use crate::pool::lifetime::Due;
use crate::pool::rollout::Renewal;
use crate::pool::running::{Departure, Running, START_LASTS};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// What a slot acts on.
#[derive(Debug)]
pub(super) enum Happening {
    Stop,
    Renew(Renewal),
    /// Nobody wants to know any more.
    RenewalGone,
    CurrentUp,
    CurrentLeft(Departure),
    CurrentDue(Due),
    LookDue,
    Needed,
    Drains,
    Started(Started),
    TrialDue,
    NextUp,
    NextLeft(Departure),
    OneIsGone,
}

impl Slot {
    /// Waits for the next thing to act on.
    // Cancel-safe: see the arms.
    pub(super) async fn happens(&mut self) -> Happening {
        let Slot {
            current,
            activity,
            next,
            renewal,
            renewals,
            is_draining,
            leaving,
            stop,
            starter,
            ..
        } = self;
        let watch = Watch {
            reports: renewal.is_some() && matches!(next, Next::Nothing),
            replaces: matches!(next, Next::Nothing),
            next_look: activity.next_look,
        };
        // Cancel-safe: a process and a start keep their progress in themselves, a received
        // renewal is given out at once, and the rest is only asked whether it has happened.
        tokio::select! {
            biased;
            // Before a start, which is given up at once then, and would be asked for again.
            () = stop.cancelled() => Happening::Stop,
            // Before the current one: both are woken together, and the request is for this one.
            happening = next_happens(next, &starter.shared) => happening,
            happening = current_happens(current, &watch) => happening,
            Some(renewal) = renewals.recv() => Happening::Renew(renewal),
            () = starter.shared.drain.cancelled(), if !*is_draining => Happening::Drains,
            () = gone(renewal) => Happening::RenewalGone,
            Some(_) = leaving.join_next() => Happening::OneIsGone,
        }
    }
}

/// What is looked for at the current process.
struct Watch {
    /// Whether somebody wants to know when it is up.
    reports: bool,
    /// Whether it is replaced when it is due; not while something is to take its place anyway.
    replaces: bool,
    next_look: Instant,
}

// Cancel-safe: all progress lives in the process.
async fn current_happens(current: &mut Option<Box<Running>>, watch: &Watch) -> Happening {
    let Some(current) = current else {
        return std::future::pending().await;
    };
    let came_up = current.member().coming_up().clone();
    let spent = current.member().spent().clone();
    let end = current.lifetime().age.map(|age| current.started() + age);
    let old = async {
        match end {
            Some(end) => sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
    };
    // Cancel-safe, see there.
    tokio::select! {
        biased;
        departure = current.serve() => Happening::CurrentLeft(departure),
        () = came_up.cancelled(), if watch.reports => Happening::CurrentUp,
        () = spent.cancelled(), if watch.replaces => Happening::CurrentDue(Due::Requests),
        () = old, if watch.replaces => Happening::CurrentDue(Due::Age),
        () = sleep_until(watch.next_look.into()), if watch.replaces => Happening::LookDue,
    }
}

// Cancel-safe: all progress lives in the start and in the process.
async fn next_happens(next: &mut Next, shared: &Shared) -> Happening {
    match next {
        Next::Nothing | Next::Wanted(_) => std::future::pending().await,
        Next::NotNeeded => match shared.turns.acquire().await {
            Ok(turn) => {
                turn.forget();
                Happening::Needed
            }
            Err(_) => std::future::pending().await,
        },
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
