//! The conversation with one process: requests, replies, deadlines, and trust.
//!
//! Sans I/O: bytes, time and the end of the process come in; answers, log lines and the
//! [`Trust`] of the process come out. Never reads a clock, touches a pipe or signals a process.
//!
//! # Methods and their order
//!
//! A driver (the owner of the process's pipes) calls methods of four kinds:
//!
//! * *Bytes in*: [`Conversation::received`] for bytes of stdout, [`Conversation::output_closed`]
//!   and [`Conversation::input_closed`] for the end of a pipe.
//! * *Time*: [`Conversation::next_deadline`] says when [`Conversation::expire`] has something to
//!   do. All bytes that stdout holds must have been received before: a reply that is there wins
//!   over its deadline. Then come, in this order:
//!   1. [`Conversation::record_suspended`], unless [`Conversation::must_check_activity`];
//!   2. [`Conversation::record_runnable`], if [`Conversation::must_check_runnable`] and it is so;
//!   3. [`Conversation::expire`];
//!   4. [`Conversation::record_activity`], if [`Conversation::must_check_activity`] still holds.
//! * *Bytes out*: while [`Conversation::free_capacity`] is not 0, [`Conversation::give`] puts a
//!   request into [`Conversation::outgoing`]; [`Conversation::sent`] takes out the bytes that the
//!   pipe accepted.
//! * *Questions*, which change nothing: [`Conversation::trust`], [`Conversation::free_capacity`],
//!   [`Conversation::in_flight`] and more.
//!
//! In each turn the driver calls them in this order: bytes in, time, bytes out. Each method that
//! takes `&mut self` may leave events behind, for [`Conversation::take_events`] after it. When the
//! process has been reaped and its stdout read to the end, [`Conversation::end`] gives the open
//! requests back.
//!
//! # Invariants
//!
//! Whatever the process sends and in whatever order:
//!
//! * every ticket that was given comes out exactly once: answered, or handed back by
//!   [`Conversation::end`];
//! * an answer is made from the line that answers that request, or is a failure;
//! * a process that is not [`Trust::Sound`] is given no request.

mod closed_ids;
mod deadlines;
mod end;
mod event;
mod flight;
mod outgoing;
mod promise;
mod read_ahead;
mod replies;
mod silence;
mod strays;
mod timeout_detail;
mod trust;

use super::call::RequestName;
use super::ids::IdDigits;
use super::line::{self, ContextMember, Framer, RequestContext};
use closed_ids::ClosedIds;
use event::MAX_EVENTS;
use flight::Flight;
use outgoing::Outgoing;
use promise::Promise;
use read_ahead::ReadAhead;
use silence::Silence;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use strays::Strays;

pub use deadlines::UP_AFTER;
pub use end::{OpenRequest, PipeHolders};
pub use event::ConversationEvent;
pub use read_ahead::ReadAheadWindow;
pub use trust::{Fault, Trust};

/// A request is written ahead only while the unanswered lines of a process have fewer bytes than
/// this: the default size of a pipe.
const MAX_AHEAD_BYTES: u64 = 64 * 1024;

/// A request, as far as a conversation needs to know it.
pub trait Ticket {
    /// The inside of the payload's JSON string, as the client wrote it.
    fn payload(&self) -> &[u8];
    /// The members beside `payload` that the process asked for.
    fn context(&self, now: Instant, members: &[ContextMember]) -> RequestContext<'_>;
    /// The longest time that a process is given.
    fn timeout(&self) -> Duration;
    /// The end of the caller's time budget.
    fn deadline(&self) -> Option<Instant>;
    /// The name of the request in the log.
    fn name(&self) -> Option<RequestName> {
        None
    }
}

/// Settings of a conversation.
#[derive(Debug, Clone)]
pub struct ConversationConfig {
    /// Caps the concurrency that a process announces.
    pub max_concurrency: usize,
    /// Caps how many requests a process that promised order may have at the same time.
    pub read_ahead: usize,
    /// Whether the pace of the process lowers that number.
    pub window: ReadAheadWindow,
    /// No request is given before the ready line.
    pub wait_ready: bool,
    /// How long the ready line may take, and how long a first slow start is spared.
    pub startup_timeout: Duration,
    /// Largest `result`, in bytes.
    pub max_reply_bytes: usize,
}

/// When a process would start on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Immediately.
    AtOnce,
    /// After the requests that it has.
    Behind {
        /// Bytes left for requests ahead. The queue compares the payload with it, so a line may be
        /// longer by its id and its context.
        room_bytes: u64,
    },
}

/// The conversation with one process. `T` is the ticket of a request, to which its answer goes.
#[derive(Debug)]
pub struct Conversation<T> {
    limits: ConversationConfig,
    started: Instant,
    framer: Framer,
    promise: Promise,
    ids: Ids,
    wanted_members: Vec<ContextMember>,
    /// The process has shown no life by a line, but is old enough to count as up.
    is_up_by_age: bool,
    /// A ready line came as the first line.
    is_ready: bool,
    /// The process has written a line of any kind.
    has_spoken: bool,
    /// A ready line came that was not the first line.
    was_ready_late: bool,
    last_replied: Option<Instant>,
    trust: Trust,
    /// When the line began that has no end yet and must have one before the next request.
    half_line_since: Option<Instant>,
    silence: Silence,
    /// Requests without a reply, in the order in which they were given.
    flights: VecDeque<Flight<T>>,
    closed_ids: ClosedIds,
    read_ahead: ReadAhead,
    /// Replies so far, without the replies that broke a promised order.
    replies_in_order: u64,
    /// Lines since the last reply in order that may have been meant as replies: the process may be
    /// as many requests further than its replies say.
    possible_replies: usize,
    strays: Strays,
    /// The process was suspended (SIGSTOP, state T) when [`Conversation::expire`] was last called.
    is_suspended: bool,
    outgoing: Outgoing,
    events: Vec<ConversationEvent<T>>,
}

/// Whether the replies of a process repeat the ids of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Unknown,
    Never,
    Repeated,
}

impl<T: Ticket> Conversation<T> {
    /// The conversation with a process that was started now.
    pub fn new(limits: ConversationConfig, now: Instant) -> Conversation<T> {
        Conversation {
            framer: Framer::new(limits.max_reply_bytes),
            read_ahead: ReadAhead::new(limits.window, limits.read_ahead),
            limits,
            started: now,
            promise: Promise::Nothing,
            ids: Ids::Unknown,
            wanted_members: Vec::new(),
            is_up_by_age: false,
            is_ready: false,
            has_spoken: false,
            was_ready_late: false,
            last_replied: None,
            trust: Trust::Sound,
            half_line_since: None,
            silence: Silence::default(),
            flights: VecDeque::new(),
            closed_ids: ClosedIds::default(),
            replies_in_order: 0,
            possible_replies: 0,
            strays: Strays::default(),
            is_suspended: false,
            outgoing: Outgoing::default(),
            events: Vec::new(),
        }
    }

    /// Whether the process may be given requests, and if not, why.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// How many requests the process may be given now.
    pub fn free_capacity(&self, now: Instant) -> usize {
        let waits_for_ready = self.limits.wait_ready && !self.is_ready;
        let waits = waits_for_ready || self.is_in_half_a_line() || self.silence.is_awaited();
        if self.trust != Trust::Sound || waits {
            return 0;
        }
        let most = match self.promise {
            Promise::Nothing => 1,
            Promise::Order if self.has_replied() => self.read_ahead.most_requests(now),
            Promise::Order | Promise::Broken => 1,
            Promise::Concurrency(number) => number,
        };
        let free = most.saturating_sub(self.flights.len());
        match self.next_position() {
            Position::Behind { room_bytes: 0 } => 0,
            Position::Behind { .. } | Position::AtOnce => free,
        }
    }

    /// When the process would start on a request that it is given now.
    pub fn next_position(&self) -> Position {
        match (self.promise, self.flights.front()) {
            (Promise::Order, Some(first)) => {
                let unanswered = self.outgoing.end() - first.line.start;
                let room_bytes = MAX_AHEAD_BYTES.saturating_sub(unanswered);
                Position::Behind { room_bytes }
            }
            (Promise::Order, None)
            | (Promise::Nothing | Promise::Concurrency(_) | Promise::Broken, _) => Position::AtOnce,
        }
    }

    /// How many requests the process would start on immediately, if it were given them now.
    pub fn immediate_capacity(&self, now: Instant) -> usize {
        let idle = self.requests_at_once().saturating_sub(self.flights.len());
        idle.min(self.free_capacity(now))
    }

    /// True when stdout must be read before [`Conversation::give`]: without ids, only the absence
    /// of further output shows that the last reply was the only one.
    pub fn must_read_before_giving(&self) -> bool {
        self.ids != Ids::Repeated
    }

    /// How many requests have no reply yet.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Requests that the process may work on at the same time.
    pub fn requests_at_once(&self) -> usize {
        match self.promise {
            Promise::Nothing | Promise::Order | Promise::Broken => 1,
            Promise::Concurrency(number) => number,
        }
    }

    /// True when the process has answered at least once.
    pub fn has_replied(&self) -> bool {
        self.last_replied.is_some()
    }

    /// When the process last answered.
    pub fn last_replied(&self) -> Option<Instant> {
        self.last_replied
    }

    /// True when requests are written ahead. By the promise of order, they are handed back to the
    /// queue at the end of the process.
    pub fn is_ahead(&self) -> bool {
        self.promise == Promise::Order && self.flights.len() > 1
    }

    /// True when the process has requests of several callers at the same time, or may have.
    pub fn is_shared(&self) -> bool {
        self.flights.len() > 1 || self.promise.allows_any_order()
    }

    /// True when no open request has this id. Ids of answered requests are not looked up: drawing
    /// one again is as unlikely as guessing one.
    pub fn is_free(&self, id: u64) -> bool {
        self.index_of(id).is_none()
    }

    /// Gives a request to the process, which must be able to take one (`free_capacity` > 0). The id
    /// must be free, and impossible to guess for senders of payloads. The clock of the request
    /// starts when its line has been written.
    pub fn give(&mut self, now: Instant, id: u64, ticket: T) {
        debug_assert!(self.is_free(id), "an id was given to two requests");
        debug_assert!(
            self.free_capacity(now) > 0,
            "a request was given to a process that may be given none"
        );
        if self.flights.is_empty() {
            self.possible_replies = 0;
        }
        let begin = self.outgoing.end();
        let context = ticket.context(now, &self.wanted_members);
        let digits = IdDigits::new(id);
        line::encode_request(self.outgoing.buffer(), &digits, ticket.payload(), &context);
        self.flights.push_back(Flight {
            id,
            digits,
            line: begin..self.outgoing.end(),
            could_start_at: now,
            timeout: ticket.timeout(),
            callers_deadline: ticket.deadline(),
            strays_before: self.strays.count,
            made: now,
            has_context: !self.wanted_members.is_empty(),
            ticket: Some(ticket),
        });
    }

    /// Bytes of a line that was read in part.
    pub fn partial_bytes(&self) -> usize {
        self.framer.partial().len()
    }

    /// Bytes on their way into the process, and bytes of a line that was read in part.
    pub fn buffered_bytes(&self) -> usize {
        self.outgoing.buffered_bytes() + self.partial_bytes()
    }

    /// Bytes for stdin that the pipe has not accepted yet.
    pub fn outgoing(&self) -> &[u8] {
        self.outgoing.unsent()
    }

    /// The pipe has accepted this many bytes of [`Conversation::outgoing`].
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        let written = self.outgoing.sent(bytes);
        // Lines are written in the order of the requests, so the newest ones end last.
        for flight in self.flights.iter_mut().rev() {
            if flight.line.end <= written.start {
                break;
            }
            if flight.line.end <= written.end {
                flight.could_start_at = now;
            }
        }
    }

    /// These bytes were read from stdout.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        let began = self.flights.front().map(|first| first.could_start_at);
        let in_order = self.replies_in_order;
        self.silence.output(now);
        // Taken out for the time of the loop: each line needs the rest of the conversation.
        let mut framer = std::mem::replace(&mut self.framer, Framer::new(0));
        framer.feed(bytes, |line| self.line(now, line));
        self.framer = framer;
        self.half_line_since = match self.half_line_since {
            _ if !self.is_in_half_a_line() => None,
            // More of the same line gives it no more time.
            Some(since) if memchr::memchr(b'\n', bytes).is_none() => Some(since),
            Some(_) | None => Some(now),
        };
        let replies = self.replies_in_order - in_order;
        if let Some(began) = began.filter(|_| replies > 0) {
            let spent = now.saturating_duration_since(began);
            self.read_ahead.replied(now, spent, replies);
        }
    }

    /// True when the process has shown life by a ready line or a reply.
    fn has_shown_life(&self) -> bool {
        self.is_ready || self.has_replied()
    }

    /// True when a process without requests is in the middle of a line, and that line could be a
    /// reply or the process has answered before: its end might answer a request that is given now.
    /// Output during a start may be cut anywhere, and is no reason to wait.
    fn is_in_half_a_line(&self) -> bool {
        let could_answer = self.has_replied() || line::is_braced(self.framer.partial());
        self.flights.is_empty() && self.framer.is_inside_line() && could_answer
    }

    /// True when the process starts on this request only after an earlier one.
    fn is_behind_another(&self, index: usize) -> bool {
        index > 0 && self.promise == Promise::Order
    }

    fn index_of(&self, id: u64) -> Option<usize> {
        self.flights.iter().position(|flight| flight.id == id)
    }

    /// Takes out a request that needs no reply any more; a reply that names it is one too many.
    fn take_flight(&mut self, index: usize) -> Option<Flight<T>> {
        let flight = self.flights.remove(index)?;
        self.closed_ids.record(flight.id);
        Some(flight)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests;
