//! A conversation with its clock, and the outcome of each request.

use faas_worker::error::RequestFailure;
use faas_worker::process::conversation::{
    Conversation, ConversationConfig, ConversationEvent, OpenRequest, PipeHolders, ReadAheadWindow,
    Ticket, Trust,
};
use faas_worker::process::line::{ContextMember, RequestContext};
use faas_worker::procfs::Activity;
use std::time::{Duration, Instant};

pub const MAX_CONCURRENCY: usize = 4;

/// A request that knows its number; ids and numbers are the same, in order.
pub struct Request(u64);

impl Ticket for Request {
    fn payload(&self) -> &[u8] {
        b"p"
    }
    fn context(&self, _: Instant, _: &[ContextMember]) -> RequestContext<'_> {
        RequestContext::default()
    }
    fn timeout(&self) -> Duration {
        Duration::from_millis(500)
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

pub struct ClockedConversation {
    pub talk: Conversation<Request>,
    now: Instant,
    given: u64,
    done: Vec<u64>,
}

#[allow(dead_code)] // Two targets share this, and neither uses all of it.
impl ClockedConversation {
    pub fn new() -> ClockedConversation {
        let limits = ConversationConfig {
            max_concurrency: MAX_CONCURRENCY,
            read_ahead: MAX_CONCURRENCY,
            window: ReadAheadWindow::Measured,
            wait_ready: false,
            startup_timeout: Duration::from_secs(2),
            max_reply_bytes: 64,
        };
        let now = Instant::now();
        ClockedConversation {
            talk: Conversation::new(limits, now),
            now,
            given: 0,
            done: Vec::new(),
        }
    }

    pub fn free_capacity(&self) -> usize {
        self.talk.free_capacity(self.now)
    }

    /// Gives a request, if there is one free.
    pub fn give(&mut self) -> bool {
        let has_free = self.talk.free_capacity(self.now) > 0;
        if has_free {
            assert_eq!(*self.talk.trust(), Trust::Sound);
            self.given += 1;
            self.talk.give(self.now, self.given, Request(self.given));
        }
        self.collect();
        has_free
    }

    pub fn sends(&mut self, bytes: usize) {
        let bytes = bytes.min(self.talk.outgoing().len());
        self.talk.sent(self.now, bytes);
    }

    pub fn says(&mut self, bytes: &[u8]) {
        self.talk.received(self.now, bytes);
        self.collect();
    }

    /// A reply to one of the last requests, which says whose it is.
    pub fn replies(&mut self, back: u64) {
        let id = self.given.saturating_sub(back);
        self.says(format!("{{\"id\":{id},\"result\":\"own-{id}\"}}\n").as_bytes());
    }

    pub fn waits(&mut self, time: Duration, slowest_start: Option<Duration>) {
        self.now += time;
        self.talk.expire(self.now, slowest_start);
        if self.talk.must_check_activity(self.now) {
            self.talk.record_activity(self.now, Activity::Asleep);
        }
        self.collect();
        let next = self.talk.next_deadline(slowest_start);
        let is_condemned = matches!(self.talk.trust(), Trust::Condemned(_));
        assert!(
            is_condemned || next.is_none_or(|next| next > self.now),
            "a deadline that has passed, and was not acted on, turns the owner in circles"
        );
    }

    /// The process is gone: every request has come out once.
    pub fn end(mut self, unread: usize) {
        self.collect();
        let sent_before = self.talk.in_flight();
        let unread = vec![b'x'; unread];
        let open = self.talk.end(&unread, PipeHolders::Gone);
        assert!(open.len() <= sent_before);
        self.done.extend(open.into_iter().map(|open| match open {
            OpenRequest::NeverStarted(ticket) | OpenRequest::MayHaveStarted { ticket, .. } => {
                ticket.0
            }
        }));
        self.done.sort_unstable();
        let all: Vec<u64> = (1..=self.given).collect();
        assert_eq!(self.done, all);
    }

    fn collect(&mut self) {
        for event in self.talk.take_events() {
            match event {
                ConversationEvent::Answered {
                    ticket: request,
                    outcome,
                    ..
                } => {
                    self.done.push(request.0);
                    check(request.0, outcome.as_deref());
                }
                ConversationEvent::CameUp { .. }
                | ConversationEvent::Ready(_)
                | ConversationEvent::ReadyTooLate
                | ConversationEvent::Unanswered
                | ConversationEvent::Stray { .. }
                | ConversationEvent::StraysLeftOut(_)
                | ConversationEvent::ErrorBesideResult => {}
            }
        }
        if *self.talk.trust() != Trust::Sound {
            assert_eq!(self.talk.free_capacity(self.now), 0);
        }
    }
}

/// Fails unless each answer is one JSON value, and names no other request than its own.
fn check(number: u64, outcome: Result<&[u8], &RequestFailure>) {
    let Ok(result) = outcome else { return };
    let object = std::str::from_utf8(result).expect("a result is text");
    serde_json::from_str::<serde::de::IgnoredAny>(object).expect("a result is JSON");
    let text = object
        .strip_prefix("{\"result\":")
        .and_then(|rest| rest.strip_suffix('}'));
    let text = text.expect("a result is the only member of an object");
    if text.starts_with("\"own-") {
        assert_eq!(text, format!("\"own-{number}\""));
    }
}
