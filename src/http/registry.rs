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

use super::state::{Limits, Orders, State, milliseconds, rank};
use crate::config::HttpConfig;

/// Connections that one look over all of them puts aside for being closed.
const CANDIDATES: usize = 256;

/// How many connections are looked over in a millisecond, on average, to find one to close. It
/// takes about a fiftieth of that time, so a flood of connections costs a few percent of one CPU.
const LOOKS_PER_MS: u64 = 300;

/// How long to wait at most before looking again whether there is room, or a descriptor.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// All open connections.
#[derive(Debug)]
pub(super) struct Registry {
    limits: Limits,
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
    open: HashMap<u64, Arc<State>>,
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
            limits: Limits::new(config),
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

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until there is room, asking the longest idle connection to leave when there is none.
    pub(super) async fn admit(self: &Arc<Self>) -> Ticket {
        loop {
            if let Some(ticket) = self.enter() {
                return ticket;
            }
            self.make_room_and_wait().await;
        }
    }

    /// Asks the connection that is the least loss to leave, and waits until one has left or
    /// `ROOM_PAUSE` is over.
    pub(super) async fn make_room_and_wait(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        self.make_room();
        // Cancel-safe: a lost notification costs one pause.
        let _ = tokio::time::timeout(ROOM_PAUSE, self.moved.notified()).await;
    }

    /// Registers a connection, unless there are as many as may be.
    fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let mut connections = self.lock();
        if connections.open.len() >= self.max_connections.get() {
            return None;
        }
        let id = connections.next_id;
        connections.next_id += 1;
        let state = Arc::new(State::new(self.epoch, connections.orders));
        connections.open.insert(id, Arc::clone(&state));
        Some(Ticket {
            registry: Arc::clone(self),
            state,
            id,
        })
    }

    /// What all connections are doing.
    #[cfg(test)]
    pub(super) fn standings(&self) -> Vec<super::state::Standing> {
        self.lock()
            .open
            .values()
            .map(|state| state.standing())
            .collect()
    }

    /// Asks the connection that is the least loss to leave; says whether there was one.
    fn make_room(&self) -> bool {
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
            if let Some(state) = connections.open.get(&id)
                && rank(state.standing(), now_ms) == Some(rank_then)
            {
                state.order(Orders::MAKE_ROOM);
                return true;
            }
        }
        false
    }

    /// A connection that was asked to leave has a request after all.
    pub(super) fn note_refusal(&self) {
        self.moved.notify_one();
    }

    fn leave(&self, id: u64) {
        self.lock().open.remove(&id);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.moved.notify_one();
        }
    }

    /// From now on connections close as soon as they have no request, new ones too.
    pub(super) fn drain(&self) {
        self.order_all(Orders::DRAIN);
    }

    /// From now on connections close at once, new ones too.
    pub(super) fn abort(&self) {
        self.order_all(Orders::ABORT);
    }

    fn order_all(&self, order: u8) {
        let mut connections = self.lock();
        connections.orders |= order;
        for state in connections.open.values() {
            state.order(order);
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
        for state in self.lock().open.values() {
            if self.limits.exceeded(state.standing(), now_ms).is_some() {
                state.order(Orders::CHECK);
            }
        }
    }
}

impl Connections {
    fn find_candidates(&mut self, now_ms: u64) {
        // Those asked already are on their way out.
        let rest = self
            .open
            .iter()
            .filter(|(_, state)| !state.orders().has_make_room());
        let ranked =
            rest.filter_map(|(id, state)| rank(state.standing(), now_ms).map(|rank| (rank, *id)));
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
pub(super) struct Ticket {
    registry: Arc<Registry>,
    state: Arc<State>,
    id: u64,
}

impl Ticket {
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::state::Phase;
    use super::*;

    fn registry(max_connections: usize) -> Arc<Registry> {
        Arc::new(Registry {
            limits: Limits::of_tests(),
            max_connections: NonZeroUsize::new(max_connections).unwrap(),
            epoch: Instant::now(),
            connections: Mutex::default(),
            moved: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    fn asked_to_leave(tickets: &[Ticket]) -> Vec<usize> {
        let asked = |ticket: &Ticket| ticket.state.orders().has_make_room();
        (0..tickets.len())
            .filter(|index| asked(&tickets[*index]))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_lingering_then_longest_idle_then_slow_heads() {
        let registry = registry(6);
        let mut tickets = Vec::new();
        for _ in 0..6 {
            tickets.push(registry.enter().unwrap());
            pass(10).await;
        }
        tickets[0].state.note_read();
        tickets[1].state.enter(Phase::Busy);
        tickets[2].state.enter(Phase::Idle);
        tickets[4].state.enter(Phase::Linger);
        tickets[5].state.note_write_blocked();
        pass(2_000).await;
        assert!(registry.enter().is_none());
        for expected in [vec![4], vec![3, 4], vec![2, 3, 4], vec![0, 2, 3, 4]] {
            assert!(registry.make_room());
            assert_eq!(asked_to_leave(&tickets), expected);
        }
        assert!(!registry.make_room(), "busy and stalled connections stay");
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_that_got_a_request_meanwhile_is_passed_over() {
        let registry = registry(2);
        let tickets = [registry.enter().unwrap(), registry.enter().unwrap()];
        assert!(registry.make_room(), "both are put aside, and one is asked");
        let [asked] = asked_to_leave(&tickets)[..] else {
            panic!("not one")
        };
        tickets[1 - asked].state.note_read();
        assert!(!registry.make_room());
        assert_eq!(asked_to_leave(&tickets), [asked]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_are_looked_over_only_once_in_a_pause() {
        let registry = registry(900);
        let tickets: Vec<_> = (0..900).map(|_| registry.enter().unwrap()).collect();
        tickets
            .iter()
            .for_each(|ticket| ticket.state.enter(Phase::Busy));
        assert!(!registry.make_room());
        tickets[0].state.enter(Phase::Idle);
        pass(2).await;
        assert!(
            !registry.make_room(),
            "within the pause nobody is looked for"
        );
        pass(1).await;
        assert!(registry.make_room());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweep_tells_connections_over_a_limit_to_look() {
        let registry = registry(2);
        let idle = registry.enter().unwrap();
        let head = registry.enter().unwrap();
        head.state.note_read();
        let sweep = registry.sweep();
        let watch = tokio::time::timeout(Duration::from_millis(150), sweep);
        assert!(watch.await.is_err());
        assert!(head.state.orders().has_check());
        assert!(idle.state.orders().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_connections_get_a_period_to_read_what_came() {
        let registry = registry(1);
        let ticket = registry.enter().unwrap();
        ticket.state.note_read();
        let mut sweep = std::pin::pin!(registry.sweep());
        let mut poll = || {
            let mut context = std::task::Context::from_waker(Waker::noop());
            assert!(sweep.as_mut().poll(&mut context).is_pending());
            ticket.state.orders().has_check()
        };
        assert!(!poll());
        pass(3_000).await;
        assert!(!poll(), "spared once");
        pass(10).await;
        assert!(poll());
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_are_born_with_the_order_to_drain() {
        let registry = registry(2);
        let old = registry.enter().unwrap();
        registry.drain();
        let new = registry.enter().unwrap();
        assert!(old.state.orders().has_drain() && new.state.orders().has_drain());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_gets_it_as_soon_as_someone_leaves() {
        let registry = registry(1);
        let ticket = registry.enter().unwrap();
        ticket.state.enter(Phase::Busy);
        let begun = Instant::now();
        let (_ticket, ()) = tokio::join!(registry.admit(), async { drop(ticket) });
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
    #[tokio::test(start_paused = true)]
    async fn when_one_stays_the_next_is_asked_at_once() {
        let registry = registry(2);
        let mut tickets = vec![registry.enter().unwrap(), registry.enter().unwrap()];
        let begun = Instant::now();
        let answer = async {
            let [stays] = asked_to_leave(&tickets)[..] else {
                panic!("not one")
            };
            tickets[stays].state.note_read();
            registry.note_refusal();
            let leaves = 1 - stays;
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert!(tickets[leaves].state.orders().has_make_room());
            drop(tickets.remove(leaves));
        };
        let (_ticket, ()) = tokio::join!(registry.admit(), answer);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
