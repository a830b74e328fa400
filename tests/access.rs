//! Access: tokens for callers, and a separate address for operators.

use crate::support::client::{Connection, body_of, request_bytes};
use crate::support::{
    Builder, Ledger, Response, Scratch, Worker, assert_error, assert_result, eventually, misbehave,
};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::Duration;

fn with_tokens(scratch: &Scratch, tokens: &str, ledger: &Ledger) -> Builder {
    let path = scratch.file("tokens", 0o600, tokens);
    ledger
        .misbehave(&["--ready"])
        .option("--auth-token-file", &path)
        .option("--log-level", "debug")
}

fn post_as(worker: &Worker, authorization: &[&str], payload: &str) -> Response {
    let headers: Vec<(&str, &str)> = authorization
        .iter()
        .map(|value| ("authorization", *value))
        .collect();
    let body = body_of(payload);
    worker
        .connect()
        .request("POST", "/", &headers, Some(&body))
        .unwrap()
}

/// A client with a wrong token keeps its connection, and the requests it sent behind the first.
#[test]
fn a_connection_outlives_a_request_that_was_refused_by_its_head() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let worker = with_tokens(&scratch, "s3cret", &ledger).start();
    worker.wait_until_ready();
    let host = worker.address;
    let piece = body_of("stolen");
    let piece = String::from_utf8(piece).unwrap();
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{piece}\r\n0\r\n\r\n",
        piece.len()
    );
    let large = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 12000\r\n\r\n{}",
        "x".repeat(12000)
    );
    let own = request_bytes(
        host,
        "POST",
        "/",
        &[("authorization", "Bearer s3cret")],
        Some(&body_of("own")),
    );
    for refused in [chunked, large] {
        let mut connection = worker.connect();
        connection
            .send(&[refused.as_bytes(), &own].concat())
            .unwrap();
        assert_error(&connection.receive().unwrap(), 401, "unauthorized", "no");
        assert_result(&connection.receive().unwrap(), "own");
    }
    assert_eq!(ledger.payloads(), ["own", "own"]);
}

#[test]
fn without_the_token_nothing_is_run() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let worker = with_tokens(&scratch, "first-s3cret\nsecond-s3cret\n", &ledger).start();
    worker.wait_until_ready();
    for wrong in [
        &[][..],
        &["Bearer wrong"],
        &["Bearer first-s3cre"],
        &["Bearer first-s3crett"],
        &["first-s3cret"],
        &["Basic first-s3cret"],
        &["Bearer first-s3cret second-s3cret"],
        &["Bearer first-s3cret", "Bearer first-s3cret"],
    ] {
        let response = post_as(&worker, wrong, "stolen");
        assert_error(&response, 401, "unauthorized", "no");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }
    // Said before the body is asked for.
    let headers = [("content-length", "1000"), ("expect", "100-continue")];
    let head = request_bytes(worker.address, "POST", "/", &headers, None);
    let mut connection = worker.connect();
    connection.send(&head).unwrap();
    assert_error(&connection.receive().unwrap(), 401, "unauthorized", "no");
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());

    for right in ["Bearer first-s3cret", "bearer  second-s3cret"] {
        assert_result(&post_as(&worker, &[right], "own"), "own");
    }
    // Nothing else asks for it.
    assert_eq!(worker.get("/health").status, 200);
    assert_eq!(worker.get("/ready").status, 200);
    let log = worker.log.text();
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn tokens_are_read_again_when_the_worker_is_told_to_reload() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let worker = with_tokens(&scratch, "old-s3cret", &ledger).start();
    let status = |token: &str| post_as(&worker, &[&format!("Bearer {token}")], "x").status;
    assert_eq!(status("old-s3cret"), 200);
    scratch.file("tokens", 0o600, "old-s3cret\nnew-s3cret");
    assert_eq!(status("new-s3cret"), 401, "not yet");
    worker.signal(Signal::HUP);
    eventually("the new one is accepted", || {
        (status("new-s3cret") == 200).then_some(())
    });
    assert_eq!(status("old-s3cret"), 200, "both are");
    scratch.file("tokens", 0o600, "new-s3cret\n");
    worker.signal(Signal::HUP);
    eventually("the old one is refused", || {
        (status("old-s3cret") == 401).then_some(())
    });
    // A bad file changes nothing.
    for bad in ["", "two words-s3cret"] {
        let before = worker.log.lines().len();
        scratch.file("tokens", 0o600, bad);
        worker.signal(Signal::HUP);
        eventually("the log says so", || {
            let lines = worker.log.lines();
            let said = |line: &String| line.contains("the old ones stay");
            lines[before..].iter().any(said).then_some(())
        });
        assert_eq!(status("new-s3cret"), 200);
        assert_eq!(status("old-s3cret"), 401);
    }
    let log = worker.log.text();
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_bad_token_file_is_named_and_nothing_is_started() {
    let scratch = Scratch::new();
    for (path, why) in [
        (scratch.path("missing"), "No such file"),
        (scratch.path(""), "not a regular file"),
        (scratch.file("empty", 0o600, "\n \n"), "it holds no token"),
        (
            scratch.file("words", 0o600, "good\nn0t good"),
            "line 2 is no token",
        ),
        (scratch.file("large", 0o600, "x\n".repeat(40_000)), "larger"),
    ] {
        for builder in [
            misbehave(&["--ready"]).option("--auth-token-file", &path),
            misbehave(&["--ready"]).environment("FAAS_AUTH_TOKEN_FILE", &path),
        ] {
            let output = builder.option("--port", "0").output();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            for part in ["--auth-token-file", "FAAS_AUTH_TOKEN_FILE", &path, why] {
                assert!(said.contains(part), "no {part} in: {said}");
            }
            assert!(!said.contains("n0t"), "{said}");
            assert!(
                said.starts_with("--auth-token-file"),
                "as any other setting: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

/// An empty variable counts as not set, except this one: a worker would be open to all callers
/// where a deployment meant to name a file.
#[test]
fn an_empty_variable_for_the_token_file_does_not_leave_the_worker_open() {
    let output = misbehave(&["--ready"])
        .environment("FAAS_AUTH_TOKEN_FILE", "")
        .option("--port", "0")
        .output();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [
        "--auth-token-file (FAAS_AUTH_TOKEN_FILE): ",
        "unset",
        "name",
    ] {
        assert!(said.contains(part), "no {part} in: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    let scratch = Scratch::new();
    let typed = misbehave(&["--ready"])
        .environment("FAAS_AUTH_TOKEN_FILE", "")
        .option(
            "--auth-token-file",
            &scratch.file("tokens", 0o600, "0123456789abcdef\n"),
        )
        .start();
    assert_eq!(typed.post("x").status, 401);
}

#[test]
fn a_file_of_tokens_that_others_may_read_or_that_holds_short_ones_is_told() {
    let scratch = Scratch::new();
    let start = |name: &str, mode: u32, tokens: &str| {
        let path = scratch.file(name, mode, tokens);
        misbehave(&["--ready"])
            .option("--auth-token-file", &path)
            .start()
    };
    let good = start("good", 0o600, "0123456789abcdef\n");
    let log = good.log.text();
    assert!(!log.contains("WARN"), "{log}");
    let open = start("open", 0o640, "0123456789abcdef\n");
    open.log.wait_for(&["open to others", "\"mode\":\"0640\""]);
    let half = start("half", 0o600, "0123456789abcdef\nfedcba98");
    let said = half.log.wait_for(&["fewer than 16", "\"short\":1"]);
    assert!(!said.contains("fedcba98"), "{said}");
}

fn get(address: SocketAddr, path: &str) -> Response {
    let mut connection = Connection::open(address).unwrap();
    connection.request("GET", path, &[], None).unwrap()
}

#[test]
fn what_is_for_operators_is_served_at_their_address_only() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--admin", "127.0.0.1:0")
        .start();
    let admin = worker.admin_address();
    for path in ["/ready", "/_/ready"] {
        eventually("is ready", || {
            (get(admin, path).status == 200).then_some(())
        });
        assert_error(&worker.get(path), 404, "not_found", "no");
    }
    assert_error(&worker.get("/metrics"), 404, "not_found", "no");
    for path in ["/health", "/_/health"] {
        assert_eq!(get(admin, path).status, 200);
        assert_eq!(worker.get(path).status, 200);
    }
    let mut connection = Connection::open(admin).unwrap();
    assert_error(&connection.post("stolen").unwrap(), 404, "not_found", "no");
    assert_result(&worker.post("own"), "own");
    assert_eq!(ledger.payloads(), ["own"]);
}

/// 14: during a drain, `/ready` on the address for operators still answers, with the reason.
#[test]
fn the_operators_address_answers_until_all_else_has_ended() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        .option("--admin", "127.0.0.1:0")
        .start();
    let admin = worker.admin_address();
    let ready = || get(admin, "/ready");
    eventually("is ready", || (ready().status == 200).then_some(()));
    let running = worker.post_aside("sleep 3000");
    ledger.wait_for_start("sleep 3000");
    worker.signal(Signal::TERM);
    eventually("the main door has closed", || {
        std::net::TcpStream::connect(worker.address)
            .is_err()
            .then_some(())
    });
    assert_error(&ready(), 503, "draining", "no");
    assert_eq!(running.join().unwrap().status, 200);
    assert!(worker.wait_for_end(Duration::from_secs(10)).success());
}

#[test]
fn an_operators_address_in_use_is_named_and_nothing_is_started() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let worker = misbehave(&["--ready"])
        .option("--port", "0")
        .option("--admin", &address);
    let output = worker.output();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    assert!(!said.contains("process started"), "{said}");
}
