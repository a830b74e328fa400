//! A live process: from the moment it runs to the moment it is reaped.
//!
//! Nothing else in the pool signals and reaps. The slot decides when a process is replaced, and by
//! which.

use super::departure::{ProcessEnd, StopReason};
use super::member::{Member, Role};
use super::retirement::Lifetime;
use crate::cause::Cause;
use crate::config::ProcessConfig;
use crate::pool::dispatch::Dispatcher;
use crate::pool::status::{ProcessStatus, SlotFacts};
use crate::process::conversation::{ConversationConfig, Fault, ReadAheadWindow};
use crate::process::launch::{LaunchError, Launched, Watched};
use crate::process::memory::measure_memory;
use crate::process::output_log::{ErrorOutput, LogAllowance, ProcessLog, StreamLog};
use crate::process::owner::Owner;
use crate::process::reaping::{Death, EXIT_AFTER_CLOSE_TIME, ExitWatch, Process, describe};
use crate::process::repeats::StartEnd;
use crate::shutdown::{Shutdown, Stage};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A process without a ready line holds its permit to start for this long.
pub(super) const START_PERMIT_TIME: Duration = Duration::from_millis(100);

/// A running process, its pipes, and its membership of the pool.
#[derive(Debug)]
pub(super) struct LiveProcess {
    number: u64,
    process: Process,
    exit: ExitWatch,
    owner: Owner<Member>,
    started: Instant,
    lifetime: Lifetime,
    /// Resident memory at the last measurement, in bytes; 0 before the first.
    resident_bytes: Arc<AtomicU64>,
    /// How the process ended; set when it is reaped.
    end: Option<ProcessEnd>,
}

/// How a process is stopped, and how long that may take.
#[derive(Debug)]
pub(super) struct StopPolicy {
    pub(super) grace: Duration,
    /// Cancelled when the next process of the slot has to stop too: no more grace, but requests are
    /// finished.
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
        facts: SlotFacts,
    ) -> Result<LiveProcess, LaunchError> {
        let Watched {
            process,
            exit,
            stdin,
            stdout,
            stderr,
        } = launched.watched()?;
        let limits = ConversationConfig {
            max_concurrency: config.max_concurrency.get(),
            read_ahead: config.read_ahead.get(),
            window: ReadAheadWindow::Measured,
            wait_ready: config.wait_ready,
            startup_timeout: config.startup_timeout,
            max_reply_bytes: config.max_reply_bytes,
        };
        let lifetime = Lifetime::new(&config.recycle, fastrand::f64());
        let budget = dispatcher.budget.clone();
        let failed_output = dispatcher.failed_output.clone();
        let pid = process.id();
        let status = ProcessStatus::new(facts, pid);
        let resident_bytes = Arc::clone(status.resident_bytes());
        let member = Member::join(dispatcher, role, permit, lifetime.requests, status);
        let number = member.number();
        info!(process = number, pid, "process started");
        let log = ProcessLog {
            stdout: StreamLog::new(number, "stdout", allowance.clone()),
            stderr: ErrorOutput::new(number, stderr, config.log, allowance, failed_output),
        };
        Ok(LiveProcess {
            number,
            process,
            exit,
            owner: Owner::new(log, pid, stdin, stdout, limits, budget, member),
            started: Instant::now(),
            lifetime,
            resident_bytes,
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

    /// The limits at which the process is replaced.
    pub(super) fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Resident memory of the process and its descendants at the last measurement, in bytes; begins
    /// the next measurement. `None` before the first.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        measure_memory(self.process.id(), &self.resident_bytes);
        Some(self.resident_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// True while the process has an unanswered request.
    pub(super) fn is_busy(&self) -> bool {
        self.owner.is_busy()
    }

    /// The process's membership of the pool.
    pub(super) fn member(&self) -> &Member {
        self.owner.source()
    }

    /// The process's membership of the pool.
    pub(super) fn member_mut(&mut self) -> &mut Member {
        self.owner.source_mut()
    }

    /// True when the process has answered at least one request.
    pub(super) fn has_replied(&self) -> bool {
        self.owner.has_replied()
    }

    /// Reads and delivers what is left on stdout, as much as a turn allows.
    pub(super) fn read_a_turn(&mut self) {
        self.owner.read_a_turn();
    }

    /// Serves until the process no longer can; returns [`StopReason::Ended`] or
    /// [`StopReason::Fault`] only.
    // Cancel-safe: all progress lives in self.
    pub(super) async fn serve(&mut self) -> StopReason {
        // From then on a late ready line holds up no other start.
        let start_lasts = sleep_until((self.started + START_PERMIT_TIME).into());
        tokio::pin!(start_lasts);
        let mut holds_start_permit = true;
        loop {
            // Cancel-safe: each of these keeps its progress in what it borrows.
            tokio::select! {
                biased;
                () = self.exit.ended() => return StopReason::Ended,
                fault = self.owner.serve() => return reason_for_fault(fault, self.exit.ended()).await,
                () = &mut start_lasts, if holds_start_permit => holds_start_permit = false,
            }
            self.owner.source_mut().end_start();
        }
    }

    /// Stops a process: asks it, waits, kills its group, reaps it, and settles its requests.
    pub(super) async fn stop(mut self: Box<Self>, reason: StopReason, policy: StopPolicy) {
        let (grace, hurry) = (policy.grace, &policy.hurry);
        let was_up = self.member().status().was_up();
        let mut begun = Instant::now();
        let has_ended = match reason {
            StopReason::Ended => true,
            StopReason::Stopped => self.ask_by_stdin(&policy).await,
            StopReason::Replaced(_) | StopReason::Idle => {
                // Requests first: the grace begins when the process has none.
                let has_ended = self.finish(&policy).await;
                begun = Instant::now();
                has_ended || self.ask_by_stdin(&policy).await
            }
            StopReason::Fault(_) => self.finish(&policy).await,
        };
        let is_fault = matches!(reason, StopReason::Fault(_));
        // A caller that waits for a process at fault is answered when the process has ended: end it
        // now.
        let must_end_now = has_ended || is_fault && self.owner.is_awaited();
        if !must_end_now {
            // Stdin is closed before the signal, so that a handler can tell a SIGTERM meant for it
            // alone from one sent to a whole service. Nothing is lost: no caller waits for an
            // answer of this process.
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
        let end = self.reap(StartEnd::NotFailed);
        let label = reason.label(was_up, &end);
        self.member().dispatcher().metrics.processes.ended(label);
        let status = end.status;
        self.settle(reason).await;
        if reason != StopReason::Ended {
            info!(process = self.number, %status, "process stopped");
        }
    }

    /// Asks the process to end by closing its stdin; true if it ends within half the grace.
    async fn ask_by_stdin(&mut self, policy: &StopPolicy) -> bool {
        self.owner.end_input();
        let ends = self.ends_within(policy.grace / 2, &policy.hurry);
        // Cancel-safe: all progress lives in self.
        let ended = policy.shutdown.run_until(Stage::Terminating, ends).await;
        ended.unwrap_or(false)
    }

    /// Lets the process finish its requests; true if it has ended meanwhile.
    async fn finish(&mut self, policy: &StopPolicy) -> bool {
        let stopped = async {
            // A request that is unfinished a grace after the pool stops never will be.
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
        }
    }

    /// Waits for the end of the process and delivers its answers meanwhile; true if it has ended.
    async fn ends_within(&mut self, limit: Duration, hurry: &CancellationToken) -> bool {
        // Cancel-safe: each of these keeps its progress in what it borrows.
        tokio::select! {
            biased;
            () = self.exit.ended() => true,
            () = hurry.cancelled() => false,
            () = sleep(limit) => false,
            never = self.owner.keep_reading() => match never {},
        }
    }

    /// Kills the rest of the group and reaps the process, which must have ended; returns how it
    /// ended.
    pub(super) fn reap(&mut self, start: StartEnd) -> ProcessEnd {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let death = self.process.reap();
        let repeated = self.owner.finish_stderr(start);
        let end = ProcessEnd {
            status: describe(&death),
            is_out_of_memory: death.as_ref().is_ok_and(Death::is_out_of_memory),
            code: death.ok().and_then(|death| death.code()),
            last_line: self.owner.last_stderr_line().to_owned(),
            repeated,
        };
        self.end.insert(end).clone()
    }

    /// Delivers the last answers of the process, which is reaped, and hands back the calls that it
    /// never started.
    // Not cancel-safe: see [`Owner::settle`].
    async fn settle(&mut self, reason: StopReason) {
        let ProcessEnd { status, .. } = self.reap(StartEnd::NotFailed);
        let cause = self.cause(&format!("{reason}{status}"));
        let never_started = self.owner.settle(&cause).await;
        self.owner.source().dispatcher().hand_back(never_started);
    }

    /// The cause of a failed request. The last line on stderr is quoted for operators only, and
    /// only where it cannot stem from another caller's request.
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

/// The reason for the stop of a process at fault; `ended` is ready when the process has ended. A process
/// that closes its pipes is mostly about to exit, and then its exit status says more.
// Cancel-safe: only `ended` is waited for.
async fn reason_for_fault(fault: Fault, ended: impl Future<Output = ()>) -> StopReason {
    let is_closing = matches!(fault, Fault::InputClosed | Fault::OutputClosed);
    if is_closing && timeout(EXIT_AFTER_CLOSE_TIME, ended).await.is_ok() {
        return StopReason::Ended;
    }
    StopReason::Fault(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_closes_its_pipes_has_a_moment_to_exit() {
        let (soon, late) = (EXIT_AFTER_CLOSE_TIME / 2, EXIT_AFTER_CLOSE_TIME * 2);
        for (fault, exits_after, is_ended) in [
            (Fault::InputClosed, soon, true),
            (Fault::OutputClosed, soon, true),
            (Fault::OutputClosed, late, false),
            (Fault::Unasked, soon, false),
        ] {
            let reason = reason_for_fault(fault, sleep(exits_after)).await;
            let expected = match is_ended {
                true => StopReason::Ended,
                false => StopReason::Fault(fault),
            };
            assert_eq!(reason, expected, "{fault:?} {exits_after:?}");
        }
    }
}
