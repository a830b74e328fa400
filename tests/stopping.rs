//! The end of the worker: it is bounded and orderly, and leaves no process.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Chance, Connection, Ledger, Scratch, assert_error, assert_result, assert_within, eventually,
    misbehave, processes, sh, wait_for_file, within,
};
use rustix::process::Signal;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn an_idle_worker_ends_at_once_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut worker = misbehave(&["--ready"]).option("--grace", "20s").start();
        worker.wait_until_ready();
        let below = worker.wait_for_processes(2);
        let start = Instant::now();
        worker.signal(signal);
        let status = worker.wait_for_end(Duration::from_secs(10));
        assert!(status.success(), "{status}");
        assert_within(Duration::from_secs(9), start);
        assert!(processes::are_gone(&below), "a process is left");
    }
}

/// F1: running and waiting requests are answered; then the worker ends, and no later.
#[test]
fn a_drain_answers_what_was_accepted() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "2")
        .start();
    worker.wait_until_ready();
    worker.wait_for_starts(2);
    let accepted: Vec<_> = (0..6)
        .map(|number| {
            let payload = format!("sleep 400 #{number}");
            (payload.clone(), worker.post_aside(&payload))
        })
        .collect();
    ledger.wait_for_entries(2);
    worker.wait_until_read();
    let start = Instant::now();
    worker.signal(Signal::TERM);
    let mut closing = 0;
    for (payload, waiting) in accepted {
        let response = waiting.join().unwrap();
        assert_result(&response, payload);
        closing += usize::from(response.header("connection") == Some("close"));
    }
    assert!(closing >= 4, "those that waited are told of the close");
    let status = worker.wait_for_end(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    // Three rounds of 400 ms; the time to drain is 20 s.
    assert_within(Duration::from_secs(12), start);
}

/// F1: SIGTERM while 16 clients send as fast as they can.
#[test]
fn sigterm_under_load_loses_no_accepted_request() {
    for options in [
        &["--ready"][..],
        &["--ready", "--ids", "never"],
        &["--announce", "4"],
    ] {
        let ledger = Ledger::new();
        let mut worker = ledger.misbehave(options).start();
        worker.wait_until_ready();
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..16)
            .map(|client| {
                let address = worker.address;
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut answers: Vec<(String, Option<u16>)> = Vec::new();
                    let mut connection = None;
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let Some(open) = connection
                            .take()
                            .or_else(|| crate::support::Connection::open(address).ok())
                        else {
                            // The listener is closed.
                            break;
                        };
                        let mut open = open;
                        let payload = format!("sleep 5 #{client}-{round}");
                        match open.post(&payload) {
                            Ok(response) => {
                                match response.status {
                                    200 => assert_result(&response, payload.as_str()),
                                    503 => assert_error(&response, 503, "draining", "no"),
                                    other => panic!("{other}: {}", response.text()),
                                }
                                let goes_on = response.header("connection") != Some("close");
                                answers.push((payload, Some(response.status)));
                                connection = goes_on.then_some(open);
                            }
                            Err(_) => answers.push((payload, None)),
                        }
                    }
                    answers
                })
            })
            .collect();
        ledger.wait_for_entries(100);
        worker.signal(Signal::TERM);
        let start = Instant::now();
        let status = worker.wait_for_end(Duration::from_secs(15));
        stop.store(true, Ordering::Relaxed);
        assert!(status.success(), "{status}");
        assert_within(Duration::from_secs(12), start);

        let mut started: HashMap<String, u32> = HashMap::new();
        for payload in ledger.payloads() {
            *started.entry(payload).or_default() += 1;
        }
        let mut served = 0;
        for client in clients {
            for (payload, status) in client.join().unwrap() {
                let count = started.get(&payload).copied().unwrap_or_default();
                match status {
                    Some(200) => {
                        assert_eq!(count, 1, "{payload} was answered, run {count} times");
                        served += 1;
                    }
                    Some(503) => assert_eq!(count, 0, "{payload} was refused, and run"),
                    // The connection ended first: then no process may have started on it.
                    _ => assert_eq!(count, 0, "{payload} was run, and its answer lost"),
                }
            }
        }
        assert!(served > 20, "only {served} served");
    }
}

/// F2: a hang ends with the drain.
#[test]
fn a_hang_does_not_hold_up_the_end() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--drain-timeout", "800ms")
        .option("--grace", "300ms")
        .start();
    worker.wait_until_ready();
    let hung = worker.post_aside("hang");
    ledger.wait_for_start("hang");
    let waiting = worker.post_aside("waiting");
    worker.wait_until_read();
    let pid = worker.wait_for_processes(1)[0];
    let start = Instant::now();
    worker.signal(Signal::TERM);
    let hung = hung.join().unwrap();
    assert_eq!(
        (hung.status, hung.header("x-faas-executed")),
        (502, Some("maybe"))
    );
    assert_error(&waiting.join().unwrap(), 503, "draining", "no");
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    assert_within(Duration::from_secs(8), start);
    assert!(!processes::is_alive(pid));
    assert_eq!(ledger.payloads(), ["hang"]);
}

/// F1: a request has all of the time to drain; idle processes end before.
#[test]
fn a_request_has_all_of_the_drain_and_idle_processes_end_before_it() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "3")
        .option("--drain-timeout", "5s")
        // The grace is not taken from the time of the requests.
        .option("--grace", "5s")
        .start();
    worker.wait_until_ready();
    worker.wait_for_processes(3);
    let working = worker.post_aside("sleep 4000");
    ledger.wait_for_start("sleep 4000");
    worker.signal(Signal::TERM);
    let alone = worker.wait_for_processes(1);
    assert!(!working.is_finished(), "the idle ones ended while it ran");
    assert_result(&working.join().unwrap(), "sleep 4000");
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    assert!(!processes::is_alive(alone[0]));
}

/// F2: a handler that heeds neither the end of its stdin nor SIGTERM.
#[test]
fn the_end_comes_three_seconds_after_the_drain_at_most_and_says_what_was_cut() {
    let scratch = Scratch::new();
    let begun = scratch.path("begun");
    let script = "trap '' TERM; read -r line; : > \"$1\"; while :; do sleep 1; done";
    let mut worker = sh(script, &[&begun])
        .option("--processes", "1")
        .option("--drain-timeout", "1s")
        .option("--grace", "60s")
        .start();
    let hung = worker.post_aside("hang");
    wait_for_file(&begun);
    let waiting = worker.post_aside("waiting");
    worker.wait_until_read();
    let start = Instant::now();
    worker.signal(Signal::TERM);
    assert_error(&hung.join().unwrap(), 502, "handler_exited", "maybe");
    assert_error(&waiting.join().unwrap(), 503, "draining", "no");
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    let took = start.elapsed();
    assert!(took < Duration::from_millis(4500), "{took:?}");
    worker
        .log
        .wait_for(&["the time to drain is over", "\"requests\":2"]);
}

/// F2.
#[test]
fn a_second_signal_cuts_the_drain_short() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        // Without the second signal SIGTERM comes at half of the grace, long after the limit below.
        .option("--drain-timeout", "4m")
        .option("--grace", "2m")
        .start();
    worker.wait_until_ready();
    let hung = worker.post_aside("hang");
    ledger.wait_for_start("hang");
    let below = worker.wait_for_processes(2);
    worker.signal(Signal::TERM);
    worker.log.wait_for(&["shutting down"]);
    // Nothing may happen in this time.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!worker.has_ended(), "drains while a request runs");
    worker.signal(Signal::TERM);
    worker.wait_for_end(Duration::from_secs(15));
    let _ = hung.join();
    processes::wait_until_gone(&below);
}

/// F2.
#[test]
fn a_signal_while_processes_start_leaves_nothing() {
    let mut worker = misbehave(&["--delay", "30000", "--ready"])
        .flag("--wait-ready")
        .option("--drain-timeout", "1s")
        .start();
    let below = worker.wait_for_processes(2);
    worker.signal(Signal::TERM);
    worker.wait_for_end(Duration::from_secs(15));
    assert!(processes::are_gone(&below), "a process is left");
}

#[test]
fn a_signal_while_a_start_waits_in_its_back_off_ends_the_worker() {
    let mut worker = sh("exit 3", &[]).option("--processes", "1").start();
    worker.log.wait_for(&["process ended", "\"process\":3"]);
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(15)).success());
}

#[test]
fn while_the_drain_is_delayed_the_worker_serves_and_is_not_ready() {
    let mut worker = misbehave(&["--ready"])
        .option("--drain-delay", "4s")
        .start();
    worker.wait_until_ready();
    worker.signal(Signal::TERM);
    within(Duration::from_millis(3500), "is not ready", || {
        (worker.get("/ready").status == 503).then_some(())
    });
    let served = worker.post("still served");
    assert_result(&served, "still served");
    assert_eq!(
        served.header("connection"),
        Some("close"),
        "its client goes to another worker"
    );
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
}

#[test]
fn children_of_processes_end_with_the_worker() {
    let mut worker = misbehave(&["--ready"]).start();
    let child = worker.post_for_pid("child");
    assert!(processes::is_alive(child));
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    assert!(!processes::is_alive(child), "a child of a process is left");
}

/// B14, for processes that still read their stdin.
#[test]
fn no_process_outlives_a_killed_worker() {
    let mut worker = misbehave(&["--ready"]).option("--timeout", "60s").start();
    worker.wait_until_ready();
    let below = worker.wait_for_processes(2);
    let mut busy = worker.connect();
    busy.send_payload("sleep 300").unwrap();
    worker.signal(Signal::KILL);
    worker.wait_for_end(Duration::from_secs(15));
    processes::wait_until_gone_within(Duration::from_secs(2), &below);
}

/// The rest of the body has not come when the time to drain is over.
#[test]
fn half_a_body_at_the_end_of_a_drain_is_answered() {
    let mut worker = misbehave(&["--ready"])
        .option("--drain-timeout", "2s")
        .option("--grace", "500ms")
        .start();
    worker.wait_until_ready();
    let mut half = worker.connect();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("x")));
    half.send(&bytes[..bytes.len() - 2]).unwrap();
    worker.wait_until_read();
    worker.signal(Signal::TERM);
    assert_error(&half.receive().unwrap(), 503, "draining", "no");
    assert!(worker.wait_for_end(Duration::from_secs(15)).success());
}

/// Promise 10: a connection that is idle when the signal comes gets `connection: close` with its
/// next answer. A request that is on its way at the signal is not lost.
#[test]
fn requests_on_their_way_at_the_signal_are_answered() {
    let mut told = 0;
    for round in 0..3 {
        let mut worker = misbehave(&["--ready"]).start();
        worker.wait_until_ready();
        let answered = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let (address, answered) = (worker.address, Arc::clone(&answered));
                let mut chance = Chance::seeded(64 * round + client);
                std::thread::spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    loop {
                        let answer = connection.post("x");
                        let answer = answer.expect("a request on an open connection is lost");
                        assert_result(&answer, "x");
                        answered.fetch_add(1, Ordering::Relaxed);
                        if answer.header("connection") == Some("close") {
                            return;
                        }
                        std::thread::sleep(Duration::from_micros(chance.below(4_000)));
                    }
                })
            })
            .collect();
        eventually("all are at it", || {
            (answered.load(Ordering::Relaxed) >= 640).then_some(())
        });
        worker.signal(Signal::TERM);
        for client in clients {
            client.join().unwrap();
            told += 1;
        }
        worker.wait_for_end(Duration::from_secs(10));
    }
    assert_eq!(told, 3 * 64);
}

/// Idle connections are closed about a second after the signal.
#[test]
fn idle_connections_hold_up_the_end_for_a_moment_only() {
    let mut worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    let mut idle = worker.connect();
    assert_result(&idle.post("x").unwrap(), "x");
    let start = Instant::now();
    worker.signal(Signal::TERM);
    assert!(idle.is_closed_by_worker());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    // Asked twice, it does not wait.
    let mut worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    let mut idle = worker.connect();
    assert_result(&idle.post("x").unwrap(), "x");
    let start = Instant::now();
    worker.signal(Signal::TERM);
    worker.log.wait_for(&["shutting down"]);
    worker.signal(Signal::TERM);
    assert!(idle.is_closed_by_worker());
    worker.wait_for_end(Duration::from_secs(10));
    let took = start.elapsed();
    assert!(took < Duration::from_millis(900), "{took:?}");
}
