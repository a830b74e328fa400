//! Where calls and processes meet, under one lock.
//!
//! A call goes into the queue; the process that is woken for it takes it from there
//! ([`Dispatcher::poll_take`]). A process without a call for it registers its waker. No lock is
//! held across an await.

mod refusal;
mod rules;
mod take;
mod upkeep;

#[cfg(test)]
pub(super) use self::rules::OVERTAKING_TIME;
pub(super) use self::take::{Intake, poll_next_turn};
use super::health::Health;
use super::queue::Queue;
use super::queued_call::QueuedCall;
use super::scaling::Scaling;
use super::status::Statuses;
use super::waiting::{Registered, WaitingProcesses};
use crate::answer::Answer;
use crate::budget::MemoryBudget;
use crate::cause::Cause;
use crate::config::PoolConfig;
use crate::error::{RETRY_SOON, RequestFailure};
use crate::metrics::Metrics;
use crate::process::repeats::FailedOutput;
use crate::shutdown::Shutdown;
use crate::threads::mailbox::{Mailboxes, PerThreadCount, ThreadNumber};
#[cfg(all(test, faas_model))]
use loom::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(all(test, faas_model)))]
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SetOnce};
use tracing::error;

/// How often a call may be given to another process after its process ended without reading it.
/// Bounded, because the process itself may have put back what is found unread in its stdin.
const MAX_HAND_BACKS: u32 = 2;

/// How long after a reply a process may be about to exit. A process that exits after each reply has
/// done so by then, and the worker knows.
pub(super) const EXIT_AFTER_REPLY_TIME: Duration = Duration::from_millis(5);

/// How often a thread tries for a lock that another thread holds; after that it sleeps. The lock is
/// held for a fraction of a microsecond, and to sleep and be woken takes ten or more. Measured on
/// two threads that only make calls: 64 tries with 16 pauses between them were worth 40 % more
/// calls than none, and more tries with less between them are no worse. All tries together take
/// some tens of microseconds at most, by the length of a pause on the processor.
#[cfg(not(all(test, faas_model)))]
const LOCK_TRIES: usize = 512;

/// Pauses between two tries.
#[cfg(not(all(test, faas_model)))]
const PAUSES_BETWEEN_TRIES: usize = 2;

/// Calls and processes meet here: callers push, processes take, slots report. Shared by all three.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) state: Mutex<DispatchState>,
    pub(super) queue_timeout: Duration,
    /// The longest time that a process is given for one call.
    pub(super) timeout: Duration,
    /// Longest start seen, as milliseconds + 1; 0 = none yet. A start that timed out counts double,
    /// so that a handler that has become slower is not killed for ever at the old limit. Outside
    /// the lock, because every wake-up of an owner reads it.
    pub(super) slowest_start: AtomicU64,
    /// Whether any process has sent a ready line.
    pub(super) has_seen_ready_line: AtomicBool,
    /// One permit for each process that may be starting at the same time.
    pub(super) starts: Arc<Semaphore>,
    /// Notified when a call becomes the first of the queue to expire.
    pub(super) deadline_moved: Notify,
    /// Notified when a call waits and a further process could be started for it.
    pub(super) wants_more: Notify,
    /// One permit for each empty slot that is to be filled; empty slots wait for one.
    pub(super) fills: Semaphore,
    pub(super) shutdown: Shutdown,
    /// Calls that have no answer yet.
    pub(super) open_calls: PerThreadCount,
    /// The length of the queue after the last call was pushed or taken.
    queue_length: AtomicUsize,
    pub(super) budget: MemoryBudget,
    /// Notified when a process took no call because the memory budget is full.
    pub(super) starved: Notify,
    /// Notified when a process took no call because it may exit after its last reply.
    pub(super) may_exit: Notify,
    /// Why the pool cannot serve and never could; set once.
    pub(super) never_up: SetOnce<String>,
    pub(super) failed_output: FailedOutput,
    /// Where wake-ups and answers for other threads go.
    mailboxes: Mailboxes,
    /// What each process is doing.
    pub(super) statuses: Statuses,
    pub(super) metrics: Arc<Metrics>,
}

/// Why calls go back into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PutBack {
    /// A process that was given the calls ended, and never started on them.
    AfterEnd,
    /// A process took the calls, and was not given them.
    Ungiven,
}

/// What the lock guards. It has cache lines of its own (processors fetch two of 64 bytes at a time):
/// a thread that tries for the lock takes the line of the lock, and leaves these to the holder.
/// Worth 10 % of the calls of two threads.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct DispatchState {
    pub(super) queue: Queue<QueuedCall>,
    pub(super) waiting_processes: WaitingProcesses<Waker>,
    pub(super) health: Health,
    pub(super) is_closed: bool,
    /// When the queue is next searched for expired calls.
    pub(super) next_expiry: Option<Instant>,
    pub(super) next_process: u64,
    pub(super) scaling: Scaling,
}

impl Dispatcher {
    pub(super) fn new(
        config: &PoolConfig,
        health: Health,
        starts: usize,
        budget: MemoryBudget,
        shutdown: Shutdown,
        mailboxes: Mailboxes,
        metrics: Arc<Metrics>,
    ) -> Dispatcher {
        Dispatcher {
            state: Mutex::new(DispatchState {
                queue: Queue::new(config.queue.get()),
                waiting_processes: WaitingProcesses::new(),
                health,
                is_closed: false,
                next_expiry: None,
                next_process: 1,
                scaling: Scaling::new(config.processes, config.max_processes),
            }),
            queue_timeout: config.queue_timeout,
            timeout: config.timeout,
            slowest_start: AtomicU64::new(0),
            has_seen_ready_line: AtomicBool::new(false),
            starts: Arc::new(Semaphore::new(starts)),
            deadline_moved: Notify::new(),
            wants_more: Notify::new(),
            fills: Semaphore::new(0),
            shutdown,
            open_calls: mailboxes.new_count(),
            queue_length: AtomicUsize::new(0),
            statuses: Statuses::default(),
            metrics,
            budget,
            starved: Notify::new(),
            may_exit: Notify::new(),
            never_up: SetOnce::new(),
            failed_output: FailedOutput::default(),
            mailboxes,
        }
    }

    /// The slowest start of a process so far.
    pub(super) fn slowest_start(&self) -> Option<Duration> {
        let millis = self.slowest_start.load(Ordering::Relaxed).checked_sub(1);
        millis.map(Duration::from_millis)
    }

    /// Records how long a start has taken.
    pub(super) fn record_start(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX - 1);
        self.slowest_start.fetch_max(millis + 1, Ordering::Relaxed);
    }

    /// Closes the queue; returns the calls that were waiting in it.
    pub(super) fn close(&self) -> Vec<QueuedCall> {
        let mut state = self.lock();
        state.is_closed = true;
        state.queue.clear()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DispatchState> {
        #[cfg(not(all(test, faas_model)))]
        for _ in 0..LOCK_TRIES {
            match self.state.try_lock() {
                Ok(state) => return state,
                // A panic under the lock is a defect, but no reason to refuse every later request.
                Err(TryLockError::Poisoned(state)) => return state.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            (0..PAUSES_BETWEEN_TRIES).for_each(|_| std::hint::spin_loop());
        }
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// About the length of the queue, without waiting for the lock.
    pub(super) fn queue_length(&self) -> usize {
        self.queue_length.load(Ordering::Relaxed)
    }

    /// Publishes the length of the queue.
    pub(super) fn publish_length(&self, state: &DispatchState) {
        self.queue_length
            .store(state.queue.len(), Ordering::Relaxed);
    }

    /// Wakes one process for the first call, if a call and a process wait.
    pub(super) fn wake_one_for_first(&self, state: MutexGuard<'_, DispatchState>) {
        let home = state.first_home();
        self.wake_one(state, home);
    }

    /// Wakes one process for a call of a caller on this thread, if a call and a process wait.
    pub(super) fn wake_one(&self, mut state: MutexGuard<'_, DispatchState>, home: ThreadNumber) {
        let process = state.pop_for_waiting(home);
        let could_grow = process.is_none() && state.could_grow();
        drop(state);
        self.wake(process, could_grow);
    }

    /// Wakes the process; without one, the pool may have to grow.
    pub(super) fn wake(&self, process: Option<Registered<Waker>>, could_grow: bool) {
        if could_grow {
            self.wants_more.notify_one();
        }
        if let Some(process) = process {
            self.wake_process(process);
        }
    }

    fn wake_process(&self, process: Registered<Waker>) {
        self.mailboxes.wake(process.thread, process.waker);
    }

    /// The mailboxes of the threads.
    #[cfg(all(test, faas_model))]
    pub(super) fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Sends answers to their callers, each on its thread.
    pub(super) fn send_answers(&self, answers: &mut Vec<(ThreadNumber, Answer)>) {
        self.mailboxes.deliver(answers);
    }

    /// The process takes no call now. If it was woken for one, another process is woken instead.
    pub(super) fn pass_on_wake_up(&self, process: u64) {
        let mut state = self.lock();
        state.waiting_processes.withdraw(process);
        self.wake_one_for_first(state);
    }

    /// Puts calls that never started back into the queue, at the places that they had.
    pub(super) fn hand_back(&self, calls: Vec<QueuedCall>) {
        if !calls.is_empty() {
            self.put_back(calls, PutBack::AfterEnd);
        }
    }

    /// Puts calls that a process has taken, and was not given, back into the queue.
    pub(super) fn put_back_ungiven(&self, intake: &mut Intake) {
        if !intake.calls.is_empty() {
            self.put_back(intake.calls.drain(..).collect(), PutBack::Ungiven);
        }
    }

    fn put_back(&self, calls: Vec<QueuedCall>, reason: PutBack) {
        let now = Instant::now();
        let mut state = self.lock();
        let refusal = match state.is_closed {
            true => Some(RequestFailure::Draining),
            false => state.health.failure(),
        };
        if refusal.is_some() {
            drop(state);
            return answer_all(calls, refusal);
        }
        let (mut woken, mut past_giving_up, mut handed_back_too_often) =
            (Vec::new(), Vec::new(), Vec::new());
        for mut call in calls {
            if call.is_abandoned() {
                continue;
            }
            if now >= call.gives_up_at {
                past_giving_up.push(call);
                continue;
            }
            // Until a first process is up, failed starts over the whole pool end this sooner.
            if reason == PutBack::AfterEnd && state.health.was_ever_up() {
                call.times_handed_back += 1;
                if call.times_handed_back > MAX_HAND_BACKS {
                    handed_back_too_often.push(call);
                    continue;
                }
            }
            let longest = now + call.wait_left;
            call.waits_until = call
                .call
                .job
                .deadline
                .map_or(longest, |deadline| deadline.min(longest));
            let home = call.home;
            state.queue.hand_back(call.place, call.waits_until, call);
            woken.extend(state.waiting_processes.pop(home));
        }
        let could_grow = state.could_grow();
        self.publish_length(&state);
        drop(state);
        let why = "one process after another ended before it read the request".into();
        let retry_after = RETRY_SOON;
        answer_all(
            past_giving_up,
            Some(RequestFailure::Unavailable { why, retry_after }),
        );
        // Not `no`: a process may have put the line back into its stdin itself, so it may have run.
        let why = "one process after another ended while it had the request".into();
        answer_all(handed_back_too_often, Some(RequestFailure::Exited(why)));
        for process in woken {
            self.wake_process(process);
        }
        if could_grow {
            self.wants_more.notify_one();
        }
        self.deadline_moved.notify_one();
    }

    pub(super) fn record_never_up(&self) {
        let failure = self.lock().health.failure();
        if let Some(why) = why_of(&failure) {
            // The first reason stands.
            let _ = self.never_up.set(why.to_string());
        }
    }

    /// Records a change of the pool's health; if the pool cannot serve any more, waiting calls
    /// fail.
    pub(super) fn record<R>(&self, change: impl FnOnce(&mut Health) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state.health);
        let failure = state.health.failure();
        let news = state.health.take_news();
        let waiting = if failure.is_some() {
            state.queue.clear()
        } else {
            Vec::new()
        };
        drop(state);
        if matches!(failure, Some(RequestFailure::NotLoaded(_))) {
            self.record_never_up();
        }
        if let Some(why) = news {
            error!(%why, requests = waiting.len(), "handler keeps failing, requests are refused");
        }
        answer_all(waiting, failure);
        result
    }
}

/// The reason in a failure of the pool.
fn why_of(failure: &Option<RequestFailure>) -> Option<&Cause> {
    match failure {
        Some(RequestFailure::NotLoaded(why) | RequestFailure::Unavailable { why, .. }) => Some(why),
        Some(_) | None => None,
    }
}

pub(super) fn answer_all(calls: Vec<QueuedCall>, failure: Option<RequestFailure>) {
    let Some(failure) = failure else { return };
    for call in calls {
        call.answer(Err(failure.clone()));
    }
}
