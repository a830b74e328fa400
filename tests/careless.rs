//! A handler of the Rust library whose function prints and starts programs without a thought for
//! the pipes, for the integration tests.
//!
//! A payload is a command and its arguments, separated by `|`.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use faas_worker::handler;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::Write;
use std::process::Command;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        // What Node does to the descriptors that it inherits, and leaves so when it is killed.
        Some("nonblocking") => set_nonblocking(),
        // Printed before the pipes are taken, and left in std's buffer.
        Some("half-a-line") => {
            print!("half a line");
            handler::serve(answer)
        }
        // Prints every payload before it answers.
        Some("verbose") => handler::serve(|payload: &str| {
            println!("working on {payload}");
            answer(payload)
        }),
        _ => handler::serve(answer),
    }
}

fn set_nonblocking() -> std::io::Result<()> {
    for descriptor in [rustix::stdio::stdin(), rustix::stdio::stdout()] {
        let flags = fcntl_getfl(descriptor)?;
        fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
    }
    Ok(())
}

fn answer(payload: &str) -> Result<String, String> {
    let (what, rest) = payload.split_once('|').unwrap_or((payload, ""));
    match what {
        "print" => {
            println!("{rest}");
            Ok("printed".to_owned())
        }
        "print-half" => {
            print!("{rest}");
            std::io::stdout().flush().unwrap();
            Ok("printed".to_owned())
        }
        "big" => Ok("x".repeat(rest.parse().unwrap())),
        // Waited for, with the descriptors that any program inherits.
        "run" => {
            let mut words = rest.split('|');
            let status = Command::new(words.next().unwrap()).args(words).status();
            status
                .map(|status| status.to_string())
                .map_err(|error| error.to_string())
        }
        "read" => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line).unwrap();
            Ok(format!("{read} bytes"))
        }
        _ => Ok(payload.to_owned()),
    }
}
