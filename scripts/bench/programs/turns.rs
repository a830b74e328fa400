//! The bound of what a worker can get out of processes that take one line at a time: lines into
//! pipes and out of them, from one thread, with no HTTP and nothing looked at but line ends.

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const LINE: &[u8] = b"{\"id\":1234567,\"payload\":\"dev-1,42,1678886400\"}\n";
const READY: &[u8] = b"{\"ready\"";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Processes, each with one line at a time
    #[arg(long)]
    processes: usize,
    /// For how long
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The command of a process
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A process and its two pipes.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// Prints the lines that were answered in a second.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut processes = Vec::new();
    for index in 0..options.processes {
        let mut process = start(&options.command)?;
        let token = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, &process.stdout, token, epoll::EventFlags::IN)?;
        process.stdin.write_all(LINE)?;
        processes.push(process);
    }
    // Half as long before it counts: processes come up.
    let warm_up = Instant::now() + options.duration / 2;
    pass_lines(&poll, &mut processes, warm_up)?;
    let begin = Instant::now();
    let lines = pass_lines(&poll, &mut processes, begin + options.duration)?;
    if lines == 0 {
        return Err(io::Error::other("no line was answered"));
    }
    let per_second = lines as f64 / begin.elapsed().as_secs_f64();
    for mut process in processes {
        drop(process.stdin);
        process.child.wait()?;
    }
    println!("{}", serde_json::json!({ "per_second": per_second }));
    Ok(())
}

fn start(command: &[String]) -> io::Result<Process> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no command"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    Ok(Process {
        child,
        stdin,
        stdout,
    })
}

/// Gives a process its next line when it has answered one; says how many were answered.
fn pass_lines(
    poll: impl std::os::fd::AsFd,
    processes: &mut [Process],
    end: Instant,
) -> io::Result<u64> {
    let mut events = Vec::with_capacity(256);
    let mut scratch = vec![0; 64 * 1024];
    let mut lines = 0;
    while Instant::now() < end {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match epoll::wait(&poll, room, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let index = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
            let Some(process) = processes.get_mut(index) else {
                continue;
            };
            let length = process.stdout.read(&mut scratch)?;
            if length == 0 {
                return Err(io::Error::other("a process has ended"));
            }
            for _ in 0..replies(&scratch[..length]) {
                lines += 1;
                process.stdin.write_all(LINE)?;
            }
        }
    }
    Ok(lines)
}

/// Replies in a block that was read. A reply is so short that it comes in one piece.
fn replies(read: &[u8]) -> usize {
    read.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n") && !line.starts_with(READY))
        .count()
}
