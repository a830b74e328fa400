//! Back-off: how long to wait before a process is started again.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Counts failures in a row: no delay after the first, then 0.1 s, 0.2 s, … up to 30 s, each
/// shortened by up to half so that slots do not move in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The process did well: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts one more failure; returns how long to wait now. `jitter` is from 0 to 1.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let failures_before = self.failures;
        self.failures = self.failures.saturating_add(1);
        let Some(doublings) = failures_before.checked_sub(1) else {
            return Duration::ZERO;
        };
        let full = FIRST_DELAY
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(MAX_DELAY);
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_from_the_second_failure_and_starts_over_when_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..12).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits[..5], [0, 100, 200, 400, 800]);
        assert_eq!(waits[10..], [30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(1.0), Duration::from_millis(50));
    }

    #[test]
    fn the_delay_never_overflows() {
        let mut backoff = Backoff {
            failures: u32::MAX - 1,
        };
        assert_eq!(backoff.next(0.0), MAX_DELAY);
        assert_eq!(backoff.next(0.0), MAX_DELAY);
    }
}
