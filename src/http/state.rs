//! What is known of one connection: what it is doing, what it was told, and what that means.
//!
//! Written by the connection's task, read by the registry. The part that decides which limit is
//! passed is pure: time comes in from outside.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::HttpConfig;

/// How long a closed connection is read on, so that its client gets to see the response.
const LINGER: Duration = Duration::from_secs(2);

/// A head that takes longer than this counts as idle when there is no room for a new connection.
/// Almost every head comes in one packet; one retransmission takes a second.
const SLOW_HEAD: Duration = Duration::from_millis(1_500);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of a request has come since the last response was handed over.
    Idle,
    /// A part of a request's head has come.
    Head,
    /// The request is being worked on, its body included.
    Busy,
    /// Closed by us; what still comes is read and thrown away.
    Linger,
}

impl Phase {
    fn from_bits(bits: u64) -> Phase {
        match bits & 3 {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Linger,
        }
    }
}

/// What a connection is doing, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    pub(super) since_ms: u64,
    /// Since when the client has taken nothing of a response that waits to be written.
    pub(super) stalled_since_ms: Option<u64>,
}

/// The limit that a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Header,
    KeepAlive,
    Write,
    Linger,
}

/// The limits on a connection's time, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    header_ms: u64,
    keep_alive_ms: u64,
    write_ms: u64,
    linger_ms: u64,
}

impl Limits {
    pub(super) fn new(config: &HttpConfig) -> Limits {
        Limits {
            header_ms: milliseconds(config.header_timeout),
            keep_alive_ms: milliseconds(config.keep_alive),
            write_ms: milliseconds(config.write_timeout),
            linger_ms: milliseconds(LINGER),
        }
    }

    #[cfg(test)]
    pub(super) fn of_tests() -> Limits {
        Limits {
            header_ms: 100,
            keep_alive_ms: 1_000,
            write_ms: 300,
            linger_ms: 200,
        }
    }

    /// The limit that a connection of this standing is over now.
    pub(super) fn exceeded(&self, standing: Standing, now_ms: u64) -> Option<Limit> {
        let is_past = |since_ms: u64, limit_ms: u64| now_ms.saturating_sub(since_ms) >= limit_ms;
        if let Some(since_ms) = standing.stalled_since_ms {
            return is_past(since_ms, self.write_ms).then_some(Limit::Write);
        }
        let (limit, limit_ms) = match standing.phase {
            Phase::Idle => (Limit::KeepAlive, self.keep_alive_ms),
            Phase::Head => (Limit::Header, self.header_ms),
            // Ends by the body timeout and the handler's timeout, which are not kept here.
            Phase::Busy => return None,
            Phase::Linger => (Limit::Linger, self.linger_ms),
        };
        is_past(standing.since_ms, limit_ms).then_some(limit)
    }

    /// How often to look: a limit is passed by a tenth at most, or by a second.
    pub(super) fn period(&self) -> Duration {
        let shortest_ms = self.header_ms.min(self.keep_alive_ms).min(self.write_ms);
        Duration::from_millis((shortest_ms / 10).clamp(10, 1_000))
    }
}

/// In which order connections are closed to make room; `None` for those that are not.
pub(super) fn rank(standing: Standing, now_ms: u64) -> Option<(u8, u64)> {
    if standing.stalled_since_ms.is_some() {
        return None;
    }
    match standing.phase {
        Phase::Linger => Some((0, standing.since_ms)),
        Phase::Idle => Some((1, standing.since_ms)),
        Phase::Head => is_slow_head(standing, now_ms).then_some((2, standing.since_ms)),
        Phase::Busy => None,
    }
}

/// Whether the head has taken so long that the connection may go when room is needed.
pub(super) fn is_slow_head(standing: Standing, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(standing.since_ms);
    standing.phase == Phase::Head && age_ms >= milliseconds(SLOW_HEAD)
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a connection has been told; several may hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orders(u8);

impl Orders {
    /// Look whether you are over a limit, and close if so.
    pub(super) const CHECK: u8 = 1;
    /// Close if you are idle: somebody else needs the room.
    pub(super) const MAKE_ROOM: u8 = 2;
    /// Close as soon as no request is left.
    pub(super) const DRAIN: u8 = 4;
    /// Close now.
    pub(super) const ABORT: u8 = 8;

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_check(self) -> bool {
        self.0 & Self::CHECK != 0
    }

    pub(super) fn has_make_room(self) -> bool {
        self.0 & Self::MAKE_ROOM != 0
    }

    pub(super) fn has_drain(self) -> bool {
        self.0 & Self::DRAIN != 0
    }

    pub(super) fn has_abort(self) -> bool {
        self.0 & Self::ABORT != 0
    }
}

/// What is known of one connection; written by its task, read by the sweep.
#[derive(Debug)]
pub(super) struct State {
    /// Milliseconds on the registry's clock, times 4, plus the phase: one store changes both.
    standing: AtomicU64,
    /// Milliseconds plus one; 0 while nothing is stalled.
    stalled: AtomicU64,
    orders: AtomicU8,
    /// Whether the last read found nothing.
    read_blocked: AtomicBool,
    /// Whether the last response refused a request whose body may not have been read.
    refused_body: AtomicBool,
    /// The connection runs in one task from end to end, so its waker never changes.
    waker: OnceLock<Waker>,
    epoch: Instant,
}

impl State {
    pub(super) fn new(epoch: Instant, orders: u8) -> State {
        let state = State {
            standing: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            orders: AtomicU8::new(orders),
            read_blocked: AtomicBool::new(false),
            refused_body: AtomicBool::new(false),
            waker: OnceLock::new(),
            epoch,
        };
        state.enter(Phase::Idle);
        state
    }

    pub(super) fn now_ms(&self) -> u64 {
        milliseconds(self.epoch.elapsed())
    }

    pub(super) fn enter(&self, phase: Phase) {
        // No limit on time holds while busy, so the clock need not be read.
        let since_ms = if phase == Phase::Busy {
            0
        } else {
            self.now_ms()
        };
        self.standing
            .store(since_ms << 2 | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_bits(self.standing.load(Ordering::Relaxed))
    }

    pub(super) fn standing(&self) -> Standing {
        let bits = self.standing.load(Ordering::Relaxed);
        Standing {
            phase: Phase::from_bits(bits),
            since_ms: bits >> 2,
            stalled_since_ms: self.stalled.load(Ordering::Relaxed).checked_sub(1),
        }
    }

    /// Bytes came from the client.
    pub(super) fn note_read(&self) {
        self.read_blocked.store(false, Ordering::Relaxed);
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A read found nothing.
    pub(super) fn note_read_blocked(&self) {
        self.read_blocked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_read_blocked(&self) -> bool {
        self.read_blocked.load(Ordering::Relaxed)
    }

    /// The client took some bytes.
    pub(super) fn note_written(&self) {
        if self.stalled.load(Ordering::Relaxed) != 0 {
            self.stalled.store(0, Ordering::Relaxed);
            // The idle time begins when the response is gone.
            if self.phase() == Phase::Idle {
                self.enter(Phase::Idle);
            }
        }
    }

    /// The client takes no more bytes for now.
    pub(super) fn note_write_blocked(&self) {
        if self.stalled.load(Ordering::Relaxed) == 0 {
            self.stalled.store(self.now_ms() + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn note_refused_body(&self, refused: bool) {
        self.refused_body.store(refused, Ordering::Relaxed);
    }

    pub(super) fn has_refused_body(&self) -> bool {
        self.refused_body.load(Ordering::Relaxed)
    }

    /// Where orders are to be announced; the first call counts.
    pub(super) fn remember(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            let _ = self.waker.set(waker.clone());
        }
    }

    pub(super) fn orders(&self) -> Orders {
        Orders(self.orders.load(Ordering::Acquire))
    }

    /// The orders that ask for a look have been followed.
    pub(super) fn obeyed(&self, orders: Orders) {
        let looks = orders.0 & (Orders::CHECK | Orders::MAKE_ROOM);
        self.orders.fetch_and(!looks, Ordering::AcqRel);
    }

    /// Without a waker the task has not run yet; it reads its orders when it does.
    pub(super) fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_own_limit() {
        let table = [
            (Phase::Idle, None, 999, None),
            (Phase::Idle, None, 1_000, Some(Limit::KeepAlive)),
            (Phase::Head, None, 99, None),
            (Phase::Head, None, 100, Some(Limit::Header)),
            (Phase::Busy, None, u64::MAX, None),
            (Phase::Linger, None, 199, None),
            (Phase::Linger, None, 200, Some(Limit::Linger)),
            // While a response waits to be taken, that alone counts.
            (Phase::Idle, Some(900), 1_199, None),
            (Phase::Idle, Some(900), 1_200, Some(Limit::Write)),
            (Phase::Busy, Some(0), 299, None),
            (Phase::Busy, Some(0), 300, Some(Limit::Write)),
            (Phase::Head, Some(900), 1_000, None),
        ];
        for (phase, stalled_since_ms, now_ms, expected) in table {
            let standing = Standing {
                phase,
                since_ms: 0,
                stalled_since_ms,
            };
            assert_eq!(
                Limits::of_tests().exceeded(standing, now_ms),
                expected,
                "{standing:?} at {now_ms}"
            );
        }
    }

    #[test]
    fn a_stamp_from_the_future_is_no_limit_passed() {
        let standing = Standing {
            phase: Phase::Head,
            since_ms: 500,
            stalled_since_ms: None,
        };
        assert_eq!(Limits::of_tests().exceeded(standing, 10), None);
    }

    #[test]
    fn the_sweep_is_a_tenth_of_the_shortest_limit_within_bounds() {
        let period = |header_ms| {
            Limits {
                header_ms,
                ..Limits::of_tests()
            }
            .period()
            .as_millis()
        };
        assert_eq!((period(1), period(200), period(300_000)), (10, 20, 30));
        let long = Limits {
            header_ms: 60_000,
            keep_alive_ms: 75_000,
            write_ms: 60_000,
            ..Limits::of_tests()
        };
        assert_eq!(long.period(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_passes_through_its_phases() {
        let state = State::new(Instant::now(), 0);
        tokio::time::advance(Duration::from_millis(50)).await;
        state.note_read();
        tokio::time::advance(Duration::from_millis(50)).await;
        state.note_read();
        let head = Standing {
            phase: Phase::Head,
            since_ms: 50,
            stalled_since_ms: None,
        };
        assert_eq!(
            state.standing(),
            head,
            "a further byte does not prolong the head's time"
        );
        state.enter(Phase::Busy);
        state.note_read();
        assert_eq!(state.phase(), Phase::Busy);
        state.note_write_blocked();
        state.enter(Phase::Idle);
        tokio::time::advance(Duration::from_millis(20)).await;
        state.note_write_blocked();
        assert_eq!(state.standing().stalled_since_ms, Some(100));
        state.note_written();
        let idle = Standing {
            phase: Phase::Idle,
            since_ms: 120,
            stalled_since_ms: None,
        };
        assert_eq!(state.standing(), idle, "idle since the response was taken");
    }
}
