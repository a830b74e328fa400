//! Joins the parts of a run: lines go in, replies come out.

use super::end::BatchEnd;
use super::halt::{Halted, halted};
use super::input::{Batch, Input};
use super::job_log::JobLogLine;
use super::output::{Lines, Output, SYNC_PERIOD, is_too_late};
use super::payload::InputLine;
use super::progress::{ItemCounts, Progress};
use super::reply::ReplyForm;
use super::retry::Patience;
use super::size::WindowSize;
use super::window::{Done, Window};
use crate::budget::MemoryBudget;
use crate::config::map::MapConfig;
use crate::error::RequestFailure;
use crate::logging::timestamp::seconds_since_1970;
use crate::pool::Pool;
use crate::shutdown::{Shutdown, Stage};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};

/// Bytes of replies and log beyond which no further item is looked at before they are written.
const MOST_UNWRITTEN: usize = 256 * 1024;

/// Time until a signal that ended a process has reached the worker, if it was sent to both.
const SIGNALS_COME_WITHIN: Duration = Duration::from_millis(200);

/// Time until progress is shown of a run in which no item has ended.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(2);

/// A run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    config: &'a MapConfig,
    form: ReplyForm,
    output: mpsc::Sender<Lines>,
    pub(super) progress: Progress,
    pub(super) counts: ItemCounts,
    /// Lines that were read and not given to the pool yet.
    pub(super) read_lines: VecDeque<InputLine>,
    /// Items without an end when the run ended.
    pub(super) unfinished: usize,
    /// Bytes of the output, written or not.
    pub(super) offset: u64,
    unwritten: Lines,
    is_unsynced: bool,
    /// Whether further lines are read.
    reads_on: bool,
    is_halted: bool,
    has_stopped_reading: bool,
    /// The reply of an item is missing, so that in order no later reply can be written.
    has_gap: bool,
    size: WindowSize,
    /// Why the input ended before its end.
    input_fault: Option<String>,
    /// Bytes of the input up to the last item that has ended.
    position: u64,
    /// Bytes of the input up to the first item.
    begun_at: u64,
    drawn: Instant,
    began: Instant,
    /// `began` in seconds since 1970.
    began_1970: f64,
}

impl<'a> Run<'a> {
    pub(super) fn new(config: &'a MapConfig, output: &Output, progress: Progress) -> Run<'a> {
        Run {
            config,
            form: ReplyForm::new(config),
            output: output.lines.clone(),
            progress,
            counts: ItemCounts::default(),
            read_lines: VecDeque::new(),
            unfinished: 0,
            offset: 0,
            unwritten: Lines::default(),
            is_unsynced: false,
            reads_on: true,
            is_halted: false,
            has_stopped_reading: false,
            has_gap: false,
            size: WindowSize::new(
                config.window.map(NonZeroUsize::get),
                config.least_window.get(),
                config.most_window.get(),
            ),
            input_fault: None,
            position: 0,
            begun_at: 0,
            drawn: Instant::now(),
            began: Instant::now(),
            began_1970: seconds_since_1970(),
        }
    }

    /// Begins behind the lines that runs before have done.
    pub(super) fn begin_at(&mut self, lines: &[InputLine]) {
        let length = |line: &InputLine| line.text.len() as u64 + 1;
        let first = lines
            .first()
            .map(|line| line.position.saturating_sub(length(line)));
        self.begun_at = first.unwrap_or(0);
        self.position = self.begun_at;
    }

    /// Runs until all is done, or no more can be done.
    pub(super) async fn drive(
        &mut self,
        pool: &Pool,
        budget: &MemoryBudget,
        input: &mut Input,
        shutdown: &Shutdown,
    ) -> BatchEnd {
        let patience = Patience::new(self.config.attempts);
        let mut window = Window::new(pool, budget, self.config.unordered, patience);
        let end = self.work(pool, &mut window, input, shutdown).await;
        self.unfinished += window.len() + self.read_lines.len();
        if matches!(end, BatchEnd::HandlerLost(_)) && input.size.is_some() {
            let rest = count(input);
            // Cancel-safe: a signal ends the counting.
            let rest = shutdown.run_until(Stage::Draining, rest).await;
            self.unfinished += rest.unwrap_or(0);
        }
        if end != BatchEnd::Closed && !self.unwritten.is_empty() {
            let lines = std::mem::take(&mut self.unwritten);
            // Cancel-safe: the program ends. The thread that writes tells why it has ended.
            tokio::select! {
                sent = self.output.send(lines) => drop(sent),
                () = is_too_late(shutdown) => {}
            }
        }
        end
    }

    async fn work(
        &mut self,
        pool: &Pool,
        window: &mut Window<'_>,
        input: &mut Input,
        shutdown: &Shutdown,
    ) -> BatchEnd {
        let mut done = Vec::new();
        // A run that is over soon has no bar, which would stand above what another program writes.
        let [mut syncs, mut draws] = [SYNC_PERIOD, self.progress.period()].map(ticks_after);
        let output = self.output.clone();
        loop {
            if let Some(end) = self.begin_items(pool, window, input, shutdown) {
                return end;
            }
            let wants_more = self.reads_on && self.read_lines.is_empty();
            let may_look = self.unwritten.length() < MOST_UNWRITTEN;
            let is_unwritten = !self.unwritten.is_empty();
            // Cancel-safe: items stay in the window, batches in their channels.
            tokio::select! {
                biased;
                polled = poll_fn(|cx| window.poll_done(cx, &mut done)),
                    if window.len() > 0 && may_look =>
                {
                    self.wait_for_signal(&done, shutdown).await;
                    if let Some(end) = self.end_items(&mut done, polled, shutdown) {
                        return end;
                    }
                }
                permit = output.reserve(), if is_unwritten => match permit {
                    Ok(permit) => {
                        permit.send(std::mem::take(&mut self.unwritten));
                        self.is_unsynced = true;
                    }
                    Err(_) => return BatchEnd::Closed,
                },
                batch = input.batches.recv(), if wants_more => match batch {
                    Some(batch) => self.receive(batch),
                    None => self.reads_on = false,
                },
                () = shutdown.reached(Stage::Draining), if self.reads_on => {}
                () = shutdown.reached(Stage::Killing) => return BatchEnd::Killed,
                () = output.closed() => return BatchEnd::Closed,
                _ = syncs.tick(), if self.is_unsynced && self.config.job_log.is_some() => {
                    // If the channel is full, a write is due, and forces the files to the disk.
                    drop(output.try_send(Lines::default()));
                    self.is_unsynced = false;
                }
                _ = draws.tick(), if self.progress.is_shown() => self.draw(),
            }
            if self.progress.is_shown() && self.drawn.elapsed() >= self.progress.period() {
                self.draw();
            }
        }
    }

    /// Gives items to the pool, or none any more; says how the run ends, if it does.
    fn begin_items(
        &mut self,
        pool: &Pool,
        window: &mut Window<'_>,
        input: &mut Input,
        shutdown: &Shutdown,
    ) -> Option<BatchEnd> {
        let end = self.end_before_items(shutdown);
        if end.is_some() {
            return end;
        }
        if self.must_stop_reading(shutdown) {
            self.stop_reading(window);
        }
        let (now, ended) = (Instant::now(), self.counts.ended());
        self.size.look(now, ended, || pool.processes().capacity);
        self.fill(window, input);
        let is_done = window.len() == 0 && self.read_lines.is_empty() && !self.reads_on;
        is_done.then(|| match self.input_fault.take() {
            Some(why) => BatchEnd::Input(why),
            None if self.is_halted => BatchEnd::HaltedSoon,
            None => BatchEnd::Whole,
        })
    }

    /// Why the run ends before its items, if it does.
    fn end_before_items(&self, shutdown: &Shutdown) -> Option<BatchEnd> {
        match shutdown.is_at_least(Stage::Killing) {
            true => Some(BatchEnd::Killed),
            false => self.output.is_closed().then_some(BatchEnd::Closed),
        }
    }

    /// Whether items are to be finished, and none begun.
    fn must_stop_reading(&self, shutdown: &Shutdown) -> bool {
        !self.has_stopped_reading && (self.is_halted || shutdown.is_at_least(Stage::Draining))
    }

    /// Reads no further line, and gives up the items that no process has.
    fn stop_reading(&mut self, window: &mut Window<'_>) {
        self.has_stopped_reading = true;
        self.reads_on = false;
        self.unfinished += self.read_lines.len() + window.withdraw_unstarted();
        self.read_lines.clear();
    }

    /// Gives lines to the pool while there is room.
    fn fill(&mut self, window: &mut Window<'_>, input: &mut Input) {
        loop {
            let has_room = window.len() < self.size.current()
                && (window.len() == 0 || window.bytes() < self.config.window_bytes);
            if !has_room {
                return;
            }
            if self.read_lines.is_empty()
                && self.reads_on
                && let Ok(batch) = input.batches.try_recv()
            {
                self.receive(batch);
            }
            let Some(line) = self.read_lines.pop_front() else {
                return;
            };
            window.push(line);
        }
    }

    fn receive(&mut self, batch: Batch) {
        match batch {
            Ok(lines) => self.read_lines.extend(lines),
            Err(why) => {
                self.input_fault = Some(why);
                self.reads_on = false;
            }
        }
    }

    /// Waits for the signal that has ended the process of an item, if it was for the worker too and
    /// has reached the process first.
    async fn wait_for_signal(&self, done: &[Done], shutdown: &Shutdown) {
        if self.config.job_log.is_some() && done.iter().any(Done::was_told_to_end) {
            let stop = shutdown.reached(Stage::Draining);
            // Cancel-safe: the stage is asked for again.
            drop(timeout(SIGNALS_COME_WITHIN, stop).await);
        }
    }

    /// Writes the replies of items; says how the run ends with them, if it does.
    fn end_items(
        &mut self,
        done: &mut Vec<Done>,
        polled: Result<(), String>,
        shutdown: &Shutdown,
    ) -> Option<BatchEnd> {
        for item in done.drain(..) {
            if self.is_left_over(&item, shutdown) {
                self.unfinished += 1;
            } else if self.end_item(&item) {
                return Some(BatchEnd::HaltedNow);
            }
        }
        polled.err().map(BatchEnd::HandlerLost)
    }

    /// Whether an item is left to the run that resumes this one: a signal has ended the run, and
    /// the
    /// process of the item too, which is no fault of the item. Where replies keep the order of the
    /// input, the items behind it are left, too.
    fn is_left_over(&mut self, done: &Done, shutdown: &Shutdown) -> bool {
        let is_draining = shutdown.is_at_least(Stage::Draining);
        let is_by_signal = is_draining && !self.is_halted && self.config.job_log.is_some();
        let died = matches!(done.outcome, Err(RequestFailure::Exited(_)));
        self.has_gap |= is_by_signal && died && !self.config.unordered;
        is_by_signal && (died || self.has_gap)
    }

    /// Writes the reply of an item; true if the run ends with it.
    fn end_item(&mut self, done: &Done) -> bool {
        let before = self.unwritten.replies.len();
        let told = self
            .form
            .write(&mut self.unwritten.replies, &done.line, &done.outcome);
        if let Some(told) = told {
            self.unwritten.told.extend_from_slice(told.as_bytes());
            self.unwritten.told.push(b'\n');
        }
        let received = self.unwritten.replies.len() - before;
        self.position = self.position.max(done.line.position);
        self.offset += received as u64;
        match &done.outcome {
            Ok(_) => self.counts.well += 1,
            Err(_) => self.counts.failed += 1,
        }
        if self.config.job_log.is_some() {
            self.log(done, received);
        }
        match halted(self.config.halt, self.counts.failed, self.counts.ended()) {
            None => false,
            Some(Halted::Soon) => {
                self.is_halted = true;
                false
            }
            Some(Halted::Now) => true,
        }
    }

    fn log(&mut self, done: &Done, received: usize) {
        let queued = done.times.map_or(Duration::ZERO, |times| times.queued);
        let took = done.times.map_or(Duration::ZERO, |times| times.worked);
        let after = (done.called + queued).saturating_duration_since(self.began);
        let entry = JobLogLine {
            number: done.line.number,
            began: self.began_1970 + after.as_secs_f64(),
            took: took.as_secs_f64(),
            sent: done.line.payload.as_ref().map_or(0, bytes::Bytes::len),
            received,
            outcome: match &done.outcome {
                Ok(_) => "ok",
                Err(failure) => failure.code().as_str(),
            },
            hash: done.line.hash,
            end: self.offset,
        };
        entry.write(&mut self.unwritten.log);
    }

    fn draw(&mut self) {
        // `head` ends a run soon after its first items.
        if self.counts.ended() == 0 && self.began.elapsed() < FIRST_LOOK_WITHIN {
            return;
        }
        self.drawn = Instant::now();
        self.progress.draw(
            self.counts,
            self.begun_at..self.position,
            self.began.elapsed(),
        );
    }
}

/// Ticks with this period, the first one after a period. A late tick puts off the next ones.
fn ticks_after(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Counts the lines that are left in the input.
async fn count(input: &mut Input) -> usize {
    let mut lines = 0;
    while let Some(Ok(batch)) = input.batches.recv().await {
        lines += batch.len();
    }
    lines
}

#[cfg(test)]
mod tests;
