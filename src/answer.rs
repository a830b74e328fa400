//! The answer to a call, and the channel on which it reaches the caller.

use crate::error::RequestFailure;
use bytes::Bytes;
use tokio::sync::oneshot;

/// Outcome of a call: `{"result":…}`, or why there is none.
pub type Outcome = Result<Bytes, RequestFailure>;

/// The answer to a call, on its way to the caller.
#[derive(Debug)]
pub struct Answer {
    channel: oneshot::Sender<Outcome>,
    outcome: Outcome,
}

impl Answer {
    /// An outcome, and the channel to the caller.
    pub fn new(channel: oneshot::Sender<Outcome>, outcome: Outcome) -> Answer {
        Answer { channel, outcome }
    }

    /// Gives the answer to the caller, or drops it when the caller has left.
    pub fn deliver(self) {
        drop(self.channel.send(self.outcome));
    }
}
