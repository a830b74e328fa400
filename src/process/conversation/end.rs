//! The end of a process: which of its open requests it may have started on.

use super::{Conversation, Promise, Ticket};
use crate::process::line;
use std::time::Instant;

/// Whether another process still holds the pipes of a process that is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeHolders {
    /// Its stdout has ended.
    Gone,
    /// A descendant that has left its group may hold them.
    Possible,
}

/// A request without a reply, when its process has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenRequest<T> {
    /// The process never started on it: another may be given it.
    NeverStarted(T),
    /// The process may have started on it, and may have finished.
    MayHaveStarted {
        /// The request.
        ticket: T,
        /// When the process could start on it.
        since: Instant,
    },
}

impl<T: Ticket> Conversation<T> {
    /// The process is dead and reaped, its stdout read, and `unread` was taken back out of its
    /// stdin. Gives each open ticket, in order.
    ///
    /// A request never started in two cases: its line lies wholly in the part that was never read,
    /// or the process promised order and an earlier request has no reply. The promise says nothing
    /// while a descendant may still work on the lines that were read. The pipe says nothing when
    /// other bytes come out of it than were written: a descendant has read these, and put others in
    /// their place.
    pub fn end(&mut self, unread: &[u8], holders: PipeHolders) -> Vec<OpenRequest<T>> {
        let total_sent = self.outgoing.total_sent();
        let read = total_sent.checked_sub(unread.len() as u64);
        let read = read.filter(|read| self.is_end_of_what_was_sent(unread, *read));
        let read = read.unwrap_or(total_sent);
        let started_at_most = match (self.promise, holders) {
            (Promise::Order, PipeHolders::Gone) => self.started_at_most(),
            (Promise::Order, PipeHolders::Possible) => usize::MAX,
            (Promise::Nothing | Promise::Concurrency(_) | Promise::Broken, _) => usize::MAX,
        };
        let flights = self.flights.drain(..).enumerate();
        flights
            .filter_map(|(index, flight)| {
                let is_untouched = flight.line.start >= read || index >= started_at_most;
                let ticket = flight.ticket?;
                Some(match is_untouched {
                    true => OpenRequest::NeverStarted(ticket),
                    false => OpenRequest::MayHaveStarted {
                        ticket,
                        since: flight.could_start_at,
                    },
                })
            })
            .collect()
    }

    /// True when `unread`, which follows the first `read` bytes, are the lines of the open requests
    /// that were written there.
    fn is_end_of_what_was_sent(&self, unread: &[u8], read: u64) -> bool {
        let mut line = Vec::new();
        let whole = self
            .flights
            .iter()
            .filter(|flight| flight.line.start >= read);
        for flight in whole {
            let Some(ticket) = &flight.ticket else {
                continue;
            };
            let members = match flight.has_context {
                true => &self.wanted_members[..],
                false => &[],
            };
            line.clear();
            let context = ticket.context(flight.made, members);
            line::encode_request(&mut line, &flight.digits, ticket.payload(), &context);
            // The pipe may have accepted a part only of the last line.
            let begin = usize::try_from(flight.line.start - read).unwrap_or(usize::MAX);
            let found = unread.get(begin..).unwrap_or_default();
            let length = found.len().min(line.len());
            if found[..length] != line[..length] {
                return false;
            }
        }
        true
    }

    /// How many requests a process that keeps its promise of order may have started on.
    pub(super) fn started_at_most(&self) -> usize {
        // A reply without its line end counts, too.
        let half = line::replies_at_most(self.framer.partial());
        self.possible_replies.saturating_add(half).saturating_add(1)
    }
}
