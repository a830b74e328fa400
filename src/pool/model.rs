//! The hand-over of calls between two threads, in every order of its steps.
//!
//! `scripts/check/model.sh` runs these: loom goes through the interleavings at locks and atomics.
//! Each thread of the model does as a thread of the worker does: it polls its tasks, empties its
//! mailbox, and sleeps until it is woken. A wake-up that is lost leaves a thread asleep for ever,
//! which loom reports as a deadlock.

use super::Pool;
use super::dispatch::Dispatcher;
use super::queued_call::QueuedCall;
use super::tests::{IDLE, call, pool_over, take};
use crate::error::RequestFailure;
use crate::process::call::Call;
use crate::threads::mailbox::{Mailbox, Mailboxes, ThreadNumber, receive_here};
use loom::thread::{JoinHandle, Thread, current, park, spawn};
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Most switches from a thread that could go on. With two, a call that is handed back without a
/// wake-up is not noticed: it takes one before the process takes it, one behind that, and one
/// after.
const PREEMPTIONS: usize = 4;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

/// Runs the future as the task of the thread with this number.
fn run<F: Future>(mailboxes: &Mailboxes, number: ThreadNumber, future: F) -> F::Output {
    let mailbox: &Arc<Mailbox> = mailboxes.of(number);
    receive_here(number, Arc::clone(mailbox));
    let waker = Waker::from(Arc::new(Unpark(current())));
    let mut context = Context::from_waker(&waker);
    let mut bell = pin!(Arc::clone(mailbox).answer_bell());
    let mut future = pin!(future);
    loop {
        let _ = bell.as_mut().poll(&mut context);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        mailbox.before_sleep();
        park();
        mailbox.after_sleep();
    }
}

/// The waker of one process: it marks the process, and wakes the thread.
struct WokenProcess {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for WokenProcess {
    fn wake(self: Arc<WokenProcess>) {
        self.is_woken.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// A process that answers immediately, when it is woken.
struct ModelProcess {
    number: u64,
    is_registered: bool,
    woken: Arc<WokenProcess>,
    runs: Arc<AtomicUsize>,
}

impl ModelProcess {
    /// A process of the calling thread.
    fn new(number: u64, runs: &Arc<AtomicUsize>) -> ModelProcess {
        ModelProcess {
            number,
            is_registered: false,
            woken: Arc::new(WokenProcess {
                thread: current(),
                is_woken: AtomicBool::new(true),
            }),
            runs: Arc::clone(runs),
        }
    }

    /// Takes a call, if there is one.
    fn take(&mut self, pool: &Pool) -> Poll<QueuedCall> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let context = &mut Context::from_waker(&waker);
        let taken = take(pool, context, self.number, IDLE);
        self.is_registered = taken.is_pending();
        taken
    }

    /// Answers calls, if the process was woken.
    fn serve(&mut self, pool: &Pool) {
        while self.woken.is_woken.swap(false, Ordering::Relaxed) {
            while let Poll::Ready(call) = self.take(pool) {
                self.runs.fetch_add(1, Ordering::Relaxed);
                answer(&pool.dispatcher, call);
            }
        }
    }

    /// The process ends: if it was woken for a call, another process gets it.
    fn leave(&mut self, pool: &Pool) {
        if std::mem::take(&mut self.is_registered) {
            pool.dispatcher.pass_on_wake_up(self.number);
        }
    }
}

fn answer(dispatcher: &Dispatcher, call: QueuedCall) {
    let home = call.home;
    let answer = Call::from(call).into_answer(Ok("1".into()), None);
    dispatcher.send_answers(&mut vec![(home, answer)]);
}

/// Calls, and serves with the process of the same thread until the answer is there; then the
/// process leaves. The process waits for calls already when the call is made.
async fn answered(pool: &Pool, process: &mut ModelProcess) -> Result<bytes::Bytes, RequestFailure> {
    process.serve(pool);
    let mut pending = call(pool)?;
    let outcome = poll_fn(|context| {
        process.serve(pool);
        Pin::new(&mut pending).poll(context)
    });
    let outcome = outcome.await;
    process.leave(pool);
    outcome
}

/// Serves with the process until a call was run.
async fn serve_one(pool: &Pool, process: &mut ModelProcess) {
    let served = poll_fn(|_| {
        process.serve(pool);
        match process.runs.load(Ordering::Relaxed) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    });
    served.await;
}

/// Goes through all orders of two threads that share a pool.
fn model<A, B>(first: A, second: B)
where
    A: Fn(Arc<Pool>, Arc<AtomicUsize>) + Send + Sync + 'static,
    B: Fn(Arc<Pool>, Arc<AtomicUsize>) + Send + Sync + 'static,
{
    let (first, second) = (Arc::new(first), Arc::new(second));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let mailboxes = Mailboxes::new(NonZeroUsize::new(2).unwrap());
        let pool = Arc::new(pool_over(4, mailboxes));
        let runs = Arc::new(AtomicUsize::new(0));
        let other: JoinHandle<()> = {
            let (pool, runs, second) = (Arc::clone(&pool), Arc::clone(&runs), Arc::clone(&second));
            spawn(move || second(pool, runs))
        };
        first(Arc::clone(&pool), Arc::clone(&runs));
        other.join().unwrap();
        assert!(pool.dispatcher.lock().queue.is_empty(), "a call is left");
    });
}

fn mailboxes(pool: &Pool) -> Mailboxes {
    pool.dispatcher.mailboxes().clone()
}

const FIRST: ThreadNumber = ThreadNumber::FIRST;

fn second() -> ThreadNumber {
    ThreadNumber::new(1)
}

#[test]
fn a_process_on_each_thread_answers_a_caller_on_each_thread() {
    let on = |number: ThreadNumber| {
        move |pool: Arc<Pool>, runs: Arc<AtomicUsize>| {
            let mut process = ModelProcess::new(number.index() as u64, &runs);
            let outcome = run(&mailboxes(&pool), number, answered(&pool, &mut process));
            assert!(outcome.is_ok());
        }
    };
    model(on(FIRST), on(second()));
}

#[test]
fn a_process_of_the_other_thread_answers() {
    model(
        |pool, _| {
            let outcome = run(&mailboxes(&pool), FIRST, async { call(&pool)?.await });
            assert!(outcome.is_ok());
        },
        |pool, runs| {
            let mut process = ModelProcess::new(2, &runs);
            run(&mailboxes(&pool), second(), serve_one(&pool, &mut process));
        },
    );
}

#[test]
fn a_process_that_leaves_when_it_was_woken_passes_the_call_on() {
    model(
        |pool, _| {
            let outcome = run(&mailboxes(&pool), FIRST, async { call(&pool)?.await });
            assert!(outcome.is_ok());
        },
        |pool, runs| {
            run(&mailboxes(&pool), second(), async {
                let [mut stays, mut leaves] = [1, 2].map(|number| ModelProcess::new(number, &runs));
                stays.serve(&pool);
                leaves.serve(&pool);
                leaves.leave(&pool);
                serve_one(&pool, &mut stays).await;
            });
        },
    );
}

#[test]
fn a_caller_that_leaves_costs_the_other_nothing() {
    model(
        |pool, _| drop(call(&pool).unwrap()),
        |pool, runs| {
            let mut process = ModelProcess::new(2, &runs);
            let outcome = run(&mailboxes(&pool), second(), answered(&pool, &mut process));
            assert!(outcome.is_ok());
            let runs = runs.load(Ordering::Relaxed);
            assert!((1..=2).contains(&runs), "{runs}");
        },
    );
}

#[test]
fn a_call_that_is_handed_back_is_run_by_the_other_process() {
    model(
        |pool, _| {
            let dying = &mut ModelProcess::new(1, &Arc::default());
            if let Poll::Ready(call) = dying.take(&pool) {
                pool.dispatcher.hand_back(vec![call]);
            }
            dying.leave(&pool);
        },
        |pool, runs| {
            let mut process = ModelProcess::new(2, &runs);
            let outcome = run(&mailboxes(&pool), second(), answered(&pool, &mut process));
            assert!(outcome.is_ok());
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        },
    );
}

#[test]
fn a_close_answers_what_waits_and_refuses_what_comes() {
    model(
        |pool, _| {
            for waiting in pool.dispatcher.close() {
                waiting.answer(Err(RequestFailure::Draining));
            }
            assert!(call(&pool).is_err());
        },
        |pool, runs| {
            let mut process = ModelProcess::new(2, &runs);
            let outcome = run(&mailboxes(&pool), second(), answered(&pool, &mut process));
            let runs = runs.load(Ordering::Relaxed);
            match outcome {
                Ok(_) => assert_eq!(runs, 1),
                Err(failure) => assert_eq!((failure, runs), (RequestFailure::Draining, 0)),
            }
        },
    );
}
