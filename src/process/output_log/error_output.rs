//! The stderr of a process: drained at any rate, and logged in blocks.

use super::block::{Block, MAX_BLOCK_AGE};
use super::{LogAllowance, StreamLog};
use crate::config::HandlerLog;
use crate::process::alarm::Alarm;
use crate::process::call::RequestName;
use crate::process::repeats::{FailedOutput, StartEnd, StartOutput};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;

/// Reads of stderr after the end of its process, each up to 16 KiB; a pipe holds 64 KiB.
const MAX_READS_AT_THE_END: usize = 8;

/// Most reads of stderr before output on stdout is handled.
const MAX_READS_BEFORE_STDOUT: usize = 4;

/// Reads of stderr in a row that find nothing, after which stdout is handled without one: a read
/// costs a system call.
const MAX_EMPTY_READS: u32 = 64;

/// A block ends when nothing has come for this long: a traceback is written in one go.
const STDERR_QUIET_TIME: Duration = Duration::from_millis(20);

/// The stderr of a process: drained at any rate, and logged in blocks.
///
/// A block has the output during one request, whose name its events carry. Output is the request's
/// if it is read while the process has that request alone: so stderr is read before stdout is, on
/// which the reply ends the request.
#[derive(Debug)]
pub struct ErrorOutput {
    pipe: Option<Receiver>,
    block: Block,
    /// The request during which the block was written.
    request: Option<RequestName>,
    start: StartOutput,
    form: HandlerLog,
    log: StreamLog,
    alarm: Alarm,
    scratch: Vec<u8>,
    reads_left: u32,
}

impl ErrorOutput {
    /// Takes over our end of a process's stderr. Must be called within a runtime.
    pub fn new(
        process: u64,
        pipe: Receiver,
        form: HandlerLog,
        allowance: LogAllowance,
        failed: FailedOutput,
    ) -> ErrorOutput {
        ErrorOutput {
            pipe: Some(pipe),
            block: Block::default(),
            request: None,
            start: StartOutput::new(failed),
            form,
            log: StreamLog::new(process, "stderr", allowance),
            alarm: Alarm::new(),
            scratch: vec![0; 16 * 1024],
            reads_left: 0,
        }
    }

    /// Drains and logs; has the task woken for more. `request` gives the name of the request that
    /// the process has alone.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        request: impl FnOnce() -> Option<RequestName>,
    ) {
        if let Some(pipe) = &mut self.pipe {
            let mut buffer = ReadBuf::new(&mut self.scratch);
            if let Poll::Ready(read) = Pin::new(pipe).poll_read(cx, &mut buffer) {
                let length = buffer.filled().len();
                self.received(read.map(|()| length), &request());
                // Other tasks have their turn, however fast the handler prints.
                cx.waker().wake_by_ref();
            }
        }
        self.log_in_time(cx);
    }

    /// Reads output that is older than bytes of stdout which are to be handled now. Only of a
    /// process that has used its stderr of late.
    pub(crate) fn catch_up(&mut self, request: impl FnOnce() -> Option<RequestName>) {
        if self.reads_left == 0 {
            return;
        }
        self.reads_left -= 1;
        self.read_now(MAX_READS_BEFORE_STDOUT, &request());
    }

    /// Reads and logs the rest without waiting: a grandchild may hold the pipe open, and may even
    /// go on writing. The output of a failed start is not logged if it equals that of the failed
    /// start before; returns how many starts in a row before had the same output.
    pub(crate) fn finish(&mut self, end: StartEnd, request: &Option<RequestName>) -> u64 {
        self.read_now(MAX_READS_AT_THE_END, request);
        self.log_last();
        let (text, repeated) = self.start.end(end);
        self.log(text, None);
        repeated
    }

    /// When output was last read.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        self.block.last_read
    }

    /// The last line that was not blank, if it came after `since`.
    pub(crate) fn last_line(&self, since: Option<Instant>) -> &str {
        let is_older = since.is_some_and(|since| self.block.last_line_came < Some(since));
        if is_older { "" } else { &self.block.last_line }
    }

    /// Reads without waiting, even if the runtime has not heard of the output.
    fn read_now(&mut self, most_reads: usize, request: &Option<RequestName>) {
        for _ in 0..most_reads {
            let Some(pipe) = &self.pipe else { break };
            let read = rustix::io::read(pipe, &mut self.scratch);
            if !self.received(read.map_err(io::Error::from), request) {
                break;
            }
        }
    }

    fn received(&mut self, read: io::Result<usize>, request: &Option<RequestName>) -> bool {
        match read {
            Ok(length) if length > 0 => {
                if self.request != *request {
                    self.log_block();
                    self.request.clone_from(request);
                }
                let now = Instant::now();
                self.reads_left = MAX_EMPTY_READS;
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
                self.log_last();
                false
            }
        }
    }

    /// Logs output whose time has come, and has the task woken for the rest.
    fn log_in_time(&mut self, cx: &mut Context<'_>) {
        let quiet = match self.start.is_new() {
            true => MAX_BLOCK_AGE,
            false => STDERR_QUIET_TIME,
        };
        let Some(deadline) = self.deadline(quiet) else {
            return;
        };
        let now = Instant::now();
        if deadline <= now {
            if self.block.quiet_at(quiet).is_some_and(|end| end <= now) {
                self.log_block();
            }
            let text = self.start.end_if_withheld_too_long(now);
            self.log(text, None);
        }
        if let Some(deadline) = self.deadline(quiet) {
            self.alarm.poll(cx, deadline);
        }
    }

    /// When there is something to log, if nothing more comes.
    fn deadline(&self, quiet: Duration) -> Option<Instant> {
        let block = self.block.quiet_at(quiet);
        let withheld = self.start.withheld_until();
        [block, withheld].into_iter().flatten().min()
    }

    fn log_block(&mut self) {
        let now = Instant::now();
        if self.form == HandlerLog::Raw {
            let lines = self.block.take_lines();
            return self.log.write_raw(now, &lines);
        }
        let text = self.block.take();
        if !text.is_empty() {
            // Output that was withheld stems from the start, before any request.
            let request = self.request.take().filter(|_| !self.start.is_withholding());
            let text = self.start.push(now, text);
            self.log(text, request.as_ref());
        }
    }

    /// Logs what is left when there is no more.
    fn log_last(&mut self) {
        self.log_block();
        if self.form == HandlerLog::Raw {
            let line = self.block.take_half_line();
            self.log.write_raw(Instant::now(), &line);
        }
    }

    fn log(&mut self, text: Option<Vec<u8>>, request: Option<&RequestName>) {
        if let Some(text) = text {
            self.log.write(Instant::now(), &text, request);
        }
    }
}
