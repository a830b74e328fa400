//! The answer to a call, and the channel on which it reaches the caller.

use crate::error::RequestFailure;
use bytes::Bytes;
use std::time::Instant;
use tokio::sync::oneshot;

/// Outcome of a call: `{"result":…}`, or why there is none.
pub type Outcome = Result<Bytes, RequestFailure>;

/// When a process worked on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The number by which the log names the process.
    pub process: u64,
    /// When the process could start on the call.
    pub began: Instant,
    /// When its reply was read, or the call failed.
    pub ended: Instant,
    /// Whether the process has answered no call before.
    pub is_first: bool,
}

/// An outcome, and the work on the call if a process had it.
pub type Answered = (Outcome, Option<Work>);

/// The answer to a call, on its way to the caller.
#[derive(Debug)]
pub struct Answer {
    channel: oneshot::Sender<Answered>,
    answered: Answered,
}

impl Answer {
    /// An outcome, and the channel to the caller.
    pub fn new(channel: oneshot::Sender<Answered>, answered: Answered) -> Answer {
        Answer { channel, answered }
    }

    /// Gives the answer to the caller, or drops it when the caller has left.
    pub fn deliver(self) {
        drop(self.channel.send(self.answered));
    }
}
