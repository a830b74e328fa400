//! AWS Lambda: takes events from the runtime API, and gives them to the pool.
//!
//! Replaces the HTTP server where Lambda runs the worker as a custom runtime
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>). One loop for each event that
//! may be worked on at one time: it asks for the next event, calls the pool, and posts the result
//! or the error. The pool keeps the deadlines, gives events to another process, and drains at the
//! end.
//!
//! Lambda freezes the worker between events. Nothing here runs by a timer meanwhile: the question
//! for the next event has no time limit, and the time for an event is reckoned when it arrives.
//!
//! Modules: `event` (what events and answers mean), `deadline` (the time for an event),
//! `runtime_api` (the requests to Lambda).

mod deadline;
mod event;
mod runtime_api;

use crate::answer::result_of;
use crate::budget::MemoryBudget;
use crate::config::{AccessLog, HttpConfig, LambdaConfig, LambdaStart};
use crate::error::{Code, Executed, RETRY_SOON, RequestFailure};
use crate::http::api::headers::passed;
use crate::http::api::respond::Reader;
use crate::logging::{microseconds, milliseconds};
use crate::metrics::{Metrics, OutcomeLabel};
use crate::pool::{CallTimes, Job, Pool, RequestExtras, UP_AFTER};
use crate::shutdown::{Shutdown, Stage};
use bytes::Bytes;
use event::{error_document, error_type, payload_of};
use runtime_api::{Event, RuntimeApi};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

/// Longest wait for a process to come up before the first event is asked for, where that event
/// waits already. A handler without a ready line is not known to be up before its first reply.
const LONGEST_START: Duration = Duration::from_millis(250);

/// Longest wait for a process to be up after the restore from a snapshot: the snapshot's processes
/// are up already, unless they have ended.
const LONGEST_RESTORE: Duration = Duration::from_secs(3);

/// The time to the next question after the runtime API failed to answer one; doubled each time.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The longest time to the next question after a failure.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A worker that takes its calls from AWS Lambda.
#[derive(Debug)]
pub struct Lambda {
    /// The runtime API, and how many events are worked on at one time.
    pub config: LambdaConfig,
    /// The limits of requests, and what errors may tell.
    pub http: HttpConfig,
    /// Whether no event is asked for before a ready line, and how long that may take.
    pub ready_timeout: Option<Duration>,
    /// The processes.
    pub pool: Arc<Pool>,
    /// Bytes held at one time.
    pub budget: MemoryBudget,
    /// Counters of requests.
    pub metrics: Arc<Metrics>,
    /// The stage of the worker's end.
    pub shutdown: Shutdown,
}

/// How the wait for a process to be up has ended.
enum Start {
    Up,
    /// None is up yet.
    Late,
    /// No process ever came up; says why.
    Failed(String),
    /// The worker is to end.
    Cut,
}

impl Lambda {
    /// Answers events until [`Stage::Draining`]; events that have come by then are answered, until
    /// [`Stage::Aborting`]. Gives the reason if the worker cannot start; it has begun
    /// [`Stage::Killing`] then, and Lambda knows.
    pub async fn serve(self) -> Option<String> {
        let lambda = Arc::new(self);
        let shutdown = lambda.shutdown.clone();
        let served = async {
            let why = lambda.start().await?;
            lambda.shutdown.advance(Stage::Killing);
            Some(why)
        };
        // Cancel-safe: nothing is answered any more then.
        let started = shutdown.run_until(Stage::Aborting, served).await;
        if let Some(why) = started.flatten() {
            return Some(why);
        }
        let tasks = TaskTracker::new();
        for _ in 0..lambda.config.events.get() {
            let (lambda, shutdown) = (Arc::clone(&lambda), shutdown.clone());
            tasks.spawn(async move { shutdown.run_until(Stage::Aborting, lambda.work()).await });
        }
        tasks.close();
        tasks.wait().await;
        None
    }

    /// Waits for the pool and, where Lambda makes a snapshot, until the worker is restored from it.
    /// Gives the reason of a failure, which Lambda is told.
    async fn start(&self) -> Option<String> {
        let mut api = self.runtime_api();
        let longest = longest_start(self.ready_timeout, self.config.start);
        if let Start::Failed(why) = self.wait_for_pool(longest).await {
            return Some(tell_start_failed(&mut api, why).await);
        }
        if self.config.start != LambdaStart::Snapshot {
            return None;
        }
        if let Err(error) = self.until_draining(api.restored()).await? {
            let why = format!("the worker was not restored from its snapshot: {error}");
            return Some(tell_start_failed(&mut api, why).await);
        }
        info!("restored from the snapshot");
        let why = match self.wait_for_pool(LONGEST_RESTORE).await {
            Start::Failed(why) => why,
            Start::Late => {
                let cause = self.pool.why_not_ready()?;
                format!("no process is up after the restore: {}", cause.full())
            }
            Start::Up | Start::Cut => return None,
        };
        if let Err(error) = api.post_restore_error(document_of_start(&why)).await {
            error!(%error, "the runtime API did not take the error after the restore");
        }
        Some(why)
    }

    /// Waits until a process is up, or until it is known that none will be.
    async fn wait_for_pool(&self, longest: Duration) -> Start {
        // Cancel-safe: all are only asked whether something has happened.
        tokio::select! {
            why = self.pool.never_up() => Start::Failed(why.to_owned()),
            up = timeout(longest, self.pool.ready()) => match up {
                Ok(()) => Start::Up,
                Err(_) => Start::Late,
            },
            () = self.shutdown.reached(Stage::Draining) => Start::Cut,
        }
    }

    /// Answers events, one at a time.
    async fn work(&self) {
        let mut api = self.runtime_api();
        while let Some(event) = self.next(&mut api).await {
            let arrived = Instant::now();
            let (outcome, times) = self.answer(&event).await;
            self.record(&event, &outcome, times, arrived.elapsed());
            let posted = match outcome {
                Ok(result) => api.post_response(&event, result).await,
                Err(failure) => {
                    log_failure(&failure, &event);
                    let reader = self.reader(&event);
                    let document = error_document(&failure, reader);
                    let kind = error_type(failure.code());
                    api.post_error(&event, &kind, document).await
                }
            };
            let request_id = event.id.as_str();
            match posted {
                Ok(()) => debug!(
                    request_id,
                    took_ms = milliseconds(arrived.elapsed()),
                    "answered"
                ),
                Err(error) => {
                    warn!(request_id, %error, "the runtime API did not take the answer");
                }
            }
        }
    }

    /// Puts an outcome into the metrics, and into the log as far as that is wanted.
    fn record(
        &self,
        event: &Event,
        outcome: &Result<Bytes, RequestFailure>,
        times: Option<CallTimes>,
        total: Duration,
    ) {
        let failure = outcome.as_ref().err().map(RequestFailure::code);
        let label = failure.map_or(OutcomeLabel::Ok, OutcomeLabel::Failed);
        let waited_and_worked = times.map(|times| (times.queued, times.worked));
        let requests = &self.metrics.requests;
        requests.record(label, None, total, waited_and_worked);
        let is_logged = match self.http.access_log {
            AccessLog::On => true,
            AccessLog::Errors => failure.is_some(),
            AccessLog::Off => false,
        };
        if is_logged {
            info!(
                outcome = label.as_str(),
                executed = failure.map_or(Executed::Yes, Code::executed).as_str(),
                queue_us = times.map(|times| microseconds(times.queued)),
                invoke_us = times.map(|times| microseconds(times.worked)),
                total_us = microseconds(total),
                bytes_in = event.body.as_ref().map_or(0, Bytes::len),
                bytes_out = outcome.as_ref().ok().map(Bytes::len),
                process = times.map(|times| times.process),
                request_id = event.id.as_str(),
                "event"
            );
        }
    }

    /// The next event; none when the worker is to end.
    async fn next(&self, api: &mut RuntimeApi) -> Option<Event> {
        let mut pause = FIRST_RETRY_PAUSE;
        // An event that came in answer to a question at the end would be lost.
        while !self.shutdown.is_at_least(Stage::Draining) {
            let error = match self.until_draining(api.next()).await? {
                Ok(event) => return Some(event),
                Err(error) => error,
            };
            let retry_ms = milliseconds(pause);
            warn!(%error, retry_ms, "the runtime API gave no event");
            self.until_draining(sleep(pause)).await?;
            pause = longer(pause);
        }
        None
    }

    /// Runs a future until [`Stage::Draining`]; a future that is ready by then has its output.
    async fn until_draining<F: Future>(&self, future: F) -> Option<F::Output> {
        // Cancel-safe: at the worker's end a question for the next event ends with its connection.
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.shutdown.reached(Stage::Draining) => None,
        }
    }

    /// Calls the pool: the result as JSON, and the times of the call if a process had it.
    async fn answer(&self, event: &Event) -> (Result<Bytes, RequestFailure>, Option<CallTimes>) {
        let call = self.job(event).and_then(|job| self.pool.call(job));
        match call {
            Err(failure) => (Err(failure), None),
            Ok(mut call) => {
                let outcome = (&mut call).await;
                (outcome.map(|answer| result_of(&answer)), call.times())
            }
        }
    }

    /// The job that an event asks for.
    fn job(&self, event: &Event) -> Result<Job, RequestFailure> {
        let payload = payload_of(event.body.as_ref().map_err(Clone::clone)?)?;
        let extras = RequestExtras {
            headers: passed(&event.headers, &self.http.pass_headers),
            request_id: event.id.clone(),
            trace: None,
        };
        let mut reservation = self.budget.reservation();
        if !reservation.grow_to(payload.len() + extras.bytes()) {
            return Err(RequestFailure::Overloaded {
                why: "too many bytes of events and replies are held already (--max-buffered)"
                    .into(),
                retry_after: RETRY_SOON,
            });
        }
        let left = event
            .latest
            .map(|latest| latest.saturating_duration_since(Instant::now()));
        let timeout = self.pool.timeout();
        Ok(Job {
            payload,
            extras,
            // A process that hangs is replaced: at the deadline Lambda, too, ends all that it can.
            timeout: left.map_or(timeout, |left| left.min(timeout)),
            deadline: event.latest,
            reservation,
        })
    }

    fn reader<'a>(&self, event: &'a Event) -> Reader<'a> {
        // Only callers with a permission of the account invoke the function.
        match self.http.verbose_errors {
            Some(true) | None => Reader::Operator,
            Some(false) => Reader::Caller(Some(&event.id)),
        }
    }

    fn runtime_api(&self) -> RuntimeApi {
        RuntimeApi::new(self.config.runtime_api, self.http.max_body_bytes)
    }
}

/// The longest wait for a process to be up before the first event is asked for.
fn longest_start(ready_timeout: Option<Duration>, start: LambdaStart) -> Duration {
    match (ready_timeout, start) {
        (Some(limit), _) => limit,
        (None, LambdaStart::OnDemand) => LONGEST_START,
        // A handler without a ready line counts as up by its age alone.
        (None, LambdaStart::Ahead | LambdaStart::Snapshot) => UP_AFTER + Duration::from_secs(1),
    }
}

/// The pause after one more failure.
fn longer(pause: Duration) -> Duration {
    (2 * pause).min(LONGEST_RETRY_PAUSE)
}

/// Tells Lambda that the start failed; gives the reason back.
async fn tell_start_failed(api: &mut RuntimeApi, why: String) -> String {
    let kind = error_type(Code::HandlerNotLoaded);
    let document = document_of_start(&why);
    if let Err(error) = api.post_init_error(&kind, document).await {
        error!(%error, "the runtime API did not take the error of the start");
    }
    why
}

/// The document that tells of a failed start.
fn document_of_start(why: &str) -> Bytes {
    let failure = RequestFailure::NotLoaded(why.into());
    error_document(&failure, Reader::Operator)
}

/// Logs a failure by its code and cause, and nothing of what the event or the handler said.
fn log_failure(failure: &RequestFailure, event: &Event) {
    let request_id = event.id.as_str();
    let code = failure.code();
    let cause = failure.cause().map(tracing::field::display);
    match code {
        Code::HandlerError => info!(
            request_id,
            code = code.as_str(),
            "request failed, its answer has the cause"
        ),
        code => warn!(
            request_id,
            code = code.as_str(),
            cause,
            "request failed, its answer has the cause"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a ready line, only its age shows that a process is up, and on demand an event waits
    /// meanwhile.
    #[test]
    fn a_ready_line_is_waited_for_before_the_first_event() {
        let limit = Duration::from_secs(60);
        for start in [
            LambdaStart::OnDemand,
            LambdaStart::Ahead,
            LambdaStart::Snapshot,
        ] {
            assert_eq!(longest_start(Some(limit), start), limit, "{start:?}");
            let is_billed = start == LambdaStart::OnDemand;
            let longest = longest_start(None, start);
            assert_eq!(longest < UP_AFTER, is_billed, "{start:?}");
        }
    }

    #[test]
    fn pauses_between_questions_double_up_to_a_limit() {
        let mut last = FIRST_RETRY_PAUSE;
        for milliseconds in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            last = longer(last);
            assert_eq!(last, Duration::from_millis(milliseconds));
        }
    }
}
