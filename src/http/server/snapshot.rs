//! A connection at one moment, and the order in which connections are closed to make room.
//!
//! Pure: the time comes in from outside.

use std::time::Duration;

use super::clock::whole_milliseconds;
use super::rates::Transfer;

/// The age from which on a head counts as slow: its connection may be closed to make room.
/// Almost every head comes in one packet; one retransmission takes a second.
const SLOW_HEAD: Duration = Duration::from_millis(1_500);

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of a request has come since hyper took the last response.
    Idle,
    /// A part of a request's head has come.
    Head,
    /// The request is being worked on.
    Busy,
    /// The rest of the request's body is waited for.
    Body,
    /// The connection is closed from this side; bytes that still come are read and thrown away.
    Linger,
}

/// A connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionSnapshot {
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since_ms: u64,
    /// Since when the client has taken no byte of a response that waits to be written.
    pub(super) stalled_since_ms: Option<u64>,
    /// The body that comes, or the response that waits for its client.
    pub(super) transfer: Option<Transfer>,
}

impl ConnectionSnapshot {
    /// Where the connection stands in the order of closing; `None` if it must stay open.
    pub(super) fn close_rank(self, now_ms: u64) -> Option<CloseRank> {
        let since_ms = self.since_ms;
        if let Some(transfer) = self.transfer {
            let is_slow = transfer.is_slow(now_ms);
            return is_slow.then(|| CloseRank::SlowTransfer {
                rate: transfer.rate(now_ms),
            });
        }
        match self.phase {
            Phase::Linger => Some(CloseRank::Lingering { since_ms }),
            Phase::Idle => Some(CloseRank::Idle { since_ms }),
            Phase::Head => self
                .is_slow_head(now_ms)
                .then_some(CloseRank::SlowHead { since_ms }),
            Phase::Busy | Phase::Body => None,
        }
    }

    /// Whether a head has taken so long that its connection may be closed to make room.
    pub(super) fn is_slow_head(self, now_ms: u64) -> bool {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        self.phase == Phase::Head && age_ms >= whole_milliseconds(SLOW_HEAD)
    }
}

/// A connection's rank when room is needed: the smallest is closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CloseRank {
    Lingering {
        since_ms: u64,
    },
    Idle {
        since_ms: u64,
    },
    SlowHead {
        since_ms: u64,
    },
    /// Closing cuts a request short.
    SlowTransfer {
        rate: u64,
    },
}

impl CloseRank {
    /// Whether the connection has been in the same phase since it had the earlier rank. The rate of
    /// a transfer changes all the time, the time at which a phase began does not.
    pub(super) fn is_unchanged_since(self, earlier: CloseRank) -> bool {
        match (self, earlier) {
            (CloseRank::SlowTransfer { .. }, CloseRank::SlowTransfer { .. }) => true,
            (now, earlier) => now == earlier,
        }
    }
}
