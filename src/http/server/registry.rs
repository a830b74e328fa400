//! The registry of open connections: their number, and which of them must close.
//!
//! Owned here: the count, the limits, and the choice. Never here: a socket. The registry gives a
//! connection an order and wakes its task; the task itself decides whether to close, because it
//! can ask the kernel whether bytes have come in the meantime.
//!
//! No timer is armed for a request. A connection records its times (two atomic stores and two
//! readings of the clock a request), and one sweep over all connections finds exceeded limits.

use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::clock::Clock;
use super::flags::Orders;
use super::limits::TimeLimits;
use super::rates::RateVerdict;
use super::snapshot::CloseRank;
use super::status::{Admission, ConnectionStatus};
use crate::config::{AccessLog, HttpConfig};

/// Connections that one ranking of all connections keeps as candidates for closing.
const MAX_CANDIDATES: usize = 256;

/// How many connections are ranked in a millisecond, on average, to find one to close. It takes
/// about a fiftieth of that time, so a flood of connections costs a few percent of one CPU.
const RANKED_PER_MS: u64 = 300;

/// Longest wait before the registry is asked again for a place, or the system for a descriptor.
const MAX_WAIT_FOR_CLOSE: Duration = Duration::from_millis(50);

/// Connections for which the map keeps its capacity; capacity beyond is given back.
const MIN_CAPACITY: usize = 64;

/// Connections that may be open beyond `--max-connections`, each for one health check.
pub(super) const MAX_HEALTH_CHECKS: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    limits: TimeLimits,
    max_connections: NonZeroUsize,
    keeps_peers: bool,
    clock: Clock,
    connections: Mutex<Connections>,
    /// A connection has closed, or was asked to give way and stays open.
    place_may_be_free: Notify,
    /// How many tasks wait for `place_may_be_free`.
    waiters: AtomicUsize,
}

#[derive(Debug, Default)]
struct Connections {
    open: HashMap<u64, Arc<ConnectionStatus>>,
    /// How many of the open connections have a place beyond the limit.
    health_checks: usize,
    next_id: u64,
    /// Orders that every new connection starts with.
    orders: u8,
    /// Connections to close next for newcomers, taken from the end; each with its rank when ranked.
    candidates: Vec<(CloseRank, u64)>,
    ranked_at_ms: Option<u64>,
}

impl Registry {
    pub(super) fn new(config: &HttpConfig) -> Arc<Registry> {
        let keeps_peers = config.access_log != AccessLog::Off;
        Registry::with_limits(TimeLimits::new(config), config.max_connections, keeps_peers)
    }

    /// Whether the addresses of clients are wanted, which cost a system call.
    pub(super) fn keeps_peers(&self) -> bool {
        self.keeps_peers
    }

    fn with_limits(
        limits: TimeLimits,
        max_connections: NonZeroUsize,
        keeps_peers: bool,
    ) -> Arc<Registry> {
        Arc::new(Registry {
            limits,
            max_connections,
            keeps_peers,
            clock: Clock::start(),
            connections: Mutex::default(),
            place_may_be_free: Notify::new(),
            waiters: AtomicUsize::new(0),
        })
    }

    /// Locks the map; no code under the lock can leave it half changed, so that a poisoned map is
    /// still whole.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limits(&self) -> &TimeLimits {
        &self.limits
    }

    /// Registers a connection, unless `--max-connections` are open.
    pub(super) fn register(self: &Arc<Self>) -> Option<Registration> {
        let mut connections = self.lock();
        if connections.open.len() - connections.health_checks >= self.max_connections.get() {
            return None;
        }
        Some(self.insert(&mut connections, Admission::Regular))
    }

    /// Registers a connection beyond the limit, which gets one response.
    pub(super) fn register_health_check(self: &Arc<Self>) -> Option<Registration> {
        let mut connections = self.lock();
        if connections.health_checks >= MAX_HEALTH_CHECKS {
            return None;
        }
        connections.health_checks += 1;
        Some(self.insert(&mut connections, Admission::HealthCheck))
    }

    fn insert(
        self: &Arc<Self>,
        connections: &mut Connections,
        admission: Admission,
    ) -> Registration {
        let id = connections.next_id;
        connections.next_id += 1;
        let status = ConnectionStatus::new(
            self.clock,
            connections.orders,
            admission,
            self.limits
                .closes_from_ms(self.clock.now_ms(), fastrand::f64()),
        );
        let status = Arc::new(status);
        connections.open.insert(id, Arc::clone(&status));
        Registration {
            registry: Arc::clone(self),
            status,
            id,
        }
    }

    fn deregister(&self, id: u64) {
        self.lock().remove(id);
        if self.waiters.load(Ordering::Acquire) > 0 {
            self.place_may_be_free.notify_one();
        }
    }

    /// The statuses of all connections at this moment.
    #[cfg(test)]
    pub(super) fn snapshots(&self) -> Vec<super::snapshot::ConnectionSnapshot> {
        self.lock()
            .open
            .values()
            .map(|status| status.snapshot())
            .collect()
    }

    /// Asks the connection whose loss is the smallest to close, and waits until a connection has
    /// closed or `MAX_WAIT_FOR_CLOSE` is over.
    pub(super) async fn close_one_and_wait(&self, newcomer: Newcomer) {
        self.waiters.fetch_add(1, Ordering::AcqRel);
        let _waiter = CountedWaiter(self);
        self.close_one(newcomer);
        // Cancel-safe: a lost notification costs one pause.
        let _ = tokio::time::timeout(MAX_WAIT_FOR_CLOSE, self.place_may_be_free.notified()).await;
    }

    /// Asks the connection whose loss is the smallest to close; says whether there was one.
    fn close_one(&self, newcomer: Newcomer) -> bool {
        let now_ms = self.clock.now_ms();
        let mut connections = self.lock();
        if connections.candidates.is_empty() {
            let pause_ms = connections.open.len() as u64 / RANKED_PER_MS;
            if connections
                .ranked_at_ms
                .is_some_and(|at_ms| now_ms < at_ms + pause_ms)
            {
                return false;
            }
            connections.ranked_at_ms = Some(now_ms);
            connections.find_candidates(now_ms);
        }
        while let Some((earlier, id)) = connections.candidates.pop() {
            if let Some(status) = connections.open.get(&id)
                && let Some(rank) = status.snapshot().close_rank(now_ms)
                && rank.is_unchanged_since(earlier)
            {
                let cuts_request = matches!(rank, CloseRank::SlowTransfer { .. });
                if cuts_request && newcomer == Newcomer::Silent {
                    // Other connections may be idle by the next ranking.
                    connections.candidates.clear();
                    return false;
                }
                status.order(Orders::GIVE_WAY);
                return true;
            }
        }
        false
    }

    /// Asks the connection with the slowest body or response to close, so that the memory it holds
    /// is given back; says whether there was one.
    pub(super) fn ask_slowest_to_close(&self) -> bool {
        let now_ms = self.clock.now_ms();
        let connections = self.lock();
        let slow = connections.open.values().filter_map(|status| {
            let Some(CloseRank::SlowTransfer { rate }) = status.snapshot().close_rank(now_ms)
            else {
                return None;
            };
            (!status.orders().has_give_way()).then_some((rate, status))
        });
        let slowest = slow.min_by_key(|(rate, _)| *rate);
        slowest
            .inspect(|(_, status)| status.order(Orders::GIVE_WAY))
            .is_some()
    }

    /// Records that a connection which was asked to give way stays open: a request has come.
    pub(super) fn record_stays_open(&self) {
        self.place_may_be_free.notify_one();
    }

    /// Has each response say that its connection closes, on new connections too.
    pub(super) fn announce_close(&self) {
        self.order_all(Orders::ANNOUNCE_CLOSE);
    }

    /// Closes connections as soon as they have no request, new connections too.
    pub(super) fn close_idle(&self) {
        self.order_all(Orders::CLOSE_IDLE);
    }

    /// Closes all connections immediately, new connections too.
    pub(super) fn abort(&self) {
        self.order_all(Orders::ABORT);
    }

    /// Whether all connections are to close immediately.
    pub(super) fn is_aborted(&self) -> bool {
        Orders(self.lock().orders).has_abort()
    }

    fn order_all(&self, order: u8) {
        let mut connections = self.lock();
        connections.orders |= order;
        for status in connections.open.values() {
            status.order(order);
        }
    }

    /// Checks the limits of all connections, once a period.
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
            // The worker may have been stopped for a while, and bytes that came meanwhile are
            // unread: connections get one more period. Not twice in a row, or a slow worker would
            // have no limits.
            let is_spared = is_late && !was_late;
            was_late = is_spared;
            if !is_spared {
                self.check_all();
            }
        }
    }

    fn check_all(&self) {
        let now_ms = self.clock.now_ms();
        for status in self.lock().open.values() {
            let snapshot = status.snapshot();
            if let RateVerdict::FastEnough { carried } = self.limits.verdict(snapshot, now_ms) {
                status.begin_window(now_ms, carried);
            }
            status.close_for_age(now_ms);
            if self.limits.exceeded(snapshot, now_ms).is_some() {
                status.order(Orders::CHECK_LIMITS);
            }
        }
    }
}

/// The connection that waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// No byte has come from it, and no other connection's request is cut short for it.
    Silent,
    /// It has a request, or may have one.
    WithRequest,
}

impl Connections {
    fn remove(&mut self, id: u64) {
        if self
            .open
            .remove(&id)
            .is_some_and(|status| status.is_for_health_check())
        {
            self.health_checks -= 1;
        }
        let capacity = self.open.capacity();
        if capacity > MIN_CAPACITY && self.open.len() < capacity / 8 {
            self.open
                .shrink_to(2 * self.open.len().max(MIN_CAPACITY / 2));
        }
        if self.open.is_empty() {
            self.candidates = Vec::new();
        }
    }

    /// Ranks all connections, and keeps the first to close.
    fn find_candidates(&mut self, now_ms: u64) {
        // A connection that was asked already is about to close.
        let not_asked = self
            .open
            .iter()
            .filter(|(_, status)| !status.orders().has_give_way());
        let ranked =
            not_asked.filter_map(|(id, status)| Some((status.snapshot().close_rank(now_ms)?, *id)));
        let mut candidates: Vec<_> = ranked.collect();
        if candidates.len() > MAX_CANDIDATES {
            candidates.select_nth_unstable(MAX_CANDIDATES);
            candidates.truncate(MAX_CANDIDATES);
            candidates.shrink_to_fit();
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        self.candidates = candidates;
    }
}

/// Counts as one of the registry's waiters until dropped.
struct CountedWaiter<'a>(&'a Registry);

impl Drop for CountedWaiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The entry of one connection in the registry; dropping it removes the connection.
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
        self.registry.deregister(self.id);
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
