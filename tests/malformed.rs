//! Malformed requests: each gets a documented answer, or the end of its connection.
//!
//! A table of ways to be wrong, each sent in several shapes (whole, in pieces, after another
//! request, …), which a seed picks. In all cases there are no more answers than requests, no
//! smuggled request is run, and the worker serves the next request.

use crate::support::client::{body_of, request_bytes};
use crate::support::{Chance, Connection, Ledger, Response, Worker, assert_result};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

// A table is read by its rows, and a row is a line.
#[rustfmt::skip]
mod table;

use table::{Case, cases};

const SEED: u64 = 20;
const CLIENTS: usize = 16;

/// The shapes in which a case is sent.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Whole,
    /// In pieces of a few bytes.
    Pieces,
    /// The names of headers in any case.
    AnyCase,
    /// With another header in front.
    MoreHeaders,
    /// On a connection that has been used before.
    Second,
}

const SHAPES: [Shape; 5] = [
    Shape::Whole,
    Shape::Pieces,
    Shape::AnyCase,
    Shape::MoreHeaders,
    Shape::Second,
];

/// E4, E5, E7.
#[test]
fn no_malformed_request_is_run_or_hangs_or_harms_another() {
    let ledger = Ledger::new();
    let mut worker = ledger
        .misbehave(&["--ready"])
        // Some cases last until these limits.
        .option("--header-timeout", "3s")
        .option("--body-timeout", "3s")
        .option("--keep-alive", "6s")
        .option("--max-body", "64KiB")
        .start();
    worker.wait_until_ready();
    let processes = worker.wait_for_processes(2);
    let table = cases();
    let rounds: Vec<(usize, Shape)> = SHAPES
        .iter()
        .flat_map(|shape| (0..table.len()).map(|index| (index, *shape)))
        .collect();
    assert!(rounds.len() >= 512, "{} requests", rounds.len());
    eprintln!("{} requests, {} cases", rounds.len(), table.len());
    let next = AtomicUsize::new(0);
    let send_all = || {
        let mut wrong = Vec::new();
        while let Some((index, shape)) = rounds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let case = &table[*index];
            let chance = &mut Chance::seeded(SEED + *index as u64);
            if let Some(what) = check(&worker, case, *shape, chance) {
                wrong.push(format!("{} ({shape:?}): {what}", case.name));
            }
            let between = format!("between {index} {shape:?}");
            assert_result(&worker.post(&between), between);
        }
        wrong
    };
    // The scope ends after all of its threads, even after a panic: then the worker may be ended.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(send_all)).collect();
        let complaints = clients.into_iter().map(|client| client.join().unwrap());
        complaints.flatten().collect()
    });
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for payload in ledger.payloads() {
        assert!(
            payload == "accepted" || payload.starts_with("between "),
            "this was run: {payload}"
        );
    }
    assert!(!worker.has_ended());
    assert_eq!(worker.wait_for_processes(2), processes, "none was replaced");
}

/// Sends one case in one shape; gives the answers that are not allowed.
fn check(worker: &Worker, case: &Case, shape: Shape, chance: &mut Chance) -> Option<String> {
    let mut connection = worker.connect();
    let mut bytes = case.bytes.clone();
    match shape {
        Shape::Whole | Shape::Pieces => {}
        Shape::AnyCase => in_any_case(&mut bytes, chance),
        Shape::MoreHeaders => {
            if let Some(at) = find(&bytes, b"\r\n").filter(|_| bytes.starts_with(b"POST ")) {
                bytes.splice(at..at, *b"\r\nX-More: 1, 2\r\nAccept: */*");
            }
        }
        Shape::Second => {
            let first = connection.request("GET", "/health", &[], None).unwrap();
            assert_eq!(first.status, 200);
        }
    }
    let pieces: Vec<&[u8]> = match shape {
        Shape::Pieces => in_pieces(&bytes, chance),
        Shape::Whole | Shape::AnyCase | Shape::MoreHeaders | Shape::Second => vec![&bytes],
    };
    for piece in pieces {
        // A refused request may find its connection closed before all of it is sent.
        if connection.send(piece).is_err() {
            break;
        }
    }
    let answers = match answers(worker, &mut connection, case) {
        Ok(answers) => answers,
        Err(error) => return Some(error),
    };
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    if statuses.len() > case.requests {
        return Some(format!("more answers than requests: {statuses:?}"));
    }
    if statuses.is_empty() && !case.may_be_closed {
        return Some("closed without an answer".to_owned());
    }
    answers.iter().find_map(|answer| {
        let is_documented = match answer.header("x-faas-error") {
            // Found by the reader of HTTP: its bare answer.
            None if answer.status != 200 => answer.body.is_empty(),
            None => true,
            Some(_) => answer.header("x-faas-executed") == Some("no"),
        };
        let is_allowed = case.allowed.contains(&answer.status) && is_documented;
        let allowed = &case.allowed;
        (!is_allowed).then(|| format!("not one of {allowed:?}: {answer:?} {}", answer.text()))
    })
}

/// All that comes back, up to the end of the connection. Where it stays open, a last request finds
/// out that no answer is left over.
fn answers(
    worker: &Worker,
    connection: &mut Connection,
    case: &Case,
) -> Result<Vec<Response>, String> {
    let method = if case.bytes.starts_with(b"HEAD ") {
        "HEAD"
    } else {
        "POST"
    };
    let last = [("x-request-id", "last"), ("connection", "close")];
    let last = request_bytes(worker.address, "GET", "/health", &last, None);
    let mut answers = Vec::new();
    let mut is_last_sent = false;
    loop {
        let received = match answers.is_empty() {
            true => connection.receive_to(method),
            false => connection.receive(),
        };
        match received {
            Ok(answer) if answer.header("x-request-id") == Some("last") => return Ok(answers),
            Ok(answer) => {
                let stays_open = answer.header("connection") != Some("close");
                answers.push(answer);
                if stays_open && !is_last_sent && answers.len() == case.requests {
                    is_last_sent = true;
                    let _ = connection.send(&last);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(format!("hangs after {answers:?}"));
            }
            Err(error) if error.kind() == ErrorKind::Other => return Err(error.to_string()),
            Err(_) => return Ok(answers),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Gives the letters of each header's name any case.
fn in_any_case(bytes: &mut [u8], chance: &mut Chance) {
    let end = find(bytes, b"\r\n\r\n").unwrap_or(0);
    let start = find(bytes, b"\r\n").unwrap_or(end);
    let mut is_name = false;
    for byte in &mut bytes[start.min(end)..end] {
        match byte {
            b'\n' => is_name = true,
            b':' => is_name = false,
            _ if is_name && chance.below(2) == 0 => {
                *byte ^= 32 * u8::from(byte.is_ascii_alphabetic())
            }
            _ => {}
        }
    }
}

fn in_pieces<'a>(mut bytes: &'a [u8], chance: &mut Chance) -> Vec<&'a [u8]> {
    let most = 1 + bytes.len() as u64 / 12;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(1 + chance.below(most)).unwrap();
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// The payload of a request that is broken; it must never be run.
fn smuggled() -> Vec<u8> {
    body_of("smuggled")
}

/// The payload of a request that is odd, but understood in one way only.
fn accepted() -> Vec<u8> {
    body_of("accepted")
}
