//! `faas-worker health`: asks a running worker how it is, for container health checks.
//!
//! The request takes the way of a caller: a worker that listens on all addresses is asked on each
//! loopback address on which it listens, and is well if all of them answer.

use super::client::get;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Time limit of all requests together, so that the command ends within two seconds.
const TIME_LIMIT: Duration = Duration::from_millis(1500);

/// Longest response that is read, in bytes; a worker's is shorter.
const MAX_HEALTH_RESPONSE_BYTES: usize = 4096;

/// The question to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the worker answers at all.
    Health,
    /// Whether a process of its handler is up.
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Health => "/health",
            Question::Ready => "/ready",
        }
    }

    /// The `status` in the response of a worker that is well, or ready.
    fn wanted(self) -> &'static str {
        match self {
            Question::Health => "ok",
            Question::Ready => "ready",
        }
    }
}

/// Asks the worker at these addresses; returns one line to print. Of several addresses, as
/// `localhost` has, one is enough.
///
/// # Errors
///
/// When the worker is not well, or not ready; says why, in one line to print.
pub fn health(addresses: &[SocketAddr], question: Question) -> Result<String, String> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut last = "no address to ask".to_owned();
    for address in addresses {
        match ask_all(
            &reachable_addresses(*address, is_v6_only()),
            question,
            deadline,
        ) {
            Ok(line) => return Ok(line),
            Err(line) => last = line,
        }
    }
    Err(last)
}

/// Asks at all these addresses, without the ones that this machine lacks; the first fault counts.
fn ask_all(
    addresses: &[SocketAddr],
    question: Question,
    deadline: Instant,
) -> Result<String, String> {
    let mut well = Vec::new();
    let mut missing = "no address to ask".to_owned();
    for address in addresses {
        let fault = match ask(*address, question, deadline) {
            Ok(answer) => fault(&answer, question),
            Err(error) if is_missing(&error) => {
                missing = format!("{address}: {error}");
                continue;
            }
            Err(error) => Some(error.to_string()),
        };
        match fault {
            None => well.push(address.to_string()),
            Some(fault) => return Err(format!("{address}: {fault}")),
        }
    }
    match well.is_empty() {
        true => Err(missing),
        false => Ok(format!("{}: {}", well.join(", "), question.wanted())),
    }
}

/// Whether this machine does not have the address, as `::1` where IPv6 is off.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Unsupported
    )
}

/// The addresses at which a caller on this machine reaches a worker that listens at `address`. A
/// socket on `::` takes IPv4 too, unless the system is set otherwise.
pub(super) fn reachable_addresses(address: SocketAddr, is_v6_only: bool) -> Vec<SocketAddr> {
    let (four, six) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips: Vec<IpAddr> = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![four],
        IpAddr::V6(ip) if ip.is_unspecified() && is_v6_only => vec![six],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![six, four],
        ip => vec![ip],
    };
    let of_port = |ip| SocketAddr::new(ip, address.port());
    ips.into_iter().map(of_port).collect()
}

pub(super) fn is_v6_only() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only");
    setting.is_ok_and(|text| text.trim() == "1")
}

/// The response to the question, as far as it came within the time.
fn ask(address: SocketAddr, question: Question, deadline: Instant) -> io::Result<Vec<u8>> {
    let is_whole = |answer: &[u8]| fault(answer, question).is_none();
    get(
        address,
        question.path(),
        deadline,
        MAX_HEALTH_RESPONSE_BYTES,
        is_whole,
    )
}

/// The reason why a response is not the whole response of a worker that is well, or ready. Another
/// program may listen at the address, so a quotation of the response is cut.
fn fault(answer: &[u8], question: Question) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    if text.is_empty() {
        return Some("closed without an answer".to_owned());
    }
    let shown = |text: &str| format!("{:?}", text.chars().take(100).collect::<String>());
    let Some((status, rest)) = text.split_once("\r\n") else {
        return Some(format!("not an answer: {}", shown(&text)));
    };
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let json = serde_json::from_str::<serde_json::Value>(body);
    if question == Question::Ready && status.starts_with("HTTP/1.1 404 ") {
        let hint = "it is asked at the address of --admin (FAAS_ADMIN), if the worker has one";
        return Some(format!("no /ready here: {hint}"));
    }
    if !status.starts_with("HTTP/1.1 200 ") {
        let why = json.as_ref().ok().and_then(|body| body["detail"].as_str());
        let why = why.map_or_else(String::new, |why| format!(", {}", shown(why)));
        return Some(format!("not {}: {}{why}", not_so(question), shown(status)));
    }
    match json {
        Ok(body) if body["status"] == question.wanted() => None,
        Ok(_) | Err(_) => Some(format!("not the answer of a worker: {}", shown(body))),
    }
}

/// The state that a worker lacks when it answers with an error.
fn not_so(question: Question) -> &'static str {
    match question {
        Question::Health => "well",
        Question::Ready => "ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_asked_where_callers_reach_it() {
        for (listens, is_v6_only, asked) in [
            ("0.0.0.0:80", false, &["127.0.0.1:80"][..]),
            ("[::]:80", false, &["[::1]:80", "127.0.0.1:80"]),
            ("[::]:80", true, &["[::1]:80"]),
            ("127.0.0.1:80", false, &["127.0.0.1:80"]),
            ("[::1]:80", false, &["[::1]:80"]),
            ("192.0.2.1:80", false, &["192.0.2.1:80"]),
        ] {
            let addresses = reachable_addresses(listens.parse().unwrap(), is_v6_only);
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(addresses, asked, "{listens}");
        }
    }

    #[test]
    fn an_address_that_is_not_there_counts_only_when_there_is_no_other() {
        let missing: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let deadline = Instant::now() + TIME_LIMIT;
        let asked = ask_all(&[missing], Question::Health, deadline);
        assert!(asked.unwrap_err().starts_with("[2001:db8::1]:1: "));
    }
}
