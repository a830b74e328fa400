//! Commands that do not start, start badly, or start slowly.

use crate::support::{
    Builder, PATIENCE, Scratch, assert_error, assert_result, assert_within, eventually, misbehave,
    processes, rust_example, sh, within,
};
use rustix::process::Signal;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Fails unless the answers and the log name this handler, which never came up, and the answer to a
/// request has all `parts`.
#[track_caller]
fn assert_not_loaded(handler: &str, parts: &[&str]) {
    let worker = Builder::new(vec![handler.to_owned()]).start();
    let response = worker.post("x");
    assert_error(&response, 500, "handler_not_loaded", "no");
    let detail = response.detail();
    assert!(
        detail.starts_with("Handler function not loaded: "),
        "{detail}"
    );
    let lower = detail.to_lowercase();
    for part in parts {
        let any = part.split('|').any(|choice| lower.contains(choice));
        assert!(any, "{part:?} is not in {detail:?}");
    }
    assert_eq!(worker.get("/health").status, 200);
    let ready = worker.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().len() > 20,
        "/ready gives the reason: {}",
        ready.text()
    );
    let name = handler.rsplit('/').next().unwrap();
    worker.log.wait_for(&[name]);
}

/// A1.
#[test]
fn a_command_that_is_not_found_is_told_with_its_path() {
    assert_not_loaded("/nowhere/at-all", &["/nowhere/at-all"]);
    assert_not_loaded(
        "no-such-command-anywhere",
        &["no-such-command-anywhere", "path"],
    );
    let worker = Builder::new(vec!["no-such-command-anywhere".to_owned()]).start();
    let path = std::env::var("PATH").unwrap();
    let first = path.split(':').next().unwrap();
    worker.log.wait_for(&["no-such-command-anywhere", first]);
}

/// A1.
#[test]
fn a_directory_or_a_plain_file_is_no_command() {
    let scratch = Scratch::new();
    let directory = scratch.directory().display().to_string();
    assert_not_loaded(&directory, &["directory|permission|executable"]);
    let plain = scratch.file("plain", 0o644, "#!/bin/sh\n");
    assert_not_loaded(&plain, &["permission|executable"]);
}

/// A1.
#[test]
fn a_pipe_is_no_command_and_gives_way_to_one() {
    let scratch = Scratch::new();
    let pipe = scratch.pipe("handler");
    assert_not_loaded(&pipe, &["not a program: a pipe"]);
    let worker = Builder::new(vec![pipe]).start();
    assert_error(&worker.post("x"), 500, "handler_not_loaded", "no");
    let script = "#!/bin/sh\nwhile read -r line; do echo '{\"result\":1}'; done\n";
    scratch.file("handler", 0o755, script);
    eventually("answers", || (worker.post("x").status == 200).then_some(()));
}

/// A1.
#[test]
fn a_command_that_appears_later_is_found() {
    let scratch = Scratch::new();
    let worker = Builder::new(vec![scratch.path("handler")]).start();
    assert_error(&worker.post("x"), 500, "handler_not_loaded", "no");
    scratch.file(
        "handler",
        0o755,
        "#!/bin/sh\nwhile IFS= read -r line; do echo '{\"result\":1}'; done\n",
    );
    eventually("answers", || (worker.post("x").status == 200).then_some(()));
    eventually("is ready", || {
        (worker.get("/ready").status == 200).then_some(())
    });
}

/// A2.
#[test]
fn a_missing_interpreter_is_named() {
    let scratch = Scratch::new();
    let missing = scratch.file("missing.sh", 0o755, "#!/no/such/interpreter -x\n");
    assert_not_loaded(&missing, &["/no/such/interpreter"]);
    let dos = scratch.file("dos.sh", 0o755, "#!/bin/sh\r\necho\r\n");
    assert_not_loaded(
        &dos,
        &[
            "/bin/sh",
            "carriage|cr |crlf|line end|line break|windows|\\r",
        ],
    );
}

/// A2.
#[test]
fn a_file_that_cannot_be_executed_is_not_given_to_a_shell() {
    let scratch = Scratch::new();
    let marker = scratch.path("marker");
    let bare = scratch.file("bare", 0o755, format!("touch {marker}\n"));
    assert_not_loaded(&bare, &["#!|shebang|interpreter|format"]);
    assert!(!std::path::Path::new(&marker).exists(), "a shell ran it");

    // An ELF head for a machine that this is not (SPARC).
    let mut elf = vec![
        0x7f, b'E', b'L', b'F', 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2,
    ];
    elf.resize(128, 0);
    let foreign = scratch.file("foreign", 0o755, elf);
    assert_not_loaded(&foreign, &["architecture|machine|format"]);
}

/// A2.
#[test]
fn what_keeps_the_interpreter_from_being_found_is_named() {
    let scratch = Scratch::new();
    let marked = scratch.file("marked.sh", 0o755, "\u{feff}#!/bin/sh\n");
    assert_not_loaded(&marked, &["byte order mark"]);
    let empty = scratch.file("empty.sh", 0o755, "\n#!/bin/sh\n");
    assert_not_loaded(&empty, &["empty line"]);
}

/// A1: the answer to a caller names the cause, as the log does.
#[test]
fn a_command_line_that_was_meant_otherwise_is_answered_with_what_was_meant() {
    let scratch = Scratch::new();
    for name in ["handler.rb", "handler.py", "app.jar"] {
        scratch.file(name, 0o644, "");
    }
    let quoted = "\"python3 serve.py a.b\"";
    for (handler, part) in [
        (quoted, "is one word"),
        ("cd / && ./handler", "no shell reads the command"),
        ("exec ./handler", "no shell reads the command"),
        ("A=b ./handler", "no shell reads the command"),
        ("handler.rb", "ruby ./handler.rb"),
        ("handler.py", "python3 serve.py handler.py:FUNCTION"),
        ("app.jar", "java -jar app.jar"),
        ("./handler.rb", "ruby ./handler.rb"),
        ("a.b.c", "python3 /path/to/serve.py a.b.c"),
    ] {
        let worker = Builder::new(Vec::new())
            .environment("HANDLER_FUNCTION", handler)
            .directory(scratch.directory())
            .start();
        let response = worker.post("x");
        assert_error(&response, 500, "handler_not_loaded", "no");
        assert!(
            response.detail().contains(part),
            "{handler}: {}",
            response.detail()
        );
    }
}

/// A3.
#[test]
fn a_command_that_exits_at_once_is_backed_off() {
    for status in ["7", "0"] {
        let scratch = Scratch::new();
        let starts = scratch.path("starts");
        let options = [
            "--starts",
            &starts,
            "--stderr",
            "cannot load the model",
            "--exit",
            status,
        ];
        let worker = misbehave(&options).start();
        let response = eventually("fails fast", || {
            let response = worker.post("x");
            (response.header("x-faas-error") == Some("handler_not_loaded")).then_some(response)
        });
        assert_error(&response, 500, "handler_not_loaded", "no");
        assert!(response.detail().contains(status), "{}", response.detail());
        worker.log.wait_for(&["cannot load the model"]);
        // A request that comes now is refused now, not after a wait.
        let start = Instant::now();
        assert_error(&worker.post("x"), 500, "handler_not_loaded", "no");
        assert!(start.elapsed() < Duration::from_secs(5));
        // No busy loop: few starts, and next to no processor time.
        let count = || std::fs::read_to_string(&starts).unwrap().lines().count();
        let (starts_before, ticks_before) = (count(), processes::cpu_ticks(worker.pid()));
        std::thread::sleep(Duration::from_secs(1));
        let (started, ticks) = (
            count() - starts_before,
            processes::cpu_ticks(worker.pid()) - ticks_before,
        );
        assert!(started <= 8, "{started} starts within a second");
        assert!(
            ticks <= 5,
            "{ticks} ticks of processor time within a second"
        );
        assert_eq!(worker.get("/health").status, 200);
        assert_eq!(worker.get("/ready").status, 503);
    }
}

/// A1, and the busy loop of A3.
#[test]
fn a_command_that_is_not_found_is_backed_off() {
    let worker = Builder::new(vec!["/nowhere/at-all".to_owned()]).start();
    eventually("fails fast", || {
        let response = worker.post("x");
        (response.header("x-faas-error") == Some("handler_not_loaded")).then_some(())
    });
    // Next to nothing may happen while it waits.
    let before = processes::cpu_ticks(worker.pid());
    std::thread::sleep(Duration::from_secs(1));
    let ticks = processes::cpu_ticks(worker.pid()) - before;
    assert!(
        ticks <= 5,
        "{ticks} ticks of processor time within a second"
    );
}

/// A3.
#[test]
fn a_handler_whose_need_is_met_later_comes_up() {
    let scratch = Scratch::new();
    let need = scratch.path("need");
    let worker = misbehave(&["--need", &need, "--ready"]).start();
    worker.log.wait_for(&["what I need is not there"]);
    std::fs::write(&need, "").unwrap();
    eventually("answers", || (worker.post("x").status == 200).then_some(()));
    worker.wait_for_processes(2);
}

/// A3: also without a request.
#[test]
fn a_handler_that_keeps_failing_is_an_error_in_the_log() {
    let worker = sh("exit 1", &[]).start();
    worker
        .log
        .wait_for(&["handler keeps failing", "exit status: 1"]);
}

/// A3: lines that every start prints again are logged once.
#[test]
fn what_failed_starts_print_alike_is_logged_once() {
    let handler = "echo 'Traceback: no such key' >&2; echo 'after it' >&2; exit 1";
    let worker = sh(handler, &[]).start();
    worker.log.wait_for(&["process ended", r#""repeated":5"#]);
    let text = worker.log.text();
    let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(count(r#""text":"Traceback"#), 1, "{text}");
    assert_eq!(count(r#""last_line":"after it""#), 1, "{text}");
    assert_eq!(count("handler keeps failing"), 1, "{text}");
    assert!(
        text.contains("before it was up; the last line on its stderr: after it"),
        "{text}"
    );
    // After a reload by hand, the failure is logged again.
    worker.signal(Signal::HUP);
    eventually("logged again", || {
        (worker.log.text().matches(r#""text":"Traceback"#).count() >= 2).then_some(())
    });
}

/// A4.
#[test]
fn with_wait_ready_requests_wait_for_the_ready_line() {
    let worker = misbehave(&["--delay", "600", "--ready"])
        .option("--timeout", "500ms")
        .flag("--wait-ready")
        .start();
    assert_eq!(worker.get("/ready").status, 503);
    assert_result(&worker.post("patient"), "patient");
    assert_eq!(worker.get("/ready").status, 200);
}

/// A4.
#[test]
fn without_a_ready_line_in_time_a_start_has_failed() {
    let scratch = Scratch::new();
    let starts = scratch.path("starts");
    let worker = misbehave(&["--starts", &starts, "--delay", "60000", "--ready"])
        .option("--startup-timeout", "200ms")
        .option("--processes", "1")
        .flag("--wait-ready")
        .start();
    eventually("is started again", || {
        (std::fs::read_to_string(&starts)
            .unwrap_or_default()
            .lines()
            .count()
            > 1)
        .then_some(())
    });
    let first: u32 = std::fs::read_to_string(&starts)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    processes::wait_until_gone(&[first]);
    let response = eventually("fails fast", || {
        let response = worker.post("x");
        (response.status == 500).then_some(response)
    });
    assert_error(&response, 500, "handler_not_loaded", "no");
}

/// A5.
#[test]
fn a_port_in_use_ends_the_start_before_any_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let scratch = Scratch::new();
    let starts = scratch.path("starts");
    let output = misbehave(&["--starts", &starts])
        .option("--port", &address.port().to_string())
        .output();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(
        !std::path::Path::new(&starts).exists(),
        "a process was started"
    );
}

/// A6 and A8.
#[test]
fn unbalanced_quotes_are_a_bad_setting() {
    for command in ["sh 'unbalanced", "sh \"unbalanced"] {
        let output = Builder::new(Vec::new())
            .environment("HANDLER_FUNCTION", command)
            .output();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("HANDLER_FUNCTION"), "{said}");
        assert!(said.contains("--handler"), "{said}");
        assert!(said.contains("unbalanced"), "{said}");
    }
}

/// A8.
#[test]
fn a_handler_s_words_are_split_as_a_shell_does_and_nothing_more() {
    let scratch = Scratch::new();
    let marker = scratch.path("marker");
    let program = rust_example("misbehave");
    let command =
        format!(r#"'{program}' --words 'a b' "c 'd'" e\ f "" "$(touch {marker})" $HOME * '"'"#);
    let words = serde_json::json!([
        "--words",
        "a b",
        "c 'd'",
        "e f",
        "",
        format!("$(touch {marker})"),
        "$HOME",
        "*",
        "\""
    ]);
    let by_variable = Builder::new(Vec::new())
        .environment("HANDLER_FUNCTION", &command)
        .start();
    assert_result(&by_variable.post("args"), words.clone());
    let by_option = Builder::new(Vec::new())
        .option("--handler", &command)
        .start();
    assert_result(&by_option.post("args"), words);
    assert!(!std::path::Path::new(&marker).exists(), "a shell ran it");
}

/// A8: the first thing that a beginner tries.
#[test]
fn the_log_says_that_no_shell_reads_the_command() {
    for command in ["cat | cat", "cat $HOME/x", "A=b cat", "cat ~/x", "cat; cat"] {
        let worker = Builder::new(Vec::new())
            .environment("HANDLER_FUNCTION", command)
            .start();
        worker.log.wait_for(&["shell", "sh -c"]);
    }
    let worker = Builder::new(Vec::new()).environment("HANDLER_FUNCTION", "cat 'plain words'");
    let worker = worker.start();
    worker.log.wait_for(&["listening"]);
    assert!(
        !worker.log.text().contains("sh -c"),
        "{}",
        worker.log.text()
    );
}

#[test]
fn without_a_command_the_answer_says_how_to_give_one() {
    let worker = Builder::new(Vec::new()).start();
    let response = worker.post("x");
    assert_error(&response, 500, "handler_not_loaded", "no");
    assert!(
        response.detail().contains("HANDLER_FUNCTION"),
        "{}",
        response.detail()
    );
    assert_eq!(worker.get("/health").status, 200);
    assert_eq!(worker.get("/ready").status, 503);
}

#[test]
fn a_python_path_is_answered_with_how_to_run_it() {
    let worker = Builder::new(Vec::new())
        .environment("HANDLER_FUNCTION", "function.handler.handle")
        .start();
    let response = worker.post("x");
    assert_error(&response, 500, "handler_not_loaded", "no");
    let detail = response.detail();
    assert!(
        detail.contains("serve.py") && detail.contains("function.handler.handle"),
        "{detail}"
    );
}

/// D7.
#[test]
fn a_start_slower_than_the_timeout_comes_up_all_the_same() {
    let scratch = Scratch::new();
    let starts = scratch.path("starts");
    let worker = misbehave(&["--starts", &starts, "--delay", "5000"])
        .option("--processes", "1")
        .option("--timeout", "400ms")
        .start();
    let begin = Instant::now();
    let response = worker.post("too early");
    assert_error(&response, 504, "handler_timeout", "maybe");
    assert!(
        response.detail().contains("--wait-ready"),
        "{}",
        response.detail()
    );
    assert_within(Duration::from_millis(4500), begin);
    within(PATIENCE, "answers", || {
        (worker.post("later").status == 200).then_some(())
    });
    let count = std::fs::read_to_string(&starts).unwrap().lines().count();
    assert_eq!(count, 1, "started again instead of being spared");
    // The late reply to the first request was delivered to no other request.
    assert_result(&worker.post("own"), "own");
}

/// D7: starts that have become slower than all before do not end in a loop of kills.
#[test]
fn starts_that_become_slower_come_up_in_the_end() {
    let scratch = Scratch::new();
    let begun = scratch.path("begun");
    let script = "[ ! -e \"$1\" ] || sleep 1; : > \"$1\"
        while read -r line; do case $line in *end*) exit 1;; esac; echo '{\"result\":1}'; done";
    let worker = sh(script, &[&begun])
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .start();
    eventually("answers", || (worker.post("x").status == 200).then_some(()));
    assert_error(&worker.post("end"), 502, "handler_exited", "maybe");
    within(Duration::from_secs(20), "answers again", || {
        (worker.post("x").status == 200).then_some(())
    });
}

/// B11: as many at a time as there are processors, two at least, for a tenth of a second each.
#[test]
fn at_most_a_few_start_at_once() {
    let at_once = std::thread::available_parallelism().unwrap().get().max(2);
    let begin = Instant::now();
    let worker = misbehave(&[])
        .option("--processes", &(2 * at_once + 1).to_string())
        .start();
    worker.wait_for_processes(2 * at_once + 1);
    // The last of them is the first of a third round.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_result(&worker.post("x"), "x");
}
