//! A call in the queue, with the place, the times and the count that the queue keeps for it.

use crate::answer::Outcome;
use crate::process::call::Call;
use crate::threads::mailbox::{ThreadNumber, this_thread};
use std::borrow::Borrow;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A call in the queue. The process that takes it holds all of it, so that a process which ends
/// before it started on the call gives it back complete.
///
/// It is moved ten times on its way, sometimes under the lock of the queue, and threads that
/// look for calls of their own see its home: with the rest in a box, one thread makes 20 % more
/// calls a second, and two threads 25 %.
#[derive(Debug)]
pub(super) struct QueuedCall {
    /// The thread on which the caller waits.
    pub(super) home: ThreadNumber,
    record: Box<CallRecord>,
}

/// A call, and what the queue keeps of it.
#[derive(Debug)]
pub(super) struct CallRecord {
    pub(super) call: Call,
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
    /// A call by a task of this thread, which no process has had and which has no place yet.
    pub(super) fn new(
        call: Call,
        called: Instant,
        waits_until: Instant,
        gives_up_at: Instant,
    ) -> QueuedCall {
        let record = CallRecord {
            call,
            place: 0,
            called,
            waits_until,
            gives_up_at,
            taken_at: called,
            wait_left: Duration::ZERO,
            times_handed_back: 0,
        };
        QueuedCall {
            home: this_thread(),
            record: Box::new(record),
        }
    }

    /// The call with its place in the queue.
    pub(super) fn at_place(mut self, place: u64) -> QueuedCall {
        self.place = place;
        self
    }

    /// The call, with the time at which a process takes it.
    pub(super) fn taken_at(mut self, now: Instant) -> QueuedCall {
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
        self.record.call.answer(outcome);
    }
}

impl Deref for QueuedCall {
    type Target = CallRecord;

    fn deref(&self) -> &CallRecord {
        &self.record
    }
}

impl DerefMut for QueuedCall {
    fn deref_mut(&mut self) -> &mut CallRecord {
        &mut self.record
    }
}

impl Borrow<Call> for QueuedCall {
    fn borrow(&self) -> &Call {
        &self.call
    }
}

impl From<QueuedCall> for Call {
    fn from(queued: QueuedCall) -> Call {
        queued.record.call
    }
}
