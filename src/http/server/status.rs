//! The status of one connection: its phase, its orders, and the bytes that it moves.
//!
//! The connection's task writes it, the registry's sweep reads it: each field is an atomic number,
//! so that neither waits. A sweep that sees a mixture of old and new fields is
//! harmless, because the connection's task checks again before it closes.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use super::clock::Clock;
use super::flags::{Orders, RequestFlags};
use super::rates::Transfer;
use super::snapshot::{ConnectionSnapshot, Phase};

/// Requests that one connection has answered before its task yields to other connections: hyper
/// goes on with pipelined requests without a pause.
const MAX_REQUESTS_PER_TURN: u8 = 2;

/// How a connection was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Regular,
    /// Beyond `--max-connections`, for one health check.
    HealthCheck,
}

/// The status of one connection; written by its task, read by the sweep.
#[derive(Debug)]
pub(super) struct ConnectionStatus {
    /// Milliseconds on the listener's clock, times 8, plus the phase: one store changes both.
    phase_since: AtomicU64,
    /// Since when the client has taken no byte: milliseconds plus one, 0 while it takes some.
    stalled_since: AtomicU64,
    /// Since when a response has waited for its client: milliseconds plus one, 0 if none waits.
    response_waits_since: AtomicU64,
    /// Bytes of bodies that came late and of responses that had to wait. It only grows.
    moved: AtomicU64,
    /// When the window began over which the rate is measured.
    window_began_ms: AtomicU64,
    /// `moved` at the window's begin, less the bytes that are carried over.
    window_moved: AtomicU64,
    orders: AtomicU8,
    /// Whether the last read found no bytes.
    read_blocked: AtomicBool,
    /// Flags of the request that is being answered.
    request_flags: AtomicU8,
    /// Requests begun since the connection's task was last run.
    begun_this_turn: AtomicU8,
    /// Whether the client has sent requests ahead of responses.
    has_pipelined: AtomicBool,
    /// When the connection is asked to close for its age.
    closes_from_ms: u64,
    admission: Admission,
    /// The connection runs in one task from end to end, so its waker never changes.
    waker: OnceLock<Waker>,
    clock: Clock,
    /// The address of the client, where it is wanted.
    peer: OnceLock<SocketAddr>,
}

impl ConnectionStatus {
    pub(super) fn new(
        clock: Clock,
        orders: u8,
        admission: Admission,
        closes_from_ms: u64,
    ) -> ConnectionStatus {
        let status = ConnectionStatus {
            phase_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            response_waits_since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            window_began_ms: AtomicU64::new(0),
            window_moved: AtomicU64::new(0),
            orders: AtomicU8::new(orders),
            read_blocked: AtomicBool::new(false),
            request_flags: AtomicU8::new(0),
            begun_this_turn: AtomicU8::new(0),
            has_pipelined: AtomicBool::new(false),
            closes_from_ms,
            admission,
            waker: OnceLock::new(),
            clock,
            peer: OnceLock::new(),
        };
        status.enter(Phase::Idle);
        status
    }

    /// The address of the client, where it is wanted.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer.get().copied()
    }

    /// Keeps the address of the client; the first one stays.
    pub(super) fn keep_peer(&self, peer: SocketAddr) {
        let _ = self.peer.set(peer);
    }

    pub(super) fn is_for_health_check(&self) -> bool {
        self.admission == Admission::HealthCheck
    }

    /// Begins a turn: the connection's task is run.
    pub(super) fn begin_turn(&self) {
        self.begun_this_turn.store(0, Ordering::Relaxed);
    }

    /// Whether other connections come before the request that was begun last.
    pub(super) fn is_turn_over(&self) -> bool {
        self.begun_this_turn.load(Ordering::Relaxed) > MAX_REQUESTS_PER_TURN
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn enter(&self, phase: Phase) {
        // No limit on time holds while busy, so the clock need not be read.
        let since_ms = if phase == Phase::Busy {
            0
        } else {
            self.now_ms()
        };
        self.phase_since
            .store(since_ms << 3 | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        phase_of(self.phase_since.load(Ordering::Relaxed))
    }

    pub(super) fn snapshot(&self) -> ConnectionSnapshot {
        let bits = self.phase_since.load(Ordering::Relaxed);
        let (phase, since_ms) = (phase_of(bits), bits >> 3);
        let response_waits_since_ms = self
            .response_waits_since
            .load(Ordering::Relaxed)
            .checked_sub(1);
        let transfer_since_ms =
            response_waits_since_ms.or_else(|| (phase == Phase::Body).then_some(since_ms));
        let moved = self.moved.load(Ordering::Relaxed);
        ConnectionSnapshot {
            phase,
            since_ms,
            stalled_since_ms: self.stalled_since.load(Ordering::Relaxed).checked_sub(1),
            transfer: transfer_since_ms.map(|since_ms| Transfer {
                since_ms,
                window_began_ms: self.window_began_ms.load(Ordering::Relaxed),
                moved: moved.saturating_sub(self.window_moved.load(Ordering::Relaxed)),
            }),
        }
    }

    /// Begins a window over which the rate is measured, with `carried` bytes counted as moved.
    pub(super) fn begin_window(&self, now_ms: u64, carried: u64) {
        let moved = self.moved.load(Ordering::Relaxed);
        self.window_began_ms.store(now_ms, Ordering::Relaxed);
        self.window_moved
            .store(moved.saturating_sub(carried), Ordering::Relaxed);
    }

    fn record_moved(&self, count: usize) {
        // Only the connection's task writes it.
        let moved = self.moved.load(Ordering::Relaxed);
        self.moved.store(moved + count as u64, Ordering::Relaxed);
    }

    /// Records that `count` bytes came from the client.
    pub(super) fn record_read(&self, count: usize) {
        self.read_blocked.store(false, Ordering::Relaxed);
        match self.phase() {
            Phase::Idle => self.enter(Phase::Head),
            Phase::Body => self.record_moved(count),
            Phase::Head | Phase::Busy | Phase::Linger => (),
        }
    }

    /// Records that the rest of the body is waited for.
    pub(super) fn record_body_awaited(&self) {
        if self.phase() == Phase::Busy {
            self.enter(Phase::Body);
            self.begin_window(self.now_ms(), 0);
        }
    }

    /// Records that the body was read to its end.
    pub(super) fn record_body_complete(&self) {
        let flags = self.request_flags.load(Ordering::Relaxed);
        self.request_flags
            .store(flags & !RequestFlags::BODY_UNREAD, Ordering::Relaxed);
        if self.phase() == Phase::Body {
            self.enter(Phase::Busy);
        }
    }

    /// Records that a read found no bytes.
    pub(super) fn record_read_blocked(&self) {
        self.read_blocked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_read_blocked(&self) -> bool {
        self.read_blocked.load(Ordering::Relaxed)
    }

    /// Records that the client took `count` bytes.
    pub(super) fn record_written(&self, count: usize) {
        if self.response_waits_since.load(Ordering::Relaxed) != 0 {
            self.record_moved(count);
            self.stalled_since.store(0, Ordering::Relaxed);
            // The idle time begins when the response is gone.
            if self.phase() == Phase::Idle {
                self.enter(Phase::Idle);
            }
        }
    }

    /// Records that the client takes no more bytes for now.
    pub(super) fn record_write_blocked(&self) {
        if self.stalled_since.load(Ordering::Relaxed) == 0 {
            let now_ms = self.now_ms();
            self.stalled_since.store(now_ms + 1, Ordering::Relaxed);
            if self.response_waits_since.load(Ordering::Relaxed) == 0 {
                self.response_waits_since
                    .store(now_ms + 1, Ordering::Relaxed);
                self.begin_window(now_ms, 0);
            }
        }
    }

    /// Records that no bytes are left to be written.
    pub(super) fn record_flushed(&self) {
        if self.response_waits_since.load(Ordering::Relaxed) != 0 {
            self.response_waits_since.store(0, Ordering::Relaxed);
            self.stalled_since.store(0, Ordering::Relaxed);
        }
    }

    /// Records that the head of a request has come.
    pub(super) fn begin_request(&self, has_body: bool) {
        // Only the connection's task writes it.
        let begun = self.begun_this_turn.load(Ordering::Relaxed);
        self.begun_this_turn
            .store(begun.saturating_add(1), Ordering::Relaxed);
        // Nothing was read since the last response, so the head came before that.
        if self.phase() == Phase::Idle {
            self.has_pipelined.store(true, Ordering::Relaxed);
        }
        self.enter(Phase::Busy);
        let flags = if has_body {
            RequestFlags::BODY_UNREAD
        } else {
            0
        };
        self.request_flags.store(flags, Ordering::Relaxed);
    }

    /// Adds flags to the request that is being answered.
    pub(super) fn set_flags(&self, flags: u8) {
        self.request_flags.fetch_or(flags, Ordering::Relaxed);
    }

    pub(super) fn request_flags(&self) -> RequestFlags {
        RequestFlags(self.request_flags.load(Ordering::Relaxed))
    }

    /// Sets the waker of the connection's task; only the first call has an effect.
    pub(super) fn set_waker(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            let _ = self.waker.set(waker.clone());
        }
    }

    pub(super) fn orders(&self) -> Orders {
        Orders(self.orders.load(Ordering::Acquire))
    }

    /// Takes back the orders of this set that ask for a single check; all other orders hold for
    /// good.
    pub(super) fn acknowledge(&self, orders: Orders) {
        let checks = orders.0 & (Orders::CHECK_LIMITS | Orders::GIVE_WAY);
        self.orders.fetch_and(!checks, Ordering::AcqRel);
    }

    /// Has each response say that the connection closes, if it is old enough. A client that sends
    /// requests ahead is spared: those behind the response that says so would be lost.
    pub(super) fn close_for_age(&self, now_ms: u64) {
        let is_old = now_ms >= self.closes_from_ms;
        let is_asked = self.orders().has_announce_close();
        if is_old && !is_asked && !self.has_pipelined.load(Ordering::Relaxed) {
            self.order(Orders::ANNOUNCE_CLOSE);
        }
    }

    /// Has the connection's task run.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Gives an order, and wakes the task. Without a waker the task has not run yet; it reads its
    /// orders when it does.
    pub(super) fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.wake();
    }
}

/// The phase in the lowest three bits of `phase_since`.
fn phase_of(bits: u64) -> Phase {
    match bits & 7 {
        0 => Phase::Idle,
        1 => Phase::Head,
        2 => Phase::Busy,
        3 => Phase::Body,
        _ => Phase::Linger,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
