//! Measures the way of calls through the pool, without HTTP and without pipes.
//!
//! On each thread, callers call, and the conversation of a process has each line answered in its
//! next turn, as many lines in a turn as it has room for. `scripts/bench.sh --only threads` runs it.

use super::Pool;
use super::batching::Batching;
use super::dispatch::{Intake, poll_next_turn};
use super::queued_call::QueuedCall;
use super::tests::{IDLE, call, pool_over};
use super::waiting::Priority;
use crate::answer::Answer;
use crate::process::call::Call;
use crate::process::conversation::{
    Conversation, ConversationConfig, ConversationEvent, ReadAheadWindow,
};
use crate::process::ids::RandomIds;
use crate::process::owner::Load;
use crate::threads::Runtimes;
use crate::threads::mailbox::{ThreadNumber, deliver_here};
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Callers on each thread.
const CALLERS: usize = 64;

const WARM_UP: Duration = Duration::from_millis(200);
const LASTS: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

/// The conversation of a process that echoes in no time, with what its owner does for it.
struct EchoProcess {
    pool: Arc<Pool>,
    number: u64,
    conversation: Conversation<QueuedCall>,
    ids: RandomIds,
    batching: Batching,
    intake: Intake,
    replies: Vec<u8>,
    answers: Vec<(ThreadNumber, Answer)>,
}

impl EchoProcess {
    fn new(pool: &Arc<Pool>, number: u64) -> EchoProcess {
        let limits = ConversationConfig {
            read_ahead: 32,
            window: ReadAheadWindow::Measured,
            max_concurrency: 64,
            wait_ready: false,
            startup_timeout: Duration::from_secs(60),
            max_reply_bytes: 1 << 20,
        };
        let now = Instant::now();
        let mut conversation = Conversation::new(limits, now);
        conversation.received(now, b"{\"ready\":true,\"concurrency\":64}\n");
        drop(conversation.take_events());
        EchoProcess {
            pool: Arc::clone(pool),
            number,
            conversation,
            ids: RandomIds::new(),
            batching: Batching::default(),
            intake: Intake::default(),
            replies: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        deliver_here();
        let pool = Arc::clone(&self.pool);
        let now = Instant::now();
        // What it was given in the turn before.
        self.reply_to_lines(now);
        for event in self.conversation.take_events() {
            if let ConversationEvent::Answered {
                ticket: call,
                outcome,
                ..
            } = event
            {
                let home = call.home;
                let answer = Call::from(call).into_answer(outcome, None);
                self.answers.push((home, answer));
            }
        }
        self.take_calls(context, now);
        pool.dispatcher.send_answers(&mut self.answers);
        self.intake.end_turn();
        if self.conversation.in_flight() > 0 {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Takes calls as the owner of a process does.
    fn take_calls(&mut self, context: &mut Context<'_>, now: Instant) {
        let pool = Arc::clone(&self.pool);
        let free_capacity = self.conversation.free_capacity(now);
        let waiting = pool.dispatcher.queue_length();
        let may_wait = free_capacity > 1 && !self.intake.has_left_calls;
        if may_wait && self.batching.waits_for_more(waiting, free_capacity) {
            return poll_next_turn(context);
        }
        let dispatcher = &pool.dispatcher;
        while self.conversation.free_capacity(now) > 0 {
            let load = Load {
                in_flight: self.conversation.in_flight(),
                free_capacity: self.conversation.free_capacity(now),
                immediate_capacity: self.conversation.immediate_capacity(now),
                position: self.conversation.next_position(),
                ..IDLE
            };
            let priority = match load.in_flight {
                0 => Priority::Idle,
                _ => Priority::Busy,
            };
            let intake = &mut self.intake;
            let taken =
                dispatcher.poll_take(context, self.number, priority, load, intake, Instant::now());
            if taken.is_pending() {
                break;
            }
            for call in self.intake.calls.drain(..) {
                let id = self.ids.next_id().unwrap();
                self.conversation.give(now, id, call);
            }
        }
    }

    /// Writes the lines, and reads what an echo would write.
    fn reply_to_lines(&mut self, now: Instant) {
        const MEMBER: &[u8] = b"\"payload\":";
        self.replies.clear();
        for line in self
            .conversation
            .outgoing()
            .split_inclusive(|byte| *byte == b'\n')
        {
            let at = memchr::memmem::find(line, MEMBER).unwrap();
            self.replies.extend_from_slice(&line[..at]);
            self.replies.extend_from_slice(b"\"result\":");
            self.replies.extend_from_slice(&line[at + MEMBER.len()..]);
        }
        let written = self.conversation.outgoing().len();
        self.conversation.sent(now, written);
        self.conversation.received(now, &self.replies);
    }
}

/// Alone in its cache lines: processors fetch two at a time.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// Calls a second from this many threads.
fn calls_a_second(threads: usize) -> f64 {
    let runtimes = Runtimes::start(NonZeroUsize::new(threads).unwrap()).unwrap();
    let places = runtimes.threads();
    let pool = Arc::new(pool_over(2 * threads * CALLERS, places.mailboxes().clone()));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut counts = Vec::new();
    for thread in 0..threads {
        let mut process = EchoProcess::new(&pool, thread as u64);
        places
            .for_slot(thread)
            .spawn(poll_fn(move |context| process.turn(context)));
        let count = Arc::new(Count::default());
        counts.push(Arc::clone(&count));
        for _ in 0..CALLERS {
            let (pool, count, is_over) =
                (Arc::clone(&pool), Arc::clone(&count), Arc::clone(&is_over));
            places.for_slot(thread).spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    // As each turn of a connection does.
                    deliver_here();
                    call(&pool).unwrap().await.unwrap();
                    count.0.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let sum = || -> u64 {
        let counts = counts.iter();
        counts.map(|count| count.0.load(Ordering::Relaxed)).sum()
    };
    runtimes.block_on(async {
        tokio::time::sleep(WARM_UP).await;
        let (before, begun) = (sum(), Instant::now());
        tokio::time::sleep(LASTS).await;
        let rate = (sum() - before) as f64 / begun.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        rate
    })
}

#[test]
#[ignore = "measures; only a release build says anything"]
#[allow(clippy::print_stdout, reason = "prints what it measures")]
fn calls_from_one_thread_and_from_two() {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let [one, two] = [1, 2].map(calls_a_second);
        println!(
            "one thread {one:.0}/s, two threads {two:.0}/s, ratio {:.2}",
            two / one
        );
        rounds.push(two / one);
    }
    rounds.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", rounds[ROUNDS / 2]);
}
