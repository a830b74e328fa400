//! The limits on a connection's time.
//!
//! Pure: the time comes in from outside.

use std::time::Duration;

use super::clock::whole_milliseconds;
use super::rates::{LeastRate, RateVerdict};
use super::snapshot::{ConnectionSnapshot, Phase};
use crate::config::HttpConfig;

/// How long a closed connection is read on, so that its client gets to see the response.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The part of the greatest age by which connections of one moment are spread.
const AGE_SPREAD: f64 = 0.2;

/// The limit that a connection exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Header,
    KeepAlive,
    Write,
    LeastRate,
    Linger,
}

/// The limits on a connection's time, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct TimeLimits {
    header_ms: u64,
    keep_alive_ms: u64,
    write_ms: u64,
    linger_ms: u64,
    least_rate: LeastRate,
    age_ms: Option<u64>,
}

impl TimeLimits {
    pub(super) fn new(config: &HttpConfig) -> TimeLimits {
        TimeLimits {
            header_ms: whole_milliseconds(config.header_timeout),
            keep_alive_ms: whole_milliseconds(config.keep_alive),
            write_ms: whole_milliseconds(config.write_timeout),
            linger_ms: whole_milliseconds(LINGER_TIME),
            least_rate: LeastRate::new(config.least_rate),
            age_ms: config.max_connection_age.map(whole_milliseconds),
        }
    }

    #[cfg(test)]
    pub(super) fn of_tests() -> TimeLimits {
        TimeLimits {
            header_ms: 100,
            keep_alive_ms: 1_000,
            write_ms: 300,
            linger_ms: 200,
            least_rate: LeastRate {
                bytes_per_second: 1_000,
                shortest_window_ms: 100,
            },
            age_ms: None,
        }
    }

    /// When a connection that was opened at `now_ms` is asked to close. `spread`, from 0 to 1,
    /// keeps connections that were opened together from closing together.
    pub(super) fn closes_from_ms(&self, now_ms: u64, spread: f64) -> u64 {
        self.age_ms.map_or(u64::MAX, |age_ms| {
            let longest = Duration::from_millis(age_ms);
            now_ms + whole_milliseconds(longest.mul_f64(1.0 - AGE_SPREAD * spread))
        })
    }

    /// The limit that a connection exceeds, if there is one.
    pub(super) fn exceeded(&self, snapshot: ConnectionSnapshot, now_ms: u64) -> Option<Limit> {
        let is_past = |since_ms: u64, limit_ms: u64| now_ms.saturating_sub(since_ms) >= limit_ms;
        if self.verdict(snapshot, now_ms) == RateVerdict::TooSlow {
            return Some(Limit::LeastRate);
        }
        if let Some(since_ms) = snapshot.stalled_since_ms {
            return is_past(since_ms, self.write_ms).then_some(Limit::Write);
        }
        let (limit, limit_ms) = match snapshot.phase {
            Phase::Idle => (Limit::KeepAlive, self.keep_alive_ms),
            Phase::Head => (Limit::Header, self.header_ms),
            // The body timeout and the handler's timeout end these phases, and are not kept here.
            Phase::Busy | Phase::Body => return None,
            Phase::Linger => (Limit::Linger, self.linger_ms),
        };
        is_past(snapshot.since_ms, limit_ms).then_some(limit)
    }

    /// How long a connection may wait for its place: as long as for its head.
    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.header_ms)
    }

    /// Whether the body or response that is under way moves fast enough.
    pub(super) fn verdict(&self, snapshot: ConnectionSnapshot, now_ms: u64) -> RateVerdict {
        snapshot.transfer.map_or(RateVerdict::Wait, |transfer| {
            self.least_rate.judge(transfer, now_ms)
        })
    }

    /// The time between two checks of all connections: a connection exceeds a limit by a tenth of
    /// the shortest limit at most, or by a second.
    pub(super) fn period(&self) -> Duration {
        let shortest_ms = self.header_ms.min(self.keep_alive_ms).min(self.write_ms);
        let shortest_ms = shortest_ms.min(self.age_ms.unwrap_or(u64::MAX));
        Duration::from_millis((shortest_ms / 10).clamp(10, 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::rates::Transfer;

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
            let snapshot = ConnectionSnapshot {
                phase,
                since_ms: 0,
                stalled_since_ms,
                transfer: None,
            };
            assert_eq!(
                TimeLimits::of_tests().exceeded(snapshot, now_ms),
                expected,
                "{snapshot:?} at {now_ms}"
            );
        }
    }

    #[test]
    fn a_time_in_the_future_exceeds_no_limit() {
        let snapshot = ConnectionSnapshot {
            phase: Phase::Head,
            since_ms: 500,
            stalled_since_ms: None,
            transfer: None,
        };
        assert_eq!(TimeLimits::of_tests().exceeded(snapshot, 10), None);
    }

    #[test]
    fn the_period_is_a_tenth_of_the_shortest_limit_within_bounds() {
        let period = |header_ms| {
            TimeLimits {
                header_ms,
                ..TimeLimits::of_tests()
            }
            .period()
            .as_millis()
        };
        assert_eq!((period(1), period(200), period(300_000)), (10, 20, 30));
        let long = TimeLimits {
            header_ms: 60_000,
            keep_alive_ms: 75_000,
            write_ms: 60_000,
            ..TimeLimits::of_tests()
        };
        assert_eq!(long.period(), Duration::from_secs(1));
        let aged = TimeLimits {
            age_ms: Some(2_000),
            ..long
        };
        assert_eq!(aged.period(), Duration::from_millis(200));
    }

    #[test]
    fn connections_of_one_moment_are_asked_to_close_at_different_times() {
        let limits = TimeLimits {
            age_ms: Some(10_000),
            ..TimeLimits::of_tests()
        };
        let at = [0.0, 0.5, 1.0].map(|spread| limits.closes_from_ms(500, spread));
        assert_eq!(at, [10_500, 9_500, 8_500]);
        assert_eq!(TimeLimits::of_tests().closes_from_ms(500, 0.0), u64::MAX);
    }

    #[test]
    fn a_transfer_below_the_least_rate_exceeds_a_limit() {
        for (phase, moved, now_ms, expected) in [
            (Phase::Body, 0, 99, None),
            (Phase::Body, 99, 100, Some(Limit::LeastRate)),
            (Phase::Body, 100, 100, None),
            (Phase::Idle, 99, 100, Some(Limit::LeastRate)),
            (Phase::Idle, 100, 100, None),
        ] {
            let snapshot = ConnectionSnapshot {
                phase,
                since_ms: 0,
                stalled_since_ms: None,
                transfer: Some(Transfer {
                    since_ms: 0,
                    window_began_ms: 0,
                    moved,
                }),
            };
            let limits = TimeLimits::of_tests();
            assert_eq!(limits.exceeded(snapshot, now_ms), expected, "{snapshot:?}");
        }
    }
}
