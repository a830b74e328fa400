//! The pool's own tasks: growth, expired calls, and wake-ups that come later.

use super::{Dispatcher, EXIT_AFTER_REPLY_TIME, answer_all};
use crate::pool::scaling;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Least time between two searches of the queue for calls that have waited too long.
const EXPIRY_PERIOD: Duration = Duration::from_millis(5);

/// Time between two reports that the memory budget is full while calls wait.
const SHORTAGE_PERIOD: Duration = Duration::from_millis(20);

impl Dispatcher {
    /// Fills empty slots while calls wait for too long; never ends.
    pub(in crate::pool) async fn grow_when_needed(self: Arc<Dispatcher>) {
        loop {
            self.wants_more.notified().await;
            while self.grow_if_needed() {
                tokio::time::sleep(scaling::QUEUE_SAMPLE_PERIOD).await;
            }
        }
    }

    /// Fills one more slot if calls have waited too long; true while more slots may have to follow.
    fn grow_if_needed(&self) -> bool {
        let is_start_free = self.starts.available_permits() > 0;
        let mut state = self.lock();
        let (first, next) = state.queue.places();
        if state.scaling.sample(first, next, is_start_free) {
            self.fills.add_permits(1);
        }
        first.is_some() && state.scaling.could_fill()
    }

    /// Answers calls that have waited too long; never ends.
    pub(in crate::pool) async fn expire_in_time(self: Arc<Dispatcher>) {
        loop {
            let moved = self.deadline_moved.notified();
            let Some(next) = self.plan_expiry() else {
                moved.await;
                continue;
            };
            tokio::select! {
                // Cancel-safe: a lost notification only brings the next search forward.
                () = moved => {}
                () = tokio::time::sleep_until(next.into()) => self.expire(Instant::now()),
            }
            tokio::time::sleep(EXPIRY_PERIOD).await;
        }
    }

    /// Wakes a process again that took no call because it might have exited after a reply; never
    /// ends.
    pub(in crate::pool) async fn wake_after_possible_exits(self: Arc<Self>) {
        loop {
            self.may_exit.notified().await;
            sleep(EXIT_AFTER_REPLY_TIME).await;
            self.wake_one_for_first(self.lock());
        }
    }

    /// Wakes a process again when the memory budget has room for calls; never ends.
    pub(in crate::pool) async fn wake_when_budget_has_room(self: Arc<Self>) {
        loop {
            self.starved.notified().await;
            // The connections that take their responses most slowly are closed one by one until
            // there is room.
            let mut room = pin!(self.budget.room_for_requests());
            loop {
                self.budget.report_shortage();
                // Cancel-safe: the future is kept.
                if timeout(SHORTAGE_PERIOD, &mut room).await.is_ok() {
                    break;
                }
            }
            self.wake_one_for_first(self.lock());
        }
    }

    fn plan_expiry(&self) -> Option<Instant> {
        let mut state = self.lock();
        // An empty queue keeps its planned search, so that the next call need not plan one.
        let planned = state.next_expiry.filter(|expiry| *expiry > Instant::now());
        state.next_expiry = state.queue.next_deadline().or(planned);
        state.next_expiry
    }

    fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let late = state.queue.expire(now);
        let failure = (!late.is_empty()).then(|| state.waited_too_long());
        drop(state);
        answer_all(late, failure);
    }
}
