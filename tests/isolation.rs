//! Isolation that no option turns off: the rights of processes, their end, and the end of the
//! processes they leave behind.

use crate::support::{
    Builder, Ledger, Scratch, Worker, assert_error, assert_result, eventually, misbehave,
    processes, program, rust_example, sh, within,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::process::Command;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

/// Some user that owns nothing.
const STRANGER: &str = "setpriv --reuid 54321 --regid 54321 --clear-groups";

/// A handler that answers each request with the output of a line of sh, which must have no quotes
/// and no line breaks.
fn answers(script: &str) -> Builder {
    let whole = format!(
        "while IFS= read -r line; do value=$({script}); printf '{{\"result\":\"%s\"}}\\n' \"$value\"; done"
    );
    sh(&whole, &[]).option("--processes", "1")
}

/// The answer of a handler made by [`answers`].
#[track_caller]
fn answer(worker: &Worker) -> String {
    let response = worker.post("x");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["result"].as_str().unwrap().to_owned()
}

/// Whether this command of sh works here; says that a test is skipped where it does not.
fn can(what: &str, script: &str) -> bool {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("skipped: cannot {what} here: {}", why.trim());
    }
    output.status.success()
}

fn can_be_a_stranger() -> bool {
    let programs = format!(
        "{STRANGER} test -x {PROGRAM} -a -x {}",
        rust_example("misbehave")
    );
    can("start the worker as another user", &programs)
}

/// B14: hung and stopped processes do not notice the end of their stdin.
#[test]
fn no_process_that_hangs_or_is_stopped_outlives_a_killed_worker() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "4")
        .option("--timeout", "60s")
        .start();
    worker.wait_until_ready();
    let below = worker.wait_for_processes(4);
    let mut clients = Vec::new();
    for payload in ["hang #1", "stop #2", "hang #3", "stop #4"] {
        let mut client = worker.connect();
        client.send_payload(payload).unwrap();
        clients.push(client);
    }
    ledger.wait_for_entries(4);
    eventually("two are stopped", || {
        let children = processes::children(worker.pid());
        (children.iter().filter(|child| child.state == 'T').count() == 2).then_some(())
    });
    worker.signal(Signal::KILL);
    worker.wait_for_end(Duration::from_secs(5));
    processes::wait_until_gone_within(Duration::from_secs(2), &below);
}

/// B14: a worker that dies before its process has asked to die with it.
#[test]
fn a_process_that_has_lost_its_worker_at_the_start_is_not_executed() {
    let scratch = Scratch::new();
    for (parent, is_executed) in [("1", false), ("$PPID", true)] {
        let (marker, report) = (
            scratch.path(&format!("ran-{is_executed}")),
            scratch.path("report"),
        );
        let script =
            format!("exec \"$0\" launch status=9 parent={parent} -- touch {marker} 9>{report}");
        Command::new("sh")
            .args(["-c", &script, PROGRAM])
            .output()
            .unwrap();
        assert_eq!(std::path::Path::new(&marker).exists(), is_executed);
        let report = std::fs::read_to_string(&report).unwrap();
        assert_eq!(
            report.starts_with("!the worker has ended"),
            !is_executed,
            "{report}"
        );
    }
}

/// B9.
#[test]
fn a_daemon_ends_with_an_orderly_end_of_the_worker() {
    let scratch = Scratch::new();
    let note = scratch.path("deeper");
    // It answers with its daemon, which has one of its own, and ends.
    let daemon = format!("setsid sleep 300 & echo $! >{note}; exec sleep 300");
    let script = format!(
        "read -r line; setsid sh -c '{daemon}' >/dev/null 2>&1 </dev/null & \
         d=$!; until [ -s {note} ]; do sleep 0.01; done; printf '{{\"result\":%s}}\\n' $d; exit"
    );
    let mut worker = sh(&script, &[]).option("--processes", "1").start();
    let outer = worker.post_for_pid("x");
    let inner: u32 = eventually("the inner one is known", || {
        std::fs::read_to_string(&note).ok()?.trim().parse().ok()
    });
    // Its process has ended; it is the worker's now.
    eventually("the daemon is taken in", || {
        processes::living_children(worker.pid())
            .contains(&outer)
            .then_some(())
    });
    assert!(processes::is_alive(inner));
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    assert!(!processes::is_alive(outer), "the daemon is left");
    assert!(!processes::is_alive(inner), "the daemon's daemon is left");
}

/// A child that a shell started before it became the worker is not ended by the worker.
#[test]
fn a_child_from_before_the_worker_is_left_alone() {
    let scratch = Scratch::new();
    let note = scratch.path("sidecar");
    let mut worker = misbehave(&["--ready"])
        .prepared_by(&format!(
            "sleep 300 </dev/null >/dev/null 2>&1 & echo $! >{note}"
        ))
        .start();
    worker.wait_until_ready();
    let sidecar: u32 = std::fs::read_to_string(&note)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
    let is_alive = processes::is_alive(sidecar);
    processes::signal(sidecar, Signal::KILL);
    assert!(is_alive, "it was ended");
}

/// A handler each of whose requests leaves 1,000 orphans, or ends with the status 3.
fn leaving_orphans() -> Builder {
    let script = "while IFS= read -r line; do case $line in *orphans*) i=0; \
                  while [ $i -lt 1000 ]; do (: &); i=$((i+1)); done;; *exit*) exit 3;; esac; \
                  echo '{\"result\":1000}'; done";
    sh(script, &[])
        .option("--processes", "2")
        .option("--timeout", "60s")
}

/// `pid` is the worker's in the namespace of the test.
#[track_caller]
fn assert_orphans_are_reaped(worker: &Worker, pid: u32) {
    assert_result(&worker.post("orphans"), 1000);
    within(Duration::from_secs(1), "no zombie is left", || {
        (processes::zombies(pid) == 0).then_some(())
    });
    // Nor does this cost a process of the pool its status.
    let busy = worker.post_aside("orphans");
    for _ in 0..30 {
        assert_result(&worker.post("warm"), 1000);
        let response = worker.post("exit");
        assert_error(&response, 502, "handler_exited", "maybe");
        assert!(
            response.detail().contains("exit status: 3"),
            "{}",
            response.detail()
        );
    }
    assert_result(&busy.join().unwrap(), 1000);
    within(Duration::from_secs(1), "no zombie is left", || {
        (processes::zombies(pid) == 0).then_some(())
    });
}

/// B15, without being process 1.
#[test]
fn a_thousand_orphans_are_reaped() {
    let worker = leaving_orphans().start();
    assert_orphans_are_reaped(&worker, worker.pid());
}

/// B15.
#[test]
fn a_thousand_orphans_are_reaped_by_process_1() {
    let namespace = "unshare --pid --fork --mount-proc --kill-child";
    if !can("be process 1", &format!("{namespace} true")) {
        return;
    }
    let worker = leaving_orphans()
        .prepared_by(&format!("exec {namespace} \"$0\" \"$@\""))
        .start();
    let first = eventually("process 1 runs", || {
        processes::living_children(worker.pid()).first().copied()
    });
    assert_orphans_are_reaped(&worker, first);
    // Process 1 gets only the signals that it asked for.
    processes::signal(first, Signal::TERM);
    processes::wait_until_gone(&[first]);
}

/// A handler that tries to read everything of another process, and answers with a word for each
/// success.
fn snoop(pid: &str) -> Builder {
    // Builtins, and programs that are executed: rights might differ.
    let script = format!(
        "p={pid}; for f in environ mem; do if (: <\"/proc/$p/$f\") 2>/dev/null; \
         then echo open-$f; fi; done; if cat /proc/$p/environ 2>/dev/null | grep -aq s3cret; then echo environment; fi; cat /proc/$p/maps 2>/dev/null | \
         grep -q . && echo maps; for f in /proc/$p/fd/*; do \
         readlink $f >/dev/null 2>&1 && echo descriptor; done; readlink /proc/$p/exe"
    );
    answers(&format!("{{ {script}; }} | tr '\\n' ' '"))
        .environment("FAAS_SOME_TOKEN", "s3cret")
        .environment("SOME_TOKEN", "s3cret")
}

#[track_caller]
fn assert_worker_is_hidden(prepare: impl Fn(Builder) -> Builder) {
    // A process can read its own files, which shows that the attempts work.
    let own = answer(&prepare(snoop("$$")).start());
    for found in ["open-environ", "environment", "maps", "descriptor", "/"] {
        assert!(own.contains(found), "not its own {found}: {own}");
    }
    assert_eq!(answer(&prepare(snoop("$PPID")).start()), "");
}

/// G3.
#[test]
fn the_worker_s_memory_and_environment_are_hidden_from_its_processes() {
    assert_worker_is_hidden(|builder| builder);
}

/// G3: also without a superuser's rights.
#[test]
fn the_worker_is_hidden_from_processes_of_any_user() {
    if can_be_a_stranger() {
        assert_worker_is_hidden(|builder| {
            builder.prepared_by(&format!("exec {STRANGER} \"$0\" \"$@\""))
        });
    }
}

/// The worker can read the files of `/proc` that it needs itself.
#[test]
fn a_hidden_worker_of_any_user_takes_back_what_was_not_read() {
    if !can_be_a_stranger() {
        return;
    }
    let worker = misbehave(&[])
        .option("--processes", "1")
        .prepared_by(&format!("exec {STRANGER} \"$0\" \"$@\""))
        .start();
    let mut connection = worker.connect();
    for round in 0..40 {
        let payload = format!("reply-exit 0 #{round}");
        assert_result(&connection.post(&payload).unwrap(), payload);
    }
}

#[test]
fn a_process_gets_no_new_privileges_no_core_file_and_a_higher_score() {
    let script = "grep NoNewPrivs /proc/self/status | tr -d '\\t'; cat /proc/self/oom_score_adj; \
                  grep core /proc/self/limits | tr -s ' '";
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let said = answer(&answers(&format!("{{ {script}; }} | tr '\\n' ';'")).start());
    let score = (own + 900).min(1000);
    assert_eq!(
        said,
        format!("NoNewPrivs:1;{score};Max core file size 0 0 bytes ;")
    );
}

/// Signals that a service manager ignores are not ignored in a process; B16 has a test of its own.
#[test]
fn a_process_ignores_and_blocks_no_signal_of_its_own() {
    let script = "grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\\t\\n'";
    // Ignored as a service manager does, and as Rust does at the start of any program.
    let worker = answers(script).prepared_by("trap '' PIPE").start();
    let said = answer(&worker);
    let mask = |name: &str| {
        let at = said.find(name).unwrap() + name.len();
        u64::from_str_radix(&said[at..at + 16], 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0, "{said}");
    let pipe = 1 << (Signal::PIPE.as_raw() - 1);
    assert_eq!(mask("SigIgn:") & pipe, 0, "{said}");
}

/// B16: a Ctrl-C goes to the terminal's foreground group.
#[test]
fn a_process_is_in_a_group_of_its_own() {
    let said = answer(&answers("echo $(cut -d' ' -f5 /proc/$$/stat) $$").start());
    let (group, pid) = said.split_once(' ').unwrap();
    assert_eq!(group, pid, "the leader of its group");
}

/// G4: nor the pipe over which a start reports.
#[test]
fn a_process_is_executed_with_three_descriptors() {
    // Listed by the shell itself, before anything else can open or close one.
    let script = "a=$(ls -m /proc/$$/fd); read -r line; printf '{\"result\":\"%s\"}\\n' \"$a\"";
    let worker = sh(script, &[])
        .option("--processes", "1")
        .prepared_by("exec 7</dev/null 9>/dev/null")
        .start();
    let said = answer(&worker);
    // The third is the shell's own pipe from `ls`.
    assert!(
        said.starts_with("0, 1, 2") && !said.contains('7') && !said.contains('9'),
        "{said}"
    );
}

/// An upgrade replaces the file while workers run.
#[test]
fn a_worker_whose_program_was_replaced_still_starts_processes() {
    let scratch = Scratch::new();
    let copy = scratch.path("worker");
    let worker = misbehave(&[])
        .option("--processes", "1")
        .prepared_by(&format!("cp \"$0\" {copy}; exec {copy} \"$@\""))
        .start();
    let first = worker.process();
    scratch.file("worker", 0o755, "#!/bin/sh\nexit 9\n");
    processes::signal(first, Signal::KILL);
    eventually("another serves", || {
        let response = worker.post("pid");
        (response.status == 200 && response.json()["result"] != first).then_some(())
    });
}

/// A7: no descriptor left. What lives goes on, and it recovers by itself.
#[test]
fn a_start_that_the_system_refuses_is_tried_again() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    worker.wait_for_starts(2);
    let below = worker.wait_for_processes(2);
    let mut connection = worker.connect();
    assert_result(&connection.post("before").unwrap(), "before");
    let pid = Pid::from_raw(i32::try_from(worker.pid()).unwrap()).unwrap();
    // Only the soft limit: to raise the hard one again is a superuser's right.
    let own = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    let line = own
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<Option<u64>> = line
        .split_whitespace()
        .skip(3)
        .take(2)
        .map(|word| word.parse().ok())
        .collect();
    let soft = |current| Rlimit {
        current,
        maximum: numbers[1],
    };
    prlimit(Some(pid), Resource::Nofile, soft(Some(3))).unwrap();
    processes::signal(below[0], Signal::KILL);
    // Not of a start that had just gone well, and could not be watched.
    worker.log.wait_for(&[
        "process not started",
        "the system cannot start a process now",
    ]);
    assert_result(&connection.post("meanwhile").unwrap(), "meanwhile");
    prlimit(Some(pid), Resource::Nofile, soft(numbers[0])).unwrap();
    worker.wait_for_processes(2);
    assert_result(&worker.post("after"), "after");
}

/// A line of sh that starts a worker with these files in place of its control group; `None` where
/// they cannot be mounted.
fn group_with(files: &str) -> Option<String> {
    let place = format!("mount -t tmpfs none /sys/fs/cgroup && {files}");
    let namespace = "unshare --mount";
    let has_unified = std::fs::read_to_string("/proc/self/cgroup")
        .unwrap()
        .contains("0::");
    if !has_unified || !can("mount", &format!("{namespace} sh -c '{place}'")) {
        return None;
    }
    Some(format!(
        "exec {namespace} sh -c '{place} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ))
}

/// B4: told by the control group's count alone, so a file in its place serves as well.
#[test]
fn a_death_for_want_of_memory_is_named() {
    let events = "/sys/fs/cgroup/memory.events";
    let Some(prepare) = group_with(&format!("echo oom_kill 4 >{events}")) else {
        return;
    };
    let script = format!(
        "while read -r line; do case $line in *memory*) echo oom_kill 5 >{events};; esac; \
         kill -9 $$; done"
    );
    let worker = sh(&script, &[]).prepared_by(&prepare).start();
    for (payload, is_for_memory) in [("plain", false), ("memory", true), ("plain", false)] {
        let response = worker.post(payload);
        assert_error(&response, 502, "handler_exited", "maybe");
        let detail = response.detail();
        assert!(detail.contains("SIGKILL"), "{detail}");
        assert_eq!(
            detail.contains("out of memory"),
            is_for_memory,
            "{payload}: {detail}"
        );
    }
}

/// With `memory.oom.group`, as Kubernetes sets it, only a limit of each process helps.
#[test]
fn a_group_that_is_killed_as_a_whole_is_warned_of() {
    let group = "/sys/fs/cgroup/memory.oom.group";
    let Some(prepare) = group_with(&format!("echo 1 >{group}")) else {
        return;
    };
    let in_group = |worker: Builder| {
        let worker = worker.prepared_by(&prepare);
        let worker = worker.start();
        worker.wait_until_ready();
        worker.log.text()
    };
    let text = in_group(misbehave(&["--ready"]));
    assert!(text.contains("memory.oom.group is 1"), "{text}");
    let limited = in_group(misbehave(&["--ready"]).option("--limit-memory", "256MiB"));
    assert!(!limited.contains("memory.oom.group"), "{limited}");
}

/// Only the worker itself uses the launcher step.
#[test]
fn the_launcher_step_is_no_command_for_people() {
    let output = program().args(["launch", "sh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let help = program().arg("--help").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("launch"));
}
