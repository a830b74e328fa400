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
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::HttpConfig;

/// How long a closed connection is read on, so that its client gets to see the response.
const LINGER: Duration = Duration::from_secs(2);

/// A head that takes longer than this counts as idle when there is no room for a new connection.
/// Almost every head comes in one packet; one retransmission takes a second.
const SLOW_HEAD: Duration = Duration::from_millis(1_500);

/// Connections that one look over all of them puts aside for being closed.
const CANDIDATES: usize = 256;

/// The shortest time between two looks over all connections for one to close. With 16384 of them
/// a look takes about a millisecond, so a flood of connections costs a few percent of one CPU.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

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
    fn period(&self) -> Duration {
        let shortest_ms = self.header_ms.min(self.keep_alive_ms).min(self.write_ms);
        Duration::from_millis((shortest_ms / 10).clamp(10, 1_000))
    }
}

/// In which order connections are closed to make room; `None` for those that are not.
fn rank(standing: Standing, now_ms: u64) -> Option<(u8, u64)> {
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

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a connection has been told; several may hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orders(u8);

impl Orders {
    /// Look whether you are over a limit, and close if so.
    const CHECK: u8 = 1;
    /// Close if you are idle: somebody else needs the room.
    const MAKE_ROOM: u8 = 2;
    /// Close as soon as no request is left.
    const DRAIN: u8 = 4;
    /// Close now.
    const ABORT: u8 = 8;

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
    fn new(epoch: Instant, orders: u8) -> State {
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
    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

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
            self.waiting.fetch_add(1, Ordering::AcqRel);
            let waiting = Waiting(self);
            self.make_room();
            // Cancel-safe: a lost notification costs one pause.
            let _ = tokio::time::timeout(LOOK_PAUSE, self.moved.notified()).await;
            drop(waiting);
        }
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
    pub(super) fn standings(&self) -> Vec<Standing> {
        self.lock()
            .open
            .values()
            .map(|state| state.standing())
            .collect()
    }

    /// Asks the connection that is the least loss to leave; says whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let now_ms = self.now_ms();
        let mut connections = self.lock();
        if connections.candidates.is_empty() {
            let pause_ms = milliseconds(LOOK_PAUSE);
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
        let ranked = self
            .open
            .iter()
            .filter_map(|(id, state)| rank(state.standing(), now_ms).map(|rank| (rank, *id)));
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
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_ms: 100,
            keep_alive_ms: 1_000,
            write_ms: 300,
            linger_ms: 200,
        }
    }

    fn registry(max_connections: usize) -> Arc<Registry> {
        Arc::new(Registry {
            limits: limits(),
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
                limits().exceeded(standing, now_ms),
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
        assert_eq!(limits().exceeded(standing, 10), None);
    }

    #[test]
    fn the_sweep_is_a_tenth_of_the_shortest_limit_within_bounds() {
        let period = |header_ms| {
            Limits {
                header_ms,
                ..limits()
            }
            .period()
            .as_millis()
        };
        assert_eq!((period(1), period(200), period(300_000)), (10, 20, 30));
        let long = Limits {
            header_ms: 60_000,
            keep_alive_ms: 75_000,
            write_ms: 60_000,
            ..limits()
        };
        assert_eq!(long.period(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_passes_through_its_phases() {
        let registry = registry(1);
        let ticket = registry.enter().unwrap();
        let state = ticket.state();
        pass(50).await;
        state.note_read();
        pass(50).await;
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
        pass(20).await;
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
        let [asked] = asked_to_leave(&tickets)[..] else { panic!("not one") };
        tickets[1 - asked].state.note_read();
        assert!(!registry.make_room());
        assert_eq!(asked_to_leave(&tickets), [asked]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_are_looked_over_only_once_in_a_pause() {
        let registry = registry(1);
        let ticket = registry.enter().unwrap();
        ticket.state.enter(Phase::Busy);
        assert!(!registry.make_room());
        ticket.state.enter(Phase::Idle);
        assert!(
            !registry.make_room(),
            "within the pause nobody is looked for"
        );
        pass(milliseconds(LOOK_PAUSE)).await;
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
}
