//! One connection of the load: at most one request on it, and when that was due.

use super::response::{Done, Expected, Reader};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// A connection that requests are sent on.
pub(super) struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// How much of the request has been sent.
    sent: usize,
    /// When the request that it has was due.
    due: Option<Instant>,
}

/// What came of moving bytes.
pub(super) enum Moved {
    /// There is more to come.
    Waits,
    /// The answer is there; the request was due then.
    Answered(Done, Instant),
    /// The connection has ended, and with it the request that it had, if any.
    Ended,
}

impl Connection {
    /// Connects, and makes the stream nonblocking.
    pub(super) fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            reader: Reader::new(),
            sent: 0,
            due: None,
        })
    }

    /// The stream, to be watched.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// When its request was due, if it has one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Begins to send a request.
    pub(super) fn send(&mut self, request: &[u8], due: Instant) -> Moved {
        self.due = Some(due);
        self.sent = 0;
        match self.write(request) {
            Ok(()) => Moved::Waits,
            Err(_) => Moved::Ended,
        }
    }

    /// The kernel says that something can be done.
    pub(super) fn advance(
        &mut self,
        request: &[u8],
        scratch: &mut [u8],
        expected: &mut Expected,
    ) -> Moved {
        if self.due.is_some() && self.write(request).is_err() {
            return Moved::Ended;
        }
        loop {
            let length = match (&self.stream).read(scratch) {
                Ok(0) => return Moved::Ended,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Moved::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Moved::Ended,
            };
            match self.reader.feed(&scratch[..length], expected) {
                Ok(Some(done)) => {
                    return match self.due.take() {
                        Some(due) => Moved::Answered(done, due),
                        // An answer without a request.
                        None => Moved::Ended,
                    };
                }
                // Less than there was room for: nothing is left, and what comes later is told.
                Ok(None) if length < scratch.len() => return Moved::Waits,
                Ok(None) => {}
                Err(_) => return Moved::Ended,
            }
        }
    }

    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        while self.sent < request.len() {
            match (&self.stream).write(&request[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
