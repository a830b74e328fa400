//! The rules by which a process takes a call, and a process is woken for one.

use super::{DispatchState, EXIT_AFTER_REPLY_TIME, MAX_HAND_BACKS};
use crate::pool::queue::Oldest;
use crate::pool::waiting::Registered;
use crate::process::conversation::Position;
use crate::process::owner::Load;
use crate::threads::mailbox::ThreadNumber;
use std::task::Waker;
use std::time::Instant;

impl DispatchState {
    /// Whether a process may take the first call of the queue.
    pub(in crate::pool) fn may_take(&self, load: Load) -> bool {
        let room_bytes = match load.position {
            Position::AtOnce => return true,
            Position::Behind { room_bytes } => room_bytes,
        };
        let first = match self.queue.first() {
            Some(Oldest::Fresh(first)) => first,
            // A call that was handed back is not written ahead a second time.
            Some(Oldest::HandedBack(_)) | None => return false,
        };
        // Idle processes come first, each with as many calls as this process would have.
        let is_needed_elsewhere =
            self.queue.len() <= self.waiting_processes.idle() * (load.in_flight + 1);
        first.call.job.payload.len() as u64 <= room_bytes && !is_needed_elsewhere
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
