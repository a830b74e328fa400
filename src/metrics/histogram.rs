//! A histogram with bounds that suit times from 0.1 ms to 30 s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. They contain the points that the semantic
/// conventions of OpenTelemetry recommend for HTTP, so that alerts written for these fit.
const BOUNDS_US: [u64; BUCKETS] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Buckets with an upper bound.
const BUCKETS: usize = 17;

/// A histogram of times. One thread at a time records; any thread reads.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Times in each bucket; the last one has no bound.
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

/// The sums of several histograms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    counts: [u64; BUCKETS + 1],
    sum_ns: u64,
}

impl Histogram {
    /// Records a time. Loads and stores instead of additions in one step, which cost several times
    /// as much: only one thread writes.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos.div_ceil(1_000);
        let bucket = BOUNDS_US
            .iter()
            .take_while(|bound| micros > **bound)
            .count();
        add(&self.counts[bucket], 1);
        add(&self.sum_ns, nanos);
    }

    /// Adds what was recorded to the sums.
    pub fn add_to(&self, totals: &mut HistogramTotals) {
        for (total, count) in totals.counts.iter_mut().zip(&self.counts) {
            *total += count.load(Ordering::Relaxed);
        }
        totals.sum_ns = totals
            .sum_ns
            .wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }
}

/// Adds to a number that only the calling thread writes.
pub(super) fn add(number: &AtomicU64, more: u64) {
    let sum = number.load(Ordering::Relaxed).wrapping_add(more);
    number.store(sum, Ordering::Relaxed);
}

impl HistogramTotals {
    /// Number of recorded times.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all times, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Upper bound in seconds, multiplied by `scale`, and number of times in each bucket. The last
    /// has no bound: without `+Inf`, Prometheus computes no quantile.
    pub fn buckets(&self, scale: u32) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|bound| {
            let micros = bound * u64::from(scale);
            micros as f64 / 1e6
        });
        bounds
            .chain([f64::INFINITY])
            .zip(self.counts.iter().copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        for (nanos, bucket) in [
            (0, 0),
            (100_000, 0),
            (100_001, 1),
            (1_000_000, 3),
            (30_000_000_000, 16),
            (30_000_000_001, 17),
            (u64::MAX, 17),
        ] {
            let histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let mut totals = HistogramTotals::default();
            histogram.add_to(&mut totals);
            let found = totals.buckets(1).iter().position(|(_, count)| *count > 0);
            assert_eq!(found, Some(bucket), "{nanos}");
            assert_eq!(totals.count(), 1);
        }
    }

    #[test]
    fn sums_of_several_add_up() {
        let histograms = [Histogram::default(), Histogram::default()];
        histograms[0].record(Duration::from_millis(1));
        histograms[1].record(Duration::from_millis(2));
        let mut totals = HistogramTotals::default();
        histograms
            .iter()
            .for_each(|histogram| histogram.add_to(&mut totals));
        assert_eq!((totals.count(), totals.sum_seconds()), (2, 0.003));
    }
}
