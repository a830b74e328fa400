//! Averages over the last ten seconds, for autoscalers, which read single moments only.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time that the averages go over.
pub const AVERAGED_TIME: Duration = Duration::from_secs(10);

/// The time between two samples.
pub const PERIOD: Duration = Duration::from_millis(250);

/// What there is at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Requests that wait or are worked on.
    pub demand: usize,
    /// Processes that are up.
    pub processes: usize,
    /// Time with a request of all processes since the worker's start, in nanoseconds.
    pub busy_ns: u64,
}

/// The samples of the last ten seconds.
#[derive(Debug, Default)]
pub struct Averages(Mutex<VecDeque<Sample>>);

impl Averages {
    /// Adds a sample; forgets what is too old.
    pub fn record(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while samples
            .front()
            .is_some_and(|first| sample.at.saturating_duration_since(first.at) > AVERAGED_TIME)
        {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Requests that waited or were worked on, on average.
    pub fn demand(&self) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum: usize = samples.iter().map(|sample| sample.demand).sum();
        sum as f64 / samples.len().max(1) as f64
    }

    /// The share of their time for which processes had a request.
    pub fn busy_ratio(&self) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return 0.0;
        };
        let busy = last.busy_ns.saturating_sub(first.busy_ns) as f64 / 1e9;
        let pairs = samples.iter().zip(samples.iter().skip(1));
        let lifetimes = pairs.map(|(one, next)| {
            let time = next.at.saturating_duration_since(one.at).as_secs_f64();
            time * next.processes as f64
        });
        let there: f64 = lifetimes.sum();
        if there > 0.0 {
            (busy / there).min(1.0)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_go_over_ten_seconds() {
        let averages = Averages::default();
        assert_eq!((averages.demand(), averages.busy_ratio()), (0.0, 0.0));
        let start = Instant::now();
        let second = Duration::from_secs(1);
        for number in 0..30_u32 {
            averages.record(Sample {
                at: start + number * second,
                // What was before the last ten seconds counts no more.
                demand: if number < 19 { 100 } else { 3 },
                processes: 4,
                busy_ns: u64::from(number) * 1_000_000_000,
            });
        }
        assert_eq!(averages.demand(), 3.0);
        assert_eq!(averages.busy_ratio(), 0.25);
    }
}
