//! What is known of one connection: what it is doing, what it was told, and what that means.
//!
//! Written by the connection's task, read by the registry. The part that decides which limit is
//! passed is pure: time comes in from outside.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::orders::{Marks, Orders};
use super::rates::{LeastRate, Transfer, Verdict};
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
    /// The request is being worked on.
    Busy,
    /// The rest of the request's body is waited for.
    Body,
    /// Closed by us; what still comes is read and thrown away.
    Linger,
}

impl Phase {
    fn from_bits(bits: u64) -> Phase {
        match bits & 7 {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Busy,
            3 => Phase::Body,
            _ => Phase::Linger,
        }
    }
}

/// What a connection is doing, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) phase: Phase,
    pub(super) since_ms: u64,
    /// Since when the client has taken nothing of a response that waits to be written.
    pub(super) stalled_since_ms: Option<u64>,
    /// The body that comes, or the response that the client has to take before all of it is gone.
    pub(super) transfer: Option<Transfer>,
}

/// The limit that a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Header,
    KeepAlive,
    Write,
    LeastRate,
    Linger,
}

/// The limits on a connection's time, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct TimeLimits {
    header_ms: u64,
    keep_alive_ms: u64,
    write_ms: u64,
    linger_ms: u64,
    least_rate: LeastRate,
}

impl TimeLimits {
    pub(super) fn new(config: &HttpConfig) -> TimeLimits {
        TimeLimits {
            header_ms: milliseconds(config.header_timeout),
            keep_alive_ms: milliseconds(config.keep_alive),
            write_ms: milliseconds(config.write_timeout),
            linger_ms: milliseconds(LINGER),
            least_rate: LeastRate::new(config.least_rate),
        }
    }

    #[cfg(test)]
    pub(super) fn of_tests() -> TimeLimits {
        TimeLimits {
            header_ms: 100,
            keep_alive_ms: 1_000,
            write_ms: 300,
            linger_ms: 200,
            least_rate: LeastRate {
                bytes_per_second: 1_000,
                grace_ms: 100,
            },
        }
    }

    /// The limit that a connection of this snapshot is over now.
    pub(super) fn exceeded(&self, snapshot: Snapshot, now_ms: u64) -> Option<Limit> {
        let is_past = |since_ms: u64, limit_ms: u64| now_ms.saturating_sub(since_ms) >= limit_ms;
        if self.verdict(snapshot, now_ms) == Verdict::TooSlow {
            return Some(Limit::LeastRate);
        }
        if let Some(since_ms) = snapshot.stalled_since_ms {
            return is_past(since_ms, self.write_ms).then_some(Limit::Write);
        }
        let (limit, limit_ms) = match snapshot.phase {
            Phase::Idle => (Limit::KeepAlive, self.keep_alive_ms),
            Phase::Head => (Limit::Header, self.header_ms),
            // Ends by the body timeout and the handler's timeout, which are not kept here.
            Phase::Busy | Phase::Body => return None,
            Phase::Linger => (Limit::Linger, self.linger_ms),
        };
        is_past(snapshot.since_ms, limit_ms).then_some(limit)
    }

    /// How long a connection may wait for its place: as long as for its head.
    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.header_ms)
    }

    /// Whether what is under way moves fast enough.
    pub(super) fn verdict(&self, snapshot: Snapshot, now_ms: u64) -> Verdict {
        snapshot.transfer.map_or(Verdict::Wait, |transfer| {
            self.least_rate.judge(transfer, now_ms)
        })
    }

    /// How often to look: a limit is passed by a tenth at most, or by a second.
    pub(super) fn period(&self) -> Duration {
        let shortest_ms = self.header_ms.min(self.keep_alive_ms).min(self.write_ms);
        Duration::from_millis((shortest_ms / 10).clamp(10, 1_000))
    }
}

/// The place of [`rank`] from which on a request is cut short by closing.
pub(super) const RANK_OF_TRANSFERS: u8 = 3;

/// In which order connections are closed to make room; `None` for those that are not.
pub(super) fn rank(snapshot: Snapshot, now_ms: u64) -> Option<(u8, u64)> {
    if let Some(transfer) = snapshot.transfer {
        let is_slow = transfer.is_slow(now_ms);
        return is_slow.then(|| (RANK_OF_TRANSFERS, transfer.rate(now_ms)));
    }
    match snapshot.phase {
        Phase::Linger => Some((0, snapshot.since_ms)),
        Phase::Idle => Some((1, snapshot.since_ms)),
        Phase::Head => is_slow_head(snapshot, now_ms).then_some((2, snapshot.since_ms)),
        Phase::Busy | Phase::Body => None,
    }
}

/// Whether the head has taken so long that the connection may go when room is needed.
pub(super) fn is_slow_head(snapshot: Snapshot, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(snapshot.since_ms);
    snapshot.phase == Phase::Head && age_ms >= milliseconds(SLOW_HEAD)
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is known of one connection; written by its task, read by the sweep.
#[derive(Debug)]
pub(super) struct ConnectionStatus {
    /// Milliseconds on the registry's clock, times 8, plus the phase: one store changes both.
    phase_since: AtomicU64,
    /// Milliseconds plus one; 0 while nothing is stalled.
    stalled: AtomicU64,
    /// Since when a response has waited to be taken whole: milliseconds plus one, 0 for none.
    taking: AtomicU64,
    /// Bytes of bodies that came late and of responses that had to wait. It only grows.
    moved: AtomicU64,
    /// When the window began over which the rate is measured.
    window_ms: AtomicU64,
    /// `moved` as it was then, less what is carried over.
    window_moved: AtomicU64,
    orders: AtomicU8,
    /// Whether the last read found nothing.
    read_blocked: AtomicBool,
    /// What is special about the request that is being answered.
    marks: AtomicU8,
    /// Requests begun since the connection's task was last run.
    begun: AtomicU8,
    /// The connection has a place beyond the limit, for one question of health.
    is_guest: bool,
    /// The connection runs in one task from end to end, so its waker never changes.
    waker: OnceLock<Waker>,
    epoch: Instant,
}

/// Requests that one connection has answered before others have their turn: hyper goes on with
/// those that are pipelined.
const REQUESTS_A_TURN: u8 = 2;

impl ConnectionStatus {
    pub(super) fn new(epoch: Instant, orders: u8, is_guest: bool) -> ConnectionStatus {
        let state = ConnectionStatus {
            phase_since: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            taking: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            window_ms: AtomicU64::new(0),
            window_moved: AtomicU64::new(0),
            orders: AtomicU8::new(orders),
            read_blocked: AtomicBool::new(false),
            marks: AtomicU8::new(0),
            begun: AtomicU8::new(0),
            is_guest,
            waker: OnceLock::new(),
            epoch,
        };
        state.enter(Phase::Idle);
        state
    }

    pub(super) fn is_guest(&self) -> bool {
        self.is_guest
    }

    /// The connection's task is run.
    pub(super) fn begin_turn(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }

    /// Whether other connections are to be served before the request that was begun last.
    pub(super) fn is_turn_over(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > REQUESTS_A_TURN
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
        self.phase_since
            .store(since_ms << 3 | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_bits(self.phase_since.load(Ordering::Relaxed))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let bits = self.phase_since.load(Ordering::Relaxed);
        let (phase, since_ms) = (Phase::from_bits(bits), bits >> 3);
        let taking_since_ms = self.taking.load(Ordering::Relaxed).checked_sub(1);
        let under_way = taking_since_ms.or_else(|| (phase == Phase::Body).then_some(since_ms));
        let moved = self.moved.load(Ordering::Relaxed);
        Snapshot {
            phase,
            since_ms,
            stalled_since_ms: self.stalled.load(Ordering::Relaxed).checked_sub(1),
            transfer: under_way.map(|since_ms| Transfer {
                since_ms,
                window_ms: self.window_ms.load(Ordering::Relaxed),
                moved: moved.saturating_sub(self.window_moved.load(Ordering::Relaxed)),
            }),
        }
    }

    /// From now on the rate is measured, with this much to its credit.
    pub(super) fn begin_window(&self, now_ms: u64, carried: u64) {
        let moved = self.moved.load(Ordering::Relaxed);
        self.window_ms.store(now_ms, Ordering::Relaxed);
        self.window_moved
            .store(moved.saturating_sub(carried), Ordering::Relaxed);
    }

    fn note_moved(&self, count: usize) {
        // Only the connection's task writes it.
        let moved = self.moved.load(Ordering::Relaxed);
        self.moved.store(moved + count as u64, Ordering::Relaxed);
    }

    /// So many bytes came from the client.
    pub(super) fn note_read(&self, count: usize) {
        self.read_blocked.store(false, Ordering::Relaxed);
        match self.phase() {
            Phase::Idle => self.enter(Phase::Head),
            Phase::Body => self.note_moved(count),
            Phase::Head | Phase::Busy | Phase::Linger => (),
        }
    }

    /// The rest of the body is waited for.
    pub(super) fn note_body_awaited(&self) {
        if self.phase() == Phase::Busy {
            self.enter(Phase::Body);
            self.begin_window(self.now_ms(), 0);
        }
    }

    /// The body was read to its end.
    pub(super) fn note_body_whole(&self) {
        let marks = self.marks.load(Ordering::Relaxed);
        self.marks.store(marks & !Marks::UNREAD, Ordering::Relaxed);
        if self.phase() == Phase::Body {
            self.enter(Phase::Busy);
        }
    }

    /// A read found nothing.
    pub(super) fn note_read_blocked(&self) {
        self.read_blocked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_read_blocked(&self) -> bool {
        self.read_blocked.load(Ordering::Relaxed)
    }

    /// The client took so many bytes.
    pub(super) fn note_written(&self, count: usize) {
        if self.taking.load(Ordering::Relaxed) != 0 {
            self.note_moved(count);
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
            let now_ms = self.now_ms();
            self.stalled.store(now_ms + 1, Ordering::Relaxed);
            if self.taking.load(Ordering::Relaxed) == 0 {
                self.taking.store(now_ms + 1, Ordering::Relaxed);
                self.begin_window(now_ms, 0);
            }
        }
    }

    /// Nothing is left that waits to be written.
    pub(super) fn note_flushed(&self) {
        if self.taking.load(Ordering::Relaxed) != 0 {
            self.taking.store(0, Ordering::Relaxed);
            self.stalled.store(0, Ordering::Relaxed);
        }
    }

    /// A request has come.
    pub(super) fn begin_request(&self, has_body: bool) {
        // Only the connection's task writes it.
        let begun = self.begun.load(Ordering::Relaxed);
        self.begun.store(begun.saturating_add(1), Ordering::Relaxed);
        self.enter(Phase::Busy);
        let marks = if has_body { Marks::UNREAD } else { 0 };
        self.marks.store(marks, Ordering::Relaxed);
    }

    pub(super) fn mark(&self, mark: u8) {
        self.marks.fetch_or(mark, Ordering::Relaxed);
    }

    pub(super) fn marks(&self) -> Marks {
        Marks(self.marks.load(Ordering::Relaxed))
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

    /// Has the task look again.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Without a waker the task has not run yet; it reads its orders when it does.
    pub(super) fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.wake();
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
