//! All open connections: in which phase each is, since when, and which of them must go.
//!
//! Owned here: the count, the limits, and the choice. Never here: a socket. A connection is told
//! to look at itself (an order and a wake-up); whether it really closes it decides in its own
//! task, where it can ask the kernel whether bytes have come in the meantime.
//!
//! No timer is armed for a request. A connection leaves stamps (two atomic stores and two looks
//! at the clock a request), and one sweep over all of them finds those that are over a limit.

use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::orders::Orders;
use super::rates::Verdict;
use super::status::{ConnectionStatus, RANK_OF_TRANSFERS, TimeLimits, milliseconds, rank};
use crate::config::HttpConfig;

/// Connections that one look over all of them puts aside for being closed.
const CANDIDATES: usize = 256;

/// How many connections are looked over in a millisecond, on average, to find one to close. It
/// takes about a fiftieth of that time, so a flood of connections costs a few percent of one CPU.
const LOOKS_PER_MS: u64 = 300;

/// How long to wait at most before looking again whether there is room, or a descriptor.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// The map of connections keeps room for this many, and gives the rest back.
const ROOM_KEPT: usize = 64;

/// Connections that may be open beyond the limit, each for one question of health.
pub(super) const GUESTS: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    limits: TimeLimits,
    max_connections: NonZeroUsize,
    epoch: Instant,
    connections: Mutex<Connections>,
    /// Someone left, or was asked to leave and did not.
    moved: Notify,
    /// How many wait for `moved`.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Connections {
    open: HashMap<u64, Arc<ConnectionStatus>>,
    /// How many of the open ones have a place beyond the limit.
    guests: usize,
    next_id: u64,
    /// Orders that a new connection is born with.
    orders: u8,
    /// Whom to close next to make room: the last first, each with the rank it had.
    candidates: Vec<((u8, u64), u64)>,
    looked_at_ms: Option<u64>,
}

impl Registry {
    pub(super) fn new(config: &HttpConfig) -> Arc<Registry> {
        Arc::new(Registry {
            limits: TimeLimits::new(config),
            max_connections: config.max_connections,
            epoch: Instant::now(),
            connections: Mutex::default(),
            moved: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Nothing under the lock can leave the map half changed, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.epoch.elapsed())
    }

    pub(super) fn limits(&self) -> &TimeLimits {
        &self.limits
    }

    /// Asks the connection that is the least loss to leave, and waits until one has left or
    /// `ROOM_PAUSE` is over.
    pub(super) async fn make_room_and_wait(&self, need: Need) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        self.make_room(need);
        // Cancel-safe: a lost notification costs one pause.
        let _ = tokio::time::timeout(ROOM_PAUSE, self.moved.notified()).await;
    }

    /// Registers a connection, unless there are as many as may be.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Registration> {
        let mut connections = self.lock();
        if connections.open.len() - connections.guests >= self.max_connections.get() {
            return None;
        }
        Some(self.register(&mut connections, Place::Regular))
    }

    /// Registers a connection beyond the limit, which is given one answer.
    pub(super) fn enter_as_guest(self: &Arc<Self>) -> Option<Registration> {
        let mut connections = self.lock();
        if connections.guests >= GUESTS {
            return None;
        }
        connections.guests += 1;
        Some(self.register(&mut connections, Place::Guest))
    }

    fn register(self: &Arc<Self>, connections: &mut Connections, place: Place) -> Registration {
        let id = connections.next_id;
        connections.next_id += 1;
        let is_guest = place == Place::Guest;
        let status = Arc::new(ConnectionStatus::new(
            self.epoch,
            connections.orders,
            is_guest,
        ));
        connections.open.insert(id, Arc::clone(&status));
        Registration {
            registry: Arc::clone(self),
            status,
            id,
        }
    }

    /// Whether all connections are to close at once.
    pub(super) fn is_aborted(&self) -> bool {
        Orders(self.lock().orders).has_abort()
    }

    /// What all connections are doing.
    #[cfg(test)]
    pub(super) fn snapshots(&self) -> Vec<super::status::Snapshot> {
        self.lock()
            .open
            .values()
            .map(|status| status.snapshot())
            .collect()
    }

    /// Asks the connection that is the least loss to leave; says whether there was one.
    fn make_room(&self, need: Need) -> bool {
        let now_ms = self.now_ms();
        let mut connections = self.lock();
        if connections.candidates.is_empty() {
            let pause_ms = connections.open.len() as u64 / LOOKS_PER_MS;
            if connections
                .looked_at_ms
                .is_some_and(|at_ms| now_ms < at_ms + pause_ms)
            {
                return false;
            }
            connections.looked_at_ms = Some(now_ms);
            connections.find_candidates(now_ms);
        }
        while let Some((rank_then, id)) = connections.candidates.pop() {
            if let Some(status) = connections.open.get(&id)
                && let Some(rank_now) = rank(status.snapshot(), now_ms)
                && rank_now.0 == rank_then.0
                // The rate of a transfer changes from moment to moment, what it waits for does not.
                && (rank_now == rank_then || rank_now.0 == RANK_OF_TRANSFERS)
            {
                if rank_now.0 == RANK_OF_TRANSFERS && need == Need::Silent {
                    // Others may have become idle by the next look.
                    connections.candidates.clear();
                    return false;
                }
                status.order(Orders::MAKE_ROOM);
                return true;
            }
        }
        false
    }

    /// Asks the connection whose body comes, or whose response is taken, the slowest to leave, so
    /// that what it holds is given back; says whether there was one.
    pub(super) fn let_the_slowest_go(&self) -> bool {
        let now_ms = self.now_ms();
        let connections = self.lock();
        let slow = connections.open.values().filter_map(|status| {
            let rank = rank(status.snapshot(), now_ms)?;
            let is_asked = status.orders().has_make_room();
            (rank.0 == RANK_OF_TRANSFERS && !is_asked).then_some((rank.1, status))
        });
        let slowest = slow.min_by_key(|(rate, _)| *rate);
        slowest
            .inspect(|(_, status)| status.order(Orders::MAKE_ROOM))
            .is_some()
    }

    /// A connection that was asked to leave has a request after all.
    pub(super) fn note_refusal(&self) {
        self.moved.notify_one();
    }

    fn leave(&self, id: u64) {
        self.lock().remove(id);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.moved.notify_one();
        }
    }

    /// From now on each response says that its connection closes, on new ones too.
    pub(super) fn drain(&self) {
        self.order_all(Orders::DRAIN);
    }

    /// From now on connections close as soon as they have no request, new ones too.
    pub(super) fn close_idle(&self) {
        self.order_all(Orders::LEAVE);
    }

    /// From now on connections close at once, new ones too.
    pub(super) fn abort(&self) {
        self.order_all(Orders::ABORT);
    }

    fn order_all(&self, order: u8) {
        let mut connections = self.lock();
        connections.orders |= order;
        for status in connections.open.values() {
            status.order(order);
        }
    }

    /// Looks at all connections again and again.
    pub(super) async fn sweep(&self) -> Infallible {
        let period = self.limits.period();
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut was_late = false;
        loop {
            ticks.tick().await;
            let is_late = last.elapsed() > 2 * period;
            last = Instant::now();
            // We may have been stopped for a while, and what clients sent meanwhile is unread:
            // one more period for reading it. Not twice in a row, or a slow worker has no limits.
            let is_spared = is_late && !was_late;
            was_late = is_spared;
            if !is_spared {
                self.check_all();
            }
        }
    }

    fn check_all(&self) {
        let now_ms = self.now_ms();
        for status in self.lock().open.values() {
            let snapshot = status.snapshot();
            if let Verdict::FastEnough { carried } = self.limits.verdict(snapshot, now_ms) {
                status.begin_window(now_ms, carried);
            }
            if self.limits.exceeded(snapshot, now_ms).is_some() {
                status.order(Orders::CHECK);
            }
        }
    }
}

/// A place among all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Regular,
    /// Beyond the limit.
    Guest,
}

/// What a connection is that needs room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It has sent nothing yet, and no request is cut short for it.
    Silent,
    /// It has a request.
    Request,
}

impl Connections {
    fn remove(&mut self, id: u64) {
        if self
            .open
            .remove(&id)
            .is_some_and(|status| status.is_guest())
        {
            self.guests -= 1;
        }
        let capacity = self.open.capacity();
        if capacity > ROOM_KEPT && self.open.len() < capacity / 8 {
            self.open.shrink_to(2 * self.open.len().max(ROOM_KEPT / 2));
        }
        if self.open.is_empty() {
            self.candidates = Vec::new();
        }
    }

    fn find_candidates(&mut self, now_ms: u64) {
        // Those asked already are on their way out.
        let rest = self
            .open
            .iter()
            .filter(|(_, status)| !status.orders().has_make_room());
        let ranked =
            rest.filter_map(|(id, status)| rank(status.snapshot(), now_ms).map(|rank| (rank, *id)));
        let mut candidates: Vec<_> = ranked.collect();
        if candidates.len() > CANDIDATES {
            candidates.select_nth_unstable(CANDIDATES);
            candidates.truncate(CANDIDATES);
            candidates.shrink_to_fit();
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        self.candidates = candidates;
    }
}

/// Counts one that waits, until dropped.
struct Waiting<'a>(&'a Registry);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's place among all; dropping it leaves.
#[derive(Debug)]
pub(super) struct Registration {
    registry: Arc<Registry>,
    status: Arc<ConnectionStatus>,
    id: u64,
}

impl Registration {
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn status(&self) -> &Arc<ConnectionStatus> {
        &self.status
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.leave(self.id);
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
