//! The record of one request: from its head to its response, or to the moment its client left.

use super::Api;
use super::headers::{Headers, RareHeader};
use super::respond::ApiResponse;
use super::routes::{self, Target};
use crate::config::{AccessLog, HttpConfig};
use crate::error::{Code, Executed};
use crate::http::server::RequestBody;
use crate::logging::{microseconds, milliseconds};
use crate::metrics::OutcomeLabel;
use crate::pool::CallTimes;
use crate::trace_context::TraceContext;
use crate::traces::{Finished, OpenSpan, Traces};
use compact_str::CompactString;
use hyper::body::Body;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::{Level, debug, info};

/// The record of one request. The log has it once in each of two forms, as far as they are wanted:
/// as an event for debugging, and as an event of the access log. A record that is dropped before it
/// is answered is that of a request whose client has left.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) arrived: Instant,
    /// The request id.
    pub(super) id: CompactString,
    /// The trace context for the handler: the caller's, or that of the request's own span.
    pub(super) trace: Option<TraceContext>,
    /// The request's own span.
    pub(super) span: OpenSpan,
    /// Whether the end of the request's head is known for sure.
    pub(super) is_framed: bool,
    /// Whether the request is one for the function.
    pub(super) is_for_function: bool,
    /// The times of the call, if a process had it.
    pub(super) times: Option<CallTimes>,
    /// Length of the body, once all of it has come.
    pub(super) bytes_in: u64,
    /// Further facts for the log; `None` once the request is logged, or if it is not.
    log_facts: Option<Box<LogFacts>>,
}

/// Facts of a request that only the log needs.
#[derive(Debug)]
struct LogFacts {
    method: Method,
    path: String,
    peer: Option<SocketAddr>,
    /// Which requests the access log has; none, if this one is not for the handler.
    access_log: AccessLog,
}

/// The answer to a request, as the log tells of it.
#[derive(Debug, Clone, Copy)]
struct LoggedAnswer {
    status: StatusCode,
    failure: Option<Code>,
    bytes_out: u64,
}

impl Exchange {
    /// The record of a request that arrives now.
    pub(super) fn new(
        request: &Request<RequestBody>,
        head: &Headers<'_>,
        id: CompactString,
        is_framed: bool,
        config: &HttpConfig,
    ) -> Exchange {
        let access_log = config.access_log;
        let is_logged = access_log != AccessLog::Off || tracing::enabled!(Level::DEBUG);
        Exchange {
            arrived: Instant::now(),
            id,
            trace: trace_context(head),
            span: OpenSpan::none(),
            is_framed,
            is_for_function: false,
            times: None,
            bytes_in: 0,
            log_facts: is_logged.then(|| LogFacts::of(request, config)),
        }
    }

    /// The request is one for the function, of which traces may have a span.
    pub(super) fn begin_for_function(&mut self, traces: &Traces) {
        self.is_for_function = true;
        (self.trace, self.span) = traces.begin(self.trace.take());
    }

    /// The request is answered with this response, and has this failure or a result.
    pub(super) fn log_answer(&mut self, response: &ApiResponse, failure: Option<Code>) {
        if let Some(log_facts) = self.log_facts.take() {
            let answer = LoggedAnswer {
                status: response.status(),
                failure,
                bytes_out: response.body().size_hint().lower(),
            };
            self.log(&log_facts, Some(answer));
        }
    }

    fn log(&self, log_facts: &LogFacts, answer: Option<LoggedAnswer>) {
        let is_failure = answer.is_none_or(|answer| answer.failure.is_some());
        match log_facts.access_log {
            AccessLog::On => self.log_access(log_facts, answer),
            AccessLog::Errors if is_failure => self.log_access(log_facts, answer),
            AccessLog::Errors | AccessLog::Off => {}
        }
        let LogFacts { method, path, .. } = log_facts;
        let trace = self.trace.as_ref();
        debug!(
            request_id = self.id.as_str(),
            trace_id = trace.map(TraceContext::trace_id),
            span_id = trace.map(TraceContext::span_id),
            trace_flags = trace.map(TraceContext::flags),
            %method,
            path,
            status = answer.map(|answer| answer.status.as_u16()),
            took_ms = milliseconds(self.arrived.elapsed()),
            "{}",
            match answer {
                Some(_) => "answered",
                None => "client gone before its answer",
            }
        );
    }

    /// The event of the access log: nothing of the payload, the query and the headers.
    fn log_access(&self, log_facts: &LogFacts, answer: Option<LoggedAnswer>) {
        let trace = self.trace.as_ref();
        let failure = answer.and_then(|answer| answer.failure);
        let executed = match failure {
            Some(code) => code.executed(),
            None => Executed::Yes,
        };
        let is_gone = answer.is_none();
        info!(
            method = log_facts.method.as_str(),
            path = log_facts.path,
            status = answer.map(|answer| answer.status.as_u16()),
            outcome = is_gone.then_some("client_gone"),
            code = failure.map(Code::as_str),
            executed = answer.map(|_| executed.as_str()),
            queue_us = self.times.map(|times| microseconds(times.queued)),
            invoke_us = self.times.map(|times| microseconds(times.worked)),
            total_us = microseconds(self.arrived.elapsed()),
            bytes_in = self.bytes_in,
            bytes_out = answer.map(|answer| answer.bytes_out),
            process = self.times.map(|times| times.process),
            request_id = self.id.as_str(),
            trace_id = trace.map(TraceContext::trace_id),
            span_id = trace.map(TraceContext::span_id),
            trace_flags = trace.map(TraceContext::flags),
            remote = log_facts.peer.map(tracing::field::display),
            "request"
        );
    }
}

impl LogFacts {
    fn of(request: &Request<RequestBody>, config: &HttpConfig) -> Box<LogFacts> {
        let (method, path) = (request.method(), request.uri().path());
        let target = routes::find(path, &config.function_paths);
        let target = target.filter(|target| target.accepts(method));
        Box::new(LogFacts {
            method: method.clone(),
            path: path.to_owned(),
            peer: request.body().peer(),
            access_log: match target {
                Some(Target::Function) => config.access_log,
                Some(_) | None => AccessLog::Off,
            },
        })
    }
}

/// A request that is being answered. Dropped before [`InProgress::end`], it counts as one whose
/// client has left.
pub(super) struct InProgress {
    pub(super) exchange: Exchange,
    pub(super) api: Arc<Api>,
    is_over: bool,
}

impl InProgress {
    pub(super) fn new(exchange: Exchange, api: Arc<Api>) -> InProgress {
        InProgress {
            exchange,
            api,
            is_over: false,
        }
    }

    /// Records the end of the request in the metrics.
    pub(super) fn end(&mut self, outcome: OutcomeLabel, status: Option<StatusCode>) {
        self.is_over = true;
        if self.exchange.is_for_function {
            let total = self.exchange.arrived.elapsed();
            let times = self
                .exchange
                .times
                .map(|times| (times.queued, times.worked));
            let status = status.map(|status| status.as_u16());
            let metrics = &self.api.metrics.requests;
            metrics.record(outcome, status, total, times);
            let exchange = &mut self.exchange;
            self.api.traces.end(&mut exchange.span, || Finished {
                context: exchange.trace.as_ref(),
                request_id: &exchange.id,
                arrived: exchange.arrived,
                total,
                times: exchange.times,
                outcome,
                status,
            });
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(OutcomeLabel::ClientGone, None);
        }
    }
}

/// The caller's trace context. Invalid or several headers `traceparent` count as none, and then
/// `tracestate` has no meaning.
fn trace_context(head: &Headers<'_>) -> Option<TraceContext> {
    let mut parents = head.get_all(RareHeader::Traceparent);
    let (parent, other) = (parents.next()?, parents.next());
    let context = TraceContext::parse(parent.to_str().ok()?).filter(|_| other.is_none())?;
    let states = head.get_all(RareHeader::Tracestate);
    let states: Result<Vec<&str>, _> = states.map(HeaderValue::to_str).collect();
    let state = states.unwrap_or_default().join(",");
    Some(match state.is_empty() {
        true => context,
        false => context.with_state(state),
    })
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(log_facts) = self.log_facts.take() {
            self.log(&log_facts, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_tracestate_goes_with_a_valid_traceparent_alone() {
        let invalid = PARENT.to_uppercase();
        let latin = b"a=\xe9";
        for (parents, states, passed) in [
            (&[PARENT][..], &[&b"a=1"[..]][..], Some(Some("a=1"))),
            (
                &[PARENT],
                &[b"a=1, b=2", b"c=3"],
                Some(Some("a=1, b=2,c=3")),
            ),
            (&[PARENT], &[], Some(None)),
            (&[PARENT], &[b""], Some(None)),
            (&[PARENT], &[b"a=1", latin], Some(None)),
            (&[], &[b"a=1"], None),
            (&[&invalid], &[b"a=1"], None),
            (&[PARENT, PARENT], &[b"a=1"], None),
        ] {
            let mut headers = HeaderMap::new();
            for parent in parents {
                headers.append("traceparent", HeaderValue::from_str(parent).unwrap());
            }
            for state in states {
                headers.append("tracestate", HeaderValue::from_bytes(state).unwrap());
            }
            let context = trace_context(&Headers::of(&headers));
            let state = context.as_ref().map(TraceContext::tracestate);
            assert_eq!(state, passed, "{parents:?} {states:?}");
        }
    }
}
