//! Python functions run by `examples/python/serve.py`: values, exceptions and side effects end in
//! the answer of the former Python worker, or in an error with the cause.

use crate::support::client::{Response, body_of, request_bytes};
use crate::support::worker::python_path;
use crate::support::{
    Scratch, Worker, assert_error, assert_result, eventually, interpreter, processes,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// One process with this function, or None where there is no Python.
fn single(path: &str) -> Option<Worker> {
    let worker = python_path(path)?
        .option("--processes", "1")
        .option("--timeout", "5s")
        .start();
    worker.wait_until_ready();
    Some(worker)
}

#[track_caller]
fn assert_results(path: &str, payloads: &[(&str, Value)]) {
    let Some(worker) = single(path) else { return };
    for (payload, result) in payloads {
        assert_result(&worker.post(payload), result.clone());
    }
}

#[track_caller]
fn assert_refused(response: &Response, status: u16, detail: &str) {
    assert_error(response, status, "handler_error", "yes");
    assert_eq!(response.detail(), detail);
}

#[test]
fn a_function_with_a_second_parameter_gets_the_context() {
    let Some(builder) = python_path("function.context.told") else {
        return;
    };
    let worker = builder
        .option("--timeout", "5s")
        .option("--pass-header", "x-tenant")
        .start();
    worker.wait_until_ready();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("x-tenant", "a"),
        ("x-request-id", "order-4711"),
        ("traceparent", trace),
    ];
    let body = body_of("p");
    let bytes = request_bytes(worker.address, "POST", "/", &headers, Some(&body));
    let mut connection = worker.connect();
    connection.send(&bytes).unwrap();
    let expected = json!({
        "payload": "p",
        "tenant": "a",
        "request_id": "order-4711",
        "traceparent": trace,
        "has_time": true,
    });
    assert_result(&connection.receive().unwrap(), expected);
    // What goes to logging can name the request, without knowing the protocol.
    worker.log.wait_for(&["WARNING order-4711 told of p"]);
}

#[test]
fn functions_that_run_at_once_each_have_their_own_context() {
    let Some(worker) = single("function.context.told_at_once") else {
        return;
    };
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let id = format!("r-{number}");
            let body = body_of(&id);
            let headers = [("x-request-id", id.as_str())];
            let bytes = request_bytes(worker.address, "POST", "/", &headers, Some(&body));
            let mut connection = worker.connect();
            connection.send(&bytes).unwrap();
            (id, connection)
        })
        .collect();
    for (id, mut connection) in calls {
        assert_result(&connection.receive().unwrap(), json!([id, id]));
        worker
            .log
            .wait_for(&[&format!("WARNING {id} told at once of {id}")]);
    }
}

#[test]
fn a_parameter_with_a_default_is_the_functions_own() {
    assert_results("function.context.own_parameter", &[("p", json!(2))]);
}

#[test]
fn a_secret_is_masked_wherever_it_is() {
    let masked = json!({
        "plain": "****",
        "list": ["****", ["****"]],
        "dataclass": {"user": "u", "password": "****"},
        "object": {"password": "****"},
        "key": {"****": 1},
        "text": "****",
        "yielded": ["****"],
    });
    assert_results("function.values.secret", &[("hunter2", masked)]);
    assert_results(
        "function.values.secret_alone",
        &[("hunter2", json!("****"))],
    );
    let Some(worker) = single("function.values.secret_in_detail") else {
        return;
    };
    assert_refused(&worker.post("hunter2"), 404, r#"{"password":"****"}"#);
}

#[test]
fn a_generator_whose_rows_need_work_loses_none() {
    let rows = json!([
        {"day": 1, "counts": {"2024-01-01": 1}, "more": [{"2024-01-01": 1}]},
        {"day": 2, "counts": {"2024-01-02": 2}, "more": [{"2024-01-02": 2}]},
    ]);
    assert_results("function.values.rows", &[("", rows)]);
}

#[test]
fn objects_of_known_packages_are_what_fastapi_makes_of_them() {
    let shapes = json!({
        "url": "http://a.b/c",
        "email": "n <e@x.com>",
        "devices": [{"id": 1, "name": "x"}],
        "vars": {"id": 1, "name": "x"},
        "old": {"long_name": "2024-01-02"},
        "model": {"mode": "json", "by_alias": true},
        "answer": [42],
        "anything": {"a": 1},
        "plain": {"b": 2},
        "key": {"1.5": 2},
    });
    let Some(worker) = single("function.values.shapes") else {
        return;
    };
    for _ in 0..2 {
        assert_result(&worker.post(""), shapes.clone());
    }
    worker.log.wait_for(&["begin with _sa are left out"]);
    assert_results("function.values.answer", &[("", json!(42))]);
}

#[test]
fn a_response_is_its_members_and_the_log_says_what_is_lost() {
    let Some(worker) = single("function.values.response") else {
        return;
    };
    let members = json!({
        "status_code": 201, "background": null, "body": "{\"a\":1}", "raw_headers": [["x-a", "b"]],
    });
    for _ in 0..2 {
        assert_result(&worker.post(""), members.clone());
    }
    worker.log.wait_for(&["JSONResponse", "status"]);
    assert_eq!(worker.log.text().matches("JSONResponse").count(), 1);
}

#[test]
fn an_async_generator_is_told_that_nothing_is_streamed() {
    let Some(worker) = single("function.values.stream") else {
        return;
    };
    worker.log.wait_for(&["cannot be streamed"]);
    let response = worker.post("");
    assert_error(&response, 500, "handler_error", "yes");
    let detail = response.detail();
    assert!(detail.contains("cannot be streamed"), "{detail}");
}

#[test]
fn what_is_raised_is_answered_whatever_it_does() {
    for function in ["raises", "raises_async"] {
        let Some(worker) = single(&format!("function.values.{function}")) else {
            return;
        };
        for (payload, status, detail) in [
            ("status", 400, "status"),
            ("detail", 400, "detail"),
            ("text", 400, "NoText"),
            ("object", 404, r#"{"code":"E1","at":[1,null]}"#),
            ("list", 422, r#"[{"when":"2024-01-02"}]"#),
            ("number", 409, "5"),
            ("yielded", 404, "no such row"),
        ] {
            assert_refused(&worker.post(payload), status, detail);
        }
        worker.log.wait_for(&["headers of an exception"]);
    }
}

#[test]
fn requests_do_not_see_what_others_have_set_in_their_context() {
    let fine = json!([null, "0.3333333333333333333333333333"]);
    let coarse = json!([null, "0.333"]);
    for function in ["context", "context_async"] {
        assert_results(
            &format!("function.values.{function}"),
            &[
                ("x", fine.clone()),
                ("coarse", coarse.clone()),
                ("x", fine.clone()),
            ],
        );
    }
}

#[test]
fn a_module_is_imported_with_the_loop_that_serves() {
    assert_results("function.loops.same", &[("a", json!("A"))]);
    assert_results("function.loops.turning", &[("", json!(true))]);
}

#[test]
fn a_function_that_is_not_async_may_use_the_loop() {
    let Some(worker) = single("function.loops.accept") else {
        return;
    };
    let scratch = Scratch::new();
    let path = scratch.path("note");
    assert_result(&worker.post(&path), "accepted");
    // No request comes that would let the loop turn.
    eventually("what was put on the loop has run", || {
        let notes = std::fs::read_to_string(&path).ok()?;
        (notes == "task\nlater\n").then_some(())
    });
    assert_results("function.loops.task", &[("a", json!("a"))]);
}

#[test]
fn a_function_that_is_not_async_may_run_loops_of_its_own() {
    let results = json!(["made", "a", "a", true]);
    assert_results(
        "function.loops.run_within",
        &[("a", results.clone()), ("a", results)],
    );
    assert_results(
        "function.loops.hidden",
        &[("a", json!("a")), ("b", json!("b"))],
    );
}

#[test]
fn cancelling_every_task_leaves_no_caller_without_an_answer() {
    let Some(worker) = single("function.loops.cancel_all") else {
        return;
    };
    let processes = worker.wait_for_processes(1);
    let waiting: Vec<_> = ["a", "all", "b"]
        .iter()
        .map(|payload| worker.post_aside(payload))
        .collect();
    for waiting in waiting {
        let response = waiting.join().unwrap();
        assert!([200, 500].contains(&response.status), "{}", response.text());
    }
    assert_result(&worker.post("c"), "c");
    assert_eq!(worker.wait_for_processes(1), processes);
}

/// A service manager may send SIGTERM to all processes of a service.
#[test]
fn sigterm_to_a_process_at_work_costs_no_request() {
    let scratch = Scratch::new();
    let Some(worker) = single("function.values.nap") else {
        return;
    };
    let path = scratch.path("at-work");
    let waiting = worker.post_aside(&path);
    let pid = eventually("the function works", || {
        std::fs::read_to_string(&path).ok()?.parse().ok()
    });
    processes::signal(pid, Signal::TERM);
    assert_result(&waiting.join().unwrap(), "rested");
    assert_result(&worker.post(&path), "rested");
    assert_eq!(worker.wait_for_processes(1), [pid]);
}

#[test]
fn a_function_that_hangs_is_ended_long_before_the_grace_is_over() {
    let Some(builder) = python_path("function.values.sleep") else {
        return;
    };
    let worker = builder
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .option("--grace", "60s")
        .start();
    worker.wait_until_ready();
    let pids = worker.wait_for_processes(1);
    assert_error(&worker.post(""), 504, "handler_timeout", "maybe");
    processes::wait_until_gone(&pids);
}

#[test]
fn sigterm_ends_a_process_whose_requests_have_ended() {
    let Some(python) = interpreter("python3") else {
        return;
    };
    let mut child = serve(&python, &["function.values.sleep"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"{\"id\":1,\"payload\":\"\"}\n").unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    drop(stdin);
    let start = Instant::now();
    processes::signal(child.id(), Signal::TERM);
    let status = child.wait().unwrap();
    assert!(!status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn files_and_pipes_serve_as_stdin_and_stdout() {
    let Some(python) = interpreter("python3") else {
        return;
    };
    let scratch = Scratch::new();
    let lines: String = (0..500)
        .map(|number| format!("{{\"id\":{number},\"payload\":\"p{number}\"}}\n"))
        .collect();
    let requests = scratch.file("requests", 0o600, &lines);
    for function in ["function.values.echo", "function.handler.async_echo"] {
        let replies = scratch.path("replies");
        let status = serve(&python, &[function])
            .stdin(File::open(&requests).unwrap())
            .stdout(File::create(&replies).unwrap())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", errors(&status));
        let replies = std::fs::read_to_string(&replies).unwrap();
        assert_eq!(replies.lines().count(), 501, "{}", errors(&status));
        assert!(replies.starts_with("{\"ready\":true"), "{replies}");
        for number in [0, 499] {
            assert!(replies.contains(&format!("\"p{number}\"")));
        }
    }
}

#[test]
fn a_wrong_start_is_one_line_that_says_what_is_right() {
    let Some(python) = interpreter("python3") else {
        return;
    };
    let output = serve(&python, &["handler.py"]).output().unwrap();
    let said = errors(&output);
    assert!(said.contains("serve.py handler.py:FUNCTION"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    let script = "import sys, runpy; sys.version_info = (3, 6, 15); runpy.run_path(sys.argv[1])";
    let path = serve_path();
    let output = Command::new(&python)
        .args(["-c", script, &path])
        .output()
        .unwrap();
    let said = errors(&output);
    assert!(said.contains("needs Python 3.8 or later"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(output.status.code(), Some(1));
}

fn serve_path() -> String {
    format!("{}/examples/python/serve.py", env!("CARGO_MANIFEST_DIR"))
}

/// `serve.py` without a worker, in the directory of the functions.
fn serve(python: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command
        .arg(serve_path())
        .args(arguments)
        .current_dir(format!(
            "{}/tests/python_functions",
            env!("CARGO_MANIFEST_DIR")
        ))
        .stdin(Stdio::null());
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
