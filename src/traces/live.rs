//! Spans of requests: begun with the head, recorded with the response.

use super::Finished;
use super::record::RequestRecord;
use super::sampling::{Decision, Sampling};
use super::sending::Sender;
use super::settings::TraceSettings;
use super::waiting::Waiting;
use crate::trace_context::TraceContext;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tracing::{error, info, warn};

/// Makes the spans of sampled requests. Clones share the way to the collector.
#[derive(Debug, Clone)]
pub struct Traces(Option<Arc<SharedTraces>>);

#[derive(Debug)]
struct SharedTraces {
    sampling: Sampling,
    ids: RandomIdGenerator,
    waiting: Arc<Waiting>,
    sender: Sender,
}

/// The span of a request that is not over. Only a sampled request has one, with the id of the span
/// above it, which is invalid for the first span of a trace.
#[derive(Debug)]
pub struct OpenSpan(Option<SpanId>);

impl OpenSpan {
    /// No span.
    pub fn none() -> OpenSpan {
        OpenSpan(None)
    }
}

impl Traces {
    /// Makes no spans.
    pub fn none() -> Traces {
        Traces(None)
    }

    /// Starts the thread that sends spans, as the variables `OTEL_…` say. Faults of variables are
    /// logged; the worker serves all the same.
    pub fn start() -> Traces {
        let settings = TraceSettings::of(|name| std::env::var(name).ok());
        for complaint in &settings.complaints {
            warn!("{complaint}");
        }
        if settings.is_disabled {
            info!("traces are off: OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says so");
            return Traces(None);
        }
        let waiting = Arc::new(Waiting::new(settings.queue, settings.batch));
        match Sender::start(&settings, Arc::clone(&waiting)) {
            Ok(sender) => {
                let (receiver, sampler) = (settings.endpoint.shown(), settings.sampling.name());
                info!(receiver, sampler, "traces are sent by OTLP");
                Traces(Some(Arc::new(SharedTraces {
                    sampling: settings.sampling,
                    ids: RandomIdGenerator::default(),
                    waiting,
                    sender,
                })))
            }
            Err(why) => {
                error!("traces are off: {why}");
                Traces(None)
            }
        }
    }

    /// Decides whether a request with this context is sampled. Returns the context for its handler
    /// and the log: that of the request's own span if there is one.
    pub fn begin(&self, caller: Option<TraceContext>) -> (Option<TraceContext>, OpenSpan) {
        let Some(shared) = &self.0 else {
            return (caller, OpenSpan(None));
        };
        match (shared.sampling.before_ids(caller.as_ref()), caller) {
            (Decision::No, caller) => (caller, OpenSpan(None)),
            (Decision::Yes, Some(caller)) => shared.sampled(&caller),
            (Decision::ByTraceId, Some(caller)) => {
                match shared.sampling.of_trace(caller.trace_number()) {
                    true => shared.sampled(&caller),
                    false => (Some(caller), OpenSpan(None)),
                }
            }
            (Decision::Yes | Decision::ByTraceId, None) => shared.new_trace(),
        }
    }

    /// Records a request that is over, if it is sampled. Its facts are asked for then alone.
    pub fn end<'a>(&self, span: &mut OpenSpan, finished: impl FnOnce() -> Finished<'a>) {
        let (Some(parent), Some(shared)) = (span.0.take(), &self.0) else {
            return;
        };
        if let Some(record) = RequestRecord::of(&finished(), parent, SystemTime::now()) {
            shared.waiting.push(record);
        }
    }

    /// Sends the spans that wait, until this moment at the latest. All requests must be over.
    pub async fn finish(&self, until: Instant) {
        if let Some(shared) = &self.0 {
            shared.sender.finish(until).await;
        }
    }

    /// Logs how many spans the receiver has not taken, if any.
    pub fn tell_of_lost_spans(&self) {
        if let Some(shared) = &self.0 {
            let spans = shared.waiting.lost();
            if spans > 0 {
                warn!(spans, "spans were lost in all");
            }
        }
    }
}

impl SharedTraces {
    /// A span below the caller's.
    fn sampled(&self, caller: &TraceContext) -> (Option<TraceContext>, OpenSpan) {
        let own = u64::from_be_bytes(self.ids.new_span_id().to_bytes());
        let parent = SpanId::from(caller.span_number());
        (Some(caller.below(own)), OpenSpan(Some(parent)))
    }

    /// A trace of our own. Its id is random, and says so; a trace that is not sampled is handed on
    /// too, so that no handler begins another one.
    fn new_trace(&self) -> (Option<TraceContext>, OpenSpan) {
        let trace = u128::from_be_bytes(self.ids.new_trace_id().to_bytes());
        let own = u64::from_be_bytes(self.ids.new_span_id().to_bytes());
        let is_sampled = self.sampling.of_trace(trace);
        let span = is_sampled.then_some(SpanId::INVALID);
        (TraceContext::new(trace, own, is_sampled), OpenSpan(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn traces(sampler: &str, argument: &str) -> Traces {
        let (sampling, complaint) = Sampling::of(Some(sampler), Some(argument));
        assert_eq!(complaint, None);
        Traces(Some(Arc::new(SharedTraces {
            sampling,
            ids: RandomIdGenerator::default(),
            waiting: Arc::new(Waiting::new(NonZeroUsize::MIN, NonZeroUsize::MIN)),
            sender: Sender::idle(),
        })))
    }

    #[test]
    fn a_sampled_request_has_a_span_below_its_callers() {
        for (sampler, argument, flags, sampled) in [
            ("parentbased_always_on", "", "01", true),
            ("parentbased_always_on", "", "03", true),
            ("parentbased_always_on", "", "00", false),
            ("parentbased_always_off", "", "01", true),
            ("always_on", "", "00", true),
            ("always_on", "", "02", true),
            ("always_off", "", "01", false),
            ("traceidratio", "1", "00", true),
            ("traceidratio", "0", "01", false),
            ("parentbased_traceidratio", "0", "01", true),
            ("parentbased_traceidratio", "1", "00", false),
        ] {
            let caller = TraceContext::parse(&format!("{CALLER}-{flags}")).unwrap();
            let caller = caller.with_state("a=1".to_owned());
            let (context, span) = traces(sampler, argument).begin(Some(caller.clone()));
            let context = context.unwrap();
            let told = format!("{sampler} {argument} {flags}");
            assert_eq!(context.trace_id(), caller.trace_id(), "{told}");
            assert_eq!(context.tracestate(), Some("a=1"), "{told}");
            if sampled {
                assert_eq!(span.0, Some(SpanId::from(0xb7ad_6b71_6920_3331)), "{told}");
                assert_ne!(context.span_id(), caller.span_id(), "{told}");
                // Bit 1, random, is the caller's; bit 0 is the decision of this worker.
                let random = u8::from_str_radix(flags, 16).unwrap() & 2;
                assert_eq!(context.flags(), format!("{:02x}", random | 1), "{told}");
            } else {
                assert_eq!((span.0, context), (None, caller), "{told}");
            }
        }
    }

    #[test]
    fn a_request_without_a_trace_begins_a_random_one_unless_none_is_wanted() {
        for (sampler, argument, flags) in [
            ("parentbased_always_on", "", Some("03")),
            ("always_on", "", Some("03")),
            ("parentbased_traceidratio", "1.0", Some("03")),
            ("parentbased_traceidratio", "0", Some("02")),
            ("traceidratio", "0", Some("02")),
            ("always_off", "", None),
            ("parentbased_always_off", "", None),
        ] {
            let traces = traces(sampler, argument);
            let [(one, span), (other, _)] = [(); 2].map(|()| traces.begin(None));
            let told = one.as_ref().map(TraceContext::flags);
            assert_eq!(told, flags, "{sampler} {argument}");
            let root = (flags == Some("03")).then_some(SpanId::INVALID);
            assert_eq!(span.0, root, "{sampler} {argument}");
            if let (Some(one), Some(other)) = (one, other) {
                assert_ne!(one.trace_id(), other.trace_id());
            }
        }
    }
}
