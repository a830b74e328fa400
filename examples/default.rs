//! Answers a payload that is JSON with its value, and any other payload with its text.

use faas_worker::handler::{self, Failure};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Json {
        handler: &'static str,
        processed_data: &'a RawValue,
        status: &'static str,
    },
    Text {
        handler: &'static str,
        original_data: &'a str,
        status: &'static str,
    },
}

// A RawValue is the JSON text itself: no digit of a number and no order of keys is lost, and deep
// nesting costs no stack. NaN and Infinity, which Python's json module reads, are text here, as
// an answer could not hold them.
fn handle(payload: &str) -> Result<Answer<'_>, Failure> {
    let handler = "default";
    Ok(match serde_json::from_str(payload) {
        Ok(value) => Answer::Json {
            handler,
            processed_data: value,
            status: "processed_as_json",
        },
        Err(_) => Answer::Text {
            handler,
            original_data: payload,
            status: "processed_as_string",
        },
    })
}

fn main() -> std::io::Result<()> {
    handler::serve(handle)
}
