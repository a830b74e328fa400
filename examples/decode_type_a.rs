//! Decodes the readings of devices of type A: `id,value,timestamp`.
//!
//! Numbers are read as Python's `float()` and `int()` read them: white space around them and
//! underscores between digits are allowed, and the timestamp may have any number of digits. Not
//! taken: a value that is no finite number (JSON has none), and digits other than 0 to 9.

use faas_worker::handler::{self, Failure};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Decoded {
        handler: &'static str,
        device_id: &'a str,
        metric_value: f64,
        timestamp: Box<RawValue>,
        status: &'static str,
    },
    Failed {
        handler: &'static str,
        error: &'static str,
        original_data: &'a str,
        status: &'static str,
    },
}

fn handle(payload: &str) -> Result<Answer<'_>, Failure> {
    let handler = "decoder_type_a";
    Ok(match decode(payload) {
        Some((device_id, metric_value, timestamp)) => Answer::Decoded {
            handler,
            device_id,
            metric_value,
            timestamp,
            status: "decoded_successfully",
        },
        None => Answer::Failed {
            handler,
            error: "Invalid data format. Expected 'id,value,timestamp'.",
            original_data: payload,
            status: "decoding_failed",
        },
    })
}

fn decode(payload: &str) -> Option<(&str, f64, Box<RawValue>)> {
    let mut fields = payload.split(',');
    let device_id = fields.next()?;
    let value = fields.next()?;
    let timestamp = fields.next()?;
    Some((device_id, float(value)?, integer(timestamp)?))
}

fn float(field: &str) -> Option<f64> {
    let number: f64 = digits_joined(field)?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// The digits as JSON writes them, rather than a number: no integer type holds all of them.
fn integer(field: &str) -> Option<Box<RawValue>> {
    let text = digits_joined(field)?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let json = match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => format!("{sign}{digits}"),
    };
    RawValue::from_string(json).ok()
}

/// The field without the white space around it and the underscores between its digits.
fn digits_joined(field: &str) -> Option<String> {
    let parts: Vec<&str> = field.trim().split('_').collect();
    let between_digits = parts.windows(2).all(|pair| {
        pair[0].ends_with(|c: char| c.is_ascii_digit())
            && pair[1].starts_with(|c: char| c.is_ascii_digit())
    });
    between_digits.then(|| parts.concat())
}

fn main() -> std::io::Result<()> {
    handler::serve(handle)
}
