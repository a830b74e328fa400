//! The wall clock as text, for the log and for `/health`.
//!
//! Nothing else asks the wall clock: a step of that clock may change a text, and no decision.

use std::fmt;
use time::OffsetDateTime;

/// A moment in UTC, to the microsecond. Shown without its zone, which each format writes in its own
/// way: `2026-11-23T12:00:00.123456`.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The present moment.
    pub fn now() -> Timestamp {
        Timestamp(OffsetDateTime::now_utc())
    }
}

/// The present moment in seconds since 1970, for metrics.
pub fn seconds_since_1970() -> f64 {
    let now = OffsetDateTime::now_utc();
    now.unix_timestamp_nanos() as f64 / 1e9
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        let (hour, minute, second, micro) = self.0.to_hms_micro();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_has_all_its_digits() {
        let moment = OffsetDateTime::UNIX_EPOCH + Duration::from_micros(1_123);
        let shown = Timestamp(moment).to_string();
        assert_eq!(shown, "1970-01-01T00:00:00.001123");
        assert_eq!(Timestamp::now().to_string().len(), shown.len());
    }
}
