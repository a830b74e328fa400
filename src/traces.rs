//! Traces of requests for a collector, over OTLP: the cargo feature `otlp`.
//!
//! A request that is sampled becomes two spans when it is over: `POST /`, from its head to its
//! response, and below it `invoke`, the time that a process worked on it. No span exists before
//! that. Times and outcomes are taken for the metrics anyway, so a request that is not sampled
//! costs a branch.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | the variables `OTEL_…` |
//! | `sampling` | which requests are sampled |
//! | `record` | a finished request, and the spans that are made of it |
//! | `waiting` | the bounded buffer of finished requests |
//! | `sending` | the thread that hands spans to the exporter |
//! | `client` | HTTP for the exporter |
//!
//! Without the feature all methods here are empty.

#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
mod live;
#[cfg(feature = "otlp")]
mod record;
#[cfg(feature = "otlp")]
mod sampling;
#[cfg(feature = "otlp")]
mod sending;
#[cfg(feature = "otlp")]
mod settings;
#[cfg(feature = "otlp")]
mod waiting;

#[cfg(not(feature = "otlp"))]
mod absent;

#[cfg(not(feature = "otlp"))]
pub use absent::{OpenSpan, Traces};
#[cfg(feature = "otlp")]
pub use live::{OpenSpan, Traces};

use crate::metrics::OutcomeLabel;
use crate::pool::CallTimes;
use crate::trace_context::TraceContext;
use compact_str::CompactString;
use std::time::{Duration, Instant};

/// A request that is over, as its spans tell of it.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The context that was handed on: the parent id is the span of the request.
    pub context: Option<&'a TraceContext>,
    /// The request id.
    pub request_id: &'a CompactString,
    /// When the head was read.
    pub arrived: Instant,
    /// From then to the response, or until the client left.
    pub total: Duration,
    /// The times of the call, if a process had it.
    pub times: Option<CallTimes>,
    /// What became of the request.
    pub outcome: OutcomeLabel,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
}
