//! One checked process: it is started, asked, watched and ended as a process of the pool is.
//!
//! Between start and end the owner of the worker itself talks to the process, so that a check and a
//! worker come to the same finding.

use super::desk::{Desk, Record};
use super::orphans::names_of_orphans;
use super::payloads::in_string;
use super::relay::{Relay, relay_to};
use super::reply::{EndByStdin, Reply, Standing};
use crate::budget::MemoryBudget;
use crate::config::HandlerLog;
use crate::error::RequestFailure;
use crate::metrics::Metrics;
use crate::process::call::{Call, Job, RequestExtras};
use crate::process::conversation::{ConversationConfig, Fault, ReadAheadWindow};
use crate::process::launch::{LaunchError, Launcher, Watched};
use crate::process::output_log::{ErrorOutput, LogAllowance, ProcessLog, StreamLog};
use crate::process::owner::Owner;
use crate::process::reaping::{EXIT_AFTER_CLOSE_TIME, ExitWatch, Process, describe};
use crate::process::repeats::{FailedOutput, StartEnd};
use crate::procfs::is_tree_runnable;
use rustix::process::Signal;
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Limits of the conversation: the worker's defaults, except that more requests are given ahead, at
/// any pace.
const MAX_CONCURRENCY: usize = 64;
const READ_AHEAD: usize = 200;
const MAX_REPLY_BYTES: usize = 8 << 20;

/// Bytes that all requests and replies of a check may hold at one time.
const BUFFERED_BYTES: u64 = 256 << 20;

/// Silence after which a process that does not run has said all that it had to say.
const SILENCE: Duration = Duration::from_millis(30);

/// Longest wait for that silence.
const SILENCE_WITHIN: Duration = Duration::from_millis(600);

/// How long a process may take to start, if it is still starting when the time for its reply is
/// over.
pub(super) const FIRST_START: Duration = Duration::from_secs(30);

/// How request lines reach a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As the worker writes them.
    Plain,
    /// Through a [`Relay`], in pieces.
    Pieces,
}

/// A checked process. Dropping it kills the process and its group.
pub(super) struct CheckedProcess {
    process: Process,
    exit: ExitWatch,
    owner: Owner<Desk>,
    relay: Option<Relay>,
    budget: MemoryBudget,
    standing: Standing,
    left_unread: bool,
}

impl CheckedProcess {
    /// Starts a process. It counts as overdue after [`FIRST_START`].
    pub(super) async fn start(
        launcher: &Launcher,
        delivery: Delivery,
    ) -> Result<CheckedProcess, LaunchError> {
        let Watched {
            process,
            exit,
            stdin,
            stdout,
            stderr,
        } = launcher.launch().await?.watched()?;
        let (relay, stdin) = match delivery {
            Delivery::Plain => (None, stdin),
            Delivery::Pieces => {
                let (relay, stdin) = relay_to(stdin).map_err(LaunchError::unwatched)?;
                (Some(relay), stdin)
            }
        };
        let metrics = Arc::new(Metrics::new(NonZeroUsize::MIN));
        let allowance = LogAllowance::new(Instant::now(), metrics);
        let failed_output = FailedOutput::default();
        let log = ProcessLog {
            stdout: StreamLog::new(1, "stdout", allowance.clone()),
            stderr: ErrorOutput::new(1, stderr, HandlerLog::Events, allowance, failed_output),
        };
        let limits = ConversationConfig {
            max_concurrency: MAX_CONCURRENCY,
            read_ahead: READ_AHEAD,
            window: ReadAheadWindow::Open,
            wait_ready: false,
            startup_timeout: FIRST_START,
            max_reply_bytes: MAX_REPLY_BYTES,
        };
        let budget = MemoryBudget::new(BUFFERED_BYTES);
        let pid = process.id();
        let owner = Owner::new(log, pid, stdin, stdout, limits, budget.clone(), Desk::new());
        Ok(CheckedProcess {
            process,
            exit,
            owner,
            relay,
            budget,
            standing: Standing::Sound,
            left_unread: false,
        })
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// True when the process has ended without having read all of its stdin.
    pub(super) fn left_unread(&self) -> bool {
        self.left_unread
    }

    /// Whether the process may be asked.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What the process wrote to stdout.
    pub(super) fn record(&self) -> &Record {
        self.owner.source().record()
    }

    /// The last line that the process wrote to stderr.
    pub(super) fn last_error_line(&self) -> String {
        self.owner.last_stderr_line().to_owned()
    }

    /// Asks all of these at the same time, each with this much time, and waits for the answers.
    pub(super) async fn ask_all(&mut self, payloads: &[String], limit: Duration) -> Vec<Reply> {
        let mut receivers = Vec::with_capacity(payloads.len());
        self.owner.source_mut().begin_exchange();
        for payload in payloads {
            let (call, answered) = Call::new(self.job(payload, limit));
            self.owner.source_mut().add(call);
            receivers.push(answered);
        }
        let all = async {
            let mut replies = Vec::with_capacity(receivers.len());
            for receiver in receivers {
                replies.push(Reply::new(receiver.await.ok()));
            }
            replies
        };
        let mut all = pin!(all);
        match self.run(all.as_mut()).await {
            Some(replies) => replies,
            None => {
                // Requests without an answer get one when the process ends, or are dropped.
                self.give_up(limit).await;
                all.await
            }
        }
    }

    /// Asks the first thing. A process that is still starting at the limit has [`FIRST_START`].
    pub(super) async fn ask_first(&mut self, payload: &str, limit: Duration) -> Reply {
        self.owner.source_mut().begin_exchange();
        let (call, mut answered) = Call::new(self.job(payload, FIRST_START.max(limit)));
        self.owner.source_mut().add(call);
        loop {
            match self.run(timeout(limit, &mut answered)).await {
                Some(Ok(answered)) => return Reply::new(answered.ok()),
                Some(Err(_)) if self.is_starting() => {}
                Some(Err(_)) => {
                    let failure = RequestFailure::TimedOut("no reply in time".into());
                    return Reply::new(Some((Err(failure), None)));
                }
                None => {
                    self.give_up(limit).await;
                    return Reply::new(answered.try_recv().ok());
                }
            }
        }
    }

    /// Asks one thing, and waits for the answer.
    pub(super) async fn ask(&mut self, payload: &str, limit: Duration) -> Reply {
        let payloads = [payload.to_owned()];
        let mut replies = self.ask_all(&payloads, limit).await;
        replies.pop().expect("one reply a request")
    }

    /// Gives the process a request, and closes its stdin behind the line.
    pub(super) async fn ask_last(&mut self, payload: &str, limit: Duration) -> EndByStdin {
        self.owner.source_mut().begin_exchange();
        let (call, mut answered) = Call::new(self.job(payload, limit));
        self.owner.source_mut().add(call);
        let deadline = Instant::now() + limit;
        // Without ids a request is given after a silence.
        while !self.owner.source().is_empty() && Instant::now() < deadline {
            if self.run(sleep(Duration::from_millis(1))).await.is_none() {
                break;
            }
        }
        let last = self.end_unasked(limit).await;
        EndByStdin {
            outcome: answered.try_recv().ok().map(|(outcome, _)| outcome),
            ..last
        }
    }

    /// Closes the stdin of the process behind the lines that are written, and lists the processes
    /// that it leaves behind.
    pub(super) async fn end_unasked(&mut self, limit: Duration) -> EndByStdin {
        self.owner.end_input();
        let begun = Instant::now();
        let has_ended = self.ends_within(limit).await;
        let took = begun.elapsed();
        let mut left = Vec::new();
        if has_ended {
            // Before the group of the process is killed.
            left = names_of_orphans().await;
            self.reap().await;
        }
        EndByStdin {
            outcome: None,
            left,
            took,
        }
    }

    /// Closes stdin immediately, and reads on; true if the process ends within the limit.
    pub(super) async fn close_input(&mut self, limit: Duration) -> bool {
        self.owner.close_stdin();
        self.ends_within(limit).await
    }

    /// Bytes in its stdin that the process has not read.
    pub(super) fn unread_bytes(&self) -> u64 {
        self.owner.unread_bytes()
    }

    /// True when the process has not read its stdin yet, and has not said that it is ready: it is
    /// still starting, whether it computes or waits.
    pub(super) fn is_starting(&self) -> bool {
        self.unread_bytes() > 0 && self.record().up_after.is_none()
    }

    /// Counts and forgets the stray lines so far.
    pub(super) fn take_strays(&mut self) -> (u64, Vec<Vec<u8>>) {
        self.owner.source_mut().take_strays()
    }

    /// Sends SIGTERM to the group; true if the process ends within the limit.
    pub(super) async fn terminate(&mut self, limit: Duration) -> bool {
        self.process.signal_group(Signal::TERM);
        self.ends_within(limit).await
    }

    /// Reads what the process writes until it has been silent for a moment and does not run.
    pub(super) async fn wait_for_silence(&mut self) {
        let end = Instant::now() + SILENCE_WITHIN;
        loop {
            let before = self.record().output_bytes;
            if self.run(sleep(SILENCE)).await.is_none() {
                return self.give_up(SILENCE).await;
            }
            let is_silent = self.record().output_bytes == before && !is_tree_runnable(self.pid());
            if is_silent || Instant::now() >= end {
                return;
            }
        }
    }

    /// Kills the group of the process and reaps it, unless it is reaped.
    pub(super) async fn kill_and_reap(&mut self) {
        if matches!(self.standing, Standing::Ended(_)) {
            return;
        }
        self.process.signal_group(Signal::KILL);
        self.exit.ended().await;
        self.reap().await;
    }

    fn job(&self, payload: &str, limit: Duration) -> Job {
        Job {
            payload: in_string(payload),
            extras: RequestExtras::default(),
            timeout: limit,
            deadline: None,
            reservation: self.budget.reservation(),
        }
    }

    /// Talks to the process until the future is ready. `None`: the process has ended, or may be
    /// given no more requests.
    async fn run<F: Future>(&mut self, until: F) -> Option<F::Output> {
        if self.standing != Standing::Sound {
            return None;
        }
        let mut until = pin!(until);
        loop {
            // Cancel-safe: these futures keep their progress in self.
            tokio::select! {
                biased;
                done = &mut until => return Some(done),
                () = self.exit.ended() => return None,
                fault = self.owner.serve() => {
                    self.standing = Standing::Faulty(fault);
                    return None;
                }
                () = relayed(&mut self.relay) => {}
            }
        }
    }

    /// The process has ended or is at fault: lets it finish its requests, and reaps it if it has
    /// ended or callers still wait.
    async fn give_up(&mut self, limit: Duration) {
        let is_closing = matches!(
            self.standing,
            Standing::Faulty(Fault::InputClosed | Fault::OutputClosed) | Standing::Sound
        );
        if is_closing && self.ends_within(EXIT_AFTER_CLOSE_TIME).await {
            return self.reap().await;
        }
        // Cancel-safe: these futures keep their progress in self.
        let has_ended = tokio::select! {
            biased;
            () = self.exit.ended() => true,
            () = self.owner.finish() => false,
            () = relayed(&mut self.relay) => false,
            () = sleep(limit) => false,
        };
        self.owner.source_mut().clear();
        if has_ended {
            self.reap().await;
        } else if self.owner.is_awaited() {
            self.kill_and_reap().await;
        }
    }

    async fn ends_within(&mut self, limit: Duration) -> bool {
        let ended = async {
            loop {
                // Cancel-safe: these futures keep their progress in self.
                tokio::select! {
                    biased;
                    () = self.exit.ended() => return,
                    never = self.owner.keep_reading() => match never {},
                    () = relayed(&mut self.relay) => {}
                }
            }
        };
        timeout(limit, ended).await.is_ok()
    }

    /// Reaps the process, which has ended, and reads the rest of its output.
    pub(super) async fn reap(&mut self) {
        if matches!(self.standing, Standing::Ended(_)) {
            return;
        }
        let death = self.process.reap();
        self.owner.finish_stderr(StartEnd::NotFailed);
        self.left_unread = self.unread_bytes() > 0;
        let status = describe(&death);
        self.standing = Standing::Ended(status.clone());
        // Requests that were never started are dropped, and with them the channels of their
        // answers.
        drop(self.owner.settle(&status.into()).await);
        self.owner.source_mut().clear();
    }
}

/// The work of the relay, which ends with its pipes; without a relay it never ends.
async fn relayed(relay: &mut Option<Relay>) {
    match relay {
        Some(work) => {
            work.await;
            *relay = None;
        }
        None => pending().await,
    }
}
