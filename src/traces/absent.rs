//! No traces: a build without the feature `otlp`.

use super::Finished;
use crate::trace_context::TraceContext;
use std::time::Instant;

/// Makes no spans.
#[derive(Debug, Clone)]
pub struct Traces;

/// The span of a request, which there never is.
#[derive(Debug)]
pub struct OpenSpan;

impl OpenSpan {
    /// No span.
    pub fn none() -> OpenSpan {
        OpenSpan
    }
}

impl Traces {
    /// Makes no spans.
    pub fn none() -> Traces {
        Traces
    }

    /// Starts nothing.
    pub fn start() -> Traces {
        Traces
    }

    /// The caller's context goes on as it came.
    pub fn begin(&self, caller: Option<TraceContext>) -> (Option<TraceContext>, OpenSpan) {
        (caller, OpenSpan)
    }

    /// Records nothing.
    pub fn end<'a>(&self, _: &mut OpenSpan, _: impl FnOnce() -> Finished<'a>) {}

    /// Has nothing to send.
    pub async fn finish(&self, _: Instant) {}

    /// Has lost nothing.
    pub fn tell_of_lost_spans(&self) {}
}
