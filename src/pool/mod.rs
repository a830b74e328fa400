//! The pool: all processes of a worker, and the queue in front of them.
//!
//! HTTP, and any other front, gives requests to [`Pool::call`], and else asks only how the pool is.
//! The call goes into the queue; the process that is woken for it takes it from there
//! (`Dispatcher::poll_take`), and its answer comes back over a channel of its own. No lock is held
//! across an await.
//!
//! Modules: `dispatch` (calls and processes meet), `queue`, `queued_call` (a call with its place
//! and times), `waiting` (processes that could take a call, and the order in which they are woken),
//! `batching`, `health` (can the pool serve?), `scaling` (how many processes), `rollout` (reload),
//! `status` (each process, for metrics and operators), `slot` (one process at a time: start, watch,
//! replace, stop).
//!
//! Words: a *reload* replaces all processes because the handler's files may have changed; its
//! *rollout* is the order in which slots do so; a *renewal* asks one slot to take part.
//! To *recycle* a process is to replace it at a limit of requests, age or memory. Each
//! *replacement* of a process that serves starts its successor first.

mod batching;
mod dispatch;
mod health;
mod queue;
mod queued_call;
mod rollout;
mod scaling;
mod slot;
mod status;
mod waiting;

use crate::answer::{Answered, Outcome, Work};
use crate::budget::MemoryBudget;
use crate::cause::Cause;
use crate::config::{Command, Config};
use crate::error::{RequestFailure, StartError};
use crate::metrics::Metrics;
use crate::metrics::scrape;
use crate::process::call::Call;
pub use crate::process::call::{Job, RequestExtras};
pub use crate::process::conversation::UP_AFTER;
use crate::process::launch::{Directory, Launcher, shell_syntax};
use crate::process::memory::measure_memory;
use crate::shutdown::{Shutdown, Stage};
use crate::threads::Threads;
use crate::threads::mailbox::{ThreadNumber, this_thread};
use dispatch::{Dispatcher, answer_all};
use health::Health;
use queued_call::QueuedCall;
use rustix::process::Rlimit;
pub use status::ProcessReport;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// Time between two questions whether the pool can serve.
const READY_POLL_PERIOD: Duration = Duration::from_millis(5);

/// All processes of a worker, and the queue in front of them.
///
/// Ends with [`Pool::stop`]; dropped without it, its tasks end with the runtime, and each process
/// is killed as its task is dropped.
#[derive(Debug)]
pub struct Pool {
    dispatcher: Arc<Dispatcher>,
    tasks: TaskTracker,
    /// Notified when all processes are to be replaced by new ones.
    reload: Arc<Notify>,
}

impl Pool {
    /// Starts the processes, dealt out over the threads, with `descriptor_limit` as their limit of
    /// open files if it is given. Must be called within a runtime.
    pub fn start(
        config: &Config,
        descriptor_limit: Option<Rlimit>,
        budget: MemoryBudget,
        shutdown: Shutdown,
        threads: &Threads,
        metrics: Arc<Metrics>,
    ) -> Result<Pool, StartError> {
        let no_command = config.command.is_none().then(|| {
            "no command was given: set HANDLER_FUNCTION, --handler, or give it after --".to_owned()
        });
        let starts = config.pool.processes_starting_at_once.get();
        let mut health = Health::new(no_command);
        if config.process.wait_ready {
            health.require_ready_line();
        }
        let pool = Pool {
            dispatcher: Arc::new(Dispatcher::new(
                &config.pool,
                health,
                starts,
                budget,
                shutdown,
                threads.mailboxes().clone(),
                metrics,
            )),
            tasks: TaskTracker::new(),
            reload: Arc::default(),
        };
        let expire = Arc::clone(&pool.dispatcher).expire_in_time();
        pool.run(expire);
        let retry = Arc::clone(&pool.dispatcher).wake_after_possible_exits();
        pool.run(retry);
        let refill = Arc::clone(&pool.dispatcher).wake_when_budget_has_room();
        pool.run(refill);
        let Some(command) = config.command.clone() else {
            pool.dispatcher.record_never_up();
            error!("no handler: set HANDLER_FUNCTION, --handler, or give a command after --");
            return Ok(pool);
        };
        warn_of_shell_syntax(&command);
        let directory = Directory::find(config.directory.as_deref());
        let isolation = config.isolation.clone();
        let launcher = Launcher::new(command, isolation, directory, descriptor_limit);
        let launcher = launcher.map_err(|source| StartError::Runtime {
            what: "the launcher thread",
            source,
        })?;
        pool.start_slots(config, &launcher, threads);
        Ok(pool)
    }

    /// Puts a job into the queue. Dropping the future before its end takes a job that still waits
    /// out of the queue; a process that has the job finishes it, and its result is dropped.
    pub fn call(&self, job: Job) -> Result<PendingAnswer<'_>, RequestFailure> {
        let now = Instant::now();
        let queue_end = now + self.dispatcher.queue_timeout;
        let until = job
            .deadline
            .map_or(queue_end, |deadline| deadline.min(queue_end));
        // Its time in the queue, and twice the timeout: once behind another request, once on its
        // own.
        let gives_up_at = queue_end + 2 * job.timeout;
        let (call, receiver) = Call::new(job);
        let call = QueuedCall::new(call, now, until, gives_up_at);
        let mut state = self.dispatcher.lock();
        if state.is_closed {
            return Err(RequestFailure::Draining);
        }
        if let Some(failure) = state.health.failure() {
            return Err(failure);
        }
        let Some(place) = state.queue.push(until, |place| call.at_place(place)) else {
            return Err(state.overloaded_because("the queue is full"));
        };
        let expires_first = state.next_expiry.is_none_or(|expiry| until < expiry);
        if expires_first {
            state.next_expiry = Some(until);
        }
        self.dispatcher.publish_length(&state);
        self.dispatcher.wake_one(state, this_thread());
        if expires_first {
            self.dispatcher.deadline_moved.notify_one();
        }
        Ok(PendingAnswer {
            home: self.dispatcher.open_calls.add_here(),
            dispatcher: &self.dispatcher,
            place,
            receiver,
            called: now,
            work: None,
            is_done: false,
        })
    }

    /// The time that a process is given for one job.
    pub fn timeout(&self) -> Duration {
        self.dispatcher.timeout
    }

    /// Why the pool cannot serve now, if it cannot.
    pub fn why_not_ready(&self) -> Option<Cause> {
        self.dispatcher.lock().health.why_not_ready()
    }

    /// Waits until the pool can serve.
    // Cancel-safe: asks only.
    pub async fn ready(&self) {
        while self.why_not_ready().is_some() {
            sleep(READY_POLL_PERIOD).await;
        }
    }

    /// Waits until requests are refused because no process ever came up; returns the reason.
    // Cancel-safe: the reason, once set, stays set.
    pub async fn never_up(&self) -> &str {
        self.dispatcher.never_up.wait().await
    }

    /// Replaces all processes by new ones of the same command: first one, and if that one comes up,
    /// the others. Each new process takes over when it is up, and no request is lost; if none comes
    /// up, the old processes go on serving. The log says which. A second call before the end starts
    /// over.
    pub fn reload(&self) {
        // After an edit the same output is news again.
        self.dispatcher.failed_output.forget();
        self.reload.notify_one();
    }

    /// Begins [`Stage::IdleStopped`]: stops each process as soon as it has nothing to do. A process
    /// is started again if requests wait all the same.
    pub fn stop_idle(&self) {
        self.dispatcher.lock().scaling.allow_empty();
        self.dispatcher.shutdown.advance(Stage::IdleStopped);
    }

    /// The queue at this moment.
    pub fn queue(&self) -> scrape::QueueGauges {
        let now = Instant::now();
        let state = self.dispatcher.lock();
        let oldest = state.queue.first_item().map(|first| first.called);
        scrape::QueueGauges {
            length: state.queue.len(),
            limit: state.queue.bound(),
            oldest: oldest.map_or(Duration::ZERO, |called| {
                now.saturating_duration_since(called)
            }),
        }
    }

    /// The processes at this moment; their memory as of the last measurement.
    pub fn processes(&self) -> scrape::ProcessGauges {
        scrape::ProcessGauges {
            limit: self.dispatcher.lock().scaling.most(),
            ..self.dispatcher.statuses.totals(Instant::now())
        }
    }

    /// Has the memory of all processes measured, beside the threads that serve.
    pub fn measure_memory(&self) {
        self.dispatcher.statuses.measure(measure_memory);
    }

    /// What each process is doing.
    pub fn reports(&self) -> Vec<ProcessReport> {
        self.dispatcher.statuses.reports(Instant::now())
    }

    /// Calls that have no answer yet.
    pub fn open_calls(&self) -> usize {
        self.dispatcher.open_calls.sum()
    }

    /// Begins [`Stage::Stopping`]: refuses new and waiting calls, lets each process finish its
    /// requests within its grace, and returns when all processes have ended and are reaped. Later
    /// stages make that shorter.
    pub async fn stop(&self) {
        answer_all(self.dispatcher.close(), Some(RequestFailure::Draining));
        self.dispatcher.shutdown.advance(Stage::Stopping);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Makes the slots, and begins growth and reloads.
    fn start_slots(&self, config: &Config, launcher: &Launcher, threads: &Threads) {
        let mut slots = Vec::new();
        for number in 0..config.pool.max_processes.get() {
            let (renewal_sender, renewals) = mpsc::channel(1);
            slots.push(renewal_sender);
            let slot = slot::Slot::new(
                Arc::clone(&self.dispatcher),
                launcher.clone(),
                slot::SlotSettings {
                    process: config.process.clone(),
                    idle_timeout: config.pool.idle_timeout,
                    number,
                    tells_requests: config.http.admin.is_some(),
                    is_empty_at_first: number >= config.pool.processes.get(),
                },
                renewals,
            );
            self.tasks
                .spawn_on(slot.keep_filled(), threads.for_slot(number));
        }
        let grow = Arc::clone(&self.dispatcher).grow_when_needed();
        self.run(grow);
        let metrics = Arc::clone(&self.dispatcher.metrics);
        let roll_out = rollout::roll_out(slots, Arc::clone(&self.reload), metrics);
        self.run(roll_out);
    }

    /// Runs one of the pool's own tasks until the pool stops.
    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.dispatcher.shutdown.clone();
        self.tasks.spawn(async move {
            shutdown.run_until(Stage::Stopping, task).await;
        });
    }
}

/// Says that no shell reads the command, if it looks as if it were meant for one.
fn warn_of_shell_syntax(command: &Command) {
    let words = [
        std::slice::from_ref(&command.program),
        &command.arguments[..],
    ]
    .concat();
    if let Some(syntax) = shell_syntax(&words) {
        warn!(
            syntax,
            "no shell reads the handler's command; if it is meant for one: sh -c '…'"
        );
    }
}

/// The answer to a call, as a future.
#[derive(Debug)]
pub struct PendingAnswer<'pool> {
    dispatcher: &'pool Dispatcher,
    /// The thread of the caller.
    home: ThreadNumber,
    place: u64,
    receiver: oneshot::Receiver<Answered>,
    called: Instant,
    work: Option<Work>,
    is_done: bool,
}

/// How long a call waited for a process, and how long that process worked on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTimes {
    /// The number by which the log names the process.
    pub process: u64,
    /// When the process could start on it.
    pub began: Instant,
    /// Whether it was the first call of the process.
    pub is_first: bool,
    /// From the call until the process could start on it.
    pub queued: Duration,
    /// From then until its reply was read.
    pub worked: Duration,
}

impl PendingAnswer<'_> {
    /// Takes the call out of the queue; false if it does not wait there, because a process has it
    /// or it is answered. No answer comes after that.
    pub fn withdraw(&mut self) -> bool {
        if self.is_done {
            return false;
        }
        let place = self.place;
        let withdrawn = self.dispatcher.lock().queue.remove(place);
        self.is_done = withdrawn.is_some();
        self.is_done
    }

    /// The times of an answered call, if a process had it.
    pub fn times(&self) -> Option<CallTimes> {
        let Work {
            process,
            began,
            ended,
            is_first,
        } = self.work?;
        Some(CallTimes {
            process,
            began,
            is_first,
            queued: began.saturating_duration_since(self.called),
            worked: ended.saturating_duration_since(began),
        })
    }
}

impl Future for PendingAnswer<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.receiver).poll(cx).map(|received| {
            self.is_done = true;
            // A call is dropped without an answer only when its pool is torn down.
            let (outcome, work) = received.unwrap_or_else(|_| {
                let why = "the worker was stopped".into();
                (Err(RequestFailure::Exited(why)), None)
            });
            self.work = work;
            outcome
        })
    }
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        self.dispatcher.open_calls.take_away(self.home);
        if !self.is_done {
            let abandoned = self.dispatcher.lock().queue.remove(self.place);
            // Dropped after the lock is free, because dropping a call wakes its caller.
            drop(abandoned);
        }
    }
}

#[cfg(test)]
#[cfg(faas_model)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
#[cfg(not(faas_model))]
mod throughput;
