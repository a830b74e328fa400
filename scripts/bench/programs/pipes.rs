//! The bound of what payloads can reach: bytes into a process and back through two pipes, one
//! round trip at a time, with nothing looked at.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Processes, each with a thread of its own on this side
    #[arg(long)]
    pairs: usize,
    /// Bytes of a round trip
    #[arg(long)]
    bytes: usize,
    /// For how long
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// Prints the bytes that went out and came back in a second.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let threads: Vec<_> = (0..options.pairs)
        .map(|_| {
            let (bytes, duration) = (options.bytes, options.duration);
            thread::spawn(move || round_trips(bytes, duration))
        })
        .collect();
    let mut bytes_per_second = 0.0;
    for thread in threads {
        bytes_per_second += thread
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))??;
    }
    println!(
        "{}",
        serde_json::json!({ "bytes_per_second": bytes_per_second })
    );
    Ok(())
}

fn round_trips(bytes: usize, duration: Duration) -> io::Result<f64> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child", "pipe-end", &bytes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let mut buffer = vec![b'x'; bytes];
    let mut trip = || {
        stdin.write_all(&buffer)?;
        stdout.read_exact(&mut buffer)
    };
    // The first one waits for the child to start.
    trip()?;
    let begin = Instant::now();
    let mut trips = 0_u32;
    while begin.elapsed() < duration {
        trip()?;
        trips += 1;
    }
    let took = begin.elapsed();
    drop(stdin);
    child.wait()?;
    Ok(f64::from(trips) * bytes as f64 / took.as_secs_f64())
}

/// The other end: reads a block, writes it back, and repeats.
pub(crate) fn end(bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; bytes];
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    loop {
        match stdin.read_exact(&mut buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        stdout.write_all(&buffer)?;
        stdout.flush()?;
    }
}
