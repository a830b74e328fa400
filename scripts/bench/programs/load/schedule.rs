//! When the requests of an open loop are due.

use std::time::Duration;

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arrivals {
    /// Independent of each other, as those of many callers are
    Poisson,
    /// Evenly
    Uniform,
}

/// The times since the beginning at which requests are due; never ends.
pub(super) struct Schedule {
    between: f64,
    arrivals: Arrivals,
    chance: fastrand::Rng,
    next: f64,
}

impl Schedule {
    /// Due times at a rate a second; the same seed gives the same times.
    pub(super) fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        Schedule {
            between: 1.0 / rate,
            arrivals,
            chance: fastrand::Rng::with_seed(seed),
            next: 0.0,
        }
    }

    /// When the next request is due.
    pub(super) fn next(&self) -> Duration {
        Duration::from_secs_f64(self.next)
    }

    /// Goes on to the next due time.
    pub(super) fn advance(&mut self) {
        self.next += match self.arrivals {
            Arrivals::Uniform => self.between,
            // From 0 up to but not 1, so the logarithm is of a number above 0.
            Arrivals::Poisson => -(1.0 - self.chance.f64()).ln() * self.between,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seed: u64) -> Vec<Duration> {
        let mut schedule = Schedule::new(1000.0, arrivals, seed);
        let mut times = Vec::new();
        for _ in 0..10_000 {
            times.push(schedule.next());
            schedule.advance();
        }
        times
    }

    #[test]
    fn both_kinds_bring_so_many_a_second() {
        for arrivals in [Arrivals::Poisson, Arrivals::Uniform] {
            let last = times(arrivals, 1)[9_999].as_secs_f64();
            // The deviation of the sum of 10,000 such times is one in a hundred.
            assert!((last - 10.0).abs() < 0.5, "{arrivals:?}: {last}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_times_again_and_another_gives_others() {
        assert_eq!(times(Arrivals::Poisson, 7), times(Arrivals::Poisson, 7));
        assert_ne!(times(Arrivals::Poisson, 7), times(Arrivals::Poisson, 8));
    }
}
