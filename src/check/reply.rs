//! Answers of a checked process, and how it stands.

use crate::answer::{Answered, Outcome};
use crate::process::conversation::Fault;
use std::time::Duration;

/// The answer of a process to one request.
#[derive(Debug)]
pub(super) struct Reply {
    /// `None`: the process was never given the request.
    pub(super) outcome: Option<Outcome>,
    /// From when the process could start on the request to its reply.
    pub(super) took: Duration,
}

impl Reply {
    /// The reply that this answer is; `None`: the process was never given the request.
    pub(super) fn new(answered: Option<Answered>) -> Reply {
        let work = answered.as_ref().and_then(|(_, work)| *work);
        Reply {
            took: work.map_or(Duration::ZERO, |work| {
                work.ended.saturating_duration_since(work.began)
            }),
            outcome: answered.map(|(outcome, _)| outcome),
        }
    }
}

/// How a checked process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be asked.
    Sound,
    /// The worker would give it no more requests.
    Faulty(Fault),
    /// It has ended; says how.
    Ended(String),
}

/// The end of a process by the end of its stdin.
#[derive(Debug)]
pub(super) struct EndByStdin {
    /// The answer to its last request.
    pub(super) outcome: Option<Outcome>,
    /// Processes that it left behind: names and ids.
    pub(super) left: Vec<String>,
    /// From the end of its stdin to its end.
    pub(super) took: Duration,
}
