//! Requests written ahead to a process that promised order: no request is lost, run twice or
//! answered with another's answer, and no request waits while a process is idle.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Builder, Connection, Ledger, Response, Worker, assert_error, assert_result, assert_within,
    eventually, processes, within,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Where the requests behind the first are.
#[derive(Clone, Copy, PartialEq)]
enum Behind {
    /// It has read them.
    Read,
    /// They are in its pipe.
    Unread,
}

/// A payload that is sent with a budget of half a second.
const HURRIED: &str = "hurried";

const BOTH: [Behind; 2] = [Behind::Read, Behind::Unread];

/// A worker with requests that were written ahead.
struct Staged {
    worker: Worker,
    ledger: Ledger,
    /// The process that has them.
    pid: u32,
    connections: Vec<Connection>,
}

impl Staged {
    fn receive(&mut self, number: usize) -> Response {
        self.connections[number].receive().unwrap()
    }

    /// The pid of the process that started on this payload; no other request has the same.
    fn runner(&self, payload: &str) -> u32 {
        self.ledger.assert_none_twice();
        let entries = self.ledger.entries();
        let entry = entries.iter().find(|entry| entry["payload"] == payload);
        u32::try_from(entry.unwrap()["pid"].as_u64().unwrap()).unwrap()
    }
}

/// One process that promised order, with a ledger. One thread, because requests of several
/// connections have an order only where one thread takes them in.
fn orderly(ledger: &Ledger, behind: Behind) -> Builder {
    let block_bytes = match behind {
        Behind::Read => "8192",
        Behind::Unread => "1",
    };
    ledger
        .misbehave(&["--announce", "1", "--block-bytes", block_bytes])
        .option("--processes", "1")
        .option("--threads", "1")
        .option("--timeout", "10s")
}

/// Has the process answer until it may be given requests ahead.
fn warm_up(worker: &Worker) {
    worker.wait_until_ready();
    let mut connection = worker.connect();
    for round in 0..100 {
        let payload = format!("warm {round}");
        assert_result(&connection.post(&payload).unwrap(), payload);
    }
}

/// Sends the payloads while the worker is stopped, so that it finds all of them at once.
fn send_at_once(worker: &Worker, payloads: &[&str]) -> Vec<Connection> {
    let mut connections: Vec<Connection> = payloads.iter().map(|_| worker.connect()).collect();
    for connection in &mut connections {
        connection.wait_until_accepted();
    }
    worker.signal(Signal::STOP);
    for (connection, payload) in connections.iter_mut().zip(payloads) {
        let budget = [("x-faas-timeout-ms", "500")];
        let headers = if *payload == HURRIED {
            &budget[..]
        } else {
            &[]
        };
        let body = body_of(payload);
        let bytes = request_bytes(worker.address, "POST", "/", headers, Some(&body));
        connection.send(&bytes).unwrap();
    }
    worker.signal(Signal::CONT);
    connections
}

/// A worker whose process works on the first of these payloads and has the rest written ahead.
/// On a busy machine this may take several attempts: a process that got no processor for a while
/// is given fewer requests ahead.
fn staged(behind: Behind, change: fn(Builder) -> Builder, payloads: &[&str]) -> Staged {
    eventually("requests are written ahead", || {
        let ledger = Ledger::new();
        let worker = change(orderly(&ledger, behind)).start();
        warm_up(&worker);
        let connections = send_at_once(&worker, payloads);
        let first = eventually("the first is begun with", || {
            let mut entries = ledger.entries().into_iter();
            entries.find(|entry| entry["payload"] == payloads[0])
        });
        let is_staged = match behind {
            Behind::Read => first["lines_behind"] == payloads.len() - 1,
            Behind::Unread => {
                let lines = |id: &str| -> u64 {
                    let lines = payloads[1..].iter();
                    let lines =
                        lines.map(|payload| format!(r#"{{"id":{id},"payload":"{payload}"}}"#));
                    lines.map(|line| line.len() as u64 + 1).sum()
                };
                // Ids are drawn: few have less than 13 digits, and none more than 16.
                let expected = lines(&"9".repeat(13))..=lines(&"9".repeat(16));
                let unread = first["bytes_unread"].as_u64();
                unread.is_some_and(|unread| expected.contains(&unread))
            }
        };
        is_staged.then(|| Staged {
            pid: u32::try_from(first["pid"].as_u64().unwrap()).unwrap(),
            worker,
            ledger,
            connections,
        })
    })
}

/// D5.
#[test]
fn a_death_fails_only_the_request_being_worked_on() {
    for behind in BOTH {
        let payloads = ["exit 3", "one", "two", "three"];
        let mut staged = staged(behind, |builder| builder, &payloads);
        assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
        for (number, &payload) in payloads.iter().enumerate().skip(1) {
            assert_result(&staged.receive(number), payload);
            assert_ne!(staged.runner(payload), staged.pid);
        }
        let started = staged.ledger.payloads();
        assert!(
            started.ends_with(&payloads.map(str::to_owned)),
            "{started:?}"
        );
    }
}

/// D5: the process is killed at once, though it ignores SIGTERM and has a long grace.
#[test]
fn a_timeout_fails_only_the_request_being_worked_on_and_holds_up_no_other() {
    let mut staged = staged(
        Behind::Read,
        |builder| {
            builder
                .option("--timeout", "500ms")
                .option("--grace", "60s")
        },
        &["hang", "one", "two"],
    );
    assert_error(&staged.receive(0), 504, "handler_timeout", "maybe");
    let told = Instant::now();
    assert_result(&staged.receive(1), "one");
    assert_result(&staged.receive(2), "two");
    assert_within(Duration::from_secs(15), told);
    assert!(!processes::is_alive(staged.pid));
    assert_ne!(staged.runner("two"), staged.pid);
}

/// D5: replies written before the death count. The process may have started on the request behind
/// the last reply, unless that request is still in the pipe.
#[test]
fn replies_that_are_there_at_the_death_count() {
    for behind in BOTH {
        let payloads = ["sleep 1 #first", "own", "reply-exit 3", "next", "last"];
        let mut staged = staged(behind, |builder| builder, &payloads);
        for (number, &payload) in payloads.iter().enumerate().take(3) {
            assert_result(&staged.receive(number), payload);
        }
        assert_eq!(staged.runner("reply-exit 3"), staged.pid);
        let next = staged.receive(3);
        match behind {
            Behind::Read => assert_error(&next, 502, "handler_exited", "maybe"),
            Behind::Unread => assert_result(&next, "next"),
        }
        assert_result(&staged.receive(4), "last");
        assert_ne!(staged.runner("last"), staged.pid);
    }
}

/// D5, C10: each request gets its own answer, and the process is given no more.
#[test]
fn a_broken_order_gives_each_its_own_answer_and_costs_the_process() {
    let payloads = ["after-next", "own", "behind"];
    let mut staged = staged(Behind::Read, |builder| builder, &payloads);
    for (number, payload) in payloads.iter().enumerate() {
        assert_result(&staged.receive(number), *payload);
    }
    processes::wait_until_gone(&[staged.pid]);
    assert_eq!(staged.runner("behind"), staged.pid);
}

/// D5: after a broken order, only requests still in the pipe are known not to have started.
#[test]
fn after_a_broken_order_a_death_runs_nothing_twice() {
    for behind in BOTH {
        let payloads = ["after-next", "own", "exit 3", "behind"];
        let mut staged = staged(behind, |builder| builder, &payloads);
        assert_result(&staged.receive(0), "after-next");
        assert_result(&staged.receive(1), "own");
        assert_error(&staged.receive(2), 502, "handler_exited", "maybe");
        let last = staged.receive(3);
        match behind {
            Behind::Read => assert_error(&last, 502, "handler_exited", "maybe"),
            Behind::Unread => assert_result(&last, "behind"),
        }
        staged.ledger.assert_none_twice();
    }
}

/// C5, C10: a broken reply may have been meant for the first request, so that the process may have
/// started on the second.
#[test]
fn behind_a_botched_reply_nothing_is_run_twice() {
    let botched = r#"raw {"result":NaN,"id":$ID}"#;
    let payloads = [botched, "exit 3", "behind"];
    let mut staged = staged(Behind::Read, |builder| builder, &payloads);
    assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
    assert_error(&staged.receive(1), 502, "handler_exited", "maybe");
    assert_result(&staged.receive(2), "behind");
    assert_ne!(staged.runner("behind"), staged.pid);
}

/// C10.
#[test]
fn a_process_in_doubt_starts_on_nothing_more() {
    let payloads = ["wrong-id", "sleep 300", "behind"];
    let mut staged = staged(Behind::Read, |builder| builder, &payloads);
    assert_error(&staged.receive(0), 502, "handler_protocol", "maybe");
    assert_error(&staged.receive(1), 502, "handler_exited", "maybe");
    assert_result(&staged.receive(2), "behind");
    assert_ne!(staged.runner("behind"), staged.pid);
}

/// D5: the client of a request written ahead left.
#[test]
fn a_request_whose_client_left_behind_another_is_not_run_after_a_death() {
    let mut staged = staged(
        Behind::Read,
        |builder| builder,
        &["sleep-exit 700", "left", "next"],
    );
    drop(staged.connections.remove(1));
    assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
    assert_result(&staged.receive(1), "next");
    assert_eq!(staged.ledger.count("left"), 0);
}

/// D5: the queue time of a request written ahead passed.
#[test]
fn time_behind_another_request_is_not_time_in_the_queue() {
    let mut staged = staged(
        Behind::Read,
        |builder| builder.option("--queue-timeout", "500ms"),
        &["sleep-exit 1500", "next"],
    );
    assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
    assert_result(&staged.receive(1), "next");
}

/// D5: a request written ahead takes up no room in the queue, nor does it when it comes back.
#[test]
fn what_comes_back_is_not_refused_for_a_full_queue() {
    let payloads = ["sleep-exit 300", "one", "two", "three"];
    let mut staged = staged(
        Behind::Read,
        |builder| builder.option("--queue", "4"),
        &payloads,
    );
    // The queue is full again meanwhile.
    let waiting: Vec<_> = (0..4)
        .map(|number| staged.worker.post_aside(&format!("late {number}")))
        .collect();
    assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
    for (number, &payload) in payloads.iter().enumerate().skip(1) {
        assert_result(&staged.receive(number), payload);
    }
    for (number, waiting) in waiting.into_iter().enumerate() {
        assert_result(&waiting.join().unwrap(), format!("late {number}"));
    }
}

/// D5: a drain began.
#[test]
fn what_never_started_when_the_worker_stops_is_told_so() {
    let mut staged = staged(
        Behind::Read,
        |builder| {
            builder
                .option("--drain-timeout", "2s")
                .option("--grace", "200ms")
        },
        &["hang", "one", "two"],
    );
    staged.worker.signal(Signal::TERM);
    assert_error(&staged.receive(0), 502, "handler_exited", "maybe");
    assert_error(&staged.receive(1), 503, "draining", "no");
    assert_error(&staged.receive(2), 503, "draining", "no");
    assert_eq!(staged.ledger.count("one") + staged.ledger.count("two"), 0);
}

/// D5: the processes are replaced while requests are written ahead.
#[test]
fn what_was_written_ahead_is_finished_by_a_process_that_is_replaced() {
    let payloads = ["sleep 700", "one", "two"];
    let mut staged = staged(Behind::Read, |builder| builder, &payloads);
    staged.worker.signal(Signal::HUP);
    for (number, payload) in payloads.iter().enumerate() {
        assert_result(&staged.receive(number), *payload);
        assert_eq!(staged.runner(payload), staged.pid);
    }
    processes::wait_until_gone(&[staged.pid]);
}

/// A caller's budget ends while its request is behind another: the caller is told on time, and no
/// process is lost.
#[test]
fn a_budget_that_ends_behind_another_request_is_told_on_time() {
    let mut staged = staged(
        Behind::Read,
        |builder| builder,
        &["sleep 2000", HURRIED, "next"],
    );
    let response = staged.receive(1);
    assert_eq!(
        staged.ledger.count(HURRIED),
        0,
        "it was told before it was begun with"
    );
    assert_error(&response, 504, "handler_timeout", "maybe");
    assert!(
        response.detail().contains("behind another"),
        "{}",
        response.detail()
    );
    assert_result(&staged.receive(0), "sleep 2000");
    assert_result(&staged.receive(2), "next");
    assert_eq!(staged.runner("next"), staged.pid);
    assert_eq!(staged.worker.process(), staged.pid);
}

/// D3: the window closes after one slow request, and nothing waits behind the next.
#[test]
fn after_a_slow_request_none_is_written_ahead_for_a_while() {
    let payloads = ["sleep 100", "one", "two"];
    let mut staged = staged(Behind::Read, |builder| builder, &payloads);
    for (number, payload) in payloads.iter().enumerate() {
        assert_result(&staged.receive(number), *payload);
    }
    let again = ["sleep 5", "four", "five", "six"];
    let mut connections = send_at_once(&staged.worker, &again);
    for (connection, payload) in connections.iter_mut().zip(again) {
        assert_result(&connection.receive().unwrap(), payload);
    }
    assert_nothing_ahead(&staged.ledger, &again);
    // And opens again.
    within(
        Duration::from_secs(60),
        "requests are written ahead again",
        || {
            warm_up(&staged.worker);
            let mut connections = send_at_once(&staged.worker, &["a", "b", "c", "d"]);
            for connection in &mut connections {
                assert_eq!(connection.receive().unwrap().status, 200);
            }
            let entries = staged.ledger.entries();
            let last_a = entries.iter().rfind(|entry| entry["payload"] == "a")?;
            (last_a["lines_behind"].as_u64()? > 0).then_some(())
        },
    );
}

#[track_caller]
fn assert_nothing_ahead(ledger: &Ledger, payloads: &[&str]) {
    for entry in ledger.entries() {
        if payloads.contains(&entry["payload"].as_str().unwrap()) {
            assert_eq!(
                (&entry["lines_behind"], &entry["bytes_unread"]),
                (&0.into(), &0.into())
            );
        }
    }
}

/// D6, and `--read-ahead 1`.
#[test]
fn without_the_promise_or_with_read_ahead_off_none_is_written_ahead() {
    for (announced, setting) in [(&["--ready"][..], "32"), (&["--announce", "1"], "1")] {
        let ledger = Ledger::new();
        let worker = ledger
            .misbehave(announced)
            .option("--processes", "1")
            .option("--read-ahead", setting)
            .start();
        warm_up(&worker);
        for round in 0..10 {
            let payloads: Vec<String> = (0..16).map(|n| format!("{round}-{n}")).collect();
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            let mut connections = send_at_once(&worker, &payloads);
            for (connection, payload) in connections.iter_mut().zip(&payloads) {
                assert_result(&connection.receive().unwrap(), *payload);
            }
            assert_nothing_ahead(&ledger, &payloads);
        }
    }
}

/// No request waits behind another while a process is idle.
#[test]
fn idle_processes_come_before_reading_ahead() {
    let ledger = Ledger::new();
    let worker = orderly(&ledger, Behind::Read)
        .option("--processes", "3")
        .option(
            "--threads",
            &std::env::var("FAAS_TEST_THREADS").unwrap_or("1".to_owned()),
        )
        .start();
    warm_up(&worker);
    worker.wait_until_up(3);
    for round in 0..20 {
        let payloads = ["a", "b", "c"].map(|letter| format!("{letter}{round}"));
        let payloads = payloads.each_ref().map(String::as_str);
        let mut connections = send_at_once(&worker, &payloads);
        for (connection, payload) in connections.iter_mut().zip(payloads) {
            assert_result(&connection.receive().unwrap(), payload);
        }
        assert_nothing_ahead(&ledger, &payloads);
    }
}
