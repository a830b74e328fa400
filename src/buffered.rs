//! How many bytes of bodies and replies are held at one time, over the whole worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on bytes held; clones share it.
#[derive(Debug, Clone)]
pub struct Buffered {
    held: Arc<AtomicU64>,
    limit: u64,
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
pub struct Held {
    buffered: Buffered,
    bytes: u64,
}

impl Buffered {
    /// A bound of this many bytes.
    pub fn new(limit: u64) -> Buffered {
        Buffered {
            held: Arc::new(AtomicU64::new(0)),
            limit,
        }
    }

    /// Nothing held yet.
    pub fn start(&self) -> Held {
        Held {
            buffered: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    /// Makes it hold at least this many bytes; false, and unchanged, if the bound forbids it.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let limit = self.buffered.limit;
        let grown = |held: u64| held.checked_add(more).filter(|sum| *sum <= limit);
        let order = Ordering::Relaxed;
        let is_held = self.buffered.held.fetch_update(order, order, grown).is_ok();
        if is_held {
            self.bytes += more;
        }
        is_held
    }

    /// Makes it hold this many bytes more, whatever the bound: they are there already, and make
    /// newcomers wait.
    pub fn add(&mut self, bytes: u64) {
        self.buffered.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffered.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_over_all_and_is_given_back() {
        let buffered = Buffered::new(10);
        let mut first = buffered.start();
        let mut second = buffered.start();
        assert!(first.grow_to(6) && first.grow_to(6));
        assert!(!second.grow_to(5));
        assert!(second.grow_to(4));
        assert!(!first.grow_to(7));
        second.add(100);
        drop(second);
        assert!(first.grow_to(10));
        drop(first);
        assert_eq!(buffered.held.load(Ordering::Relaxed), 0);
    }
}
