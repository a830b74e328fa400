//! Source of the requests of one checked process, and record of what the process wrote.

use crate::answer::{Answer, Outcome, Work};
use crate::process::call::Call;
use crate::process::line::Announcement;
use crate::process::owner::{Load, ProcessObserver, RequestSource};
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Most bytes of stdout that are recorded of one exchange.
pub(super) const RECORDED_BYTES: usize = 256 * 1024;

/// Most stray lines that are recorded of one process.
const RECORDED_LINES: usize = 8;

/// A request, with its number among the requests of its process.
#[derive(Debug)]
pub(super) struct Asked {
    call: Call,
    number: usize,
}

impl Borrow<Call> for Asked {
    fn borrow(&self) -> &Call {
        &self.call
    }
}

impl From<Asked> for Call {
    fn from(asked: Asked) -> Call {
        asked.call
    }
}

/// Source of the requests of one checked process, and record of what the process wrote.
#[derive(Debug)]
pub(super) struct Desk {
    started: Instant,
    waiting: VecDeque<Asked>,
    answers: Vec<Answer>,
    asked: usize,
    in_flight: usize,
    record: Record,
}

/// Output of one process, and its times.
#[derive(Debug, Default, Clone)]
pub(super) struct Record {
    /// The bytes of stdout since the last [`Desk::begin_exchange`], as many as are recorded.
    pub(super) output: Vec<u8>,
    /// Bytes of stdout in the life of the process.
    pub(super) output_bytes: u64,
    /// The first stray lines.
    pub(super) stray_lines: Vec<Vec<u8>>,
    /// Stray lines in the life of the process.
    pub(super) strays: u64,
    /// The numbers of requests in the order of their answers, since the last exchange began.
    pub(super) order: Vec<usize>,
    /// Most requests that the process had at one time, since the last exchange began.
    pub(super) most_at_once: usize,
    /// The id of the request that was written last.
    pub(super) last_id: Option<u64>,
    /// The ready line, and how long after its start the process sent it.
    pub(super) ready: Option<(Duration, Announcement)>,
    /// A ready line came behind another line.
    pub(super) was_ready_late: bool,
    /// How long after its start the process answered for the first time, or sent its ready line.
    pub(super) up_after: Option<Duration>,
    /// Requests that the process may work on at the same time, as it announced; 1 without an
    /// announcement.
    pub(super) at_once: usize,
    /// The process has promised to keep order.
    pub(super) promises_order: bool,
}

impl Desk {
    /// The desk of a process that was started now.
    pub(super) fn new() -> Desk {
        Desk {
            started: Instant::now(),
            waiting: VecDeque::new(),
            answers: Vec::new(),
            asked: 0,
            in_flight: 0,
            record: Record {
                at_once: 1,
                ..Record::default()
            },
        }
    }

    /// The output of the process.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Forgets the output so far.
    pub(super) fn begin_exchange(&mut self) {
        self.record.output.clear();
        self.record.order.clear();
        self.record.most_at_once = 0;
    }

    /// Adds a request for the process.
    pub(super) fn add(&mut self, call: Call) {
        let number = self.asked;
        self.asked += 1;
        self.waiting.push_back(Asked { call, number });
    }

    /// Counts and forgets the stray lines so far.
    pub(super) fn take_strays(&mut self) -> (u64, Vec<Vec<u8>>) {
        let lines = std::mem::take(&mut self.record.stray_lines);
        (std::mem::take(&mut self.record.strays), lines)
    }

    /// True when no request waits for the process to take it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops the requests that the process has not taken.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl RequestSource for Desk {
    type Request = Asked;

    fn poll_take(&mut self, _: &mut Context<'_>, _: Load) -> Poll<Asked> {
        // Requests are added between two polls of the owner only, so there is no waker to keep.
        let taken = self.waiting.pop_front();
        self.in_flight += usize::from(taken.is_some());
        self.record.most_at_once = self.record.most_at_once.max(self.in_flight);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    fn waits_for_more(&mut self, _: &mut Context<'_>, _: usize) -> bool {
        false
    }

    fn answer(&mut self, request: Asked, outcome: Outcome, work: Work) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.record.order.push(request.number);
        self.answers
            .push(request.call.into_answer(outcome, Some(work)));
    }

    fn send_answers(&mut self) {
        self.answers.drain(..).for_each(Answer::deliver);
    }

    fn pass_on_wake_up(&mut self) {}

    fn leave(&mut self) {}

    fn gave_id(&mut self, id: u64) {
        self.record.last_id = Some(id);
    }
}

impl ProcessObserver for Desk {
    fn came_up(&mut self, shown_after: Option<Duration>) {
        if shown_after.is_some() {
            self.record
                .up_after
                .get_or_insert_with(|| self.started.elapsed());
        }
    }

    fn went_unanswered(&mut self) {}

    fn announced(&mut self, at_once: usize) {
        self.record.at_once = at_once;
    }

    fn wrote_stderr(&mut self, _: Instant) {}

    fn wrote_stdout(&mut self, bytes: &[u8]) {
        self.record.output_bytes += bytes.len() as u64;
        let room = RECORDED_BYTES - self.record.output.len();
        let recorded = &bytes[..bytes.len().min(room)];
        self.record.output.extend_from_slice(recorded);
    }

    fn wrote_stray_line(&mut self, line: &[u8]) {
        self.record.strays += 1;
        if self.record.stray_lines.len() < RECORDED_LINES {
            self.record.stray_lines.push(line.to_vec());
        }
    }

    fn sent_ready_line(&mut self, announcement: &Announcement) {
        self.record.promises_order = announcement.concurrency == Some(1);
        self.record.ready = Some((self.started.elapsed(), announcement.clone()));
    }

    fn sent_ready_line_late(&mut self) {
        self.record.was_ready_late = true;
    }

    fn slowest_start(&self) -> Option<Duration> {
        None
    }
}
