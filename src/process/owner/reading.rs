//! Reads stdout, in turns that leave the thread to other tasks.

use super::{Owner, ProcessObserver, RequestSource};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};

/// Most bytes of one read; a Linux pipe holds this much by default.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Most reads in a row before other tasks have their turn.
const MAX_READS_IN_A_ROW: usize = 16;

/// Bytes of a read that are handled together: 16 Ki empty lines take less than [`MAX_TURN`].
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// Longest time of reading before other tasks have their turn.
const MAX_TURN: Duration = Duration::from_millis(1);

/// Most reads in search of the end of output, before a request is given to a process that repeats
/// no ids.
const MAX_READS_BEFORE_GIVING: usize = 2;

/// Lines of one read after which other tasks have their turn.
const MAX_LINES_PER_TURN: usize = 200;

/// Whether a turn of reading has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadTurn {
    /// Nothing more can be read for now.
    Finished,
    /// There may be more, which is read after other tasks have had their turn.
    Unfinished,
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Nothing,
    /// At most [`MAX_LINES_PER_TURN`].
    Little,
    /// More than [`MAX_LINES_PER_TURN`]: other tasks have their turn first.
    Much,
}

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// Reads and handles output, at most [`MAX_READS_IN_A_ROW`] times.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> ReadTurn {
        if !self.unhandled.is_empty() && self.take_in() == Received::Much {
            return ReadTurn::Unfinished;
        }
        for _ in 0..MAX_READS_IN_A_ROW {
            if !self.gate.may_read(cx, self.conversation.partial_bytes()) {
                return ReadTurn::Finished;
            }
            let Some(stdout) = &mut self.stdout else {
                return ReadTurn::Finished;
            };
            let mut buffer = ReadBuf::new(&mut self.scratch);
            let Poll::Ready(read) = Pin::new(stdout).poll_read(cx, &mut buffer) else {
                return ReadTurn::Finished;
            };
            let length = buffer.filled().len();
            if self.received(read.map(|()| length)) == Received::Much {
                return ReadTurn::Unfinished;
            }
        }
        ReadTurn::Unfinished
    }

    /// Reads once, even if the runtime has not heard that the pipe is readable.
    fn read_now(&mut self) -> Received {
        if !self.unhandled.is_empty() {
            return self.take_in();
        }
        let Some(stdout) = &self.stdout else {
            return Received::Nothing;
        };
        let read = rustix::io::read(stdout, &mut self.scratch);
        self.received(read.map_err(io::Error::from))
    }

    /// Handles the result of a read, so that the output of one read at most is held.
    fn received(&mut self, read: io::Result<usize>) -> Received {
        match read {
            Ok(length) if length > 0 => {
                self.stderr.catch_up(|| self.conversation.only_request());
                self.unhandled = 0..length;
                self.take_in()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Little,
            Ok(_) | Err(_) => {
                self.stdout = None;
                self.conversation.output_closed();
                self.handle_events();
                Received::Nothing
            }
        }
    }

    /// Handles the bytes of a read, a piece at a time, until there were too many lines for one
    /// turn.
    fn take_in(&mut self) -> Received {
        let now = Instant::now();
        self.read_at = now;
        let mut received = Received::Nothing;
        while !self.unhandled.is_empty() {
            let begin = self.unhandled.start;
            let end = self.unhandled.end.min(begin + PIECE_BYTES);
            let piece = &self.scratch[begin..end];
            self.source.wrote_stdout(piece);
            self.conversation.received(now, piece);
            self.unhandled.start = end;
            self.taken_in += (end - begin) as u64;
            self.gate.count(self.conversation.buffered_bytes());
            if self.handle_events() > MAX_LINES_PER_TURN {
                return Received::Much;
            }
            received = Received::Little;
        }
        received
    }

    /// Reads and handles output for `MAX_TURN` at most.
    pub fn read_a_turn(&mut self) -> ReadTurn {
        let end = Instant::now() + MAX_TURN;
        let turn = loop {
            if self.read_now() == Received::Nothing {
                break ReadTurn::Finished;
            }
            if Instant::now() >= end {
                break ReadTurn::Unfinished;
            }
        };
        self.source.send_answers();
        turn
    }

    /// Reads and handles output, at most [`MAX_READS_BEFORE_GIVING`] times.
    pub(super) fn read_until_empty(&mut self) -> ReadTurn {
        for _ in 0..MAX_READS_BEFORE_GIVING {
            match self.read_now() {
                Received::Nothing => return ReadTurn::Finished,
                Received::Little => {}
                Received::Much => return ReadTurn::Unfinished,
            }
        }
        ReadTurn::Unfinished
    }

    pub(super) fn bytes_in_stdout(&self) -> u64 {
        let stdout = self.stdout.as_ref();
        let bytes = stdout.map(rustix::io::ioctl_fionread);
        bytes.and_then(Result::ok).unwrap_or(0)
    }
}
