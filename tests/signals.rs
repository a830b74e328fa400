//! Signals to the worker, and the effect of the terminal it was started on.

use crate::support::{
    Builder, Ledger, PATIENCE, Scratch, assert_result, eventually, interpreter, misbehave,
    rust_example, sh, without_settings,
};
use rustix::process::Signal;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

/// Blocks the signals that end and reload, as a careless parent leaves them.
const BLOCKED: &str = "exec python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
os.execvp(sys.argv[1], sys.argv[1:])' \"$0\" \"$@\"";

#[test]
fn sigquit_drains_like_sigterm() {
    let ledger = Ledger::new();
    let mut worker = ledger.misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 500");
    ledger.wait_for_start("sleep 500");
    worker.signal(Signal::QUIT);
    assert_eq!(running.join().unwrap().status, 200);
    assert_eq!(worker.wait_for_end(PATIENCE).code(), Some(0));
}

#[test]
fn signals_without_a_meaning_end_nothing() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        worker.signal(signal);
        worker.log.wait_for(&[name, "asks for nothing"]);
        assert_result(&worker.post("after"), "after");
    }
}

#[test]
fn signals_that_were_blocked_by_the_parent_are_not_blocked_any_more() {
    if interpreter("python3").is_none() {
        return;
    }
    for signal in [Signal::TERM, Signal::QUIT] {
        let mut worker = misbehave(&["--ready"]).prepared_by(BLOCKED).start();
        worker.wait_until_ready();
        let status = worker.post("file /proc/self/status").json()["result"].clone();
        let blocked = status.as_str().unwrap().lines();
        let blocked = blocked.filter(|line| line.starts_with("SigBlk:"));
        assert!(
            blocked
                .clone()
                .all(|line| line.ends_with("0000000000000000")),
            "{status}"
        );
        assert_eq!(blocked.count(), 1);
        worker.signal(Signal::HUP);
        worker.log.wait_for(&["reload done"]);
        worker.signal(signal);
        assert_eq!(worker.wait_for_end(PATIENCE).code(), Some(0));
    }
}

/// Shells start a command in the background with SIGINT and SIGQUIT ignored.
#[test]
fn handlers_ignore_no_signal_that_the_worker_listens_for() {
    let worker = misbehave(&["--ready"])
        .prepared_by("trap '' INT QUIT TERM USR1 XFSZ")
        .start();
    let status = worker.post("file /proc/self/status").json()["result"].clone();
    let mask = status.as_str().unwrap().lines();
    let mask = mask
        .filter_map(|line| line.strip_prefix("SigIgn:\t"))
        .next();
    let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
    for signal in [
        Signal::INT,
        Signal::QUIT,
        Signal::TERM,
        Signal::USR1,
        Signal::XFSZ,
    ] {
        assert_eq!(
            mask >> (signal.as_raw() - 1) & 1,
            0,
            "{signal:?} in {mask:x}"
        );
    }
}

/// G1: a log file that is as long as a file may be.
#[test]
fn a_log_that_is_as_long_as_a_file_may_be_costs_no_request() {
    let scratch = Scratch::new();
    let log = scratch.path("log");
    let preparation = format!("ulimit -f 8; exec 2>{log}");
    let script = "while IFS= read -r line; do echo some noise of the handler >&2; \
                  printf '{\"result\":1}\\n'; done";
    let mut worker = sh(script, &[]).prepared_by(&preparation).start_quietly();
    eventually("the log is full", || {
        assert_result(&worker.post("x"), 1);
        // 512 bytes a block, or 1024: shells differ.
        let length = std::fs::metadata(&log).unwrap().len();
        [4096, 8192].contains(&length).then_some(())
    });
    for _ in 0..100 {
        assert_result(&worker.post("x"), 1);
    }
    assert_result(&worker.post("x"), 1);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_for_end(PATIENCE).code(), Some(0));
}

/// Starts a command on a terminal of its own, waits until it has logged that it listens, asks it
/// to reload, closes the terminal, and tells within ten seconds how it ended.
const TERMINAL: &str = r#"
import os, pty, signal, sys, time
log, asks = sys.argv[1], sys.argv[2] == "reload"
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[3], sys.argv[3:])
def text():
    try: return open(log).read()
    except OSError: return ""
def wait(what):
    end = time.time() + 20
    while what not in text():
        assert time.time() < end, what
        time.sleep(0.01)
wait("process is up")
if asks:
    os.kill(pid, signal.SIGHUP)
    wait("reload done")
os.close(terminal)
end = time.time() + 10
while time.time() < end:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        print("ended", os.waitstatus_to_exitcode(status))
        sys.exit()
    time.sleep(0.01)
print("goes on")
os.kill(pid, signal.SIGTERM)
os.waitpid(pid, 0)
"#;

/// The end of a worker on a terminal that was closed, and its log.
fn on_a_terminal(wrapper: &[&str], asks: &str, handler: &[&str]) -> Option<(String, String)> {
    let python = interpreter("python3")?;
    let scratch = Scratch::new();
    let log = scratch.path("log");
    let script = format!("exec \"$@\" 2>{log}");
    let output = without_settings(Command::new(python))
        // nohup makes a file where it runs.
        .current_dir(scratch.path("."))
        .args(["-c", TERMINAL, &log, asks])
        .args(["sh", "-c", &script, "sh"])
        .args(wrapper)
        .args([
            PROGRAM,
            "--port",
            "0",
            "--processes",
            "1",
            "--log-level",
            "debug",
            "--",
        ])
        .args(handler)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(output.status.success(), "{errors}{log}");
    Some((said, log))
}

#[test]
fn a_worker_whose_terminal_is_closed_ends_and_sighup_reloads_until_then() {
    let handler = rust_example("careless");
    if let Some((said, log)) = on_a_terminal(&[], "reload", &[&handler]) {
        assert_eq!(said, "ended 0", "{log}");
        assert!(
            log.contains("the terminal that the worker was started on is gone"),
            "{log}"
        );
    }
}

#[test]
fn under_nohup_a_worker_outlives_its_terminal() {
    let handler = rust_example("careless");
    if let Some((said, log)) = on_a_terminal(&["nohup"], "nothing", &[&handler]) {
        assert_eq!(said, "goes on", "{log}");
    }
}

/// The kernel stops a background process that reads from its terminal.
#[test]
fn processes_have_no_terminal_that_could_stop_them() {
    let scratch = Scratch::new();
    let told = scratch.path("told");
    let script = r#"(: </dev/tty) 2>/dev/null && echo terminal >> "$1"
        cut -d' ' -f6 /proc/$$/stat >> "$1"; echo $$ >> "$1"
        printf '{"ready":true}\n'; while IFS= read -r line; do printf '{"result":1}\n'; done"#;
    if on_a_terminal(&[], "nothing", &["sh", "-c", script, "sh", &told]).is_none() {
        return;
    }
    let told = std::fs::read_to_string(told).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!(lines[0], lines[1], "the leader of a session");
}

/// The protocol is UTF-8, and a runtime without a locale writes ASCII.
#[test]
fn processes_have_a_locale_of_utf8_where_none_is_set() {
    let script = "while IFS= read -r line; do \
                  printf '{\"result\":\"%s\"}\\n' \"${LC_CTYPE-none}\"; done";
    let with = |preparation: &str| -> Builder { sh(script, &[]).prepared_by(preparation) };
    for (preparation, locale) in [
        ("unset LC_ALL LC_CTYPE LANG", "C.UTF-8"),
        ("unset LC_CTYPE; export LC_ALL= LANG=", "C.UTF-8"),
        ("unset LC_ALL LC_CTYPE; export LANG=C", "none"),
        ("unset LC_ALL LANG; export LC_CTYPE=C", "C"),
        ("unset LC_CTYPE LANG; export LC_ALL=C", "none"),
    ] {
        let worker = with(preparation).start();
        assert_result(&worker.post("x"), locale);
    }
}
