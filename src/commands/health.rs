//! `faas-worker health`: asks a running worker whether it answers, for container health checks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The whole question and answer, so that the command ends within two seconds.
const LIMIT: Duration = Duration::from_millis(1500);

/// More than the answer to `GET /health` ever has, in bytes.
const LONGEST_ANSWER: usize = 4096;

/// Asks the worker at these addresses; gives one line to print, and whether it is well.
pub fn health(addresses: &[SocketAddr]) -> (String, bool) {
    let deadline = Instant::now() + LIMIT;
    let mut last = "no address to ask".to_owned();
    for address in addresses {
        let address = reachable(*address);
        let fault = match ask(address, deadline) {
            Ok(answer) => fault(&answer),
            Err(error) => Some(error.to_string()),
        };
        match fault {
            None => return (format!("{address}: ok"), true),
            Some(fault) => last = format!("{address}: {fault}"),
        }
    }
    (last, false)
}

/// Where a worker that listens on all addresses can be asked.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The answer to `GET /health`, as far as it came.
fn ask(address: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let question = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 512];
    while fault(&answer).is_some() && answer.len() < LONGEST_ANSWER {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            // A container that was paused and goes on, say: a read with a time limit is not taken
            // up again by the kernel.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// What keeps this from being the whole answer of a worker that is well. Another program may listen
/// there, so whatever it sent is quoted, and cut.
fn fault(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    if text.is_empty() {
        return Some("closed without an answer".to_owned());
    }
    let shown = |text: &str| format!("{:?}", text.chars().take(100).collect::<String>());
    let Some((status, rest)) = text.split_once("\r\n") else {
        return Some(format!("not an answer: {}", shown(&text)));
    };
    if !status.starts_with("HTTP/1.1 200 ") {
        return Some(format!("not well: {}", shown(status)));
    }
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match serde_json::from_str::<serde_json::Value>(body) {
        Ok(body) if body["status"] == "ok" => None,
        Ok(_) | Err(_) => Some(format!("not the answer of a worker: {}", shown(body))),
    }
}
