//! How a run ended: its exit status, and the lines that tell of it.

use super::progress::ItemCounts;
use crate::config::map::MapConfig;
use crate::logging::Printable;
use std::time::Duration;

/// Exit status of a run with failed items, or whose replies could not be written.
const FAILED: u8 = 1;
/// Exit status of a run that cannot begin as it was asked for, or go on with another input.
pub(super) const USAGE: u8 = 2;
/// Exit status of a run whose handler cannot be started, or keeps dying.
const HANDLER_LOST: u8 = 3;
/// Exit status of a program that SIGPIPE has ended.
const BROKEN_PIPE: u8 = 141;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BatchEnd {
    /// All items that were read have ended.
    Whole,
    /// Too many items have failed; the items in hand have ended.
    HaltedSoon,
    /// Too many items have failed.
    HaltedNow,
    /// Replies cannot be written any more.
    Closed,
    /// The end is wanted immediately.
    Killed,
    /// The input cannot be read, or differs from the logged input; says why.
    Input(String),
    /// The handler cannot be started, or keeps dying; says why.
    HandlerLost(String),
}

impl BatchEnd {
    /// Whether processes are not waited for.
    pub(super) fn is_hasty(&self) -> bool {
        matches!(
            self,
            BatchEnd::HaltedNow | BatchEnd::Closed | BatchEnd::Killed
        )
    }
}

/// Returns the exit status, and lines that tell how the run ended.
pub(super) fn status_and_lines(
    map: &MapConfig,
    end: &BatchEnd,
    counts: ItemCounts,
    unfinished: usize,
    took: Duration,
    written: std::io::Result<()>,
) -> (u8, Vec<String>) {
    let last = counts.last_line(took);
    if let Err(error) = written {
        return match error.kind() {
            std::io::ErrorKind::BrokenPipe => (BROKEN_PIPE, Vec::new()),
            _ => (FAILED, vec![format!("map: cannot write: {error}"), last]),
        };
    }
    let why = match end {
        BatchEnd::Whole | BatchEnd::Closed | BatchEnd::Killed => None,
        BatchEnd::HaltedSoon | BatchEnd::HaltedNow => Some("map: ended by --halt".to_owned()),
        BatchEnd::Input(why) => Some(format!("map: {why}")),
        BatchEnd::HandlerLost(why) => Some(format!(
            "map: the handler cannot be started, or keeps dying: {}\nmap: {} no reply",
            Printable(why),
            match unfinished {
                1 => "1 item has".to_owned(),
                count => format!("{count} items have"),
            }
        )),
    };
    let has_failed = counts.failed + counts.failed_before > 0;
    let status = status(end, has_failed && !map.exit_zero);
    (status, why.into_iter().chain([last]).collect())
}

/// The exit status of a run that no signal ended.
fn status(end: &BatchEnd, counts_as_failed: bool) -> u8 {
    match end {
        BatchEnd::Input(_) => USAGE,
        BatchEnd::HandlerLost(_) => HANDLER_LOST,
        BatchEnd::Closed => BROKEN_PIPE,
        BatchEnd::Whole | BatchEnd::HaltedSoon | BatchEnd::HaltedNow | BatchEnd::Killed => {
            u8::from(counts_as_failed) * FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_how_the_run_ended() {
        let why = || "x".to_owned();
        for (end, failed, expected) in [
            (BatchEnd::Whole, false, 0),
            (BatchEnd::Whole, true, 1),
            (BatchEnd::HaltedNow, true, 1),
            (BatchEnd::HaltedSoon, true, 1),
            (BatchEnd::Input(why()), true, 2),
            (BatchEnd::HandlerLost(why()), false, 3),
            (BatchEnd::Closed, true, 141),
        ] {
            assert_eq!(status(&end, failed), expected, "{end:?}");
        }
    }
}
