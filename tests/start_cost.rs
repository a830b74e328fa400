//! The time that the launcher step adds to the start of a process. A measurement, which runs only
//! when it is asked for: `scripts/bench/start.sh`.

use crate::support::{program, rust_example};
use rustix::pipe::pipe;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

/// Starts the handler `echo`, which ends at the end of its stdin, and waits for its end.
fn time(mut command: Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let start = Instant::now();
    let status = command.spawn().unwrap().wait().unwrap();
    let took = start.elapsed();
    assert!(status.success(), "{status}");
    took
}

/// The same handler through the launcher step, with these words more.
fn launched(handler: &str, more: &[&str]) -> Duration {
    // Inherited, as the worker's end of the status pipe is.
    let (report, status) = pipe().unwrap();
    let mut command = program();
    command
        .arg("launch")
        .arg(format!("status={}", status.as_raw_fd()))
        .arg(format!("parent={}", std::process::id()))
        .args(more)
        .args(["--", handler]);
    let took = time(command);
    drop(status);
    let mut said = [0; 64];
    let length = rustix::io::read(&report, &mut said).unwrap();
    assert_eq!(&said[..length], b">");
    took
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Interleaved, so that other work of the machine slows all three alike.
#[test]
#[ignore = "a measurement: scripts/bench/start.sh"]
fn what_the_launcher_step_costs() {
    let handler = rust_example("echo");
    let (mut plain, mut step, mut sandbox) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(time(Command::new(&handler)));
        step.push(launched(&handler, &[]));
        sandbox.push(launched(&handler, &["sandbox="]));
    }
    let (plain, step, sandbox) = (median(plain), median(step), median(sandbox));
    println!("start and end of the handler echo, median of {ROUNDS} interleaved rounds:");
    println!("  executed directly               {plain:.2} ms");
    println!(
        "  through the launcher step       {step:.2} ms, {:+.2} ms",
        step - plain
    );
    println!(
        "  the same, with --sandbox        {sandbox:.2} ms, {:+.2} ms",
        sandbox - plain
    );
    assert!(step - plain < 5.0, "the step may add 5 ms");
}
