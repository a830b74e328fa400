//! Processes that exit, crash, hang, or close their pipes.

use crate::support::{
    Ledger, Scratch, Worker, assert_error, assert_result, assert_within, eventually, misbehave,
    processes, sh, wait_for_file,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Fails unless the worker answers and is whole again: `count` processes, no zombie.
#[track_caller]
fn assert_whole(worker: &Worker, count: usize) {
    assert_result(&worker.post("still there"), "still there");
    worker.wait_for_processes(count);
    processes::wait_for_no_zombie(worker.pid());
}

/// B5: a process that is dying is not polled.
#[test]
fn a_process_that_takes_its_time_to_die_costs_no_processor_time() {
    let script = "trap '' TERM; while read -r line; do while :; do sleep 60; done; done";
    let worker = sh(script, &[])
        .option("--processes", "1")
        .option("--timeout", "200ms")
        .option("--startup-timeout", "200ms")
        .option("--grace", "3s")
        .start();
    assert_error(&worker.post("x"), 504, "handler_timeout", "maybe");
    // Nothing may happen while it waits.
    let before = processes::cpu_ticks(worker.pid());
    std::thread::sleep(Duration::from_secs(1));
    let ticks = processes::cpu_ticks(worker.pid()) - before;
    assert!(ticks < 30, "{ticks} ticks of 10 ms in a second");
}

/// B1: the next request may already be in the pipe when the worker sees the exit.
#[test]
fn a_process_that_exits_after_each_reply_costs_no_request() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&[]).start();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let mut connection = worker.connect();
            std::thread::spawn(move || {
                for round in 0..40 {
                    let payload = format!("reply-exit 0 #{client}-{round}");
                    assert_result(&connection.post(&payload).unwrap(), payload);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    ledger.assert_none_twice();
    assert_eq!(ledger.payloads().len(), 160);
    assert_whole(&worker, 2);
}

/// B1: a handler may write a request that it has read back into its stdin, where it looks unread.
#[test]
fn a_request_that_its_process_puts_back_is_given_to_two_others_at_most() {
    let ledger = Scratch::new();
    let path = ledger.file("ledger", 0o600, "");
    let script = r#"while IFS= read -r line; do
        printf '%s\n' "$line" >> "$1"
        case $line in *again*) printf "$2" "$line" > /proc/self/fd/0; exit "$3" ;; esac
        printf '{"result":1}\n'
    done"#;
    let other = "%.5s                                       \n";
    for (put_back, status, most) in [("%s\n", "3", 3), ("%s\n", "0", 3), (other, "3", 1)] {
        let worker = sh(script, &[&path, put_back, status]).start();
        assert_eq!(worker.post("ok").status, 200);
        assert_error(&worker.post("again"), 502, "handler_exited", "maybe");
        eventually("a process is up again", || {
            (worker.post("ok").status == 200).then_some(())
        });
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.matches("again").count() <= most, "{lines}");
        std::fs::write(&path, "").unwrap();
    }
}

/// B1: a descendant outside the process's group outlives it and keeps its stdin full.
#[test]
fn a_stdin_that_is_kept_full_after_a_death_holds_up_nobody() {
    let script = r#"while IFS= read -r line; do
        case $line in *refill*)
            exec 3<&0
            setsid sh -c 'for one in 1 2 3; do timeout 3 cat /dev/zero > /proc/self/fd/3 & done; wait' &
            sleep 0.3
            exit 3 ;;
        esac
        printf '{"result":1}\n'
    done"#;
    let worker = sh(script, &[]).option("--processes", "1").start();
    assert_eq!(worker.post("ok").status, 200);
    let start = Instant::now();
    assert_error(&worker.post("refill"), 502, "handler_exited", "maybe");
    assert_eq!(worker.post("ok").status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "it waited for the writers"
    );
}

/// B1.
#[test]
fn a_process_that_dies_idle_is_replaced_before_a_client_notices() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    // Few rounds: the pause before a restart grows while processes die before they have served.
    for round in 0..4 {
        for pid in worker.wait_for_processes(2) {
            processes::signal(pid, Signal::KILL);
            processes::wait_until_gone(&[pid]);
        }
        let payload = format!("round {round}");
        assert_result(&worker.post(&payload), payload);
    }
    assert_whole(&worker, 2);
}

/// B2: a line printed for an earlier request is not shown to the caller of the next.
#[test]
fn what_a_process_printed_for_an_earlier_request_is_not_told_of_the_next() {
    let script = r#"while IFS= read -r line; do
        case "$line" in
        *own*) echo 'for this one' >&2; exit 3 ;;
        *die*) exit 3 ;;
        *) echo 'for an earlier one' >&2; sleep 0.1; printf '{"result":1}\n' ;;
        esac
    done"#;
    let worker = sh(script, &[]).option("--processes", "1").start();
    for (payload, is_told) in [("die", false), ("own", true)] {
        assert_result(&worker.post("x"), 1);
        let response = worker.post(payload);
        assert_error(&response, 502, "handler_exited", "maybe");
        let detail = response.detail();
        assert!(!detail.contains("earlier"), "{detail}");
        assert_eq!(detail.contains("for this one"), is_told, "{detail}");
    }
}

/// B2.
#[test]
fn a_process_that_exits_with_a_request_fails_it_at_once_and_names_the_status() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&[]).option("--timeout", "10s").start();
    for command in ["exit 3", "exit-in-line 3"] {
        let mut fastest = Duration::MAX;
        for round in 0..5 {
            let payload = format!("{command} #{round}");
            assert_result(&worker.post("warm"), "warm");
            let start = Instant::now();
            let response = worker.post(&payload);
            fastest = fastest.min(start.elapsed());
            assert_error(&response, 502, "handler_exited", "maybe");
            assert!(response.detail().contains('3'), "{}", response.detail());
            assert_eq!(ledger.count(&payload), 1);
        }
        // The machine may have much else to do, but not each time.
        assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    }
    let response = worker.post("exit 0");
    assert_error(&response, 502, "handler_exited", "maybe");
    assert_whole(&worker, 2);
}

/// B2: only the request that the process worked on fails.
#[test]
fn a_death_fails_no_other_request() {
    let worker = misbehave(&[]).start();
    let slow = worker.post_aside("sleep 500 #slow");
    eventually("the slow one runs", || (!slow.is_finished()).then_some(()));
    assert_error(&worker.post("exit 1"), 502, "handler_exited", "maybe");
    assert_result(&slow.join().unwrap(), "sleep 500 #slow");
}

/// B3.
#[test]
fn a_reply_counts_though_its_process_exits_right_after() {
    let worker = misbehave(&[]).option("--processes", "1").start();
    let first = worker.process();
    assert_result(&worker.post("reply-exit 1"), "reply-exit 1");
    assert_ne!(worker.process(), first);
    assert_whole(&worker, 1);
}

/// B4.
#[test]
fn a_signal_is_named() {
    let worker = misbehave(&[]).option("--timeout", "10s").start();
    for (payload, name) in [
        ("signal SEGV", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("signal KILL", "SIGKILL"),
    ] {
        let response = worker.post(payload);
        assert_error(&response, 502, "handler_exited", "maybe");
        assert!(response.detail().contains(name), "{}", response.detail());
        assert_whole(&worker, 2);
    }
}

/// B4.
#[test]
fn a_crash_leaves_no_core_file() {
    // As far as the hard limit allows, the worker itself may leave one.
    let worker = misbehave(&[])
        .prepared_by("ulimit -Sc \"$(ulimit -Hc)\"")
        .start();
    let soft = |text: &str| {
        let line = text.lines().find(|l| l.starts_with("Max core file size"));
        line.unwrap().split_whitespace().nth(4).unwrap().to_owned()
    };
    let own = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    eprintln!("limit of the worker itself: {}", soft(&own));
    // Set from outside right after the start.
    eventually("the handler may leave none", || {
        let response = worker.post("file /proc/self/limits");
        (soft(response.json()["result"].as_str().unwrap()) == "0").then_some(())
    });
}

/// B5.
#[test]
fn a_process_that_hangs_times_out_and_is_replaced_at_once() {
    // The shell ignores SIGTERM, and the program that it executes inherits that.
    let program = crate::support::rust_example("misbehave");
    let worker = sh("trap '' TERM; exec \"$1\"", &[&program])
        .option("--processes", "1")
        .option("--timeout", "1s")
        .option("--grace", "6s")
        .start();
    for payload in ["hang", "stop"] {
        let pid = worker.process();
        let start = Instant::now();
        let response = worker.post(payload);
        let took = start.elapsed();
        assert_error(&response, 504, "handler_timeout", "maybe");
        assert!(took >= Duration::from_millis(990), "{took:?}");
        assert!(took < Duration::from_millis(4000), "{took:?}");
        // The replacement does not wait for the end of the old process.
        assert_ne!(worker.process(), pid);
        assert_within(Duration::from_millis(6000), start);
        // B7: gone at the grace.
        assert!(
            processes::is_alive(pid),
            "SIGTERM is ignored, and SIGKILL comes later"
        );
        processes::wait_until_gone_within(Duration::from_secs(15), &[pid]);
    }
    assert_whole(&worker, 1);
}

/// B5: the timeout is told on time, never before it and hardly after it.
#[test]
fn a_timeout_is_told_on_time() {
    let worker = misbehave(&["--ready"]).option("--timeout", "200ms").start();
    worker.wait_until_ready();
    let mut fastest = Duration::MAX;
    for round in 0..5 {
        assert_result(&worker.post("warm"), "warm");
        let start = Instant::now();
        let response = worker.post(&format!("hang #{round}"));
        let took = start.elapsed();
        assert_error(&response, 504, "handler_timeout", "maybe");
        assert!(took >= Duration::from_millis(200), "{took:?}");
        fastest = fastest.min(took);
    }
    // The machine may have much else to do, but not each time.
    assert!(fastest < Duration::from_millis(250), "{fastest:?}");
}

/// A handler that can end in order gets SIGTERM before SIGKILL.
#[test]
fn a_timed_out_process_is_asked_to_end_before_it_is_killed() {
    let scratch = Scratch::new();
    let told = scratch.path("told");
    // A child that the shell is just forking may survive a signal to the group, and the shell runs
    // its trap only after the child's end: so the children are short.
    let script = r#"trap 'echo told > "$1"; exit' TERM
        printf '{"ready":true}\n'
        while read -r line; do while :; do sleep 0.1; done; done"#;
    let worker = sh(script, &[&told])
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .option("--grace", "15s")
        .start();
    worker.wait_until_ready();
    assert_error(&worker.post("x"), 504, "handler_timeout", "maybe");
    wait_for_file(&told);
}

/// The whole group of a process goes with it.
#[test]
fn children_of_a_timed_out_process_go_with_it() {
    let scratch = Scratch::new();
    let note = scratch.path("child");
    let worker = misbehave(&["--ready"]).option("--timeout", "500ms").start();
    assert_error(
        &worker.post(&format!("child-hang {note}")),
        504,
        "handler_timeout",
        "maybe",
    );
    let child: u32 = std::fs::read_to_string(&note).unwrap().parse().unwrap();
    processes::wait_until_gone(&[child]);
}

/// The whole group of a process goes with it, however it ends.
#[test]
fn children_of_a_process_that_died_go_with_it() {
    let worker = misbehave(&["--ready"]).option("--processes", "1").start();
    let child = worker.post_for_pid("child");
    assert!(processes::is_alive(child));
    assert_error(&worker.post("exit 1"), 502, "handler_exited", "maybe");
    processes::wait_until_gone(&[child]);
}

/// B8.
#[test]
fn a_grandchild_that_holds_the_pipe_holds_up_nothing() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--timeout", "10s")
        .start();
    worker.wait_until_ready();
    let mut fastest = Duration::MAX;
    for _ in 0..4 {
        assert_result(&worker.post("warm"), "warm");
        let start = Instant::now();
        assert_error(
            &worker.post("grandchild-exit 1"),
            502,
            "handler_exited",
            "maybe",
        );
        assert_result(&worker.post("next"), "next");
        fastest = fastest.min(start.elapsed());
    }
    // The machine may have much else to do, but not each time.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

/// B6: replies that come within a hair of the timeout go to their own requests or to none.
#[test]
fn an_answer_around_the_timeout_never_reaches_another_request() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--announce", "4"])
        .option("--timeout", "300ms")
        .start();
    check_straddling(&worker);
    ledger.assert_none_twice();

    // One at a time, with ids and without.
    for ids in ["always", "never"] {
        let ledger = Ledger::new();
        let worker = ledger
            .misbehave(&["--ready", "--ids", ids])
            .option("--processes", "4")
            .option("--timeout", "300ms")
            .start();
        worker.wait_until_ready();
        check_straddling(&worker);
        ledger.assert_none_twice();
    }
}

fn check_straddling(worker: &Worker) {
    let clients: Vec<_> = (0..4_u64)
        .map(|client| {
            let mut connection = worker.connect();
            std::thread::spawn(move || {
                let mut chance = crate::support::Chance::seeded(client + 1);
                let (mut answered, mut late) = (0, 0);
                for round in 0..8 {
                    let pause = 290 + chance.below(20);
                    let payload = format!("sleep {pause} #{client}-{round}");
                    let response = connection.post(&payload).unwrap();
                    match response.status {
                        200 => {
                            assert_result(&response, payload);
                            answered += 1;
                        }
                        504 => {
                            assert_error(&response, 504, "handler_timeout", "maybe");
                            late += 1;
                        }
                        // The request waited too long, or shared a process in doubt.
                        429 | 502 => {}
                        other => panic!("{other}: {}", response.text()),
                    }
                    // The next request on the same connection, and perhaps the same process.
                    let next = format!("next {client}-{round}");
                    let response = connection.post(&next).unwrap();
                    if response.status == 200 {
                        assert_result(&response, next);
                    }
                }
                (answered, late)
            })
        })
        .collect();
    let counts: Vec<(u32, u32)> = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect();
    eprintln!("answered in time and late, by client: {counts:?}");
}

/// B6: an answer that is in the pipe at the timeout wins, as after a freeze of the worker.
#[test]
fn an_answer_already_in_the_pipe_at_the_timeout_wins() {
    for options in [
        &["--ready"][..],
        &["--ready", "--ids", "never"],
        &["--announce", "4"],
    ] {
        let ledger = Ledger::new();
        let worker = ledger
            .misbehave(options)
            .option("--timeout", "600ms")
            .start();
        worker.wait_until_ready();
        for round in 0..3 {
            let payload = format!("sleep 150 #{round}");
            let waiting = worker.post_aside(&payload);
            ledger.wait_for_start(&payload);
            worker.signal(Signal::STOP);
            // The process answers and the time limit passes, both unseen by the worker.
            std::thread::sleep(Duration::from_millis(1000));
            worker.signal(Signal::CONT);
            assert_result(&waiting.join().unwrap(), payload);
        }
    }
}

/// B10.
#[test]
fn a_process_that_closes_its_stdin_is_replaced() {
    let worker = sh(
        "read -r line; echo \"{\\\"result\\\":$$}\"; exec <&-; exec sleep 300",
        &[],
    )
    .option("--processes", "1")
    .option("--timeout", "10s")
    .start();
    check_let_go(&worker);
}

/// B10.
#[test]
fn a_process_that_closes_its_stdout_is_replaced() {
    let worker = sh(
        "read -r line; echo \"{\\\"result\\\":$$}\"; exec >&-; exec sleep 300",
        &[],
    )
    .option("--processes", "1")
    .option("--timeout", "10s")
    .start();
    check_let_go(&worker);
    // Without any request, too: the end of stdout is seen at once.
    let pid = worker.wait_for_processes(1)[0];
    assert_eq!(worker.post("x").status, 200);
    processes::wait_until_gone(&[pid]);
}

/// Each process answers once and then closes a pipe: no request may be lost to that.
fn check_let_go(worker: &Worker) {
    let mut seen = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        let response = worker.post("x");
        assert_eq!(response.status, 200, "{}", response.text());
        assert_within(Duration::from_millis(9000), start);
        let pid = u32::try_from(response.json()["result"].as_u64().unwrap()).unwrap();
        assert!(!seen.contains(&pid), "the same process again");
        seen.push(pid);
    }
    let (_, all_but_last) = seen.split_last().unwrap();
    processes::wait_until_gone(all_but_last);
}

/// B12, the part that needs no more than the pool.
#[test]
fn processes_that_came_up_once_and_keep_failing_are_unavailable() {
    let scratch = Scratch::new();
    let need = scratch.file("need", 0o644, "");
    let worker = misbehave(&["--need", &need, "--ready"]).start();
    worker.wait_until_ready();
    std::fs::remove_file(&need).unwrap();
    for pid in worker.wait_for_processes(2) {
        processes::signal(pid, Signal::KILL);
    }
    let response = eventually("fails fast", || {
        let response = worker.post("x");
        (response.header("x-faas-error") == Some("handler_unavailable")).then_some(response)
    });
    assert_error(&response, 503, "handler_unavailable", "no");
    assert_eq!(worker.get("/ready").status, 503);
    assert_eq!(worker.get("/health").status, 200);
    std::fs::write(&need, "").unwrap();
    eventually("answers again", || {
        (worker.post("x").status == 200).then_some(())
    });
}

#[test]
fn descriptors_come_back() {
    let worker = misbehave(&["--ready"]).option("--timeout", "300ms").start();
    worker.wait_until_ready();
    worker.wait_for_processes(2);
    worker.post("warm");
    if std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).is_err() {
        eprintln!("skipped: the worker is hidden from all but the superuser");
        return;
    }
    let before = processes::settled_descriptor_count(worker.pid());
    for payload in [
        "exit 1",
        "hang",
        "reply-exit 0",
        "signal KILL",
        "twice",
        "partial",
    ] {
        for _ in 0..2 {
            worker.post(payload);
        }
    }
    worker.wait_for_processes(2);
    eventually("as few as before", || {
        (processes::descriptor_count(worker.pid()) <= before).then_some(())
    });
}
