//! Moves bytes between the pipes of one process and its conversation.
//!
//! Only the owner reads and writes these pipes. It decides nothing: the meaning of bytes, deadlines
//! and trust belong to [`Conversation`]; starting, signalling and reaping belong to the slot.

mod deadlines;
mod gate;
mod reading;
mod settling;
mod source;
mod writing;

use super::alarm::Alarm;
use super::conversation::{Conversation, ConversationConfig, ConversationEvent, Fault, Trust};
use super::ids::RandomIds;
use super::line::{Announcement, ContextMember};
use super::output_log::{ErrorOutput, ProcessLog, StreamLog};
use super::repeats::StartEnd;
use crate::answer::Work;
use crate::budget::MemoryBudget;
use crate::logging::listed;
use crate::threads::mailbox::deliver_here;
use gate::Gate;
use reading::{READ_BYTES, ReadTurn};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::unix::pipe::{Receiver, Sender};
use tracing::{debug, warn};

pub use source::{Load, ProcessObserver, RequestSource};

/// The owner of one process's stdin and stdout.
#[derive(Debug)]
pub struct Owner<S: RequestSource> {
    process: u64,
    pid: u32,
    conversation: Conversation<S::Request>,
    ids: RandomIds,
    /// The id of the next request, if it has been drawn.
    next_id: Option<u64>,
    source: S,
    /// Shared only with the watch for a closed stdin, while [`Owner::serve`] runs.
    stdin: Option<Arc<Sender>>,
    stdout: Option<Receiver>,
    takes_no_more: bool,
    alarm: Alarm,
    gate: Gate,
    log: StreamLog,
    stderr: ErrorOutput,
    scratch: Vec<u8>,
    /// The part of `scratch` that was read and is not handled yet.
    unhandled: Range<usize>,
    /// When stdout was last read, or a deadline checked.
    read_at: Instant,
    /// Bytes of stdout that were handled, all together.
    taken_in: u64,
    /// An answer, or a failure in its place, was delivered.
    has_answered: bool,
    /// A deadline has passed, and is acted upon when `taken_in` has reached this number: the bytes
    /// that were in the pipe then are handled before.
    expires_when_taken_in: Option<u64>,
}

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// Takes over the pipes of process `pid`, which has this log and was just started.
    /// Must be called within a runtime.
    pub fn new(
        log: ProcessLog,
        pid: u32,
        stdin: Sender,
        stdout: Receiver,
        limits: ConversationConfig,
        budget: MemoryBudget,
        source: S,
    ) -> Owner<S> {
        let now = Instant::now();
        Owner {
            process: log.stdout.process(),
            pid,
            conversation: Conversation::new(limits, now),
            ids: RandomIds::new(),
            next_id: None,
            source,
            stdin: Some(Arc::new(stdin)),
            stdout: Some(stdout),
            takes_no_more: false,
            alarm: Alarm::new(),
            gate: Gate::new(budget),
            log: log.stdout,
            stderr: log.stderr,
            scratch: vec![0; READ_BYTES],
            unhandled: 0..0,
            read_at: now,
            taken_in: 0,
            has_answered: false,
            expires_when_taken_in: None,
        }
    }

    /// Serves requests until the process may be given no more; returns the reason.
    // Cancel-safe: all progress lives in self.
    pub async fn serve(&mut self) -> Fault {
        let stdin = self.stdin.clone();
        let mut input_closed = pin!(async move {
            match stdin {
                Some(stdin) => stdin.ready(Interest::ERROR).await.map(drop),
                None => pending().await,
            }
        });
        poll_fn(|cx| {
            self.poll_move(cx);
            let is_trusted = *self.conversation.trust() == Trust::Sound;
            if is_trusted && input_closed.as_mut().poll(cx).is_ready() {
                self.conversation.input_closed(self.unread_bytes());
                self.source.leave();
            }
            match *self.conversation.trust() {
                Trust::Sound => Poll::Pending,
                Trust::Finishing(fault) | Trust::Condemned(fault) => Poll::Ready(fault),
            }
        })
        .await
    }

    /// Serves the requests that the process still has, until it has none or is condemned.
    // Cancel-safe: all progress lives in self.
    pub async fn finish(&mut self) {
        poll_fn(|cx| {
            self.poll_move(cx);
            let is_condemned = matches!(self.conversation.trust(), Trust::Condemned(_));
            let is_done = self.conversation.in_flight() == 0;
            if is_condemned || is_done {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Moves bytes and answers as long as it is polled; never ends.
    // Cancel-safe: all progress lives in self.
    pub async fn keep_reading(&mut self) -> Infallible {
        poll_fn(|cx| {
            self.poll_move(cx);
            Poll::Pending
        })
        .await
    }

    /// The source of the requests.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The source of the requests.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// From now on the process is given no request; its stdin is closed when all lines are written.
    pub fn end_input(&mut self) {
        self.takes_no_more = true;
        self.source.leave();
        self.close_stdin_when_written();
    }

    /// Closes the stdin of the process immediately; lines that are not written are dropped.
    pub fn close_stdin(&mut self) {
        self.takes_no_more = true;
        self.source.leave();
        self.stdin = None;
    }

    /// Bytes in the stdin of the process that it has not read.
    pub fn unread_bytes(&self) -> u64 {
        let unread = self.stdin.as_ref().map(rustix::io::ioctl_fionread);
        unread.and_then(Result::ok).unwrap_or(0)
    }

    /// True while the process has a request without a reply.
    pub fn is_busy(&self) -> bool {
        self.conversation.in_flight() > 0
    }

    /// True when the process may have worked on requests of several callers at the same time.
    pub fn is_shared(&self) -> bool {
        self.conversation.is_shared()
    }

    /// True while a caller waits for an answer from this process.
    pub fn is_awaited(&self) -> bool {
        self.conversation.is_awaited()
    }

    /// True when the process has answered at least one request.
    pub fn has_replied(&self) -> bool {
        self.conversation.has_replied()
    }

    /// The process has ended: reads and logs the rest of its stderr; returns how many failed starts
    /// in a row before printed the same.
    pub fn finish_stderr(&mut self, end: StartEnd) -> u64 {
        let request = self.conversation.only_request();
        self.stderr.finish(end, &request)
    }

    /// The last line on stderr since the process could start on its oldest request, or of all if it
    /// has none.
    pub fn last_stderr_line(&self) -> &str {
        // Output of earlier requests says nothing about this one.
        self.stderr.last_line(self.conversation.working_since())
    }

    fn poll_move(&mut self, cx: &mut Context<'_>) {
        deliver_here();
        self.stderr.poll(cx, || self.conversation.only_request());
        if let Some(at) = self.stderr.last_read() {
            self.source.wrote_stderr(at);
        }
        let turn = self.poll_read(cx);
        self.handle_events();
        self.check_deadlines(cx);
        self.take_requests(cx);
        self.poll_write(cx);
        self.gate.count(self.conversation.buffered_bytes());
        self.close_stdin_when_written();
        self.source.send_answers();
        self.set_alarm(cx);
        if turn == ReadTurn::Unfinished {
            cx.waker().wake_by_ref();
        }
    }

    /// Delivers answers and logs lines; returns how many events there were.
    fn handle_events(&mut self) -> usize {
        let events = self.conversation.take_events();
        let count = events.len();
        for event in events {
            match event {
                ConversationEvent::Answered {
                    ticket,
                    outcome,
                    began,
                } => {
                    let work = Work {
                        process: self.process,
                        began,
                        ended: self.read_at,
                        is_first: !std::mem::replace(&mut self.has_answered, true),
                    };
                    self.source.answer(ticket, outcome, work);
                }
                ConversationEvent::CameUp { shown_after } => self.source.came_up(shown_after),
                ConversationEvent::Unanswered => self.source.went_unanswered(),
                ConversationEvent::Ready(announcement) => {
                    let at_once = self.conversation.requests_at_once();
                    self.source.announced(at_once);
                    self.source.sent_ready_line(&announcement);
                    self.log_ready(&announcement);
                }
                ConversationEvent::Stray {
                    text,
                    request,
                    is_cut,
                } => {
                    let now = Instant::now();
                    self.source.wrote_stray_line(&text);
                    match is_cut {
                        true => self.log.write_cut(now, &text, request.as_ref()),
                        false => self.log.write(now, &text, request.as_ref()),
                    }
                }
                ConversationEvent::StraysLeftOut(count) => self.log.leave_out(count),
                ConversationEvent::ReadyTooLate => {
                    let process = self.process;
                    self.source.sent_ready_line_late();
                    warn!(
                        process,
                        "a ready line counts only as the first line on stdout, and this one came later"
                    );
                }
                ConversationEvent::ErrorBesideResult => {
                    let process = self.process;
                    warn!(
                        process,
                        "a reply has both error and result; the error counts"
                    );
                }
            }
        }
        count
    }

    fn log_ready(&mut self, announcement: &Announcement) {
        let process = self.process;
        let concurrency = announcement.concurrency;
        let context = listed(announcement.context.iter().map(ContextMember::name));
        debug!(process, concurrency, context, "process sent its ready line");
        if let Some(complaint) = &announcement.complaint {
            self.log.complain_of_ready_line(Instant::now(), complaint);
        }
    }
}

#[cfg(test)]
mod tests;
