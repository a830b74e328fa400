//! A finished request, and the spans that are made of it.
//!
//! A request leaves a short record behind; its spans, with names and attributes on the heap, are
//! made by the thread that sends them.

use super::Finished;
use crate::metrics::OutcomeLabel;
use crate::trace_context::TraceContext;
use crate::version::version;
use compact_str::CompactString;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A finished request that is sampled.
#[derive(Debug)]
pub(super) struct RequestRecord {
    /// The context of the request's own span.
    context: TraceContext,
    /// The caller's span; invalid for the first span of a trace.
    parent: SpanId,
    request_id: CompactString,
    began: SystemTime,
    ended: SystemTime,
    outcome: OutcomeLabel,
    status: Option<u16>,
    invoke: Option<Invoke>,
}

/// The work of a process on the request.
#[derive(Debug)]
struct Invoke {
    process: u64,
    is_first: bool,
    began: SystemTime,
    ended: SystemTime,
}

impl RequestRecord {
    /// The record of a request that is over at this moment.
    pub(super) fn of(
        finished: &Finished<'_>,
        parent: SpanId,
        ended: SystemTime,
    ) -> Option<RequestRecord> {
        let began = before(ended, finished.total);
        let invoke = finished.times.map(|times| {
            let began = began + times.began.saturating_duration_since(finished.arrived);
            Invoke {
                process: times.process,
                is_first: times.is_first,
                began,
                ended: began + times.worked,
            }
        });
        Some(RequestRecord {
            context: finished.context?.clone(),
            parent,
            request_id: finished.request_id.clone(),
            began,
            ended,
            outcome: finished.outcome,
            status: finished.status,
            invoke,
        })
    }

    /// Number of spans that are made of it.
    pub(super) fn spans(&self) -> usize {
        1 + usize::from(self.invoke.is_some())
    }

    /// Makes the spans.
    pub(super) fn append_to(&self, spans: &mut Vec<SpanData>, scope: &InstrumentationScope) {
        let own = self.span_context(SpanId::from(self.context.span_number()));
        if let Some(invoke) = &self.invoke {
            let id = RandomIdGenerator::default().new_span_id();
            spans.push(SpanData {
                span_context: self.span_context(id),
                parent_span_id: own.span_id(),
                span_kind: SpanKind::Internal,
                name: "invoke".into(),
                start_time: invoke.began,
                end_time: invoke.ended,
                attributes: self.invoke_attributes(invoke),
                status: failed(self.error().is_some()),
                ..empty(scope)
            });
        }
        spans.push(SpanData {
            span_context: own,
            parent_span_id: self.parent,
            parent_span_is_remote: self.parent != SpanId::INVALID,
            span_kind: SpanKind::Server,
            name: "POST /".into(),
            start_time: self.began,
            end_time: self.ended,
            attributes: self.request_attributes(),
            // By the conventions for HTTP: a mistake of the caller, 4xx, is no error of the server.
            status: failed(self.status.is_some_and(|status| status >= 500)),
            ..empty(scope)
        });
    }

    fn request_attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("url.path", "/"),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("http.route", "/"),
            KeyValue::new("faas.trigger", "http"),
            KeyValue::new("faas.invocation_id", self.request_id.as_str().to_owned()),
        ];
        if let Some(invoke) = &self.invoke {
            attributes.push(KeyValue::new("faas.coldstart", invoke.is_first));
        }
        if let Some(status) = self.status {
            let status = i64::from(status);
            attributes.push(KeyValue::new("http.response.status_code", status));
        }
        attributes.extend(self.error());
        attributes
    }

    fn invoke_attributes(&self, invoke: &Invoke) -> Vec<KeyValue> {
        let process = i64::try_from(invoke.process).unwrap_or(i64::MAX);
        let process = KeyValue::new("faas_worker.process", process);
        [process].into_iter().chain(self.error()).collect()
    }

    /// `error.type`; absent for a request with a result.
    fn error(&self) -> Option<KeyValue> {
        let error = match self.outcome {
            OutcomeLabel::Ok => return None,
            OutcomeLabel::Failed(_) | OutcomeLabel::ClientGone => self.outcome.as_str(),
        };
        Some(KeyValue::new("error.type", error))
    }

    fn span_context(&self, id: SpanId) -> SpanContext {
        let state = self.context.tracestate();
        // What the library does not take of a state goes to the handler all the same.
        let state = state.and_then(|state| TraceState::from_str(state).ok());
        let flags = u8::from_str_radix(self.context.flags(), 16).unwrap_or_default();
        SpanContext::new(
            TraceId::from(self.context.trace_number()),
            id,
            TraceFlags::new(flags),
            false,
            state.unwrap_or_default(),
        )
    }
}

/// The library whose spans they are.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("faas-worker")
        .with_version(version())
        .build()
}

/// The parts that all spans have in common.
fn empty(scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// The status of a span; `error.type` has the words.
fn failed(is_failure: bool) -> Status {
    match is_failure {
        true => Status::error(""),
        false => Status::Unset,
    }
}

/// The moment itself where the clock knows none so early.
fn before(moment: SystemTime, duration: Duration) -> SystemTime {
    moment.checked_sub(duration).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::pool::CallTimes;
    use std::time::Instant;

    const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";

    /// A request that took 10 ms, of which a process had it from the third to the eighth.
    fn record(outcome: OutcomeLabel, status: Option<u16>, has_process: bool) -> RequestRecord {
        let millis = Duration::from_millis;
        let arrived = Instant::now();
        let times = CallTimes {
            process: 7,
            began: arrived + millis(3),
            queued: millis(2),
            worked: millis(5),
            is_first: true,
        };
        let context = TraceContext::parse(CONTEXT).unwrap();
        let finished = Finished {
            context: Some(&context.with_state("a=1".to_owned())),
            request_id: &CompactString::from("r-1"),
            arrived,
            total: millis(10),
            times: has_process.then_some(times),
            outcome,
            status,
        };
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        RequestRecord::of(&finished, SpanId::from(5), ended).unwrap()
    }

    impl RequestRecord {
        /// A record of two spans.
        pub(in crate::traces) fn example() -> RequestRecord {
            record(OutcomeLabel::Ok, Some(200), true)
        }
    }

    fn spans(record: &RequestRecord) -> Vec<SpanData> {
        let mut spans = Vec::new();
        record.append_to(&mut spans, &scope());
        assert_eq!(spans.len(), record.spans());
        spans
    }

    #[test]
    fn a_request_and_the_work_on_it_are_two_spans_of_one_trace() {
        let spans = spans(&RequestRecord::example());
        let [invoke, request] = &spans[..] else {
            panic!("{spans:?}");
        };
        assert_eq!(
            (&*request.name, &request.span_kind),
            ("POST /", &SpanKind::Server)
        );
        assert_eq!(
            (&*invoke.name, &invoke.span_kind),
            ("invoke", &SpanKind::Internal)
        );
        let own = &request.span_context;
        assert_eq!(own.span_id().to_string(), "b7ad6b7169203331");
        assert_eq!(own.trace_flags().to_u8(), 3);
        assert_eq!(own.trace_state().header(), "a=1");
        assert_eq!(request.parent_span_id, SpanId::from(5));
        assert!(request.parent_span_is_remote && !invoke.parent_span_is_remote);
        assert_eq!(invoke.parent_span_id, own.span_id());
        assert_eq!(invoke.span_context.trace_id(), own.trace_id());
        assert_ne!(invoke.span_context.span_id(), own.span_id());
        let at = |moment: SystemTime| {
            let begin = SystemTime::UNIX_EPOCH + Duration::from_millis(999_990);
            moment.duration_since(begin).unwrap().as_millis()
        };
        assert_eq!((at(request.start_time), at(request.end_time)), (0, 10));
        assert_eq!((at(invoke.start_time), at(invoke.end_time)), (3, 8));
    }

    #[test]
    fn failures_are_told_by_their_codes_and_only_servers_are_to_blame_for_5xx() {
        let gone = Some("client_gone");
        for (outcome, status, error, request, invoke) in [
            (OutcomeLabel::Ok, Some(200), None, false, false),
            (
                OutcomeLabel::Failed(Code::HandlerError),
                Some(422),
                Some("handler_error"),
                false,
                true,
            ),
            (
                OutcomeLabel::Failed(Code::HandlerTimeout),
                Some(504),
                Some("handler_timeout"),
                true,
                true,
            ),
            (OutcomeLabel::ClientGone, None, gone, false, true),
        ] {
            let spans = spans(&record(outcome, status, true));
            let failures = spans.iter().map(|span| span.status != Status::Unset);
            assert_eq!(failures.collect::<Vec<_>>(), [invoke, request], "{error:?}");
            for span in &spans {
                let value = |key: &str| {
                    let found = span
                        .attributes
                        .iter()
                        .find(|found| found.key.as_str() == key);
                    found.map(|found| found.value.to_string())
                };
                assert_eq!(value("error.type").as_deref(), error);
                if span.span_kind == SpanKind::Server {
                    let told = status.map(|status| status.to_string());
                    assert_eq!(value("http.response.status_code"), told);
                    assert_eq!(value("faas.coldstart").as_deref(), Some("true"));
                } else {
                    assert_eq!(value("faas_worker.process").as_deref(), Some("7"));
                }
            }
        }
    }

    #[test]
    fn a_request_that_no_process_had_is_one_span() {
        let overloaded = OutcomeLabel::Failed(Code::Overloaded);
        let spans = spans(&record(overloaded, Some(429), false));
        assert_eq!((spans.len(), &*spans[0].name), (1, "POST /"));
    }
}
