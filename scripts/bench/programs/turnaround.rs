//! A handler that takes a given time for each request, and measures how long its process waits from
//! a reply to the next request.
//!
//! Under a load that always has a request for it, this is the time in which the process does nothing
//! although there is work.

use hdrhistogram::Histogram;
use std::io::{self, BufRead, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Requests at the start that are not measured: connections and processes come up.
const WARM_UP_REQUESTS: u64 = 100;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The time, e.g. 1ms
    #[arg(value_parser = humantime::parse_duration)]
    time: Duration,
    /// Announce that replies come in the order of the requests
    #[arg(long)]
    ordered: bool,
    /// The folder in which each process writes its figures when its input ends
    #[arg(long)]
    into: PathBuf,
}

/// Answers until stdin ends, then writes the figures into a file with the name of the process.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    // The kernel may end a sleep late by 50 µs otherwise, to save wake-ups.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut waits = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    if options.ordered {
        output.write_all(b"{\"ready\":true,\"concurrency\":1}\n")?;
        output.flush()?;
    }
    let mut line = String::new();
    let mut count = 0;
    let mut replied = Instant::now();
    while input.read_line(&mut line)? > 0 {
        let waited = replied.elapsed();
        count += 1;
        if count > WARM_UP_REQUESTS {
            let nanoseconds = u64::try_from(waited.as_nanos()).map_err(io::Error::other)?;
            waits.record(nanoseconds).map_err(io::Error::other)?;
        }
        let request: serde_json::Value = serde_json::from_str(&line)?;
        std::thread::sleep(options.time);
        let reply = serde_json::json!({ "id": request["id"], "result": request["payload"] });
        writeln!(output, "{reply}")?;
        output.flush()?;
        replied = Instant::now();
        line.clear();
    }
    let figures = serde_json::json!({
        "count": waits.len(),
        "p50_us": waits.value_at_quantile(0.5) as f64 / 1e3,
        "p99_us": waits.value_at_quantile(0.99) as f64 / 1e3,
    });
    let file = options.into.join(format!("{}.json", std::process::id()));
    std::fs::write(file, figures.to_string())
}
