//! The clock of a listener, on which the times of its connections are measured.

use std::time::Duration;

use tokio::time::Instant;

/// Counts milliseconds since it was started, so that a time fits into one atomic number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    pub(super) fn now_ms(self) -> u64 {
        whole_milliseconds(self.start.elapsed())
    }
}

/// Whole milliseconds.
pub(super) fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
