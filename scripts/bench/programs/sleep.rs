//! A handler that takes a given time for each request and then answers with the payload.
//!
//! A sleep ends late by some tens of microseconds. What one was late, the next is shortened by, so
//! that the mean is the time that was asked for: capacity is then processes ÷ time, exactly.

use faas_worker::handler::{self, Failure};
use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Most lateness that is carried over, as a part of the time: a stall of the machine must not be
/// made up for by a row of requests that take no time.
const CARRIED_AT_MOST: u32 = 2;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The time, e.g. 5ms; 0 does not sleep at all
    #[arg(value_parser = humantime::parse_duration)]
    time: Duration,
}

/// Answers until stdin ends.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    // The kernel may end a sleep late by 50 µs otherwise, to save wake-ups.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let time = options.time;
    let mut late = Duration::ZERO;
    handler::serve(move |payload: &str| -> Result<String, Failure> {
        if !time.is_zero() {
            late = sleep(time.saturating_sub(late)).min(time / CARRIED_AT_MOST);
        }
        Ok(payload.to_owned())
    })
}

/// Sleeps, and tells by how much for too long.
fn sleep(time: Duration) -> Duration {
    let begin = Instant::now();
    std::thread::sleep(time);
    begin.elapsed().saturating_sub(time)
}
