//! The rate at which a body comes or a response is taken, and the least rate that is allowed.
//!
//! Pure: time and counts come in from outside. A rate is measured over windows, so that a client
//! that was fast at first cannot stop afterwards.

use std::time::Duration;

use super::clock::whole_milliseconds;

/// The shortest window over which a rate is measured. No rate is required of a body or response
/// that began, or first had to wait, less than this ago.
const SHORTEST_WINDOW: Duration = Duration::from_secs(5);

/// Bytes beyond the least rate count for later windows, up to this many.
/// The kernel reports progress in steps: a segment of the loopback device has 64 KiB.
const MAX_CREDIT_BYTES: u64 = 64 * 1024;

/// A transfer below this rate, in bytes a second, may be ended to make room. A faster transfer may
/// finish: else more clients than there is room for would end each other's transfers, and none
/// would finish.
const SLOW_BYTES_PER_SECOND: u64 = 32 * 1024;

/// A transfer younger than this is not ended to make room: its rate says nothing yet.
const MIN_TRANSFER_AGE_MS: u64 = 1_000;

/// A body or a response that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    /// When the body began, or the response first had to wait.
    pub(super) since_ms: u64,
    /// When the current window began.
    pub(super) window_began_ms: u64,
    /// Bytes moved in the window, with the bytes carried over from the window before.
    pub(super) moved: u64,
}

impl Transfer {
    /// Bytes a second in the window.
    pub(super) fn rate(self, now_ms: u64) -> u64 {
        let age_ms = now_ms
            .saturating_sub(self.window_began_ms)
            .max(MIN_TRANSFER_AGE_MS);
        self.moved.saturating_mul(1_000) / age_ms
    }

    /// Whether the transfer may be ended to make room.
    pub(super) fn is_slow(self, now_ms: u64) -> bool {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        age_ms >= MIN_TRANSFER_AGE_MS && self.rate(now_ms) < SLOW_BYTES_PER_SECOND
    }
}

/// The least rate of bodies and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeastRate {
    /// 0 for no least rate.
    pub(super) bytes_per_second: u64,
    /// The shortest window that is judged.
    pub(super) shortest_window_ms: u64,
}

/// Whether a transfer keeps the least rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateVerdict {
    /// The window is too young.
    Wait,
    /// The transfer was fast enough: a new window begins, with this many bytes carried over.
    FastEnough { carried: u64 },
    /// The transfer is below the least rate.
    TooSlow,
}

impl LeastRate {
    pub(super) fn new(bytes_per_second: u64) -> LeastRate {
        LeastRate {
            bytes_per_second,
            shortest_window_ms: whole_milliseconds(SHORTEST_WINDOW),
        }
    }

    /// Compares a transfer's current window with the least rate.
    pub(super) fn judge(self, transfer: Transfer, now_ms: u64) -> RateVerdict {
        let age_ms = now_ms.saturating_sub(transfer.window_began_ms);
        if self.bytes_per_second == 0 || age_ms < self.shortest_window_ms {
            return RateVerdict::Wait;
        }
        let due = self.bytes_per_second.saturating_mul(age_ms) / 1_000;
        match transfer.moved.checked_sub(due) {
            Some(surplus) => RateVerdict::FastEnough {
                carried: surplus.min(MAX_CREDIT_BYTES),
            },
            None => RateVerdict::TooSlow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEAST: LeastRate = LeastRate {
        bytes_per_second: 1_024,
        shortest_window_ms: 5_000,
    };

    fn of(window_began_ms: u64, moved: u64) -> Transfer {
        Transfer {
            since_ms: 0,
            window_began_ms,
            moved,
        }
    }

    #[test]
    fn below_the_least_rate_over_a_window_is_too_slow() {
        let fast = |carried| RateVerdict::FastEnough { carried };
        for (transfer, now_ms, verdict) in [
            (of(0, 0), 4_999, RateVerdict::Wait),
            (of(0, 0), 5_000, RateVerdict::TooSlow),
            (of(0, 5_119), 5_000, RateVerdict::TooSlow),
            (of(0, 5_120), 5_000, fast(0)),
            (of(0, 6_000), 5_000, fast(880)),
            (of(0, 10 << 20), 5_000, fast(MAX_CREDIT_BYTES)),
            // Each window counts for itself.
            (of(100_000, 0), 105_000, RateVerdict::TooSlow),
            (of(100_000, 0), 104_999, RateVerdict::Wait),
            // A check that comes late measures a longer window.
            (of(0, 5_120), 10_000, RateVerdict::TooSlow),
            // A window that began in the future.
            (of(10_000, 0), 10, RateVerdict::Wait),
        ] {
            assert_eq!(LEAST.judge(transfer, now_ms), verdict, "{transfer:?}");
        }
        let none = LeastRate {
            bytes_per_second: 0,
            ..LEAST
        };
        assert_eq!(none.judge(of(0, 0), u64::MAX), RateVerdict::Wait);
    }

    #[test]
    fn only_slow_and_not_young_transfers_may_be_ended_to_make_room() {
        let slow = |since_ms, window_began_ms, moved, now_ms| {
            let transfer = Transfer {
                since_ms,
                window_began_ms,
                moved,
            };
            transfer.is_slow(now_ms)
        };
        assert!(!slow(0, 0, 0, 999));
        assert!(slow(0, 0, 0, 1_000));
        assert!(slow(0, 0, 32_767, 1_000));
        assert!(!slow(0, 0, 32_768, 1_000));
        assert!(slow(0, 0, 32_768, 2_000));
        // A window that has just begun is measured as one of a second.
        assert!(slow(0, 10_000, 0, 10_001));
    }

    proptest! {
        /// A client that stops ends within the credit's time, whatever it has moved before.
        #[test]
        fn a_transfer_that_stops_ends(moved in 0_u64..1 << 40) {
            let mut transfer = of(0, moved);
            let mut now_ms = 0;
            loop {
                now_ms += 1_000;
                match LEAST.judge(transfer, now_ms) {
                    RateVerdict::Wait => {}
                    RateVerdict::TooSlow => break,
                    RateVerdict::FastEnough { carried } => transfer = of(now_ms, carried),
                }
                prop_assert!(now_ms <= 5_000 + 64_000 + 10_000);
            }
        }

        /// A client that keeps a tenth above the rate, in steps of up to a second, is never ended.
        #[test]
        fn a_transfer_at_its_rate_goes_on(steps in prop::collection::vec(1_u64..1_000, 1..200)) {
            let mut transfer = of(0, 0);
            let mut now_ms = 0;
            for step in steps {
                now_ms += step;
                transfer.moved += 1_127 * step / 1_000 + 1;
                match LEAST.judge(transfer, now_ms) {
                    RateVerdict::Wait => {}
                    RateVerdict::TooSlow => prop_assert!(false, "{transfer:?} at {now_ms}"),
                    RateVerdict::FastEnough { carried } => transfer = of(now_ms, carried),
                }
            }
        }
    }
}
