//! What is said to one process, what it says back, and when it can no longer be trusted.
//!
//! Sans I/O: bytes, time and the end of the process come in; answers, log lines and the
//! [`Trust`] of the process come out. I never read a clock, touch a pipe or signal anything.
//!
//! Invariants, whatever the process sends and in whatever order:
//! * every ticket that was given comes out exactly once: answered, or handed back by
//!   [`Conversation::end`];
//! * an answer is made from the line that answers that request, or is a failure;
//! * a process that is not [`Trust::Sound`] has no room.

mod deadlines;
mod finished;
mod read_ahead;
mod replies;
mod silence;
mod timeout_detail;
mod trust;

use super::ids::IdDigits;
use super::line::{self, Announcement, Context, ContextMember, Framer};
use crate::error::Failure;
use bytes::Bytes;
use finished::Finished;
use read_ahead::ReadAhead;
use silence::Silence;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use trust::{Fault, Trust};

/// Stray lines are told one by one up to this many events; beyond, they are only counted.
const EVENTS_AT_ONCE: usize = 256;

/// A half line must be finished within this time. Some print a line and its end in two writes
/// (Python without buffering does): that alone is no reason to doubt a process.
const HALF_LINE_LASTS: Duration = Duration::from_millis(100);

/// Lines that a process was given and has not answered, in bytes: no request is written ahead once
/// there are so many. A pipe holds them by default.
const AHEAD_BYTES: u64 = 64 * 1024;

/// A process that has neither announced itself nor answered counts as up after this long.
const UP_AFTER: Duration = Duration::from_secs(10);

/// A request, as far as a conversation needs to know it.
pub trait Ticket {
    /// The inside of the payload's JSON string, as the client wrote it.
    fn payload(&self) -> &[u8];
    /// The members beside `payload` that the process asked for.
    fn context(&self, now: Instant, members: &[ContextMember]) -> Context<'_>;
    /// The longest time that a process is given.
    fn timeout(&self) -> Duration;
    /// The end of the caller's own budget.
    fn latest(&self) -> Option<Instant>;
}

/// ConversationConfig of a conversation.
#[derive(Debug, Clone)]
pub struct ConversationConfig {
    /// Caps the concurrency that a process announces.
    pub max_concurrency: usize,
    /// Caps how many requests a process that promised order may have at the same time.
    pub read_ahead: usize,
    /// No request before the ready line.
    pub wait_ready: bool,
    /// How long the ready line may take, and how long a first slow start is spared.
    pub startup_timeout: Duration,
    /// Largest `result`, in bytes.
    pub max_reply_bytes: usize,
}

/// When a process would start on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At once.
    First,
    /// After those that it has.
    Behind {
        /// What the line of the request may have, in bytes.
        room_bytes: u64,
    },
}

/// Whether anybody else still holds the pipes of a process that is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeHolders {
    /// Its stdout has ended.
    None,
    /// A descendant that has left its group may have.
    Some,
}

/// Something that happened and that somebody must be told.
#[derive(Debug)]
pub enum Event<T> {
    /// This request has its answer: `{"result":…}`, or why there is none.
    Answered(T, Result<Bytes, Failure>),
    /// The process is up.
    CameUp {
        /// How long it took to show life with a line; `None` if it has merely lived long enough.
        shown_after: Option<Duration>,
    },
    /// It has had its time for a request, and has never answered any.
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
        request: Option<u64>,
        /// True when the line was longer.
        is_cut: bool,
    },
    /// This many lines that are no reply came too fast to be told one by one.
    StraysLeftOut(u64),
    /// A reply had an error beside a result; the error was taken.
    ErrorBesideResult,
}

/// The conversation with one process. `T` is the ticket of a request: what its answer goes to.
#[derive(Debug)]
pub struct Conversation<T> {
    limits: ConversationConfig,
    started: Instant,
    framer: Framer,
    promise: Promise,
    ids: Ids,
    context: Vec<ContextMember>,
    life: Life,
    is_ready: bool,
    /// Whether it has written a line, whatever that was.
    has_spoken: bool,
    /// Whether a ready line came that was not the first line.
    was_ready_late: bool,
    has_replied: bool,
    last_replied: Option<Instant>,
    trust: Trust,
    /// When the first piece of a half line came that keeps the process from being given a request.
    half_line_since: Option<Instant>,
    silence: Silence,
    flight: VecDeque<Flight<T>>,
    finished: Finished,
    read_ahead: ReadAhead,
    /// Replies in the promised order so far.
    in_order: u64,
    /// What may have been meant as replies since the last one in order: so many requests further
    /// the process may be than its replies say.
    unmatched_lines: usize,
    strays: Strays,
    /// At the last look it was stopped.
    is_stopped: bool,
    outgoing: Outgoing,
    events: Vec<Event<T>>,
}

/// What a process announced about requests at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Nothing: one at a time.
    Nothing,
    /// One at a time, strictly in order, ids echoed.
    Order,
    /// That many at once, in any order, ids echoed.
    Concurrency(usize),
}

/// What is known about a process's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Unknown,
    Never,
    Echoed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Nothing seen, and young.
    Starting,
    /// Nothing seen, but it has lived long enough to count as up.
    Lived,
    /// It has sent a ready line or a reply.
    Shown,
}

/// A request that was given and has no reply.
#[derive(Debug)]
struct Flight<T> {
    id: u64,
    digits: IdDigits,
    /// `None` once the caller has been told that it took too long.
    ticket: Option<T>,
    /// Where its line begins and ends in all that was ever written to the process, in bytes.
    line: std::ops::Range<u64>,
    /// When the process could start on it; while its line is being written, when that began.
    since: Instant,
    timeout: Duration,
    /// The end of the caller's own budget.
    latest: Option<Instant>,
    strays_before: u64,
    /// When its line was made, and whether with what the ready line asked for: so it can be made
    /// again.
    made: Instant,
    has_context: bool,
}

impl<T> Flight<T> {
    /// When its caller waits no longer.
    fn deadline(&self) -> Instant {
        let own = self.own_deadline();
        self.latest.map_or(own, |latest| latest.min(own))
    }

    /// When the process has had its time for it.
    fn own_deadline(&self) -> Instant {
        self.since + self.timeout
    }
}

#[derive(Debug, Default)]
struct Strays {
    count: u64,
    /// How many came too fast to be told one by one, since the last telling.
    left_out: u64,
    /// The beginning of the last one.
    last: Vec<u8>,
    /// The last one with a brace and those behind it, as long as that is little: together they may
    /// be one reply over several lines.
    joined: Vec<u8>,
}

/// Bytes on their way into the process.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
    /// All bytes that the pipe has ever accepted.
    sent: u64,
}

impl Outgoing {
    /// Where the next byte put in will stand in all that was ever written.
    fn end(&self) -> u64 {
        self.sent + (self.bytes.len() - self.taken) as u64
    }
}

impl<T: Ticket> Conversation<T> {
    /// The conversation with a process that was started now.
    pub fn new(limits: ConversationConfig, now: Instant) -> Conversation<T> {
        Conversation {
            framer: Framer::new(limits.max_reply_bytes),
            read_ahead: ReadAhead::new(limits.read_ahead),
            limits,
            started: now,
            promise: Promise::Nothing,
            ids: Ids::Unknown,
            context: Vec::new(),
            life: Life::Starting,
            is_ready: false,
            has_spoken: false,
            was_ready_late: false,
            has_replied: false,
            last_replied: None,
            trust: Trust::Sound,
            half_line_since: None,
            silence: Silence::default(),
            flight: VecDeque::new(),
            finished: Finished::default(),
            in_order: 0,
            unmatched_lines: 0,
            strays: Strays::default(),
            is_stopped: false,
            outgoing: Outgoing::default(),
            events: Vec::new(),
        }
    }

    /// Whether the process may be given requests, and if not, why.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// How many requests the process may be given now.
    pub fn room(&self, now: Instant) -> usize {
        let waits_for_ready = self.limits.wait_ready && !self.is_ready;
        let waits = waits_for_ready || self.is_in_half_a_line() || self.silence.is_awaited();
        if self.trust != Trust::Sound || waits {
            return 0;
        }
        let most = match self.promise {
            Promise::Nothing => 1,
            Promise::Order if self.has_replied => self.read_ahead.window(now),
            Promise::Order => 1,
            Promise::Concurrency(number) => number,
        };
        let room = most.saturating_sub(self.flight.len());
        match self.next_position() {
            Position::Behind { room_bytes: 0 } => 0,
            Position::Behind { .. } | Position::First => room,
        }
    }

    /// When the process would start on a request that it is given now.
    pub fn next_position(&self) -> Position {
        match (self.promise, self.flight.front()) {
            (Promise::Order, Some(first)) => {
                let unanswered = self.outgoing.end() - first.line.start;
                let room_bytes = AHEAD_BYTES.saturating_sub(unanswered);
                Position::Behind { room_bytes }
            }
            (Promise::Order | Promise::Nothing | Promise::Concurrency(_), _) => Position::First,
        }
    }

    /// True when stdout must be looked at before [`Conversation::give`]: without ids, only what is
    /// not there tells that the last reply was the only one.
    pub fn must_look_before_giving(&self) -> bool {
        self.ids != Ids::Echoed
    }

    /// How many requests have no reply yet.
    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// True when the process has answered at least once.
    pub fn has_replied(&self) -> bool {
        self.has_replied
    }

    /// When the process last answered.
    pub fn last_replied(&self) -> Option<Instant> {
        self.last_replied
    }

    /// True when requests are written ahead, which its end gives back by its promise.
    pub fn is_ahead(&self) -> bool {
        self.promise == Promise::Order && self.flight.len() > 1
    }

    /// True when the process may work on requests of several callers at once, or has them.
    pub fn is_shared(&self) -> bool {
        self.flight.len() > 1 || matches!(self.promise, Promise::Concurrency(_))
    }

    /// When the process could start on the oldest request that it has.
    pub fn working_since(&self) -> Option<Instant> {
        self.flight.front().map(|flight| flight.since)
    }

    /// True while somebody waits for an answer from this process.
    pub fn is_awaited(&self) -> bool {
        self.flight.iter().any(|flight| flight.ticket.is_some())
    }

    /// True when no request that the process has is known by this id. That it is one of those that
    /// were answered lately is as unlikely as a guess.
    pub fn is_free(&self, id: u64) -> bool {
        self.position(id).is_none()
    }

    /// Gives a request to the process, which must have room, under a free id that nobody outside
    /// can guess. Its clock starts when its line has been written.
    pub fn give(&mut self, now: Instant, id: u64, ticket: T) {
        debug_assert!(self.is_free(id), "an id was given to two requests");
        debug_assert!(
            self.room(now) > 0,
            "a request was given to a process without room"
        );
        if self.flight.is_empty() {
            self.unmatched_lines = 0;
        }
        let begin = self.outgoing.end();
        let context = ticket.context(now, &self.context);
        let digits = IdDigits::new(id);
        line::encode_request(
            &mut self.outgoing.bytes,
            &digits,
            ticket.payload(),
            &context,
        );
        self.flight.push_back(Flight {
            id,
            digits,
            line: begin..self.outgoing.end(),
            since: now,
            timeout: ticket.timeout(),
            latest: ticket.latest(),
            strays_before: self.strays.count,
            made: now,
            has_context: !self.context.is_empty(),
            ticket: Some(ticket),
        });
    }

    /// Bytes of a line that was read in part.
    pub fn partial_bytes(&self) -> usize {
        self.framer.partial().len()
    }

    /// Bytes that are on their way into the process, and of a line that was read in part.
    pub fn buffered_bytes(&self) -> usize {
        self.outgoing.bytes.len() + self.partial_bytes()
    }

    /// What is to be written next.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing.bytes[self.outgoing.taken..]
    }

    /// The pipe has accepted this many bytes of [`Conversation::outgoing`].
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        let before = self.outgoing.sent;
        self.outgoing.taken += bytes;
        self.outgoing.sent += bytes as u64;
        let after = self.outgoing.sent;
        // The last ones given are the last ones written.
        for flight in self.flight.iter_mut().rev() {
            if flight.line.end <= before {
                break;
            }
            if flight.line.end <= after {
                flight.since = now;
            }
        }
        if self.outgoing.taken == self.outgoing.bytes.len() {
            self.outgoing.taken = 0;
            if self.outgoing.bytes.capacity() > 64 * 1024 {
                self.outgoing.bytes = Vec::new();
            } else {
                self.outgoing.bytes.clear();
            }
        }
    }

    /// These bytes were read from stdout.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        let began = self.flight.front().map(|first| first.since);
        let answered = self.in_order;
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
        let replies = self.in_order - answered;
        if let Some(began) = began.filter(|_| replies > 0) {
            let spent = now.saturating_duration_since(began);
            self.read_ahead.replied(now, spent, replies);
        }
    }

    /// The process has closed its stdin with `unread` bytes in it. What it has read it may still
    /// answer; what it has not, it never will.
    pub fn input_closed(&mut self, unread: u64) {
        if unread > 0 || !self.outgoing().is_empty() {
            self.condemn(Fault::InputClosed);
        } else {
            self.finish_only(Fault::InputClosed);
        }
    }

    /// The process has closed its stdout: no reply can come.
    pub fn output_closed(&mut self) {
        self.condemn(Fault::OutputClosed);
    }

    /// True when the process starts on this request only after others.
    fn is_written_ahead(&self, index: usize) -> bool {
        index > 0 && self.promise == Promise::Order
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event<T>> {
        let left_out = std::mem::take(&mut self.strays.left_out);
        if left_out > 0 {
            self.events.push(Event::StraysLeftOut(left_out));
        }
        if self.events.is_empty() {
            // The owner looks once more after each batch: the room for the next one stays.
            return Vec::new();
        }
        // The next ones are about as many.
        let room = self.events.len().min(EVENTS_AT_ONCE);
        std::mem::replace(&mut self.events, Vec::with_capacity(room))
    }

    /// The process is dead and reaped, its stdout read, and `unread` was taken back out of its
    /// stdin. Gives each open ticket, in order, and whether its request never started. That is
    /// known in two ways: its line lies wholly in the part that was never read, or the process
    /// promised order and an earlier request has no reply. The promise says nothing while somebody
    /// may still be working on what was read. Nor does the pipe, when something else comes out of
    /// it than was written: somebody has put that there, in place of what was read.
    pub fn end(&mut self, unread: &[u8], holders: PipeHolders) -> Vec<(T, bool)> {
        let read = self.outgoing.sent.checked_sub(unread.len() as u64);
        let read = read.filter(|read| self.is_end_of_what_was_sent(unread, *read));
        let read = read.unwrap_or(self.outgoing.sent);
        let may_have_started = match (self.promise, holders) {
            (Promise::Order, PipeHolders::None) => self.may_have_started(),
            (Promise::Order, PipeHolders::Some) => usize::MAX,
            (Promise::Nothing | Promise::Concurrency(_), _) => usize::MAX,
        };
        let flights = self.flight.drain(..).enumerate();
        flights
            .filter_map(|(index, flight)| {
                let is_untouched = flight.line.start >= read || index >= may_have_started;
                flight.ticket.map(|ticket| (ticket, is_untouched))
            })
            .collect()
    }

    /// True when these bytes, which follow the first `read` ones, are those that were written there
    /// for the open requests.
    fn is_end_of_what_was_sent(&self, unread: &[u8], read: u64) -> bool {
        let mut line = Vec::new();
        let whole = self
            .flight
            .iter()
            .filter(|flight| flight.line.start >= read);
        for flight in whole {
            let Some(ticket) = &flight.ticket else {
                continue;
            };
            let members = match flight.has_context {
                true => &self.context[..],
                false => &[],
            };
            line.clear();
            let context = ticket.context(flight.made, members);
            line::encode_request(&mut line, &flight.digits, ticket.payload(), &context);
            // Of the last one, less may have been sent.
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
    fn may_have_started(&self) -> usize {
        // A reply without its line end is one as well.
        let half = line::replies_at_most(self.framer.partial());
        self.unmatched_lines.saturating_add(half).saturating_add(1)
    }

    /// From here on the process is given nothing. If it echoes ids it may finish.
    fn doubt(&mut self, fault: Fault) {
        if self.ids == Ids::Echoed {
            // What it has not started on it must not, or another could not be given it.
            let mut flights = self.flight.iter().skip(self.may_have_started());
            let is_written_ahead = self.promise == Promise::Order;
            if is_written_ahead && flights.any(|flight| flight.ticket.is_some()) {
                return self.condemn(fault);
            }
            return self.finish_only(fault);
        }
        for flight in self.flight.drain(..) {
            let failure = Failure::Protocol(fault.to_string().into());
            let answered = flight
                .ticket
                .map(|ticket| Event::Answered(ticket, Err(failure)));
            self.events.extend(answered);
        }
        self.condemn(fault);
    }

    fn finish_only(&mut self, fault: Fault) {
        if self.trust == Trust::Sound {
            self.trust = Trust::Finishing(fault);
        }
        if self.flight.is_empty() {
            self.condemn_if_finishing();
        }
    }

    fn condemn(&mut self, fault: Fault) {
        match self.trust {
            Trust::Sound => self.trust = Trust::Condemned(fault),
            Trust::Finishing(_) | Trust::Condemned(_) => self.condemn_if_finishing(),
        }
    }

    /// The first fault is the one that is told.
    fn condemn_if_finishing(&mut self) {
        if let Trust::Finishing(fault) = self.trust {
            self.trust = Trust::Condemned(fault);
        }
    }

    /// True when a process without requests is in the middle of a line that could be a reply, or
    /// has answered before: what is given now might get the end of that line for its answer. What
    /// a process prints while it starts may be cut anywhere.
    fn is_in_half_a_line(&self) -> bool {
        let could_answer = self.has_replied || line::is_braced(self.framer.partial());
        self.flight.is_empty() && self.framer.is_inside_line() && could_answer
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.flight.iter().position(|flight| flight.id == id)
    }

    /// Takes out a request that needs no reply any more; a reply that names it is one too many.
    fn take_flight(&mut self, index: usize) -> Option<Flight<T>> {
        let flight = self.flight.remove(index)?;
        self.finished.record(flight.id);
        Some(flight)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests;
