//! Time in which a check and its process could go on: a busy machine makes no handler slow.

use crate::procfs::{own_processor_wait, tree_processor_wait};
use std::time::{Duration, Instant};

/// A busy machine makes a measurement this many times as long, at most.
const MOST_STRETCH: u32 = 10;

/// Time between two looks at the waits, which cost about as much as a request.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// A measurement was on a busy machine if at least this share of it was spent waiting for a
/// processor.
const BUSY: f64 = 0.1;

/// A measurement of time without the waits for a processor.
#[derive(Debug)]
pub(super) struct Stopwatch {
    pid: u32,
    begun: Instant,
    waited_before: Waits,
    next_look: Option<Instant>,
}

/// Waits for a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waits {
    /// Of the process.
    process: Duration,
    /// Of the thread that asks it.
    own: Duration,
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lap {
    /// Time without the waits of the process and of this thread, for requests one after the other;
    /// all of it where the system does not tell the waits.
    pub(super) took: Duration,
    /// Time without the waits of the process, for requests at the same time: a wait of this thread
    /// holds up none of them.
    pub(super) took_together: Duration,
    /// The machine was busy.
    pub(super) was_busy: bool,
}

impl Stopwatch {
    /// Measures from now on, while this process works on requests of this thread.
    pub(super) fn start(pid: u32) -> Stopwatch {
        Stopwatch {
            pid,
            begun: Instant::now(),
            waited_before: waited(pid),
            next_look: None,
        }
    }

    /// The time until now.
    pub(super) fn lap(&self) -> Lap {
        let (before, now) = (self.waited_before, waited(self.pid));
        let waits = Waits {
            process: now.process.saturating_sub(before.process),
            own: now.own.saturating_sub(before.own),
        };
        lap(self.begun.elapsed(), waits)
    }

    /// True when so much time is over.
    pub(super) fn is_over(&mut self, limit: Duration) -> bool {
        let (now, elapsed) = (Instant::now(), self.begun.elapsed());
        if elapsed < limit || self.next_look.is_some_and(|next| now < next) {
            return false;
        }
        self.next_look = Some(now + LOOKS_EVERY);
        is_over(elapsed, self.lap().took, limit)
    }
}

/// Waits of the process and of this thread for a processor. A process that works on one request has
/// only one of both at a time; of several threads that wait at the same time, all waits are
/// counted.
fn waited(pid: u32) -> Waits {
    Waits {
        process: tree_processor_wait(pid),
        own: own_processor_wait(),
    }
}

fn is_over(elapsed: Duration, took: Duration, limit: Duration) -> bool {
    took >= limit || elapsed >= limit * MOST_STRETCH
}

fn lap(elapsed: Duration, waits: Waits) -> Lap {
    let both = waits.process + waits.own;
    Lap {
        took: elapsed.saturating_sub(both),
        took_together: elapsed.saturating_sub(waits.process),
        was_busy: both >= elapsed.mul_f64(BUSY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_a_processor_are_no_time_of_a_handler() {
        let ms = Duration::from_millis;
        for (elapsed, process, own, took, took_together, was_busy) in [
            (20, 0, 0, 20, 20, false),
            (20, 1, 0, 19, 19, false),
            (20, 1, 1, 18, 19, true),
            (100, 50, 30, 20, 50, true),
            (20, 10, 30, 0, 10, true),
        ] {
            let expected = Lap {
                took: ms(took),
                took_together: ms(took_together),
                was_busy,
            };
            let (process, own) = (ms(process), ms(own));
            assert_eq!(lap(ms(elapsed), Waits { process, own }), expected);
        }
    }

    #[test]
    fn a_busy_machine_stretches_a_measurement_and_not_without_end() {
        let seconds = Duration::from_secs;
        for (elapsed, took, is_over_by_now) in [
            (1, 1, false),
            (2, 2, true),
            (3, 1, false),
            (19, 1, false),
            (20, 1, true),
        ] {
            let found = is_over(seconds(elapsed), seconds(took), seconds(2));
            assert_eq!(found, is_over_by_now, "{elapsed} {took}");
        }
    }
}
