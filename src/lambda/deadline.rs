//! The end of the time for an event, from the header that gives it by the wall clock.
//!
//! The only decision by the wall clock: Lambda names no other. It is made once, when the event
//! arrives; from then on the monotonic clock counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The moment that a deadline in milliseconds since 1970 means; `None` for anything but a number.
pub(super) fn latest(deadline_ms: &str) -> Option<Instant> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Instant::now().checked_add(left(deadline_ms, now)?)
}

/// The time from `now`, since 1970, to a deadline; zero if that has passed.
fn left(deadline_ms: &str, now: Duration) -> Option<Duration> {
    let since_1970 = Duration::from_millis(deadline_ms.trim().parse().ok()?);
    Some(since_1970.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_to_the_deadline() {
        let now = Duration::from_millis(1_700_000_000_000);
        for (deadline, milliseconds) in [
            ("1700000003000", Some(3000)),
            (" 1700000000001 ", Some(1)),
            ("1700000000000", Some(0)),
            ("1699999999999", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("soon", None),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(left(deadline, now), expected, "{deadline:?}");
        }
    }
}
