//! Clients that send, hang up and stall.

use crate::faults::{Fault, Mode, pick};
use crate::support::{Chance, Connection, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 24;
const STALLERS: u64 = 4;

/// The client hangs up on one request in this many.
const HANGS_UP: u64 = 60;

/// What came back for a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(Answer),
    /// The connection ended without an answer.
    Lost(String),
    /// The client left on purpose.
    HungUp,
}

/// The part of an answer that the checker looks at.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) executed: Option<String>,
    pub(crate) body: Vec<u8>,
    closes: bool,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        let header = |name| response.header(name).map(str::to_owned);
        Answer {
            status: response.status,
            code: header("x-faas-error"),
            executed: header("x-faas-executed"),
            closes: response.header("connection") == Some("close"),
            body: response.body,
        }
    }
}

/// One request, and what came back.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) payload: String,
    pub(crate) fault: &'static Fault,
    pub(crate) outcome: Outcome,
}

/// All clients of one storm.
pub(crate) struct Clients {
    sent: Arc<AtomicU64>,
    requests: u64,
    is_over: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Vec<Record>>>,
    stallers: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(crate) fn start(
        address: SocketAddr,
        mode: Mode,
        requests: u64,
        limit: Duration,
        seed: u64,
    ) -> Clients {
        let (sent, is_over) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let end = Instant::now() + limit;
        let senders = (0..CLIENTS).map(|client| {
            let sent = Arc::clone(&sent);
            let mut chance = Chance::seeded(seed.wrapping_mul(1000) + client);
            thread::spawn(move || {
                let mut records = Vec::new();
                let mut connection = None;
                while Instant::now() < end {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        break;
                    }
                    records.push(send(address, mode, number, &mut connection, &mut chance));
                }
                records
            })
        });
        let senders = senders.collect();
        let stallers = (0..STALLERS).map(|staller| {
            let is_over = Arc::clone(&is_over);
            let mut chance = Chance::seeded(seed.wrapping_mul(1000) + CLIENTS + staller);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    stall(address, &mut chance);
                }
            })
        });
        let stallers = stallers.collect();
        Clients {
            sent,
            requests,
            is_over,
            senders,
            stallers,
        }
    }

    /// Waits until a part of all requests has been sent, in percent, or the storm is over.
    pub(crate) fn wait_for_part(&self, percent: u64) {
        while self.sent.load(Ordering::Relaxed) < self.requests * percent / 100
            && !self.senders.iter().all(JoinHandle::is_finished)
        {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn join(self) -> Vec<Record> {
        let records = self.senders.into_iter();
        let records = records.flat_map(|sender| sender.join().unwrap()).collect();
        self.is_over.store(true, Ordering::Relaxed);
        for staller in self.stallers {
            staller.join().unwrap();
        }
        records
    }
}

fn send(
    address: SocketAddr,
    mode: Mode,
    number: u64,
    connection: &mut Option<Connection>,
    chance: &mut Chance,
) -> Record {
    let fault = pick(mode, chance);
    let filler = "é\"\\\u{2028}{\"id\":1}".repeat(usize::try_from(chance.below(4)).unwrap());
    let payload = format!("{} #{number} {filler}", fault.command);
    let is_hung_up = chance.below(HANGS_UP) == 0;
    let outcome = match exchange(address, connection, &payload, is_hung_up, chance) {
        Ok(Some(response)) => Outcome::Answered(response.into()),
        Ok(None) => Outcome::HungUp,
        Err(error) => Outcome::Lost(error.to_string()),
    };
    let closes = match &outcome {
        Outcome::Answered(answer) => {
            if answer.status == 503 {
                // A pause as `retry-after` asks for it, but shorter.
                thread::sleep(Duration::from_millis(5));
            }
            answer.closes
        }
        Outcome::Lost(_) | Outcome::HungUp => true,
    };
    if closes {
        *connection = None;
    }
    Record {
        number,
        payload,
        fault,
        outcome,
    }
}

fn exchange(
    address: SocketAddr,
    connection: &mut Option<Connection>,
    payload: &str,
    is_hung_up: bool,
    chance: &mut Chance,
) -> std::io::Result<Option<Response>> {
    if connection.is_none() {
        *connection = Some(Connection::open(address)?);
    }
    let Some(open) = connection else {
        return Ok(None);
    };
    open.send_payload(payload)?;
    if is_hung_up {
        thread::sleep(Duration::from_micros(chance.below(2000)));
        if let Some(open) = connection.take().filter(|_| chance.below(2) == 0) {
            open.reset();
        }
        return Ok(None);
    }
    open.receive().map(Some)
}

/// Holds a connection for a while with half a request, garbage, or nothing at all.
fn stall(address: SocketAddr, chance: &mut Chance) {
    let Ok(mut connection) = Connection::open(address) else {
        return thread::sleep(Duration::from_millis(20));
    };
    let pieces: [&[u8]; 6] = [
        b"",
        b"POST / HTTP/1.1\r\nHost: loc",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"payl",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /ready HTT",
    ];
    let piece = pieces[usize::try_from(chance.below(6)).unwrap()];
    let _ = connection.send(piece);
    thread::sleep(Duration::from_millis(chance.below(300)));
    if chance.below(2) == 0 {
        connection.reset();
    }
}
