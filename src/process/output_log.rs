//! Output of handlers on its way into the log: whole blocks, cut lines, a bounded rate.

use super::repeats::{FailedOutput, StartEnd, StartOutput};
use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tracing::{info, warn};

/// Bytes that the processes of one slot may log at once, all together. A new process begins with
/// the bytes that are left, or a process that floods and dies again and again would log without
/// end.
const BURST: u64 = 256 * 1024;

/// Bytes a second that the processes of one slot may log after [`BURST`].
const BYTES_PER_SECOND: u64 = 64 * 1024;

/// Longest line, in bytes; a longer line is cut.
const LINE_LIMIT: usize = 8 * 1024;

/// Largest block of lines that is kept together, in bytes.
const BLOCK_LIMIT: usize = 64 * 1024;

/// Longest that a block is kept while more comes.
const BLOCK_AGE: Duration = Duration::from_millis(200);

/// Reads of stderr after the end of its process, each up to 16 KiB; a pipe holds 64 KiB.
const READS_AT_THE_END: usize = 8;

/// A block ends when nothing has come for this long: a traceback is written in one go.
const QUIET: Duration = Duration::from_millis(20);

/// Longest part of a line that an event of the worker quotes, in bytes.
const QUOTE_LIMIT: usize = 512;

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

    /// Logs a line or a block of lines.
    pub fn write(&mut self, now: Instant, text: &[u8], request: Option<u64>, is_cut: bool) {
        if !self.allowance.take(now, text.len() as u64 + 64) {
            self.left_out += 1;
            return;
        }
        self.report_left_out();
        let (process, stream) = (self.process, self.stream);
        let text = String::from_utf8_lossy(text);
        let text = if is_cut {
            format!("{text}… (cut)").into()
        } else {
            text
        };
        match request {
            Some(request) => info!(process, stream, request, %text, "handler output"),
            None => info!(process, stream, %text, "handler output"),
        }
    }

    /// Counts lines that are not logged.
    pub fn leave_out(&mut self, lines: u64) {
        self.left_out += lines;
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

/// The text, cut to [`QUOTE_LIMIT`].
fn quote(text: &str) -> Cow<'_, str> {
    if text.len() <= QUOTE_LIMIT {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(QUOTE_LIMIT);
    Cow::Owned(format!("{}… (cut)", &text[..end]))
}

/// Bytes that the processes of one slot may still log. Clones share it.
#[derive(Debug, Clone)]
pub struct LogAllowance(Arc<Mutex<Allowance>>);

impl LogAllowance {
    /// An allowance of `BURST` bytes.
    pub fn new(now: Instant) -> LogAllowance {
        LogAllowance(Arc::new(Mutex::new(Allowance::new(now))))
    }

    fn take(&self, now: Instant, bytes: u64) -> bool {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            bytes: BURST,
            at: now,
        }
    }

    fn take(&mut self, now: Instant, bytes: u64) -> bool {
        let passed = now.saturating_duration_since(self.at);
        let gained = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let gained = gained.saturating_mul(BYTES_PER_SECOND) / 1000;
        if gained > 0 {
            self.bytes = self.bytes.saturating_add(gained).min(BURST);
            self.at = now;
        }
        let is_enough = self.bytes >= bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}

/// The stderr of a process: always drained, whatever its rate, and logged in blocks.
#[derive(Debug)]
pub struct ErrorOutput {
    pipe: Option<Receiver>,
    block: Block,
    start: StartOutput,
    log: StreamLog,
    scratch: Vec<u8>,
}

impl ErrorOutput {
    /// Takes over our end of a process's stderr.
    pub fn new(
        process: u64,
        pipe: Receiver,
        allowance: LogAllowance,
        failed: FailedOutput,
    ) -> ErrorOutput {
        ErrorOutput {
            pipe: Some(pipe),
            block: Block::default(),
            start: StartOutput::new(failed),
            log: StreamLog::new(process, "stderr", allowance),
            scratch: vec![0; 16 * 1024],
        }
    }

    /// Drains and logs, as long as it is polled.
    // Cancel-safe: all progress lives in self.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let Some(pipe) = &mut self.pipe else {
                return std::future::pending().await;
            };
            let quiet = if self.start.is_new() {
                BLOCK_AGE
            } else {
                QUIET
            };
            let block = self.block.patience(quiet);
            let patience = block.min(self.start.patience(Instant::now()));
            let read = pipe.read(&mut self.scratch);
            let Ok(read) = tokio::time::timeout(patience, read).await else {
                if block <= patience {
                    self.log_block();
                }
                self.log_withheld();
                continue;
            };
            self.received(read);
            // Other tasks have their turn, however fast the handler prints.
            tokio::task::yield_now().await;
        }
    }

    /// Reads and logs the rest without waiting: a grandchild may hold the pipe open, and may even
    /// go on writing. The output of a failed start is not logged if it equals that of the failed
    /// start before; returns how many starts in a row before had the same output.
    pub fn finish(&mut self, end: StartEnd) -> u64 {
        for _ in 0..READS_AT_THE_END {
            let Some(pipe) = &self.pipe else { break };
            let read = rustix::io::read(pipe, &mut self.scratch);
            if !self.received(read.map_err(io::Error::from)) {
                break;
            }
        }
        self.log_block();
        let (text, repeated) = self.start.end(end);
        self.log(text);
        repeated
    }

    /// The last line that was not blank, if it came after `since`.
    pub fn last_line(&self, since: Option<Instant>) -> &str {
        let is_older = since.is_some_and(|since| self.block.last_line_came < Some(since));
        if is_older { "" } else { &self.block.last_line }
    }

    fn received(&mut self, read: io::Result<usize>) -> bool {
        match read {
            Ok(length) if length > 0 => {
                let now = Instant::now();
                self.block.push(now, &self.scratch[..length]);
                if self.block.is_due(now) {
                    self.log_block();
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                self.pipe = None;
                self.log_block();
                false
            }
        }
    }

    fn log_block(&mut self) {
        let text = self.block.take();
        if !text.is_empty() {
            let text = self.start.push(Instant::now(), text);
            self.log(text);
        }
    }

    fn log_withheld(&mut self) {
        let text = self.start.look(Instant::now());
        self.log(text);
    }

    fn log(&mut self, text: Option<Vec<u8>>) {
        if let Some(text) = text {
            self.log.write(Instant::now(), &text, None, false);
        }
    }
}

/// Lines that came together.
#[derive(Debug, Default)]
struct Block {
    text: Vec<u8>,
    since: Option<Instant>,
    line_length: usize,
    last_line: String,
    last_line_came: Option<Instant>,
    last_read: Option<Instant>,
}

impl Block {
    /// How long to wait for more before the block is logged.
    fn patience(&self, quiet: Duration) -> Duration {
        if self.since.is_some() {
            quiet
        } else {
            Duration::MAX
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_old = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) >= BLOCK_AGE);
        is_old || self.text.len() >= BLOCK_LIMIT
    }

    fn push(&mut self, now: Instant, bytes: &[u8]) {
        self.since.get_or_insert(now);
        self.last_read = Some(now);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, &b"\n"[..]),
                None => (piece, &b""[..]),
            };
            let room = LINE_LIMIT.saturating_sub(self.line_length);
            self.text.extend_from_slice(&line[..line.len().min(room)]);
            // Once, where the limit is passed.
            if line.len() > room && self.line_length <= LINE_LIMIT {
                self.text.extend_from_slice("… (cut)".as_bytes());
            }
            self.text.extend_from_slice(end);
            self.line_length = match end {
                [] => self.line_length + line.len(),
                _ => 0,
            };
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        self.since = None;
        text.truncate(text.trim_ascii_end().len());
        let last = text
            .rsplit(|byte| *byte == b'\n')
            .find(|line| !line.trim_ascii().is_empty());
        if let Some(last) = last {
            let last = String::from_utf8_lossy(last.trim_ascii());
            self.last_line = quote(&last).into_owned();
            self.last_line_came = self.last_read;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_at_a_bounded_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken = (0..1000).filter(|_| allowance.take(start, 1024)).count();
        assert_eq!(taken as u64, BURST / 1024);
        let later = start + Duration::from_secs(1);
        let taken = (0..1000).filter(|_| allowance.take(later, 1024)).count();
        assert_eq!(taken as u64, BYTES_PER_SECOND / 1024);
    }

    #[test]
    fn a_new_process_of_a_slot_has_no_new_allowance() {
        let start = Instant::now();
        let slot = LogAllowance::new(start);
        let flood = |allowance: &LogAllowance| {
            (0..1000).filter(|_| allowance.take(start, 1024)).count() as u64
        };
        assert_eq!(flood(&slot), BURST / 1024);
        let next = StreamLog::new(2, "stderr", slot.clone());
        assert_eq!(flood(&next.allowance), 0);
    }

    #[test]
    fn quotes_are_cut() {
        assert_eq!(quote("short"), "short");
        let long = quote(&"é".repeat(QUOTE_LIMIT)).into_owned();
        assert!(long.len() < QUOTE_LIMIT + 20, "{}", long.len());
        assert!(long.ends_with("é… (cut)"), "{long}");
    }

    #[test]
    fn a_traceback_stays_one_block_and_its_last_line_is_kept() {
        let mut block = Block::default();
        block.push(Instant::now(), b"Traceback:\n  File\nValue");
        block.push(Instant::now(), b"Error: no\n\n");
        assert_eq!(block.take(), b"Traceback:\n  File\nValueError: no");
        assert_eq!(block.last_line, "ValueError: no");
        assert!(!block.is_due(Instant::now()));
    }

    #[test]
    fn long_lines_are_cut_and_the_next_is_whole() {
        let mut block = Block::default();
        block.push(Instant::now(), &[b'x'; 3 * LINE_LIMIT]);
        block.push(Instant::now(), b"xxx\nnext\n");
        let text = String::from_utf8(block.take()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), LINE_LIMIT + "… (cut)".len());
        assert_eq!(lines[1], "next");
        // The limit is passed by what is behind it, in whatever pieces it comes.
        let full = "x".repeat(LINE_LIMIT);
        for (pieces, line) in [
            (vec![format!("{full}\n")], full.clone()),
            (vec![full.clone(), "\n".to_owned()], full.clone()),
            (
                vec![full.clone(), "y\n".to_owned()],
                format!("{full}… (cut)"),
            ),
            (
                vec![full.clone(), "y".to_owned(), "z\n".to_owned()],
                format!("{full}… (cut)"),
            ),
        ] {
            let mut block = Block::default();
            for piece in pieces {
                block.push(Instant::now(), piece.as_bytes());
            }
            assert_eq!(block.take(), line.as_bytes());
        }
    }
}
