//! The answer to a call, and the channel on which it reaches the caller.

use crate::error::RequestFailure;
use bytes::Bytes;
use std::time::Instant;
use tokio::sync::oneshot;

/// Outcome of a call: `{"result":…}`, or why there is none.
pub type Outcome = Result<Bytes, RequestFailure>;

const BEFORE_RESULT: &[u8] = b"{\"result\":";
const BEHIND_RESULT: &[u8] = b"}";

/// `{"result":…}` around the JSON text of a result.
pub fn result_object(result: &str) -> Bytes {
    let mut object = Vec::with_capacity(BEFORE_RESULT.len() + result.len() + BEHIND_RESULT.len());
    object.extend_from_slice(BEFORE_RESULT);
    object.extend_from_slice(result.as_bytes());
    object.extend_from_slice(BEHIND_RESULT);
    object.into()
}

/// The JSON text of the result in `{"result":…}`.
pub fn result_of(object: &Bytes) -> Bytes {
    let end = object.len().saturating_sub(BEHIND_RESULT.len());
    object.slice(BEFORE_RESULT.len().min(end)..end)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_the_text_inside_the_answer() {
        for result in ["1.50", "null", r#"{"a":"}"}"#] {
            let object = result_object(result);
            assert_eq!(object, format!("{{\"result\":{result}}}"));
            assert_eq!(result_of(&object), result);
        }
    }
}
