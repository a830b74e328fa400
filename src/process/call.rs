//! A request on its way to a process, and the one place its answer goes to.

use super::conversation::Ticket;
use super::line::{Context, ContextMember};
use crate::budget::Reservation;
use crate::error::Failure;
use bytes::Bytes;
use compact_str::CompactString;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What came of a call: `{"result":…}`, or why there is none.
pub type Outcome = Result<Bytes, Failure>;

/// A request on its way to a process.
///
/// Dropping it without [`Call::answer`] closes the channel; the caller gets a failure.
#[derive(Debug)]
pub struct Call {
    /// The inside of the payload's JSON string, as the client wrote it.
    pub payload: Bytes,
    /// What a handler may ask for beside the payload.
    pub extras: Extras,
    /// The longest time that a process is given.
    pub timeout: Duration,
    /// The end of the caller's own budget.
    pub latest: Option<Instant>,
    /// Its place in the queue; stays when it is handed back.
    pub place: u64,
    /// When it has waited too long.
    pub waits_until: Instant,
    /// When it is handed back no more; a process may end again and again without reading it.
    pub gives_up_at: Instant,
    /// How much of its waiting time was left when it was last taken from the queue.
    pub wait_left: Duration,
    /// How often it was given to another process after one had ended.
    pub handed_on: u32,
    answer: oneshot::Sender<Outcome>,
    /// The bytes of the payload count as held as long as the call lives, caller or no caller.
    held: Reservation,
}

/// What a handler may ask for beside the payload.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Names (lower case) and values of the headers that may be passed on.
    pub headers: Vec<(String, String)>,
    /// The request id.
    pub request_id: CompactString,
    /// The caller's trace context.
    pub traceparent: Option<String>,
}

impl Extras {
    /// Bytes that the headers take.
    pub fn bytes(&self) -> usize {
        let pairs = self.headers.iter();
        pairs.map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Call {
    /// A call, and where its answer will come out.
    pub fn new(
        payload: Bytes,
        extras: Extras,
        timeout: Duration,
        latest: Option<Instant>,
        held: Reservation,
        now: Instant,
    ) -> (Call, oneshot::Receiver<Outcome>) {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            payload,
            extras,
            timeout,
            latest,
            place: 0,
            waits_until: now,
            wait_left: Duration::ZERO,
            gives_up_at: now,
            handed_on: 0,
            held,
            answer,
        };
        (call, answered)
    }

    /// True when nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Delivers the answer; without a waiting caller it is dropped. Its bytes count as held until
    /// it has been written to the caller.
    pub fn answer(self, outcome: Outcome) {
        let budget = self.held.budget();
        let outcome = match outcome {
            Ok(body) => Ok(budget.count(body)),
            Err(Failure::Handler { message, status }) => Err(Failure::Handler {
                message: budget.count(message),
                status,
            }),
            Err(failure) => Err(failure),
        };
        drop(self.answer.send(outcome));
    }

    fn time_left_ms(&self, now: Instant) -> u64 {
        let budget = self
            .latest
            .map(|latest| latest.saturating_duration_since(now));
        let left = budget.map_or(self.timeout, |budget| budget.min(self.timeout));
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Ticket for Call {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn latest(&self) -> Option<Instant> {
        self.latest
    }

    fn context(&self, now: Instant, members: &[ContextMember]) -> Context<'_> {
        let mut context = Context::default();
        for member in members {
            match member {
                ContextMember::Headers => context.headers = Some(&self.extras.headers),
                ContextMember::TimeoutMs => context.timeout_ms = Some(self.time_left_ms(now)),
                ContextMember::RequestId => {
                    context.request_id = Some(&self.extras.request_id);
                }
                ContextMember::Traceparent => {
                    context.traceparent = self.extras.traceparent.as_deref();
                }
            }
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;

    #[test]
    fn what_a_process_answered_counts_as_held_until_it_is_dropped() {
        let budget = MemoryBudget::new(1 << 20);
        let large = || Bytes::from(vec![b'x'; 100_000]);
        let outcomes = [
            Ok(large()),
            Err(Failure::Handler {
                message: large(),
                status: 400,
            }),
        ];
        for outcome in outcomes {
            let (call, mut answered) = Call::new(
                "p".into(),
                Extras::default(),
                Duration::ZERO,
                None,
                budget.reservation(),
                Instant::now(),
            );
            call.answer(outcome);
            let outcome = answered.try_recv().unwrap();
            assert_eq!(budget.held(), 100_000, "{}", outcome.is_ok());
            drop(outcome);
            assert_eq!(budget.held(), 0);
        }
    }
}
