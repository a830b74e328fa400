//! Clients that are slow, close half of their connection, or come in thousands.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Connection, Ledger, Worker, assert_error, assert_result, eventually, misbehave, processes,
    within,
};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// E2: a byte now and then does not prolong the time limit of a head or a body.
#[test]
fn bytes_that_come_one_by_one_do_not_prolong_a_request() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--header-timeout", "500ms")
        .option("--body-timeout", "500ms")
        .start();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("slow")));
    let head = bytes.len() - body_of("slow").len();
    // In the head, and in the body.
    for whole in [0, head] {
        let mut connection = worker.connect();
        connection.send(&bytes[..whole]).unwrap();
        let start = Instant::now();
        // All of it would take far longer than the limit.
        let mut rest = bytes[whole..].iter();
        let is_cut_off = loop {
            let Some(byte) = rest.next() else { break false };
            if connection.send(&[*byte]).is_err() || connection.has_answer() {
                break true;
            }
            // The pace of a slow client.
            std::thread::sleep(Duration::from_millis(200));
        };
        assert!(is_cut_off, "{whole}: {:?}", start.elapsed());
        match connection.receive() {
            Ok(response) => assert_error(&response, 408, "body_timeout", "no"),
            // A head in time closes without a word.
            Err(error) => assert_eq!(whole, 0, "{error}"),
        }
    }
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
}

/// A caller's budget begins with its request: a body that comes slowly is part of it.
#[test]
fn a_budget_that_is_spent_on_the_body_ends_the_request() {
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&["--ready"]).start();
    let headers = [("x-faas-timeout-ms", "300")];
    let bytes = request_bytes(
        worker.address,
        "POST",
        "/",
        &headers,
        Some(&body_of("late")),
    );
    let mut connection = worker.connect();
    let start = Instant::now();
    connection.send(&bytes[..bytes.len() - 1]).unwrap();
    assert_error(&connection.receive().unwrap(), 408, "body_timeout", "no");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(290), "{took:?}");
    // The limit for bodies alone is 30 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(ledger.payloads().is_empty(), "{:?}", ledger.payloads());
}

/// A connection of which only the sending side is closed looks like a closed one. Its client counts
/// as gone, because a request must not be run for a client that has left.
#[test]
fn a_client_that_closes_its_sending_side_counts_as_gone() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    let pid = worker.process();
    let running = worker.post_aside("sleep 1000");
    ledger.wait_for_start("sleep 1000");
    let mut leaving = worker.connect();
    leaving.send_payload("left").unwrap();
    leaving.stream.shutdown(Shutdown::Write).unwrap();
    let ended = leaving.receive().map(|response| response.status);
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(running.join().unwrap().status, 200);
    assert_result(&worker.post("own"), "own");
    assert_eq!(ledger.count("left"), 0);
    assert_eq!(worker.process(), pid);
    // With nothing asked it is closed as well, and not kept until the idle time is over.
    let mut idle = worker.connect();
    idle.stream.shutdown(Shutdown::Write).unwrap();
    assert!(idle.is_closed_by_worker());
}

/// E1: a client also counts as gone when unread bytes stand between its request and the close.
#[test]
fn a_client_that_leaves_is_noticed_behind_what_it_sent_further() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    let request =
        |payload: &str| request_bytes(worker.address, "POST", "/", &[], Some(&body_of(payload)));
    let long = "x".repeat(3_000);
    let cases = [
        ("a line", [request("left 0"), b"\r\n".to_vec()].concat()),
        ("a byte", [request("left 1"), b"P".to_vec()].concat()),
        ("a request", request("left 2").repeat(2)),
        ("ten requests", request("left 3").repeat(10)),
        (
            // Not more than the kernel's buffers hold: the close comes behind these bytes.
            "more than is read ahead",
            request(&format!("left 4 {long}")).repeat(16),
        ),
    ];
    for (name, bytes) in cases {
        for half in [true, false] {
            let held = format!("sleep 1500 #{name} {half}");
            let running = worker.post_aside(&held);
            ledger.wait_for_start(&held);
            let mut leaving = worker.connect();
            leaving.send(&bytes).unwrap();
            worker.wait_until_read();
            if half {
                leaving.stream.shutdown(Shutdown::Write).unwrap();
                let ended = leaving.receive().map(|response| response.status);
                assert!(ended.is_err(), "{name}: {ended:?}");
            }
            drop(leaving);
            assert_eq!(running.join().unwrap().status, 200);
            assert_result(&worker.post("own"), "own");
        }
    }
    let left = |payload: &String| payload.starts_with("left");
    let run: Vec<_> = ledger.payloads().into_iter().filter(left).collect();
    assert!(run.is_empty(), "{run:.60?}");
}

const FLOOD: usize = 20_000;
const ATTACKERS: usize = 16;
/// Connections that an attacker holds open at one time.
const HELD: usize = 150;

/// A worker with too few descriptors for most connections.
fn narrow() -> Worker {
    let worker = misbehave(&["--ready"]).prepared_by("ulimit -n 256").start();
    worker.wait_until_ready();
    worker
}

/// Sends one request, again and again while the connection is closed for want of room.
fn persist(worker: &Worker, payload: &str) -> usize {
    let limit = Duration::from_secs(60);
    let mut tries = 0;
    within(limit, "is answered in the end", || {
        tries += 1;
        let mut connection = Connection::open(worker.address).ok()?;
        let response = connection.post(payload).ok()?;
        assert_result(&response, payload);
        Some(())
    });
    tries
}

/// E3.
#[test]
fn a_flood_of_connections_neither_ends_the_worker_nor_keeps_others_out() {
    let mut worker = narrow();
    let address = worker.address;
    let opened = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|attacker| {
            let opened = Arc::clone(&opened);
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for number in 0..FLOOD / ATTACKERS {
                    let limit = Duration::from_millis(500);
                    let Ok(stream) = TcpStream::connect_timeout(&address, limit) else {
                        continue;
                    };
                    opened.fetch_add(1, Ordering::Relaxed);
                    // Some say nothing, some begin, and some ask.
                    let said: &[u8] = match (attacker + number) % 3 {
                        0 => b"",
                        1 => b"POST / HT",
                        _ => b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                    };
                    let _ = std::io::Write::write_all(&mut &stream, said);
                    held.push_back(stream);
                    if held.len() > HELD {
                        reset(held.pop_front().unwrap());
                    }
                }
                held.into_iter().for_each(reset);
            })
        })
        .collect();
    let end = Arc::clone(&is_over);
    let watch = std::thread::spawn(move || {
        for attacker in attackers {
            attacker.join().unwrap();
        }
        end.store(true, Ordering::Relaxed);
    });
    let mut served = 0;
    let mut tries = 0;
    while !is_over.load(Ordering::Relaxed) {
        tries += persist(&worker, &format!("meanwhile {served}"));
        served += 1;
    }
    watch.join().unwrap();
    let opened = opened.load(Ordering::Relaxed);
    eprintln!("{opened} connections opened, {served} requests served in {tries} tries meanwhile");
    assert!(opened > FLOOD / 2, "{opened}");
    assert!(served > 0);
    assert_result(&worker.post("after"), "after");
    eventually("the flood is gone from its descriptors", || {
        (processes::descriptor_count(worker.pid()) < 64).then_some(())
    });
    assert!(!worker.has_ended());
}

/// E3: without a free descriptor, and without a connection that may be closed, the worker waits and
/// does not spin.
#[test]
fn without_descriptors_the_worker_waits_and_recovers() {
    let worker = narrow();
    let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of("half")));
    let half = &bytes[..bytes.len() - 1];
    let held: Vec<_> = (0..600)
        .map(|_| {
            let mut connection = worker.connect();
            connection.send(half).unwrap();
            connection
        })
        .collect();
    worker.log.wait_for(&["cannot accept connections"]);
    // Nothing may happen while it waits.
    let before = processes::cpu_ticks(worker.pid());
    std::thread::sleep(Duration::from_secs(2));
    let ticks = processes::cpu_ticks(worker.pid()) - before;
    // Of 200. A loop without a pause takes all that it can get, and on a busy machine half of it.
    eprintln!("{ticks} ticks of 10 ms in 2 s");
    assert!(ticks < 20, "{ticks} ticks of 10 ms in 2 s");
    held.into_iter().for_each(Connection::reset);
    persist(&worker, "after");
    eventually("they are gone from its descriptors", || {
        (processes::descriptor_count(worker.pid()) < 64).then_some(())
    });
    assert_result(&worker.post("at once"), "at once");
}

/// Closes without TIME_WAIT on this side, so that thousands of connections do not use up the ports.
fn reset(stream: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

/// E1: a client that reads nothing fills no kernel buffers: a container's memory limit counts them.
#[test]
fn a_client_that_takes_nothing_fills_no_buffers_of_the_kernel() {
    let worker = misbehave(&["--ready"]).start();
    let mut connection = worker.connect().holding_little();
    let request = request_bytes(worker.address, "GET", "/openapi.json", &[], None);
    connection.send(&request.repeat(200)).unwrap();
    let port = connection.stream.local_addr().unwrap().port();
    // Full when nothing has been added for a while.
    let (mut last, mut same) = (0, 0);
    let unsent = eventually("the worker can write no more", || {
        let now = unsent_bytes(worker.address.port(), port);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        std::thread::sleep(Duration::from_millis(20));
        (same == 10).then_some(now)
    });
    assert!(unsent < 256 * 1024, "{unsent} bytes wait in the kernel");
}

/// The bytes that wait in the kernel to be sent from one port of this machine to another.
fn unsent_bytes(from: u16, to: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    let queue = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&from) && fields[2].ends_with(&to);
        is_it.then(|| fields[4].split(':').next().unwrap().to_owned())
    });
    queue.map_or(0, |bytes| u64::from_str_radix(&bytes, 16).unwrap())
}
