//! The rules by which a process takes a call, and a process is woken for one.

use super::{DispatchState, EXIT_AFTER_REPLY_TIME, MAX_HAND_BACKS};
use crate::pool::queue::Oldest;
use crate::pool::queued_call::QueuedCall;
use crate::pool::waiting::Registered;
use crate::process::conversation::Position;
use crate::process::owner::Load;
use crate::threads::mailbox::{ThreadNumber, this_thread};
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long a call may be overtaken by calls of other threads. Each process leaves a call for a turn
/// of its own, and where capacity is scarce, many turns pass before one of them has a free place for
/// it.
pub(in crate::pool) const OVERTAKING_TIME: Duration = Duration::from_millis(1);

/// Which calls are near to a process: calls of its thread, calls of threads without a slot, and
/// calls that it has left for a turn.
#[derive(Debug, Clone, Copy)]
pub(in crate::pool) struct Near {
    pub(in crate::pool) thread: ThreadNumber,
    /// Calls before this place have been left for a turn, and are near.
    pub(in crate::pool) left_before: u64,
    /// The calls before this place have been searched, and none of them is near.
    pub(in crate::pool) first_unsearched: u64,
}

/// The call that a process takes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pool) enum Choice {
    /// No call: the queue is empty, or the call is for another process, or too long to be written
    /// ahead.
    Nothing,
    /// The call that has waited longest.
    First,
    /// The call at this place of the queue.
    At(u64),
    /// No call in this turn: the calls that wait are left to their threads.
    LeaveToTheirThreads,
}

impl DispatchState {
    /// The call that a process takes next. With one thread, the first.
    ///
    /// With several threads (`near`), a process takes the calls of its own thread first, and while
    /// it has requests it leaves calls of other threads to these threads for one turn. So most calls
    /// stay on their thread, where a call and its answer cost less than half of what they cost
    /// across threads. From its next turn on a call that was left is as near as the process's own.
    /// Where calls were handed back, or the first has waited for [`OVERTAKING_TIME`], the first call
    /// is the next one, whatever its thread.
    pub(in crate::pool) fn choose(&self, load: Load, near: Option<Near>, now: Instant) -> Choice {
        if self.queue.is_empty() || !self.may_take(load) {
            return Choice::Nothing;
        }
        let Some(near) = near.filter(|_| self.may_overtake(now)) else {
            return Choice::First;
        };
        let is_near = |place, call: &QueuedCall| {
            // Slots are dealt out to the threads in turn: with fewer slots than threads, the last
            // threads have none.
            let has_slot = call.home.index() < self.scaling.most();
            place < near.left_before || call.home == near.thread || !has_slot
        };
        match self.queue.find_fresh(near.first_unsearched, is_near) {
            None if load.in_flight == 0 => Choice::First,
            None => Choice::LeaveToTheirThreads,
            Some((_, call)) if !fits(call, load) => Choice::Nothing,
            Some((place, _)) => Choice::At(place),
        }
    }

    /// Whether a call may be taken before an older one.
    fn may_overtake(&self, now: Instant) -> bool {
        match self.queue.first() {
            Some(Oldest::Fresh(first)) => {
                now < first.called + OVERTAKING_TIME && !self.queue.has_handed_back()
            }
            Some(Oldest::HandedBack(_)) | None => false,
        }
    }

    /// Whether a process may take the first call of the queue.
    fn may_take(&self, load: Load) -> bool {
        if load.position == Position::AtOnce {
            return true;
        }
        let first = match self.queue.first() {
            Some(Oldest::Fresh(first)) => first,
            // A call that was handed back is not written ahead a second time.
            Some(Oldest::HandedBack(_)) | None => return false,
        };
        // Idle processes come first, each with as many calls as this process would have.
        let is_needed_elsewhere =
            self.queue.len() <= self.waiting_processes.idle() * (load.in_flight + 1);
        fits(first, load) && !is_needed_elsewhere
    }

    /// True when the first call may be given to one more process only, and this process may be
    /// about to exit: some handlers exit after each reply.
    pub(in crate::pool) fn may_lose_last_chance(&self, load: Load, now: Instant) -> bool {
        let Some(Oldest::HandedBack(first)) = self.queue.first() else {
            return false;
        };
        let replied = load.last_replied;
        let has_just_replied = replied.is_some_and(|at| now < at + EXIT_AFTER_REPLY_TIME);
        first.times_handed_back >= MAX_HAND_BACKS && has_just_replied
    }

    /// The thread on which the caller of the first call waits; without a call, this thread.
    pub(in crate::pool) fn first_home(&self) -> ThreadNumber {
        let first = self.queue.first_item();
        first.map_or_else(this_thread, |call| call.home)
    }

    /// A process to wake for the waiting calls, if there are any.
    pub(in crate::pool) fn pop_for_waiting(
        &mut self,
        home: ThreadNumber,
    ) -> Option<Registered<Waker>> {
        if self.queue.is_empty() {
            None
        } else {
            self.waiting_processes.pop(home)
        }
    }

    /// Whether a further process could be started for the waiting calls.
    pub(in crate::pool) fn could_grow(&self) -> bool {
        !self.queue.is_empty() && self.scaling.could_fill()
    }
}

/// Whether the line of a call can be written to a process with this load in one piece.
fn fits(call: &QueuedCall, load: Load) -> bool {
    match load.position {
        Position::AtOnce => true,
        Position::Behind { room_bytes } => call.call.job.payload.len() as u64 <= room_bytes,
    }
}
