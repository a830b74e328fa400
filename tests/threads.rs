//! Workers that serve on several threads.

use crate::support::{Ledger, Worker, assert_result};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CALLERS: usize = 8;
const CALLS: usize = 40;
const PROCESSES: usize = 4;

/// A worker with four processes, each of which works on one request at a time.
fn start(ledger: &Ledger, threads: &str) -> Worker {
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", &PROCESSES.to_string())
        .option("--threads", threads)
        .start();
    worker.wait_for_processes(PROCESSES);
    worker
}

/// Eight callers at once, all on the first thread of two: connections are dealt out in turn. Gives
/// the times of their calls, shortest first.
fn call_from_first_thread(worker: &Worker) -> Vec<Duration> {
    let connections = (0..2 * CALLERS).map(|_| {
        let mut connection = worker.connect();
        connection.wait_until_accepted();
        connection
    });
    let mut connections: Vec<_> = connections.collect();
    let on_first = connections.iter_mut().step_by(2);
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let callers = on_first.enumerate().map(|(caller, connection)| {
            scope.spawn(move || {
                let calls = (0..CALLS).map(|call| {
                    let payload = format!("sleep 5 #{caller} {call}");
                    let begun = Instant::now();
                    assert_result(&connection.post(&payload).unwrap(), payload);
                    begun.elapsed()
                });
                calls.collect::<Vec<_>>()
            })
        });
        let callers: Vec<_> = callers.collect();
        let times = callers.into_iter().map(|caller| caller.join().unwrap());
        times.flatten().collect()
    });
    times.sort_unstable();
    times
}

/// D3: where a caller's connection is makes no difference to its wait.
#[test]
fn callers_on_one_thread_have_the_processes_of_all_threads() {
    let mut waits = Vec::new();
    for threads in ["1", "2"] {
        let ledger = Ledger::new();
        let worker = start(&ledger, threads);
        let times = call_from_first_thread(&worker);
        waits.push(times[times.len() * 99 / 100]);
        let mut shares = BTreeMap::new();
        for entry in ledger.entries() {
            *shares.entry(entry["pid"].to_string()).or_insert(0_usize) += 1;
        }
        let fair = CALLERS * CALLS / PROCESSES;
        assert_eq!(shares.len(), PROCESSES, "{threads}: {shares:?}");
        assert!(
            shares.values().all(|share| *share > fair / 2),
            "{threads}: {shares:?}"
        );
    }
    let [one, two] = waits[..] else {
        unreachable!()
    };
    // On a busy machine single measurements differ by far more than threads do.
    assert!(two < 2 * one + Duration::from_millis(20), "{one:?} {two:?}");
}
