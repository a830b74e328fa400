//! How a process takes calls from the queue.

use super::rules::{Choice, Near};
use super::{DispatchState, Dispatcher, answer_all};
use crate::pool::queue::Taken;
use crate::pool::queued_call::QueuedCall;
use crate::pool::waiting::{Priority, Registered};
use crate::process::owner::Load;
use crate::threads::mailbox::this_thread;
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What a process has taken from the queue, and has left there.
#[derive(Debug, Default)]
pub(in crate::pool) struct Intake {
    /// Calls that the process is given in the same turn, in order.
    pub(in crate::pool) calls: VecDeque<QueuedCall>,
    /// The process left calls to their threads for this turn, and takes them in its next turn if
    /// they are still there.
    pub(in crate::pool) has_left_calls: bool,
    /// The next free place of the queue when the process last looked for calls.
    seen_before: u64,
    /// The same at the end of the turn before: calls before it have been left for a turn, and are
    /// near.
    pub(in crate::pool) left_before: u64,
    /// The calls before this place have been searched in this turn, and none of them is near.
    first_unsearched: u64,
}

impl Intake {
    /// Ends the process's turn: in its next turn, the calls that it has seen and not taken are near.
    pub(in crate::pool) fn end_turn(&mut self) {
        self.left_before = self.seen_before;
        self.first_unsearched = 0;
    }
}

impl Dispatcher {
    /// The next calls for this process at this time: as many as it would start on immediately, or
    /// else one. If there is none, the process is registered and woken for a later one.
    pub(in crate::pool) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        process: u64,
        priority: Priority,
        load: Load,
        intake: &mut Intake,
        now: Instant,
    ) -> Poll<()> {
        let near = (self.mailboxes.count() > 1).then(|| Near {
            thread: this_thread(),
            left_before: intake.left_before,
            first_unsearched: intake.first_unsearched,
        });
        let mut state = self.lock();
        state.waiting_processes.withdraw(process);
        let is_starved = !state.queue.is_empty() && self.budget.is_full();
        let (too_late, may_exit) = state.take_into(intake, load, near, now, is_starved);
        let has_taken = !intake.calls.is_empty();
        let other = state.pop_for_the_rest(has_taken, is_starved, may_exit);
        let is_kept_waiting = is_starved || intake.has_left_calls;
        let could_grow = other.is_none() && !is_kept_waiting && state.could_grow();
        if !has_taken {
            let registered = Registered::on_this_thread(process, cx.waker().clone());
            state.waiting_processes.register(priority, registered);
        }
        if near.is_some() {
            (_, intake.seen_before) = state.queue.places();
        }
        let failure = (!too_late.is_empty()).then(|| state.waited_too_long());
        self.publish_length(&state);
        drop(state);
        if is_starved {
            self.starved.notify_one();
        }
        if may_exit {
            self.may_exit.notify_one();
        }
        self.wake(other, could_grow);
        answer_all(too_late, failure);
        if intake.has_left_calls {
            poll_next_turn(cx);
        }
        match has_taken {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl DispatchState {
    /// Takes calls for a process with this load. Returns calls that have waited too long, and
    /// whether the process may be about to exit, so that it takes none.
    fn take_into(
        &mut self,
        intake: &mut Intake,
        mut load: Load,
        mut near: Option<Near>,
        now: Instant,
        is_starved: bool,
    ) -> (Vec<QueuedCall>, bool) {
        let mut too_late = Vec::new();
        let mut may_exit;
        intake.has_left_calls = false;
        loop {
            may_exit = self.may_lose_last_chance(load, now);
            if is_starved || may_exit {
                break;
            }
            let next = match self.choose(load, near, now) {
                Choice::First => self.queue.take(now),
                Choice::At(place) => {
                    intake.first_unsearched = place + 1;
                    near.iter_mut()
                        .for_each(|near| near.first_unsearched = place + 1);
                    self.queue.take_at(place, now)
                }
                Choice::LeaveToTheirThreads => {
                    intake.has_left_calls = true;
                    None
                }
                Choice::Nothing => None,
            };
            match next {
                Some(Taken::InTime(call)) if call.is_abandoned() => {}
                Some(Taken::InTime(call)) => {
                    intake.calls.push_back(call.taken_at(now));
                    load = load.with_another();
                    if load.immediate_capacity == 0 {
                        break;
                    }
                }
                Some(Taken::TooLate(call)) => too_late.push(call),
                None => break,
            }
        }
        (too_late, may_exit)
    }

    /// Which other process to wake for the calls that still wait.
    fn pop_for_the_rest(
        &mut self,
        has_taken: bool,
        is_starved: bool,
        may_exit: bool,
    ) -> Option<Registered<Waker>> {
        let home = self.first_home();
        if has_taken {
            self.pop_for_waiting(home)
        } else if self.queue.is_empty() || is_starved {
            // No process takes a call before the budget has room.
            None
        } else if may_exit {
            // A process that has never answered can take the call now; this one is woken again in a
            // moment.
            self.waiting_processes.pop_new(home)
        } else {
            // Only idle processes: busy ones would wake each other in turn.
            self.waiting_processes.pop_idle(home)
        }
    }
}

/// Has the task polled again after every task of this thread that is ready now.
pub(in crate::pool) fn poll_next_turn(cx: &mut Context<'_>) {
    // One poll leaves the waker with the runtime; dropping the future takes nothing back.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}
