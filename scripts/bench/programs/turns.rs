//! The bound of what a worker can get out of processes that take one line at a time: lines into
//! pipes and out of them, from one thread, with no HTTP and nothing looked at but line ends.

use rustix::event::epoll;
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const LINE: &[u8] = b"{\"id\":1234567,\"payload\":\"dev-1,42,1678886400\"}\n";
const READY: &[u8] = b"{\"ready\"";

#[derive(clap::Args)]
pub struct Options {
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

/// One process, and its two pipes.
struct Turn {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// Prints the lines that were answered in a second.
pub fn run(options: &Options) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut turns = Vec::new();
    for index in 0..options.processes {
        let mut turn = start(&options.command)?;
        let token = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, &turn.stdout, token, epoll::EventFlags::IN)?;
        turn.stdin.write_all(LINE)?;
        turns.push(turn);
    }
    // The first half is for coming up.
    let warm_up = Instant::now() + options.duration / 2;
    pass_lines(&poll, &mut turns, warm_up)?;
    let begin = Instant::now();
    let lines = pass_lines(&poll, &mut turns, begin + options.duration)?;
    let per_second = lines as f64 / begin.elapsed().as_secs_f64();
    for mut turn in turns {
        drop(turn.stdin);
        turn.child.wait()?;
    }
    println!("{}", serde_json::json!({ "per_second": per_second }));
    Ok(())
}

fn start(command: &[String]) -> io::Result<Turn> {
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
    Ok(Turn {
        child,
        stdin,
        stdout,
    })
}

/// Answers each line with the next one; says how many there were.
fn pass_lines(poll: impl std::os::fd::AsFd, turns: &mut [Turn], end: Instant) -> io::Result<u64> {
    let mut events = Vec::with_capacity(256);
    let mut scratch = vec![0; 64 * 1024];
    let mut lines = 0;
    while Instant::now() < end {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&poll, room, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let index = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
            let Some(turn) = turns.get_mut(index) else {
                continue;
            };
            let length = turn.stdout.read(&mut scratch)?;
            if length == 0 {
                return Err(io::Error::other("a process has ended"));
            }
            for _ in 0..replies(&scratch[..length]) {
                lines += 1;
                turn.stdin.write_all(LINE)?;
            }
        }
    }
    Ok(lines)
}

/// How many there are in what was read. A reply is so short that it comes in one piece.
fn replies(read: &[u8]) -> usize {
    read.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n") && !line.starts_with(READY))
        .count()
}
