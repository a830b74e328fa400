//! A process from the moment it runs to the moment it is reaped.
//!
//! The only place of the pool that signals and reaps. What takes the process's place, and when, is
//! up to the slot.

use super::member::{Member, Role};
use super::retirement::Lifetime;
use crate::cause::Cause;
use crate::config::ProcessConfig;
use crate::pool::dispatch::Dispatcher;
use crate::process::conversation::{ConversationConfig, Fault};
use crate::process::launch::{ExitWatch, LaunchError, Launched, Process, describe, measure_memory};
use crate::process::output_log::{ErrorOutput, LogAllowance, StreamLog};
use crate::process::owner::Owner;
use crate::shutdown::{Shutdown, Stage};
use rustix::process::Signal;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A process that sends no ready line counts as starting for this long, for the limit of starts
/// at the same time.
pub(super) const START_LASTS: Duration = Duration::from_millis(100);

/// A process that has closed a pipe is given this long to end by itself, so that the cause can be
/// told.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A running process, its pipes, and its place in the pool.
#[derive(Debug)]
pub(super) struct LiveProcess {
    number: u64,
    process: Process,
    exit: ExitWatch,
    owner: Owner<Member>,
    errors: ErrorOutput,
    started: Instant,
    lifetime: Lifetime,
    /// Measured at the last look; 0 before that.
    resident_bytes: Arc<AtomicU64>,
    /// How it ended, once it is reaped.
    end: Option<End>,
}

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// In words.
    pub(super) status: String,
    /// The status that it exited with, unless a signal ended it.
    pub(super) code: Option<i32>,
    /// The last line on its stderr, since the oldest request that it works on if there is one.
    pub(super) last_line: String,
    /// How many failed starts in a row before it have printed the same, which is logged once.
    pub(super) repeated: u64,
}

/// Why a process no longer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// It has ended by itself.
    Ended,
    /// It can no longer be trusted.
    Fault(Fault),
    /// Another has taken its place, or nobody needs it.
    Replaced,
    /// The pool stops.
    Stopped,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Ended => Ok(()),
            StopReason::Fault(fault) => write!(f, "{fault}: "),
            StopReason::Replaced => f.write_str("the worker replaced the process: "),
            StopReason::Stopped => {
                f.write_str("the worker is shutting down, and stopped the process: ")
            }
        }
    }
}

/// How long a process may take to leave.
#[derive(Debug)]
pub(super) struct StopPolicy {
    pub(super) grace: Duration,
    /// Cancelled when a successor must leave too: no more grace, but requests are finished.
    pub(super) hurry: CancellationToken,
    pub(super) shutdown: Shutdown,
}

impl LiveProcess {
    pub(super) fn new(
        launched: Launched,
        config: &ProcessConfig,
        dispatcher: Arc<Dispatcher>,
        role: Role,
        permit: Option<OwnedSemaphorePermit>,
        allowance: LogAllowance,
    ) -> Result<LiveProcess, LaunchError> {
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
        let limits = ConversationConfig {
            max_concurrency: config.max_concurrency.get(),
            read_ahead: config.read_ahead.get(),
            wait_ready: config.wait_ready,
            startup_timeout: config.startup_timeout,
            max_reply_bytes: config.max_reply_bytes,
        };
        let lifetime = Lifetime::new(&config.recycle, fastrand::f64());
        let budget = dispatcher.budget().clone();
        let failed_output = dispatcher.failed_output.clone();
        let member = Member::join(dispatcher, role, permit, lifetime.requests);
        let number = member.number();
        let pid = process.id();
        info!(process = number, pid, "process started");
        let log = StreamLog::new(number, "stdout", allowance.clone());
        Ok(LiveProcess {
            number,
            process,
            exit,
            owner: Owner::new(log, pid, stdin, stdout, limits, budget, member),
            errors: ErrorOutput::new(number, stderr, allowance, failed_output),
            started: Instant::now(),
            lifetime,
            resident_bytes: Arc::default(),
            end: None,
        })
    }

    /// The number by which the log names the process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// When the process was started.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// How long it may serve.
    pub(super) fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Memory that it and all below it had at the last look, in bytes; asks for the next one. `None`
    /// before it was measured.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        measure_memory(self.process.id(), &self.resident_bytes);
        Some(self.resident_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// True while it works on a request.
    pub(super) fn is_busy(&self) -> bool {
        self.owner.is_busy()
    }

    /// Its place in the pool.
    pub(super) fn member(&self) -> &Member {
        self.owner.source()
    }

    /// Its place in the pool.
    pub(super) fn member_mut(&mut self) -> &mut Member {
        self.owner.source_mut()
    }

    /// True when the process has answered at least one request.
    pub(super) fn has_replied(&self) -> bool {
        self.owner.has_replied()
    }

    /// Reads and delivers what the process has left on its stdout, as much as a turn allows.
    pub(super) fn read_a_turn(&mut self) {
        self.owner.read_a_turn();
    }

    /// Lets the process serve until it no longer can; never ends with anything but
    /// [`StopReason::Ended`] or [`StopReason::Fault`].
    // Cancel-safe: all progress lives in self.
    pub(super) async fn serve(&mut self) -> StopReason {
        // Beyond this, waiting for a ready line does not hold up the starts of others for longer.
        let start_lasts = sleep_until((self.started + START_LASTS).into());
        tokio::pin!(start_lasts);
        let mut is_starting = true;
        loop {
            // Cancel-safe: each of these keeps its progress in what it borrows.
            tokio::select! {
                biased;
                () = self.exit.ended() => return StopReason::Ended,
                fault = self.owner.serve() => return self.depart_at_fault(fault).await,
                never = self.errors.run() => match never {},
                () = &mut start_lasts, if is_starting => is_starting = false,
            }
            self.owner.source_mut().end_start();
        }
    }

    /// A process that closes its pipes is mostly about to end: then how it ends says more.
    async fn depart_at_fault(&mut self, fault: Fault) -> StopReason {
        let is_closing = matches!(fault, Fault::InputClosed | Fault::OutputClosed);
        if is_closing && timeout(LAST_WORDS, self.exit.ended()).await.is_ok() {
            return StopReason::Ended;
        }
        StopReason::Fault(fault)
    }

    /// Sees a process to its end.
    pub(super) async fn stop(mut self: Box<Self>, reason: StopReason, policy: StopPolicy) {
        let (grace, hurry) = (policy.grace, &policy.hurry);
        let mut begun = Instant::now();
        let has_ended = match reason {
            StopReason::Ended => true,
            StopReason::Stopped => self.retire(&policy).await,
            StopReason::Replaced => {
                // Its requests first: the time for its end begins when it has none.
                let has_ended = self.finish(&policy).await;
                begun = Instant::now();
                has_ended || self.retire(&policy).await
            }
            StopReason::Fault(_) => self.finish(&policy).await,
        };
        let is_fault = matches!(reason, StopReason::Fault(_));
        // Somebody who waits for a process at fault is answered at its end: that must come now.
        let must_end_now = has_ended || is_fault && self.owner.is_awaited();
        if !must_end_now {
            // The end of its stdin tells that the signal is meant for this process, and not for a
            // whole service. At fault it has nothing that somebody waits for or that others take.
            if is_fault {
                self.owner.close_stdin();
            }
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
        let status = self.reap(false).status;
        self.settle(reason).await;
        if reason != StopReason::Ended {
            info!(process = self.number, %status, "process stopped");
        }
    }

    /// Asks the process to end by closing its stdin; true if it does within half the grace.
    async fn retire(&mut self, policy: &StopPolicy) -> bool {
        self.owner.retire();
        let ends = self.ends_within(policy.grace / 2, &policy.hurry);
        // Cancel-safe: all progress lives in self.
        let ended = policy.shutdown.run_until(Stage::Terminating, ends).await;
        ended.unwrap_or(false)
    }

    /// Lets the process finish what it has; true if it has ended meanwhile.
    async fn finish(&mut self, policy: &StopPolicy) -> bool {
        let stopped = async {
            // Requests that are not finished a grace after the pool stops never will be.
            policy.shutdown.reached(Stage::Stopping).await;
            sleep(policy.grace).await;
        };
        // Cancel-safe: each of these keeps its progress in what it borrows.
        tokio::select! {
            biased;
            () = self.exit.ended() => true,
            () = self.owner.finish() => false,
            () = policy.shutdown.reached(Stage::Terminating) => false,
            () = stopped => false,
            never = self.errors.run() => match never {},
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
            never = self.owner.keep_reading() => match never {},
            never = self.errors.run() => match never {},
        }
    }

    /// Kills what is left of the group and reaps the process, which must have ended; says how.
    /// `has_failed` if it has ended by itself before it was up.
    pub(super) fn reap(&mut self, has_failed: bool) -> End {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let death = self.process.reap();
        let repeated = self.errors.finish(has_failed);
        // What an earlier request printed is not this one's.
        let working_since = self.owner.working_since();
        let end = End {
            status: describe(&death),
            code: death.ok().and_then(|death| death.code()),
            last_line: self.errors.last_line(working_since).to_owned(),
            repeated,
        };
        self.end.insert(end).clone()
    }

    /// Delivers the last answers of the process, which is reaped, and gives what it never started
    /// to others.
    // Not cancel-safe, see there.
    async fn settle(&mut self, reason: StopReason) {
        let End { status, .. } = self.reap(false);
        let cause = self.cause(&format!("{reason}{status}"));
        let never_started = self.owner.settle(&cause).await;
        self.owner.source().dispatcher().hand_back(never_started);
    }

    /// Why a request has failed that it had. What it printed last is for operators, and only where
    /// that can be of no other caller's request.
    fn cause(&self, status: &str) -> Cause {
        let last_line = self.end.as_ref().map_or("", |end| &end.last_line);
        if last_line.is_empty() || self.owner.is_shared() {
            return status.into();
        }
        Cause::quoting(
            status,
            format!("{status}, the last line on its stderr: {last_line}"),
        )
    }
}
