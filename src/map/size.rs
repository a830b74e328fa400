//! The number of items in hand at one time: small for slow items, larger for fast items.

use std::time::{Duration, Instant};

/// How often the size is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// Items in hand for each request that processes can work on at the same time.
const FOR_EACH_REQUEST: usize = 4;

/// Fast items in hand are the items of this time, because their lines are written and read
/// together.
const SECONDS_IN_HAND: f64 = 0.02;

/// The size of the window.
#[derive(Debug)]
pub(super) struct WindowSize {
    current: usize,
    /// `None`: the size was given, and stays.
    most: Option<usize>,
    looked: Instant,
    ended: u64,
}

impl WindowSize {
    /// The size that was given, or a size that begins small and follows the load, up to `most`.
    pub(super) fn new(given: Option<usize>, least: usize, most: usize) -> WindowSize {
        WindowSize {
            current: given.unwrap_or(least.min(most)),
            most: given.is_none().then_some(most),
            looked: Instant::now(),
            ended: 0,
        }
    }

    /// The size at present.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Looks at the load, if it is time; `ended` counts the items that have ended.
    pub(super) fn look(&mut self, now: Instant, ended: u64, capacity: impl FnOnce() -> usize) {
        let since = now.saturating_duration_since(self.looked);
        let Some(most) = self.most.filter(|_| since >= PERIOD) else {
            return;
        };
        let rate = (ended - self.ended) as f64 / since.as_secs_f64();
        self.current = size(capacity(), rate, most);
        (self.looked, self.ended) = (now, ended);
    }
}

/// The size for the capacity of the processes, in requests at the same time, and for a rate of
/// items a second.
fn size(capacity: usize, rate: f64, most: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive, and a cast from a float ends at the limits of the integer"
    )]
    let fast = (rate * SECONDS_IN_HAND) as usize;
    (capacity * FOR_EACH_REQUEST).max(fast).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_items_are_few_in_hand_and_fast_ones_many() {
        for (capacity, rate, expected) in [
            (0, 0.0, 1),
            (2, 2.0, 8),
            (2, 1_000.0, 20),
            (2, 300_000.0, 512),
            (128, 10.0, 512),
        ] {
            assert_eq!(size(capacity, rate, 512), expected, "{capacity} {rate}");
        }
    }

    #[test]
    fn a_given_size_stays_and_another_follows_the_load_in_its_time() {
        let start = Instant::now();
        let mut given = WindowSize::new(Some(7), 8, 512);
        given.look(start + PERIOD * 9, 1_000_000, || 64);
        assert_eq!(given.current(), 7);
        let mut size = WindowSize::new(None, 8, 512);
        assert_eq!(size.current(), 8);
        size.look(start, 1_000_000, || 64);
        assert_eq!(size.current(), 8, "too early");
        size.look(start + PERIOD * 9, 1_000_000, || 2);
        assert_eq!(size.current(), 512);
        size.look(start + PERIOD * 19, 1_000_001, || 2);
        assert_eq!(size.current(), 8);
    }
}
