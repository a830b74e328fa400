//! How long a server takes from its start to its first 200: a connection is tried again and again
//! and then one request is sent, as a health check or an impatient caller would.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// When a start counts as failed.
const GIVES_UP_AFTER: Duration = Duration::from_secs(30);

/// Between two attempts to connect; the figure is not finer than this.
const BETWEEN_ATTEMPTS: Duration = Duration::from_micros(100);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the server will listen
    #[arg(long)]
    address: SocketAddr,
    /// How many starts
    #[arg(long)]
    starts: usize,
    /// The payload
    #[arg(long, default_value = "dev-1,42,1678886400")]
    payload: String,
    /// The server's command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Prints the milliseconds of each start.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut milliseconds = Vec::new();
    for _ in 0..options.starts {
        let begin = Instant::now();
        let mut server = start(&options.command)?;
        let answered = first_200(options, begin);
        let took = begin.elapsed();
        if let Ok(pid) = i32::try_from(server.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            kill_process(pid, Signal::TERM)?;
        }
        server.wait()?;
        answered?;
        milliseconds.push(took.as_secs_f64() * 1000.0);
    }
    println!("{}", serde_json::json!({ "milliseconds": milliseconds }));
    Ok(())
}

fn start(command: &[String]) -> io::Result<Child> {
    Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn first_200(options: &Options, begin: Instant) -> io::Result<()> {
    let mut last = io::Error::other("no answer");
    while begin.elapsed() < GIVES_UP_AFTER {
        match ask(options) {
            Ok(head) if head.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(head) => last = io::Error::other(format!("the server answered {head:?}")),
            Err(error) => last = error,
        }
        thread::sleep(BETWEEN_ATTEMPTS);
    }
    Err(last)
}

fn ask(options: &Options) -> io::Result<String> {
    let mut stream = TcpStream::connect(options.address)?;
    stream.set_read_timeout(Some(GIVES_UP_AFTER))?;
    let body = serde_json::json!({ "payload": options.payload }).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        options.address,
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 64];
    let length = stream.read(&mut head)?;
    Ok(String::from_utf8_lossy(&head[..length]).into_owned())
}
