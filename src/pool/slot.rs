//! One place in the pool, kept filled: start, watch, stop, replace.
//!
//! A slot alone signals and reaps its processes. A process that must go leaves the slot at once
//! and is seen to its end beside its successor; each slot has at most one that is leaving in
//! peace, so that a handler which ignores its end cannot pile up.

use super::Shared;
use super::backoff::Backoff;
use crate::config::ProcessConfig;
use crate::process::call::Call;
use crate::process::conversation::{Fault, Limits};
use crate::process::handler_log::ErrorOutput;
use crate::process::launch::{ExitWatch, LaunchError, Launched, Launcher, Process, describe};
use crate::process::owner::{Feed, Load, Owner};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// A process that sends no ready line counts as starting for this long, for the limit of starts
/// at the same time.
const START_LASTS: Duration = Duration::from_millis(100);

/// A process that has closed a pipe is given this long to end by itself, so that the cause can be
/// told.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A process that has lived this long has done well, whether or not it has served.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// One place in the pool.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    pub(super) launcher: Launcher,
    pub(super) config: ProcessConfig,
    pub(super) stop: CancellationToken,
}

/// A process in a slot.
#[derive(Debug)]
struct Running {
    number: u64,
    process: Process,
    exit: ExitWatch,
    owner: Owner<Member>,
    errors: ErrorOutput,
    started: Instant,
}

/// Why a process no longer serves.
#[derive(Debug, Clone, Copy)]
enum Departure {
    /// It has ended by itself.
    Ended,
    /// It can no longer be trusted.
    Fault(Fault),
    /// The pool stops.
    Stopped,
}

/// How long a process may take to leave.
#[derive(Debug)]
struct Farewell {
    grace: Duration,
    /// Cancelled when the pool stops: what is not finished a grace later never will be.
    stop: CancellationToken,
    /// Cancelled when a successor must leave too: no more grace, but requests are finished.
    hurry: CancellationToken,
    /// Cancelled when every process must end at once.
    kill: CancellationToken,
}

impl Slot {
    /// Keeps a process running until the pool stops, then sees the last ones to their end.
    pub(super) async fn keep_filled(self) {
        let mut backoff = Backoff::default();
        let mut leaving = JoinSet::new();
        let mut hurry = CancellationToken::new();
        while let Some(running) = self.start(&mut backoff).await {
            let delay = self
                .occupy(running, &mut backoff, &mut leaving, &mut hurry)
                .await;
            if self.stop.run_until_cancelled(sleep(delay)).await.is_none() {
                break;
            }
            // Each slot has its process and at most one that is leaving; when that one still has
            // requests to finish, the next waits for it.
            while leaving.len() > 1 && !self.stop.is_cancelled() {
                self.stop.run_until_cancelled(leaving.join_next()).await;
            }
        }
        while leaving.join_next().await.is_some() {}
    }

    /// Starts a process, however often that takes; `None` when the pool stops.
    async fn start(&self, backoff: &mut Backoff) -> Option<Running> {
        loop {
            let starts = Arc::clone(&self.shared.starts);
            let permit = self
                .stop
                .run_until_cancelled(starts.acquire_owned())
                .await?
                .ok();
            // Not given up when the pool stops: what was started must be seen to its end.
            let launched = self.launcher.launch().await;
            let running = launched.and_then(|launched| {
                Running::new(launched, &self.config, Arc::clone(&self.shared), permit)
            });
            let error = match running {
                Ok(running) => return Some(running),
                Err(error) => error,
            };
            let delay = backoff.next(fastrand::f64());
            match error {
                LaunchError::Command(why) => {
                    let note = why.clone();
                    if self
                        .shared
                        .note(|condition| condition.cannot_execute(note, delay))
                    {
                        error!(%why, "the handler's command cannot be executed");
                    }
                }
                LaunchError::System(why) => {
                    warn!(%why, retry_in = ?delay, "process not started");
                }
            }
            self.stop.run_until_cancelled(sleep(delay)).await?;
        }
    }

    /// Lets a process serve until it no longer can, sends it on its way, and says how long to
    /// wait before the next start.
    async fn occupy(
        &self,
        mut running: Running,
        backoff: &mut Backoff,
        leaving: &mut JoinSet<()>,
        hurry: &mut CancellationToken,
    ) -> Duration {
        let departure = running.serve(&self.stop).await;
        if matches!(departure, Departure::Ended) {
            // What it said at the end counts, for its standing too.
            running.owner.read_rest();
        }
        let lived = running.started.elapsed();
        let was_up = running.owner.feed().is_up();
        running.owner.feed_mut().leave();
        if running.owner.has_replied() || lived >= LIVED_WELL {
            backoff.reset();
        }
        let delay = match departure {
            Departure::Ended | Departure::Fault(_) => backoff.next(fastrand::f64()),
            Departure::Stopped => Duration::ZERO,
        };
        let grace = self.config.grace;
        let shared = &self.shared;
        let number = running.number;
        match departure {
            Departure::Ended => {
                let (status, last_line) = running.bury("");
                let lived_ms = lived.as_millis();
                let last_line = (!last_line.is_empty()).then_some(last_line);
                warn!(process = number, %status, lived_ms, last_line, "process ended");
                if !was_up {
                    let why = format!("{status}, before it was up; the log has what it printed");
                    shared.note(|condition| condition.start_failed(why, delay));
                }
                return delay;
            }
            Departure::Fault(fault) => {
                warn!(process = number, reason = %fault, "process replaced");
                if !was_up {
                    let why = fault.to_string();
                    shared.note(|condition| condition.start_failed(why, delay));
                }
            }
            Departure::Stopped => debug!(process = number, "process asked to end"),
        }
        // One that still ignores its end from before has had its time.
        if !matches!(departure, Departure::Stopped) {
            hurry.cancel();
            *hurry = shared.kill.child_token();
        }
        let farewell = Farewell {
            grace,
            stop: self.stop.clone(),
            hurry: hurry.clone(),
            kill: shared.kill.clone(),
        };
        leaving.spawn(running.leave(departure, farewell));
        delay
    }
}

impl Running {
    fn new(
        launched: Launched,
        config: &ProcessConfig,
        shared: Arc<Shared>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Running, LaunchError> {
        let Launched {
            process,
            stdin,
            stdout,
            stderr,
        } = launched;
        let failed = |error| LaunchError::System(format!("cannot watch the process: {error}"));
        let stdin = Sender::from_owned_fd(stdin).map_err(failed)?;
        let stdout = Receiver::from_owned_fd(stdout).map_err(failed)?;
        let stderr = Receiver::from_owned_fd(stderr).map_err(failed)?;
        let exit = process.watch_exit().map_err(failed)?;
        let limits = Limits {
            max_concurrency: config.max_concurrency.get(),
            wait_ready: config.wait_ready,
            startup_timeout: config.startup_timeout,
            max_reply_bytes: config.max_reply_bytes,
        };
        let member = Member::join(shared, permit);
        let number = member.number;
        info!(process = number, pid = process.id(), "process started");
        Ok(Running {
            number,
            process,
            exit,
            owner: Owner::new(number, stdin, stdout, limits, member),
            errors: ErrorOutput::new(number, stderr),
            started: Instant::now(),
        })
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Departure {
        // Beyond this, waiting for a ready line does not hold up the starts of others for longer.
        let start_lasts = sleep(START_LASTS);
        tokio::pin!(start_lasts);
        let mut is_starting = true;
        loop {
            // Cancel-safe: each of these keeps its progress in what it borrows.
            tokio::select! {
                biased;
                () = self.exit.ended() => return Departure::Ended,
                fault = self.owner.serve() => return self.depart_at_fault(fault).await,
                () = stop.cancelled() => return Departure::Stopped,
                () = self.errors.run() => {}
                () = &mut start_lasts, if is_starting => is_starting = false,
            }
            self.owner.feed_mut().permit = None;
        }
    }

    /// A process that closes its pipes is mostly about to end: then how it ends says more.
    async fn depart_at_fault(&mut self, fault: Fault) -> Departure {
        let is_closing = matches!(fault, Fault::InputClosed | Fault::OutputClosed);
        if is_closing && timeout(LAST_WORDS, self.exit.ended()).await.is_ok() {
            return Departure::Ended;
        }
        Departure::Fault(fault)
    }

    /// Sees a process to its end.
    async fn leave(mut self, departure: Departure, farewell: Farewell) {
        let begun = Instant::now();
        let (grace, hurry) = (farewell.grace, &farewell.hurry);
        let has_ended = match departure {
            Departure::Ended => true,
            Departure::Stopped => {
                self.owner.retire();
                self.ends_within(grace / 2, hurry).await
            }
            Departure::Fault(_) => self.finish(&farewell).await,
        };
        let is_fault = matches!(departure, Departure::Fault(_));
        // Somebody who waits for a process at fault is answered at its end: that must come now.
        let must_end_now = has_ended || is_fault && self.owner.is_awaited();
        if !must_end_now {
            self.process.signal_group(Signal::TERM);
            let left = if is_fault {
                grace
            } else {
                grace.saturating_sub(begun.elapsed())
            };
            self.ends_within(left, hurry).await;
        }
        self.process.signal_group(Signal::KILL);
        self.exit.ended().await;
        let what = match departure {
            Departure::Ended => String::new(),
            Departure::Stopped => {
                "the worker is shutting down, and stopped the process: ".to_owned()
            }
            Departure::Fault(fault) => format!("{fault}: "),
        };
        let (status, _) = self.bury(&what);
        info!(process = self.number, %status, "process stopped");
    }

    /// Lets the process finish what it has; true if it has ended meanwhile.
    async fn finish(&mut self, farewell: &Farewell) -> bool {
        let stopped = async {
            farewell.stop.cancelled().await;
            sleep(farewell.grace).await;
        };
        // Cancel-safe: each of these keeps its progress in what it borrows.
        tokio::select! {
            biased;
            () = self.exit.ended() => true,
            () = self.owner.finish() => false,
            () = farewell.kill.cancelled() => false,
            () = stopped => false,
            () = self.errors.run() => false,
        }
    }

    /// Waits for the end of the process, delivering what it still answers; true if it has ended.
    async fn ends_within(&mut self, limit: Duration, hurry: &CancellationToken) -> bool {
        // Cancel-safe: each of these keeps its progress in what it borrows.
        tokio::select! {
            biased;
            () = self.exit.ended() => true,
            () = hurry.cancelled() => false,
            () = sleep(limit) => false,
            () = self.owner.keep_reading() => false,
            () = self.errors.run() => false,
        }
    }

    /// Kills what is left of the group, reaps the process, delivers its last answers, and gives
    /// what it never started to others. Says how it ended, and the last line on its stderr.
    fn bury(&mut self, what: &str) -> (String, String) {
        let status = describe(&self.process.reap());
        self.errors.finish();
        let never_started = self.owner.bury(&format!("{what}{status}"));
        self.owner.feed().shared.hand_back(never_started);
        (status, self.errors.last_line().to_owned())
    }
}

/// A process as the pool knows it. Leaves the pool when dropped.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    number: u64,
    standing: Membership,
    /// Held while the process is starting.
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    Starting,
    Up,
    Left,
}

impl Member {
    fn join(shared: Arc<Shared>, permit: Option<OwnedSemaphorePermit>) -> Member {
        let mut state = shared.lock();
        let number = state.next_process;
        state.next_process += 1;
        state.condition.started();
        drop(state);
        Member {
            shared,
            number,
            standing: Membership::Starting,
            permit,
        }
    }

    fn is_up(&self) -> bool {
        self.standing == Membership::Up
    }
}

impl Feed for Member {
    fn poll_take(&mut self, cx: &mut Context<'_>, load: Load) -> Poll<Call> {
        self.shared.poll_take(cx, self.number, load)
    }

    fn leave(&mut self) {
        let standing = std::mem::replace(&mut self.standing, Membership::Left);
        self.permit = None;
        if standing == Membership::Left {
            return;
        }
        let mut state = self.shared.lock();
        state.available.unlist(self.number);
        // It may have been woken for a request that it will not take now.
        let other = if state.queue.is_empty() {
            None
        } else {
            state.available.next()
        };
        drop(state);
        if let Some(other) = other {
            other.wake();
        }
        self.shared
            .note(|condition| condition.left(standing == Membership::Up));
    }

    fn came_up(&mut self, shown_after: Option<Duration>) {
        self.permit = None;
        let mut state = self.shared.lock();
        if self.standing == Membership::Starting {
            self.standing = Membership::Up;
            state.condition.came_up();
        }
        drop(state);
        if let Some(took) = shown_after {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX - 1);
            self.shared
                .slowest_start
                .fetch_max(millis + 1, Ordering::Relaxed);
        }
        debug!(process = self.number, ?shown_after, "process is up");
    }

    fn slowest_start(&self) -> Option<Duration> {
        let millis = self
            .shared
            .slowest_start
            .load(Ordering::Relaxed)
            .checked_sub(1);
        millis.map(Duration::from_millis)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
