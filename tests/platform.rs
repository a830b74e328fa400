//! Platforms that lack a system call, `/proc` or threads: the worker ends, or does without.

use crate::support::{
    Builder, Scratch, assert_error, assert_result, eventually, interpreter, misbehave, rust_example,
};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

/// Executes a command under a seccomp filter that answers a system call with an error: the number
/// of the call, the error and the command are its arguments.
const DENY: &str = r#"
import ctypes, os, struct, sys
number, error, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
os.execvp(command[0], command)
"#;

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;

/// The numbers of system calls, which the architecture decides.
#[cfg(target_arch = "x86_64")]
const PRCTL: i32 = 157;
#[cfg(target_arch = "aarch64")]
const PRCTL: i32 = 167;
const PIDFD_OPEN: i32 = 434;
const CLOSE_RANGE: i32 = 436;

/// A worker to which a system call is denied, where that can be staged.
fn without(call: i32, error: i32) -> Option<Builder> {
    interpreter("python3")?;
    let script = format!("exec python3 -c '{DENY}' {call} {error} \"$0\" \"$@\"");
    Some(
        misbehave(&["--ready"])
            .option("--port", "0")
            .prepared_by(&script),
    )
}

/// One line that has all of `parts`, and exit status 1.
#[track_caller]
fn assert_refuses_to_start(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let errors: Vec<&str> = said.lines().collect();
    assert_eq!(errors.len(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn without_pidfd_open_the_worker_says_so_and_ends() {
    for error in [ENOSYS, EPERM] {
        let Some(worker) = without(PIDFD_OPEN, error) else {
            return;
        };
        assert_refuses_to_start(
            &worker.output(),
            &["pidfd_open", "Linux 5.3", "Docker 20.10"],
        );
    }
}

#[test]
fn without_prctl_the_worker_says_so_and_ends() {
    if let Some(worker) = without(PRCTL, EPERM) {
        assert_refuses_to_start(&worker.output(), &["prctl", "seccomp"]);
    }
}

#[test]
fn without_close_range_the_worker_serves() {
    if let Some(worker) = without(CLOSE_RANGE, ENOSYS) {
        assert_result(&worker.start().post("x"), "x");
    }
}

/// Whether the command works here; says that a test is skipped where it does not.
fn can(command: &str) -> bool {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("skipped: {command}: {}", why.trim());
    }
    output.status.success()
}

#[test]
fn without_proc_the_worker_says_so_and_ends() {
    let hidden = "unshare -m sh -c 'mount -t tmpfs none /proc && exec \"$0\" \"$@\"'";
    if can(&format!("{hidden} true")) {
        let worker = misbehave(&[]).option("--port", "0");
        let worker = worker.prepared_by(&format!("exec {hidden} \"$0\" \"$@\""));
        assert_refuses_to_start(&worker.output(), &["/proc is not mounted"]);
    }
}

/// The pids in it are of another namespace: to kill by them would end other processes.
#[test]
fn with_the_proc_of_another_namespace_the_worker_says_so_and_ends() {
    if can("unshare -p -f true") {
        let worker = misbehave(&[]).option("--port", "0");
        let worker = worker.prepared_by("exec unshare -p -f \"$0\" \"$@\"");
        assert_refuses_to_start(
            &worker.output(),
            &["another process namespace", "--mount-proc"],
        );
    }
}

/// A worker of a user without other processes, with a limit of `tasks` processes and threads.
fn limited_to(tasks: usize, user: u32, worker: Builder) -> Option<Builder> {
    let limited =
        format!("setpriv --reuid {user} --regid {user} --clear-groups prlimit --nproc={tasks}");
    let programs = format!(
        "setpriv --reuid {user} --regid {user} --clear-groups test -x {PROGRAM} -a -x {}",
        rust_example("misbehave")
    );
    can(&programs).then(|| worker.prepared_by(&format!("exec {limited} \"$0\" \"$@\"")))
}

/// C7: the log, the second thread that serves, the large bodies, the reload, its events and the
/// starts of processes have threads of their own.
#[test]
fn a_start_without_room_for_a_thread_is_one_line_and_no_panic() {
    let scratch = Scratch::new();
    let worker = || {
        let reload = format!("--reload={}", scratch.path(""));
        let worker = misbehave(&["--ready"]).option("--threads", "2");
        worker.option("--port", "0").flag(&reload)
    };
    for tasks in 1..=6 {
        let Some(limited) = limited_to(tasks, 65_781, worker()) else {
            return;
        };
        let output = limited.output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{tasks}: {said}");
        assert!(!said.contains("panicked"), "{tasks}: {said}");
        let errors = said.lines().filter(|line| !line.contains("\"INFO\""));
        assert_eq!(errors.count(), 1, "{tasks}: {said}");
    }
}

/// C7: the limit leaves room for the worker's threads, and none for processes.
#[test]
fn where_no_process_can_be_had_requests_are_refused_and_nothing_panics() {
    let worker = misbehave(&["--ready"]).option("--threads", "1");
    let worker = worker.option("--queue-timeout", "300ms");
    // The worker itself, and its three threads.
    let Some(limited) = limited_to(4, 65_782, worker) else {
        return;
    };
    let worker = limited.start();
    for payload in [
        "small".to_owned(),
        "x".repeat(300 * 1024),
        "x".repeat(2 << 20),
    ] {
        let response = worker.post(&payload);
        assert!([429, 503].contains(&response.status), "{}", response.text());
        assert_eq!(response.header("x-faas-executed"), Some("no"));
    }
    assert_eq!(worker.get("/health").status, 200);
    worker
        .log
        .wait_for(&["process not started", "temporarily unavailable"]);
    assert!(!worker.log.text().contains("panicked"));
}

#[test]
fn a_worker_that_is_to_end_when_no_process_came_up_does() {
    let scratch = Scratch::new();
    let plain = scratch.file("plain", 0o644, "");
    let commands: [&[&str]; 4] = [&["/no/such/file"], &[&plain], &["false"], &[]];
    for command in commands {
        let handler = command.iter().map(|&word| word.to_owned()).collect();
        let worker = Builder::new(handler)
            .option("--port", "0")
            .flag("--exit-on-failure");
        let output = worker.output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{command:?}: {said}");
        let told = said
            .lines()
            .filter(|line| line.contains("no process ever came up"));
        assert_eq!(told.count(), 1, "{command:?}: {said}");
    }
}

#[test]
fn a_worker_of_which_one_process_came_up_goes_on_whatever_fails_later() {
    let scratch = Scratch::new();
    let needed = scratch.file("needed", 0o644, "");
    let worker = misbehave(&["--need", &needed, "--ready"])
        .environment("FAAS_EXIT_ON_FAILURE", "true")
        .start();
    worker.wait_until_ready();
    std::fs::remove_file(&needed).unwrap();
    let begun = Instant::now();
    eventually("it keeps failing", || {
        let response = worker.post("exit 1");
        (response.status == 503).then(|| {
            assert_error(&response, 503, "handler_unavailable", "no");
        })
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(worker.get("/health").status, 200);
}
