//! A handler in Rust: decodes the reading of a device, `dev-1,42.5,1678886400`.
//!
//! ```console
//! $ cargo build --release
//! $ faas-worker --handler target/release/reading
//! ```
//!
//! `Cargo.toml` needs `faas-worker` with `default-features = false, features = ["handler"]`, and
//! `serde` with `features = ["derive"]`. The loop is [`handler::serve`]: it sends the ready line,
//! keeps ids and order, and sends output of the function to the log.

use faas_worker::handler::{self, Failure};
use serde::Serialize;

#[derive(Serialize)]
struct Reading<'a> {
    device: &'a str,
    value: f64,
    timestamp: u64,
}

/// The function: returns a value for serde, or a failure with its status.
fn handle(payload: &str) -> Result<Reading<'_>, Failure> {
    decode(payload).ok_or_else(|| Failure::with_status::<422>("expected device,value,timestamp"))
}

fn decode(payload: &str) -> Option<Reading<'_>> {
    let mut fields = payload.split(',');
    let (device, value, timestamp) = (fields.next()?, fields.next()?, fields.next()?);
    let magnitude = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, "0"));
    let is_reading = fields.next().is_none()
        && !device.is_empty()
        && is_whole(whole)
        && is_digits(fraction)
        && is_whole(timestamp);
    is_reading.then_some(Reading {
        device,
        value: value.parse().ok()?,
        timestamp: timestamp.parse().ok()?,
    })
}

/// Up to 15 digits: no double loses one of these.
fn is_digits(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole number as JSON writes it: no zeros in front.
fn is_whole(text: &str) -> bool {
    is_digits(text) && (text == "0" || !text.starts_with('0'))
}

fn main() -> std::io::Result<()> {
    handler::serve(handle)
}
