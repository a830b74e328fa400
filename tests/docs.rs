//! The OpenAPI document and its page: every answer of the worker is held against the document.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Builder, Ledger, Response, Scratch, Worker, assert_error, eventually, misbehave, processes, sh,
};
use faas_worker::error::Code;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PAGES: [&str; 8] = [
    "/health",
    "/_/health",
    "/ready",
    "/_/ready",
    "/docs",
    "/docs/",
    "/docs/swagger-ui.css",
    "/openapi.json",
];

/// Method, path, headers and body of a request.
type Sent<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a [u8]>);

/// The document, and the answers that were held against it.
struct Document {
    json: Value,
    /// Operation, status and code of each.
    seen: BTreeSet<(String, u16, String)>,
}

impl Document {
    fn of(worker: &Worker) -> Document {
        Document {
            json: worker.get("/openapi.json").json(),
            seen: BTreeSet::new(),
        }
    }

    /// The operation that this request is, by its path in the document.
    fn operation(&self, method: &str, path: &str) -> Option<(String, &Value)> {
        let path = path.split('?').next().unwrap();
        let paths = &self.json["paths"];
        let name = match path.strip_prefix("/docs/") {
            Some(file) if !file.is_empty() => "/docs/{file}",
            _ => path,
        };
        let operation = paths.get(name)?.get(method.to_lowercase())?;
        Some((format!("{method} {name}"), operation))
    }

    /// The response that the document has for an answer.
    #[track_caller]
    fn response(&self, method: &str, path: &str, answer: &Response) -> (String, &Value) {
        let general = match (answer.status, answer.header("allow")) {
            (404, _) => Some("NotFound"),
            (405, Some("POST")) => Some("OnlyPost"),
            (405, Some("GET")) => Some("OnlyGet"),
            (405, Some("GET, HEAD")) => Some("OnlyGetOrHead"),
            _ => None,
        };
        let found = match self.operation(method, path) {
            Some((name, operation)) => {
                let responses = &operation["responses"];
                let response = responses.get(answer.status.to_string());
                let ranged = responses.get(format!("{}XX", answer.status / 100));
                response.or(ranged).map(|response| (name, response))
            }
            None => general.map(|general| {
                let response = &self.json["components"]["responses"][general];
                (general.to_owned(), response)
            }),
        };
        found.unwrap_or_else(|| panic!("not in the document: {method} {path}: {answer:?}"))
    }

    /// Holds an answer to what the document says of it.
    #[track_caller]
    fn hold(&mut self, method: &str, path: &str, answer: &Response) {
        let (operation, response) = self.response(method, path, answer);
        let told = response["headers"].as_object().unwrap();
        let what = format!("{method} {path}: {}", answer.status);
        for (name, value) in answer.headers() {
            // No matter of this API, and `content` in the document.
            if ["connection", "content-length", "content-type", "date"].contains(&name.as_str()) {
                continue;
            }
            let header = told
                .get(name)
                .unwrap_or_else(|| panic!("{what}: {name}: {value} is not in the document"));
            assert_ne!(header["description"], "", "{name} is not described");
            if let Some(values) = header["schema"]["enum"].as_array() {
                assert!(values.contains(&json!(value)), "{what}: {name}: {value}");
            }
            if header["schema"]["type"] == "integer" {
                assert!(value.parse::<u32>().is_ok(), "{what}: {name}: {value}");
            }
        }
        let code = answer.header("x-faas-error").unwrap_or("-").to_owned();
        for name in told.keys() {
            // A handler's own error has none of what the worker's own of that status has.
            let is_worker_s = ["retry-after", "www-authenticate"].contains(&name.as_str());
            let is_sometimes =
                name == "content-encoding" || (is_worker_s && code == "handler_error");
            assert!(
                is_sometimes || answer.header(name).is_some(),
                "{what}: {name} is promised"
            );
        }
        let content = response["content"].as_object();
        let kind = answer.header("content-type").unwrap_or_default();
        let is_told = match (method, content) {
            ("HEAD", None) => true,
            // The answers for all paths are written for any method.
            ("HEAD", Some(_)) => !operation.contains('/'),
            (_, None) => answer.body.is_empty(),
            (_, Some(kinds)) => kinds.contains_key(kind.split(';').next().unwrap()),
        };
        assert!(is_told, "{what}: {kind}: {content:?}");
        self.seen.insert((operation, answer.status, code));
    }

    /// Sends a request and holds its answer to the document, and to this status.
    #[track_caller]
    fn expect(&mut self, worker: &Worker, request: Sent<'_>, status: u16) -> Response {
        let (method, path, headers, body) = request;
        let mut connection = worker.connect();
        let answer = connection.request(method, path, headers, body).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        self.hold(method, path, &answer);
        answer
    }

    /// The same with a payload for the function.
    #[track_caller]
    fn expect_of_payload(&mut self, worker: &Worker, payload: &str, status: u16) -> Response {
        self.expect(worker, ("POST", "/", &[], Some(&body_of(payload))), status)
    }

    /// Operation, status and code of everything that the document has, but for the statuses that
    /// only a handler chooses.
    fn promised(&self) -> BTreeSet<(String, u16, String)> {
        let mut promised = BTreeSet::new();
        let mut add = |operation: &str, status: u16, response: &Value| {
            let codes = response["headers"]["x-faas-error"]["schema"]["enum"].as_array();
            let codes = codes.cloned().unwrap_or_else(|| vec![json!("-")]);
            for code in codes {
                let code = code.as_str().unwrap().to_owned();
                promised.insert((operation.to_owned(), status, code));
            }
        };
        for (path, item) in self.json["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    if let Ok(status) = status.parse() {
                        add(
                            &format!("{} {path}", method.to_uppercase()),
                            status,
                            response,
                        );
                    }
                }
            }
        }
        for (name, response) in self.json["components"]["responses"].as_object().unwrap() {
            add(name, if name == "NotFound" { 404 } else { 405 }, response);
        }
        promised
    }
}

fn limited() -> Builder {
    misbehave(&["--ready"])
        .option("--max-body", "2KiB")
        .option("--max-reply", "4KiB")
        .option("--body-timeout", "300ms")
        .option("--timeout", "2s")
}

/// Every answer of a worker whose handler works.
fn try_paths(document: &mut Document) {
    let worker = limited().start();
    worker.wait_until_ready();
    for path in PAGES {
        let status = if path == "/docs/" { 307 } else { 200 };
        for method in ["GET", "HEAD"] {
            document.expect(&worker, (method, path, &[], None), status);
            let two = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
            document.expect(&worker, (method, path, &two, None), 400);
        }
        document.expect(&worker, ("POST", path, &[], Some(b"{}")), 405);
        document.expect(&worker, ("OPTIONS", path, &[], None), 405);
    }
    for method in ["GET", "HEAD"] {
        document.expect(
            &worker,
            (method, "/docs/swagger-initializer.js", &[], None),
            200,
        );
        document.expect(&worker, (method, "/docs/favicon-32x32.png", &[], None), 200);
        document.expect(&worker, (method, "/docs/nope.js", &[], None), 404);
        document.expect(&worker, (method, "/nope", &[], None), 404);
        document.expect(&worker, (method, "/", &[], None), 405);
    }
    document.expect(&worker, ("DELETE", "/", &[], None), 405);
}

/// Every answer of `POST /` that comes from the request alone.
fn try_requests(document: &mut Document) {
    let worker = limited().start();
    let post =
        |headers: &'static [(&str, &str)], body: &'static [u8]| ("POST", "/", headers, Some(body));
    let good = br#"{"payload":"x"}"#;
    document.expect(&worker, post(&[], good), 200);
    document.expect(&worker, post(&[("host", "evil.example")], good), 403);
    document.expect(
        &worker,
        post(&[("origin", "https://evil.example")], good),
        403,
    );
    document.expect(&worker, post(&[("x-faas-timeout-ms", "0")], good), 400);
    document.expect(&worker, post(&[], b"\xff"), 400);
    document.expect(&worker, post(&[("content-encoding", "gzip")], good), 415);
    document.expect(&worker, post(&[], b"{}"), 422);
    document.expect(&worker, post(&[], b"{"), 422);
    document.expect_of_payload(&worker, &"x".repeat(4000), 413);
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", 0o600, "a-token-of-the-test\n");
    let guarded = limited().option("--auth-token-file", &tokens).start();
    document.expect(&guarded, post(&[], good), 401);
    let mut slow = worker.connect();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(good));
    slow.send(&bytes[..bytes.len() - 2]).unwrap();
    let answer = slow.receive().unwrap();
    assert_error(&answer, 408, "body_timeout", "no");
    document.hold("POST", "/", &answer);
}

/// Every answer of `POST /` that comes from the handler.
fn try_handlers(document: &mut Document) {
    let worker = limited().start();
    document.expect_of_payload(&worker, "error no such device", 400);
    for status in [401, 403, 404, 408, 413, 415, 422, 429, 499, 500] {
        let line = format!(r#"raw {{"id":$ID,"error":{{"message":"chosen","status":{status}}}}}"#);
        document.expect_of_payload(&worker, &line, status);
    }
    for (payload, code) in [
        ("exit 3", "handler_exited"),
        (r#"raw {"id":$ID}"#, "handler_protocol"),
        ("big 5000", "reply_too_large"),
    ] {
        let answer = document.expect_of_payload(&worker, payload, 502);
        assert_eq!(answer.header("x-faas-error"), Some(code));
    }
    document.expect_of_payload(&worker, "hang", 504);
    let none = Builder::new(Vec::new()).start();
    document.expect_of_payload(&none, "x", 500);
}

/// Every answer of a worker that is starting, failing, full or draining.
fn try_pools(document: &mut Document) {
    let starting = sh("sleep 60", &[]).start();
    for path in ["/ready", "/_/ready"] {
        for method in ["GET", "HEAD"] {
            document.expect(&starting, (method, path, &[], None), 503);
        }
    }
    let scratch = Scratch::new();
    let need = scratch.file("need", 0o644, "");
    let failing = misbehave(&["--need", &need, "--ready"]).start();
    failing.wait_until_ready();
    std::fs::remove_file(&need).unwrap();
    for pid in failing.wait_for_processes(2) {
        processes::signal(pid, Signal::KILL);
    }
    let unavailable = eventually("fails fast", || {
        let answer = failing.post("x");
        (answer.status == 503).then_some(answer)
    });
    document.hold("POST", "/", &unavailable);

    let ledger = Ledger::new();
    let full = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--drain-delay", "2s")
        .option("--drain-timeout", "500ms")
        .start();
    full.wait_until_ready();
    let (mut working, mut waiting) = (full.connect(), full.connect());
    working.send_payload("hang").unwrap();
    ledger.wait_for_start("hang");
    let impatient = [("x-faas-timeout-ms", "50")];
    let body = body_of("x");
    document.expect(&full, ("POST", "/", &impatient, Some(&body)), 429);
    waiting.send_payload("x").unwrap();
    full.signal(Signal::TERM);
    eventually("drains", || {
        (full.get("/ready").status == 503).then_some(())
    });
    for path in ["/ready", "/_/ready"] {
        for method in ["GET", "HEAD"] {
            document.expect(&full, (method, path, &[], None), 503);
        }
    }
    let refused = waiting.receive().unwrap();
    assert_error(&refused, 503, "draining", "no");
    document.hold("POST", "/", &refused);
}

#[test]
fn the_document_says_all_that_is_answered_and_nothing_else() {
    let worker = limited().start();
    let mut document = Document::of(&worker);
    drop(worker);
    try_paths(&mut document);
    try_requests(&mut document);
    try_handlers(&mut document);
    try_pools(&mut document);
    let promised = document.promised();
    // What comes with `4XX` is not promised by its number.
    let seen: BTreeSet<_> = document
        .seen
        .iter()
        .filter(|(_, status, _)| *status != 499)
        .filter(|(operation, status, _)| operation != "POST /" || *status != 404)
        .cloned()
        .collect();
    let never_seen: Vec<_> = promised.difference(&seen).collect();
    assert!(never_seen.is_empty(), "never answered: {never_seen:#?}");
    let not_told: Vec<_> = seen.difference(&promised).collect();
    assert!(not_told.is_empty(), "not in the document: {not_told:#?}");
}

#[test]
fn the_document_is_of_this_version_and_of_every_error() {
    let worker = misbehave(&[]).start();
    let document = worker.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut codes = BTreeSet::new();
    let mut without_example = Vec::new();
    for (status, response) in document["paths"]["/"]["post"]["responses"]
        .as_object()
        .unwrap()
    {
        for code in response["headers"]["x-faas-error"]["schema"]["enum"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let code = code.as_str().unwrap().to_owned();
            let examples = response["content"]["application/json"]["examples"]
                .as_object()
                .unwrap();
            let is_of_code = |example: &Value| {
                let summary = example["summary"].as_str().unwrap();
                summary.starts_with(&format!("{code}: "))
                    && example["value"].get("detail").is_some()
            };
            if !examples.values().any(is_of_code) {
                without_example.push(format!("{status} {code}"));
            }
            codes.insert(code);
        }
    }
    assert!(without_example.is_empty(), "{without_example:?}");
    let of_function = Code::ALL
        .iter()
        .filter(|code| !matches!(code, Code::NotFound | Code::MethodNotAllowed));
    let expected: BTreeSet<String> = of_function.map(|code| code.as_str().to_owned()).collect();
    assert_eq!(codes, expected);
}

#[test]
fn the_table_of_errors_in_the_readme_is_what_the_code_answers() {
    let worker = misbehave(&[]).start();
    let promised = Document::of(&worker).promised();
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Errors\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // Status, code, when, executed, retry; an empty cell before and after.
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), Code::ALL.len(), "one row for each code");
    for code in Code::ALL {
        let name = code.as_str();
        let row = rows
            .iter()
            .find(|row| row[2].trim_matches('`') == name)
            .unwrap_or_else(|| panic!("{name} is not in the README"));
        assert_eq!(row[4], code.executed().as_str(), "{name}");
        if *code == Code::HandlerError {
            // Its statuses are the handler's choice.
            continue;
        }
        let statuses: BTreeSet<u16> = row[1]
            .split(", ")
            .map(|status| status.parse().unwrap())
            .collect();
        let answered: BTreeSet<u16> = promised
            .iter()
            .filter(|(_, _, promised)| promised == name)
            .map(|(_, status, _)| *status)
            .collect();
        assert_eq!(statuses, answered, "{name}");
    }
}

#[test]
fn the_page_and_its_files_come_from_here_alone_and_are_protected() {
    let worker = misbehave(&[]).start();
    let page = worker.get("/docs");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let text = page.text();
    assert!(!text.contains("//"), "the page names another place: {text}");
    let files: Vec<&str> = text
        .split(['"', '\''])
        .filter(|part| part.starts_with("docs/"))
        .collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for (file, kept) in files
        .iter()
        .map(|file| (format!("/{file}"), "max-age=3600"))
        .chain([
            ("/docs".to_owned(), "no-cache"),
            ("/openapi.json".to_owned(), "no-cache"),
        ])
    {
        let answer = worker.get(&file);
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("cache-control"), Some(kept), "{file}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("x-request-id").is_some());
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{file}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[test]
fn the_page_is_read_under_any_name_and_its_calls_pass_where_they_are_ours() {
    let worker = misbehave(&["--ready"]).start();
    let with = |host: &str, origin: &str| {
        let headers = [
            ("host", host),
            ("origin", origin),
            ("sec-fetch-site", "same-origin"),
        ];
        let mut connection = worker.connect();
        let read = connection
            .request("GET", "/docs", &headers[..1], None)
            .unwrap();
        assert_eq!(read.status, 200, "{host}");
        connection
            .request("POST", "/", &headers, Some(&body_of("x")))
            .unwrap()
            .status
    };
    assert_eq!(with("localhost:8000", "http://localhost:8000"), 200);
    assert_eq!(with("worker.example", "http://worker.example"), 403);
}
