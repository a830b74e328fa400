//! Limits and the sandbox: rights of processes that options take away.

use crate::support::worker::python;
use crate::support::{Builder, Scratch, Worker, assert_error, eventually, misbehave, sh};

/// A handler that answers each request with what its payload, a line of sh, prints.
fn obedient() -> Builder {
    let script = "while IFS= read -r line; do line=${line#*'\"payload\":\"'}; \
                  value=$(eval \"${line%'\"}'}\" 2>&1 | tr '\"\\n\\t' \"'  \" | tr -s ' '); \
                  printf '{\"result\":\"%s\"}\\n' \"$value\"; done";
    sh(script, &[]).option("--processes", "1")
}

#[track_caller]
fn ask(worker: &Worker, command: &str) -> String {
    let response = worker.post(command);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["result"]
        .as_str()
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn the_limits_that_were_set_are_those_of_each_process() {
    let worker = obedient()
        .option("--limit-memory", "64MiB")
        .option("--limit-files", "40")
        .option("--limit-cpu", "90s")
        .start();
    for (name, limits) in [
        ("Max open files", "40 40 files"),
        ("Max cpu time", "90 91 seconds"),
        ("Max data size", "67108864 67108864 bytes"),
    ] {
        let said = ask(&worker, &format!("grep '{name}' /proc/self/limits"));
        assert_eq!(said, format!("{name} {limits}"));
    }
    // They hold: an allocation beyond fails, one within does not.
    let block = |size: &str| format!("dd if=/dev/zero of=/dev/null count=1 bs={size} && echo well");
    assert!(ask(&worker, &block("8M")).contains("well"));
    assert!(!ask(&worker, &block("128M")).contains("well"));
}

#[test]
fn a_limit_that_leaves_no_room_for_the_program_is_named() {
    for (flag, value, told) in [
        (
            "--limit-memory",
            "1MiB",
            "--limit-memory (FAAS_LIMIT_MEMORY) left it 1048576 bytes",
        ),
        (
            "--limit-files",
            "1",
            "--limit-files (FAAS_LIMIT_FILES) left it no more open files than 1",
        ),
    ] {
        let Some(worker) = python("handle") else {
            return;
        };
        let worker = worker.option(flag, value).start();
        let response = eventually("it is given up", || {
            let response = worker.post("x");
            (response.status == 500).then_some(response)
        });
        assert_error(&response, 500, "handler_not_loaded", "no");
        let detail = response.detail();
        assert!(detail.contains(told), "{detail}");
    }
}

#[test]
fn without_limits_a_process_has_those_of_the_worker() {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let worker = misbehave(&[]).start();
    let given = worker.post("file /proc/self/limits").json()["result"].clone();
    let given = given.as_str().unwrap().to_owned();
    let other = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("Max core file"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(other(&given), other(&own));
}

#[test]
fn a_process_that_has_used_its_processor_time_ends_and_is_replaced() {
    let worker = obedient().option("--limit-cpu", "1s").start();
    let response = worker.post("exec sh -c 'kill -XCPU $$; while :; do :; done'");
    assert_eq!(response.status, 200, "a child's end is not its own");
    // Without a fork: the time of the process itself counts.
    let script = "while IFS= read -r line; do case $line in *spin*) while :; do :; done;; esac; \
                  echo '{\"result\":1}'; done";
    let worker = sh(script, &[]).option("--limit-cpu", "1s").start();
    let response = worker.post("spin");
    assert_error(&response, 502, "handler_exited", "maybe");
    assert!(
        response.detail().contains("SIGXCPU"),
        "{}",
        response.detail()
    );
    assert_eq!(worker.post("x").status, 200);
}

/// A worker whose processes are in the sandbox; `None` where the kernel has none.
fn sandboxed(builder: Builder) -> Option<Worker> {
    let trial = Builder::new(Vec::new())
        .flag("--sandbox")
        .option("--host", "192.0.2.1");
    let said = String::from_utf8(trial.output().stderr).unwrap();
    // The worker ends either way: no interface has that address. It checks the sandbox before that.
    if said.contains("cannot be kept here") {
        eprintln!("skipped: {said}");
        return None;
    }
    Some(builder.start())
}

#[test]
fn in_the_sandbox_only_what_was_named_can_be_read_and_written() {
    let scratch = Scratch::new();
    let folder = |name: &str| {
        let path = scratch.path(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(format!("{path}/old"), "content").unwrap();
        path
    };
    let (closed, read, write) = (folder("closed"), folder("read"), folder("write"));
    let builder = obedient()
        .option("--sandbox-read", &read)
        .option("--sandbox-write", &write);
    let Some(worker) = sandboxed(builder) else {
        return;
    };
    worker.log.wait_for(&["sandbox is on", "landlock_abi"]);
    for (path, may_read, may_write) in [
        (&closed, false, false),
        (&read, true, false),
        (&write, true, true),
    ] {
        let does = |command: String| ask(&worker, &command).contains("content");
        assert_eq!(does(format!("cat {path}/old")), may_read, "read {path}");
        let writes = format!("echo content >{path}/new && cat {path}/new");
        assert_eq!(does(writes), may_write, "write {path}");
        let cuts = format!("mv {path}/old {path}/moved && echo content");
        assert_eq!(does(cuts), may_write, "rename in {path}");
        let cuts = format!("truncate -s 0 {path}/* && echo content");
        assert_eq!(does(cuts), may_write, "truncate in {path}");
    }
    // Programs run, and nothing is lost that goes nowhere.
    assert_eq!(
        ask(&worker, "head -c 1 /dev/zero >/dev/null && uname"),
        "Linux"
    );
    assert!(std::fs::read_to_string(format!("{closed}/old")).is_ok_and(|text| text == "content"));
}

#[test]
fn a_sandbox_without_paths_still_runs_the_handler_s_own_program() {
    let scratch = Scratch::new();
    let handler = "#!/bin/sh\nwhile read -r line; do echo '{\"result\":1}'; done\n";
    let handler = scratch.file("handler", 0o755, handler);
    let data = scratch.file("data", 0o644, "content");
    let own = Builder::new(vec![handler]).flag("--sandbox");
    if let Some(worker) = sandboxed(own) {
        assert_eq!(worker.post("x").status, 200);
    }
    if let Some(worker) = sandboxed(obedient().flag("--sandbox")) {
        assert!(!ask(&worker, &format!("cat {data}")).contains("content"));
    }
}

#[test]
fn in_the_sandbox_the_worker_cannot_be_signalled() {
    let Some(worker) = sandboxed(obedient().flag("--sandbox")) else {
        return;
    };
    if !worker
        .log
        .wait_for(&["sandbox is on"])
        .contains("6 or later")
    {
        eprintln!("skipped: this kernel's sandbox knows nothing of signals");
        return;
    }
    assert_eq!(
        ask(
            &worker,
            "kill -0 $$ && echo own; kill -0 $PPID 2>/dev/null && echo worker"
        ),
        "own"
    );
}
