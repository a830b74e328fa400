//! A request's path through the worker without sockets and pipes: the payload out of a body, the
//! line to the process, the process's reply taken apart, the body of the response.
//!
//! Pure and without time of its own, so that the number of instructions is the same every time.

use bytes::Bytes;
use faas_worker::http::api::payload::{find_payload, is_json};
use faas_worker::process::conversation::{
    Conversation, ConversationConfig, ConversationEvent, ReadAheadWindow, Ticket,
};
use faas_worker::process::ids::RandomIds;
use faas_worker::process::line::{ContextMember, RequestContext};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// A reading of a device
    Small,
    /// Text with escapes, as a client writes it that escapes all but ASCII
    Escaped,
    /// 16 KiB of plain text
    Large,
}

impl Case {
    /// The text between the quotes in a client's JSON.
    fn payload(self) -> String {
        match self {
            Case::Small => "dev-1,42,1678886400".to_owned(),
            Case::Escaped => "{\\\"t\\\": \\\"\\u00e9\\u20ac\\n\\ud83d\\ude00\\\"}".repeat(4),
            Case::Large => "0123456789abcdef".repeat(1024),
        }
    }
}

/// One process that echoes, and the next request to it.
pub(crate) struct Path {
    body: Bytes,
    conversation: Conversation<Request>,
    ids: RandomIds,
    reply: Vec<u8>,
    now: Instant,
}

struct Request {
    payload: Bytes,
}

impl Ticket for Request {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn context(&self, _: Instant, _: &[ContextMember]) -> RequestContext<'_> {
        RequestContext::default()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl Path {
    /// A path on which the process has come up.
    pub(crate) fn new(case: Case) -> Path {
        let limits = ConversationConfig {
            read_ahead: 32,
            window: ReadAheadWindow::Measured,
            max_concurrency: 64,
            wait_ready: false,
            startup_timeout: Duration::from_secs(60),
            max_reply_bytes: 8 * 1024 * 1024,
        };
        let now = Instant::now();
        let mut conversation = Conversation::new(limits, now);
        conversation.received(now, b"{\"ready\":true,\"concurrency\":1}\n");
        drop(conversation.take_events());
        Path {
            body: Bytes::from(format!("{{\"payload\":\"{}\"}}", case.payload())),
            conversation,
            ids: RandomIds::new(),
            reply: Vec::new(),
            now,
        }
    }

    /// From a body to the body of the response.
    ///
    /// # Panics
    ///
    /// When the answer is not a result: then something else was measured.
    pub(crate) fn request(&mut self) -> Bytes {
        let payload = find_payload(is_json(Some(b"application/json")), &self.body)
            .unwrap_or_else(|failure| panic!("the body is refused: {failure:?}"));
        // Where requests come from otherwise, one is drawn each time too.
        let id = self
            .ids
            .next_id()
            .unwrap_or_else(|error| panic!("no random bytes: {error}"));
        self.conversation.give(self.now, id, Request { payload });
        self.reply_to_line();
        let written = self.conversation.outgoing().len();
        self.conversation.sent(self.now, written);
        black_box(self.conversation.next_deadline(None));
        self.conversation.received(self.now, &self.reply);
        for event in self.conversation.take_events() {
            if let ConversationEvent::Answered {
                outcome: Ok(result),
                ..
            } = event
            {
                return result;
            }
        }
        panic!("the request has no result");
    }

    /// What an echo would write: the line with one name changed.
    fn reply_to_line(&mut self) {
        const MEMBER: &[u8] = b"\"payload\":";
        let line = self.conversation.outgoing();
        let at = memchr::memmem::find(line, MEMBER).unwrap_or(0);
        self.reply.clear();
        self.reply.extend_from_slice(&line[..at]);
        self.reply.extend_from_slice(b"\"result\":");
        self.reply.extend_from_slice(&line[at + MEMBER.len()..]);
    }
}
