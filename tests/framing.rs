//! Framing: the end of a request, the begin of the next, and `connection: close`.

use crate::support::client::{body_of, request_bytes};
use crate::support::{Ledger, Response, Worker, assert_error, misbehave};
use std::io::Read;
use std::time::Duration;

/// A worker on all addresses, which accepts any host.
fn open_to_all(ledger: &Ledger) -> Worker {
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--host", "0.0.0.0")
        .option("--max-body", "64KiB")
        .start();
    worker.address.set_ip([127, 0, 0, 1].into());
    worker.wait_until_ready();
    worker
}

/// All answers to these bytes, and whether the worker closed the connection after them.
fn answers(worker: &Worker, bytes: &[u8], count: usize) -> (Vec<Response>, bool) {
    let mut connection = worker.connect();
    // It may close before all of it is sent.
    let _ = connection.send(bytes);
    let mut answers = Vec::new();
    while let Ok(answer) = connection.receive() {
        let is_last = answer.header("connection") == Some("close");
        answers.push(answer);
        if is_last || answers.len() == count {
            break;
        }
    }
    let has_closed = answers.len() < count && connection.is_closed_by_worker();
    (answers, has_closed)
}

fn chunked(path: &str, rest: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{rest}")
}

/// E5: bytes behind trailers are never taken for a request, however the trailers end.
#[test]
fn after_trailers_the_connection_closes() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\nx-request-id: smuggled\r\n\r\n";
    let hidden = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    for end in [
        "0\r\nX: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\n\n",
        "0\r\nX: y\r\nZ:\r\n\r\n",
        "0;e\r\nX: y\r\n\r\n",
    ] {
        for (path, status) in [("/", 200), ("/nothing", 404), ("/health", 405)] {
            let first = chunked(path, &format!("f\r\n{{\"payload\":\"a\"}}\r\n{end}"));
            let (answers, has_closed) = answers(&worker, (first + &hidden).as_bytes(), 3);
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            // A section that is malformed, or not at its end, is refused.
            assert!(
                statuses == [status] || statuses == [400],
                "{end:?}: {statuses:?}"
            );
            assert_eq!(answers[0].header("connection"), Some("close"), "{end:?}");
            assert!(has_closed, "{end:?}");
            assert_ne!(answers[0].header("x-request-id"), Some("smuggled"));
        }
    }
    assert!(ledger.payloads().iter().all(|payload| payload == "a"));
}

/// E5: without trailers the connection goes on.
#[test]
fn a_body_in_chunks_keeps_its_connection() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let whole = chunked("/", "f\r\n{\"payload\":\"a\"}\r\n0\r\n\r\n");
    let (answers, has_closed) = answers(&worker, whole.repeat(3).as_bytes(), 3);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((statuses.as_slice(), has_closed), (&[200; 3][..], false));
}

/// RFC 9112, section 9.6: an answer says `connection: close` exactly when the connection closes.
#[test]
fn an_answer_to_a_body_that_was_not_read_says_whether_it_closes() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let token = {
        let scratch = crate::support::Scratch::new();
        let path = scratch.path("tokens");
        std::fs::write(&path, "s3cret\n").unwrap();
        let worker = misbehave(&["--ready"])
            .option("--auth-token-file", &path)
            .start();
        (worker, scratch)
    };
    let some = "1000\r\n".to_owned() + &"x".repeat(100);
    let long = "x".repeat(100);
    let with_length = |method: &str, path: &str, more: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: 50000\r\n\r\n{long}"
        )
    };
    let foreign = "Origin: http://evil.test\r\n";
    for (worker, bytes, status) in [
        (&worker, chunked("/nothing", &some), 404),
        (&worker, chunked("/health", &some), 405),
        (&worker, with_length("POST", "/nothing", ""), 404),
        (&worker, with_length("GET", "/health", ""), 200),
        (&worker, with_length("GET", "/docs", ""), 200),
        (&worker, with_length("POST", "/", foreign), 403),
        (
            &worker,
            with_length("POST", "/", "Content-Encoding: br\r\n"),
            415,
        ),
        (
            &worker,
            with_length("POST", "/", "x-faas-timeout-ms: soon\r\n"),
            400,
        ),
        (&token.0, with_length("POST", "/", ""), 401),
        (&token.0, chunked("/", &some), 401),
        (&worker, chunked("/", "zz\r\n"), 400),
        (&worker, chunked("/", "1\r\nxx\r\n"), 400),
    ] {
        let (answers, has_closed) = answers(worker, bytes.as_bytes(), 2);
        assert_eq!(answers[0].status, status, "{bytes:.100}");
        assert_eq!(
            (answers.len(), answers[0].header("connection"), has_closed),
            (1, Some("close"), true),
            "{bytes:.100}"
        );
    }
    // A request that was read whole costs no connection.
    let next = String::from_utf8(request_bytes(worker.address, "GET", "/health", &[], None));
    let next = next.unwrap();
    let short = "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nxxxxx";
    for first in [
        short.to_owned(),
        chunked("/nothing", "5\r\nxxxxx\r\n0\r\n\r\n"),
        chunked("/nothing", "5\r\nxxxxx\r\n3\r\nyyy\r\n0\r\n\r\n"),
    ] {
        let (answers, _) = answers(&worker, (first.clone() + &next).as_bytes(), 2);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [404, 200], "{first}");
        assert_eq!(answers[0].header("connection"), None, "{first}");
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
}

/// A client that waits for `100 Continue` gets the refusal instead.
#[test]
fn a_refused_client_is_not_asked_for_its_body() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let mut connection = worker.connect();
    let headers = [("expect", "100-continue"), ("content-length", "15")];
    let head = request_bytes(worker.address, "POST", "/nothing", &headers, None);
    connection.send(&head).unwrap();
    let mut start = [0; 12];
    connection.stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 404");
}

/// RFC 9112, section 3.2: a malformed Host is 400, wherever the worker listens.
#[test]
fn a_malformed_host_is_refused_on_every_address() {
    let ledger = Ledger::new();
    let everywhere = open_to_all(&ledger);
    let loopback = ledger.misbehave(&["--ready"]).start();
    for host in [
        "a, b",
        "a,b",
        "local host",
        "u@h",
        "h/x",
        "h?x",
        "h#x",
        "h:abc",
        "h:99999",
        "h:1:2",
        "[::1",
        "[x]",
        "::1",
        "%zz",
        "<script>",
        "h\\x",
        "\"h\"",
        "{h}",
        "h|x",
        "h^x",
    ] {
        for worker in [&everywhere, &loopback] {
            for (method, path) in [("POST", "/"), ("GET", "/health"), ("GET", "/nothing")] {
                let headers = [("Host", host)];
                let body = (method == "POST").then(|| body_of("x"));
                let response = worker
                    .connect()
                    .request(method, path, &headers, body.as_deref())
                    .unwrap();
                assert_error(&response, 400, "invalid_request", "no");
                assert_eq!(response.header("connection"), Some("close"));
                assert!(response.detail().contains("Host"), "{}", response.detail());
            }
        }
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
    // An empty one is allowed by RFC 9110, section 7.2; it is no name of ours.
    for (worker, status) in [(&everywhere, 200), (&loopback, 403)] {
        let headers = [("Host", "")];
        let mut connection = worker.connect();
        let response = connection.request("POST", "/", &headers, Some(&body_of("x")));
        assert_eq!(response.unwrap().status, status);
    }
}

/// A body with a content coding is refused, not read as plain bytes.
#[test]
fn a_coded_body_is_refused_with_the_name_of_its_coding() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let call = |coding: &str| {
        let headers = [("content-encoding", coding)];
        let mut connection = worker.connect();
        connection
            .request("POST", "/", &headers, Some(&body_of("x")))
            .unwrap()
    };
    for (coding, named) in [
        ("gzip", "\"gzip\""),
        ("identity, br", "\"br\""),
        ("x\"y", "\"x\\\"y\""),
    ] {
        let response = call(coding);
        assert_error(&response, 415, "invalid_request", "no");
        assert!(response.detail().contains(named), "{}", response.detail());
    }
    for none in ["identity", "Identity", "", "identity, identity"] {
        assert_eq!(call(none).status, 200, "{none}");
    }
}

#[test]
fn a_client_of_http_2_is_told_the_version() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    let mut connection = worker.connect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    connection.send(preface).unwrap();
    let response = connection.receive().unwrap();
    assert_eq!(response.status, 505);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(connection.is_closed_by_worker());
}

/// E4: the largest head is 16 KiB.
#[test]
fn a_head_has_sixteen_kibibytes() {
    let ledger = Ledger::new();
    let worker = open_to_all(&ledger);
    for (length, status) in [(15 * 1024, 200), (16 * 1024, 431), (63 * 1024, 431)] {
        let long = "a".repeat(length);
        let headers = [("x-long", long.as_str())];
        let mut connection = worker.connect();
        connection
            .stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let _ = connection.send(&request_bytes(
            worker.address,
            "GET",
            "/health",
            &headers,
            None,
        ));
        assert_eq!(connection.receive().unwrap().status, status, "{length}");
    }
}
