//! A process's membership of the pool: whether it counts as starting or up, and when it is woken
//! for calls.
//!
//! Leaves the pool when dropped. Never touches the process.

use crate::answer::{Answer, Outcome, Work};
use crate::logging::milliseconds;
use crate::pool::batching::Batching;
use crate::pool::dispatch::{Dispatcher, Intake, poll_next_turn};
use crate::pool::health::Health;
use crate::pool::queued_call::QueuedCall;
use crate::pool::status::ProcessStatus;
use crate::pool::waiting::Priority;
use crate::process::call::Call;
use crate::process::owner::{Load, ProcessObserver, RequestSource};
use crate::threads::mailbox::ThreadNumber;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// A process's membership of the pool. Leaves the pool when dropped.
#[derive(Debug)]
pub(super) struct Member {
    dispatcher: Arc<Dispatcher>,
    number: u64,
    standing: MemberStanding,
    role: Role,
    /// Whether a line of the process has shown that it works.
    has_shown_life: bool,
    /// Cancelled when the process is up.
    came_up: CancellationToken,
    /// Permit to start; held until the process is up or counts as started.
    permit: Option<OwnedSemaphorePermit>,
    /// Registered for a wake-up. If it was woken and then cannot take a call, it must wake another
    /// process.
    is_registered: bool,
    batching: Batching,
    intake: Intake,
    /// Calls taken so far.
    calls_taken: u64,
    /// Calls after which the process is replaced.
    most_taken: Option<u64>,
    /// Cancelled when the process has taken `most_taken` calls.
    has_taken_most: CancellationToken,
    status: Arc<ProcessStatus>,
    /// Answers that are sent together at the end of the owner's turn.
    answers: Vec<(ThreadNumber, Answer)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberStanding {
    Starting,
    Up,
    Left,
}

/// The role of a process in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The process serves.
    Serving,
    /// A successor is starting; the process serves calls that no other process would take
    /// immediately.
    Superseded,
    /// A successor that is not up, and takes no calls yet.
    Candidate,
    /// A successor that is not up, and may take one call to show that it works. If it ends without
    /// having read the call, another process gets it.
    OnTrial,
}

impl Member {
    /// Adds a process that was just started to the pool.
    pub(super) fn join(
        dispatcher: Arc<Dispatcher>,
        role: Role,
        permit: Option<OwnedSemaphorePermit>,
        most_taken: Option<u64>,
        status: ProcessStatus,
    ) -> Member {
        let mut state = dispatcher.lock();
        let number = state.next_process;
        state.next_process += 1;
        state.health.started();
        drop(state);
        let status = Arc::new(status);
        dispatcher.statuses.insert(number, Arc::clone(&status));
        Member {
            dispatcher,
            number,
            standing: MemberStanding::Starting,
            role,
            has_shown_life: false,
            came_up: CancellationToken::new(),
            permit,
            is_registered: false,
            batching: Batching::default(),
            intake: Intake::default(),
            calls_taken: 0,
            most_taken,
            has_taken_most: CancellationToken::new(),
            status,
            answers: Vec::new(),
        }
    }

    /// What the process is doing.
    pub(super) fn status(&self) -> &Arc<ProcessStatus> {
        &self.status
    }

    /// The number by which the log names the process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    pub(super) fn is_up(&self) -> bool {
        self.standing == MemberStanding::Up
    }

    /// Cancelled when the process is up.
    pub(super) fn came_up_token(&self) -> &CancellationToken {
        &self.came_up
    }

    /// Cancelled when the process has taken as many calls as it may in its life.
    pub(super) fn has_taken_most(&self) -> &CancellationToken {
        &self.has_taken_most
    }

    /// Calls taken so far.
    pub(super) fn calls_taken(&self) -> u64 {
        self.calls_taken
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.role == Role::OnTrial
    }

    /// The process no longer counts as starting; another may start.
    pub(super) fn end_start(&mut self) {
        self.permit = None;
    }

    /// Changes the role, from the next call of `poll_take` on. A candidate that is up already keeps
    /// serving.
    pub(super) fn set_role(&mut self, role: Role) {
        let is_trial = matches!(role, Role::Candidate | Role::OnTrial);
        if !(is_trial && self.is_up()) {
            self.role = role;
        }
    }

    fn priority(&self, load: Load) -> Priority {
        let is_idle = load.in_flight == 0;
        match self.role {
            Role::OnTrial => Priority::OnTrial,
            Role::Serving | Role::Candidate | Role::Superseded if !load.has_replied => {
                Priority::New
            }
            Role::Superseded if is_idle => Priority::Superseded,
            Role::Superseded => Priority::SupersededBusy,
            Role::Serving | Role::Candidate if is_idle => Priority::Idle,
            Role::Serving | Role::Candidate => Priority::Busy,
        }
    }
}

impl RequestSource for Member {
    type Request = QueuedCall;

    fn poll_take(&mut self, cx: &mut Context<'_>, load: Load) -> Poll<QueuedCall> {
        if self.role == Role::Candidate || self.standing == MemberStanding::Left {
            // A candidate registers when its role changes: its slot polls it then.
            self.pass_on_wake_up();
            return Poll::Pending;
        }
        if self.intake.calls.is_empty() {
            let (priority, intake) = (self.priority(load), &mut self.intake);
            let dispatcher = &self.dispatcher;
            let taken =
                dispatcher.poll_take(cx, self.number, priority, load, intake, Instant::now());
            self.is_registered = taken.is_pending();
        }
        let Some(call) = self.intake.calls.pop_front() else {
            return Poll::Pending;
        };
        let request_id = &call.call.job.extras.request_id;
        self.status.began_request(call.taken_at, request_id);
        self.calls_taken += 1;
        if self.most_taken == Some(self.calls_taken) {
            self.has_taken_most.cancel();
        }
        Poll::Ready(call)
    }

    fn answer(&mut self, request: QueuedCall, outcome: Outcome, work: Work) {
        self.status.finished_request(work.ended);
        let home = request.home;
        let answer = Call::from(request).into_answer(outcome, Some(work));
        self.answers.push((home, answer));
    }

    fn send_answers(&mut self) {
        // The turn ends here, also without answers.
        self.intake.end_turn();
        if !self.answers.is_empty() {
            self.dispatcher.send_answers(&mut self.answers);
        }
    }

    fn waits_for_more(&mut self, cx: &mut Context<'_>, free_capacity: usize) -> bool {
        // Calls that were left have waited for a turn already.
        let waits = !self.intake.has_left_calls
            && self
                .batching
                .waits_for_more(self.dispatcher.queue_length(), free_capacity);
        if waits {
            // The process's registration still holds.
            poll_next_turn(cx);
        }
        waits
    }

    fn pass_on_wake_up(&mut self) {
        self.dispatcher.put_back_ungiven(&mut self.intake);
        if std::mem::replace(&mut self.is_registered, false) {
            self.dispatcher.pass_on_wake_up(self.number);
        }
    }

    fn leave(&mut self) {
        let standing = std::mem::replace(&mut self.standing, MemberStanding::Left);
        self.permit = None;
        if standing == MemberStanding::Left {
            return;
        }
        self.status.stops();
        self.pass_on_wake_up();
        self.dispatcher.record(|health| match standing {
            MemberStanding::Up => health.left_after_up(),
            MemberStanding::Starting | MemberStanding::Left => health.left_before_up(),
        });
    }
}

impl ProcessObserver for Member {
    fn came_up(&mut self, shown_after: Option<Duration>) {
        self.permit = None;
        let mut state = self.dispatcher.lock();
        let mut news = None;
        let is_first_time = self.standing == MemberStanding::Starting;
        if self.standing == MemberStanding::Starting {
            self.standing = MemberStanding::Up;
            self.status.came_up();
            news = state.health.came_up();
            self.dispatcher.failed_output.forget();
        }
        if shown_after.is_some() && !self.has_shown_life && self.standing == MemberStanding::Up {
            self.has_shown_life = true;
            state.health.showed_life();
        }
        drop(state);
        if matches!(self.role, Role::Candidate | Role::OnTrial) {
            self.role = Role::Serving;
        }
        self.came_up.cancel();
        if let Some(took) = shown_after {
            self.dispatcher.record_start(took);
        }
        if is_first_time {
            let after = shown_after.unwrap_or_else(|| self.status.age());
            self.dispatcher.metrics.processes.came_up(after);
        }
        let (process, after_ms) = (self.number, shown_after.map(milliseconds));
        match news {
            Some(news) => info!(process, after_ms, "{news}"),
            None => debug!(process, after_ms, "process is up"),
        }
    }

    fn went_unanswered(&mut self) {
        self.dispatcher.record(Health::unanswered);
    }

    fn announced(&mut self, at_once: usize) {
        self.status.announced(at_once);
        self.dispatcher
            .has_seen_ready_line
            .store(true, Ordering::Relaxed);
    }

    fn wrote_stderr(&mut self, at: Instant) {
        self.status.wrote_stderr(at);
    }

    fn slowest_start(&self) -> Option<Duration> {
        self.dispatcher.slowest_start()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.send_answers();
        self.leave();
        let busy_ns = self.status.busy_ns_until(Instant::now());
        self.dispatcher.metrics.processes.add_busy(busy_ns);
        self.dispatcher.statuses.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::status::SlotFacts;
    use crate::pool::tests::{FREE, Woken, call, pool_for, pool_that_grows, pool_with_calls_of};
    use crate::process::conversation::Position;
    use compact_str::CompactString;
    use std::pin::pin;
    use std::task::Waker;

    const IDLE: Load = Load {
        in_flight: 0,
        free_capacity: 1,
        immediate_capacity: 1,
        has_replied: true,
        last_replied: None,
        position: Position::AtOnce,
    };

    /// An idle process that waits for a request.
    fn waiting(dispatcher: &Arc<Dispatcher>, role: Role, woken: &Arc<Woken>) -> Member {
        let mut member = Member::join(Arc::clone(dispatcher), role, None, None, status());
        assert!(ask(&mut member, woken).is_pending());
        member
    }

    fn status() -> ProcessStatus {
        let facts = SlotFacts {
            slot: 0,
            restarts: 0,
            tells_requests: false,
        };
        ProcessStatus::new(facts, 1)
    }

    fn ask(member: &mut Member, woken: &Arc<Woken>) -> Poll<QueuedCall> {
        let waker = Arc::clone(woken).into();
        member.poll_take(&mut Context::from_waker(&waker), IDLE)
    }

    #[test]
    fn a_process_that_leaves_when_it_was_woken_passes_the_request_on() {
        let pool = pool_for(1);
        let wakes: [Arc<Woken>; 2] = Default::default();
        let [mut first, mut second] =
            [0, 1].map(|index| waiting(&pool.dispatcher, Role::Serving, &wakes[index]));
        let _answered = call(&pool).unwrap();
        assert!(wakes[1].is_set(), "the most recently used is asked first");
        assert!(!wakes[0].is_set(), "and no other");
        second.leave();
        assert!(wakes[0].is_set());
        assert!(ask(&mut first, &wakes[0]).is_ready());
    }

    #[test]
    fn the_busy_time_of_a_process_that_is_gone_is_kept() {
        let pool = pool_for(1);
        let member = waiting(&pool.dispatcher, Role::Serving, &Arc::default());
        let begun = Instant::now();
        member
            .status
            .began_request(begun, &CompactString::default());
        let over = begun + Duration::from_secs(1);
        member.status.finished_request(over);
        assert_eq!(pool.processes().busy_ns, 1_000_000_000);
        drop(member);
        assert_eq!(pool.processes().busy_ns, 0);
        assert_eq!(pool.dispatcher.metrics.processes.busy_ns(), 1_000_000_000);
    }

    #[test]
    fn the_turn_of_a_process_ends_when_its_answers_are_sent() {
        let (pool, _mailboxes) = pool_with_calls_of(&[0, 1]);
        let dispatcher = Arc::clone(&pool.dispatcher);
        let mut member = Member::join(dispatcher, Role::Serving, None, None, status());
        let mut context = Context::from_waker(Waker::noop());
        let _taken = member.poll_take(&mut context, FREE);
        assert_eq!(member.intake.left_before, 0);
        member.send_answers();
        assert_eq!(member.intake.left_before, 2, "the next free place");
    }

    #[test]
    fn a_process_that_cannot_take_what_it_was_woken_for_passes_it_on() {
        let pool = pool_for(1);
        let wakes: [Arc<Woken>; 2] = Default::default();
        let [mut first, mut second] =
            [0, 1].map(|index| waiting(&pool.dispatcher, Role::Serving, &wakes[index]));
        let _answered = call(&pool).unwrap();
        assert!(wakes[1].is_set() && !wakes[0].is_set());
        second.pass_on_wake_up();
        assert!(wakes[0].is_set());
        assert!(ask(&mut first, &wakes[0]).is_ready());
        // Off the list while it cannot, and on it again when it asks.
        let woken = Arc::new(Woken::default());
        assert!(ask(&mut second, &woken).is_pending());
        let _answered = call(&pool).unwrap();
        assert!(woken.is_set());
    }

    #[test]
    fn calls_that_a_process_took_and_was_not_given_go_back_to_their_places() {
        let pool = pool_for(3);
        let wakes: [Arc<Woken>; 2] = Default::default();
        let [mut first, mut second] =
            [0, 1].map(|index| waiting(&pool.dispatcher, Role::Serving, &wakes[index]));
        pool.dispatcher.record(|health| health.came_up());
        let _answered = [0; 3].map(|_| call(&pool).unwrap());
        let load = Load {
            free_capacity: 3,
            immediate_capacity: 3,
            ..IDLE
        };
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(given) = second.poll_take(&mut context, load) else {
            panic!("there are calls")
        };
        assert_eq!((given.place, second.calls_taken()), (0, 1));
        assert_eq!(pool.dispatcher.queue_length(), 0);
        second.pass_on_wake_up();
        for place in [1, 2] {
            let Poll::Ready(call) = ask(&mut first, &wakes[0]) else {
                panic!("it went back")
            };
            assert_eq!((call.place, call.times_handed_back), (place, 0));
        }
    }

    #[test]
    fn a_busy_process_without_free_capacity_any_more_passes_on_its_wake_up() {
        let pool = pool_for(1);
        let [busy_woken, new_woken]: [Arc<Woken>; 2] = Default::default();
        let mut busy = Member::join(
            Arc::clone(&pool.dispatcher),
            Role::Serving,
            None,
            None,
            status(),
        );
        let waker = Arc::clone(&busy_woken).into();
        let load = Load {
            in_flight: 1,
            ..IDLE
        };
        let asked = busy.poll_take(&mut Context::from_waker(&waker), load);
        assert!(asked.is_pending());
        let mut new = Member::join(
            Arc::clone(&pool.dispatcher),
            Role::Serving,
            None,
            None,
            status(),
        );
        let waker = Arc::clone(&new_woken).into();
        let load = Load {
            has_replied: false,
            ..IDLE
        };
        let asked = new.poll_take(&mut Context::from_waker(&waker), load);
        assert!(asked.is_pending());
        let _answered = call(&pool).unwrap();
        assert!(busy_woken.is_set() && !new_woken.is_set());
        busy.pass_on_wake_up();
        assert!(new_woken.is_set());
    }

    #[test]
    fn a_process_that_waits_for_more_is_woken_for_what_there_is() {
        let pool = pool_for(2);
        let woken = Arc::new(Woken::default());
        let mut member = waiting(&pool.dispatcher, Role::Serving, &woken);
        let _answered = [call(&pool).unwrap(), call(&pool).unwrap()];
        let again = Arc::new(Woken::default());
        let waker = Arc::clone(&again).into();
        assert!(member.waits_for_more(&mut Context::from_waker(&waker), 32));
        assert!(again.is_set());
        assert!(!member.waits_for_more(&mut Context::from_waker(&waker), 32));
        assert!(ask(&mut member, &woken).is_ready() && ask(&mut member, &woken).is_ready());
    }

    #[test]
    fn a_process_that_left_calls_does_not_wait_for_more_in_the_next_turn() {
        let pool = pool_for(2);
        let mut member = waiting(&pool.dispatcher, Role::Serving, &Arc::default());
        let _answered = [call(&pool).unwrap(), call(&pool).unwrap()];
        member.intake.has_left_calls = true;
        let mut context = Context::from_waker(Waker::noop());
        assert!(!member.waits_for_more(&mut context, 32));
        assert!(ask(&mut member, &Arc::default()).is_ready());
        assert!(!member.intake.has_left_calls);
    }

    #[test]
    fn what_nobody_can_take_makes_the_pool_grow() {
        let pool = pool_that_grows(1);
        let woken = Arc::default();
        let mut member = waiting(&pool.dispatcher, Role::Serving, &woken);
        let pressed = pin!(pool.dispatcher.wants_more.notified());
        let _answered = call(&pool).unwrap();
        assert!(woken.is_set());
        let mut context = Context::from_waker(Waker::noop());
        let mut pressed = pressed;
        assert!(pressed.as_mut().poll(&mut context).is_pending());
        member.pass_on_wake_up();
        assert!(pressed.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_process_that_left_is_woken_no_more() {
        let pool = pool_for(1);
        let wakes: [Arc<Woken>; 2] = Default::default();
        let [mut first, second] =
            [0, 1].map(|index| waiting(&pool.dispatcher, Role::Serving, &wakes[index]));
        drop(second);
        let _answered = call(&pool).unwrap();
        assert!(wakes[0].is_set());
        assert!(ask(&mut first, &wakes[0]).is_ready());
    }

    #[test]
    fn a_candidate_is_given_nothing_until_it_is_up() {
        let pool = pool_for(1);
        let woken = Arc::new(Woken::default());
        let mut candidate = waiting(&pool.dispatcher, Role::Candidate, &woken);
        let _answered = call(&pool).unwrap();
        assert!(!woken.is_set() && ask(&mut candidate, &woken).is_pending());
        candidate.came_up(Some(Duration::ZERO));
        assert!(ask(&mut candidate, &woken).is_ready());
    }

    #[test]
    fn a_process_on_trial_is_woken_before_and_a_superseded_one_after_all_others() {
        let pool = pool_for(3);
        let wakes: [Arc<Woken>; 3] = Default::default();
        let parts = [Role::OnTrial, Role::Serving, Role::Superseded];
        let members: Vec<Member> = parts
            .iter()
            .zip(&wakes)
            .map(|(role, woken)| waiting(&pool.dispatcher, *role, woken))
            .collect();
        for asked in 0..3 {
            assert!(!wakes[asked].is_set());
            let _answered = call(&pool).unwrap();
            assert!(wakes[asked].is_set(), "{:?}", members[asked].role);
        }
    }
}
