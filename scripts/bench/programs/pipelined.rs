//! A load that costs its server's machine little: on each connection many requests in one write, and
//! the next ones when all answers are there.
//!
//! A server of several threads is not held up by it, so the throughput is the server's own. Latencies
//! are not measured: a request waits for others of its connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

/// What to send, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the server listens
    #[arg(long)]
    address: SocketAddr,
    /// Connections that requests are sent on
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests in one write
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// How long to measure
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    duration: Duration,
    /// How long to load before that
    #[arg(long, value_parser = humantime::parse_duration, default_value = "500ms")]
    warm_up: Duration,
    /// The payload
    #[arg(long, default_value = "dev-1,42,1678886400")]
    payload: String,
}

/// A pause when no connection has all its answers: a look at each costs a system call.
const PAUSE: Duration = Duration::from_micros(200);

/// Without an answer for this long, the server is stuck.
const PATIENCE: Duration = Duration::from_secs(15);

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    awaited: usize,
}

/// Sends the load and prints requests a second as JSON.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let body = serde_json::json!({ "payload": options.payload }).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        options.address,
        body.len()
    );
    let burst = request.repeat(options.depth).into_bytes();
    let connections = (0..options.connections).map(|_| open(options.address));
    let mut connections = connections.collect::<io::Result<Vec<_>>>()?;
    let mut load = Load {
        burst,
        depth: options.depth,
        expected: None,
        scratch: vec![0; 64 * 1024],
    };
    let warm_up = load.run(&mut connections, options.warm_up)?;
    let (begun, spent) = (Instant::now(), processor_time());
    let answered = load.run(&mut connections, options.duration)?;
    let seconds = begun.elapsed().as_secs_f64();
    let outcome = serde_json::json!({
        "per_second": answered as f64 / seconds,
        "sent": warm_up + answered,
        "processor_share": (processor_time() - spent).as_secs_f64() / seconds,
    });
    println!("{outcome}");
    Ok(())
}

/// The processor time that this process has had.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn open(address: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Connection {
        stream,
        received: Vec::new(),
        awaited: 0,
    })
}

struct Load {
    burst: Vec<u8>,
    depth: usize,
    /// The body of the first answer; all others have to be the same.
    expected: Option<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Load {
    /// Loads for this long; gives the number of answers.
    fn run(&mut self, connections: &mut [Connection], lasts: Duration) -> io::Result<u64> {
        let end = Instant::now() + lasts;
        let mut last_answer = Instant::now();
        let mut answered = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(answered);
            }
            let mut is_any_done = false;
            for connection in &mut *connections {
                let count = self.advance(connection)?;
                answered += count;
                is_any_done |= connection.awaited == 0;
                if count > 0 {
                    last_answer = now;
                }
            }
            if now.duration_since(last_answer) > PATIENCE {
                return Err(io::Error::other("the server answers no more"));
            }
            if !is_any_done {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Sends the next requests if all are answered, and takes the answers that are there.
    fn advance(&mut self, connection: &mut Connection) -> io::Result<u64> {
        if connection.awaited == 0 {
            // They fit into the socket's buffer.
            (&connection.stream).write_all(&self.burst)?;
            connection.awaited = self.depth;
            return Ok(0);
        }
        let length = match (&connection.stream).read(&mut self.scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        connection
            .received
            .extend_from_slice(&self.scratch[..length]);
        let mut at = 0;
        let mut count = 0;
        while let Some((body, end)) = body(&connection.received[at..])? {
            let body = &connection.received[at..][body];
            if self.expected.get_or_insert_with(|| body.to_vec()) != body {
                let body = String::from_utf8_lossy(body);
                return Err(io::Error::other(format!("another answer: {body}")));
            }
            at += end;
            count += 1;
            connection.awaited -= 1;
        }
        connection.received.drain(..at);
        Ok(count)
    }
}

/// Where the body of the first answer is, if all of it is there, and where the answer ends.
fn body(bytes: &[u8]) -> io::Result<Option<(Range<usize>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    if response.code != Some(200) {
        return Err(io::Error::other(format!("status {:?}", response.code)));
    }
    let mut headers = response.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or_else(|| io::Error::other("a response without a length"))?;
    let length: usize = String::from_utf8_lossy(length.value)
        .parse()
        .map_err(io::Error::other)?;
    let end = head + length;
    Ok((bytes.len() >= end).then_some((head..end, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_when_all_of_it_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for at in 0..answer.len() {
            assert_eq!(body(&answer[..at]).unwrap(), None);
        }
        let two = [&answer[..], answer].concat();
        let (body, end) = body(&two).unwrap().unwrap();
        assert_eq!((&two[body], end), (&b"hello"[..], answer.len()));
    }

    #[test]
    fn anything_but_200_is_an_error() {
        assert!(body(b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
