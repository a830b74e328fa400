//! A call in the queue, with the place, the times and the count that the queue keeps for it.

use crate::answer::Outcome;
use crate::process::call::Call;
use crate::threads::mailbox::{ThreadNumber, this_thread};
use std::borrow::Borrow;
use std::time::{Duration, Instant};

/// A call in the queue. The process that takes it holds all of it, so that a process which ends
/// before it started on the call gives it back complete.
#[derive(Debug)]
pub(super) struct QueuedCall {
    pub(super) call: Call,
    /// The thread on which the caller waits.
    pub(super) home: ThreadNumber,
    /// Place in the queue; a call that is handed back keeps it.
    pub(super) place: u64,
    /// When the caller called.
    pub(super) called: Instant,
    /// End of the waiting time.
    pub(super) waits_until: Instant,
    /// From then on the call is handed back no more: process after process may end without reading
    /// it.
    pub(super) gives_up_at: Instant,
    /// When the call was last taken from the queue; before that, when it was made.
    pub(super) taken_at: Instant,
    /// Waiting time left when the call was last taken from the queue.
    pub(super) wait_left: Duration,
    /// How often the call was handed back after the end of a process.
    pub(super) times_handed_back: u32,
}

impl QueuedCall {
    /// A call by a task of this thread, which no process has had.
    pub(super) fn new(
        call: Call,
        place: u64,
        called: Instant,
        waits_until: Instant,
        gives_up_at: Instant,
    ) -> QueuedCall {
        QueuedCall {
            call,
            home: this_thread(),
            place,
            called,
            waits_until,
            gives_up_at,
            taken_at: called,
            wait_left: Duration::ZERO,
            times_handed_back: 0,
        }
    }

    /// The call, as a process has taken it from the queue at this moment.
    pub(super) fn begin_at(mut self, now: Instant) -> QueuedCall {
        self.wait_left = self.waits_until.saturating_duration_since(now);
        self.taken_at = now;
        self
    }

    /// True when the caller has left.
    pub(super) fn is_abandoned(&self) -> bool {
        self.call.is_abandoned()
    }

    /// Delivers the answer.
    pub(super) fn answer(self, outcome: Outcome) {
        self.call.answer(outcome);
    }
}

impl Borrow<Call> for QueuedCall {
    fn borrow(&self) -> &Call {
        &self.call
    }
}

impl From<QueuedCall> for Call {
    fn from(queued: QueuedCall) -> Call {
        queued.call
    }
}
