//! A storm: handlers that misbehave by chance, clients that hang up and stall, a killer, and a
//! checker that knows for each request what may come back.
//!
//! `cargo test --test storm` runs a short one. `scripts/storm.sh` runs a long one, with
//! `--requests N`, `--minutes N`, `--seed S` and `--mode NAME`, which can be repeated. Ends with
//! status 1 at the first broken promise.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod checker;
mod clients;
mod faults;
mod forge;
#[expect(clippy::cast_possible_truncation, reason = "numbers drawn by chance")]
mod forger;
mod killer;
mod options;
// The fixtures of the integration tests; the storm uses a part of them.
#[allow(unused_imports)]
#[path = "../support/mod.rs"]
mod support;

use checker::Report;
use clients::Clients;
use faults::Mode;
use killer::Killer;
use options::{Options, What};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Ledger, Worker, eventually, misbehave, processes};

/// Processes of each worker.
const PROCESSES: usize = 4;

/// The pool is whole again within this time of the last fault.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// Memory that a worker may have gained between the first part of a storm and its end. It holds
/// no more than its buffers; the rest is freed memory that the allocator keeps.
const MOST_GAINED_KIB: u64 = 24 * 1024;

/// A variable in the environment of all processes of a worker, descendants included.
const MARK: &str = "STORM_LEDGER";

fn main() -> ExitCode {
    let options = match Options::from_arguments(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error}");
            return ExitCode::from(2);
        }
    };
    let share = options.requests / options.modes.len() as u64;
    let limit = options.limit / u32::try_from(options.modes.len()).unwrap();
    let (mut requests, mut passed, mut broken) = (0, 0, 0);
    for (number, what) in options.modes.iter().enumerate() {
        let seed = options.seed.wrapping_add(number as u64);
        let (count, is_broken) = run(*what, share, limit, seed);
        requests += count;
        broken += u32::from(is_broken);
        passed += u32::from(!is_broken);
        if is_broken {
            break;
        }
    }
    println!(
        "\nstorm with seed {}: {requests} requests\n{passed} passed, {broken} failed",
        options.seed,
    );
    ExitCode::from(u8::from(broken > 0))
}

/// Prints the report; gives the number of requests, and whether a promise was broken.
fn run(what: What, requests: u64, limit: Duration, seed: u64) -> (u64, bool) {
    match what {
        What::Faults(mode) => {
            let report = storm(mode, requests, limit, seed);
            print!("{report}");
            (report.requests, !report.broken.is_empty())
        }
        What::Forge => {
            let report = forge::storm(requests, limit, seed);
            print!("{report}");
            (report.requests(), report.is_broken())
        }
    }
}

/// One storm over one worker.
fn storm(mode: Mode, requests: u64, limit: Duration, seed: u64) -> Report {
    let ledger = Ledger::new();
    let mut options = mode.options().to_vec();
    let path = ledger.path();
    options.extend(["--ledger", &path]);
    let mut worker = misbehave(&options)
        .option("--processes", &PROCESSES.to_string())
        .option("--timeout", "500ms")
        .option("--grace", "200ms")
        .option("--queue", "256")
        .option("--queue-timeout", "5s")
        .option("--max-reply", "64KiB")
        .option("--max-body", "1MiB")
        .option("--max-connections", "512")
        .option("--log-level", "error")
        .environment(MARK, &path)
        .start_quietly();
    worker.wait_until_ready();
    worker.wait_for_processes(PROCESSES);
    let idle_descriptors = settled_descriptors(&worker);

    let begun = Instant::now();
    let clients = Clients::start(worker.address, mode, requests, limit, seed);
    let killer = Killer::start(worker.pid(), seed);
    clients.wait_for_part(10);
    let memory_kib = processes::resident_kib(worker.pid());
    let records = clients.join();
    let strikes = killer.stop();
    let took = begun.elapsed();

    let mut report = Report::new(mode, took, strikes);
    report.check_answers(&records, &ledger);
    let last_fault = Instant::now();
    match wait_until_whole(&worker) {
        Ok(()) => report.whole_after = last_fault.elapsed(),
        Err(why) => report.broken.push(why),
    }
    let now_kib = processes::resident_kib(worker.pid());
    report.memory_kib = (memory_kib, now_kib);
    if now_kib > memory_kib + MOST_GAINED_KIB {
        report.broken.push(format!(
            "memory went from {memory_kib} KiB to {now_kib} KiB"
        ));
    }
    let descriptors = eventually_few_descriptors(&worker, idle_descriptors);
    report.descriptors = (idle_descriptors, descriptors);
    if descriptors > idle_descriptors {
        report.broken.push(format!(
            "descriptors went from {idle_descriptors} to {descriptors}"
        ));
    }
    worker.signal(rustix::process::Signal::TERM);
    let status = worker.wait_for_end(Duration::from_secs(25));
    if !status.success() {
        report
            .broken
            .push(format!("the worker ended with {status}"));
    }
    let left = processes::with_variable(MARK, &path);
    if !left.is_empty() {
        report.broken.push(format!("processes are left: {left:?}"));
    }
    report
}

/// Waits until all processes run, none is a zombie, and requests are answered.
fn wait_until_whole(worker: &Worker) -> Result<(), String> {
    let begun = Instant::now();
    let mut answered = 0;
    loop {
        // Orphans that the worker has taken in are none of the pool's: the killer may have stopped
        // one, and it ends with the worker.
        let pids: Vec<_> = processes::children(worker.pid())
            .into_iter()
            .filter(|process| process.name == "misbehave" && process.state != 'Z')
            .collect();
        let zombies = processes::zombies(worker.pid());
        let is_whole = pids.len() == PROCESSES && zombies == 0;
        let is_answered = worker
            .connect()
            .post("echo #whole")
            .is_ok_and(|response| response.status == 200);
        answered = if is_whole && is_answered {
            answered + 1
        } else {
            0
        };
        if answered == 20 {
            return Ok(());
        }
        if begun.elapsed() > WHOLE_WITHIN {
            return Err(format!(
                "the pool is not whole {WHOLE_WITHIN:?} after the last fault: {} processes, \
                 {zombies} zombies, {answered} answers in a row: {:?}",
                pids.len(),
                processes::children(worker.pid()),
            ));
        }
    }
}

/// How many descriptors are open when all starts are done: a process is there before the worker
/// has the descriptor that tells of its end, and while it still has the process's pipe ends.
fn settled_descriptors(worker: &Worker) -> usize {
    let (mut last, mut same) = (0, 0);
    eventually("the descriptors settle", || {
        let now = processes::descriptor_count(worker.pid());
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 20).then_some(now)
    })
}

/// Waits until no more descriptors are open than at the start; gives the last count.
fn eventually_few_descriptors(worker: &Worker, idle: usize) -> usize {
    let begun = Instant::now();
    eventually("descriptors are counted", || {
        let now = processes::descriptor_count(worker.pid());
        (now <= idle || begun.elapsed() > Duration::from_secs(10)).then_some(now)
    })
}
