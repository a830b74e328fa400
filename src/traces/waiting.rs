//! The buffer in which finished requests wait for the thread that sends their spans.
//!
//! Bounded: with a receiver that is slow or dead, requests go on, and spans are left out and
//! counted.

use super::record::RequestRecord;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;
use tracing::warn;

/// Finished requests that wait, and the count of their spans.
#[derive(Debug)]
pub(super) struct Waiting {
    buffer: Mutex<Buffer>,
    /// Most spans that wait.
    limit: usize,
    /// Spans from which on they are sent without waiting for more.
    batch: usize,
    is_batch_there: Notify,
    /// Spans of all sampled requests that are over.
    made: AtomicU64,
    /// Spans that the receiver has taken.
    sent: AtomicU64,
    is_loss_told: AtomicBool,
}

#[derive(Debug, Default)]
struct Buffer {
    records: Vec<RequestRecord>,
    spans: usize,
}

impl Waiting {
    /// An empty buffer for this many spans, of which this many make a batch.
    pub(super) fn new(limit: NonZeroUsize, batch: NonZeroUsize) -> Waiting {
        Waiting {
            buffer: Mutex::default(),
            limit: limit.get(),
            batch: batch.get(),
            is_batch_there: Notify::new(),
            made: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            is_loss_told: AtomicBool::new(false),
        }
    }

    /// Adds a finished request, if there is room.
    pub(super) fn push(&self, record: RequestRecord) {
        let spans = record.spans();
        self.made.fetch_add(spans as u64, Ordering::Relaxed);
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.spans + spans > self.limit {
            drop(buffer);
            self.tell_of_loss();
            return;
        }
        buffer.records.push(record);
        let before = buffer.spans;
        buffer.spans += spans;
        let is_batch_new = before < self.batch && buffer.spans >= self.batch;
        drop(buffer);
        // Not for each request: to wake a thread costs more than the request's spans.
        if is_batch_new {
            self.is_batch_there.notify_one();
        }
    }

    /// Swaps the waiting requests with `taken`, which must be empty, and whose memory is used
    /// again.
    pub(super) fn take(&self, taken: &mut Vec<RequestRecord>) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.records, taken);
        buffer.spans = 0;
    }

    /// Waits until there is a batch.
    // Cancel-safe: a notification without a waiting task is kept.
    pub(super) async fn batch_is_there(&self) {
        self.is_batch_there.notified().await;
    }

    /// Counts spans that the receiver has taken.
    pub(super) fn sent(&self, spans: usize) {
        self.sent.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Spans that the receiver has not taken.
    pub(super) fn lost(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        self.made.load(Ordering::Relaxed).saturating_sub(sent)
    }

    /// Logs the first loss alone: a line for each would be as many lines as spans.
    fn tell_of_loss(&self) {
        if !self.is_loss_told.swap(true, Ordering::Relaxed) {
            let limit = self.limit;
            warn!(
                limit,
                "spans are lost, because too many wait for the receiver of traces \
                 (OTEL_BSP_MAX_QUEUE_SIZE); the end of the log has their number"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(limit: usize, batch: usize) -> Waiting {
        let [limit, batch] = [limit, batch].map(|number| NonZeroUsize::new(number).unwrap());
        Waiting::new(limit, batch)
    }

    #[test]
    fn spans_beyond_the_limit_are_lost_and_counted() {
        let waiting = waiting(5, 5);
        // Two spans each.
        (0..4).for_each(|_| waiting.push(RequestRecord::example()));
        let mut taken = Vec::new();
        waiting.take(&mut taken);
        assert_eq!(taken.len(), 2);
        waiting.sent(4);
        assert_eq!(waiting.lost(), 4);
        taken.clear();
        waiting.push(RequestRecord::example());
        waiting.take(&mut taken);
        assert_eq!(taken.len(), 1);
        waiting.sent(2);
        assert_eq!(waiting.lost(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_batch_is_told_once_and_less_is_not() {
        let waiting = waiting(100, 4);
        let soon = std::time::Duration::from_millis(1);
        let is_told = async || {
            let told = tokio::time::timeout(soon, waiting.batch_is_there());
            told.await.is_ok()
        };
        waiting.push(RequestRecord::example());
        assert!(!is_told().await);
        waiting.push(RequestRecord::example());
        waiting.push(RequestRecord::example());
        assert!(is_told().await);
        assert!(!is_told().await);
    }
}
