//! Source of a process's requests, and observer of the process.

use crate::answer::{Outcome, Work};
use crate::process::call::Call;
use crate::process::conversation::Position;
use crate::process::line::Announcement;
use std::borrow::Borrow;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Source of the requests of one process.
pub trait RequestSource {
    /// A call, with all that the source must know of it if the owner gives it back unstarted.
    type Request: Borrow<Call> + Into<Call>;

    /// The next request for this process. Without one, the process is woken when there is one.
    fn poll_take(&mut self, cx: &mut Context<'_>, load: Load) -> Poll<Self::Request>;
    /// Whether to leave waiting requests for a moment, because more are coming that can be written
    /// together with them to a process that may be given this many. The process is woken after that
    /// moment.
    fn waits_for_more(&mut self, cx: &mut Context<'_>, free_capacity: usize) -> bool;
    /// Keeps the answer to a request of this source until [`RequestSource::send_answers`].
    fn answer(&mut self, request: Self::Request, outcome: Outcome, work: Work);
    /// Sends the answers that were kept. Called once at the end of each turn, after requests were
    /// taken: a caller that has its answer finds the process idle, or with its next request.
    fn send_answers(&mut self);
    /// The process takes no request now. If it was woken for one, another process is woken instead.
    fn pass_on_wake_up(&mut self);
    /// The process takes no request any more.
    fn leave(&mut self);
    /// The request that was taken last has this id in its line.
    fn gave_id(&mut self, _id: u64) {}
}

/// Observer of the life of one process.
pub trait ProcessObserver {
    /// The process is up. `shown_after` is how long it took to show life by a line: a ready line
    /// since its start, a reply since it could start on the request. `None`: it is up by its age
    /// alone.
    fn came_up(&mut self, shown_after: Option<Duration>);
    /// The process has had its time for a request, and has sent neither a ready line nor a reply.
    fn went_unanswered(&mut self);
    /// The process has sent a ready line, and may work on this many requests at the same time.
    fn announced(&mut self, at_once: usize);
    /// The process has written to stderr, the last time at this moment.
    fn wrote_stderr(&mut self, at: Instant);
    /// The process has written these bytes to stdout.
    fn wrote_stdout(&mut self, _bytes: &[u8]) {}
    /// The process has written a line to stdout that is no reply; cut to the limit of a log line.
    fn wrote_stray_line(&mut self, _line: &[u8]) {}
    /// The process has sent its ready line.
    fn sent_ready_line(&mut self, _announcement: &Announcement) {}
    /// The process has sent a ready line behind another line; it announces nothing.
    fn sent_ready_line_late(&mut self) {}
    /// The slowest start of a process so far.
    fn slowest_start(&self) -> Option<Duration>;
}

/// How busy a process is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests without a reply.
    pub in_flight: usize,
    /// Requests that the process may be given now.
    pub free_capacity: usize,
    /// Requests of these that the process would start on immediately.
    pub immediate_capacity: usize,
    /// The process has answered a request.
    pub has_replied: bool,
    /// When the process last answered a request.
    pub last_replied: Option<Instant>,
    /// When the process would start on one more request.
    pub position: Position,
}

impl Load {
    /// The load with one request more.
    #[must_use]
    pub fn with_another(self) -> Load {
        Load {
            in_flight: self.in_flight + 1,
            free_capacity: self.free_capacity.saturating_sub(1),
            immediate_capacity: self.immediate_capacity.saturating_sub(1),
            ..self
        }
    }
}
