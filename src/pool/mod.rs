//! All processes of a worker, and the queue in front of them.
//!
//! The front doors call [`Pool::call`] and know nothing else. A call goes into the queue; the
//! process that is asked first takes it from there (`Shared::poll_take`), and its answer comes
//! back over a channel of its own. No lock is held across an await.

mod available;
mod backoff;
mod condition;
mod gathering;
mod growth;
mod lifetime;
mod member;
mod queue;
mod rollout;
mod running;
mod slot;

use crate::budget::{MemoryBudget, Reservation};
use crate::cause::Cause;
use crate::config::{Config, PoolConfig};
use crate::error::{Failure, StartError};
pub use crate::process::call::Extras;
use crate::process::call::{Call, Outcome};
use crate::process::conversation::Start;
use crate::process::launch::{Directory, Launcher, shell_syntax};
use crate::process::owner::Load;
use crate::process::repeats::FailedOutput;
use available::{Available, Rank};
use bytes::Bytes;
use condition::Condition;
use growth::Growth;
use queue::{First, Queue, Taken};
use rustix::process::Rlimit;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SetOnce, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// Least time between two looks for requests that have waited too long.
const EXPIRY_PERIOD: Duration = Duration::from_millis(5);

/// Time between two reports that the memory budget is full while requests wait.
const SHORTAGE_PERIOD: Duration = Duration::from_millis(20);

/// How often a request is given to another process, when processes end that have not read it. What
/// is read back from a pipe may have been put there by whoever read it, so this has an end.
const MOST_HANDED_ON: u32 = 2;

/// A process that exits after each reply has ended, and is known to have, within this time of its
/// last one.
const EXITS_WITHIN: Duration = Duration::from_millis(5);

/// Wait that a caller is told while no process has ever answered.
const RETRY_OF_THE_SILENT: Duration = Duration::from_secs(30);

/// Longest wait that a caller is told.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// All processes of a worker, and the queue in front of them.
///
/// Ends with [`Pool::stop`]; dropped without it, its tasks end with the runtime, and each process
/// is killed as its task is dropped.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Told when all processes are to be renewed.
    reload: Arc<Notify>,
}

/// What the callers, the slots and the owners of processes have in common.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    queue_timeout: Duration,
    /// The slowest start so far, in milliseconds and one; 0 before any was seen. One that was given
    /// up counts as twice as long, so that starts which have become slower are no loop. Beside the
    /// lock, because it is looked at whenever an owner is woken.
    slowest_start: AtomicU64,
    /// Whether any process has sent a ready line.
    announces: AtomicBool,
    /// How many processes may be starting at the same time.
    starts: Arc<Semaphore>,
    /// Told when a deadline in the queue became the next one.
    deadline_moved: Notify,
    /// Told when a request waits and another process could be started for it.
    pressure: Notify,
    /// Slots that are left empty wait here for their turn to be filled.
    turns: Semaphore,
    /// Cancelled when processes with nothing to do are to be stopped.
    drain: CancellationToken,
    /// Cancelled when every process that stops is to be asked by SIGTERM.
    terminate: CancellationToken,
    /// Cancelled when every process must end at once.
    kill: CancellationToken,
    /// Calls that have no answer yet.
    open_calls: AtomicUsize,
    budget: MemoryBudget,
    /// Told when a process took nothing because the memory budget is full.
    starved: Notify,
    /// Told when a process took nothing because it may exit after its last reply.
    may_exit: Notify,
    /// Set when the pool cannot serve and never could: why.
    never_up: SetOnce<String>,
    failed_output: FailedOutput,
}

#[derive(Debug)]
struct State {
    queue: Queue<Call>,
    available: Available<Waker>,
    condition: Condition,
    is_closed: bool,
    /// When the queue is looked through next.
    next_look: Option<Instant>,
    next_process: u64,
    growth: Growth,
}

impl Pool {
    /// Starts the processes. They get `descriptor_limit` as their limit if it is given. Must be
    /// called within a runtime.
    pub fn start(
        config: &Config,
        descriptor_limit: Option<Rlimit>,
        budget: MemoryBudget,
    ) -> Result<Pool, StartError> {
        let no_command = config.command.is_none().then(|| {
            "no command was given: set HANDLER_FUNCTION, --handler, or give it after --".to_owned()
        });
        let starts = config.pool.processes_starting_at_once.get();
        let pool = Pool {
            shared: Arc::new(Shared::new(
                &config.pool,
                Condition::new(no_command),
                starts,
                budget,
            )),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            reload: Arc::default(),
        };
        let expire = Arc::clone(&pool.shared).expire_in_time();
        let stop = pool.stop.clone();
        pool.tasks.spawn(stop.run_until_cancelled_owned(expire));
        let retry = Arc::clone(&pool.shared).ask_again_who_may_exit();
        let stop = pool.stop.clone();
        pool.tasks.spawn(stop.run_until_cancelled_owned(retry));
        let feed = Arc::clone(&pool.shared).go_on_when_there_is_room();
        let stop = pool.stop.clone();
        pool.tasks.spawn(stop.run_until_cancelled_owned(feed));
        let Some(command) = config.command.clone() else {
            pool.shared.note_never_up();
            error!("no handler: set HANDLER_FUNCTION, --handler, or give a command after --");
            return Ok(pool);
        };
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
        let directory = Directory::find(config.directory.as_deref());
        let isolation = config.isolation.clone();
        let launcher = Launcher::new(command, isolation, directory, descriptor_limit);
        let launcher = launcher.map_err(|source| StartError::Runtime {
            what: "the launcher thread",
            source,
        })?;
        let mut slots = Vec::new();
        for number in 0..config.pool.max_processes.get() {
            let (orders, renewals) = mpsc::channel(1);
            slots.push(orders);
            let slot = slot::Slot::new(
                Arc::clone(&pool.shared),
                launcher.clone(),
                slot::Settings {
                    process: config.process.clone(),
                    idle_timeout: config.pool.idle_timeout,
                    is_empty_at_first: number >= config.pool.processes.get(),
                },
                pool.stop.clone(),
                renewals,
            );
            pool.tasks.spawn(slot.keep_filled());
        }
        let grow = Arc::clone(&pool.shared).grow_under_pressure();
        let stop = pool.stop.clone();
        pool.tasks.spawn(stop.run_until_cancelled_owned(grow));
        let roll_out = rollout::roll_out(slots, Arc::clone(&pool.reload));
        let stop = pool.stop.clone();
        pool.tasks.spawn(stop.run_until_cancelled_owned(roll_out));
        Ok(pool)
    }

    /// Has a payload worked on. `payload` is the inside of its JSON string; `latest` is the end of
    /// the caller's own budget; `held` counts the bytes of the payload. Dropping the future before
    /// its end takes a request that still waits out of the queue; one that a process has is
    /// finished, and its result dropped.
    pub fn call(
        &self,
        payload: Bytes,
        extras: Extras,
        timeout: Duration,
        latest: Option<Instant>,
        held: Reservation,
    ) -> Result<Answered, Failure> {
        let now = Instant::now();
        let longest = now + self.shared.queue_timeout;
        let until = latest.map_or(longest, |latest| latest.min(longest));
        let (mut call, receiver) = Call::new(payload, extras, timeout, latest, held, now);
        call.waits_until = until;
        // Time in the queue, behind another request, and with the process that it is given to then.
        call.gives_up_at = longest + 2 * timeout;
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(Failure::Draining);
        }
        if let Some(failure) = state.condition.failure() {
            return Err(failure);
        }
        let place = state.queue.push(until, |place| {
            call.place = place;
            call
        });
        let Some(place) = place else {
            return Err(state.with_cause("the queue is full"));
        };
        let is_next = state.next_look.is_none_or(|look| until < look);
        if is_next {
            state.next_look = Some(until);
        }
        self.shared.have_looked_at(state);
        if is_next {
            self.shared.deadline_moved.notify_one();
        }
        self.shared.open_calls.fetch_add(1, Ordering::Relaxed);
        Ok(Answered {
            shared: Arc::clone(&self.shared),
            place,
            receiver,
            is_done: false,
        })
    }

    /// Why the pool cannot serve now, if it cannot.
    pub fn why_not_ready(&self) -> Option<Cause> {
        self.shared.lock().condition.why_not_ready()
    }

    /// Waits until requests are refused because no process ever came up; says why.
    // Cancel-safe: once it is so, it stays known.
    pub async fn never_up(&self) -> &str {
        self.shared.never_up.wait().await
    }

    /// Has all processes replaced by new ones of the same command: one first, and if that one
    /// comes up, the others. Each takes over when it is up, and no request is lost; if none comes
    /// up, those that serve go on. The log says which. Asked for again meanwhile, it starts over.
    pub fn reload(&self) {
        // Whoever edits wants to see what comes of it, even if it is the same.
        self.shared.failed_output.forget();
        self.reload.notify_one();
    }

    /// Stops each process as soon as it has nothing to do; one is started again if requests wait
    /// all the same.
    pub fn drain(&self) {
        self.shared.lock().growth.drain();
        self.shared.drain.cancel();
    }

    /// Asks every process that stops to end now; its requests have had their time.
    pub fn terminate(&self) {
        self.shared.terminate.cancel();
    }

    /// Calls that have no answer yet.
    pub fn open_calls(&self) -> usize {
        self.shared.open_calls.load(Ordering::Relaxed)
    }

    /// Refuses what comes and what waits, lets each process finish what it has within its grace,
    /// and returns when all have ended and are reaped.
    pub async fn stop(&self) {
        answer_all(self.shared.close(), Some(Failure::Draining));
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Kills every process at once; makes a [`Pool::stop`] short.
    pub fn kill(&self) {
        self.shared.kill.cancel();
    }
}

/// The answer to a call, in time.
#[derive(Debug)]
pub struct Answered {
    shared: Arc<Shared>,
    place: u64,
    receiver: oneshot::Receiver<Outcome>,
    is_done: bool,
}

impl Future for Answered {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.receiver).poll(cx).map(|received| {
            self.is_done = true;
            // Only a pool that is torn down drops a call without an answer.
            received.unwrap_or_else(|_| Err(Failure::Exited("the worker was stopped".into())))
        })
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.shared.open_calls.fetch_sub(1, Ordering::Relaxed);
        if !self.is_done {
            let abandoned = self.shared.lock().queue.remove(self.place);
            // Only now that the lock is free: dropping it wakes whoever waited.
            drop(abandoned);
        }
    }
}

impl Shared {
    fn new(
        config: &PoolConfig,
        condition: Condition,
        starts: usize,
        budget: MemoryBudget,
    ) -> Shared {
        Shared {
            state: Mutex::new(State {
                queue: Queue::new(config.queue.get()),
                available: Available::new(),
                condition,
                is_closed: false,
                next_look: None,
                next_process: 1,
                growth: Growth::new(config.processes, config.max_processes),
            }),
            queue_timeout: config.queue_timeout,
            slowest_start: AtomicU64::new(0),
            announces: AtomicBool::new(false),
            starts: Arc::new(Semaphore::new(starts)),
            deadline_moved: Notify::new(),
            pressure: Notify::new(),
            turns: Semaphore::new(0),
            drain: CancellationToken::new(),
            terminate: CancellationToken::new(),
            kill: CancellationToken::new(),
            open_calls: AtomicUsize::new(0),
            budget,
            starved: Notify::new(),
            may_exit: Notify::new(),
            never_up: SetOnce::new(),
            failed_output: FailedOutput::default(),
        }
    }

    /// The memory budget of the worker.
    fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// The slowest start of a process so far.
    fn slowest_start(&self) -> Option<Duration> {
        let millis = self.slowest_start.load(Ordering::Relaxed).checked_sub(1);
        millis.map(Duration::from_millis)
    }

    /// A start has taken this long.
    fn note_start(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX - 1);
        self.slowest_start.fetch_max(millis + 1, Ordering::Relaxed);
    }

    /// From now on nothing is taken on; gives what still waits.
    fn close(&self) -> Vec<Call> {
        let mut state = self.lock();
        state.is_closed = true;
        state.queue.clear()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a defect, but no reason to refuse every request after it.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many requests wait.
    fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// The next request, or a promise to wake this process when there is one.
    fn poll_take(&self, cx: &mut Context<'_>, process: u64, rank: Rank, load: Load) -> Poll<Call> {
        let mut too_late = Vec::new();
        let mut state = self.lock();
        state.available.unlist(process);
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
            Some(_) => state.next_for_waiting(),
            None if state.queue.is_empty() => None,
            // Nobody takes anything before there is room.
            None if is_starved => None,
            // For the others, as long as there are any; this process is asked again in a moment.
            None if may_exit => state.available.next_new(),
            // Left to those that are idle; busy ones would only ask each other in turn.
            None => state.available.next_idle(),
        };
        let could_grow = other.is_none() && !is_starved && state.could_grow();
        if taken.is_none() {
            state.available.list(process, rank, cx.waker().clone());
        }
        let failure = (!too_late.is_empty()).then(|| state.waited_too_long());
        drop(state);
        if is_starved {
            self.starved.notify_one();
        }
        if may_exit {
            self.may_exit.notify_one();
        }
        self.ask(other, could_grow);
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
    fn have_looked_at(&self, mut state: MutexGuard<'_, State>) {
        let process = state.next_for_waiting();
        let could_grow = process.is_none() && state.could_grow();
        drop(state);
        self.ask(process, could_grow);
    }

    /// Wakes the process; where there is none, the pool may have to grow.
    fn ask(&self, process: Option<Waker>, could_grow: bool) {
        if could_grow {
            self.pressure.notify_one();
        }
        if let Some(process) = process {
            process.wake();
        }
    }

    /// The process takes nothing now, though it may have been asked.
    fn step_back(&self, process: u64) {
        let mut state = self.lock();
        state.available.unlist(process);
        self.have_looked_at(state);
    }

    /// Gives requests that never started to others, at the places that they had.
    fn hand_back(&self, calls: Vec<Call>) {
        if calls.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let refusal = match state.is_closed {
            true => Some(Failure::Draining),
            false => state.condition.failure(),
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
            if state.condition.was_ever_up() {
                call.handed_on += 1;
                if call.handed_on > MOST_HANDED_ON {
                    too_often.push(call);
                    continue;
                }
            }
            let longest = now + call.wait_left;
            call.waits_until = call.latest.map_or(longest, |latest| latest.min(longest));
            state.queue.hand_back(call.place, call.waits_until, call);
            wakers.extend(state.available.next());
        }
        let could_grow = state.could_grow();
        drop(state);
        let why = "one process after another ended before it read the request".into();
        let retry_after = Duration::from_secs(1);
        answer_all(worn_out, Some(Failure::Unavailable { why, retry_after }));
        let why = "one process after another ended while it had the request".into();
        answer_all(too_often, Some(Failure::Exited(why)));
        wakers.into_iter().for_each(Waker::wake);
        self.ask(None, could_grow);
        self.deadline_moved.notify_one();
    }

    fn note_never_up(&self) {
        let failure = self.lock().condition.failure();
        if let Some(why) = why_of(&failure) {
            // The first reason stands.
            let _ = self.never_up.set(why.to_string());
        }
    }

    /// Notes something about the pool's condition; if it cannot serve any more, what waits fails.
    fn note<R>(&self, change: impl FnOnce(&mut Condition) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state.condition);
        let failure = state.condition.failure();
        let news = state.condition.take_news();
        let waiting = if failure.is_some() {
            state.queue.clear()
        } else {
            Vec::new()
        };
        drop(state);
        if matches!(failure, Some(Failure::NotLoaded(_))) {
            self.note_never_up();
        }
        if let Some(why) = news {
            error!(%why, requests = waiting.len(), "handler keeps failing, requests are refused");
        }
        answer_all(waiting, failure);
        result
    }

    /// Has empty slots filled while requests wait for too long; never ends.
    async fn grow_under_pressure(self: Arc<Shared>) {
        loop {
            self.pressure.notified().await;
            while self.look_at_pressure() {
                tokio::time::sleep(growth::LOOK_PERIOD).await;
            }
        }
    }

    /// Lets one more slot be filled if it is time; true while there may be more to do.
    fn look_at_pressure(&self) -> bool {
        let is_start_free = self.starts.available_permits() > 0;
        let mut state = self.lock();
        let (first, next) = state.queue.places();
        if state.growth.look(first, next, is_start_free) {
            self.turns.add_permits(1);
        }
        first.is_some() && state.growth.has_room()
    }

    /// Answers requests that have waited too long, as long as it is polled; never ends.
    async fn expire_in_time(self: Arc<Shared>) {
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
    async fn ask_again_who_may_exit(self: Arc<Self>) {
        loop {
            self.may_exit.notified().await;
            sleep(EXITS_WITHIN).await;
            self.have_looked_at(self.lock());
        }
    }

    /// Has processes take again from the queue when the memory budget has room again.
    async fn go_on_when_there_is_room(self: Arc<Self>) {
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
            self.have_looked_at(self.lock());
        }
    }

    fn plan_look(&self) -> Option<Instant> {
        let mut state = self.lock();
        // With an empty queue a look that is planned stays: the next request need not plan one.
        let planned = state.next_look.filter(|look| *look > Instant::now());
        state.next_look = state.queue.next_deadline().or(planned);
        state.next_look
    }

    fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let late = state.queue.expire(now);
        let failure = (!late.is_empty()).then(|| state.waited_too_long());
        drop(state);
        answer_all(late, failure);
    }
}

impl State {
    /// Whether a process may take the first that waits.
    fn may_take(&self, load: Load) -> bool {
        let room_bytes = match load.start {
            Start::AtOnce => return true,
            Start::Behind { room_bytes } => room_bytes,
        };
        let first = match self.queue.first() {
            Some(First::Fresh(first)) => first,
            // It is written ahead no second time.
            Some(First::HandedBack(_)) | None => return false,
        };
        // Idle ones are to have as many as this one would have then.
        let is_needed_elsewhere = self.queue.len() <= self.available.idle() * (load.in_flight + 1);
        first.payload.len() as u64 <= room_bytes && !is_needed_elsewhere
    }

    /// True when the first that waits may be given to one more process only, and this one may be
    /// about to end: some exit after each reply.
    fn may_lose_last_chance(&self, load: Load, now: Instant) -> bool {
        let Some(First::HandedBack(first)) = self.queue.first() else {
            return false;
        };
        let replied = load.last_replied;
        let has_just_replied = replied.is_some_and(|at| now < at + EXITS_WITHIN);
        first.handed_on >= MOST_HANDED_ON && has_just_replied
    }

    /// Somebody to be asked, if requests wait.
    fn next_for_waiting(&mut self) -> Option<Waker> {
        if self.queue.is_empty() {
            None
        } else {
            self.available.next()
        }
    }

    /// Whether a further process could be started for what waits.
    fn could_grow(&self) -> bool {
        !self.queue.is_empty() && self.growth.has_room()
    }

    fn overloaded(&self, why: Cause) -> Failure {
        let least = match self.condition.is_silent() {
            // It does not mend itself within a second.
            true => RETRY_OF_THE_SILENT,
            false => Duration::from_secs(1),
        };
        let wait = self.queue.wait_for_newcomer();
        let retry_after = wait.clamp(least, LONGEST_RETRY_AFTER);
        Failure::Overloaded { why, retry_after }
    }

    /// With why no process can take what waits, if that is so.
    fn with_cause(&self, what: &str) -> Failure {
        let why_none = self.condition.why_not_ready();
        self.overloaded(why_none.map_or_else(
            || what.into(),
            |why| why.map(|why| format!("{what}; {why}")),
        ))
    }

    fn waited_too_long(&self) -> Failure {
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

fn answer_all(calls: Vec<Call>, failure: Option<Failure>) {
    let Some(failure) = failure else { return };
    for call in calls {
        call.answer(Err(failure.clone()));
    }
}

#[cfg(test)]
mod tests;
