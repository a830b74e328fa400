//! `faas-worker map`: lines in, reply lines out, in order; and a run that goes on where it ended.

use crate::support::processes::{children, resident_kib, wait_until_gone};
use crate::support::{
    Chance, Ledger, PATIENCE, Scratch, eventually, processes, program, rust_example, within,
    without_settings,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;

/// `faas-worker map` with two processes, these flags and this handler.
fn map(flags: &[&str], handler: &[&str]) -> Command {
    let mut command = program();
    command.args(["map", "-j", "2", "--grace", "500ms"]);
    command.args(flags).arg("--").args(handler);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A run of the program, which ends with the test at the latest.
struct Batch(Child);

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it over this input to its end, which it must come to by itself.
fn run(mut command: Command, input: impl AsRef<[u8]>) -> Output {
    let mut batch = Batch(command.spawn().unwrap());
    let mut stdin = batch.0.stdin.take().unwrap();
    let input = input.as_ref().to_owned();
    // A program that ends early does not read all of it.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = read_all(batch.0.stdout.take());
    let stderr = read_all(batch.0.stderr.take());
    let status = within(PATIENCE * 3, "the run ends", || batch.0.try_wait().unwrap());
    writing.join().unwrap();
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read_all<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn misbehave(flags: &[&str], options: &[&str], input: &str) -> (Vec<String>, String, Option<i32>) {
    let handler = rust_example("misbehave");
    let handler = [&[handler.as_str()], options].concat();
    told(&run(map(flags, &handler), input))
}

/// The lines of stdout, all of stderr, and the exit status.
fn told(output: &Output) -> (Vec<String>, String, Option<i32>) {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let lines = stdout.lines().map(str::to_owned).collect();
    (lines, stderr, output.status.code())
}

fn lines(count: usize, line: impl FnMut(usize) -> String) -> String {
    (0..count).map(line).map(|line| line + "\n").collect()
}

/// The replies of an echo to these lines.
fn results<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let result = |line: &str| format!("{{\"result\":{}}}", serde_json::json!(line));
    lines.into_iter().map(result).collect()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn replies_come_in_input_order_however_long_each_takes() {
    let mut chance = Chance::seeded(7);
    let input = lines(300, |n| format!("sleep {} #{n}", chance.below(9)));
    let options = ["--announce", "8", "--threads"];
    let (out, err, status) = misbehave(&[], &options, &input);
    assert_eq!((out, status), (results(input.lines()), Some(0)), "{err}");
    assert!(
        err.starts_with("map: 300 items, 300 ok, 0 failed, "),
        "{err}"
    );
}

#[test]
fn unordered_replies_come_as_they_are_ready() {
    let input = format!("sleep 500 #first\n{}", lines(40, |n| format!("quick {n}")));
    let options = ["--announce", "8", "--threads"];
    let (mut out, err, status) = misbehave(&["-u"], &options, &input);
    assert_eq!(status, Some(0), "{err}");
    let mut expected = results(input.lines());
    assert_eq!(out.last(), expected.first());
    out.sort();
    expected.sort();
    assert_eq!(out, expected);
}

#[test]
fn a_failed_item_has_an_error_in_its_place() {
    let input = "a\nexit 3\n\nlast without a line feed";
    for (flags, expected) in [(&[][..], 1), (&["--exit-zero"], 0)] {
        let (out, err, status) = misbehave(flags, &[], input);
        assert_eq!((out.len(), status), (4, Some(expected)), "{err}");
        let error: serde_json::Value = serde_json::from_str(&out[1]).unwrap();
        let error = &error["error"];
        assert_eq!(error["code"], "handler_exited");
        assert_eq!(
            (&error["status"], &error["executed"]),
            (&502.into(), &"maybe".into())
        );
        let well = [out[0].as_str(), &out[2], &out[3]];
        let last = r#"{"result":"last without a line feed"}"#;
        assert_eq!(well, [r#"{"result":"a"}"#, r#"{"result":""}"#, last]);
        assert!(err.contains("map: 4 items, 3 ok, 1 failed, "), "{err}");
    }
}

#[test]
fn a_failed_item_is_tried_as_often_as_it_may_be() {
    let ledger = Ledger::new();
    let options = ["--ledger", &ledger.path()];
    let (out, err, status) = misbehave(&["--retries", "3"], &options, "a\nexit 3\nb\n");
    assert_eq!((out.len(), status), (3, Some(1)), "{err}");
    assert_eq!(ledger.count("exit 3"), 3);
    assert_eq!((ledger.count("a"), ledger.count("b")), (1, 1));
}

#[test]
fn failed_items_end_the_run_when_it_was_asked_for() {
    let ledger = Ledger::new();
    let options = ["--ledger", &ledger.path()];
    let soon = ["--halt", "soon,fail=1", "--window", "1"];
    let (out, err, status) = misbehave(&soon, &options, "a\nexit 1\nb\nc\n");
    assert_eq!((out.len(), status), (2, Some(1)), "{err}");
    assert_eq!(ledger.payloads(), ["a", "exit 1"]);
    assert!(err.contains("map: ended by --halt"), "{err}");

    let now = ["--halt", "now,fail=1", "-u", "--timeout", "60s"];
    let (out, err, status) = misbehave(&now, &[], "hang\nexit 1\n");
    assert_eq!((out.len(), status), (1, Some(1)), "{err}");
}

#[test]
fn payloads_are_found_in_json_and_results_written_bare() {
    let echo = &rust_example("echo")[..];
    let json = "\"a\\nb\"\n{\"k\": 1}\nno\n";
    let (out, err, status) = told(&run(map(&["--json", "--raw"], &[echo]), json));
    assert_eq!(out, ["a", "b", "{\"k\": 1}"]);
    assert_eq!(status, Some(1));
    assert!(
        err.contains("map: line 3: invalid_request (400): "),
        "{err}"
    );

    let field = "{\"q\":\"x\",\"n\":1}\n{\"n\":2}\n";
    let flags = ["--field", "q", "--with-input"];
    let (out, _, status) = told(&run(map(&flags, &[echo]), field));
    assert_eq!(out[0], r#"{"input":{"q":"x","n":1},"result":"x"}"#);
    assert!(out[1].starts_with(r#"{"input":{"n":2},"error":{"code":"invalid_request""#));
    assert_eq!(status, Some(1));
}

#[test]
fn a_line_that_is_not_utf8_or_too_long_is_an_error_in_its_place() {
    let echo = &rust_example("echo")[..];
    let long = [b'x'; 2000];
    let input = [b"a\n\xff\n".as_slice(), &long, b"\nb\n"].concat();
    let (out, _, status) = told(&run(map(&["--max-body", "1KiB"], &[echo]), input));
    assert_eq!((out.len(), status), (4, Some(1)));
    assert!(out[1].contains("invalid_request"), "{}", out[1]);
    assert!(out[2].contains("body_too_large"), "{}", out[2]);
    assert_eq!(out[3], r#"{"result":"b"}"#);
}

#[test]
fn a_reply_is_written_before_the_next_line_comes() {
    let mut child = map(&[], &[&rust_example("echo")]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["one", "two"] {
        writeln!(stdin, "{line}").unwrap();
        let reply = replies.next().unwrap().unwrap();
        assert_eq!(reply, format!("{{\"result\":\"{line}\"}}"));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn no_line_starts_no_process_and_no_process_gives_no_line() {
    let scratch = Scratch::new();
    let script = format!("touch {}", scratch.path("started"));
    let (out, _, status) = told(&run(map(&[], &["sh", "-c", &script]), ""));
    assert_eq!((out.len(), status), (0, Some(0)));
    assert!(!scratch.directory().join("started").exists());

    let input = scratch.file("input", 0o600, "a\nb\n");
    let command = map(&["-i", &input], &["/does/not/exist"]);
    let (out, err, status) = told(&run(command, ""));
    assert_eq!((out.len(), status), (0, Some(3)), "{err}");
    assert!(err.contains("2 items have no reply"), "{err}");
    assert!(err.contains("map: 0 items, 0 ok, 0 failed, "), "{err}");
}

#[test]
fn items_that_end_the_first_processes_do_not_end_the_run() {
    let input = format!("{}last\n", "exit 3\n".repeat(8));
    let (out, err, status) = misbehave(&[], &[], &input);
    assert_eq!((out.len(), status), (9, Some(1)), "{err}");
    assert_eq!(out[8], r#"{"result":"last"}"#);
}

#[test]
fn a_handler_that_dies_on_all_items_ends_the_run_and_the_rest_is_counted() {
    let scratch = Scratch::new();
    let input = scratch.file("input", 0o600, "exit 3\n".repeat(100_000));
    let (out, err, status) = misbehave(&["-i", &input], &[], "");
    assert_eq!(status, Some(3), "{err}");
    let rest = 100_000 - out.len();
    assert!(
        err.contains(&format!("map: {rest} items have no reply")),
        "{err}"
    );
    assert!(err.contains("keeps dying: "), "{err}");
}

#[test]
fn long_replies_that_wait_for_the_first_one_do_not_hold_it_up() {
    let input = format!("sleep-exit 300\n{}", "big 100000\n".repeat(100));
    let flags = [
        "--retries",
        "2",
        "--window",
        "100",
        "--max-buffered",
        "1MiB",
    ];
    let sizes = ["--max-body", "200KiB", "--max-reply", "300KiB"];
    let (out, err, status) = misbehave(&[&flags[..], &sizes].concat(), &[], &input);
    assert_eq!((out.len(), status), (101, Some(1)), "{err}");
}

#[test]
fn each_file_ends_its_last_line_and_a_carriage_return_belongs_to_a_line() {
    let scratch = Scratch::new();
    let first = scratch.file("first", 0o600, "a\r\nb");
    let second = scratch.file("second", 0o600, "c\n");
    let command = map(
        &["-i", &first, "-i", "-", "-i", &second],
        &[&rust_example("echo")],
    );
    let (out, _, status) = told(&run(command, "d\n\ne"));
    assert_eq!(out, results(["a\r", "b", "d", "", "e", "c"]));
    assert_eq!(status, Some(0));
}

#[test]
fn a_command_is_found_without_an_environment() {
    let mut command = map(&[], &["sh", "-c", "cat >/dev/null; printenv PATH >&2"]);
    command.env_clear();
    let (_, err, status) = told(&run(command, "a\n"));
    assert_eq!(status, Some(1), "{err}");
    let said = "/usr/local/bin:/usr/bin:/bin";
    assert!(
        err.contains("PATH is not set") && err.contains(said),
        "{err}"
    );
}

#[test]
fn files_that_do_not_fit_are_refused_and_left_as_they_are() {
    let scratch = Scratch::new();
    let [input, output] = ["input", "output"].map(|name| scratch.file(name, 0o600, "a\n"));
    let [log, missing] = ["log", "missing"].map(|name| scratch.path(name));
    let folder = scratch.directory().display().to_string();
    for (flags, why) in [
        (&["-i", &input, "-o", &input][..], "is the same file as -i"),
        (
            &["-o", &output, "--job-log", &output],
            "is the same file as -o",
        ),
        (&["-i", &missing, "-o", &output], "missing: No such file"),
        (&["-i", &folder, "-o", &output], "is a directory"),
        (&["-o", &folder], "Is a directory"),
        (&["-o", &output, "--resume"], "--job-log"),
        (
            &["-i", &input, "-o", &output, "--job-log", &log, "--resume"],
            "log: is empty",
        ),
        (
            &["-o", &output, "--job-log", &input, "--resume"],
            "line 1 is not of a job log",
        ),
    ] {
        let (out, err, status) = told(&run(map(flags, &["cat"]), ""));
        assert_eq!((out.len(), status), (0, Some(2)), "{flags:?} {err}");
        assert!(err.contains(why), "{flags:?} {err}");
        for path in [&input, &output] {
            assert_eq!(std::fs::read_to_string(path).unwrap(), "a\n", "{flags:?}");
        }
    }
}

#[test]
fn a_full_disk_is_told_with_the_name_of_the_file() {
    let echo = &rust_example("echo")[..];
    for flags in [["-o", "/dev/full"], ["--job-log", "/dev/full"]] {
        let (_, err, status) = told(&run(map(&flags, &[echo]), "a\n"));
        assert!(status == Some(1) || status == Some(2), "{err}");
        let why = format!("{}: No space left on device", flags.join(" "));
        assert!(err.contains(&why), "{err}");
    }
}

/// A run that has done all its items, and whose replies have no room in the pipe.
fn run_that_nobody_reads(items: usize) -> (Batch, ChildStdout) {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let line = format!("{}\n", "x".repeat(60));
    let path = scratch.file("input", 0o600, line.repeat(items));
    let handler = [&rust_example("misbehave"), "--ledger", &ledger.path()];
    let mut batch = Batch(map(&["-i", &path], &handler).spawn().unwrap());
    let stdout = batch.0.stdout.take().unwrap();
    eventually("all items are run", || {
        (ledger.entries().len() == items).then_some(())
    });
    (batch, stdout)
}

#[test]
fn a_second_signal_ends_a_run_whose_replies_are_not_taken() {
    let (mut batch, stdout) = run_that_nobody_reads(3_000);
    assert_eq!(ended_by_signals(&mut batch), Some(143));
    drop(stdout);
}

#[test]
fn a_first_signal_loses_no_reply_that_is_still_to_be_taken() {
    let (mut batch, mut stdout) = run_that_nobody_reads(3_000);
    signal(&batch.0, Signal::TERM);
    eventually("the signal was seen", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", batch.0.id())).unwrap();
        let pending = status
            .lines()
            .filter(|line| line.starts_with("S") && line.contains("Pnd:"));
        pending
            .into_iter()
            .all(|line| line.ends_with("0000000000000000"))
            .then_some(())
    });
    let mut replies = String::new();
    stdout.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.lines().count(), 3_000);
    let ended = within(PATIENCE, "the run ends", || batch.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(143));
}

fn wait_until_it_listens_to_signals(child: &Child) {
    eventually("it listens to signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        (caught & (1 << (15 - 1)) != 0).then_some(())
    });
}

/// Its end by signals, of which two that come at once would count as one.
fn ended_by_signals(batch: &mut Batch) -> Option<i32> {
    within(PATIENCE, "the run ends", || {
        signal(&batch.0, Signal::TERM);
        batch.0.try_wait().unwrap()
    })
    .code()
}

#[test]
fn a_signal_ends_a_run_that_waits_for_its_first_line() {
    let mut batch = Batch(map(&[], &["cat"]).spawn().unwrap());
    let stdin = batch.0.stdin.take();
    wait_until_it_listens_to_signals(&batch.0);
    signal(&batch.0, Signal::TERM);
    let ended = within(PATIENCE, "the run ends", || batch.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(143));
    drop(stdin);
}

#[test]
fn a_first_signal_ends_a_run_that_waits_for_the_other_end_of_a_pipe() {
    let scratch = Scratch::new();
    let [pipe, log] = ["pipe", "log"].map(|name| scratch.path(name));
    let input = scratch.file("input", 0o600, "a\n");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for (flags, number, status) in [
        (&["-i", &pipe][..], Signal::TERM, 143),
        (&["-i", &input, "-o", &pipe], Signal::INT, 130),
        (
            &["-i", &input, "-o", &log, "--job-log", &pipe],
            Signal::TERM,
            143,
        ),
    ] {
        let mut batch = Batch(map(flags, &["cat"]).spawn().unwrap());
        wait_until_it_listens_to_signals(&batch.0);
        let opens = |stat: &str| stat.contains("(map-open) S");
        eventually("it waits to open the pipe", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", batch.0.id())).unwrap();
            threads
                .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok())
                .any(|stat| opens(&stat))
                .then_some(())
        });
        signal(&batch.0, number);
        let ended = within(PATIENCE, "the run ends", || batch.0.try_wait().unwrap());
        assert_eq!(ended.code(), Some(status), "{flags:?}");
    }
}

/// Lines that are no JSON are failures without a process.
#[test]
fn signals_end_a_run_whose_standard_error_is_not_read() {
    let scratch = Scratch::new();
    let input = scratch.file("input", 0o600, "no\n".repeat(20_000));
    let command = &mut map(&["-i", &input, "--json", "--raw"], &["cat"]);
    let mut batch = Batch(command.spawn().unwrap());
    let stderr = batch.0.stderr.take().unwrap();
    eventually("the pipe is full", || {
        let unread = rustix::io::ioctl_fionread(&stderr).unwrap();
        (unread > 60_000).then_some(())
    });
    assert_eq!(ended_by_signals(&mut batch), Some(143));
    drop(stderr);
}

#[test]
fn signals_end_a_run_whose_standard_error_is_full_from_the_start() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let resumed = Resumed::new("a\n".to_owned());
    let mut command = resumed.command(&["--progress", "always"]);
    let mut batch = Batch(command.stderr(writer).spawn().unwrap());
    resumed.wait_for_replies(&mut batch.0, 1);
    assert_eq!(ended_by_signals(&mut batch), Some(143));
    drop(reader);
}

#[test]
fn a_closed_stdout_ends_it_quietly() {
    let input = Scratch::new();
    let path = input.file("input", 0o600, lines(200_000, |n| n.to_string()));
    let mut child = map(&["-i", &path], &[&rust_example("echo")])
        .spawn()
        .unwrap();
    let mut first = [0; 14];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let processes: Vec<u32> = children(child.id()).iter().map(|child| child.pid).collect();
    let mut err = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(err, "");
    wait_until_gone(&processes);
}

#[test]
fn a_standard_output_that_is_closed_from_the_start_is_told() {
    let program = env!("CARGO_BIN_EXE_faas-worker");
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", "exec \"$@\" >&-", "sh", program, "map", "--", "cat"]);
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let (_, err, status) = told(&output);
    assert_eq!(status, Some(0), "{err}");
    assert!(err.starts_with("map: standard output is closed"), "{err}");
}

/// A run over one input that is begun again and again.
struct Resumed {
    scratch: Scratch,
    ledger: Ledger,
    input: String,
}

impl Resumed {
    fn new(input: String) -> Resumed {
        let scratch = Scratch::new();
        scratch.file("input", 0o600, &input);
        Resumed {
            scratch,
            ledger: Ledger::new(),
            input,
        }
    }

    fn command(&self, flags: &[&str]) -> Command {
        let [input, output, log] = ["input", "output", "log"].map(|name| self.scratch.path(name));
        let files = ["-i", &input, "-o", &output, "--job-log", &log];
        let handler = rust_example("misbehave");
        let ledger = self.ledger.path();
        let options = [handler.as_str(), "--ledger", &ledger];
        map(&[flags, &files].concat(), &options)
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.scratch.path("output")).unwrap_or_default()
    }

    /// Waits until so many replies are written, or the run has ended.
    fn wait_for_replies(&self, child: &mut Child, count: usize) {
        eventually("replies are written", || {
            let has_ended = child.try_wait().unwrap().is_some();
            (has_ended || self.output().lines().count() >= count).then_some(())
        });
    }
}

#[test]
fn a_changed_input_is_refused_by_the_number_of_its_line() {
    let resumed = Resumed::new(lines(9, |n| format!("line {n}")));
    assert!(run(resumed.command(&[]), "").status.success());
    let whole = resumed.output();
    let changed = resumed.input.replace("line 4", "line four");
    resumed.scratch.file("input", 0o600, changed);
    let (_, err, status) = told(&run(resumed.command(&["--resume"]), ""));
    assert_eq!(status, Some(2));
    assert!(err.contains("line 5 of the input is not"), "{err}");
    resumed.scratch.file("input", 0o600, "line 0\n");
    let (_, err, status) = told(&run(resumed.command(&["--resume"]), ""));
    assert_eq!(status, Some(2));
    assert!(err.contains("the input ends at line 1"), "{err}");
    assert_eq!(resumed.output(), whole);
}

#[test]
fn failed_items_are_done_again_when_asked() {
    let resumed = Resumed::new("a\nexit 3\nb\n".to_owned());
    for (flags, expected, times) in [
        (&[][..], 1, 1),
        // What failed before still counts.
        (&["--resume"], 1, 1),
        (&["--resume-failed"], 1, 2),
    ] {
        let output = run(resumed.command(flags), "");
        assert_eq!(output.status.code(), Some(expected), "{flags:?}");
        assert_eq!(resumed.ledger.count("exit 3"), times, "{flags:?}");
    }
    assert_eq!(resumed.ledger.count("a"), 1);
    assert_eq!(resumed.output().lines().count(), 4);
}

/// With `--raw` a failed item has no reply line, so that the last lines may be of the job log
/// alone.
#[test]
fn a_failed_last_item_without_a_reply_line_is_logged() {
    for flags in [
        &["--raw"][..],
        &["--raw", "--halt", "now,fail=1", "--window", "1"],
    ] {
        let resumed = Resumed::new("a\nexit 3\n".to_owned());
        let (out, err, status) = told(&run(resumed.command(flags), ""));
        assert_eq!((out.len(), status), (0, Some(1)), "{err}");
        assert_eq!(resumed.output(), "a\n");
        let log = std::fs::read_to_string(resumed.scratch.path("log")).unwrap();
        let codes: Vec<_> = log
            .lines()
            .skip(2)
            .map(|line| line.split('\t').nth(8))
            .collect();
        assert_eq!(codes, [Some("ok"), Some("handler_exited")], "{log}");
    }
}

#[test]
fn replies_that_the_job_log_does_not_have_are_cut_off() {
    let resumed = Resumed::new(lines(9, |n| format!("line {n}")));
    assert!(run(resumed.command(&[]), "").status.success());
    let whole = resumed.output();
    // As SIGKILL leaves them between two writes: a log without its last line, and half a reply.
    let log = resumed.scratch.path("log");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.len() - 5]).unwrap();
    std::fs::write(resumed.scratch.path("output"), whole.clone() + "{\"res").unwrap();
    assert!(run(resumed.command(&["--resume"]), "").status.success());
    assert_eq!(resumed.output(), whole);
    assert_eq!(resumed.ledger.entries().len(), 10);
}

#[test]
fn an_output_that_another_program_cuts_ends_the_run() {
    let resumed = Resumed::new(lines(40, |n| format!("sleep 50 #{n}")));
    let mut child = Batch(resumed.command(&[]).spawn().unwrap());
    resumed.wait_for_replies(&mut child.0, 2);
    std::fs::write(resumed.scratch.path("output"), "").unwrap();
    let stderr = read_all(child.0.stderr.take());
    let ended = within(PATIENCE, "the run ends", || child.0.try_wait().unwrap());
    let err = String::from_utf8(stderr.join().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(1), "{err}");
    assert!(err.contains("another program has cut it"), "{err}");
    assert_eq!(resumed.output(), "");
}

#[test]
fn a_resumed_run_tells_how_many_items_were_done_before() {
    let resumed = Resumed::new(lines(9, |n| format!("line {n}")));
    assert!(run(resumed.command(&[]), "").status.success());
    let log = resumed.scratch.path("log");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.len() - 5]).unwrap();
    let (_, err, status) = told(&run(resumed.command(&["--resume"]), ""));
    assert_eq!(status, Some(0), "{err}");
    assert!(err.starts_with("map: 1 item, 1 ok, 0 failed, "), "{err}");
    assert!(err.ends_with("/s; 8 done before\n"), "{err}");
}

#[test]
fn what_a_lost_handler_wrote_changes_no_terminal() {
    let script = "printf '\\033[31mred\\n' >&2; exit 1";
    let (_, err, status) = told(&run(
        map(&["--log-level", "error"], &["sh", "-c", script]),
        "a\n",
    ));
    assert_eq!(status, Some(3), "{err}");
    let told = err.lines().find(|line| line.contains("cannot be started"));
    let told = told.unwrap_or_default();
    assert!(
        told.contains("\\u{1b}[31mred") && !told.contains('\u{1b}'),
        "{err}"
    );
}

/// A log that was sorted, edited or is another output's would have replies cut off.
#[test]
fn a_job_log_that_does_not_fit_the_output_is_refused_and_nothing_is_cut() {
    let resumed = Resumed::new(lines(20, |n| format!("line {n}")));
    assert!(run(resumed.command(&[]), "").status.success());
    let whole = resumed.output();
    let log = resumed.scratch.path("log");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (head, items) = lines.split_at(2);
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    let end = items[19].rsplit_once('\t').unwrap().0.to_owned();
    let [to_zero, within] = ["0", "300"].map(|to| format!("{end}\t{to}"));
    let with_last = |last| [&items[..19], &[last]].concat();
    let other = format!("{{\"precious\":{}}}\n", "1".repeat(2_000));
    for (items, output, why) in [
        (
            items.iter().rev().copied().collect(),
            &whole,
            "log: line 3 ",
        ),
        (sorted, &whole, "log: line 4 "),
        (with_last(&to_zero), &whole, "log: line 22 "),
        (with_last(&within), &whole, "log: line 22 "),
        (
            [&items[..9], &items[10..]].concat(),
            &whole,
            "log: line 12 ",
        ),
        (items.to_vec(), &other, "log: line 3 has the End "),
    ] {
        let text = [head, &items, &[""]].concat().join("\n");
        std::fs::write(&log, &text).unwrap();
        std::fs::write(resumed.scratch.path("output"), output).unwrap();
        let (_, err, status) = told(&run(resumed.command(&["--resume"]), ""));
        assert_eq!(status, Some(2), "{err}");
        assert!(err.contains(why), "{err}");
        assert_eq!(resumed.output(), *output, "{err}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), text);
    }
}

#[test]
fn a_run_goes_on_with_its_flags_alone_and_tells_of_another_command() {
    let resumed = Resumed::new(lines(9, |n| format!("{n}")));
    assert!(run(resumed.command(&["--json"]), "").status.success());
    let whole = resumed.output();
    for flags in [
        &[][..],
        &["--json", "--raw"],
        &["--json", "--with-input"],
        &["--field", "a"],
    ] {
        let command = resumed.command(&[flags, &["--resume"]].concat());
        let (_, err, status) = told(&run(command, ""));
        assert_eq!(status, Some(2), "{err}");
        let why = "line 1: the run was begun with --json, and this one has ";
        assert!(err.contains(why), "{err}");
        assert_eq!(resumed.output(), whole);
    }
    let mut other = resumed.command(&["--json", "--resume"]);
    other.arg("--threads");
    let (_, err, status) = told(&run(other, ""));
    assert_eq!(status, Some(0), "{err}");
    assert!(
        err.contains("the runs before had another command: "),
        "{err}"
    );
}

#[test]
fn a_signal_gives_up_items_that_no_process_has() {
    let resumed = Resumed::new(lines(20, |n| format!("sleep 1000 #{n}")));
    let mut batch = Batch(resumed.command(&["--read-ahead", "1"]).spawn().unwrap());
    eventually("items are run", || {
        (resumed.ledger.entries().len() == 2).then_some(())
    });
    signal(&batch.0, Signal::TERM);
    let ended = within(PATIENCE, "the run ends", || batch.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(143));
    // Eight are in hand, of which each of the two processes has one.
    assert!(resumed.ledger.entries().len() <= 4, "{}", resumed.output());
}

#[test]
fn a_job_log_that_another_run_has_is_refused() {
    let resumed = Resumed::new(lines(50, |n| format!("sleep 50 #{n}")));
    let mut first = Batch(resumed.command(&[]).spawn().unwrap());
    resumed.wait_for_replies(&mut first.0, 1);
    let (_, err, status) = told(&run(resumed.command(&["--resume"]), ""));
    assert_eq!(status, Some(2), "{err}");
    assert!(err.contains("another run has it open"), "{err}");
}

fn killed_and_resumed(kills: usize, unordered: bool) {
    const WINDOW: usize = 16;
    const ITEMS: usize = 3_000;
    let resumed = Resumed::new(lines(ITEMS, |n| format!("sleep 1 #{n}")));
    let mut chance = Chance::seeded(kills as u64);
    let window = WINDOW.to_string();
    let mut flags = vec!["--resume", "--window", &window];
    flags.extend(unordered.then_some("-u"));
    for kill in 1..=kills {
        let mut child = resumed.command(&flags).spawn().unwrap();
        let step = ITEMS / (kills + 1);
        let within_step = usize::try_from(chance.below(step as u64)).unwrap();
        let written = (kill - 1) * step + within_step;
        resumed.wait_for_replies(&mut child, written);
        let processes: Vec<u32> = children(child.id()).iter().map(|child| child.pid).collect();
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before it was killed"
        );
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        wait_until_gone(&processes);
    }
    let output = run(resumed.command(&flags), "");
    assert!(output.status.success(), "{output:?}");
    let written = resumed.output();
    let mut replies: Vec<&str> = written.lines().collect();
    let mut expected = results(resumed.input.lines());
    if unordered {
        replies.sort_unstable();
        expected.sort_unstable();
    }
    assert_eq!(replies, expected);
    let runs = resumed.ledger.entries().len();
    let most = ITEMS + kills * WINDOW;
    assert!(
        (ITEMS..=most).contains(&runs),
        "{runs} runs, {most} at most"
    );
}

#[test]
fn a_killed_run_goes_on_where_it_ended() {
    killed_and_resumed(10, false);
}

#[test]
fn a_killed_unordered_run_goes_on_where_it_ended() {
    killed_and_resumed(5, true);
}

#[test]
#[ignore = "takes a minute: cargo test --test it map:: -- --ignored"]
fn a_run_that_is_killed_fifty_times_goes_on_each_time() {
    killed_and_resumed(50, false);
}

#[test]
fn a_signal_lets_running_items_end_and_none_is_run_twice() {
    for (number, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let resumed = Resumed::new(lines(100, |n| format!("sleep 20 #{n}")));
        let mut child = resumed.command(&[]).spawn().unwrap();
        resumed.wait_for_replies(&mut child, 10);
        signal(&child, number);
        let ended = within(PATIENCE, "the run ends", || child.try_wait().unwrap());
        assert_eq!((ended.code(), ended.signal()), (Some(status), None));
        let before = resumed.output().lines().count();
        assert!((10..100).contains(&before), "{before}");
        assert_eq!(resumed.ledger.entries().len(), before);
        let output = run(resumed.command(&["--resume"]), "");
        assert!(output.status.success(), "{output:?}");
        let replies = resumed.output();
        assert_eq!(
            replies.lines().collect::<Vec<_>>(),
            results(resumed.input.lines())
        );
        resumed.ledger.assert_none_twice();
    }
}

/// Slurm and process groups signal the processes of the handler as well.
#[test]
fn a_signal_that_the_processes_get_too_fails_no_item() {
    for flags in [&[][..], &["-u"]] {
        let resumed = Resumed::new(lines(60, |n| format!("sleep 30 #{n}")));
        let mut child = resumed.command(flags).spawn().unwrap();
        resumed.wait_for_replies(&mut child, 10);
        let handlers = processes::living_children(child.id());
        assert!(!handlers.is_empty());
        signal(&child, Signal::TERM);
        for pid in handlers {
            processes::signal(pid, Signal::TERM);
        }
        let ended = within(PATIENCE, "the run ends", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(143));
        let output = run(resumed.command(&[flags, &["--resume"]].concat()), "");
        assert!(output.status.success(), "{output:?}");
        let mut replies: Vec<String> = resumed.output().lines().map(str::to_owned).collect();
        let mut expected = results(resumed.input.lines());
        if !flags.is_empty() {
            replies.sort();
            expected.sort();
        }
        assert_eq!(replies, expected);
    }
}

fn memory_over(items: usize) {
    let mut child = map(&[], &[&rust_example("echo")]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        for n in 0..items {
            writeln!(stdin, "an item of some length, {n}").unwrap();
        }
    });
    let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
    let tenth = items / 10;
    assert_eq!(replies.by_ref().take(tenth).count(), tenth);
    let before = resident_kib(child.id());
    let rest = tenth * 9 - 1;
    assert_eq!(replies.by_ref().take(rest).count(), rest);
    let after = resident_kib(child.id());
    writing.join().unwrap();
    assert_eq!(replies.count(), 1);
    assert!(child.wait().unwrap().success());
    let most = before + 4 * 1024;
    assert!(
        after < most,
        "{before} KiB after a tenth, {after} at the end"
    );
}

#[test]
fn memory_does_not_grow_with_the_input() {
    memory_over(100_000);
}

/// Each line in hand takes more memory than its text.
#[test]
fn empty_lines_take_no_more_memory_than_others() {
    let scratch = Scratch::new();
    let input = scratch.file("input", 0o600, "\n".repeat(1_000_000));
    let mut batch = Batch(
        map(&["-i", &input], &[&rust_example("echo")])
            .spawn()
            .unwrap(),
    );
    let mut stdout = BufReader::new(batch.0.stdout.take().unwrap());
    let mut line = String::new();
    let mut most = 0;
    for number in 0..1_000_000 {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        if number % 100_000 == 50_000 {
            most = most.max(resident_kib(batch.0.id()));
        }
    }
    assert!(most < 30 * 1024, "{most} KiB");
}

#[test]
#[ignore = "takes a minute: cargo test --test it map:: -- --ignored"]
fn memory_does_not_grow_over_a_million_lines() {
    memory_over(1_000_000);
}

#[test]
fn progress_is_told_on_standard_error_alone() {
    let input = lines(5, |n| format!("sleep 500 #{n}"));
    let (out, err, _) = misbehave(&["--progress", "always"], &[], &input);
    assert_eq!(out.len(), 5);
    // A look each second, and the end.
    let told = err.lines().filter(|line| line.contains("/s")).count();
    assert!((2..6).contains(&told), "{err}");
    let (_, err, _) = misbehave(&["--progress", "never"], &[], "a\n");
    assert_eq!(err.lines().count(), 1, "{err}");
}
