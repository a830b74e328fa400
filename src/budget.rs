//! The memory budget of the worker: a limit on the bytes of requests and replies held at one time.
//!
//! The budget counts bytes that have arrived or were made, never bytes that were only announced:
//! bodies, payloads in the queue or in a process, lines on their way into a process, lines read
//! from a process, and responses that their clients have not taken. A piece below [`COUNTED_FROM`]
//! is not counted; the limit of connections bounds the number of these pieces.
//!
//! Requests may use three quarters of the limit. The last quarter is for their lines, replies and
//! responses: an admitted request can always be given to a process, and its reply be read, once the
//! clients of earlier replies have taken them. At the limit, no request is taken from the queue and
//! no long reply is read further, except for one reply at a time ([`MemoryBudget::overdraft`]):
//! answering it makes room again. Until it has made room, no other reply has the exception.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A piece below this size is not counted, in bytes. The size equals the longest payload that is
/// copied out of the buffer in which the payload came.
pub const COUNTED_FROM: usize = 4 * 1024;

/// A limit on the bytes held by the whole worker; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    /// All bytes that are held.
    held: AtomicU64,
    /// Bytes of requests among `held`.
    request_bytes: AtomicU64,
    /// Bytes of responses among `held`.
    response_bytes: AtomicU64,
    is_overdraft_granted: AtomicBool,
    /// Bytes that were held when the last overdraft was granted. The next one is granted when no
    /// more than this is held, or no byte of a response. `u64::MAX`: the last one is settled.
    settled_bytes: AtomicU64,
    /// Notified when there is room again, or an overdraft was dropped.
    room: Notify,
    /// Notified when a request or a reply lacked room.
    shortage: Notify,
}

/// Bytes of a request: held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

/// Bytes between a process and the worker (request lines on their way in, replies that are being
/// read): held until this is dropped.
#[derive(Debug)]
pub struct Usage {
    account: Arc<Account>,
    bytes: u64,
}

/// The right to read one reply at the limit. After the drop, the next overdraft is granted as soon
/// as no more bytes are held than when this one was granted, or no response is held: until then the
/// reply may be waiting for its client.
#[derive(Debug)]
pub struct Overdraft {
    account: Arc<Account>,
    held_before: u64,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> MemoryBudget {
        MemoryBudget(Arc::new(Account {
            limit,
            held: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            is_overdraft_granted: AtomicBool::new(false),
            settled_bytes: AtomicU64::new(u64::MAX),
            room: Notify::new(),
            shortage: Notify::new(),
        }))
    }

    /// The largest request that a budget of this many bytes can ever admit, in bytes.
    pub fn largest_request(limit: u64) -> u64 {
        limit - limit / 4
    }

    /// A reservation for a request of which nothing has come yet.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// The bytes of a buffer that holds nothing yet.
    pub fn usage(&self) -> Usage {
        Usage {
            account: Arc::clone(&self.0),
            bytes: 0,
        }
    }

    /// All bytes that are held now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// True while no request may be taken from the queue.
    pub fn is_full(&self) -> bool {
        self.held() >= self.0.limit
    }

    /// Reports that a call or a reply waits for room; the slowest readers are disconnected.
    pub fn report_shortage(&self) {
        self.0.shortage.notify_one();
    }

    /// Waits for a report of a shortage since the last call.
    // Cancel-safe: a report is kept until it is received.
    pub async fn shortage(&self) {
        self.0.shortage.notified().await;
    }

    /// Waits until there is room, or an overdraft would be granted.
    // Cancel-safe: only asks.
    pub async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.0.room.notified());
            freed.as_mut().enable();
            if !self.is_full() || self.0.would_grant_overdraft() {
                return;
            }
            freed.await;
        }
    }

    /// Waits until requests may be taken from the queue.
    // Cancel-safe: only asks.
    pub async fn room_for_requests(&self) {
        loop {
            let mut freed = std::pin::pin!(self.0.room.notified());
            freed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }

    /// The right to read one reply beyond the limit, if no other reply has it.
    pub fn overdraft(&self) -> Option<Overdraft> {
        if !self.0.would_grant_overdraft()
            || self.0.is_overdraft_granted.swap(true, Ordering::Relaxed)
        {
            return None;
        }
        self.0.settled_bytes.store(u64::MAX, Ordering::Relaxed);
        Some(Overdraft {
            account: Arc::clone(&self.0),
            held_before: self.held(),
        })
    }

    /// The body of a response, counted until its last byte has been handed to the system.
    pub fn count(&self, body: Bytes) -> Bytes {
        if body.len() < COUNTED_FROM {
            return body;
        }
        let bytes = body.len() as u64;
        self.0.response_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        Bytes::from_owner(Counted {
            account: Arc::clone(&self.0),
            body,
        })
    }
}

impl Account {
    fn give_back(&self, bytes: u64) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        let after = before - bytes;
        let settled_bytes = self.settled_bytes.load(Ordering::Relaxed);
        let is_settled = before > settled_bytes && after <= settled_bytes;
        if is_settled || (before >= self.limit && after < self.limit) {
            self.room.notify_waiters();
        }
    }

    /// Whether an overdraft would be granted. Held bytes alone cannot decide: they may never sink
    /// to `settled_bytes` again, because replies begun since then wait for the next overdraft. So
    /// it is granted without any response, too: then no reply waits for its client.
    fn would_grant_overdraft(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        !self.is_overdraft_granted.load(Ordering::Relaxed)
            && (held <= self.settled_bytes.load(Ordering::Relaxed)
                || self.response_bytes.load(Ordering::Relaxed) == 0)
    }
}

impl Reservation {
    /// Makes it hold at least this many bytes; false, and no change, if the budget forbids it.
    /// Fewer than [`COUNTED_FROM`] are always allowed, and not counted.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if bytes < COUNTED_FROM || more == 0 {
            return true;
        }
        let account = &self.budget.0;
        let requests = account.request_bytes.fetch_add(more, Ordering::Relaxed) + more;
        let held = account.held.fetch_add(more, Ordering::Relaxed) + more;
        self.bytes += more;
        if requests > MemoryBudget::largest_request(account.limit) || held > account.limit {
            self.release(more);
            self.budget.0.shortage.notify_one();
            return false;
        }
        true
    }

    /// Whether a request could be reserved for now; reports the shortage if not.
    pub fn has_room_or_reports(&self) -> bool {
        let requests = self.budget.0.request_bytes.load(Ordering::Relaxed);
        let held = self.budget.0.held.load(Ordering::Relaxed);
        let most = MemoryBudget::largest_request(self.budget.0.limit);
        let has_room = requests < most && held < self.budget.0.limit;
        if !has_room {
            self.budget.0.shortage.notify_one();
        }
        has_room
    }

    /// The budget that it belongs to.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    fn release(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.budget
            .0
            .request_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        self.budget.0.give_back(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.release(self.bytes);
        }
    }
}

impl Usage {
    /// Makes it hold this many bytes, also beyond the limit: the bytes are in memory already. Fewer
    /// than [`COUNTED_FROM`] are not counted.
    pub fn set(&mut self, bytes: usize) {
        let bytes = if bytes < COUNTED_FROM {
            0
        } else {
            bytes as u64
        };
        if bytes > self.bytes {
            self.account
                .held
                .fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.account.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Drop for Overdraft {
    fn drop(&mut self) {
        let account = &self.account;
        if account.held.load(Ordering::Relaxed) > self.held_before {
            account
                .settled_bytes
                .store(self.held_before, Ordering::Relaxed);
        }
        account.is_overdraft_granted.store(false, Ordering::Relaxed);
        account.room.notify_waiters();
    }
}

/// The body of a response; counts as held until the drop.
struct Counted {
    account: Arc<Account>,
    body: Bytes,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let account = &self.account;
        let bytes = self.body.len() as u64;
        let is_last = account.response_bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes;
        account.give_back(bytes);
        if is_last {
            account.room.notify_waiters();
        }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const KIB: usize = 1024;

    fn is_ready(future: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(pin!(future).poll(&mut context), Poll::Ready(_))
    }

    #[test]
    fn requests_have_three_quarters_over_all_and_give_them_back() {
        let budget = MemoryBudget::new(100 * KIB as u64);
        let [mut first, mut second] = [budget.reservation(), budget.reservation()];
        assert!(first.grow_to(70 * KIB) && first.grow_to(70 * KIB));
        assert!(!second.grow_to(6 * KIB));
        assert_eq!(budget.held(), 70 * KIB as u64, "a refusal changes nothing");
        assert!(second.grow_to(5 * KIB));
        assert!(!first.grow_to(71 * KIB));
        drop(second);
        assert!(first.grow_to(75 * KIB));
        drop(first);
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.0.request_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_small_request_is_never_refused_and_not_counted() {
        let budget = MemoryBudget::new(1);
        let mut usage = budget.usage();
        usage.set(1000 * KIB);
        assert!(budget.reservation().grow_to(COUNTED_FROM - 1));
        assert!(!budget.reservation().grow_to(COUNTED_FROM));
    }

    #[test]
    fn replies_beside_requests_fill_the_budget_and_make_room_when_taken() {
        let budget = MemoryBudget::new(100 * KIB as u64);
        let mut request = budget.reservation();
        assert!(request.grow_to(75 * KIB));
        assert!(!budget.is_full(), "requests alone never fill it");
        let response = budget.count(vec![0; 25 * KIB].into());
        assert!(budget.is_full() && !is_ready(budget.room_for_requests()));
        let mut waits = pin!(budget.room_for_requests());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let rest = response.slice(10..);
        drop(response);
        assert!(
            waits.as_mut().poll(&mut context).is_pending(),
            "a part is held"
        );
        drop(rest);
        assert!(waits.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn one_reply_at_a_time_may_go_beyond_the_limit() {
        let budget = MemoryBudget::new(10 * KIB as u64);
        let mut usage = budget.usage();
        usage.set(20 * KIB);
        let overdraft = budget.overdraft().unwrap();
        assert!(budget.overdraft().is_none() && !is_ready(budget.room()));
        drop(overdraft);
        assert!(is_ready(budget.room()) && budget.overdraft().is_some());
    }

    #[test]
    fn a_reply_beyond_the_limit_stands_in_the_way_of_the_next_until_it_is_taken() {
        let budget = MemoryBudget::new(10 * KIB as u64);
        let [mut reply, mut other] = [budget.usage(), budget.usage()];
        other.set(10 * KIB);
        let overdraft = budget.overdraft().unwrap();
        reply.set(30 * KIB);
        let response = budget.count(vec![0; 30 * KIB].into());
        drop(reply);
        drop(overdraft);
        assert!(budget.overdraft().is_none());
        let mut waits = pin!(budget.room());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(response);
        assert!(budget.is_full() && waits.as_mut().poll(&mut context).is_ready());
        assert!(budget.overdraft().is_some());
    }

    #[test]
    fn replies_begun_meanwhile_do_not_keep_the_next_from_being_read_beyond_the_limit() {
        let budget = MemoryBudget::new(10 * KIB as u64);
        let [mut reply, mut other, mut begun] = [budget.usage(), budget.usage(), budget.usage()];
        other.set(10 * KIB);
        reply.set(5 * KIB);
        let overdraft = budget.overdraft().unwrap();
        begun.set(8 * KIB);
        let response = budget.count(vec![0; 30 * KIB].into());
        drop(reply);
        drop(overdraft);
        let mut waits = pin!(budget.room());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(response);
        // No fewer bytes are held than before, and never will be: the other replies wait for this.
        assert!(budget.held() > 15 * KIB as u64);
        assert!(waits.as_mut().poll(&mut context).is_ready());
        assert!(budget.overdraft().is_some());
    }

    #[test]
    fn who_lacks_room_is_reported_once() {
        let budget = MemoryBudget::new(10 * KIB as u64);
        assert!(!is_ready(budget.shortage()));
        assert!(!budget.reservation().grow_to(10 * KIB));
        assert!(is_ready(budget.shortage()) && !is_ready(budget.shortage()));
    }
}
