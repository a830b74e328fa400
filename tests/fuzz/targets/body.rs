//! The payload of a body is the same as by a plain JSON reader, and its line is one line.
#![no_main]

use bytes::Bytes;
use faas_worker::error::RequestFailure;
use faas_worker::http::api::payload::{find_payload, is_json};
use faas_worker::process::ids::IdDigits;
use faas_worker::process::line::{RequestContext, encode_request};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

const TYPES: [Option<&[u8]>; 4] = [
    None,
    Some(b"application/json"),
    Some(b"application/x+json; charset=utf-8"),
    Some(b"text/plain"),
];

/// Characters that some language's line reader takes for the end of a line.
const BREAKS: [char; 10] = [
    '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}',
];

/// The payload as written, decoded by `serde_json`.
fn decoded(payload: &[u8]) -> String {
    let text = std::str::from_utf8(payload).expect("a payload is UTF-8");
    serde_json::from_str(&format!("\"{text}\"")).expect("the inside of a JSON string")
}

fn check_line(payload: &[u8]) {
    let mut line = Vec::new();
    encode_request(
        &mut line,
        &IdDigits::new(7),
        payload,
        &RequestContext::default(),
    );
    let text = String::from_utf8(line).expect("a line is UTF-8");
    let inside = text.strip_suffix('\n').expect("a line ends");
    assert!(!inside.contains(BREAKS), "a line break inside: {inside:?}");
    let value: Value = serde_json::from_str(inside).expect("a line is JSON");
    assert_eq!(value["id"], 7);
    assert_eq!(value["payload"], decoded(payload));
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(2));
    // The shortest form is its own shortest form.
    let start = "{\"id\":7,\"payload\":\"".len();
    let mut again = Vec::new();
    let shortest = &inside.as_bytes()[start..inside.len() - 2];
    encode_request(
        &mut again,
        &IdDigits::new(7),
        shortest,
        &RequestContext::default(),
    );
    assert_eq!(again, text.as_bytes());
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, body)) = input.split_first() else {
        return;
    };
    let content_type = TYPES[usize::from(kind) % TYPES.len()];
    let body = Bytes::copy_from_slice(body);
    let model = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(object)) => object
            .get("payload")
            .and_then(|p| p.as_str().map(str::to_owned)),
        Ok(_) | Err(_) => None,
    };
    match find_payload(is_json(content_type), &body) {
        Ok(payload) => {
            assert_ne!(content_type, TYPES[3], "a body that is not called JSON");
            check_line(&payload);
            if let Some(model) = model {
                assert_eq!(decoded(&payload), model);
            }
        }
        Err(RequestFailure::Invalid { status, detail }) => {
            assert!(status == 400 || status == 422);
            serde_json::from_slice::<IgnoredAny>(&detail).expect("detail is JSON");
            // Only integers of thousands of digits are refused that the model reads.
            let is_long = body.len() > 4300;
            let is_called_json = content_type != TYPES[3];
            assert!(
                model.is_none() || is_long || !is_called_json,
                "a good body is refused"
            );
        }
        Err(other) => panic!("not an answer to a body: {other:?}"),
    }
});
