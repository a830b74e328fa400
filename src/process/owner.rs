//! The thin part that moves bytes between the pipes of one process and its conversation.
//!
//! Nobody else reads or writes these pipes. The owner decides nothing: what the bytes mean, which
//! request is over its time and when the process cannot be trusted is up to
//! [`Conversation`]; starting, signalling and reaping is up to the slot.

mod gate;

use super::call::Call;
use super::conversation::{
    Conversation, ConversationConfig, Event, Fault, PipeHolders, Position, Trust,
};
use super::ids::RandomIds;
use super::line::{Announcement, ContextMember};
use super::output_log::StreamLog;
use crate::budget::MemoryBudget;
use crate::cause::Cause;
use crate::error::Failure;
use crate::logging::listed;
use crate::procfs::{activity, is_stopped};
use gate::Gate;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::yield_now;
use tokio::time::{Sleep, timeout};
use tracing::{debug, warn};

/// Most that is read at once; a Linux pipe holds this much.
const READ_BYTES: usize = 64 * 1024;

/// Reads in a row before others on the thread have their turn.
const READS_IN_A_ROW: usize = 16;

/// Part of a read that is handled at once: so many empty lines take less than [`TURN_LASTS`].
const PIECE_BYTES: usize = 16 * 1024;

/// Longest that what is there is read before others on the thread have their turn.
const TURN_LASTS: Duration = Duration::from_millis(1);

/// Most that is read of a dead process's stdout. A pipe holds 64 KiB by default and 1 MiB at most,
/// unless root has made it larger.
const REST_BYTES: u64 = 4 * 1024 * 1024;

/// Most that is read back of a dead process's stdin, in bytes: a pipe holds an eighth of it, unless
/// the process has made it larger.
const MOST_UNREAD: usize = 512 * 1024;

/// How long processes that were killed may take to be gone. Only those that have left the group,
/// and live on, take all of it.
const KILLED_END_WITHIN: Duration = Duration::from_millis(20);

/// Reads before a request is given to a process whose silence matters.
const READS_BEFORE_GIVING: usize = 2;

/// Lines in one read that are enough for one turn.
const MANY_LINES: usize = 200;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Nothing,
    Some,
    /// So many lines that others on the thread have their turn first.
    Much,
}

/// Where a process's requests come from.
pub trait RequestSource {
    /// A call, with all that the source must know of it if [`Owner::settle`] gives it back.
    type Request: std::borrow::Borrow<Call> + Into<Call>;

    /// The next request for this process, or a promise to wake it when there is one.
    fn poll_take(&mut self, cx: &mut Context<'_>, load: Load) -> Poll<Self::Request>;
    /// Whether the requests for a process with this much room are better left in the queue for a
    /// moment, because more are coming that can be written together with them. The process is woken
    /// after that moment.
    fn waits_for_more(&mut self, cx: &mut Context<'_>, room: usize) -> bool;
    /// The process takes no request now, though it may have been woken for one.
    fn give_up_turn(&mut self);
    /// The process takes no request any more.
    fn leave(&mut self);
}

/// Is told how a process does.
pub trait ProcessObserver {
    /// The process is up; `shown_after` is its age if it has shown so by a line of its own.
    fn came_up(&mut self, shown_after: Option<Duration>);
    /// The process has had its time for a request, and has never answered any.
    fn went_unanswered(&mut self);
    /// The process has sent a ready line.
    fn announced(&mut self);
    /// The slowest start of a process so far.
    fn slowest_start(&self) -> Option<Duration>;
}

/// How busy a process is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests that it has and has not answered.
    pub in_flight: usize,
    /// Whether it has ever answered one.
    pub has_replied: bool,
    /// When it last answered one.
    pub last_replied: Option<Instant>,
    /// When it would start on one more.
    pub position: Position,
}

/// The owner of one process's stdin and stdout.
#[derive(Debug)]
pub struct Owner<S: RequestSource> {
    process: u64,
    pid: u32,
    conversation: Conversation<S::Request>,
    ids: RandomIds,
    /// Drawn for the next request.
    next_id: Option<u64>,
    source: S,
    /// Shared only with the watch for its other end being closed, while [`Owner::serve`] runs.
    stdin: Option<Arc<Sender>>,
    stdout: Option<Receiver>,
    is_retired: bool,
    alarm: Alarm,
    gate: Gate,
    log: StreamLog,
    scratch: Vec<u8>,
    /// Where in `scratch` there is what was read, and not yet handled.
    pending: Range<usize>,
    /// All bytes of stdout that were handled.
    taken_in: u64,
    /// A deadline has passed, and is acted upon when so many bytes are handled.
    expires_behind: Option<u64>,
}

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// Takes over the pipes of process `pid`, whose stdout has this log and which was just started.
    /// Must be called within a runtime.
    pub fn new(
        log: StreamLog,
        pid: u32,
        stdin: Sender,
        stdout: Receiver,
        limits: ConversationConfig,
        budget: MemoryBudget,
        source: S,
    ) -> Owner<S> {
        let now = Instant::now();
        Owner {
            process: log.process(),
            pid,
            conversation: Conversation::new(limits, now),
            ids: RandomIds::new(),
            next_id: None,
            source,
            stdin: Some(Arc::new(stdin)),
            stdout: Some(stdout),
            is_retired: false,
            alarm: Alarm {
                sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
                set_to: None,
            },
            gate: Gate::new(budget),
            log,
            scratch: vec![0; READ_BYTES],
            pending: 0..0,
            taken_in: 0,
            expires_behind: None,
        }
    }

    /// Serves requests until the process may be given no more; then says why.
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
            let is_sound = *self.conversation.trust() == Trust::Sound;
            if is_sound && input_closed.as_mut().poll(cx).is_ready() {
                let unread = self.stdin.as_ref().map(rustix::io::ioctl_fionread);
                self.conversation
                    .input_closed(unread.and_then(Result::ok).unwrap_or(0));
                self.source.leave();
            }
            match *self.conversation.trust() {
                Trust::Sound => Poll::Pending,
                Trust::Finishing(fault) | Trust::Condemned(fault) => Poll::Ready(fault),
            }
        })
        .await
    }

    /// Serves what the process still has; ends when it has nothing more, or is condemned.
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

    /// Where the requests come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Where the requests come from.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// From now on the process is given nothing; its stdin is closed when all is written.
    pub fn retire(&mut self) {
        self.is_retired = true;
        self.source.leave();
        self.close_stdin_when_written();
    }

    /// Closes the stdin of the process, whatever is still to be written.
    pub fn close_stdin(&mut self) {
        self.is_retired = true;
        self.source.leave();
        self.stdin = None;
    }

    /// True while the process has a request that it has not answered.
    pub fn is_busy(&self) -> bool {
        self.conversation.in_flight() > 0
    }

    /// True when the process may have worked on requests of several callers at once.
    pub fn is_shared(&self) -> bool {
        self.conversation.is_shared()
    }

    /// When the process could start on the oldest request that it has.
    pub fn working_since(&self) -> Option<Instant> {
        self.conversation.working_since()
    }

    /// True while somebody waits for an answer from this process.
    pub fn is_awaited(&self) -> bool {
        self.conversation.is_awaited()
    }

    /// True when the process has answered at least one request.
    pub fn has_replied(&self) -> bool {
        self.conversation.has_replied()
    }

    /// Reads and delivers what is there for as long as a turn lasts; true if that was all.
    pub fn read_a_turn(&mut self) -> bool {
        let end = Instant::now() + TURN_LASTS;
        while self.read_now() != Received::Nothing {
            if Instant::now() >= end {
                return false;
            }
        }
        true
    }

    /// The process has been reaped. Delivers the answers that are still in its stdout, fails what
    /// it may have started with `cause`, and gives back what it never started.
    // Not cancel-safe: what was taken back is lost with it.
    pub async fn settle(&mut self, cause: &Cause) -> Vec<S::Request> {
        self.source.leave();
        // First, before somebody who has left the group reads more of it.
        let unread = self.take_back_unread();
        self.read_rest().await;
        if self.conversation.is_ahead() {
            self.wait_for_end_of_stdout().await;
        }
        let left = self.conversation.progress_at_end();
        let cause = &cause.clone().map(|cause| format!("{cause}{left}"));
        let holders = match &self.stdout {
            Some(_) => PipeHolders::Some,
            None => PipeHolders::None,
        };
        let mut never_started = Vec::new();
        for (request, is_untouched) in self.conversation.end(&unread, holders) {
            if is_untouched {
                never_started.push(request);
            } else {
                request.into().answer(Err(Failure::Exited(cause.clone())));
            }
        }
        never_started
    }

    /// Reads what is there, a turn at a time, and no more than pipes hold: a descendant may go on
    /// writing.
    async fn read_rest(&mut self) {
        let most = self.taken_in + REST_BYTES;
        while !self.read_a_turn() && self.taken_in < most {
            yield_now().await;
        }
    }

    /// Waits until nobody holds the pipe any more: the others of its group were killed just now,
    /// and end within a moment.
    async fn wait_for_end_of_stdout(&mut self) {
        let ended = poll_fn(|cx| {
            if self.poll_read(cx) {
                cx.waker().wake_by_ref();
            }
            match &self.stdout {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            }
        });
        // Cancel-safe: all progress lives in self. Who still holds it then is taken for working.
        let _ = timeout(KILLED_END_WITHIN, ended).await;
        self.handle_events();
    }

    fn poll_move(&mut self, cx: &mut Context<'_>) {
        let is_more = self.poll_read(cx);
        self.handle_events();
        self.check_deadlines(cx);
        self.take_requests(cx);
        self.poll_write(cx);
        self.gate.count(self.conversation.buffered_bytes());
        self.close_stdin_when_written();
        self.set_alarm(cx);
        if is_more {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads what is there; true if there may be more after many reads.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.pending.is_empty() && self.take_in() == Received::Much {
            return true;
        }
        for _ in 0..READS_IN_A_ROW {
            if !self.gate.may_read(cx, self.conversation.partial_bytes()) {
                return false;
            }
            let Some(stdout) = &mut self.stdout else {
                return false;
            };
            let mut buffer = ReadBuf::new(&mut self.scratch);
            let Poll::Ready(read) = Pin::new(stdout).poll_read(cx, &mut buffer) else {
                return false;
            };
            let length = buffer.filled().len();
            if self.received(read.map(|()| length)) == Received::Much {
                return true;
            }
        }
        true
    }

    /// Reads once, whatever the runtime knows of the pipe.
    fn read_now(&mut self) -> Received {
        if !self.pending.is_empty() {
            return self.take_in();
        }
        let Some(stdout) = &self.stdout else {
            return Received::Nothing;
        };
        let read = rustix::io::read(stdout, &mut self.scratch);
        self.received(read.map_err(io::Error::from))
    }

    /// Handles what a read brought, so that no more than that is ever held.
    fn received(&mut self, read: io::Result<usize>) -> Received {
        match read {
            Ok(length) if length > 0 => {
                self.pending = 0..length;
                self.take_in()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Some,
            Ok(_) | Err(_) => {
                self.stdout = None;
                self.conversation.output_closed();
                self.handle_events();
                Received::Nothing
            }
        }
    }

    /// Handles what was read, a piece at a time, until that was too many lines for one turn.
    fn take_in(&mut self) -> Received {
        let now = Instant::now();
        let mut received = Received::Nothing;
        while !self.pending.is_empty() {
            let begin = self.pending.start;
            let end = self.pending.end.min(begin + PIECE_BYTES);
            self.conversation.received(now, &self.scratch[begin..end]);
            self.pending.start = end;
            self.taken_in += (end - begin) as u64;
            self.gate.count(self.conversation.buffered_bytes());
            if self.handle_events() > MANY_LINES {
                return Received::Much;
            }
            received = Received::Some;
        }
        received
    }

    /// Delivers answers and logs lines; says how many there were.
    fn handle_events(&mut self) -> usize {
        let events = self.conversation.take_events();
        let count = events.len();
        for event in events {
            match event {
                Event::Answered(request, outcome) => request.into().answer(outcome),
                Event::CameUp { shown_after } => self.source.came_up(shown_after),
                Event::Unanswered => self.source.went_unanswered(),
                Event::Ready(announcement) => {
                    self.source.announced();
                    self.log_ready(&announcement);
                }
                Event::Stray {
                    text,
                    request,
                    is_cut,
                } => {
                    self.log.write(Instant::now(), &text, request, is_cut);
                }
                Event::StraysLeftOut(count) => self.log.leave_out(count),
                Event::ReadyTooLate => {
                    let process = self.process;
                    warn!(
                        process,
                        "a ready line counts only as the first line on stdout, and this one came later"
                    );
                }
                Event::ErrorBesideResult => {
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

    fn check_deadlines(&mut self, cx: &mut Context<'_>) {
        let slowest_start = self.source.slowest_start();
        let now = Instant::now();
        if self
            .conversation
            .next_deadline(slowest_start)
            .is_none_or(|deadline| deadline > now)
        {
            self.expires_behind = None;
            return;
        }
        // An answer that is there wins over the deadline, however late this thread looks. What is
        // written after that look does not put the deadline off.
        let there = self.pending.len() as u64 + self.bytes_in_stdout();
        let target = *self.expires_behind.get_or_insert(self.taken_in + there);
        if !self.read_a_turn() && self.taken_in < target {
            cx.waker().wake_by_ref();
            return;
        }
        self.expires_behind = None;
        if !self.conversation.must_look_at_process(now) {
            self.conversation.record_stopped(is_stopped(self.pid));
        }
        self.conversation.expire(now, slowest_start);
        if self.conversation.must_look_at_process(now) {
            let activity = activity(self.pid);
            self.conversation.record_activity(now, activity);
        }
        self.handle_events();
    }

    fn bytes_in_stdout(&self) -> u64 {
        let stdout = self.stdout.as_ref();
        let bytes = stdout.map(rustix::io::ioctl_fionread);
        bytes.and_then(Result::ok).unwrap_or(0)
    }

    fn take_requests(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let room = self.conversation.room(now);
        if !self.is_retired && room > 1 && self.source.waits_for_more(cx, room) {
            return;
        }
        while !self.is_retired && self.conversation.room(now) > 0 {
            if self.conversation.must_look_before_giving() && !self.has_nothing_to_read() {
                // What is left is read first, in a turn of its own.
                cx.waker().wake_by_ref();
                break;
            }
            if self.conversation.room(now) == 0 {
                break;
            }
            let Some(id) = self.draw_id() else { break };
            let load = Load {
                in_flight: self.conversation.in_flight(),
                has_replied: self.conversation.has_replied(),
                last_replied: self.conversation.last_replied(),
                position: self.conversation.next_position(),
            };
            let Poll::Ready(call) = self.source.poll_take(cx, load) else {
                return;
            };
            self.next_id = None;
            self.conversation.give(now, id, call);
        }
        if *self.conversation.trust() == Trust::Sound {
            self.source.give_up_turn();
        } else {
            self.source.leave();
        }
    }

    /// The id of the next request. Without random bytes there is none, and requests go to others or
    /// wait: an id that can be guessed would be worse.
    fn draw_id(&mut self) -> Option<u64> {
        while self.next_id.is_none() {
            match self.ids.next_id() {
                Ok(id) => self.next_id = Some(id).filter(|id| self.conversation.is_free(*id)),
                Err(error) => {
                    let process = self.process;
                    warn!(process, %error, "the system gives no random bytes for ids");
                    return None;
                }
            }
        }
        self.next_id
    }

    /// Looks at what is there, up to a few reads.
    fn has_nothing_to_read(&mut self) -> bool {
        for _ in 0..READS_BEFORE_GIVING {
            match self.read_now() {
                Received::Nothing => return true,
                Received::Some => {}
                Received::Much => return false,
            }
        }
        false
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while !self.conversation.outgoing().is_empty() {
            let Some(stdin) = &self.stdin else { return };
            if stdin.poll_write_ready(cx).is_pending() {
                return;
            }
            match stdin.try_write(self.conversation.outgoing()) {
                Ok(written) => self.conversation.sent(Instant::now(), written),
                // The readiness is forgotten with it: the next look waits for the pipe.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.conversation.input_closed(0),
            }
        }
    }

    fn close_stdin_when_written(&mut self) {
        if self.is_retired && self.conversation.outgoing().is_empty() {
            self.stdin = None;
        }
    }

    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let deadline = self.conversation.next_deadline(self.source.slowest_start());
        let Some(deadline) = deadline else { return };
        self.alarm.poll(cx, deadline);
    }

    /// Takes back what the process has not read. Read back rather than counted (FIONREAD): what is
    /// taken out here, no descendant that still holds the pipe can read any more. A pipe that never
    /// gets empty is filled by somebody else, and says nothing.
    fn take_back_unread(&mut self) -> Vec<u8> {
        let mut unread = Vec::new();
        let Some(stdin) = self.stdin.take() else {
            return unread;
        };
        let path = format!("/proc/self/fd/{}", stdin.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(reader) = rustix::fs::open(path, flags, Mode::empty()) else {
            return unread;
        };
        while unread.len() <= MOST_UNREAD {
            let length = unread.len();
            unread.resize(length + READ_BYTES, 0);
            let read = rustix::io::read(&reader, &mut unread[length..]);
            unread.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(1..) | Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return unread,
            }
        }
        Vec::new()
    }
}

/// A timer that is only set anew when it must ring earlier; ringing early costs one look.
#[derive(Debug)]
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set_to: Option<Instant>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) {
        loop {
            if self.set_to.is_none_or(|set_to| deadline < set_to) {
                self.sleep.as_mut().reset(deadline.into());
                self.set_to = Some(deadline);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.set_to = None;
            if deadline <= Instant::now() {
                cx.waker().wake_by_ref();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
