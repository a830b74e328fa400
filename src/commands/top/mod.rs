//! `faas-worker top`: a live table of a running worker and its processes.
//!
//! It asks `/stats`, and `/processes` at the address of `--admin`. Without a terminal it prints one
//! plain table.

mod columns;
mod numbers;
mod picture;
mod report;
mod screen;

use super::client::get;
use super::health::{is_v6_only, reachable_addresses};
use picture::{Picture, Reading};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time limit of both requests of a reading together.
const TIME_LIMIT: Duration = Duration::from_millis(1500);

/// Longest response that is read, in bytes: thousands of processes fit.
const MAX_FIGURES_RESPONSE_BYTES: usize = 4 << 20;

/// Shows the worker at these addresses, of which the first that answers is taken. Prints one table
/// with `once`, or where stdout is no terminal.
pub fn top(addresses: &[SocketAddr], interval: Duration, once: bool) -> ExitCode {
    let is_v6_only = is_v6_only();
    let mut asked = Vec::new();
    for address in addresses {
        asked.extend(reachable_addresses(*address, is_v6_only));
    }
    let first = match read_worker(&asked) {
        Ok(first) => first,
        Err(why) => return fail(&why),
    };
    if once || !io::stdout().is_terminal() {
        let text = plain_table(first);
        // A reader that has closed its end wants no more of it.
        drop(io::stdout().write_all(text.as_bytes()));
        return ExitCode::SUCCESS;
    }
    match screen::show(first, asked, interval) {
        Ok(status) => status,
        Err(error) => fail(&format!("the terminal: {error}")),
    }
}

/// Tells in one line why there is nothing to show.
fn fail(why: &str) -> ExitCode {
    let why: String = why.chars().map(columns::plain).collect();
    drop(writeln!(io::stderr(), "{why}"));
    ExitCode::FAILURE
}

/// The table with all columns and all processes.
fn plain_table(reading: Reading) -> String {
    let now = reading.at;
    let lines = Picture::new(reading).lines(usize::from(u16::MAX), usize::MAX, now);
    lines.into_iter().map(|(line, _)| line + "\n").collect()
}

/// A reading of the first of the addresses that answers.
fn read_worker(addresses: &[SocketAddr]) -> Result<Reading, String> {
    let mut last = "no address to ask".to_owned();
    for address in addresses {
        match read_from(*address) {
            Ok(reading) => return Ok(reading),
            Err(why) => last = format!("{address}: {why}"),
        }
    }
    Err(last)
}

fn read_from(address: SocketAddr) -> Result<Reading, String> {
    let deadline = Instant::now() + TIME_LIMIT;
    let ask = |path| {
        let is_whole = |bytes: &[u8]| report::response(bytes).is_ok();
        get(
            address,
            path,
            deadline,
            MAX_FIGURES_RESPONSE_BYTES,
            is_whole,
        )
        .map_err(|error| error.to_string())
    };
    let stats = report::stats(&ask("/stats")?)?;
    let at = Instant::now();
    let processes = report::processes(&ask("/processes")?)?;
    Ok(Reading {
        at,
        stats,
        processes,
    })
}
