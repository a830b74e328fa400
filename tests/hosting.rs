//! Platforms that run containers or programs of functions, by the rules that they publish:
//! OpenFaaS, Knative and Cloud Run, Azure Functions.

use crate::support::{
    Builder, PATIENCE, Scratch, assert_error, assert_result, assert_within, misbehave,
    rust_example, sh,
};
use rustix::process::Signal;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// A function of OpenFaaS: no setting but its variables, beside a port and a lock file of this
/// test.
fn openfaas(scratch: &Scratch) -> Builder {
    let worker = Builder::new(Vec::new()).bare();
    worker
        .environment("OPENFAAS_NAME", "f")
        .environment("OPENFAAS_NAMESPACE", "openfaas-fn")
        .environment(
            "fprocess",
            &format!("{} --ready", rust_example("misbehave")),
        )
        .environment("FAAS_PROCESSES", "1")
        .environment("FAAS_LOCK_FILE", &scratch.path(".lock"))
}

#[test]
fn openfaas_finds_the_function_outside_its_container() {
    let scratch = Scratch::new();
    let worker = openfaas(&scratch).start();
    assert!(worker.address.ip().is_unspecified(), "{}", worker.address);
    assert_result(&worker.post("x"), "x");
    for path in ["/_/health", "/_/ready"] {
        assert_eq!(worker.get(path).status, 200, "{path}");
    }
}

/// Each probe has one second.
#[test]
fn openfaas_has_its_probes_answered_under_full_load() {
    let scratch = Scratch::new();
    let worker = openfaas(&scratch).start();
    worker.wait_until_ready();
    let mut busy = worker.connect();
    busy.send_payload("hang").unwrap();
    worker.wait_until_read();
    for path in ["/_/health", "/_/ready"] {
        let begun = Instant::now();
        assert_eq!(worker.get(path).status, 200, "{path}");
        assert_within(Duration::from_secs(1), begun);
    }
}

#[test]
fn the_lock_file_is_there_until_the_worker_is_to_end() {
    let scratch = Scratch::new();
    let lock = scratch.path(".lock");
    let mut worker = openfaas(&scratch).start();
    assert_result(&worker.post("x"), "x");
    assert!(Path::new(&lock).exists());
    let late = worker.post_aside("sleep 1500");
    worker.wait_until_read();
    worker.signal(Signal::TERM);
    crate::support::eventually("the lock file is gone", || {
        (!Path::new(&lock).exists()).then_some(())
    });
    assert!(!worker.has_ended(), "the request goes on");
    assert_result(&late.join().unwrap(), "sleep 1500");
    assert!(worker.wait_for_end(PATIENCE).success());
}

#[test]
fn a_lock_file_that_cannot_be_written_is_told_and_no_more() {
    let scratch = Scratch::new();
    let worker = openfaas(&scratch).environment("FAAS_LOCK_FILE", "/no/such/folder/.lock");
    let worker = worker.start();
    assert_result(&worker.post("x"), "x");
    worker
        .log
        .wait_for(&["lock file not written", "/no/such/folder/.lock"]);
    let worker = openfaas(&scratch).environment("FAAS_LOCK_FILE", &scratch.pipe("lock"));
    let worker = worker.start();
    assert_result(&worker.post("x"), "x");
    worker.log.wait_for(&["lock file not written", "a pipe"]);
}

#[test]
fn the_call_id_of_openfaas_is_the_request_id() {
    let worker = misbehave(&["--ready"]).start();
    let body = br#"{"payload":"x"}"#;
    for (headers, id) in [
        (&[("x-call-id", "c-1")][..], Some("c-1")),
        (
            &[("x-call-id", "c-1"), ("x-request-id", "r-1")],
            Some("r-1"),
        ),
        (&[("x-call-id", "c 1")], None),
    ] {
        let answer = worker
            .connect()
            .request("POST", "/", headers, Some(body))
            .unwrap();
        let told = answer.header("x-request-id").unwrap();
        match id {
            Some(id) => assert_eq!(told, id),
            None => assert_ne!(told, "c 1"),
        }
    }
}

#[test]
fn openfaas_limits_the_time_of_a_call() {
    let scratch = Scratch::new();
    let worker = openfaas(&scratch).environment("exec_timeout", "2s").start();
    assert_result(&worker.post("x"), "x");
    assert_error(&worker.post("hang"), 504, "handler_timeout", "maybe");
    let answer = |time: &str| {
        let headers = [("x-timeout", time)];
        let body = br#"{"payload":"sleep 700"}"#;
        worker
            .connect()
            .request("POST", "/", &headers, Some(body))
            .unwrap()
    };
    assert_error(&answer("300ms"), 504, "handler_timeout", "maybe");
    // The process is still at it.
    crate::support::eventually("it is free again", || {
        (worker.post("x").status == 200).then_some(())
    });
    for time in ["10s", "soon", "0"] {
        assert_result(&answer(time), "sleep 700");
    }
}

#[test]
fn elsewhere_the_header_of_openfaas_has_no_meaning() {
    let worker = misbehave(&["--ready"]).start();
    let body = br#"{"payload":"sleep 100"}"#;
    let headers = [("x-timeout", "20ms")];
    let answer = worker
        .connect()
        .request("POST", "/", &headers, Some(body))
        .unwrap();
    assert_result(&answer, "sleep 100");
}

/// The probe of Knative and Cloud Run is a connection, by default: it passes before a process is
/// up, and the first request comes at once.
#[test]
fn a_request_right_after_the_start_waits_for_the_function() {
    let scratch = Scratch::new();
    let (gate, program) = (scratch.path("gate"), rust_example("misbehave"));
    let script = "while [ ! -e \"$1\" ]; do sleep 0.05; done; exec \"$2\" --ready";
    let worker = sh(script, &[&gate, &program]);
    let worker = worker
        .environment("K_SERVICE", "f")
        .environment("K_REVISION", "f-00001");
    let worker = worker.start();
    assert_eq!(worker.get("/ready").status, 503);
    let first = worker.post_aside("cold");
    worker.wait_until_read();
    scratch.file("gate", 0o644, "");
    assert_result(&first.join().unwrap(), "cold");
    assert_eq!(worker.get("/ready").status, 200);
}

/// Cloud Run sends SIGKILL 10 s after SIGTERM.
#[test]
fn with_the_times_for_cloud_run_the_worker_ends_in_ten_seconds() {
    let worker = misbehave(&["--ready"]).bare();
    let worker = worker
        .environment("FAAS_DRAIN_TIMEOUT", "7s")
        .environment("FAAS_GRACE", "2s");
    let mut worker = worker.start();
    worker.wait_until_ready();
    let late = worker.post_aside("sleep 3000");
    let mut stuck = worker.connect();
    stuck.send_payload("hang").unwrap();
    worker.wait_until_read();
    let begun = Instant::now();
    worker.signal(Signal::TERM);
    assert_result(&late.join().unwrap(), "sleep 3000");
    worker.wait_for_end(PATIENCE);
    assert_within(Duration::from_secs(10), begun);
}

/// A custom handler with `enableForwardingHttpRequest`: the host waits for any answer on its port,
/// and forwards requests as they came.
#[test]
fn azure_functions_forwards_requests_to_its_port() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let worker = misbehave(&["--ready"])
        .environment("FUNCTIONS_CUSTOMHANDLER_PORT", &port.to_string())
        .option("--function-path", "/api/*");
    let worker = worker.start_on_its_port();
    assert_eq!(worker.address.port(), port);
    assert_eq!(worker.get("/").status, 405);
    let body = br#"{"payload":"x"}"#;
    let headers = [
        ("content-type", "application/json"),
        ("x-azure-functions-invocationid", "7a1e2c3d"),
    ];
    let post = |path: &str| {
        worker
            .connect()
            .request("POST", path, &headers, Some(body))
            .unwrap()
    };
    assert_result(&post("/api/decode"), "x");
    assert_result(&post("/"), "x");
    assert_error(&post("/other"), 404, "not_found", "no");
    let answer = worker.get("/api/decode");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[test]
fn without_a_further_path_there_is_only_the_one() {
    let worker = misbehave(&["--ready"]).start();
    let body = br#"{"payload":"x"}"#;
    for path in ["/api/decode", "/events", "/function/f"] {
        let answer = worker
            .connect()
            .request("POST", path, &[], Some(body))
            .unwrap();
        assert_error(&answer, 404, "not_found", "no");
    }
}

#[test]
fn requests_at_further_paths_are_those_of_the_function_in_log_and_figures() {
    let worker = misbehave(&["--ready"])
        .option("--function-path", "/a,/b/*")
        .flag("--access-log");
    let worker = worker.start();
    let body = br#"{"payload":"x"}"#;
    let answer = worker
        .connect()
        .request("POST", "/b/c", &[], Some(body))
        .unwrap();
    assert_result(&answer, "x");
    worker
        .log
        .wait_for(&["\"request\"", "\"path\":\"/b/c\"", "\"status\":200"]);
    let stats = worker.get("/stats").json();
    assert_eq!(stats["requests"]["total"], 1, "{stats}");
}
