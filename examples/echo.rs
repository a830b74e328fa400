//! Answers every payload with itself: the shortest handler, and the one to measure with.

use faas_worker::handler::{self, Failure};

fn echo(payload: &str) -> Result<&str, Failure> {
    Ok(payload)
}

fn main() -> std::io::Result<()> {
    handler::serve(echo)
}
