//! Where calls and processes meet, under one lock.
//!
//! A call goes into the queue; the process that is woken for it takes it from there
//! ([`Dispatcher::poll_take`]). A process without a call for it registers its waker. No lock is held
//! across an await.

use super::health::Health;
use super::queue::{First, Queue, Taken};
use super::scaling::{self, Scaling};
use super::waiting::{Priority, WaitingProcesses};
use crate::budget::MemoryBudget;
use crate::cause::Cause;
use crate::config::PoolConfig;
use crate::error::Failure;
use crate::process::call::Call;
use crate::process::conversation::Position;
use crate::process::owner::Load;
use crate::process::repeats::FailedOutput;
use crate::shutdown::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SetOnce};
use tokio::time::{sleep, timeout};
use tracing::error;

/// Least time between two looks for requests that have waited too long.
const EXPIRY_PERIOD: Duration = Duration::from_millis(5);

/// Time between two reports that the memory budget is full while requests wait.
const SHORTAGE_PERIOD: Duration = Duration::from_millis(20);

/// How often a request is given to another process, when processes end that have not read it. What
/// is read back from a pipe may have been put there by whoever read it, so this has an end.
const MOST_HANDED_ON: u32 = 2;

/// A process that exits after each reply has ended, and is known to have, within this time of its
/// last one.
pub(super) const EXITS_WITHIN: Duration = Duration::from_millis(5);

/// Wait that a caller is told while no process has ever answered.
const RETRY_OF_THE_SILENT: Duration = Duration::from_secs(30);

/// Longest wait that a caller is told.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What the callers, the slots and the owners of processes have in common.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) state: Mutex<State>,
    pub(super) queue_timeout: Duration,
    /// The slowest start so far, in milliseconds and one; 0 before any was seen. One that was given
    /// up counts as twice as long, so that starts which have become slower are no loop. Beside the
    /// lock, because it is looked at whenever an owner is woken.
    pub(super) slowest_start: AtomicU64,
    /// Whether any process has sent a ready line.
    pub(super) announces: AtomicBool,
    /// How many processes may be starting at the same time.
    pub(super) starts: Arc<Semaphore>,
    /// Told when a deadline in the queue became the next one.
    pub(super) deadline_moved: Notify,
    /// Told when a request waits and another process could be started for it.
    pub(super) wants_more: Notify,
    /// Slots that are left empty wait here for their turn to be filled.
    pub(super) fills: Semaphore,
    pub(super) shutdown: Shutdown,
    /// Calls that have no answer yet.
    pub(super) open_calls: AtomicUsize,
    pub(super) budget: MemoryBudget,
    /// Told when a process took nothing because the memory budget is full.
    pub(super) starved: Notify,
    /// Told when a process took nothing because it may exit after its last reply.
    pub(super) may_exit: Notify,
    /// Set when the pool cannot serve and never could: why.
    pub(super) never_up: SetOnce<String>,
    pub(super) failed_output: FailedOutput,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue<Call>,
    pub(super) waiting_processes: WaitingProcesses<Waker>,
    pub(super) health: Health,
    pub(super) is_closed: bool,
    /// When the queue is looked through next.
    pub(super) next_look: Option<Instant>,
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
    ) -> Dispatcher {
        Dispatcher {
            state: Mutex::new(State {
                queue: Queue::new(config.queue.get()),
                waiting_processes: WaitingProcesses::new(),
                health,
                is_closed: false,
                next_look: None,
                next_process: 1,
                scaling: Scaling::new(config.processes, config.max_processes),
            }),
            queue_timeout: config.queue_timeout,
            slowest_start: AtomicU64::new(0),
            announces: AtomicBool::new(false),
            starts: Arc::new(Semaphore::new(starts)),
            deadline_moved: Notify::new(),
            wants_more: Notify::new(),
            fills: Semaphore::new(0),
            shutdown,
            open_calls: AtomicUsize::new(0),
            budget,
            starved: Notify::new(),
            may_exit: Notify::new(),
            never_up: SetOnce::new(),
            failed_output: FailedOutput::default(),
        }
    }

    /// The memory budget of the worker.
    pub(super) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// The slowest start of a process so far.
    pub(super) fn slowest_start(&self) -> Option<Duration> {
        let millis = self.slowest_start.load(Ordering::Relaxed).checked_sub(1);
        millis.map(Duration::from_millis)
    }

    /// A start has taken this long.
    pub(super) fn record_start(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX - 1);
        self.slowest_start.fetch_max(millis + 1, Ordering::Relaxed);
    }

    /// From now on nothing is taken on; gives what still waits.
    pub(super) fn close(&self) -> Vec<Call> {
        let mut state = self.lock();
        state.is_closed = true;
        state.queue.clear()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a defect, but no reason to refuse every request after it.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// The next request, or a promise to wake this process when there is one.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        process: u64,
        priority: Priority,
        load: Load,
    ) -> Poll<Call> {
        let mut too_late = Vec::new();
        let mut state = self.lock();
        state.waiting_processes.withdraw(process);
        let now = Instant::now();
        let is_starved = !state.queue.is_empty() && self.budget.is_full();
        let mut may_exit;
        let taken = loop {
            may_exit = state.may_lose_last_chance(load, now);
            if is_starved || may_exit || !state.may_take(load) {
                break None;
            }
            match state.queue.take(now) {
                Some(Taken::InTime(call)) if call.is_abandoned() => {}
                Some(Taken::InTime(call)) => break Some(call),
                Some(Taken::TooLate(call)) => too_late.push(call),
                None => break None,
            }
        };
        // What is left is for somebody who has not been asked for it, perhaps.
        let other = match taken {
            Some(_) => state.pop_for_waiting(),
            None if state.queue.is_empty() => None,
            // Nobody takes anything before there is room.
            None if is_starved => None,
            // For the others, as long as there are any; this process is asked again in a moment.
            None if may_exit => state.waiting_processes.pop_new(),
            // Left to those that are idle; busy ones would only ask each other in turn.
            None => state.waiting_processes.pop_idle(),
        };
        let could_grow = other.is_none() && !is_starved && state.could_grow();
        if taken.is_none() {
            state
                .waiting_processes
                .register(process, priority, cx.waker().clone());
        }
        let failure = (!too_late.is_empty()).then(|| state.waited_too_long());
        drop(state);
        if is_starved {
            self.starved.notify_one();
        }
        if may_exit {
            self.may_exit.notify_one();
        }
        self.wake(other, could_grow);
        answer_all(too_late, failure);
        match taken {
            Some(mut call) => {
                call.wait_left = call.waits_until.saturating_duration_since(now);
                Poll::Ready(call)
            }
            None => Poll::Pending,
        }
    }

    /// Has somebody look at what waits, if something does.
    pub(super) fn wake_one(&self, mut state: MutexGuard<'_, State>) {
        let process = state.pop_for_waiting();
        let could_grow = process.is_none() && state.could_grow();
        drop(state);
        self.wake(process, could_grow);
    }

    /// Wakes the process; where there is none, the pool may have to grow.
    pub(super) fn wake(&self, process: Option<Waker>, could_grow: bool) {
        if could_grow {
            self.wants_more.notify_one();
        }
        if let Some(process) = process {
            process.wake();
        }
    }

    /// The process takes nothing now, though it may have been asked.
    pub(super) fn give_up_turn(&self, process: u64) {
        let mut state = self.lock();
        state.waiting_processes.withdraw(process);
        self.wake_one(state);
    }

    /// Gives requests that never started to others, at the places that they had.
    pub(super) fn hand_back(&self, calls: Vec<Call>) {
        if calls.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let refusal = match state.is_closed {
            true => Some(Failure::Draining),
            false => state.health.failure(),
        };
        if refusal.is_some() {
            drop(state);
            return answer_all(calls, refusal);
        }
        let (mut wakers, mut worn_out, mut too_often) = (Vec::new(), Vec::new(), Vec::new());
        for mut call in calls {
            if call.is_abandoned() {
                continue;
            }
            if now >= call.gives_up_at {
                worn_out.push(call);
                continue;
            }
            // Before any process was up, failed starts are counted over the pool, and end it sooner.
            if state.health.was_ever_up() {
                call.handed_on += 1;
                if call.handed_on > MOST_HANDED_ON {
                    too_often.push(call);
                    continue;
                }
            }
            let longest = now + call.wait_left;
            call.waits_until = call.latest.map_or(longest, |latest| latest.min(longest));
            state.queue.hand_back(call.place, call.waits_until, call);
            wakers.extend(state.waiting_processes.pop());
        }
        let could_grow = state.could_grow();
        drop(state);
        let why = "one process after another ended before it read the request".into();
        let retry_after = Duration::from_secs(1);
        answer_all(worn_out, Some(Failure::Unavailable { why, retry_after }));
        let why = "one process after another ended while it had the request".into();
        answer_all(too_often, Some(Failure::Exited(why)));
        wakers.into_iter().for_each(Waker::wake);
        self.wake(None, could_grow);
        self.deadline_moved.notify_one();
    }

    pub(super) fn record_never_up(&self) {
        let failure = self.lock().health.failure();
        if let Some(why) = why_of(&failure) {
            // The first reason stands.
            let _ = self.never_up.set(why.to_string());
        }
    }

    /// Notes something about the pool's health; if it cannot serve any more, what waits fails.
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
        if matches!(failure, Some(Failure::NotLoaded(_))) {
            self.record_never_up();
        }
        if let Some(why) = news {
            error!(%why, requests = waiting.len(), "handler keeps failing, requests are refused");
        }
        answer_all(waiting, failure);
        result
    }

    /// Has empty slots filled while requests wait for too long; never ends.
    pub(super) async fn grow_when_needed(self: Arc<Dispatcher>) {
        loop {
            self.wants_more.notified().await;
            while self.grow_if_needed() {
                tokio::time::sleep(scaling::LOOK_PERIOD).await;
            }
        }
    }

    /// Lets one more slot be filled if it is time; true while there may be more to do.
    pub(super) fn grow_if_needed(&self) -> bool {
        let is_start_free = self.starts.available_permits() > 0;
        let mut state = self.lock();
        let (first, next) = state.queue.places();
        if state.scaling.look(first, next, is_start_free) {
            self.fills.add_permits(1);
        }
        first.is_some() && state.scaling.has_room()
    }

    /// Answers requests that have waited too long, as long as it is polled; never ends.
    pub(super) async fn expire_in_time(self: Arc<Dispatcher>) {
        loop {
            let moved = self.deadline_moved.notified();
            let Some(next) = self.plan_look() else {
                moved.await;
                continue;
            };
            tokio::select! {
                // Cancel-safe: a notification that is lost with it only brings the next look.
                () = moved => {}
                () = tokio::time::sleep_until(next.into()) => self.expire(Instant::now()),
            }
            tokio::time::sleep(EXPIRY_PERIOD).await;
        }
    }

    /// Has processes that took nothing, as they might exit after a reply, look again when they have
    /// not.
    pub(super) async fn ask_again_who_may_exit(self: Arc<Self>) {
        loop {
            self.may_exit.notified().await;
            sleep(EXITS_WITHIN).await;
            self.wake_one(self.lock());
        }
    }

    /// Has processes take again from the queue when the memory budget has room again.
    pub(super) async fn go_on_when_there_is_room(self: Arc<Self>) {
        loop {
            self.starved.notified().await;
            // The slowest readers are let go one by one until there is room.
            let mut room = pin!(self.budget.room_for_requests());
            loop {
                self.budget.report_shortage();
                // Cancel-safe: the future is kept.
                if timeout(SHORTAGE_PERIOD, &mut room).await.is_ok() {
                    break;
                }
            }
            self.wake_one(self.lock());
        }
    }

    pub(super) fn plan_look(&self) -> Option<Instant> {
        let mut state = self.lock();
        // With an empty queue a look that is planned stays: the next request need not plan one.
        let planned = state.next_look.filter(|look| *look > Instant::now());
        state.next_look = state.queue.next_deadline().or(planned);
        state.next_look
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let late = state.queue.expire(now);
        let failure = (!late.is_empty()).then(|| state.waited_too_long());
        drop(state);
        answer_all(late, failure);
    }
}

impl State {
    /// Whether a process may take the first that waits.
    pub(super) fn may_take(&self, load: Load) -> bool {
        let room_bytes = match load.position {
            Position::First => return true,
            Position::Behind { room_bytes } => room_bytes,
        };
        let first = match self.queue.first() {
            Some(First::Fresh(first)) => first,
            // It is written ahead no second time.
            Some(First::HandedBack(_)) | None => return false,
        };
        // Idle ones are to have as many as this one would have then.
        let is_needed_elsewhere =
            self.queue.len() <= self.waiting_processes.idle() * (load.in_flight + 1);
        first.payload.len() as u64 <= room_bytes && !is_needed_elsewhere
    }

    /// True when the first that waits may be given to one more process only, and this one may be
    /// about to end: some exit after each reply.
    pub(super) fn may_lose_last_chance(&self, load: Load, now: Instant) -> bool {
        let Some(First::HandedBack(first)) = self.queue.first() else {
            return false;
        };
        let replied = load.last_replied;
        let has_just_replied = replied.is_some_and(|at| now < at + EXITS_WITHIN);
        first.handed_on >= MOST_HANDED_ON && has_just_replied
    }

    /// Somebody to be asked, if requests wait.
    pub(super) fn pop_for_waiting(&mut self) -> Option<Waker> {
        if self.queue.is_empty() {
            None
        } else {
            self.waiting_processes.pop()
        }
    }

    /// Whether a further process could be started for what waits.
    pub(super) fn could_grow(&self) -> bool {
        !self.queue.is_empty() && self.scaling.has_room()
    }

    pub(super) fn overloaded(&self, why: Cause) -> Failure {
        let least = match self.health.is_silent() {
            // It does not mend itself within a second.
            true => RETRY_OF_THE_SILENT,
            false => Duration::from_secs(1),
        };
        let wait = self.queue.wait_for_newcomer();
        let retry_after = wait.clamp(least, LONGEST_RETRY_AFTER);
        Failure::Overloaded { why, retry_after }
    }

    /// With why no process can take what waits, if that is so.
    pub(super) fn with_cause(&self, what: &str) -> Failure {
        let why_none = self.health.why_not_ready();
        self.overloaded(why_none.map_or_else(
            || what.into(),
            |why| why.map(|why| format!("{what}; {why}")),
        ))
    }

    pub(super) fn waited_too_long(&self) -> Failure {
        self.with_cause("the request waited too long in the queue")
    }
}

/// Why the pool cannot serve.
fn why_of(failure: &Option<Failure>) -> Option<&Cause> {
    match failure {
        Some(Failure::NotLoaded(why) | Failure::Unavailable { why, .. }) => Some(why),
        Some(_) | None => None,
    }
}

pub(super) fn answer_all(calls: Vec<Call>, failure: Option<Failure>) {
    let Some(failure) = failure else { return };
    for call in calls {
        call.answer(Err(failure.clone()));
    }
}
