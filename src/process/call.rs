//! A request on its way to a process, with the channel for its answer.
//!
//! | name | what it is |
//! |---|---|
//! | [`Job`] | what is asked for: payload, context, time |
//! | [`Call`] | a job, and the channel for its answer; the pool queues calls |
//! | `QueuedCall` | a call, with its place in the queue and its times |
//! | [`Ticket`] | what a conversation sees of it |
//! | `Flight` | a ticket with its id, line and times, while a process has it |

use super::conversation::Ticket;
use super::line::{ContextMember, RequestContext};
use crate::answer::{Answer, Answered, Outcome, Work};
use crate::budget::Reservation;
use crate::error::RequestFailure;
use crate::trace_context::TraceContext;
use bytes::Bytes;
use compact_str::CompactString;
use std::borrow::Borrow;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A request for the handler, as HTTP or another front gives it to the pool.
#[derive(Debug)]
pub struct Job {
    /// The inside of the payload's JSON string, as the client wrote it.
    pub payload: Bytes,
    /// Members that a handler may ask for beside the payload.
    pub extras: RequestExtras,
    /// Longest time that a process is given to answer.
    pub timeout: Duration,
    /// The end of the caller's time budget.
    pub deadline: Option<Instant>,
    /// Counts the bytes of the payload as held until the job is answered, even after the caller
    /// has left.
    pub reservation: Reservation,
}

/// A job on its way to a process, with the channel for its answer.
///
/// Dropping it without [`Call::answer`] closes the channel; the caller gets a failure.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub job: Job,
    answer: oneshot::Sender<Answered>,
}

/// Members that a handler may ask for beside the payload.
#[derive(Debug, Clone, Default)]
pub struct RequestExtras {
    /// Names (lower case) and values of the headers that may be passed on.
    pub headers: Vec<(String, String)>,
    /// The request id.
    pub request_id: CompactString,
    /// The caller's trace context.
    pub trace: Option<TraceContext>,
}

/// The name of a request in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestName {
    /// The request id.
    pub id: CompactString,
    /// The caller's trace context.
    pub trace: Option<TraceContext>,
}

impl RequestExtras {
    /// Bytes that the headers take.
    pub fn bytes(&self) -> usize {
        let pairs = self.headers.iter();
        let passed: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        let state = self.trace.as_ref().and_then(TraceContext::tracestate);
        passed + state.map_or(0, str::len)
    }
}

impl Call {
    /// A call for this job, and the receiver of its answer.
    pub fn new(job: Job) -> (Call, oneshot::Receiver<Answered>) {
        let (answer, answered) = oneshot::channel();
        (Call { job, answer }, answered)
    }

    /// True when the caller has dropped the receiver of the answer.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Delivers the answer to a call that no process has, or drops it when the caller has left.
    pub fn answer(self, outcome: Outcome) {
        self.into_answer(outcome, None).deliver();
    }

    /// The answer on its way to the caller, with the work of the process on the call. The bytes of
    /// an answer count as held until the caller has written them out.
    pub fn into_answer(self, outcome: Outcome, work: Option<Work>) -> Answer {
        let budget = self.job.reservation.budget();
        let outcome = match outcome {
            Ok(body) => Ok(budget.count(body)),
            Err(RequestFailure::Handler { message, status }) => Err(RequestFailure::Handler {
                message: budget.count(message),
                status,
            }),
            Err(failure) => Err(failure),
        };
        Answer::new(self.answer, (outcome, work))
    }

    fn time_left_ms(&self, now: Instant) -> u64 {
        let Job {
            timeout, deadline, ..
        } = self.job;
        let time_budget = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let left = time_budget.map_or(timeout, |time| time.min(timeout));
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A source of requests may wrap its calls, and so gets back, with each call, what it keeps about
/// it.
impl<R: Borrow<Call>> Ticket for R {
    fn payload(&self) -> &[u8] {
        &self.borrow().job.payload
    }

    fn timeout(&self) -> Duration {
        self.borrow().job.timeout
    }

    fn deadline(&self) -> Option<Instant> {
        self.borrow().job.deadline
    }

    fn name(&self) -> Option<RequestName> {
        let extras = &self.borrow().job.extras;
        Some(RequestName {
            id: extras.request_id.clone(),
            trace: extras.trace.clone(),
        })
    }

    fn context(&self, now: Instant, members: &[ContextMember]) -> RequestContext<'_> {
        let call = self.borrow();
        let extras = &call.job.extras;
        let mut context = RequestContext::default();
        for member in members {
            match member {
                ContextMember::Headers => context.headers = Some(&extras.headers),
                ContextMember::TimeoutMs => context.timeout_ms = Some(call.time_left_ms(now)),
                ContextMember::RequestId => {
                    context.request_id = Some(&extras.request_id);
                }
                ContextMember::Traceparent => {
                    context.traceparent = extras.trace.as_ref().map(TraceContext::traceparent);
                }
                ContextMember::Tracestate => {
                    context.tracestate = extras.trace.as_ref().and_then(TraceContext::tracestate);
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
            Err(RequestFailure::Handler {
                message: large(),
                status: 400,
            }),
        ];
        for outcome in outcomes {
            let (call, mut answered) = Call::new(Job {
                payload: "p".into(),
                extras: RequestExtras::default(),
                timeout: Duration::ZERO,
                deadline: None,
                reservation: budget.reservation(),
            });
            call.answer(outcome);
            let (outcome, _) = answered.try_recv().unwrap();
            assert_eq!(budget.held(), 100_000, "{}", outcome.is_ok());
            drop(outcome);
            assert_eq!(budget.held(), 0);
        }
    }
}
