//! Output of handlers on its way into the log: whole blocks, cut lines, a bounded rate.

mod block;
mod error_output;
mod pieces;

use super::call::RequestName;
use crate::logging::write_as_they_are;
use crate::metrics::{HandlerStream, Metrics};
use crate::trace_context::TraceContext;
pub use error_output::ErrorOutput;
use pieces::{Piece, Pieces};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::{info, warn};

/// Bytes that the processes of one slot may log without a pause, all together. A new process
/// begins with the bytes that are left, or a process that floods and dies again and again would log
/// without end.
const BURST_BYTES: u64 = 256 * 1024;

/// Bytes a second that the processes of one slot may log after [`BURST_BYTES`].
const LOG_BYTES_PER_SECOND: u64 = 64 * 1024;

/// Longest line, in bytes; a longer line is cut.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Longest part of a line that an event of the worker quotes, in bytes.
const MAX_QUOTED_BYTES: usize = 512;

/// Logs one stream of one process at a bounded rate, and says how much it left out.
#[derive(Debug)]
pub struct StreamLog {
    process: u64,
    stream: &'static str,
    allowance: LogAllowance,
    left_out: u64,
}

impl StreamLog {
    /// The log of this stream (`stdout`, `stderr`) of this process, within this allowance.
    pub fn new(process: u64, stream: &'static str, allowance: LogAllowance) -> StreamLog {
        StreamLog {
            process,
            stream,
            allowance,
            left_out: 0,
        }
    }

    /// The number by which the log names the process.
    pub fn process(&self) -> u64 {
        self.process
    }

    /// Logs a part of a ready line that was not understood; `complaint` may quote all of the line.
    pub fn complain_of_ready_line(&mut self, now: Instant, complaint: &str) {
        let complaint = quote(complaint);
        if !self.allowance.take(now, complaint.len() as u64 + 64) {
            self.left_out += 1;
            return;
        }
        warn!(
            process = self.process,
            %complaint, "ready line not understood"
        );
    }

    /// Logs a line or a block of lines. Each line that is a JSON object is an event of its own, and
    /// the other lines are kept together.
    pub fn write(&mut self, now: Instant, text: &[u8], request: Option<&RequestName>) {
        // An empty line is told, too.
        let is_blank = text.trim_ascii().is_empty();
        let blank = is_blank.then_some(Piece::Text(text));
        for piece in blank.into_iter().chain(Pieces::of(text)) {
            if !self.may_write(now, piece.length()) {
                return;
            }
            match piece {
                Piece::Object(object) => self.write_object(object, request),
                Piece::Text(text) => self.write_text(&String::from_utf8_lossy(text), request),
            }
        }
    }

    /// Logs the beginning of a line that is longer than its limit.
    pub fn write_cut(&mut self, now: Instant, text: &[u8], request: Option<&RequestName>) {
        if self.may_write(now, text.len()) {
            let text = String::from_utf8_lossy(text);
            self.write_text(&format!("{text}… (cut)"), request);
        }
    }

    fn write_text(&self, text: &str, request: Option<&RequestName>) {
        let (process, stream) = (self.process, self.stream);
        let request_id = request.map(|request| request.id.as_str());
        let trace = request.and_then(|request| request.trace.as_ref());
        info!(
            process,
            stream,
            request_id,
            trace_id = trace.map(TraceContext::trace_id),
            span_id = trace.map(TraceContext::span_id),
            trace_flags = trace.map(TraceContext::flags),
            %text,
            "handler output"
        );
    }

    /// The trace is named by its id alone: the line is the handler's, and may have a span of its
    /// own.
    fn write_object(&self, object: &str, request: Option<&RequestName>) {
        let (process, stream) = (self.process, self.stream);
        let request_id = request.map(|request| request.id.as_str());
        let trace = request.and_then(|request| request.trace.as_ref());
        let trace_id = trace.map(TraceContext::trace_id);
        info!(
            process,
            stream, request_id, trace_id, object, "handler output"
        );
    }

    /// Writes lines to the log as they are.
    fn write_raw(&mut self, now: Instant, lines: &[u8]) {
        if !lines.is_empty() && self.may_write(now, lines.len()) {
            write_as_they_are(lines);
        }
    }

    /// True when output of this length may be logged; else it is counted as left out.
    fn may_write(&mut self, now: Instant, length: usize) -> bool {
        let is_allowed = self.allowance.take(now, length as u64 + 64);
        let counts = &self.allowance.metrics.processes;
        let stream = match self.stream {
            "stderr" => HandlerStream::Stderr,
            _ => HandlerStream::Stdout,
        };
        if is_allowed {
            counts.logged(stream, 1);
            self.report_left_out();
        } else {
            counts.dropped(stream, length as u64);
            self.left_out += 1;
        }
        is_allowed
    }

    /// Counts blocks that are not logged; a stray line is a block.
    pub fn leave_out(&mut self, blocks: u64) {
        self.left_out += blocks;
    }

    fn report_left_out(&mut self) {
        if self.left_out > 0 {
            let (process, stream, blocks) = (self.process, self.stream, self.left_out);
            warn!(
                process,
                stream, blocks, "handler output left out, it came too fast"
            );
            self.left_out = 0;
        }
    }
}

impl Drop for StreamLog {
    fn drop(&mut self) {
        self.report_left_out();
    }
}

/// The logs of both streams of one process.
#[derive(Debug)]
pub struct ProcessLog {
    /// Of the lines on stdout that are no replies.
    pub stdout: StreamLog,
    /// Of stderr, with our end of it.
    pub stderr: ErrorOutput,
}

/// The text, cut to [`MAX_QUOTED_BYTES`].
fn quote(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_QUOTED_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_QUOTED_BYTES);
    Cow::Owned(format!("{}… (cut)", &text[..end]))
}

/// Bytes that the processes of one slot may still log. Clones share it.
#[derive(Debug, Clone)]
pub struct LogAllowance {
    shared: Arc<Mutex<Allowance>>,
    /// Counts what is logged and what is not.
    metrics: Arc<Metrics>,
}

impl LogAllowance {
    /// An allowance of `BURST_BYTES` bytes.
    pub fn new(now: Instant, metrics: Arc<Metrics>) -> LogAllowance {
        LogAllowance {
            shared: Arc::new(Mutex::new(Allowance::new(now))),
            metrics,
        }
    }

    fn take(&self, now: Instant, bytes: u64) -> bool {
        let mut allowance = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        allowance.take(now, bytes)
    }
}

/// A token bucket of bytes.
#[derive(Debug)]
struct Allowance {
    bytes: u64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance {
            bytes: BURST_BYTES,
            at: now,
        }
    }

    fn take(&mut self, now: Instant, bytes: u64) -> bool {
        let passed = now.saturating_duration_since(self.at);
        let gained = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let gained = gained.saturating_mul(LOG_BYTES_PER_SECOND) / 1000;
        if gained > 0 {
            self.bytes = self.bytes.saturating_add(gained).min(BURST_BYTES);
            self.at = now;
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_logged_at_a_bounded_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken = (0..1000).filter(|_| allowance.take(start, 1024)).count();
        assert_eq!(taken as u64, BURST_BYTES / 1024);
        let later = start + Duration::from_secs(1);
        let taken = (0..1000).filter(|_| allowance.take(later, 1024)).count();
        assert_eq!(taken as u64, LOG_BYTES_PER_SECOND / 1024);
    }

    #[test]
    fn a_new_process_of_a_slot_has_no_new_allowance() {
        let start = Instant::now();
        let slot = LogAllowance::new(start, Arc::new(Metrics::new(std::num::NonZeroUsize::MIN)));
        let flood = |allowance: &LogAllowance| {
            (0..1000).filter(|_| allowance.take(start, 1024)).count() as u64
        };
        assert_eq!(flood(&slot), BURST_BYTES / 1024);
        let next = StreamLog::new(2, "stderr", slot.clone());
        assert_eq!(flood(&next.allowance), 0);
    }

    #[test]
    fn output_that_is_left_out_is_counted() {
        let start = Instant::now();
        let metrics = Arc::new(Metrics::new(std::num::NonZeroUsize::MIN));
        let slot = LogAllowance::new(start, Arc::clone(&metrics));
        for (name, stream) in [
            ("stderr", HandlerStream::Stderr),
            ("stdout", HandlerStream::Stdout),
        ] {
            let mut log = StreamLog::new(1, name, slot.clone());
            let long = usize::try_from(BURST_BYTES).unwrap();
            assert!(log.may_write(start, 10) && !log.may_write(start, long));
            assert_eq!(metrics.processes.log(stream), (1, BURST_BYTES), "{name}");
        }
    }

    #[test]
    fn quotes_are_cut() {
        assert_eq!(quote("short"), "short");
        let long = quote(&"é".repeat(MAX_QUOTED_BYTES)).into_owned();
        assert!(long.len() < MAX_QUOTED_BYTES + 20, "{}", long.len());
        assert!(long.ends_with("é… (cut)"), "{long}");
    }
}
