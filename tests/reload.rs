//! New processes take over from the old: on SIGHUP, and when files change.

use crate::support::load::Load;
use crate::support::{
    Builder, Chance, Ledger, Scratch, Worker, assert_error, assert_result, assert_within,
    eventually, misbehave, processes,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// A handler in sh that answers with its version, and says when it is ready.
fn version(number: u64) -> String {
    format!(
        "#!/bin/sh\nprintf '{{\"ready\":true}}\\n'\n\
         while IFS= read -r line; do printf '{{\"result\":{number}}}\\n'; done\n"
    )
}

/// The same without a ready line.
fn silent_version(number: u64) -> String {
    version(number).replacen("printf '{\"ready\":true}\\n'\n", "", 1)
}

/// A worker on a handler of which each edit counts, and the place for its next version.
fn edited(scratch: &Scratch, content: &str, options: &[(&str, &str)]) -> Worker {
    let handler = scratch.file("handler.sh", 0o755, content);
    let mut builder = Builder::new(vec![handler])
        .option("--log-level", "debug")
        .flag(&format!("--reload={}", scratch.path("")));
    for (name, value) in options {
        builder = builder.option(name, value);
    }
    builder.start()
}

fn edit(scratch: &Scratch, content: &str) {
    scratch.file("handler.sh", 0o755, content);
}

/// Waits until both processes have read their script, which an edit could else change under them.
#[track_caller]
fn wait_for_both(worker: &Worker) {
    eventually("both processes are up", || {
        (worker.log.text().matches("process is up").count() == 2).then_some(())
    });
}

/// Waits until a version answers, and gives how long that took.
#[track_caller]
fn wait_for_version(worker: &Worker, number: u64) -> Duration {
    let begun = Instant::now();
    eventually(&format!("version {number} answers"), || {
        let response = worker.post("which");
        assert_eq!(response.status, 200, "{}", response.text());
        (response.json()["result"] == number).then_some(())
    });
    begun.elapsed()
}

#[test]
fn sighup_replaces_every_process_and_says_so() {
    let worker = misbehave(&["--ready"]).option("--processes", "3").start();
    worker.wait_until_ready();
    let before = worker.wait_for_processes(3);
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    processes::wait_until_gone(&before);
    worker.wait_for_processes(3);
    assert_eq!(worker.get("/ready").status, 200);
}

/// F3: a hundred in a row, each before the last is done.
#[test]
fn a_hundred_sighups_under_load_fail_no_request() {
    let worker = misbehave(&["--ready"]).option("--timeout", "20s").start();
    worker.wait_until_ready();
    let load = Load::on(worker.address, 8);
    let mut chance = Chance::seeded(3);
    for _ in 0..100 {
        worker.signal(Signal::HUP);
        load.wait_for(chance.below(60));
    }
    let asked_last = worker.log.lines().len();
    worker.signal(Signal::HUP);
    eventually("the last one is done", || {
        let lines = worker.log.lines();
        let done = lines[asked_last..].iter();
        done.filter(|line| line.contains("reload done"))
            .count()
            .checked_sub(1)
    });
    assert!(load.end() > 0);
    worker.wait_for_processes(2);
}

/// F3: with a ready line, no request is given to a process that does not come up.
#[test]
fn a_reload_that_fails_leaves_the_old_processes_serving() {
    let scratch = Scratch::new();
    let handler = scratch.file("handler.sh", 0o755, version(1));
    let worker = Builder::new(vec![handler.clone()])
        .option("--log-level", "debug")
        .start();
    wait_for_version(&worker, 1);
    wait_for_both(&worker);
    let before = worker.wait_for_processes(2);
    let load = Load::on(worker.address, 4);
    let broken: [(&str, &[&str]); 3] = [
        (
            "#!/bin/sh\necho no such module >&2\nexit 3\n",
            &["exit status: 3"],
        ),
        ("#!/no/such/sh\n", &["names the interpreter", "/no/such/sh"]),
        ("", &["no such file"]),
    ];
    for (content, why) in broken {
        if content.is_empty() {
            std::fs::remove_file(&handler).unwrap();
        } else {
            edit(&scratch, content);
        }
        worker.signal(Signal::HUP);
        worker.log.wait_for(&[&["reload failed"], why].concat());
        load.wait_for(50);
        assert_eq!(worker.wait_for_processes(2), before);
    }
    worker.log.wait_for(&["no such module"]);
    edit(&scratch, &version(2));
    worker.signal(Signal::HUP);
    wait_for_version(&worker, 2);
    load.end();
}

/// A request may take longer than the grace, which begins when nothing is left to answer.
#[test]
fn a_request_that_runs_when_its_process_is_replaced_is_finished() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--grace", "100ms")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 1200");
    ledger.wait_for_start("sleep 1200");
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    assert!(!running.is_finished());
    assert_result(&worker.post("hello"), "hello");
    assert_result(&running.join().unwrap(), "sleep 1200");
}

/// One thousand edits when asked for (`FAAS_TEST_EDITS=1000`), a part of that else.
#[test]
fn no_edit_fails_a_request_and_the_newest_version_wins() {
    let edits = std::env::var("FAAS_TEST_EDITS").map_or(150, |edits| edits.parse().unwrap());
    let scratch = Scratch::new();
    let worker = edited(&scratch, &version(0), &[("--timeout", "20s")]);
    wait_for_version(&worker, 0);
    let load = Load::on(worker.address, 4);
    let mut chance = Chance::seeded(1000);
    let mut fastest = Duration::MAX;
    for number in 1..=edits {
        let is_timed = number % 10 == 0 || number == edits;
        if is_timed {
            wait_for_version(&worker, number - 1);
        }
        edit(&scratch, &version(number));
        if is_timed {
            fastest = fastest.min(wait_for_version(&worker, number));
        } else {
            load.wait_for(chance.below(400));
        }
    }
    let answered = load.end();
    eprintln!("{edits} edits, {answered} answers, live after {fastest:?} at best");
    // Noticing alone may take 300 ms by the contract; a start of sh adds little.
    assert!(fastest < Duration::from_millis(400), "{fastest:?}");
    // The first process of the newest version has answered; the others follow.
    eventually("all processes have the newest version", || {
        let mut answers = (0..20).map(|_| worker.post("which").json());
        answers
            .all(|answer| answer["result"] == edits)
            .then_some(())
    });
}

/// Twenty times; a request that a broken process left unread is answered by an old process.
#[test]
fn an_edit_that_breaks_the_handler_leaves_the_old_one_serving() {
    for content in [version(1), silent_version(1)] {
        let scratch = Scratch::new();
        let worker = edited(&scratch, &content, &[("--timeout", "20s")]);
        wait_for_version(&worker, 1);
        let load = Load::on(worker.address, 4);
        for number in 0..20 {
            let failures = |worker: &Worker| worker.log.text().matches("reload failed").count();
            let before = failures(&worker);
            edit(&scratch, &format!("#!/bin/sh\nif then # {number}\n"));
            eventually("the log says that it failed", || {
                (failures(&worker) > before).then_some(())
            });
            load.wait_for(20);
        }
        edit(&scratch, &content.replace("\"result\":1", "\"result\":2"));
        wait_for_version(&worker, 2);
        load.end();
    }
}

/// Without a ready line, the first answer shows that a process is up.
#[test]
fn a_handler_without_a_ready_line_is_live_with_the_first_request() {
    let scratch = Scratch::new();
    let worker = edited(&scratch, &silent_version(1), &[]);
    wait_for_version(&worker, 1);
    let mut fastest = Duration::MAX;
    for number in 2..7 {
        edit(&scratch, &silent_version(number));
        fastest = fastest.min(wait_for_version(&worker, number));
    }
    assert!(fastest < Duration::from_millis(600), "{fastest:?}");
}

/// An edit may repair a broken handler, so it ends the back-off.
#[test]
fn an_edit_mends_a_handler_that_never_came_up_at_once() {
    let scratch = Scratch::new();
    let worker = edited(&scratch, "#!/bin/sh\nexit 7\n", &[]);
    eventually("it is known to be broken", || {
        let response = worker.post("which");
        (response.status == 500).then(|| assert_error(&response, 500, "handler_not_loaded", "no"))
    });
    // By now the next start is seconds away.
    worker.log.wait_for(&["process ended"]);
    edit(&scratch, &version(1));
    let begun = Instant::now();
    eventually("it answers", || {
        (worker.post("which").status == 200).then_some(())
    });
    assert_within(Duration::from_secs(3), begun);
}

/// The next edit does not wait for the start timeout of the last.
#[test]
fn an_edit_that_hangs_is_given_up_for_the_next() {
    let scratch = Scratch::new();
    let worker = edited(&scratch, &version(1), &[("--startup-timeout", "300s")]);
    wait_for_version(&worker, 1);
    wait_for_both(&worker);
    edit(&scratch, "#!/bin/sh\nexec sleep 1000\n");
    worker.log.wait_for(&["reload begun"]);
    eventually("one hangs beside the two that serve", || {
        (processes::living_children(worker.pid()).len() == 3).then_some(())
    });
    edit(&scratch, &version(2));
    wait_for_version(&worker, 2);
    worker.wait_for_processes(2);
}

#[test]
fn a_worker_that_ends_while_it_reloads_leaves_nothing() {
    let scratch = Scratch::new();
    let mut worker = edited(&scratch, &version(1), &[]);
    wait_for_version(&worker, 1);
    wait_for_both(&worker);
    edit(&scratch, "#!/bin/sh\nexec sleep 1000\n");
    let below = eventually("one hangs beside the two that serve", || {
        let below = processes::living_children(worker.pid());
        (below.len() == 3).then_some(below)
    });
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    assert!(processes::are_gone(&below));
}

#[test]
fn a_path_that_is_not_there_is_said_at_the_start() {
    let output = misbehave(&[]).flag("--reload=/no/such/folder").output();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said.trim_end(),
        "--reload (FAAS_RELOAD): no such file or folder: \"/no/such/folder\""
    );
}

/// A log in the folder that is watched grows with each reload, and is no file of the handler's.
#[test]
fn the_worker_s_own_log_is_no_change() {
    let scratch = Scratch::new();
    let handler = scratch.file("handler.sh", 0o755, version(1));
    let log = scratch.file("worker.log", 0o644, "");
    let _worker = Builder::new(vec![handler])
        .option("--port", "0")
        .option("--log-format", "json")
        .flag(&format!("--reload={}", scratch.path("")))
        .prepared_by(&format!("exec 2>>'{log}'"))
        .start_without_address();
    let text = || std::fs::read_to_string(&log).unwrap();
    eventually("it serves", || {
        text().contains("the first process is up").then_some(())
    });
    // The new version starts so slowly that a line in the log would be noticed, and the reload begun
    // anew, before it is up.
    edit(
        &scratch,
        &version(2).replacen("printf", "sleep 1\nprintf", 1),
    );
    eventually("the edit was taken", || {
        text().contains("reload done").then_some(())
    });
    let text = text();
    let mut changes = text.lines().filter(|line| line.contains("have changed"));
    assert!(changes.all(|line| line.contains("handler.sh")), "{text}");
}
