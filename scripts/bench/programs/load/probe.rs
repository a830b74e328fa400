//! A side look: one path, asked for again and again while the load runs, on a thread and a
//! connection of its own.

use super::record::Counts;
use super::record::Record;
use super::response::{Expected, Reader};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// From one request to the next.
const BETWEEN: Duration = Duration::from_millis(5);

/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A probe that runs.
pub(super) struct Probe {
    thread: JoinHandle<io::Result<Record>>,
}

impl Probe {
    /// Asks for the path from then on until then.
    pub(super) fn start(address: SocketAddr, path: &str, from: Instant, until: Instant) -> Probe {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let thread = thread::spawn(move || ask(address, request.as_bytes(), from, until));
        Probe { thread }
    }

    /// Waits for its end, and gives what came of it.
    pub(super) fn end(self, seconds: f64) -> io::Result<serde_json::Value> {
        let record = self.thread.join();
        let record = record.map_err(|_| io::Error::other("the probe panicked"))??;
        Ok(record.to_json(seconds))
    }
}

fn ask(address: SocketAddr, request: &[u8], from: Instant, until: Instant) -> io::Result<Record> {
    let mut record = Record::new();
    let mut stream = None;
    let mut due = from;
    while due < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let open = match stream.take() {
            Some(open) => open,
            None => TcpStream::connect_timeout(&address, PATIENCE)?,
        };
        match ask_once(&open, request) {
            // From the due time: a late answer delays the requests after it, and their delay counts.
            Ok(status) => {
                record.answered(status, due.elapsed(), Counts::Wholly);
                stream = Some(open);
            }
            Err(_) => record.broken += 1,
        }
        due += BETWEEN;
    }
    Ok(record)
}

fn ask_once(mut stream: &TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut reader = Reader::new();
    let mut scratch = [0; 4096];
    loop {
        let length = stream.read(&mut scratch)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Each answer has a time in it, so none is like another.
        if let Some(done) = reader.feed(&scratch[..length], &mut Expected::new())? {
            return Ok(done.status);
        }
    }
}
