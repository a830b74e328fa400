//! Whether failed items end the run.

use crate::config::map::{FailureLimit, Halt};

/// Items that must have ended before a percentage counts.
const LEAST_FOR_PERCENT: u64 = 3;

/// The end of a run because of failed items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halted {
    /// No further line is read.
    Soon,
    /// Processes are killed.
    Now,
}

/// Whether the run ends after this number of failed items of all that have ended.
pub(super) fn halted(halt: Halt, failed: u64, ended: u64) -> Option<Halted> {
    let (limit, halted) = match halt {
        Halt::Never => return None,
        Halt::Soon(limit) => (limit, Halted::Soon),
        Halt::Now(limit) => (limit, Halted::Now),
    };
    let is_reached = match limit {
        FailureLimit::Count(count) => failed >= count,
        FailureLimit::Percent(percent) => {
            ended >= LEAST_FOR_PERCENT && failed * 100 >= u64::from(percent) * ended
        }
    };
    is_reached.then_some(halted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_ends_the_run_when_it_is_reached() {
        let count = FailureLimit::Count(2);
        let percent = FailureLimit::Percent(50);
        for (halt, failed, ended, expected) in [
            (Halt::Never, 9, 9, None),
            (Halt::Soon(count), 1, 9, None),
            (Halt::Soon(count), 2, 9, Some(Halted::Soon)),
            (Halt::Now(count), 3, 3, Some(Halted::Now)),
            (Halt::Now(percent), 1, 1, None),
            (Halt::Now(percent), 1, 3, None),
            (Halt::Now(percent), 2, 4, Some(Halted::Now)),
        ] {
            assert_eq!(
                halted(halt, failed, ended),
                expected,
                "{halt:?} {failed} {ended}"
            );
        }
    }
}
