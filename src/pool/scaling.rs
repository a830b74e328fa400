//! Scaling: how many slots are filled. More while calls wait too long, fewer while processes are
//! idle.
//!
//! Pure. Looks at the queue at intervals of [`QUEUE_SAMPLE_PERIOD`]: a call that waited at the last
//! sample and still waits has waited too long.

use std::num::NonZeroUsize;
use std::time::Duration;

/// A call that waits for longer makes the pool grow. Several times as long as a call waits for its
/// turn on a busy machine.
pub(super) const QUEUE_SAMPLE_PERIOD: Duration = Duration::from_millis(20);

/// How many slots are filled, and how many may be.
#[derive(Debug)]
pub(super) struct Scaling {
    least: usize,
    most: usize,
    filled: usize,
    /// The place that the next call would have had at the last sample.
    last_place: u64,
}

impl Scaling {
    /// `least` slots are filled; `most` may be.
    pub(super) fn new(least: NonZeroUsize, most: NonZeroUsize) -> Scaling {
        Scaling {
            least: least.get(),
            most: most.get(),
            filled: least.get(),
            last_place: 0,
        }
    }

    /// Most slots that may be filled.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether an empty slot could be filled.
    pub(super) fn could_fill(&self) -> bool {
        self.filled < self.most
    }

    /// Samples the queue: the place of the first call, and the place that the next new call will
    /// have. True if one more slot is to be filled, which then counts as filled.
    pub(super) fn sample(&mut self, first: Option<u64>, next: u64, is_start_free: bool) -> bool {
        let waits_too_long = first.is_some_and(|first| first < self.last_place);
        self.last_place = next;
        let grows = waits_too_long && is_start_free && self.could_fill();
        self.filled += usize::from(grows);
        grows
    }

    /// From now on every slot may be empty.
    pub(super) fn allow_empty(&mut self) {
        self.least = 0;
    }

    /// Whether a slot may be left empty, which then counts as empty.
    pub(super) fn shrink(&mut self) -> bool {
        let shrinks = self.filled > self.least;
        self.filled -= usize::from(shrinks);
        shrinks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling(least: usize, most: usize) -> Scaling {
        Scaling::new(
            NonZeroUsize::new(least).unwrap(),
            NonZeroUsize::new(most).unwrap(),
        )
    }

    #[test]
    fn in_a_drain_every_slot_may_be_left_empty_and_filled_again() {
        let mut scaling = scaling(2, 2);
        assert!(!scaling.shrink());
        scaling.allow_empty();
        assert!(scaling.shrink() && scaling.shrink() && !scaling.shrink());
        scaling.sample(Some(5), 6, true);
        assert!(scaling.sample(Some(5), 6, true));
        assert!(scaling.shrink());
    }

    #[test]
    fn the_pool_grows_only_when_a_call_that_waited_still_waits() {
        let mut scaling = scaling(1, 3);
        assert!(
            !scaling.sample(Some(4), 9, true),
            "it may have come just now"
        );
        assert!(!scaling.sample(Some(9), 20, true), "the queue moves on");
        assert!(!scaling.sample(None, 30, true), "nobody waits");
        assert!(!scaling.sample(Some(30), 31, true));
        assert!(!scaling.sample(Some(30), 31, false), "others are starting");
        assert!(scaling.sample(Some(30), 31, true));
        assert!(scaling.sample(Some(30), 31, true));
        assert!(!scaling.sample(Some(30), 31, true), "there is no room");
    }

    #[test]
    fn the_pool_shrinks_to_the_least_and_can_grow_again() {
        let mut scaling = scaling(1, 2);
        assert!(!scaling.shrink());
        assert!(!scaling.sample(Some(0), 1, true) && scaling.sample(Some(0), 1, true));
        assert!(scaling.shrink() && !scaling.shrink());
        assert!(scaling.sample(Some(0), 1, true));
    }
}
