//! `faas-worker health`: asks a running worker whether it answers, for container health checks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The whole question and answer, so that the command ends within two seconds.
const LIMIT: Duration = Duration::from_millis(1500);

/// Asks the worker at these addresses; gives one line to print, and whether it is well.
pub fn health(addresses: &[SocketAddr]) -> (String, bool) {
    let deadline = Instant::now() + LIMIT;
    let mut last = "no address to ask".to_owned();
    for address in addresses {
        let address = reachable(*address);
        match ask(address, deadline) {
            Ok(status) if status.starts_with("HTTP/1.1 200 ") => {
                return (format!("{address}: ok"), true);
            }
            Ok(status) => last = format!("{address}: {}", status.trim_end()),
            Err(error) => last = format!("{address}: {error}"),
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

/// The status line of the answer to `GET /health`.
fn ask(address: SocketAddr, deadline: Instant) -> io::Result<String> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(
        stream,
        "GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 512];
    while !answer.contains(&b'\n') && answer.len() < 4096 {
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
    let line = answer
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if line.is_empty() {
        return Err(io::Error::other("closed without an answer"));
    }
    Ok(String::from_utf8_lossy(line).into_owned())
}
