//! The figures of a worker: counters and histograms, kept here; gauges, read where they are when
//! they are asked for.
//!
//! A request costs a few stores: each thread keeps its own numbers, which no other thread writes,
//! and a scrape adds them up. Nothing of payloads, headers, hosts or paths is ever a label.

pub mod averages;
mod histogram;
mod processes;
mod requests;
pub mod scrape;
mod text;

pub use histogram::{Histogram, HistogramTotals};
pub use processes::{ExitReason, HandlerStream, INIT_SCALE, ProcessMetrics, Reload, StartReason};
pub use requests::{OutcomeLabel, RequestMetrics, RequestTotals};
pub use text::{Format, encode};

use std::num::NonZeroUsize;
use std::time::Instant;

/// All counters and histograms of a worker.
#[derive(Debug)]
pub struct Metrics {
    /// Requests for the function.
    pub requests: RequestMetrics,
    /// Processes of the handler.
    pub processes: ProcessMetrics,
    /// When the worker was started.
    pub started: Instant,
}

impl Metrics {
    /// Figures that are all 0, for a worker of this many threads that starts now.
    pub fn new(threads: NonZeroUsize) -> Metrics {
        Metrics {
            requests: RequestMetrics::new(threads),
            processes: ProcessMetrics::default(),
            started: Instant::now(),
        }
    }
}
