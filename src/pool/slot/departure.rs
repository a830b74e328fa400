//! Why a process leaves its slot, and how it ended.

use crate::metrics::ExitReason;
use crate::process::conversation::Fault;
use std::fmt;

/// How a process ended.
#[derive(Debug, Clone)]
pub(super) struct ProcessEnd {
    /// The exit status or signal, in words.
    pub(super) status: String,
    /// The exit status, unless a signal ended the process.
    pub(super) code: Option<i32>,
    /// Whether the kernel ended the process for memory.
    pub(super) is_out_of_memory: bool,
    /// The last line on stderr since the oldest unanswered request was written, or of all if there
    /// is none.
    pub(super) last_line: String,
    /// How many failed starts in a row printed the same before; the log has it once.
    pub(super) repeated: u64,
}

/// Why a process stops serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The process has ended by itself.
    Ended,
    /// The process can no longer be trusted.
    Fault(Fault),
    /// A successor serves.
    Replaced(Replacement),
    /// The process was idle for too long, and the pool can do with fewer.
    Idle,
    /// The pool stops.
    Stopped,
}

/// Why a sound process has a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// The process had reached one of its limits.
    Recycled,
    /// A reload replaces all processes.
    Reload,
}

impl StopReason {
    /// The reason for the metrics, of a process that was up or not, and that ended like this.
    pub(super) fn label(self, was_up: bool, end: &ProcessEnd) -> ExitReason {
        match self {
            StopReason::Stopped => ExitReason::Shutdown,
            StopReason::Replaced(Replacement::Recycled) => ExitReason::Recycled,
            StopReason::Replaced(Replacement::Reload) => ExitReason::Reload,
            StopReason::Idle => ExitReason::Idle,
            StopReason::Ended | StopReason::Fault(Fault::TooSlowToStart) if !was_up => {
                ExitReason::StartFailed
            }
            StopReason::Ended if end.is_out_of_memory => ExitReason::OutOfMemory,
            StopReason::Ended if end.code.is_none() => ExitReason::Signal,
            StopReason::Ended | StopReason::Fault(Fault::InputClosed | Fault::OutputClosed) => {
                ExitReason::Exited
            }
            StopReason::Fault(Fault::TimedOut | Fault::TooSlowToStart) => ExitReason::Timeout,
            StopReason::Fault(
                Fault::MissingId
                | Fault::WrongId
                | Fault::StaleId
                | Fault::Unasked
                | Fault::Premature
                | Fault::OutOfOrder
                | Fault::PartialLine
                | Fault::NeverSilent
                | Fault::NotUtf8
                | Fault::LineTooLong
                | Fault::ReadyTooLate,
            ) => ExitReason::Doubt,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Ended => Ok(()),
            StopReason::Fault(fault) => write!(f, "{fault}: "),
            StopReason::Replaced(_) => f.write_str("the worker replaced the process: "),
            StopReason::Idle => f.write_str("the worker stopped the process, which was idle: "),
            StopReason::Stopped => {
                f.write_str("the worker is shutting down, and stopped the process: ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_reason_in_the_metrics() {
        let end = |code, is_out_of_memory| ProcessEnd {
            status: String::new(),
            code,
            is_out_of_memory,
            last_line: String::new(),
            repeated: 0,
        };
        let (exited, killed, memory) = (end(Some(3), false), end(None, false), end(None, true));
        for (reason, was_up, end, label) in [
            (StopReason::Ended, true, &exited, ExitReason::Exited),
            (StopReason::Ended, true, &killed, ExitReason::Signal),
            (StopReason::Ended, true, &memory, ExitReason::OutOfMemory),
            (StopReason::Ended, false, &exited, ExitReason::StartFailed),
            (
                StopReason::Fault(Fault::TooSlowToStart),
                false,
                &killed,
                ExitReason::StartFailed,
            ),
            (
                StopReason::Fault(Fault::TimedOut),
                true,
                &killed,
                ExitReason::Timeout,
            ),
            (
                StopReason::Fault(Fault::WrongId),
                true,
                &killed,
                ExitReason::Doubt,
            ),
            (
                StopReason::Fault(Fault::InputClosed),
                true,
                &exited,
                ExitReason::Exited,
            ),
            (
                StopReason::Replaced(Replacement::Recycled),
                true,
                &exited,
                ExitReason::Recycled,
            ),
            (
                StopReason::Replaced(Replacement::Reload),
                false,
                &killed,
                ExitReason::Reload,
            ),
            (StopReason::Idle, true, &exited, ExitReason::Idle),
            (StopReason::Stopped, true, &exited, ExitReason::Shutdown),
        ] {
            assert_eq!(reason.label(was_up, end), label, "{reason:?} {was_up}");
        }
    }
}
