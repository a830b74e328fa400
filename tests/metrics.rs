//! What the worker tells of itself: `/metrics`, `/stats` and `/processes`.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Connection, Ledger, Worker, assert_error, assert_result, eventually, misbehave,
};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;

fn outcome(figures: &BTreeMap<String, f64>, name: &str) -> f64 {
    figures[&format!("faas_requests_total{{outcome=\"{name}\"}}")]
}

fn stats(worker: &Worker) -> Value {
    serde_json::from_str(&worker.get("/stats").text()).unwrap()
}

#[test]
fn each_request_is_counted_once_under_what_became_of_it() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "2")
        .option("--timeout", "500ms")
        .start();
    worker.wait_for_processes(2);
    for number in 0..20 {
        let payload = format!("echo {number}");
        assert_result(&worker.post(&payload), payload);
    }
    assert_eq!(worker.post("error no such device").status, 400);
    assert_error(&worker.post("exit 3"), 502, "handler_exited", "maybe");
    assert_error(&worker.post("hang"), 504, "handler_timeout", "maybe");
    let bad = request_bytes(worker.address, "POST", "/", &[], Some(b"{}"));
    let mut connection = worker.connect();
    connection.send(&bad).unwrap();
    assert_eq!(connection.receive().unwrap().status, 422);
    // A client that leaves while its request is worked on.
    let mut leaver = worker.connect();
    let asked = request_bytes(
        worker.address,
        "POST",
        "/",
        &[],
        Some(&body_of("sleep 200 #left")),
    );
    leaver.send(&asked).unwrap();
    ledger.wait_for_start("sleep 200 #left");
    drop(leaver);
    // Probes and other paths are no requests for the function.
    assert_eq!(worker.get("/health").status, 200);
    assert_eq!(worker.get("/nothing").status, 404);
    assert_eq!(worker.get("/").status, 405);
    let figures = eventually("the client that left is counted", || {
        let figures = worker.scrape();
        (outcome(&figures, "client_gone") == 1.0).then_some(figures)
    });
    for (name, count) in [
        ("ok", 20.0),
        ("handler_error", 1.0),
        ("handler_exited", 1.0),
        ("handler_timeout", 1.0),
        ("invalid_request", 1.0),
        ("overloaded", 0.0),
    ] {
        assert_eq!(outcome(&figures, name), count, "{name}");
    }
    let all = figures.iter();
    let all = all.filter(|(name, _)| name.starts_with("faas_requests_total"));
    assert_eq!(all.map(|(_, count)| count).sum::<f64>(), 25.0);
    assert_eq!(figures["faas_process_exits_total{reason=\"exited\"}"], 1.0);
    assert_eq!(figures["faas_process_exits_total{reason=\"timeout\"}"], 1.0);
    assert_eq!(
        figures["faas_process_starts_total{reason=\"initial\"}"],
        2.0
    );
    // One that had no reply in time was in the queue and in a process all the same.
    assert!(figures["faas_queue_duration_seconds_count"] >= 22.0);
    assert_eq!(
        figures["faas_queue_duration_seconds_count"],
        figures["faas_invoke_duration_seconds_count"]
    );
    let stats = stats(&worker);
    assert_eq!(stats["requests"]["total"], 25);
    assert_eq!(stats["requests"]["failed"], 5);
}

#[test]
fn thousands_of_requests_on_several_threads_are_counted_to_the_unit() {
    let worker = misbehave(&["--announce", "8"])
        .option("--threads", "2")
        .start();
    worker.wait_until_ready();
    let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let worker = &worker;
                scope.spawn(move || {
                    let mut connection = worker.connect();
                    let (mut right, mut wrong) = (0, 0);
                    for call in 0..500 {
                        let payload = match call % 5 {
                            0 => format!("error #{caller} {call}"),
                            _ => format!("echo {caller} {call}"),
                        };
                        match connection.post(&payload).unwrap().status {
                            200 => right += 1,
                            _ => wrong += 1,
                        }
                        // Others open and close all the while.
                        if call % 50 == 0 {
                            connection = worker.connect();
                        }
                    }
                    (right, wrong)
                })
            })
            .collect();
        callers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let figures = worker.scrape();
    let right: u64 = counts.iter().map(|(right, _)| right).sum();
    let wrong: u64 = counts.iter().map(|(_, wrong)| wrong).sum();
    assert_eq!(outcome(&figures, "ok"), right as f64);
    assert_eq!(outcome(&figures, "handler_error"), wrong as f64);
    assert_eq!(figures["faas_requests_active"], 0.0);
    assert_eq!(figures["faas_queue_length"], 0.0);
}

#[test]
fn readers_are_answered_by_address_and_get_the_format_that_they_know() {
    let worker = misbehave(&["--ready"])
        .option("--allow-host", "worker.test")
        .start();
    worker.wait_until_ready();
    for (accept, kind, ends) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", false),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        // As Prometheus and kubelet ask: by the address of the pod, which is no host of the worker.
        for path in ["/metrics", "/stats"] {
            let headers = [("host", "10.1.2.3:8000"), ("accept", accept)];
            let response = ask(worker.address, path, &headers);
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            if path == "/metrics" {
                assert_eq!(response.header("content-type"), Some(kind));
                assert_eq!(response.text().ends_with("# EOF\n"), ends);
                assert_histograms_are_whole(&response.text());
            }
        }
    }
}

/// The bounds of each histogram rise up to `+Inf`, which counts all.
fn assert_histograms_are_whole(text: &str) {
    let (mut last, mut counts, mut last_buckets) = ((0.0, 0.0), Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        if let Some((_, bound)) = series.split_once("le=\"") {
            let bound: f64 = bound.split('"').next().unwrap().parse().unwrap();
            assert!(bound > last.0 && value >= last.1, "{line}");
            last = (bound, value);
            if bound.is_infinite() {
                last_buckets.push(value);
                last = (0.0, 0.0);
            }
        } else if series.split('{').next().unwrap().ends_with("_count") {
            counts.push(value);
        }
    }
    assert_eq!(last, (0.0, 0.0), "a histogram ends with +Inf");
    assert_eq!(last_buckets, counts);
    assert!(counts.len() >= 3, "{text}");
}

fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> crate::support::Response {
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut connection = Connection::open(address).unwrap();
    connection.send(format!("{head}\r\n").as_bytes()).unwrap();
    connection.receive().unwrap()
}

#[test]
fn figures_move_to_the_address_for_operators_which_alone_has_the_processes() {
    let ledger = Ledger::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = port.local_addr().unwrap();
    drop(port);
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "2")
        .option("--admin", &admin.to_string())
        .start();
    worker.wait_for_processes(2);
    for path in ["/metrics", "/stats", "/processes"] {
        assert_eq!(worker.get(path).status, 404, "{path}");
        let host = admin.to_string();
        assert_eq!(ask(admin, path, &[("host", &host)]).status, 200, "{path}");
    }
    let waiting = {
        let mut connection = worker.connect();
        let headers = [("x-request-id", "order-4711")];
        let body = body_of("sleep 700 #seen");
        let bytes = request_bytes(worker.address, "POST", "/", &headers, Some(&body));
        connection.send(&bytes).unwrap();
        connection
    };
    ledger.wait_for_start("sleep 700 #seen");
    let processes = || -> Vec<Value> {
        let host = admin.to_string();
        let text = ask(admin, "/processes", &[("host", &host)]).text();
        let value: Value = serde_json::from_str(&text).unwrap();
        value["processes"].as_array().unwrap().clone()
    };
    let found = eventually("both processes are listed", || {
        Some(processes()).filter(|found| found.len() == 2)
    });
    let busy: Vec<&Value> = found.iter().filter(|one| one["state"] == "busy").collect();
    assert_eq!(busy.len(), 1, "{found:?}");
    assert_eq!(busy[0]["request_id"], "order-4711");
    assert!(busy[0]["working_seconds"].as_f64().is_some());
    assert!(found.iter().all(|one| one["pid"].as_u64() > Some(1)));
    // Memory is measured beside the look, and told by the next one.
    eventually("memory is told", || {
        let all = processes();
        all.iter()
            .all(|one| one["resident_bytes"].as_u64() > Some(0))
            .then_some(())
    });
    drop(waiting);
}

#[test]
fn restarts_and_reloads_leave_no_new_series() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_for_processes(2);
    let before: Vec<String> = worker.scrape().into_keys().collect();
    for _ in 0..5 {
        let _ = worker.post("exit 3");
        worker.wait_until_ready();
    }
    worker.signal(Signal::HUP);
    worker.log.wait_for(&["reload done"]);
    let figures = worker.scrape();
    let new: Vec<&String> = figures
        .keys()
        .filter(|name| !before.contains(name))
        .collect();
    // A response's status, and what the last reload came to, are told once there is one.
    assert!(
        new.iter().all(|name| {
            name.starts_with("http_server_request_duration_seconds")
                || name.starts_with("faas_reload_")
        }),
        "{new:?}"
    );
    assert_eq!(figures["faas_reload_successful"], 1.0);
    assert!(figures["faas_process_exits_total{reason=\"reload\"}"] >= 1.0);
    assert!(figures["faas_process_starts_total{reason=\"reload\"}"] >= 1.0);
    assert_eq!(figures["faas_ready"], 1.0);
}

/// What KEDA's `metrics-api` takes: bare numbers of JSON.
#[test]
fn the_figures_for_autoscalers_are_bare_numbers() {
    let worker = misbehave(&["--ready"]).start();
    let stats = eventually("both processes are up", || {
        Some(stats(&worker)).filter(|stats| stats["processes"]["up"] == 2)
    });
    for path in [
        "/demand",
        "/busy_ratio",
        "/uptime_seconds",
        "/queue/limit",
        "/queue/oldest_seconds",
        "/processes/up",
        "/processes/capacity",
        "/requests/active",
        "/requests/total",
        "/requests/failed",
        "/queue/length",
        "/processes/busy",
        "/processes/starting",
        "/processes/limit",
    ] {
        let figure = stats.pointer(path).and_then(Value::as_f64);
        assert!(
            figure.is_some_and(|figure| figure >= 0.0),
            "{path}: {stats}"
        );
    }
    // What is counted is a whole number, without a fraction that a reader of integers refuses.
    for path in [
        "/queue/length",
        "/processes/up",
        "/requests/active",
        "/requests/total",
    ] {
        assert!(
            stats.pointer(path).is_some_and(Value::is_u64),
            "{path}: {stats}"
        );
    }
    assert_eq!(stats["ready"], true);
}
