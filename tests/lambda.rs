//! Events of AWS Lambda, from a server that keeps to the rules of its runtime API.
//!
//! AWS's own clients, in Python and in Rust, pass the tests that loop over [`clients`] as well: so
//! the server is right. `scripts/check/lambda.sh` installs them, and names them in the environment;
//! without it, the tests have the worker alone.

use crate::support::runtime_api::RuntimeApi;
use crate::support::{
    Builder, Ledger, PATIENCE, Scratch, Worker, assert_within, eventually, misbehave, processes,
    sh, within,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// The variable with the directory in which AWS's clients are.
const CLIENTS: &str = "FAAS_TEST_LAMBDA_CLIENTS";

/// A program that answers events: a payload that is a command of the misbehaving handler, `sleep`,
/// `error` or `big`, or else echoed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Client {
    Worker,
    Python,
    Rust,
}

/// A client that runs; killed with the test.
enum Running {
    Worker(Worker),
    Other(Child),
}

/// The worker, and AWS's clients where they are installed.
fn clients() -> Vec<Client> {
    match std::env::var_os(CLIENTS) {
        Some(_) => vec![Client::Python, Client::Rust, Client::Worker],
        None => vec![Client::Worker],
    }
}

/// A worker for this runtime API, with the settings that follow from it.
fn lambda(worker: Builder, api: &RuntimeApi) -> Builder {
    let worker = worker.bare().option("--grace", "500ms");
    worker.environment("AWS_LAMBDA_RUNTIME_API", &api.address.to_string())
}

impl Client {
    fn start(self, api: &RuntimeApi, environment: &[(&str, &str)]) -> Running {
        let mut command = match self {
            Client::Worker => {
                let worker = lambda(misbehave(&["--ready"]), api);
                let set =
                    |worker: Builder, (name, value): &(&str, &str)| worker.environment(name, value);
                let worker = environment.iter().fold(worker, set);
                return Running::Worker(worker.start_without_address());
            }
            Client::Python => {
                let mut command = Command::new(installed("python/bin/python3"));
                command.args(["-m", "awslambdaric", "peer.handle"]);
                command
            }
            Client::Rust => Command::new(installed("lambda-peer")),
        };
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check/lambda/peer");
        let command = command
            .current_dir(peer)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("AWS_LAMBDA_RUNTIME_API", api.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "f")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "s")
            .envs(environment.iter().copied());
        Running::Other(command.spawn().unwrap())
    }
}

fn installed(name: &str) -> String {
    format!("{}/{name}", std::env::var(CLIENTS).unwrap())
}

impl Running {
    fn pid(&self) -> u32 {
        match self {
            Running::Worker(worker) => worker.pid(),
            Running::Other(child) => child.id(),
        }
    }

    #[track_caller]
    fn wait_for_end(&mut self) -> ExitStatus {
        match self {
            Running::Worker(worker) => worker.wait_for_end(PATIENCE),
            Running::Other(child) => within(PATIENCE, "ended", || child.try_wait().unwrap()),
        }
    }

    /// The client, and all that it has started.
    fn everything(&self) -> Vec<u32> {
        let mut pids = processes::descendants(self.pid());
        pids.push(self.pid());
        pids
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Running::Other(child) = self {
            for pid in processes::descendants(child.id()) {
                processes::signal(pid, Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn events_are_answered_one_after_the_other() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[]);
        for payload in ["a", "é \u{2028} \"quoted\"", ""] {
            assert_eq!(api.call_payload(payload).result(), payload, "{client:?}");
        }
        api.wait_for_clients(1);
        assert_eq!(api.most_waiting(), 1, "{client:?}");
    }
}

#[test]
fn an_error_of_the_function_is_an_error_of_the_event_alone() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[]);
        let (kind, message) = api.call_payload("error no such device").error();
        assert_eq!(message, "no such device", "{client:?}");
        if client == Client::Worker {
            assert_eq!(kind, "Handler.Error");
        }
        assert_eq!(api.call_payload("next").result(), "next", "{client:?}");
    }
}

/// Lambda itself answers its caller at the deadline; the client has to be there for the next event.
#[test]
fn an_event_past_its_deadline_costs_no_other() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[]);
        assert_eq!(api.call_payload("first").result(), "first");
        let event = json!({"payload": "sleep 3000"}).to_string();
        let begun = Instant::now();
        let late = api.answer(&api.push_text(event, Duration::from_secs(1)));
        if client == Client::Worker {
            assert!(
                begun.elapsed() < Duration::from_millis(2900),
                "{:?}",
                begun.elapsed()
            );
            assert_eq!(late.error().0, "Function.Timeout");
        }
        assert_eq!(api.call_payload("next").result(), "next", "{client:?}");
    }
}

#[test]
fn an_event_without_a_process_is_refused_at_its_deadline() {
    let api = RuntimeApi::start();
    let environment = [("AWS_LAMBDA_MAX_CONCURRENCY", "2"), ("FAAS_PROCESSES", "1")];
    let _running = Client::Worker.start(&api, &environment);
    assert_eq!(api.call_payload("first").result(), "first");
    let long = api.push(&json!({"payload": "sleep 4000"}));
    api.wait_for_open(1);
    let event = json!({"payload": "waits"}).to_string();
    let late = api.answer(&api.push_text(event, Duration::from_secs(1)));
    assert_eq!(late.error().0, "Runtime.Overloaded");
    assert_eq!(api.answer(&long).result(), "sleep 4000");
}

#[test]
fn a_process_that_hangs_is_replaced_at_the_deadline() {
    let api = RuntimeApi::start();
    let _running = Client::Worker.start(&api, &[]);
    assert_eq!(api.call_payload("first").result(), "first");
    let event = json!({"payload": "hang"}).to_string();
    let late = api.answer(&api.push_text(event, Duration::from_secs(1)));
    assert_eq!(late.error().0, "Function.Timeout");
    assert_eq!(api.call_payload("next").result(), "next");
}

#[test]
fn a_start_that_fails_is_told_and_ends_the_client() {
    for client in clients() {
        let api = RuntimeApi::start();
        let mut running = match client {
            Client::Worker => {
                let worker = lambda(Builder::new(vec!["/no/such/handler".to_owned()]), &api);
                Running::Worker(worker.start_without_address())
            }
            Client::Python => client.start(&api, &[("LAMBDA_PEER_FAILS", "1")]),
            // It knows no failure before the first event.
            Client::Rust => continue,
        };
        let (path, answer) = api.start_error();
        assert_eq!(path, "init/error");
        let (kind, message) = answer.error();
        let header = &answer.headers["lambda-runtime-function-error-type"];
        assert_eq!(*header, kind, "{client:?}");
        let status = running.wait_for_end();
        assert!(!status.success(), "{client:?}: {status}");
        assert!(
            !api.asked().contains(&"invocation/next".to_owned()),
            "{client:?}"
        );
        if client == Client::Worker {
            assert_eq!(
                (kind.as_str(), status.code()),
                ("Runtime.HandlerNotLoaded", Some(3))
            );
            assert!(message.contains("/no/such/handler"), "{message}");
        }
    }
}

#[test]
fn events_and_results_may_have_six_mebibytes() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[]);
        let large = "x".repeat(6_000_000);
        assert_eq!(api.call_payload(&large).result(), *large, "{client:?}");
        assert_eq!(
            api.call_payload("big 6000000").result(),
            *large,
            "{client:?}"
        );
        if client == Client::Worker {
            assert_eq!(api.call_payload("big 6400000").taken, 413);
            assert_eq!(api.call_payload("next").result(), "next");
        }
    }
}

#[test]
fn several_events_are_worked_on_at_one_time() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[("AWS_LAMBDA_MAX_CONCURRENCY", "3")]);
        api.wait_for_clients(3);
        let ids: Vec<String> = (0..3)
            .map(|number| api.push(&json!({"payload": format!("sleep 150{number}")})))
            .collect();
        api.wait_for_open(3);
        for (number, id) in ids.iter().enumerate() {
            let expected = format!("sleep 150{number}");
            assert_eq!(api.answer(id).result(), expected, "{client:?}");
        }
        api.wait_for_clients(3);
        assert_eq!(api.most_waiting(), 3, "{client:?}");
    }
}

/// Lambda freezes all processes between events, for hours.
#[test]
fn a_frozen_client_goes_on_as_if_nothing_had_been() {
    for client in clients() {
        let api = RuntimeApi::start();
        let running = client.start(&api, &[]);
        assert_eq!(api.call_payload("first").result(), "first");
        api.wait_for_clients(1);
        let (before, asked) = (running.everything(), api.asked().len());
        for &pid in &before {
            processes::signal(pid, Signal::STOP);
        }
        // A freeze is time that passes without the client.
        std::thread::sleep(Duration::from_secs(2));
        let id = api.push(&json!({"payload": "thawed"}));
        for &pid in before.iter().rev() {
            processes::signal(pid, Signal::CONT);
        }
        assert_eq!(api.answer(&id).result(), "thawed", "{client:?}");
        api.wait_for_clients(1);
        // The answer and the next question, and no other.
        assert_eq!(
            api.asked().len(),
            asked + 2,
            "{client:?}: {:?}",
            api.asked()
        );
        assert_eq!(running.everything(), before, "{client:?}");
    }
}

#[test]
fn a_snapshot_is_made_before_the_first_event_is_asked_for() {
    for client in clients() {
        let api = RuntimeApi::start();
        let _running = client.start(&api, &[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")]);
        api.wait_for_request("restore/next");
        let id = api.push(&json!({"payload": "restored"}));
        assert_eq!(api.asked(), ["restore/next"], "{client:?}");
        api.restore();
        assert_eq!(api.answer(&id).result(), "restored", "{client:?}");
    }
}

#[test]
fn a_snapshot_that_fails_is_an_error_of_the_start() {
    let api = RuntimeApi::start();
    api.refuse(&[500]);
    let environment = [("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")];
    let mut running = Client::Worker.start(&api, &environment);
    let (path, answer) = api.start_error();
    assert_eq!(path, "init/error");
    assert!(answer.error().1.contains("500"), "{answer:?}");
    assert_eq!(running.wait_for_end().code(), Some(3));
}

#[test]
fn a_restored_worker_whose_processes_fail_tells_so() {
    let api = RuntimeApi::start();
    let scratch = Scratch::new();
    let needed = scratch.file("needed", 0o644, "");
    let worker = lambda(misbehave(&["--need", &needed, "--ready"]), &api);
    let worker = worker.environment("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start");
    let mut worker = worker.start_without_address();
    api.wait_for_request("restore/next");
    std::fs::remove_file(&needed).unwrap();
    for pid in worker.wait_for_processes(1) {
        processes::signal(pid, Signal::KILL);
    }
    worker.log.wait_for(&["process ended", "KILL"]);
    api.restore();
    let (path, answer) = api.start_error();
    assert_eq!(path, "restore/error");
    let (kind, message) = answer.error();
    assert_eq!(kind, "Runtime.HandlerNotLoaded");
    assert!(message.contains("after the restore"), "{message}");
    let header = &answer.headers["lambda-runtime-function-error-type"];
    assert_eq!(header, "Runtime.AfterRestoreError");
    assert_eq!(worker.wait_for_end(PATIENCE).code(), Some(3));
}

#[test]
fn what_the_runtime_api_refuses_ends_nothing() {
    let api = RuntimeApi::start();
    api.refuse(&[500, 403, 404]);
    let running = Client::Worker.start(&api, &[]);
    assert_eq!(api.call_payload("a").result(), "a");
    api.wait_for_clients(1);
    // The question has come already: the answer is refused, and the event is lost.
    let id = api.push(&json!({"payload": "sleep 1000"}));
    api.wait_for_open(1);
    api.refuse(&[500]);
    let Running::Worker(worker) = &running else {
        unreachable!()
    };
    worker.log.wait_for(&["did not take the answer", &id]);
    assert_eq!(api.call_payload("b").result(), "b");
}

/// 50, 100, 200, 400 and 800 ms.
#[test]
fn questions_that_are_refused_are_asked_again_ever_more_slowly() {
    let api = RuntimeApi::start();
    api.refuse(&[500; 5]);
    let _running = Client::Worker.start(&api, &[]);
    api.wait_for_request("invocation/next");
    let begun = Instant::now();
    api.wait_for_clients(1);
    assert!(begun.elapsed() > Duration::from_secs(1), "{begun:?}");
    assert_eq!(api.asked().len(), 6, "{:?}", api.asked());
}

#[test]
fn connections_that_the_runtime_api_closes_are_replaced() {
    let api = RuntimeApi::start();
    api.close_connections();
    let _running = Client::Worker.start(&api, &[]);
    for payload in ["a", "b", "c"] {
        assert_eq!(api.call_payload(payload).result(), payload);
    }
}

#[test]
fn events_that_have_come_are_answered_before_the_worker_ends() {
    let (api, ledger) = (RuntimeApi::start(), Ledger::new());
    let worker = lambda(ledger.misbehave(&["--ready"]), &api);
    let mut worker = worker
        .environment("AWS_LAMBDA_MAX_CONCURRENCY", "2")
        .start_without_address();
    // The first is answered while the second still runs, and there is time for a further question.
    let ids = ["sleep 1000", "sleep 2500"].map(|payload| api.push(&json!({"payload": payload})));
    // The worker has read both events then.
    ledger.wait_for_entries(2);
    let asked = api.asked().len();
    worker.signal(Signal::TERM);
    assert_eq!(api.answer(&ids[0]).result(), "sleep 1000");
    assert_eq!(api.answer(&ids[1]).result(), "sleep 2500");
    assert!(worker.wait_for_end(PATIENCE).success());
    assert_eq!(
        api.asked().len(),
        asked + 2,
        "no further question: {:?}",
        api.asked()
    );
}

#[test]
fn a_worker_that_waits_for_an_event_ends_at_once() {
    let api = RuntimeApi::start();
    let mut worker = lambda(misbehave(&["--ready"]), &api).start_without_address();
    api.wait_for_clients(1);
    let begun = Instant::now();
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(PATIENCE).success());
    assert_within(Duration::from_secs(3), begun);
}

#[test]
fn a_worker_whose_processes_are_still_starting_ends_at_once() {
    let api = RuntimeApi::start();
    let worker = lambda(sh("exec sleep 1000", &[]), &api).flag("--wait-ready");
    let mut worker = worker
        .option("--startup-timeout", "300s")
        .start_without_address();
    eventually("a process starts", || {
        (!processes::living_children(worker.pid()).is_empty()).then_some(())
    });
    let begun = Instant::now();
    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(PATIENCE).success());
    assert_within(Duration::from_secs(3), begun);
    assert!(api.asked().is_empty(), "{:?}", api.asked());
}

#[test]
fn a_process_that_ends_fails_its_event_and_is_replaced() {
    let api = RuntimeApi::start();
    let running = Client::Worker.start(&api, &[("FAAS_ACCESS_LOG", "errors")]);
    let (kind, message) = api.call_payload("exit 3").error();
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.contains("exit"), "{message}");
    assert_eq!(
        api.call_payload("raw {\"id\":$ID}").error().0,
        "Runtime.HandlerProtocol"
    );
    assert_eq!(api.call_payload("next").result(), "next");
    let Running::Worker(worker) = &running else {
        unreachable!()
    };
    let told = [
        "\"event\"",
        "\"outcome\":\"handler_exited\"",
        "\"executed\":\"maybe\"",
    ];
    worker.log.wait_for(&told);
    assert!(
        !worker.log.text().contains("\"outcome\":\"ok\""),
        "only errors"
    );
}

#[test]
fn events_are_counted_by_their_outcomes() {
    let api = RuntimeApi::start();
    let worker = lambda(misbehave(&["--ready"]), &api).option("--admin", "127.0.0.1:0");
    let mut worker = worker.start_without_address();
    for payload in ["a", "error no", "b"] {
        api.call_payload(payload);
    }
    worker.address = worker.admin_address();
    let figures = worker.scrape();
    let of = |outcome: &str| figures[&format!("faas_requests_total{{outcome=\"{outcome}\"}}")];
    assert_eq!((of("ok"), of("handler_error")), (2.0, 1.0));
}

#[test]
fn what_is_for_operators_is_kept_from_callers_where_that_is_set() {
    for (is_set, environment) in [
        (false, vec![]),
        (true, vec![("FAAS_VERBOSE_ERRORS", "false")]),
    ] {
        let api = RuntimeApi::start();
        let _running = Client::Worker.start(&api, &environment);
        let (_, message) = api.call_payload("raw {\"id\":$ID}").error();
        assert_eq!(message.contains("--explain"), !is_set, "{message}");
    }
}

#[test]
fn events_for_which_there_is_no_memory_are_refused() {
    let api = RuntimeApi::start();
    let environment = [
        ("AWS_LAMBDA_MAX_CONCURRENCY", "2"),
        ("FAAS_MAX_BUFFERED", "1MiB"),
    ];
    let _running = Client::Worker.start(&api, &environment);
    api.wait_for_clients(2);
    // Each fits, and both together do not.
    let payload = format!("sleep 2000 #{}", "x".repeat(450_000));
    let ids = [(); 2].map(|()| api.push(&json!({"payload": payload})));
    let answers = ids.map(|id| api.answer(&id));
    let refused = answers.iter().find(|answer| answer.kind == "error");
    assert_eq!(refused.unwrap().error().0, "Runtime.Overloaded");
    assert!(answers.iter().any(|answer| answer.kind == "response"));
}

#[test]
fn an_event_without_a_payload_is_the_payload() {
    let api = RuntimeApi::start();
    let _running = Client::Worker.start(&api, &[]);
    for event in [
        json!({"Records": [{"body": "é"}]}),
        json!([1, 2.50]),
        json!("text"),
        Value::Null,
    ] {
        assert_eq!(api.call(&event).result(), event.to_string());
    }
    let id = api.push_text(b"\"\xff\"", Duration::from_secs(60));
    assert_eq!(api.answer(&id).error().0, "Runtime.InvalidRequest");
}

#[test]
fn a_handler_gets_id_time_and_headers_of_its_event() {
    let api = RuntimeApi::start();
    let ready = r#"{"ready":true,"context":["headers","timeout_ms","request_id"]}"#;
    let worker = misbehave(&["--ready-line", ready, "--function", "line"]);
    let worker = lambda(worker, &api).environment("FAAS_PASS_HEADER", "lambda-runtime-trace-id");
    let _worker = worker.start_without_address();
    let id = api.push_text(r#"{"payload":"p"}"#, Duration::from_secs(40));
    let line: Value = serde_json::from_str(api.answer(&id).result().as_str().unwrap()).unwrap();
    assert_eq!(line["request_id"], id);
    let trace = line["headers"]["lambda-runtime-trace-id"].as_str();
    assert!(
        trace.is_some_and(|trace| trace.starts_with("Root=1-")),
        "{line}"
    );
    let left = line["timeout_ms"].as_u64().unwrap();
    assert!((20_000..=40_000).contains(&left), "{line}");
}

#[test]
fn the_handler_of_the_function_is_the_command_where_none_is_given() {
    let api = RuntimeApi::start();
    let scratch = Scratch::new();
    let handler = scratch.file(
        "handler",
        0o755,
        "#!/bin/sh\nwhile IFS= read -r line; do\nid=${line#*:}\necho \"{\\\"id\\\":${id%%,*},\\\"result\\\":1}\"\ndone\n",
    );
    let worker = lambda(Builder::new(Vec::new()), &api).environment("_HANDLER", &handler);
    let _worker = worker.start_without_address();
    assert_eq!(api.call_payload("x").result(), 1);
}

/// The handler has no ready line, so nothing tells that it is up but its first reply.
#[test]
fn a_handler_without_a_ready_line_is_not_waited_for() {
    let api = RuntimeApi::start();
    let script = "while IFS= read -r line; do id=${line#*:}; echo \"{\\\"id\\\":${id%%,*},\\\"result\\\":2}\"; done";
    let begun = Instant::now();
    let _worker = lambda(sh(script, &[]), &api).start_without_address();
    api.wait_for_clients(1);
    assert_within(Duration::from_secs(8), begun);
    assert_eq!(api.call_payload("x").result(), 2);
}

#[test]
fn one_process_is_kept_for_each_event() {
    for (concurrency, count) in [("1", 1), ("3", 3)] {
        let api = RuntimeApi::start();
        let environment = [("AWS_LAMBDA_MAX_CONCURRENCY", concurrency)];
        let running = Client::Worker.start(&api, &environment);
        eventually("processes run", || {
            (processes::living_children(running.pid()).len() == count).then_some(())
        });
    }
}
