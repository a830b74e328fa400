//! The function of `peer.py`, served by AWS's client in Rust.

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::{Value, json};
use std::time::Duration;

/// Answers a payload that is a command, and echoes any other.
async fn answer(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let payload = event.payload["payload"].as_str().unwrap_or_default();
    let (command, argument) = payload.split_once(' ').unwrap_or((payload, ""));
    match command {
        "error" => Err(argument.into()),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(argument.parse()?)).await;
            Ok(json!(payload))
        }
        "big" => Ok(json!("x".repeat(argument.parse()?))),
        _ => Ok(json!(payload)),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(answer)).await
}
