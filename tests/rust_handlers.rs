//! Handlers of the Rust library whose function prints and starts programs (`careless.rs`): the
//! pipes are the library's alone.

use crate::support::{Builder, Worker, assert_result, eventually, processes, rust_example, sh};

fn careless() -> Builder {
    Builder::new(vec![rust_example("careless")]).option("--processes", "1")
}

/// A program that a function starts, with the descriptors that any program inherits.
fn run(worker: &Worker, words: &[&str]) {
    let payload = format!("run|{}", words.join("|"));
    assert_result(&worker.post(&payload), "exit status: 0");
}

/// The log line with this text of a handler.
#[track_caller]
fn printed(worker: &Worker, text: &str) -> serde_json::Value {
    let text = serde_json::Value::from(text).to_string();
    let line = worker
        .log
        .wait_for(&["handler output", &text[1..text.len() - 1]]);
    serde_json::from_str(&line).unwrap()
}

/// Waits until the log has this JSON object, which a handler printed on its stderr.
#[track_caller]
fn wait_for_object(worker: &Worker, object: &str) {
    let members = object.strip_suffix('}').unwrap();
    let passed = format!(r#"{members},"faas":{{"process":1,"stream":"stderr""#);
    eventually(&format!("{object} is logged"), || {
        let lines = worker.log.lines();
        lines
            .iter()
            .find(|line| line.starts_with(&passed))
            .map(drop)
    });
}

#[test]
fn what_a_function_or_its_children_print_never_gets_into_the_pipe() {
    let worker = careless().start();
    let forged = r#"{"id":2,"result":"forged"}"#;
    assert_result(&worker.post(&format!("print|{forged}")), "printed");
    wait_for_object(&worker, forged);
    let ready = r#"{"ready":true,"concurrency":64}"#;
    run(&worker, &["echo", ready]);
    wait_for_object(&worker, ready);
    assert_result(&worker.post("print-half|half of it"), "printed");
    assert_result(&worker.post("echoed"), "echoed");
    assert_eq!(printed(&worker, "half of it")["stream"], "stderr");
    assert_eq!(worker.log.text().matches("process started").count(), 1);
}

#[test]
fn a_child_that_makes_its_descriptors_nonblocking_cuts_no_reply() {
    let worker = careless().start();
    let big = "x".repeat(1_000_000);
    run(&worker, &[&rust_example("careless"), "nonblocking"]);
    assert_result(&worker.post("big|1000000"), big.as_str());
    assert_result(&worker.post("echoed"), "echoed");
    assert_eq!(worker.log.text().matches("process started").count(), 1);
}

/// The flag stays with the pipe when it was set before the handler's start.
#[test]
fn pipes_that_were_made_nonblocking_by_a_wrapper_are_waited_for() {
    let program = rust_example("careless");
    let script = r#""$1" nonblocking; exec "$1""#;
    let worker = sh(script, &[&program]).option("--processes", "1").start();
    let big = "x".repeat(1_000_000);
    for _ in 0..3 {
        assert_result(&worker.post("big|1000000"), big.as_str());
        assert_result(&worker.post("echoed"), "echoed");
    }
    assert_eq!(worker.log.text().matches("process started").count(), 1);
}

#[test]
fn a_child_that_reads_stdin_takes_no_request() {
    let worker = careless().start();
    // Answers at once: there is nothing to read.
    run(&worker, &["cat"]);
    assert_result(&worker.post("read"), "0 bytes");
    run(
        &worker,
        &["sh", "-c", "exec 3<&0; (exec cat <&3 >/dev/null) & exit 0"],
    );
    for round in 0..5 {
        let payload = format!("echoed {round}");
        assert_result(&worker.post(&payload), payload);
    }
    assert_eq!(worker.log.text().matches("process started").count(), 1);
}

#[test]
fn children_of_a_function_inherit_no_descriptor_of_the_pipes() {
    let worker = careless().start();
    run(&worker, &["ls", "-l", "/proc/self/fd"]);
    let listed = printed(&worker, "0 -> /dev/null");
    let listed = listed["text"].as_str().unwrap_or_default();
    // Its stdout and stderr, which are the handler's stderr both.
    assert_eq!(listed.matches("-> pipe:").count(), 2, "{listed}");
    // A program that stays behind does not hide the handler's end from the worker.
    run(&worker, &["sh", "-c", "sleep 600 & exit 0"]);
    let process = processes::living_children(worker.pid())[0];
    processes::signal(process, rustix::process::Signal::KILL);
    worker.log.wait_for(&["process ended"]);
    worker.wait_for_starts(2);
    assert_result(&worker.post("echoed"), "echoed");
}

#[test]
fn half_a_line_printed_before_serving_is_not_glued_to_the_ready_line() {
    let handler = vec![rust_example("careless"), "half-a-line".to_owned()];
    let worker = Builder::new(handler).flag("--wait-ready").start();
    // Ready by its line, well before the age at which it would be taken for up.
    worker.wait_until_ready();
    assert_result(&worker.post("print| and its end"), "printed");
    eventually("the whole line is logged", || {
        worker
            .log
            .text()
            .contains("half a line and its end")
            .then_some(())
    });
    assert_error_free(&worker);
}

#[track_caller]
fn assert_error_free(worker: &Worker) {
    let text = worker.log.text();
    assert!(!text.contains("\"level\":\"WARN\""), "{text}");
}
