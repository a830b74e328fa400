//! Surroundings: a log that fills up, few descriptors, a clock that steps, and hours of load.

use crate::support::load::Load;
use crate::support::{
    Connection, PATIENCE, Scratch, Worker, assert_error, assert_result, eventually, misbehave,
    processes, sh, wait_for_file,
};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::Value;
use std::io::Read;
use std::time::{Duration, Instant};

/// Sets the soft limit of descriptors of a running worker; gives the limit before.
fn limit_descriptors(worker: &Worker, soft: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(i32::try_from(worker.pid()).unwrap());
    let text = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let mut words = line.unwrap().split_whitespace().skip(3);
    let mut limit = || words.next().unwrap().parse().ok();
    let (before, hard) = (limit(), limit());
    let limit = Rlimit {
        current: soft,
        maximum: hard,
    };
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
    before
}

/// A7: no descriptor is left for the pipes of a new process.
#[test]
fn a_start_for_which_there_is_no_room_is_not_the_handlers_fault() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    worker.wait_for_starts(2);
    let mut connection = worker.connect();
    assert_result(&connection.post("before").unwrap(), "before");
    let before = limit_descriptors(&worker, Some(3));
    let killed = worker.wait_for_processes(2)[0];
    let begun = Instant::now();
    processes::signal(killed, Signal::KILL);
    worker
        .log
        .wait_for(&["process not started", "\"level\":\"WARN\""]);
    // Five are too often for a handler at fault.
    eventually("it is tried again and again, and later and later", || {
        let refused = worker.log.text().matches("process not started").count();
        assert_result(&connection.post("meanwhile").unwrap(), "meanwhile");
        (refused >= 6).then_some(())
    });
    // Waits of 50, 100, 200, 400 and 800 ms at least.
    assert!(begun.elapsed() >= Duration::from_millis(1550));
    limit_descriptors(&worker, before);
    worker.wait_for_processes(2);
    assert_result(&worker.post("after"), "after");
    assert!(!worker.log.text().contains("handler keeps failing"));
}

/// C16: the descriptors of a handler are its own, and so are their flags.
#[test]
fn a_handler_that_makes_its_descriptors_nonblocking_harms_no_other() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    for round in 0..4 {
        let payload = format!("nonblocking #{round}");
        assert_result(&worker.post(&payload), payload);
        let blocking = format!("next #{round}");
        assert_result(&worker.post(&blocking), blocking);
    }
    let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/2", worker.pid())).unwrap();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    assert_eq!(flags & 0o4000, 0, "O_NONBLOCK on the log of the worker");
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
}

/// Many requests, one line of the log each; all are answered.
fn talk(worker: &Worker, count: usize) {
    let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", worker.address);
    let mut connection = worker.connect();
    for _ in 0..count / 500 {
        connection.send(request.repeat(500).as_bytes()).unwrap();
        for _ in 0..500 {
            assert_eq!(connection.receive().unwrap().status, 200);
        }
    }
}

/// G1: the log is full, closed, or its reader is gone.
#[test]
fn a_log_that_is_full_or_closed_costs_no_request() {
    let scratch = Scratch::new();
    let pipe = scratch.path("log");
    let unread = format!("mkfifo {pipe}; exec 3<>{pipe} 1>{pipe} 2>{pipe}; exec 3<&-");
    for preparation in [
        "exec 1>/dev/full 2>/dev/full",
        "exec 1>&- 2>&-",
        unread.as_str(),
    ] {
        let mut worker = misbehave(&["--ready"])
            .option("--log-level", "debug")
            .prepared_by(preparation)
            .start_quietly();
        worker.wait_until_ready();
        assert_result(&worker.post("stderr-answer text"), "stderr-answer text");
        assert_error(&worker.post("exit 1"), 502, "handler_exited", "maybe");
        talk(&worker, 1000);
        assert_result(&worker.post("after"), "after");
        worker.signal(Signal::TERM);
        let status = worker.wait_for_end(PATIENCE);
        assert!(status.success(), "{preparation}: {status}");
    }
}

/// G1: the log is a pipe that is not read for a while.
#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    let scratch = Scratch::new();
    let pipe = scratch.path("log");
    let mut worker = misbehave(&["--ready"])
        .option("--log-level", "debug")
        .prepared_by(&format!("mkfifo {pipe}; exec 2<>{pipe}"))
        .start_quietly();
    worker.wait_until_ready();
    // More lines than the pipe and the buffer before it hold together.
    talk(&worker, 12_000);
    assert_result(&worker.post("meanwhile"), "meanwhile");
    // Open for both, or this would wait for a writer that comes and goes.
    let mut reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let (lines, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut block = [0; 65536];
        while let Ok(count) = reader.read(&mut block) {
            if lines.send(block[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut log = Vec::new();
    eventually("the log goes on where it can", || {
        worker.get("/later-on");
        while let Ok(block) = read.try_recv() {
            log.extend(block);
        }
        let text = String::from_utf8_lossy(&log);
        text.contains("/later-on").then_some(())
    });
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(PATIENCE).success());
}

/// Lines that imitate the worker's log, or hold terminal sequences.
const FORGERIES: [&str; 6] = [
    "x\n2026-01-01T00:00:00.000000Z ERROR forged by hand",
    "x\r2026-01-01T00:00:00.000000Z ERROR forged by hand",
    "{\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"level\":\"ERROR\",\"message\":\"forged by hand\"}",
    "\u{1b}]0;title\u{7}\u{1b}[2Jforged by hand\u{9b}31m",
    "\u{202e}\u{2028}2026-01-01T00:00:00.000000Z ERROR forged by hand",
    "\u{200f}\u{61c}\u{2066}\u{2029}\u{85}\u{7f}forged by hand",
];

/// Whether a character could make a line of the log look like another.
fn is_disguise(c: char) -> bool {
    let directions = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                      \u{2066}\u{2067}\u{2068}\u{2069}";
    c.is_control() || "\u{2028}\u{2029}".contains(c) || directions.contains(c)
}

fn forge(worker: &Worker) {
    worker.wait_until_ready();
    for (number, forgery) in FORGERIES.iter().enumerate() {
        for stream in ["raw-answer", "stderr-answer"] {
            // Told from a mark: the command's own text is all that is printed.
            let payload = format!("{stream} {forgery} {number}");
            assert_result(&worker.post(&payload), payload.as_str());
        }
    }
    eventually("all of it is logged", || {
        let lines = worker.log.text().matches("forged by hand").count();
        (lines >= 2 * FORGERIES.len()).then_some(())
    });
}

/// G2.
#[test]
fn a_handler_cannot_forge_a_line_of_the_log() {
    let worker = misbehave(&["--ready"])
        .option("--log-format", "text")
        .start_quietly();
    forge(&worker);
    for line in worker.log.lines() {
        if line.contains("forged by hand") {
            assert!(line.starts_with("    | "), "{line}");
        }
        let is_plain = |c: char| c == '\t' || !is_disguise(c);
        assert!(line.chars().all(is_plain), "{line:?}");
    }

    let worker = misbehave(&["--ready"]).start();
    forge(&worker);
    for line in worker.log.lines() {
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        assert!(!entry["message"].to_string().contains("forged"), "{line}");
        assert!(!line.contains(is_disguise), "{line:?}");
    }
}

/// Threads that a process has now.
fn thread_count(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}

/// G6, in small: after the first thousand requests, two thousand more leave nothing behind.
#[test]
fn hours_of_load_leave_nothing_behind() {
    let worker = misbehave(&["--ready"])
        .option("--timeout", "100ms")
        .option("--max-requests", "40")
        .start();
    worker.wait_until_ready();
    let round = |number: usize| {
        let mut connection = Connection::open(worker.address).unwrap();
        for step in 0..100 {
            connection.post(&format!("{number} {step}")).unwrap();
        }
        for payload in ["exit 1", "hang", "wrong-id", "big 200000", "error no"] {
            worker.post(payload);
        }
        let mut left = worker.connect();
        left.send_payload("sleep 20").unwrap();
        left.reset();
    };
    let settled = || {
        worker.wait_for_processes(2);
        processes::wait_for_no_zombie(worker.pid());
        processes::settled_descriptor_count(worker.pid())
    };
    (0..10).for_each(round);
    let descriptors = settled();
    let (memory, threads) = (
        processes::resident_kib(worker.pid()),
        thread_count(worker.pid()),
    );
    (0..20).for_each(round);
    eventually("as few descriptors as before", || {
        (settled() <= descriptors).then_some(())
    });
    assert!(thread_count(worker.pid()) <= threads);
    let grown = processes::resident_kib(worker.pid()).saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more");
}

/// B11: all processes are killed at once.
#[test]
fn a_pool_of_which_all_died_at_once_is_whole_again() {
    let worker = misbehave(&["--ready"]).option("--processes", "8").start();
    worker.wait_until_ready();
    for _ in 0..3 {
        let before = worker.wait_for_processes(8);
        for &pid in &before {
            processes::signal(pid, Signal::KILL);
        }
        eventually("eight others", || {
            let now = processes::living_children(worker.pid());
            (now.len() == 8 && before.iter().all(|pid| !now.contains(pid))).then_some(())
        });
        let load = Load::on(worker.address, 2);
        load.wait_for(20);
        load.end();
    }
}

/// B16: a Ctrl-C in a terminal reaches the process group of the worker, which has no handler in it.
#[test]
fn an_interrupt_from_the_terminal_is_not_for_the_handlers() {
    let scratch = Scratch::new();
    let (told, begun) = (scratch.path("told"), scratch.path("begun"));
    // The shell reads on after a signal, and notes it.
    let script = r#"trap 'echo told > "$1"' INT
        printf '{"ready":true}\n'
        while IFS= read -r line; do : > "$2"; sleep 1; printf '{"result":1}\n'; done"#;
    let mut worker = sh(script, &[&told, &begun])
        .option("--processes", "1")
        // A session of its own, as a terminal gives one.
        .prepared_by("exec setsid \"$0\" \"$@\"")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("x");
    wait_for_file(&begun);
    let group = Pid::from_raw(i32::try_from(worker.pid()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    assert_result(&running.join().unwrap(), 1);
    assert!(worker.wait_for_end(PATIENCE).success());
    assert!(!std::path::Path::new(&told).exists(), "a handler was told");
}
