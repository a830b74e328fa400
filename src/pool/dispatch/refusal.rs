//! What a caller is told whose call the pool does not take on, and when to try again.

use super::DispatchState;
use crate::cause::Cause;
use crate::error::{RETRY_SOON, RequestFailure};
use std::time::Duration;

/// `Retry-After` while no process has ever answered.
const RETRY_AFTER_WHEN_UNPROVEN: Duration = Duration::from_secs(30);

/// Longest `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

impl DispatchState {
    fn overloaded(&self, why: Cause) -> RequestFailure {
        let least = match self.health.is_unproven() {
            // A handler that has never answered does not mend itself within a second.
            true => RETRY_AFTER_WHEN_UNPROVEN,
            false => RETRY_SOON,
        };
        let wait = self.queue.wait_for_newcomer();
        let retry_after = wait.clamp(least, MAX_RETRY_AFTER);
        RequestFailure::Overloaded { why, retry_after }
    }

    /// A refusal that also says why no process takes calls, if that is so.
    pub(in crate::pool) fn overloaded_because(&self, what: &str) -> RequestFailure {
        let why_none = self.health.why_requests_wait();
        self.overloaded(why_none.map_or_else(
            || what.into(),
            |why| why.map(|why| format!("{what}; {why}")),
        ))
    }

    pub(in crate::pool) fn waited_too_long(&self) -> RequestFailure {
        self.overloaded_because("the request waited too long in the queue")
    }
}
