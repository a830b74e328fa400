//! When the requests of an open loop are due.

use std::time::Duration;

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independent of each other, as those of many callers are
    Poisson,
    /// Evenly
    Uniform,
}

/// The times since the beginning at which requests are due; never ends.
pub struct Schedule {
    between: f64,
    arrivals: Arrivals,
    chance: fastrand::Rng,
    next: f64,
}

impl Schedule {
    /// So many a second; the same seed gives the same times.
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        Schedule {
            between: 1.0 / rate,
            arrivals,
            chance: fastrand::Rng::with_seed(seed),
            next: 0.0,
        }
    }

    /// When the next request is due.
    pub fn next(&self) -> Duration {
        Duration::from_secs_f64(self.next)
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.next += match self.arrivals {
            Arrivals::Uniform => self.between,
            // From 0 up to but not 1, so the logarithm is of a number above 0.
            Arrivals::Poisson => -(1.0 - self.chance.f64()).ln() * self.between,
        };
    }
}
