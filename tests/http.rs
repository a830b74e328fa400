//! Clients that leave, send rubbish, or come from another site.

use crate::support::client::{Connection, body_of, request_bytes};
use crate::support::{
    Chance, Ledger, Worker, assert_error, assert_result, assert_within, eventually, misbehave,
    processes,
};
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn single() -> Worker {
    let worker = misbehave(&["--ready"]).option("--processes", "1").start();
    worker.wait_until_ready();
    worker
}

/// E1: after a client has left, the next request to the same process gets its own answer.
#[test]
fn a_client_that_leaves_harms_no_other() {
    for ids in ["always", "never"] {
        let ledger = Ledger::new();
        let worker = ledger
            .misbehave(&["--ready", "--ids", ids])
            .option("--processes", "1")
            .start();
        worker.wait_until_ready();
        let pid = worker.process();
        for round in 0..12 {
            // While it sends.
            let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("half")));
            let mut sending = worker.connect();
            sending.send(&bytes[..bytes.len() - 3]).unwrap();
            sending.reset();
            // While it runs.
            let mut running = worker.connect();
            running.send_payload("sleep 60 #left").unwrap();
            ledger.wait_for_starts("sleep 60 #left", round + 1);
            // While it waits.
            let mut queued = worker.connect();
            queued.send_payload("left in the queue").unwrap();
            worker.wait_until_read();
            queued.reset();
            running.reset();
            // While it receives.
            let mut receiving = worker.connect();
            receiving.send_payload("big 3000000").unwrap();
            let mut some = [0; 1000];
            receiving.stream.read_exact(&mut some).unwrap();
            receiving.reset();
            let payload = format!("own {round}");
            assert_result(&worker.post(&payload), payload);
        }
        assert_eq!(worker.process(), pid, "hanging up costs no process");
    }
}

/// How many sockets the worker has open; `None` without a superuser's rights, because the worker
/// hides its descriptors.
fn sockets_of(pid: u32) -> Option<usize> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
    Some(sockets.count())
}

/// E2.
#[test]
fn slow_clients_are_cut_off_and_hold_no_process() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-reply", "64MiB")
        .option("--queue-timeout", "60s")
        .option("--header-timeout", "1s")
        .option("--body-timeout", "1s")
        .option("--keep-alive", "2s")
        .option("--write-timeout", "6s")
        .start();
    let before = sockets_of(worker.pid());
    worker.wait_until_ready();
    // A head that never ends.
    let mut head = worker.connect();
    head.send(b"POST / HTTP/1.1\r\nHost: local").unwrap();
    // A body that never comes.
    let mut body = worker.connect();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("x")));
    body.send(&bytes[..bytes.len() - 2]).unwrap();
    // A reader that reads nothing: more than all buffers on the way hold.
    let mut reader = worker.connect().holding_little();
    reader.send_payload("big 12000000").unwrap();
    // Idle.
    let mut idle = worker.connect();
    assert_result(&idle.post("x").unwrap(), "x");
    let start = Instant::now();
    assert_result(&worker.post("meanwhile"), "meanwhile");
    // Long before the slow reader is cut off.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    assert_error(&body.receive().unwrap(), 408, "body_timeout", "no");
    assert!(idle.is_closed_by_worker());
    // A head in time closes without a word, or with 408.
    assert!(
        head.receive()
            .map_or(true, |response| response.status == 408)
    );
    assert_within(Duration::from_secs(15), start);
    eventually("the slow reader is cut off", || {
        (sockets_of(worker.pid()) <= before).then_some(())
    });
    drop(reader);
}

/// E2: a body that does not come in time is answered with 408.
#[test]
fn a_body_that_does_not_come_is_answered_in_time() {
    let worker = misbehave(&[])
        .option("--body-timeout", "300ms")
        .option("--least-rate", "0")
        .start();
    let mut body = worker.connect();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("x")));
    body.send(&bytes[..bytes.len() - 2]).unwrap();
    assert_error(&body.receive().unwrap(), 408, "body_timeout", "no");
}

/// E4.
#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--max-body", "1KiB")
        .start();
    let mut told = worker.connect();
    let headers = [("content-length", "100000"), ("expect", "100-continue")];
    told.send(&request_bytes(worker.address, "POST", "/", &headers, None))
        .unwrap();
    assert_error(&told.receive().unwrap(), 413, "body_too_large", "no");

    let mut chunked = worker.connect();
    let headers = [("transfer-encoding", "chunked")];
    chunked
        .send(&request_bytes(worker.address, "POST", "/", &headers, None))
        .unwrap();
    for _ in 0..4 {
        let _ = chunked.send(format!("200\r\n{}\r\n", "x".repeat(512)).as_bytes());
    }
    assert_error(&chunked.receive().unwrap(), 413, "body_too_large", "no");

    let fits = "x".repeat(1024 - r#"{"payload":""}"#.len());
    assert_result(&worker.post(&fits), fits.as_str());
    assert_error(
        &worker.post(&(fits.clone() + "x")),
        413,
        "body_too_large",
        "no",
    );
    assert_eq!(ledger.payloads(), [fits]);
}

/// E4: only whole bodies are run.
#[test]
fn a_body_in_chunks_is_run_when_it_is_whole() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&["--ready"]).start();
    let headers = [("transfer-encoding", "chunked")];
    let mut connection = worker.connect();
    connection
        .send(&request_bytes(worker.address, "POST", "/", &headers, None))
        .unwrap();
    connection.send(b"5\r\n{\"pay\r\n").unwrap();
    connection
        .send(b"9\r\nload\":\"x\"\r\n1\r\n}\r\n0\r\n\r\n")
        .unwrap();
    assert_result(&connection.receive().unwrap(), "x");

    for broken in [
        &b"5\r\n{\"pay\r\nzz\r\n"[..],
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
    ] {
        let mut connection = worker.connect();
        connection
            .send(&request_bytes(worker.address, "POST", "/", &headers, None))
            .unwrap();
        connection.send(broken).unwrap();
        if let Ok(response) = connection.receive() {
            assert_eq!(response.status, 400, "{}", response.text());
        }
    }
    // A body that ends before its length.
    let mut short = worker.connect();
    let mut bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("cut")));
    bytes.truncate(bytes.len() - 1);
    short.send(&bytes).unwrap();
    short.stream.shutdown(std::net::Shutdown::Write).unwrap();
    if let Ok(response) = short.receive() {
        assert_eq!(response.status, 400, "{}", response.text());
    }
    assert_eq!(ledger.payloads(), ["x"]);
}

/// E5.
#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&["--ready"]).start();
    let good = body_of("smuggled");
    let length = good.len();
    for head in [
        format!("Host: a\r\nHost: b\r\nContent-Length: {length}"),
        format!("Host: 127.0.0.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}"),
        format!("Content-Length: {length}"),
        format!("Host: 127.0.0.1\r\nContent-Length: {length}\r\nContent-Length: 3"),
        format!("Host: 127.0.0.1\r\nContent-Length: +{length}"),
        "Host: 127.0.0.1\r\nTransfer-Encoding: gzip".to_owned(),
        format!("Host: 127.0.0.1\r\nContent-Length : {length}"),
    ] {
        let mut connection = worker.connect();
        connection
            .send(format!("POST / HTTP/1.1\r\n{head}\r\n\r\n").as_bytes())
            .unwrap();
        let _ = connection.send(&good);
        if let Ok(response) = connection.receive() {
            assert!(
                (400..500).contains(&response.status),
                "{head}: {}",
                response.status
            );
        }
    }
    let many: String = (0..2000)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    let mut flood = worker.connect();
    flood
        .send(format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n{many}\r\n").as_bytes())
        .unwrap();
    if let Ok(response) = flood.receive() {
        assert_eq!(response.status, 431);
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
    assert_result(&worker.post("next"), "next");
}

/// E6.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let worker = misbehave(&["--ready"]).start();
    let mut connection = worker.connect();
    let mut bytes = Vec::new();
    for number in 0..1000 {
        let body = body_of(&number.to_string());
        bytes.extend(request_bytes(worker.address, "POST", "/", &[], Some(&body)));
    }
    let mut writing = connection.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&bytes).unwrap());
    for number in 0..1000 {
        assert_result(&connection.receive().unwrap(), number.to_string());
    }
    writer.join().unwrap();
}

/// E7.
#[test]
fn only_the_exact_path_is_a_path() {
    let worker = misbehave(&["--ready"]).start();
    let mut connection = worker.connect();
    for path in [
        "//",
        "/health/",
        "/%68ealth",
        "/HEALTH",
        "/index.html",
        "/./",
        "/..",
        "/x/../",
    ] {
        let response = connection.request("GET", path, &[], None).unwrap();
        assert_error(&response, 404, "not_found", "no");
        assert_eq!(response.json(), json!({"detail": "Not Found"}));
    }
    for (method, path, allow) in [
        ("DELETE", "/", "POST"),
        ("OPTIONS", "/", "POST"),
        ("PUT", "/ready", "GET"),
    ] {
        let response = connection.request(method, path, &[], None).unwrap();
        assert_error(&response, 405, "method_not_allowed", "no");
        assert_eq!(response.header("allow"), Some(allow));
    }
    let absolute = format!("http://{}/health", worker.address);
    assert_eq!(
        connection
            .request("GET", &absolute, &[], None)
            .unwrap()
            .status,
        200
    );
    let connect = worker
        .connect()
        .request("CONNECT", "example.test:80", &[], None)
        .unwrap();
    assert!([404, 405].contains(&connect.status), "{}", connect.status);
}

/// E8.
#[test]
fn an_error_message_stays_in_the_body() {
    let worker = single();
    for message in [
        "a\r\nX-Evil: 1\r\n\r\n{\"detail\":\"forged\"}",
        "\"quoted\" \\ back\\\\slash",
        "\u{0}\u{1}\u{7}\u{1b}[31m\u{7f}\u{85}\u{2028}",
        "{\"detail\":1}",
        "",
        "é中😀",
    ] {
        let text = serde_json::to_string(message).unwrap();
        let response = worker.post(&format!(r#"raw {{"id":$ID,"error":{text}}}"#));
        assert_error(&response, 400, "handler_error", "yes");
        assert_eq!(response.detail(), message);
        assert_eq!(response.header("x-evil"), None);
    }
}

/// E9.
#[test]
fn odd_bodies_are_refused_and_not_run() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&["--ready"]).start();
    let mut connection = worker.connect();
    let deep = "[".repeat(1_000_000);
    let nested = format!("{{\"payload\":{deep}");
    let huge_key = format!("{{\"{}\":\"x\"}}", "k".repeat(1_000_000));
    for body in [
        "{\"payload\":\"x\"} trailing",
        "{\"payload\":\"x\"",
        "{\"payload\":\"x}",
        "{\"payload\":\"a\tb\"}",
        "{'payload':'x'}",
        "{\"payload\":NaN}",
        "{payload:\"x\"}",
        "{\"payload\":\"\\x\"}",
        "{\"payload\":\"\\u12\"}",
        "{\"payload\":\"x\",}",
        "nothing",
        &deep,
        &nested,
        &huge_key,
    ] {
        let response = connection
            .request("POST", "/", &[], Some(body.as_bytes()))
            .unwrap();
        let start = &body[..body.len().min(40)];
        assert!(
            [400, 422].contains(&response.status),
            "{start}: {}",
            response.status
        );
        assert_eq!(
            response.header("x-faas-error"),
            Some("invalid_request"),
            "{start}"
        );
        assert_eq!(response.header("x-faas-executed"), Some("no"), "{start}");
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
}

/// E10: a page of another site, open in a browser on this machine, calls nothing.
#[test]
fn a_page_of_another_site_cannot_make_a_call() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&["--ready"]).start();
    let port = worker.address.port();
    let own = format!("http://{}", worker.address);
    let near = format!("http://{}", worker.address.ip());
    let hosts = [
        format!("evil.test:{port}"),
        format!("127.0.0.1.evil.test:{port}"),
        "evil.test".to_owned(),
        format!("localhost.evil.test:{port}"),
    ];
    let call = |headers: &[(&str, &str)], payload: &str| {
        worker
            .connect()
            .request("POST", "/", headers, Some(&body_of(payload)))
            .unwrap()
    };
    for headers in [
        &[("Origin", "http://evil.test")][..],
        &[("Origin", "null")],
        &[("Origin", "https://127.0.0.1.evil.test")],
        // Another port is another origin.
        &[("Origin", &near)],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[
            ("Origin", "http://evil.test"),
            ("Content-Type", "text/plain"),
        ],
        // DNS rebinding: a page of the attacker's name, which now points to this machine.
        &[
            ("Host", &hosts[0]),
            ("Origin", &format!("http://evil.test:{port}")),
        ],
        &[("Host", &hosts[0])],
        &[("Host", &hosts[1])],
        &[("Host", &hosts[2])],
        &[("Host", &hosts[3])],
    ] {
        let response = call(headers, "stolen");
        assert_error(&response, 403, "forbidden", "no");
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());

    let localhost = format!("localhost:{port}");
    let localhost_origin = format!("http://localhost:{port}");
    let six = format!("[::1]:{port}");
    for headers in [
        &[("Origin", own.as_str())][..],
        &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
        // A page cannot forge that; behind a proxy the origin is the proxy's.
        &[
            ("Origin", "https://proxy.test"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
        &[("Host", "localhost"), ("Origin", "http://localhost:80")],
        &[("Host", &localhost)],
        &[("Host", "LocalHost")],
        &[("Host", &localhost), ("Origin", &localhost_origin)],
        &[("Host", &six)],
        &[("Host", "127.0.0.1")],
    ] {
        let response = call(headers, "own");
        assert_eq!(response.status, 200, "{headers:?}: {}", response.text());
    }
}

/// E10.
#[test]
fn hosts_and_origins_can_be_allowed() {
    let worker = misbehave(&["--ready"])
        .option("--allow-host", "worker.test")
        .option("--allow-origin", "https://app.test")
        .start();
    let status = |headers: &[(&str, &str)]| {
        worker
            .connect()
            .request("POST", "/", headers, Some(&body_of("x")))
            .unwrap()
            .status
    };
    assert_eq!(status(&[("Host", "worker.test")]), 200);
    assert_eq!(status(&[("Host", "worker.test:8000")]), 200);
    assert_eq!(status(&[("Host", "other.test")]), 403);
    assert_eq!(status(&[("Origin", "https://app.test")]), 200);
    assert_eq!(
        status(&[
            ("Origin", "https://app.test"),
            ("Sec-Fetch-Site", "cross-site")
        ]),
        200
    );
    assert_eq!(status(&[("Origin", "https://other.test")]), 403);
    assert_eq!(status(&[("Origin", "http://app.test")]), 403);
}

#[test]
fn beyond_the_connection_limit_health_still_answers() {
    let worker = misbehave(&["--ready"])
        .option("--max-connections", "8")
        .start();
    worker.wait_until_ready();
    let mut idle: Vec<_> = (0..8).map(|_| worker.connect()).collect();
    for connection in &mut idle {
        connection.wait_until_accepted();
    }
    for _ in 0..20 {
        assert_eq!(worker.get("/health").status, 200);
    }
    assert!(
        idle.iter().all(|connection| !connection.has_answer()),
        "a question of health takes nobody's place"
    );
    assert_result(&worker.post("room"), "room");
    assert!(
        idle[0].is_closed_by_worker(),
        "the longest idle one is closed"
    );
}

/// A request that comes in parts is one request all the same.
#[test]
fn requests_in_any_pieces_are_understood() {
    let worker = single();
    let mut chance = Chance::seeded(3);
    for round in 0..20 {
        let payload = format!("pieces {round} é");
        let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of(&payload)));
        let mut connection = worker.connect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = usize::try_from(1 + chance.below(40))
                .unwrap()
                .min(rest.len());
            connection.send(&rest[..count]).unwrap();
            rest = &rest[count..];
        }
        assert_result(&connection.receive().unwrap(), payload);
    }
}

/// All bodies and replies together have a bound.
#[test]
fn more_bodies_than_the_buffers_hold_are_refused() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--max-body", "1MiB")
        .option("--max-buffered", "4MiB")
        .start();
    worker.wait_until_ready();
    let before = processes::peak_memory_kib(worker.pid());
    let payload = "sleep 1000 #".to_owned() + &"x".repeat(1_000_000);
    let waiting: Vec<_> = (0..16).map(|_| worker.post_aside(&payload)).collect();
    let mut refused = 0;
    for waiting in waiting {
        let response = waiting.join().unwrap();
        if response.status == 200 {
            continue;
        }
        assert_error(&response, 429, "overloaded", "no");
        refused += 1;
    }
    assert!(refused >= 11, "{refused} of 16 refused");
    let grown = processes::peak_memory_kib(worker.pid()) - before;
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

/// A reader that takes nothing of a reply which is larger than all buffers on its way.
fn reader_of_a_large_reply(worker: &Worker) -> Connection {
    let mut reader = worker.connect().holding_little();
    reader.send_payload("big 12000000").unwrap();
    reader.stream.read_exact(&mut [0; 1000]).unwrap();
    reader
}

/// E11: a body that does not fit is refused before it is read, and the room comes back.
#[test]
fn a_body_for_which_there_is_no_room_is_refused_before_it_is_read() {
    let worker = misbehave(&["--ready"])
        .option("--max-reply", "64MiB")
        .option("--max-buffered", "4MiB")
        .start();
    let reader = reader_of_a_large_reply(&worker);
    let body = body_of(&"x".repeat(900_000));
    let length = body.len().to_string();
    let headers = [("content-length", &*length), ("expect", "100-continue")];
    let head = request_bytes(worker.address, "POST", "/", &headers, None);
    let mut refused = worker.connect();
    refused.send(&head).unwrap();
    assert_error(&refused.receive().unwrap(), 429, "overloaded", "no");
    reader.reset();
    eventually("there is room again", || {
        let response = worker.connect().request("POST", "/", &[], Some(&body));
        (response.unwrap().status == 200).then_some(())
    });
}

/// A body that was only announced takes no room, so it causes no refusal.
#[test]
fn bodies_that_are_only_announced_take_no_room() {
    let worker = misbehave(&["--ready"])
        .option("--max-body", "1MiB")
        .option("--max-buffered", "4MiB")
        .start();
    let headers = [("content-length", "1000000")];
    let head = request_bytes(worker.address, "POST", "/", &headers, None);
    let _announced: Vec<_> = (0..32)
        .map(|_| {
            let mut connection = worker.connect();
            connection.send(&head).unwrap();
            connection.send(b"{").unwrap();
            connection
        })
        .collect();
    for _ in 0..4 {
        assert_result(&worker.post("x"), "x");
        assert_result(&worker.post(&"x".repeat(900_000)), "x".repeat(900_000));
    }
}

/// An error shows little of a large body, so that it cannot make the worker hold and send more than
/// the client sent.
#[test]
fn an_error_repeats_a_kilobyte_of_a_body_at_most() {
    let worker = misbehave(&["--ready"]).start();
    for (kind, body) in [
        ("text/plain", "\u{1}".repeat(2_000_000)),
        ("application/json", format!("[{}1]", "1,".repeat(1_000_000))),
        (
            "application/json",
            format!("{{{}\"a\":1}}", "\"a\":1,".repeat(300_000)),
        ),
        (
            "application/json",
            format!("{{\"payload\":[\"{}\"]}}", "é".repeat(1_000_000)),
        ),
    ] {
        let headers = [("content-type", kind)];
        let response = worker
            .connect()
            .request("POST", "/", &headers, Some(body.as_bytes()));
        let response = response.unwrap();
        assert_error(&response, 422, "invalid_request", "no");
        assert!(response.body.len() < 8 * 1024, "{}", response.body.len());
    }
}

/// E11: unread replies count as well: no request is run that could add to them.
#[test]
fn replies_that_are_not_read_hold_up_the_queue() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--max-reply", "64MiB")
        .option("--max-buffered", "4MiB")
        .option("--queue-timeout", "300ms")
        .start();
    let reader = reader_of_a_large_reply(&worker);
    assert_error(&worker.post("x"), 429, "overloaded", "no");
    assert_eq!(ledger.count("x"), 0, "it was never run");
    reader.reset();
    eventually("there is room again", || {
        (worker.post("x").status == 200).then_some(())
    });
}

/// A hundred clients ask for four megabytes each and read nothing: the worker holds no more than
/// its budget.
#[test]
fn many_replies_that_are_not_read_stay_within_the_budget() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "2")
        .option("--max-buffered", "16MiB")
        .option("--queue-timeout", "2s")
        .start();
    worker.wait_until_ready();
    let before = processes::peak_memory_kib(worker.pid());
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let mut reader = worker.connect().holding_little();
            reader.send_payload("big 4000000").unwrap();
            reader
        })
        .collect();
    assert_eq!(worker.get("/health").status, 200);
    let response = worker.post("x");
    assert!([200, 429].contains(&response.status), "{response:?}");
    let grown = processes::peak_memory_kib(worker.pid()) - before;
    // The budget, a reply that was begun by each process, and room for copies.
    assert!(grown < 40 * 1024, "{grown} KiB more");
    drop(readers);
    eventually("there is room again", || {
        (worker.post("x").status == 200).then_some(())
    });
}

/// Headers that are passed on wait with their request, and count like its body.
#[test]
fn passed_headers_take_room_in_the_budget() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--pass-header", "x-note")
        .option("--max-buffered", "64KiB")
        .start();
    worker.wait_until_ready();
    let note = "n".repeat(10_000);
    let body = body_of("sleep 1000");
    let bytes = request_bytes(
        worker.address,
        "POST",
        "/",
        &[("x-note", &note)],
        Some(&body),
    );
    let mut connections: Vec<_> = (0..8).map(|_| worker.connect()).collect();
    for connection in &mut connections {
        connection.send(&bytes).unwrap();
    }
    let statuses = connections
        .iter_mut()
        .map(|one| one.receive().unwrap().status);
    let statuses: Vec<u16> = statuses.collect();
    // Three quarters of the budget are for four of them.
    assert_eq!(
        statuses.iter().filter(|status| **status == 429).count(),
        4,
        "{statuses:?}"
    );
}

#[test]
fn an_old_connection_is_asked_to_close_and_loses_no_request() {
    let worker = misbehave(&["--ready"])
        .option("--max-connection-age", "200ms")
        .start();
    worker.wait_until_ready();
    let start = Instant::now();
    let mut connections = 0;
    // Whatever the worker says last is an answer, and then the client opens the next connection.
    while connections < 5 {
        let mut connection = worker.connect();
        let opened = Instant::now();
        loop {
            let response = connection.post("x").unwrap();
            assert_result(&response, "x");
            if response.header("connection") == Some("close") {
                break;
            }
        }
        assert!(
            opened.elapsed() >= Duration::from_millis(150),
            "closed while young"
        );
        assert!(connection.is_closed_by_worker());
        connections += 1;
    }
    assert_within(Duration::from_secs(20), start);
}

#[test]
fn a_client_that_sends_requests_ahead_is_not_asked_to_close_for_age() {
    let worker = misbehave(&["--ready"])
        .option("--max-connection-age", "100ms")
        .start();
    worker.wait_until_ready();
    let mut connection = worker.connect();
    let batch = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("x"))).repeat(16);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(600) {
        connection.send(&batch).unwrap();
        for _ in 0..16 {
            let response = connection.receive().unwrap();
            assert_result(&response, "x");
            assert_eq!(response.header("connection"), None);
        }
    }
}
