use super::dispatch::*;
use super::waiting::Priority;
use super::*;
use crate::config::PoolConfig;
use crate::metrics::Metrics;
use crate::process::conversation::Position;
use crate::process::owner::Load;
use crate::threads::mailbox::{Mailboxes, ThreadNumber, deliver_here, receive_here};
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);
pub(super) const IDLE: Load = Load {
    in_flight: 0,
    free_capacity: 1,
    immediate_capacity: 1,
    has_replied: true,
    last_replied: None,
    position: Position::AtOnce,
};

/// A pool without processes, for this many waiting requests.
pub(crate) fn pool_for(queue: usize) -> Pool {
    pool_up_to(NonZeroUsize::MIN, queue)
}

/// The same pool when a process has come up.
pub(crate) fn pool_that_is_up(queue: usize) -> Pool {
    let pool = pool_for(queue);
    pool.dispatcher.record(|health| {
        health.started();
        health.came_up()
    });
    pool
}

/// The same, where a second process may be started.
pub(super) fn pool_that_grows(queue: usize) -> Pool {
    pool_up_to(NonZeroUsize::MIN.saturating_add(1), queue)
}

/// A pool without processes, for one on each of these threads.
pub(super) fn pool_over(queue: usize, mailboxes: Mailboxes) -> Pool {
    let processes = NonZeroUsize::new(mailboxes.count()).unwrap();
    pool_with(processes, queue, mailboxes)
}

fn pool_up_to(max_processes: NonZeroUsize, queue: usize) -> Pool {
    pool_with(max_processes, queue, Mailboxes::new(NonZeroUsize::MIN))
}

fn pool_with(max_processes: NonZeroUsize, queue: usize, mailboxes: Mailboxes) -> Pool {
    LazyLock::force(&BEFORE_ALL_CALLS);
    let one = NonZeroUsize::MIN;
    let config = PoolConfig {
        processes: one,
        max_processes,
        idle_timeout: LONG,
        processes_starting_at_once: one,
        queue: NonZeroUsize::new(queue).unwrap(),
        queue_timeout: LONG,
        timeout: LONG,
    };
    Pool {
        dispatcher: Arc::new(Dispatcher::new(
            &config,
            Health::new(None),
            1,
            MemoryBudget::new(1 << 20),
            Shutdown::default(),
            mailboxes,
            Arc::new(Metrics::new(NonZeroUsize::MIN)),
        )),
        tasks: TaskTracker::new(),
        reload: Arc::default(),
    }
}

pub(super) fn call(pool: &Pool) -> Result<PendingAnswer<'_>, RequestFailure> {
    let budget = &pool.dispatcher.budget;
    pool.call(Job {
        reservation: budget.reservation(),
        ..job("p")
    })
}

/// A job without any limit.
fn job(payload: &'static str) -> Job {
    Job {
        payload: payload.into(),
        extras: RequestExtras::default(),
        timeout: LONG,
        deadline: None,
        reservation: MemoryBudget::new(1 << 20).reservation(),
    }
}

/// Whether a process has been woken.
#[derive(Debug, Default)]
pub(super) struct Woken(AtomicBool);

impl Woken {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An idle process asks for a request.
fn ask(pool: &Pool, process: u64, woken: &Arc<Woken>) -> Poll<QueuedCall> {
    let waker = Arc::clone(woken).into();
    take(pool, &mut Context::from_waker(&waker), process, IDLE)
}

/// A time before all calls of the tests: none has waited yet.
static BEFORE_ALL_CALLS: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A process with this load asks for a request.
pub(super) fn take(
    pool: &Pool,
    context: &mut Context<'_>,
    process: u64,
    load: Load,
) -> Poll<QueuedCall> {
    let priority = match load.in_flight {
        0 => Priority::Idle,
        _ => Priority::Busy,
    };
    let mut intake = Intake::default();
    let dispatcher = &pool.dispatcher;
    let now = *BEFORE_ALL_CALLS;
    let taken = dispatcher.poll_take(context, process, priority, load, &mut intake, now);
    taken.map(|()| intake.calls.pop_front().expect("one was taken"))
}

#[test]
fn the_first_call_in_the_queue_is_the_oldest() {
    let pool = pool_for(2);
    assert_eq!(pool.queue().oldest, Duration::ZERO);
    let begun = Instant::now();
    let _first = call(&pool).unwrap();
    let first_is_there = Instant::now();
    let _second = call(&pool).unwrap();
    let least = first_is_there.elapsed();
    let gauges = pool.queue();
    assert!(
        (least..=begun.elapsed()).contains(&gauges.oldest),
        "{gauges:?}"
    );
    assert_eq!((gauges.length, gauges.limit), (2, 2));
}

/// D4: callers leave at each point of the hand-over; no place and no process is lost to them.
#[test]
fn a_million_callers_that_leave_cost_nothing() {
    let pool = pool_for(4);
    let woken = Arc::new(Woken::default());
    for round in 0..1_000_000 {
        match round % 4 {
            // While it waits, with nobody idle.
            0 => drop(call(&pool).unwrap()),
            // While it waits, after an idle process was woken for it.
            1 => {
                assert!(ask(&pool, 1, &woken).is_pending());
                drop(call(&pool).unwrap());
                assert!(ask(&pool, 1, &woken).is_pending());
                pool.dispatcher.lock().waiting_processes.withdraw(1);
            }
            // When a process has it.
            2 => {
                let waiting = call(&pool).unwrap();
                let Poll::Ready(taken) = ask(&pool, 1, &woken) else {
                    panic!("round {round}: nothing to take");
                };
                drop(waiting);
                assert!(taken.is_abandoned());
                taken.answer(Ok("1".into()));
            }
            // When a process has answered it.
            _ => {
                let waiting = call(&pool).unwrap();
                let Poll::Ready(taken) = ask(&pool, 1, &woken) else {
                    panic!("round {round}: nothing to take");
                };
                taken.answer(Ok("1".into()));
                drop(waiting);
            }
        }
        assert!(pool.dispatcher.lock().queue.is_empty(), "round {round}");
    }
    assert!(
        pool.dispatcher
            .lock()
            .waiting_processes
            .pop(ThreadNumber::FIRST)
            .is_none()
    );
}

#[test]
fn a_caller_that_leaves_leaves_its_place_in_the_queue() {
    let pool = pool_for(1);
    let waiting = call(&pool).unwrap();
    assert!(matches!(
        call(&pool),
        Err(RequestFailure::Overloaded { .. })
    ));
    drop(waiting);
    assert!(call(&pool).is_ok());
}

#[test]
fn a_request_whose_caller_has_left_is_given_to_nobody() {
    let pool = pool_for(2);
    let (left, receiver) = Call::new(job("left"));
    drop(receiver);
    let until = Instant::now() + LONG;
    let left = QueuedCall::new(left, until, until, until);
    let queued = |place| left.at_place(place);
    pool.dispatcher.lock().queue.push(until, queued);
    assert!(ask(&pool, 1, &Arc::default()).is_pending());
}

#[test]
fn a_request_that_is_handed_back_wakes_an_idle_process_and_comes_first() {
    let pool = pool_for(2);
    let _answered = [call(&pool).unwrap(), call(&pool).unwrap()];
    let Poll::Ready(first) = ask(&pool, 1, &Arc::default()) else {
        panic!("there is a request")
    };
    let place = first.place;
    let Poll::Ready(second) = ask(&pool, 1, &Arc::default()) else {
        panic!("there is a request")
    };
    let idle = Arc::new(Woken::default());
    assert!(ask(&pool, 2, &idle).is_pending());
    pool.dispatcher.hand_back(vec![second]);
    pool.dispatcher.hand_back(vec![first]);
    assert!(idle.is_set());
    let Poll::Ready(again) = ask(&pool, 2, &idle) else {
        panic!("there is a request")
    };
    assert_eq!(again.place, place);
}

#[test]
fn only_what_is_fresh_and_fits_is_written_ahead() {
    let pool = pool_for(4);
    let ahead = |room_bytes| {
        let position = Position::Behind { room_bytes };
        let load = Load {
            in_flight: 1,
            immediate_capacity: 0,
            position,
            ..IDLE
        };
        let mut context = Context::from_waker(Waker::noop());
        take(&pool, &mut context, 1, load)
    };
    let _answered: Vec<PendingAnswer<'_>> = (0..3).map(|_| call(&pool).unwrap()).collect();
    assert!(ahead(0).is_pending(), "the payload has a byte");
    let Poll::Ready(first) = ahead(1) else {
        panic!("no process is idle")
    };
    pool.dispatcher.hand_back(vec![first]);
    assert!(ahead(1).is_pending(), "it is written ahead no second time");
    assert!(ask(&pool, 2, &Arc::default()).is_ready());
    assert!(ahead(1).is_ready());
}

#[test]
fn what_is_handed_back_to_a_closed_pool_is_refused_and_not_forgotten() {
    let pool = pool_for(1);
    let mut answered = call(&pool).unwrap();
    let Poll::Ready(taken) = ask(&pool, 1, &Arc::default()) else {
        panic!("there is a request")
    };
    answer_all(pool.dispatcher.close(), Some(RequestFailure::Draining));
    pool.dispatcher.hand_back(vec![taken]);
    let answer = Pin::new(&mut answered).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(answer, Poll::Ready(Err(RequestFailure::Draining)));
}

/// A request that was handed back so often, in a pool of which a process has come up.
fn times_handed_back(pool: &Pool, times: u32) -> PendingAnswer<'_> {
    pool.dispatcher.record(|health| {
        health.started();
        health.came_up();
    });
    let answered = call(pool).unwrap();
    for _ in 0..times {
        let Poll::Ready(taken) = ask(pool, 1, &Arc::default()) else {
            panic!("there is a request")
        };
        pool.dispatcher.hand_back(vec![taken]);
    }
    answered
}

#[test]
fn a_request_is_handed_back_twice_and_then_fails() {
    let pool = pool_for(1);
    let mut answered = times_handed_back(&pool, 3);
    assert!(ask(&pool, 1, &Arc::default()).is_pending());
    let answer = Pin::new(&mut answered).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(RequestFailure::Exited(_))) = answer else {
        panic!("{answer:?}")
    };
}

#[test]
fn the_last_process_for_a_request_is_none_that_has_just_replied() {
    let now = *BEFORE_ALL_CALLS;
    let replied = |ago: Duration| Load {
        last_replied: now.checked_sub(ago),
        ..IDLE
    };
    let new = Load {
        has_replied: false,
        ..IDLE
    };
    for (times, load, is_given) in [
        (1, replied(Duration::ZERO), true),
        (2, replied(Duration::ZERO), false),
        (2, replied(2 * EXIT_AFTER_REPLY_TIME), true),
        (2, new, true),
    ] {
        let pool = pool_for(1);
        let _answered = times_handed_back(&pool, times);
        let mut context = Context::from_waker(Waker::noop());
        let asked = take(&pool, &mut context, 2, load);
        assert_eq!(asked.is_ready(), is_given, "{times} {load:?}");
    }
}

#[test]
fn the_time_that_a_process_had_a_request_does_not_count_as_waiting() {
    let pool = pool_for(1);
    let _answered = call(&pool).unwrap();
    let Poll::Ready(mut taken) = ask(&pool, 1, &Arc::default()) else {
        panic!("there is a request")
    };
    // As if a process had kept it for longer than it might have waited.
    taken.waits_until = *BEFORE_ALL_CALLS;
    pool.dispatcher.hand_back(vec![taken]);
    assert!(ask(&pool, 2, &Arc::default()).is_ready());
}

#[test]
fn what_no_process_ever_reads_is_refused_in_the_end() {
    let pool = pool_for(1);
    let mut answered = call(&pool).unwrap();
    let Poll::Ready(mut taken) = ask(&pool, 1, &Arc::default()) else {
        panic!("there is a request")
    };
    taken.gives_up_at = Instant::now();
    pool.dispatcher.hand_back(vec![taken]);
    let answer = Pin::new(&mut answered).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(
        answer,
        Poll::Ready(Err(RequestFailure::Unavailable { .. }))
    ));
    assert!(ask(&pool, 2, &Arc::default()).is_pending());
}

/// What a process on the second of two threads takes, that has this load and an intake of its own.
fn take_into(pool: &Pool, load: Load, intake: &mut Intake) -> Vec<u64> {
    take_into_at(pool, load, intake, *BEFORE_ALL_CALLS)
}

fn take_into_at(pool: &Pool, load: Load, intake: &mut Intake, now: Instant) -> Vec<u64> {
    let mut context = Context::from_waker(Waker::noop());
    let dispatcher = &pool.dispatcher;
    let taken = dispatcher.poll_take(&mut context, 1, Priority::Busy, load, intake, now);
    assert_eq!(taken.is_ready(), !intake.calls.is_empty());
    intake.calls.drain(..).map(|call| call.place).collect()
}

/// A pool of two threads, with calls of these threads in this order. The calling thread is the
/// second.
pub(super) fn pool_with_calls_of(threads: &[usize]) -> (Pool, Mailboxes) {
    let mailboxes = Mailboxes::new(NonZeroUsize::new(2).unwrap());
    let pool = pool_over(8, mailboxes.clone());
    make_calls_of(&pool, &mailboxes, threads);
    (pool, mailboxes)
}

fn make_calls_of(pool: &Pool, mailboxes: &Mailboxes, threads: &[usize]) {
    for thread in threads {
        come_from(mailboxes, *thread);
        std::mem::forget(call(pool).unwrap());
    }
    come_from(mailboxes, 1);
}

/// The calling thread is the one with this index from now on.
fn come_from(mailboxes: &Mailboxes, index: usize) {
    let thread = ThreadNumber::new(index);
    receive_here(thread, Arc::clone(mailboxes.of(thread)));
}

pub(super) const FREE: Load = Load {
    in_flight: 2,
    free_capacity: 8,
    immediate_capacity: 8,
    ..IDLE
};

#[test]
fn a_process_leaves_calls_of_other_threads_for_one_turn() {
    let (pool, mailboxes) = pool_with_calls_of(&[0, 1, 0, 1]);
    let mut intake = Intake::default();
    assert_eq!(take_into(&pool, FREE, &mut intake), [1, 3]);
    assert_eq!(take_into(&pool, FREE, &mut intake), [0; 0]);
    intake.end_turn();
    make_calls_of(&pool, &mailboxes, &[1, 0]);
    assert_eq!(take_into(&pool, FREE, &mut intake), [0, 2, 4]);
    intake.end_turn();
    assert_eq!(take_into(&pool, FREE, &mut intake), [5]);
}

#[test]
fn no_call_is_left_to_a_thread_without_a_process() {
    let mailboxes = Mailboxes::new(NonZeroUsize::new(4).unwrap());
    let two = NonZeroUsize::new(2).unwrap();
    let pool = pool_with(two, 8, mailboxes.clone());
    make_calls_of(&pool, &mailboxes, &[0, 3, 2]);
    assert_eq!(take_into(&pool, FREE, &mut Intake::default()), [1, 2]);
}

#[test]
fn a_process_that_left_calls_is_polled_again() {
    let (pool, _mailboxes) = pool_with_calls_of(&[0]);
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut context = Context::from_waker(&waker);
    assert!(take(&pool, &mut context, 1, FREE).is_pending());
    assert!(woken.is_set());
}

#[test]
fn an_idle_process_leaves_no_call_and_takes_its_own_thread_s_first() {
    let (pool, _mailboxes) = pool_with_calls_of(&[0, 1, 0]);
    let mut context = Context::from_waker(Waker::noop());
    let idle = Load {
        free_capacity: 8,
        ..IDLE
    };
    let mut places = || match take(&pool, &mut context, 1, idle) {
        Poll::Ready(call) => call.place,
        Poll::Pending => panic!("calls wait"),
    };
    assert_eq!([places(), places(), places()], [1, 0, 2]);
}

#[test]
fn where_a_call_was_handed_back_the_first_call_is_next() {
    let (pool, _mailboxes) = pool_with_calls_of(&[0, 1]);
    let Poll::Ready(first) = ask(&pool, 2, &Arc::default()) else {
        panic!("calls wait")
    };
    let Poll::Ready(second) = ask(&pool, 2, &Arc::default()) else {
        panic!("calls wait")
    };
    pool.dispatcher.hand_back(vec![first, second]);
    assert_eq!(take_into(&pool, FREE, &mut Intake::default()), [0, 1]);
    // Also where an older one was never taken.
    let (pool, _mailboxes) = pool_with_calls_of(&[0, 1, 1]);
    let Poll::Ready(second) = ask(&pool, 2, &Arc::default()) else {
        panic!("calls wait")
    };
    assert_eq!(second.place, 1);
    pool.dispatcher.hand_back(vec![second]);
    assert_eq!(take_into(&pool, FREE, &mut Intake::default()), [0, 1, 2]);
}

#[test]
fn a_call_that_goes_back_wakes_a_process_of_its_thread_first() {
    let hand_back = |pool: &Pool, call| pool.dispatcher.hand_back(vec![call]);
    let pass_on = |pool: &Pool, call: QueuedCall| {
        let (until, place) = (call.waits_until, call.place);
        pool.dispatcher.lock().queue.hand_back(place, until, call);
        pool.dispatcher.pass_on_wake_up(3);
    };
    for goes_back in [hand_back as fn(&Pool, QueuedCall), pass_on] {
        let (pool, mailboxes) = pool_with_calls_of(&[1]);
        let Poll::Ready(call) = ask(&pool, 1, &Arc::default()) else {
            panic!("a call waits")
        };
        let wakes: [Arc<Woken>; 2] = Default::default();
        for index in [1, 0] {
            come_from(&mailboxes, index);
            assert!(ask(&pool, index as u64, &wakes[index]).is_pending());
        }
        goes_back(&pool, call);
        come_from(&mailboxes, 1);
        deliver_here();
        assert_eq!(wakes.map(|woken| woken.is_set()), [false, true]);
    }
}

#[test]
fn a_call_that_has_waited_for_a_millisecond_is_overtaken_no_more() {
    let (pool, _mailboxes) = pool_with_calls_of(&[0, 1]);
    let first_called = pool.dispatcher.lock().queue.first_item().unwrap().called;
    let just_before = first_called + OVERTAKING_TIME - Duration::from_nanos(1);
    let one = Load {
        free_capacity: 1,
        immediate_capacity: 1,
        ..FREE
    };
    let mut intake = Intake::default();
    assert_eq!(take_into_at(&pool, one, &mut intake, just_before), [1]);
    let (pool, _mailboxes) = pool_with_calls_of(&[0, 1]);
    let first_called = pool.dispatcher.lock().queue.first_item().unwrap().called;
    let in_time = first_called + OVERTAKING_TIME;
    let mut intake = Intake::default();
    assert_eq!(take_into_at(&pool, one, &mut intake, in_time), [0]);
}

/// A panic under the lock costs one request at most, and none that come later.
#[test]
fn a_lock_under_which_a_thread_panicked_is_taken_all_the_same() {
    let pool = pool_for(1);
    std::thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let _state = pool.dispatcher.lock();
            panic!("under the lock");
        });
        assert!(panics.join().is_err());
    });
    assert!(call(&pool).is_ok());
}

#[test]
fn a_process_takes_as_many_calls_as_it_would_start_on_immediately() {
    let pool = pool_for(8);
    let _answered: Vec<PendingAnswer<'_>> = (0..5).map(|_| call(&pool).unwrap()).collect();
    for (immediate_capacity, expected) in [(3, vec![0, 1, 2]), (1, vec![3]), (0, vec![4])] {
        let load = Load {
            immediate_capacity,
            ..FREE
        };
        assert_eq!(take_into(&pool, load, &mut Intake::default()), expected);
    }
}
