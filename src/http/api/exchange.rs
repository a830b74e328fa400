//! The record of one request: from its head to its response, or to the moment its client left.

use super::Api;
use super::headers::{Headers, KnownHeader};
use crate::logging::milliseconds;
use crate::metrics::OutcomeLabel;
use crate::pool::CallTimes;
use crate::trace_context::TraceContext;
use compact_str::CompactString;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;
use std::time::Instant;
use tracing::{Level, debug};

/// The record of one request. The debug log has each once: with its status, or, when the record is
/// dropped before that, as a request whose client has left.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) arrived: Instant,
    /// The request id.
    pub(super) id: CompactString,
    /// The caller's trace context.
    pub(super) trace: Option<TraceContext>,
    /// Whether the end of the request's head is known for sure.
    pub(super) is_sound: bool,
    /// Whether the request is one for the function.
    pub(super) is_for_function: bool,
    /// The times of the call, if a process had it.
    pub(super) times: Option<CallTimes>,
    /// Method and path, as long as the log is still to tell of the request.
    unlogged: Option<(Method, String)>,
}

impl Exchange {
    /// The record of a request that arrives now.
    pub(super) fn new<B>(
        request: &Request<B>,
        head: &Headers<'_>,
        id: CompactString,
        is_sound: bool,
    ) -> Exchange {
        let is_logged = tracing::enabled!(Level::DEBUG);
        Exchange {
            arrived: Instant::now(),
            id,
            trace: trace_context(head),
            is_sound,
            is_for_function: false,
            times: None,
            unlogged: is_logged.then(|| {
                let path = request.uri().path().to_owned();
                (request.method().clone(), path)
            }),
        }
    }

    /// The request is answered with this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if let Some((method, path)) = self.unlogged.take() {
            debug!(
                request_id = self.id.as_str(),
                trace_id = self.trace.as_ref().map(TraceContext::trace_id),
                span_id = self.trace.as_ref().map(TraceContext::span_id),
                trace_flags = self.trace.as_ref().map(TraceContext::flags),
                %method,
                path,
                status = status.as_u16(),
                took_ms = milliseconds(self.arrived.elapsed()),
                "answered"
            );
        }
    }
}

/// A request that is being answered. Dropped before [`InProgress::end`], it counts as one whose client
/// has left.
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
    let mut parents = head.get_all(KnownHeader::Traceparent);
    let (parent, other) = (parents.next()?, parents.next());
    let context = TraceContext::parse(parent.to_str().ok()?).filter(|_| other.is_none())?;
    let states = head.get_all(KnownHeader::Tracestate);
    let states: Result<Vec<&str>, _> = states.map(HeaderValue::to_str).collect();
    let state = states.unwrap_or_default().join(",");
    Some(match state.is_empty() {
        true => context,
        false => context.with_state(state),
    })
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((method, path)) = self.unlogged.take() {
            debug!(
                request_id = self.id.as_str(),
                trace_id = self.trace.as_ref().map(TraceContext::trace_id),
                span_id = self.trace.as_ref().map(TraceContext::span_id),
                trace_flags = self.trace.as_ref().map(TraceContext::flags),
                %method,
                path,
                took_ms = milliseconds(self.arrived.elapsed()),
                "client gone before its answer"
            );
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
