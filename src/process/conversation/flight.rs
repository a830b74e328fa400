//! A request that was given to the process and has no reply.

use super::event::ConversationEvent;
use super::{Conversation, Ticket};
use crate::error::RequestFailure;
use crate::process::call::RequestName;
use crate::process::ids::IdDigits;
use bytes::Bytes;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A request that was given to the process and has no reply.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) id: u64,
    pub(super) digits: IdDigits,
    /// `None` once the caller has been told that the request took too long.
    pub(super) ticket: Option<T>,
    /// Begin and end of the request's line, counted in bytes written to the process in its life.
    pub(super) line: Range<u64>,
    /// When the process could start on the request; until its line is written, when it was given.
    pub(super) could_start_at: Instant,
    pub(super) timeout: Duration,
    /// The end of the caller's time budget.
    pub(super) callers_deadline: Option<Instant>,
    /// Stray lines of the process before it could start on the request.
    pub(super) strays_before: u64,
    /// When the line was made: with this, and `has_context`, the same line can be made again.
    pub(super) made: Instant,
    /// The line has the members that the ready line asked for.
    pub(super) has_context: bool,
}

impl<T> Flight<T> {
    /// The event of this answer, if the caller still waits for it.
    pub(super) fn close(
        &mut self,
        outcome: Result<Bytes, RequestFailure>,
    ) -> Option<ConversationEvent<T>> {
        let began = self.could_start_at;
        let ticket = self.ticket.take()?;
        Some(ConversationEvent::Answered {
            ticket,
            outcome,
            began,
        })
    }

    /// When the wait of the caller ends.
    pub(super) fn deadline(&self) -> Instant {
        let own = self.own_deadline();
        self.callers_deadline
            .map_or(own, |deadline| deadline.min(own))
    }

    /// When the process has had its time for the request.
    pub(super) fn own_deadline(&self) -> Instant {
        self.could_start_at + self.timeout
    }
}

impl<T: Ticket> Conversation<T> {
    /// The name of the request that the process works on alone, while its caller waits.
    pub fn only_request(&self) -> Option<RequestName> {
        let first = self.flights.front().filter(|_| self.flights.len() == 1);
        first?.ticket.as_ref()?.name()
    }

    /// When the process could start on its oldest request.
    pub fn working_since(&self) -> Option<Instant> {
        self.flights.front().map(|flight| flight.could_start_at)
    }

    /// True while a caller waits for an answer from this process.
    pub fn is_awaited(&self) -> bool {
        self.flights.iter().any(|flight| flight.ticket.is_some())
    }
}
