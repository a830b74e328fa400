//! The log: its events, their number, and their form.

use crate::support::client::body_of;
use crate::support::{Scratch, assert_result, eventually, misbehave, sh, without_settings};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The events with this message, each as its JSON object.
fn events(worker: &crate::support::Worker, message: &str) -> Vec<Value> {
    let lines = worker.log.lines();
    let events = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &Value| event["message"] == message)
        .collect()
}

const REFUSED: &str = "request refused, its answer has the cause";
const FAILED: &str = "request failed, its answer has the cause";

/// Waits for an event with this code, and gives it.
#[track_caller]
fn told(worker: &crate::support::Worker, message: &str, code: &str) -> Value {
    eventually(&format!("{code} is told"), || {
        let events = events(worker, message);
        events.into_iter().find(|event| event["code"] == code)
    })
}

#[test]
fn requests_that_are_refused_are_told_with_code_and_id_and_not_what_they_were() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", 0o600, "a-token-of-some-length\n");
    let worker = misbehave(&["--ready"])
        .option("--auth-token-file", &tokens)
        .option("--max-body", "1KiB")
        .option("--body-timeout", "100ms")
        .start();
    worker.wait_until_ready();
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let mut connection = worker.connect();
        connection
            .request("POST", "/?s3cret", headers, Some(body))
            .unwrap()
    };
    let known = ("authorization", "Bearer a-token-of-some-length");
    let answers = [
        (post(&[], &body_of("s3cret")), "unauthorized", 401),
        (
            post(
                &[known, ("origin", "http://s3cret.test")],
                &body_of("s3cret"),
            ),
            "forbidden",
            403,
        ),
        (
            post(&[known], &body_of(&"s3cret".repeat(1000))),
            "body_too_large",
            413,
        ),
        (post(&[known], b"{\"s3cret\":1}"), "invalid_request", 422),
        (
            post(&[known], &body_of("error s3cret")),
            "handler_error",
            400,
        ),
    ];
    for (answer, code, status) in answers {
        assert_eq!(answer.status, status, "{}", answer.text());
        let message = if code == "handler_error" {
            FAILED
        } else {
            REFUSED
        };
        let event = told(&worker, message, code);
        assert_eq!(event["request_id"], answer.header("x-request-id").unwrap());
        assert_eq!(event["level"], "INFO", "{event}");
    }
    assert!(
        !worker.log.text().contains("s3cret"),
        "{}",
        worker.log.text()
    );
}

#[test]
fn overload_is_told_once_a_second_with_how_many_were_left_out() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--read-ahead", "1")
        .option("--queue", "1")
        .start();
    worker.wait_until_ready();
    // One request is at work, one waits, the rest are refused; the test waits for no answer.
    let mut held = Vec::new();
    let second = eventually("another line tells of the others", || {
        let mut connection = worker.connect();
        connection.send_payload("sleep 8000").unwrap();
        held.push(connection);
        let events = events(&worker, REFUSED);
        let mut overloaded = events
            .into_iter()
            .filter(|event| event["code"] == "overloaded");
        overloaded.nth(1)
    });
    let first = told(&worker, REFUSED, "overloaded");
    assert_eq!(
        (&first["level"], &first["withheld"]),
        (&"WARN".into(), &0.into())
    );
    let refused = second["withheld"].as_u64().unwrap();
    assert!(refused >= 5, "{second}");
}

/// How long the log is by now, in bytes.
fn bytes_logged(worker: &crate::support::Worker) -> usize {
    worker.log.lines().iter().map(|line| line.len() + 1).sum()
}

#[test]
fn the_processes_of_a_slot_share_what_may_be_logged() {
    // Each prints 300 KiB, answers once and dies.
    let flood = r#"read -r line
        i=0; while [ $i -lt 75 ]; do printf '%s\n' "$1"; i=$((i+1)); done >&2
        printf '{"result":1}\n'"#;
    let line = "n".repeat(4096);
    let worker = sh(flood, &[&line]).option("--processes", "1").start();
    let begun = Instant::now();
    let mut served = 0;
    while served < 12 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{served} served");
        served += usize::from(worker.post("x").status == 200);
    }
    let left_out = "handler output left out, it came too fast";
    eventually("what was left out is told", || {
        (!events(&worker, left_out).is_empty()).then_some(())
    });
    // 3.5 MiB were printed. Allowed: a burst, the rate since then, and the worker's own lines.
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let most = 256 * 1024 + seconds * 64 * 1024 + 64 * 1024;
    let logged = bytes_logged(&worker);
    assert!(logged > 100 * 1024, "something is: {logged}");
    assert!(logged <= most, "{logged} bytes of {most}");
}

#[test]
fn a_ready_line_that_is_not_understood_is_not_repeated_whole() {
    let script = r#"printf '{"ready":true,"concurrency":"'; head -c 300000 /dev/zero | tr '\0' a
        printf '"}\n'; while read -r line; do printf '{"result":1}\n'; done"#;
    let worker = sh(script, &[]).option("--processes", "1").start();
    let line = worker.log.wait_for(&["ready line not understood"]);
    assert!(line.len() < 1024, "{} bytes", line.len());
    assert_result(&worker.post("x"), 1);
}

#[test]
fn the_log_on_a_terminal_has_colours_unless_they_are_refused() {
    let program = env!("CARGO_BIN_EXE_faas-worker");
    let seen = |environment: &str| {
        let line = format!(
            "{environment} timeout -s TERM 1 '{program}' --port 0 -- sh -c 'echo oh >&2; cat' </dev/null"
        );
        let output = without_settings(std::process::Command::new("script"))
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .output();
        output
            .ok()
            .map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(coloured) = seen("") else { return };
    assert!(
        coloured.contains("\u{1b}[32m INFO\u{1b}[0m listening"),
        "{coloured:?}"
    );
    for refused in ["NO_COLOR=1", "TERM=dumb", "FAAS_LOG_FORMAT=json"] {
        let plain = seen(refused).unwrap();
        assert!(plain.contains("listening"), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{refused}: {plain:?}");
    }
}

#[test]
fn the_start_says_what_runs_where_and_when_it_is_ready() {
    let worker = sh("printf '{\"ready\":true}\\n'; cat; : \"$1\"", &["a b"]).start();
    let ready = eventually("ready", || {
        events(&worker, "ready: the first process is up").pop()
    });
    assert!(ready["after_ms"].as_f64().unwrap() > 0.0, "{ready}");
    let listening = &events(&worker, "listening")[0];
    assert_eq!(listening["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(listening["processes"], 2);
    let command = listening["command"].as_str().unwrap();
    assert!(
        command.starts_with("sh -c '") && command.ends_with(" sh 'a b'"),
        "{command}"
    );
    assert!(
        listening["address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    worker.wait_until_ready();
    assert_eq!(events(&worker, "ready: the first process is up").len(), 1);
}

#[test]
fn durations_are_numbers_and_lists_are_words() {
    let worker = misbehave(&["--ready"])
        .option("--log-level", "debug")
        .start();
    worker.wait_until_ready();
    worker.get("/health");
    let answered = eventually("a request is told", || events(&worker, "answered").pop());
    assert!(answered["took_ms"].as_f64().unwrap() > 0.0, "{answered}");
    for line in worker.log.lines() {
        assert!(!line.contains("[\\\""), "a list as code: {line}");
        assert!(!line.contains("Some("), "{line}");
    }
}

#[test]
fn a_request_whose_client_left_is_told_too_and_once() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--log-level", "debug")
        .start();
    worker.wait_until_ready();
    let mut leaver = worker.connect();
    leaver.send_payload("sleep 300").unwrap();
    eventually("the process has it", || {
        (worker.get("/ready").status == 200).then_some(())
    });
    leaver.reset();
    let left = eventually("the leaver is told", || {
        events(&worker, "client gone before its answer").pop()
    });
    assert_eq!(
        (&left["method"], &left["path"]),
        (&"POST".into(), &"/".into())
    );
    assert!(left["took_ms"].as_f64().unwrap() < 300.0, "{left}");
    let id = left["request_id"].as_str().unwrap();
    let of_it = worker
        .log
        .lines()
        .into_iter()
        .filter(|line| line.contains(id));
    assert_eq!(of_it.count(), 1);
}

#[test]
fn the_log_has_the_names_of_the_collector_that_is_chosen() {
    let chosen = [
        ("json", "level", "INFO"),
        ("gcp", "severity", "INFO"),
        ("ecs", "log.level", "info"),
    ];
    for (format, level, info) in chosen {
        let worker = misbehave(&["--ready"])
            .option("--log-format", format)
            .start();
        let line = worker.log.wait_for(&["\"listening\""]);
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event[level], info, "{line}");
    }
}

/// A handler that prints this to stderr for each request, and then answers.
fn prints(text: &str) -> crate::support::Builder {
    let script = r#"while read -r line; do printf '%s' "$TEXT" >&2; printf '{"result":1}\n'; done"#;
    // Not among the words of the command, which the log has too.
    let handler = sh(script, &[]).option("--processes", "1");
    handler.environment("TEXT", text)
}

#[test]
fn a_json_object_of_a_handler_is_passed_on_in_every_format_for_collectors() {
    let object = r#"{"level":"warn","msg":"battery low","volts":3.10,"at":12345678901234567890}"#;
    for format in ["json", "gcp", "ecs"] {
        let worker = prints(&format!("{object}\n"))
            .option("--log-format", format)
            .start();
        assert_result(&worker.post("x"), 1);
        let line = worker.log.wait_for(&["battery low"]);
        let ours = line.strip_prefix(object.strip_suffix('}').unwrap());
        let ours = ours.unwrap_or_else(|| panic!("{line}"));
        assert!(
            ours.starts_with(r#","faas":{"process":1,"stream":"stderr""#),
            "{line}"
        );
    }
}

#[test]
fn a_json_object_of_a_handler_is_shown_as_text_behind_its_mark() {
    let worker =
        prints("{\"level\":\"warn\",\"msg\":\"battery \\u001b[1mlow\",\"device\":\"d 7\"}\n")
            .option("--log-format", "text")
            .start_quietly();
    assert_result(&worker.post("x"), 1);
    let line = worker.log.wait_for(&["battery"]);
    assert_eq!(
        line,
        "    | battery \\u{1b}[1mlow level=warn device=\"d 7\""
    );
}

#[test]
fn raw_output_of_a_handler_is_written_as_it_is_in_whole_lines() {
    let worker = prints("\u{1b}[1mone\n  two \n\nhalf")
        .option("--log-handler", "raw")
        .start();
    assert_result(&worker.post("x"), 1);
    worker.log.wait_for(&["  two "]);
    assert_result(&worker.post("x"), 1);
    worker.log.wait_for(&["half\u{1b}[1mone"]);
    let lines = worker.log.lines();
    let is_first = |line: &&str| *line == "\u{1b}[1mone";
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let at = lines.iter().position(is_first).unwrap();
    assert_eq!(lines[at + 1..at + 3], ["  two ", ""]);
    assert!(!lines.contains(&"half"), "{lines:?}");
}

#[test]
fn raw_output_that_nobody_reads_holds_up_no_request() {
    let scratch = Scratch::new();
    let pipe = scratch.path("log");
    // 100 KiB a request; the pipe holds 64.
    let script = r#"read -r line; head -c 102400 /dev/zero | tr '\0' '\n' >&2
        printf '{"result":1}\n'; while read -r line; do printf '{"result":2}\n'; done"#;
    let worker = sh(script, &[])
        .option("--processes", "1")
        .option("--log-handler", "raw")
        .prepared_by(&format!("mkfifo {pipe}; exec 2<>{pipe}"))
        .start_quietly();
    assert_result(&worker.post("x"), 1);
    assert_result(&worker.post("x"), 2);
    assert_eq!(worker.get("/health").status, 200);
}

/// A caller's trace: the header, its trace id, its span id.
const TRACE: [&str; 3] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00f067aa0ba902b7",
];

#[test]
fn a_failed_request_is_told_with_the_trace_of_its_caller() {
    let [traceparent, trace_id, span_id] = TRACE;
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    let refused = worker.connect().request(
        "POST",
        "/",
        &[("traceparent", traceparent)],
        Some(b"{\"payload\":1}"),
    );
    assert_eq!(refused.unwrap().status, 422);
    let event = told(&worker, REFUSED, "invalid_request");
    let found = ["trace_id", "span_id", "trace_flags"].map(|name| event[name].as_str().unwrap());
    assert_eq!(found, [trace_id, span_id, "01"]);
}

/// One `POST /` with this request id and a trace.
fn post_as(worker: &crate::support::Worker, id: &str) -> crate::support::Response {
    let headers = [("x-request-id", id), ("traceparent", TRACE[0])];
    let mut connection = worker.connect();
    let answer = connection.request("POST", "/", &headers, Some(&body_of("x")));
    answer.unwrap()
}

#[test]
fn output_of_a_handler_names_the_request_that_it_was_written_during() {
    let script = r#"
n=0
while read -r line; do
    n=$((n + 1))
    printf 'stray %s\n' $n
    printf 'text %s\n' $n >&2
    printf '{"object":%s}\n' $n >&2
    if [ $n = 20 ]; then echo 'last words' >&2; exit 1; fi
    printf '{"result":%s}\n' $n
done"#;
    let worker = sh(script, &[]).option("--processes", "1").start();
    for number in 1..20 {
        assert_result(&post_as(&worker, &format!("r-{number}")), number);
    }
    assert_eq!(post_as(&worker, "r-20").status, 502);
    let last = worker.log.wait_for(&["handler output", "last words"]);
    assert!(last.contains("\"request_id\":\"r-20\""), "{last}");
    let [_, trace_id, span_id] = TRACE;
    for number in 1..=20 {
        for text in [format!("stray {number}"), format!("text {number}")] {
            let texts = events(&worker, "handler output");
            let has_text = |event: &Value| {
                let mut lines = event["text"].as_str().unwrap().lines();
                lines.any(|line| line == text)
            };
            let event = texts.into_iter().find(has_text).expect(&text);
            assert_eq!(event["request_id"], format!("r-{number}"), "{event}");
            assert_eq!(event["trace_id"], trace_id, "{event}");
            assert_eq!(event["span_id"], span_id, "{event}");
        }
        let object = format!(
            r#"{{"object":{number},"faas":{{"process":1,"stream":"stderr","request_id":"r-{number}","trace_id":"{trace_id}"}}}}"#
        );
        assert!(worker.log.lines().contains(&object), "{object}");
    }
}

/// The events of the access log for this request id, which is one.
#[track_caller]
fn accessed(worker: &crate::support::Worker, id: &str) -> Value {
    let of_it = || {
        let mut requests = events(worker, "request");
        requests.retain(|event| event["request_id"] == id);
        requests
    };
    eventually(&format!("{id} is told"), || of_it().pop());
    let mut requests = of_it();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

#[test]
fn the_access_log_has_each_request_for_the_handler_once_and_not_what_it_said() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .flag("--access-log")
        .start();
    worker.wait_until_ready();
    let mut connection = worker.connect();
    let mut post = |id: &str, body: &[u8]| {
        let headers = [
            ("x-request-id", id),
            ("traceparent", TRACE[0]),
            ("x-s3cret", "s3cret"),
        ];
        connection
            .request("POST", "/?s3cret", &headers, Some(body))
            .unwrap()
    };
    let answer = post("r-1", &body_of("s3cret"));
    assert_result(&answer, "s3cret");
    let event = accessed(&worker, "r-1");
    let microseconds = |name: &str| event[name].as_u64().expect(name);
    let parts = microseconds("queue_us") + microseconds("invoke_us");
    assert!(microseconds("total_us") >= parts, "{event}");
    assert!(microseconds("invoke_us") > 0, "{event}");
    let remote = event["remote"].as_str().unwrap();
    assert!(remote.starts_with("127.0.0.1:"), "{event}");
    for (name, value) in [
        ("level", Value::from("INFO")),
        ("method", "POST".into()),
        ("path", "/".into()),
        ("status", 200.into()),
        ("executed", "yes".into()),
        ("bytes_in", body_of("s3cret").len().into()),
        ("bytes_out", answer.body.len().into()),
        ("process", 1.into()),
        ("trace_id", TRACE[1].into()),
        ("span_id", TRACE[2].into()),
        ("code", Value::Null),
    ] {
        assert_eq!(event[name], value, "{name} of {event}");
    }

    for (id, body, status, code, executed) in [
        ("r-2", &b"{\"s3cret\":1}"[..], 422, "invalid_request", "no"),
        (
            "r-3",
            &body_of("error s3cret")[..],
            400,
            "handler_error",
            "yes",
        ),
        (
            "r-4",
            &body_of("exit 1")[..],
            502,
            "handler_exited",
            "maybe",
        ),
    ] {
        assert_eq!(post(id, body).status, status);
        let event = accessed(&worker, id);
        let found = [&event["status"], &event["code"], &event["executed"]];
        assert_eq!(
            found,
            [&status.into(), &Value::from(code), &executed.into()]
        );
        assert_eq!(event["process"].is_null(), executed == "no", "{event}");
    }
    worker.get("/health");
    worker.get("/");
    worker.get("/nothing");
    post("r-5", &body_of("last"));
    accessed(&worker, "r-5");
    assert_eq!(events(&worker, "request").len(), 5);
    assert!(
        !worker.log.text().contains("s3cret"),
        "{}",
        worker.log.text()
    );
}

#[test]
fn the_access_log_of_errors_has_failures_and_clients_that_left() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "1")
        .environment("FAAS_ACCESS_LOG", "errors")
        .start();
    worker.wait_until_ready();
    assert_eq!(post_as(&worker, "r-1").status, 200);
    let mut leaver = worker.connect();
    leaver.send_payload("sleep 300").unwrap();
    worker.wait_until_read();
    leaver.reset();
    let gone = eventually("the leaver is told", || events(&worker, "request").pop());
    assert_eq!(gone["outcome"], "client_gone", "{gone}");
    for name in ["status", "code", "executed", "bytes_out"] {
        assert!(gone[name].is_null(), "{gone}");
    }
    assert!(gone["total_us"].as_u64().unwrap() < 300_000, "{gone}");
    assert_eq!(events(&worker, "request").len(), 1);
}

#[test]
fn without_an_access_log_no_request_is_told() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    assert_eq!(post_as(&worker, "r-1").status, 200);
    assert!(!worker.log.text().contains("r-1"), "{}", worker.log.text());
}
