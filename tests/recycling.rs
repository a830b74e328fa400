//! Processes that have served long enough, and pools that grow and shrink.

use crate::support::load::Load;
use crate::support::{Ledger, assert_result, eventually, misbehave, processes};
use std::time::{Duration, Instant};

/// F4: the strictest setting there is.
#[test]
fn recycling_after_every_request_fails_none() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--max-requests", "1")
        .option("--timeout", "20s")
        .start();
    worker.wait_until_ready();
    let load = Load::on(worker.address, 8);
    load.wait_for(3000);
    // A process serves until its successor is ready, so the number of requests it answers depends
    // on how long the machine takes to start a process.
    eventually("more than twenty processes were replaced", || {
        let replaced = worker.log.text().matches("due to be replaced").count();
        (replaced > 20).then_some(())
    });
    load.end();
}

/// The successor of a process that sends no ready line shows itself with a request.
#[test]
fn recycling_needs_no_ready_line() {
    let worker = misbehave(&[])
        .option("--processes", "1")
        .option("--max-requests", "2")
        .start();
    let mut pids = Vec::new();
    eventually("four processes have served", || {
        pids.push(worker.process());
        pids.dedup();
        (pids.len() >= 4).then_some(())
    });
}

#[test]
fn a_process_is_replaced_when_it_is_old() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-age", "300ms")
        .start();
    worker.wait_until_ready();
    let first = worker.process();
    let load = Load::on(worker.address, 2);
    eventually("another has taken its place", || {
        let now = processes::living_children(worker.pid());
        (!now.is_empty() && !now.contains(&first)).then_some(())
    });
    load.end();
    worker.log.wait_for(&["due to be replaced", "--max-age"]);
}

/// B13: between requests, and none is lost.
#[test]
fn a_process_that_leaks_is_replaced() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-memory", "64MiB")
        .start();
    worker.wait_until_ready();
    let first = worker.process();
    assert_result(&worker.post("leak 20"), "leak 20");
    let load = Load::on(worker.address, 2);
    let begun = Instant::now();
    // Several looks at its memory, which must not be over the limit yet.
    while begun.elapsed() < Duration::from_millis(2500) {
        load.wait_for(1);
    }
    assert_eq!(
        worker.process(),
        first,
        "replaced though it had enough room"
    );
    assert_result(&worker.post("leak 60"), "leak 60");
    eventually("another has taken its place", || {
        (worker.process() != first).then_some(())
    });
    load.end();
    worker.log.wait_for(&["due to be replaced", "--max-memory"]);
}

/// Every new process is over the limit; without a back-off, one was started every 0.6 s for ever.
#[test]
fn a_process_that_is_too_large_from_the_start_is_replaced_ever_more_slowly() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-memory", "100KiB")
        .start();
    let pauses = || -> Vec<f64> {
        let lines = worker.log.lines();
        let told = lines
            .iter()
            .filter(|line| line.contains("over its limit before its first request"));
        told.map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["replaced_in_ms"].as_f64().unwrap()
        })
        .collect()
    };
    let pauses = eventually("it is told of five times", || {
        Some(pauses()).filter(|pauses| pauses.len() >= 5)
    });
    // Shortened by half at most.
    for (pause, full) in pauses.iter().zip([0.0, 100.0, 200.0, 400.0, 800.0]) {
        assert!((full / 2.0..=full).contains(pause), "{pauses:?}");
    }
    worker
        .log
        .wait_for(&["over its limit", "\"level\":\"WARN\""]);
    assert_result(&worker.post("served all the same"), "served all the same");
    // With requests it is replaced as before.
    let first = worker.process();
    eventually("another has taken its place", || {
        (worker.process() != first).then_some(())
    });
}

#[test]
fn the_pool_grows_while_requests_wait_and_shrinks_when_they_do_not() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-processes", "4")
        .option("--idle-timeout", "300ms")
        .start();
    worker.wait_until_ready();
    for _ in 0..2 {
        worker.wait_for_processes(1);
        let waiting: Vec<_> = (0..12)
            .map(|number| worker.post_aside(&format!("sleep 400 #{number}")))
            .collect();
        worker.wait_for_processes(4);
        for (number, waiting) in waiting.into_iter().enumerate() {
            assert_result(&waiting.join().unwrap(), format!("sleep 400 #{number}"));
        }
    }
    worker.wait_for_processes(1);
    worker.log.wait_for(&["is not needed"]);
}

/// A request that waits for no longer than its turn is no reason to grow.
#[test]
fn the_pool_does_not_grow_while_requests_do_not_wait() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-processes", "4")
        .start();
    worker.wait_until_ready();
    let load = Load::on(worker.address, 1);
    load.wait_for(500);
    load.end();
    let started = worker.log.text().matches("process started").count();
    assert_eq!(started, 1);
}

#[test]
fn fewer_at_most_than_at_least_is_a_mistake() {
    let output = misbehave(&[]).option("--max-processes", "1").output();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said.trim_end(),
        "--max-processes (FAAS_MAX_PROCESSES): fewer than --processes, which is 2: \"1\""
    );
}
