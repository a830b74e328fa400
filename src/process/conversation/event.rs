//! Events of a conversation, for its driver.

use super::Conversation;
use crate::error::RequestFailure;
use crate::process::call::RequestName;
use crate::process::line::Announcement;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Stray lines are told one by one up to this many events; further ones are only counted.
pub(super) const MAX_EVENTS: usize = 256;

/// Something that the driver of a conversation must act upon or log.
#[derive(Debug)]
pub enum ConversationEvent<T> {
    /// This request has its answer: `{"result":…}`, or why there is none.
    Answered {
        /// The request.
        ticket: T,
        /// Its answer.
        outcome: Result<Bytes, RequestFailure>,
        /// When the process could start on the request.
        began: Instant,
    },
    /// The process is up.
    CameUp {
        /// How long it took to show life with a line; `None` if it merely is old enough.
        shown_after: Option<Duration>,
    },
    /// The process has had its time for a request, and has sent neither a ready line nor a reply.
    Unanswered,
    /// The ready line.
    Ready(Announcement),
    /// A ready line that was not the first line, and announces nothing; told once.
    ReadyTooLate,
    /// A line that is no reply.
    Stray {
        /// The line, cut to the limit of a log line.
        text: Bytes,
        /// The request that it was written during, if there was just one.
        request: Option<RequestName>,
        /// True when the line was longer.
        is_cut: bool,
    },
    /// This many lines that are no reply came too fast to be told one by one.
    StraysLeftOut(u64),
    /// A reply had an error beside a result; the error was taken.
    ErrorBesideResult,
}

impl<T> Conversation<T> {
    /// The events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<ConversationEvent<T>> {
        let left_out = std::mem::take(&mut self.strays.left_out);
        if left_out > 0 {
            self.events.push(ConversationEvent::StraysLeftOut(left_out));
        }
        if self.events.is_empty() {
            // The driver asks once more after each batch: the room for the next one stays.
            return Vec::new();
        }
        // The next batch is likely as large.
        let room = self.events.len().min(MAX_EVENTS);
        std::mem::replace(&mut self.events, Vec::with_capacity(room))
    }
}
