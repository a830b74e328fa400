//! The end of a worker: requests, then processes, then the last responses, each within its time.

use crate::config::ShutdownConfig;
use crate::http::server::listener::IDLE_CLOSE_DELAY;
use crate::logging::milliseconds;
use crate::pool::Pool;
use crate::shutdown::{Shutdown, Stage};
use crate::traces::Traces;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Longest time for the last responses to be written after the processes have ended.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest time for processes to end by themselves when the time to drain is over.
const PROCESSES_TIMEOUT: Duration = Duration::from_millis(1750);

/// Longest wait for killed processes to be gone.
pub(crate) const LAST_KILLS_TIMEOUT: Duration = Duration::from_millis(250);

/// How far a drain came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// All requests are answered, and no connection is left.
    Whole,
    /// Its time is over.
    InPart,
    /// It was cut short by a second signal.
    CutShort,
}

/// How the processes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessesEnd {
    /// By themselves, when they were asked.
    Themselves,
    /// By SIGKILL, because their time was over.
    KilledInTime,
    /// By SIGKILL, because of a second signal.
    KilledBySignal,
}

/// Takes a worker from [`Stage::Draining`] to the end of its processes and last responses.
pub(super) struct Ending<'a> {
    pub(super) shutdown: &'a Shutdown,
    pub(super) pool: &'a Pool,
    /// Cancelled when no connection of callers is left.
    pub(super) connections_gone: &'a CancellationToken,
    /// Cancelled when no connection of operators is left.
    pub(super) admin_gone: &'a CancellationToken,
    /// Spans of requests may still wait.
    pub(super) traces: &'a Traces,
}

impl Ending<'_> {
    /// Finishes requests, then processes, then the last responses. Requests have all of the time to
    /// drain; what follows takes [`PROCESSES_TIMEOUT`], [`LAST_KILLS_TIMEOUT`] and
    /// [`LAST_WRITES_TIMEOUT`] at most.
    pub(super) async fn run(&self, config: &ShutdownConfig, grace: Duration) {
        let delay = sleep(config.drain_delay);
        self.shutdown.run_until(Stage::Killing, delay).await;
        self.shutdown.advance(Stage::Closed);
        let end = Instant::now() + config.drain_timeout;
        if self.drain(end).await == Drained::InPart {
            let drain_timeout_ms = milliseconds(config.drain_timeout);
            let requests = self.pool.open_calls();
            warn!(
                drain_timeout_ms,
                requests, "the time to drain is over, and requests are cut"
            );
        }
        let processes_end = self.end_processes(end, grace).await;
        // `Stage::Killing` is a second signal, except where it was reached because time was over.
        let can_be_hurried = processes_end != ProcessesEnd::KilledInTime;
        let last_writes_end = Instant::now() + LAST_WRITES_TIMEOUT;
        // Cancel-safe: all are only asked whether something has happened.
        tokio::select! {
            () = self.connections_gone.cancelled() => {}
            () = sleep_until(last_writes_end) => {}
            () = self.shutdown.reached(Stage::Killing), if can_be_hurried => {}
        }
        // The receiver of the last spans may be slow, or dead: it has the rest of the time to
        // drain.
        let spans_end = match processes_end {
            ProcessesEnd::Themselves => end.max(last_writes_end),
            ProcessesEnd::KilledInTime | ProcessesEnd::KilledBySignal => last_writes_end,
        };
        // Cancel-safe: spans that are not sent then are lost with the worker.
        tokio::select! {
            () = self.traces.finish(spans_end.into()) => {}
            () = self.shutdown.reached(Stage::Killing), if can_be_hurried => {}
        }
        self.traces.tell_of_lost_spans();
        self.shutdown.advance(Stage::Aborting);
        // Cancel-safe: it is only asked whether the last connection has gone.
        let _ = timeout(LAST_WRITES_TIMEOUT, self.admin_gone.cancelled()).await;
        self.shutdown.advance(Stage::Ended);
    }

    /// Waits for accepted requests to be answered. Idle processes are stopped as soon as no idle
    /// connection is left from which another request could come.
    async fn drain(&self, end: Instant) -> Drained {
        let idle_processes_end = async {
            sleep(IDLE_CLOSE_DELAY).await;
            self.pool.stop_idle();
            std::future::pending::<Infallible>().await
        };
        // Cancel-safe: all are only asked whether something has happened.
        tokio::select! {
            () = self.connections_gone.cancelled() => Drained::Whole,
            () = sleep_until(end) => Drained::InPart,
            () = self.shutdown.reached(Stage::Killing) => Drained::CutShort,
            never = idle_processes_end => match never {},
        }
    }

    /// Ends the processes: by the end of their stdin, by SIGTERM when the time to drain is over, at
    /// last by SIGKILL.
    async fn end_processes(&self, end: Instant, grace: Duration) -> ProcessesEnd {
        let stopped = self.pool.stop();
        tokio::pin!(stopped);
        let killed_at = end.max(Instant::now()) + grace.min(PROCESSES_TIMEOUT);
        let time_is_over = async {
            sleep_until(end).await;
            self.shutdown.advance(Stage::Terminating);
            sleep_until(killed_at).await;
        };
        // Cancel-safe: stopping goes on below if its time is over; the rest is only asked.
        let is_stopped = tokio::select! {
            () = &mut stopped => true,
            () = time_is_over => false,
            () = self.shutdown.reached(Stage::Killing) => false,
        };
        if is_stopped {
            return ProcessesEnd::Themselves;
        }
        let ended = if self.shutdown.is_at_least(Stage::Killing) {
            warn!("the end is wanted at once: processes are killed");
            ProcessesEnd::KilledBySignal
        } else {
            warn!("processes are killed, their time to end is over");
            ProcessesEnd::KilledInTime
        };
        self.shutdown.advance(Stage::Killing);
        // The worker cannot wait for a process that survives SIGKILL, in a system call of its own
        // for example.
        drop(timeout(LAST_KILLS_TIMEOUT, stopped).await);
        ended
    }
}
