//! Decodes the readings of devices of type B: their text, backwards.

use faas_worker::handler::{self, Failure};
use serde::Serialize;

#[derive(Serialize)]
struct Reading {
    handler: &'static str,
    reversed_data: String,
    status: &'static str,
}

fn decode(payload: &str) -> Result<Reading, Failure> {
    Ok(Reading {
        handler: "decoder_type_b",
        reversed_data: payload.chars().rev().collect(),
        status: "decoded_successfully",
    })
}

fn main() -> std::io::Result<()> {
    handler::serve(decode)
}
