//! Request lines on their way into the process.

use std::ops::Range;

/// Largest buffer that is kept when it is empty, in bytes.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Request lines on their way into the process.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Bytes at the start of `bytes` that the pipe has accepted.
    accepted: usize,
    /// All bytes that the pipe has ever accepted.
    total_sent: u64,
}

impl Outgoing {
    /// The buffer to which the next line is appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Offset of the next byte, counted in bytes written to the process in its life.
    pub(super) fn end(&self) -> u64 {
        self.total_sent + (self.bytes.len() - self.accepted) as u64
    }

    /// All bytes that the pipe has ever accepted.
    pub(super) fn total_sent(&self) -> u64 {
        self.total_sent
    }

    /// Bytes that the pipe has not accepted yet.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.accepted..]
    }

    /// Bytes that the buffer holds, accepted or not.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The pipe has accepted this many bytes; gives their offsets.
    pub(super) fn sent(&mut self, bytes: usize) -> Range<u64> {
        let before = self.total_sent;
        self.accepted += bytes;
        self.total_sent += bytes as u64;
        if self.accepted == self.bytes.len() {
            self.accepted = 0;
            if self.bytes.capacity() > MAX_KEPT_BYTES {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
        before..self.total_sent
    }
}
