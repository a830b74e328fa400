//! The recorded answers of the Python worker hold with handlers in Rust and in Python, and so do
//! the promises of the contract that no recording shows.

use crate::support::client::body_of;
use crate::support::worker::python;
use crate::support::{Builder, Worker, assert_error, assert_result, misbehave, rust_example, sh};
use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("http-cases.json")).unwrap()
}

/// All cases of each handler, on one worker.
fn check_cases(builder_of: impl Fn(&str) -> Builder) {
    let cases = cases();
    let mut handlers: Vec<&str> = cases
        .iter()
        .map(|case| case["handler"].as_str().unwrap())
        .collect();
    handlers.sort_unstable();
    handlers.dedup();
    let mut wrong = Vec::new();
    let mut count = 0;
    for handler in handlers {
        let worker = builder_of(handler).option("--processes", "1").start();
        for case in cases.iter().filter(|case| case["handler"] == handler) {
            count += 1;
            wrong.extend(check_case(&worker, case));
        }
    }
    assert_eq!(count, cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Every difference between the answer to a case and the recorded one.
fn check_case(worker: &Worker, case: &Value) -> Vec<String> {
    let text = |name: &str| case[name].as_str();
    let headers: Vec<(&str, &str)> = case["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let body = match text("body_base64") {
        Some(encoded) => Some(from_base64(encoded)),
        None => text("body").map(|body| body.as_bytes().to_vec()),
    };
    let (method, path) = (text("method").unwrap(), text("path").unwrap());
    let response = worker
        .connect()
        .request(method, path, &headers, body.as_deref())
        .unwrap();

    let expect = &case["expect"];
    let mut wrong = Vec::new();
    let mut hold = |what: &str, seen: Value, wanted: &Value| {
        if seen != *wanted {
            wrong.push(format!(
                "{}: {what}: {seen} instead of {wanted}",
                case["name"]
            ));
        }
    };
    hold("status", json!(response.status), &expect["status"]);
    hold(
        "body",
        serde_json::from_slice(&response.body).unwrap_or_default(),
        &expect["body"],
    );
    for (name, value) in expect["headers"].as_object().unwrap() {
        hold(name, json!(response.header(name)), value);
    }
    hold(
        "a request id",
        json!(response.header("x-request-id").is_some()),
        &json!(true),
    );
    let (code, executed) = match (response.status, method) {
        (200, _) => (None, None),
        (400, _) if case["handler"] == "raises" => (Some("handler_error"), Some("yes")),
        (404, _) => (Some("not_found"), Some("no")),
        (405, _) => (Some("method_not_allowed"), Some("no")),
        _ => (Some("invalid_request"), Some("no")),
    };
    hold(
        "x-faas-error",
        json!(response.header("x-faas-error")),
        &json!(code),
    );
    hold(
        "x-faas-executed",
        json!(response.header("x-faas-executed")),
        &json!(executed),
    );
    wrong
}

fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes().filter(|&letter| letter != b'=') {
        let value = alphabet
            .iter()
            .position(|&candidate| candidate == letter)
            .unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn the_recorded_cases_hold_with_handlers_in_rust() {
    check_cases(|handler| match handler {
        "default" | "decode_type_a" | "decode_type_b" => Builder::new(vec![rust_example(handler)]),
        "identity" => Builder::new(vec![rust_example("echo")]),
        other => misbehave(&["--function", other]),
    });
}

#[test]
fn the_recorded_cases_hold_with_functions_in_python_that_print() {
    if python("default").is_some() {
        check_cases(|handler| python(handler).unwrap());
    }
}

#[test]
fn the_type_a_handler_in_sh_decodes() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/shell/decode_type_a.sh"
    );
    let worker = Builder::new(vec![script.to_owned()]).start();
    let good = worker.post("dev-1,42,1678886400");
    assert_eq!(good.status, 200, "{}", good.text());
    let result = &good.json()["result"];
    assert_eq!(result["device_id"], "dev-1");
    assert_eq!(result["metric_value"].as_f64(), Some(42.0));
    assert_eq!(result["timestamp"], 1_678_886_400);
    assert_eq!(result["status"], "decoded_successfully");
    let bad = worker.post("dev-1,\"forty\",1678886400");
    assert_eq!(bad.status, 200, "{}", bad.text());
    assert_eq!(bad.json()["result"]["status"], "decoding_failed");
    assert_eq!(
        bad.json()["result"]["original_data"],
        "dev-1,\"forty\",1678886400"
    );
}

#[test]
fn a_plain_loop_in_sh_is_a_correct_handler() {
    let worker = sh(
        r#"while IFS= read -r line; do payload=${line#*'"payload":'}; printf '{"result":%s\n' "$payload"; done"#,
        &[],
    )
    .start();
    for payload in [
        "x",
        "",
        "a\\b \"q\" 'q'  two  spaces ",
        "%s\\n",
        "line\nbreak",
        "é中😀\u{2028}",
    ] {
        assert_result(&worker.post(payload), payload);
    }
}

#[test]
fn health_is_alive_and_has_the_time() {
    let worker = misbehave(&["--ready"]).start();
    for path in ["/health", "/_/health"] {
        let response = worker.get(path);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        let body = response.json();
        assert_eq!(body["status"], "ok");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        // 2024-05-01T12:34:56.123456+00:00
        let time = body["timestamp"].as_str().unwrap();
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000+00:00");
    }
    let worker_is_ready = || worker.get("/ready").status == 200;
    crate::support::eventually("ready", || worker_is_ready().then_some(()));
    assert_eq!(worker.get("/ready").json(), json!({"status": "ready"}));
    assert_eq!(worker.get("/_/ready").json(), json!({"status": "ready"}));
    assert_eq!(worker.get("/health/").status, 404);
}

#[test]
fn head_works_wherever_get_does() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_until_ready();
    for path in ["/health", "/ready"] {
        let mut connection = worker.connect();
        let response = connection.request("HEAD", path, &[], None).unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        // No body came: the next answer on this connection is in its place.
        assert_eq!(
            connection.request("GET", path, &[], None).unwrap().status,
            200
        );
    }
}

#[test]
fn the_caller_s_request_id_comes_back_if_it_is_sane() {
    let worker = misbehave(&[]).start();
    let with_id = |id: &str| {
        let body = body_of("x");
        let headers = [("x-request-id", id)];
        let response = worker
            .connect()
            .request("POST", "/", &headers, Some(&body))
            .unwrap();
        assert_result(&response, "x");
        response.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(with_id("abc-123_X.9"), "abc-123_X.9");
    let long = "x".repeat(5000);
    assert_ne!(with_id(&long), long);
    assert_ne!(with_id("a b\tc"), "a b\tc");
    assert_ne!(with_id(""), "");
    assert_ne!(
        worker.post("x").header("x-request-id"),
        worker.post("x").header("x-request-id")
    );
}

#[test]
fn results_pass_through_untouched() {
    let worker = misbehave(&["--ready"]).start();
    for result in [
        "123456789012345678901234567890.123456789012345678901234567890",
        "1e400",
        "-0",
        "1.0",
        r#"{"z":1,"a":2,"m":{"b":1,"a":2}}"#,
        r#"{"a":1,"a":2}"#,
        r#""\u0041\/""#,
        "null",
        "[1, 2 , 3]",
    ] {
        let response = worker.post(&format!("raw {{\"id\":$ID,\"result\":{result}}}"));
        assert_eq!(response.status, 200, "{result}: {}", response.text());
        assert_eq!(response.text(), format!("{{\"result\":{result}}}"));
    }
}

#[test]
fn a_handler_s_error_is_the_caller_s_detail() {
    let worker = misbehave(&["--ready"]).start();
    let response = worker.post("error no such device");
    assert_error(&response, 400, "handler_error", "yes");
    assert_eq!(response.detail(), "no such device");
    for (status, seen) in [(404, 404), (429, 429), (500, 500), (400, 400), (499, 499)] {
        let response = worker.post(&format!(
            r#"raw {{"id":$ID,"error":{{"message":"chosen","status":{status}}}}}"#
        ));
        assert_eq!(response.status, seen);
        assert_eq!(response.header("x-faas-error"), Some("handler_error"));
        assert_eq!(response.header("x-faas-executed"), Some("yes"));
        assert_eq!(response.json(), json!({"detail": "chosen"}));
    }
    // A status that a handler may not choose never becomes the worker's own word.
    for status in ["200", "204", "302", "503", "599", "99999", "\"404\""] {
        let response = worker.post(&format!(
            r#"raw {{"id":$ID,"error":{{"message":"chosen","status":{status}}}}}"#
        ));
        assert!(
            [400, 502].contains(&response.status),
            "{status}: {}",
            response.status
        );
    }
}

#[test]
fn of_duplicate_payloads_the_last_wins() {
    let worker = misbehave(&[]).start();
    let mut connection = worker.connect();
    for (body, result) in [
        (r#"{"payload":"first","payload":"last"}"#, "last"),
        (r#"{"payload":1,"payload":"last"}"#, "last"),
        (r#" { "payl\u006fad" : "escaped name" } "#, "escaped name"),
        (r#"{"a":{"payload":"inner"},"payload":"outer"}"#, "outer"),
    ] {
        let response = connection
            .request("POST", "/", &[], Some(body.as_bytes()))
            .unwrap();
        assert_result(&response, result);
    }
    let response = connection.request("POST", "/", &[], Some(br#"{"payload":"x","payload":1}"#));
    assert_error(&response.unwrap(), 422, "invalid_request", "no");
}
