//! Requests that wait, and callers that leave.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Chance, Connection, Ledger, Worker, assert_error, assert_result, eventually, misbehave, sh,
};
use std::io::Write;
use std::time::{Duration, Instant};

/// D1, in small.
#[test]
fn a_full_queue_refuses_at_once() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--queue", "2")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 1500 #running");
    ledger.wait_for_start("sleep 1500 #running");
    let waiting: Vec<_> = (0..6)
        .map(|number| {
            let payload = format!("waiting {number}");
            let mut connection = worker.connect();
            std::thread::spawn(move || {
                let start = Instant::now();
                let response = connection.post(&payload).unwrap();
                (payload, response, start.elapsed())
            })
        })
        .collect();
    // Liveness does not depend on the queue.
    assert_eq!(worker.get("/health").status, 200);
    assert_result(&running.join().unwrap(), "sleep 1500 #running");
    let mut refused = 0;
    let mut fastest = Duration::MAX;
    for waiting in waiting {
        let (payload, response, took) = waiting.join().unwrap();
        if response.status == 200 {
            assert_result(&response, payload);
        } else {
            assert_error(&response, 429, "overloaded", "no");
            assert_eq!(ledger.count(&payload), 0);
            fastest = fastest.min(took);
            refused += 1;
        }
    }
    assert_eq!(refused, 4, "two may wait");
    assert!(fastest < Duration::from_millis(10), "{fastest:?}");
}

/// D2.
#[test]
fn a_request_that_waited_too_long_is_refused_and_never_run() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .option("--queue-timeout", "300ms")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 5000 #running");
    ledger.wait_for_start("sleep 5000 #running");
    let start = Instant::now();
    let response = worker.post("impatient");
    let took = start.elapsed();
    assert_error(&response, 429, "overloaded", "no");
    assert!(
        took >= Duration::from_millis(290) && took < Duration::from_millis(4500),
        "{took:?}"
    );
    assert_result(&running.join().unwrap(), "sleep 5000 #running");
    assert_result(&worker.post("last"), "last");
    assert_eq!(ledger.count("impatient"), 0);
    // The callers' impatience has ended no process.
    assert_eq!(worker.log.text().matches("process started").count(), 1);
}

/// The caller's own limit counts from arrival, the queue included.
#[test]
fn a_caller_s_timeout_is_its_whole_budget() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    let within = |payload: &str, limit: &str| {
        let body = body_of(payload);
        let headers = [("x-faas-timeout-ms", limit)];
        worker
            .connect()
            .request("POST", "/", &headers, Some(&body))
            .unwrap()
    };
    assert_error(
        &within("sleep 2000", "200"),
        504,
        "handler_timeout",
        "maybe",
    );
    assert_result(&within("sleep 1", "5000"), "sleep 1");
    let running = worker.post_aside("sleep 1000 #running");
    ledger.wait_for_start("sleep 1000 #running");
    assert_error(&within("impatient", "200"), 429, "overloaded", "no");
    running.join().unwrap();
    assert_result(&worker.post("last"), "last");
    assert_eq!(ledger.count("impatient"), 0);
}

/// D2.
#[test]
fn a_waiting_request_whose_client_has_left_is_never_run() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 700 #running");
    ledger.wait_for_start("sleep 700 #running");
    for number in 0..10 {
        let mut leaver = worker.connect();
        leaver.send_payload(&format!("left {number}")).unwrap();
        if number % 2 == 0 {
            leaver.reset();
        }
    }
    let patient = worker.post_aside("patient");
    assert_result(&running.join().unwrap(), "sleep 700 #running");
    assert_result(&patient.join().unwrap(), "patient");
    assert_eq!(ledger.payloads(), ["sleep 700 #running", "patient"]);
}

/// D3: the queue is one, and first in is first out.
#[test]
fn requests_are_started_in_the_order_of_their_arrival() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    let running = worker.post_aside("sleep 3000 #running");
    ledger.wait_for_start("sleep 3000 #running");
    let mut connections: Vec<Connection> = Vec::new();
    for number in 0..8 {
        let mut connection = worker.connect();
        connection.send_payload(&format!("{number}")).unwrap();
        connections.push(connection);
        // Only then the order at the worker is that of the sending.
        eventually("the request is in the queue", || {
            let figures = worker.scrape();
            let open = figures["faas_requests_active"] + figures["faas_queue_length"];
            (open == f64::from(number + 2)).then_some(())
        });
    }
    running.join().unwrap();
    for (number, mut connection) in connections.into_iter().enumerate() {
        assert_result(&connection.receive().unwrap(), number.to_string());
    }
    let order: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(ledger.payloads()[1..], order);
}

/// D3.
#[test]
fn a_slow_request_holds_up_no_fast_one() {
    let worker = misbehave(&["--ready"]).start();
    worker.wait_for_processes(2);
    worker.wait_until_ready();
    let slow = worker.post_aside("sleep 2000 #slow");
    for number in 0..50 {
        let payload = format!("fast {number}");
        assert_result(&worker.post(&payload), payload);
    }
    assert!(
        !slow.is_finished(),
        "fifty fast ones took longer than the slow one"
    );
    assert_result(&slow.join().unwrap(), "sleep 2000 #slow");
}

/// All processes work at the same time, which no leaked slot or permit allows.
#[track_caller]
fn assert_all_slots_work(worker: &Worker, slots: usize) {
    eventually("all slots work at once", || {
        let start = Instant::now();
        let waiting: Vec<_> = (0..slots)
            .map(|number| worker.post_aside(&format!("sleep 400 #{number}")))
            .collect();
        for (number, waiting) in waiting.into_iter().enumerate() {
            assert_result(&waiting.join().unwrap(), format!("sleep 400 #{number}"));
        }
        (start.elapsed() < Duration::from_millis(790)).then_some(())
    });
}

/// D4.
#[test]
fn callers_that_hang_up_at_any_point_cost_no_slot() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--ready"])
        .option("--processes", "4")
        .start();
    worker.wait_until_ready();
    let address = worker.address;
    let clients: Vec<_> = (0..4_u64)
        .map(|client| {
            std::thread::spawn(move || {
                let mut chance = Chance::seeded(client + 7);
                for round in 0..5000 {
                    let payload = format!("{client}-{round}");
                    let bytes = request_bytes(address, "POST", "/", &[], Some(&body_of(&payload)));
                    let mut connection = Connection::open(address).unwrap();
                    // Half a request sometimes, a whole one more often; left at once, or
                    // after as long as the hand-over takes, or after the answer.
                    let sent = match chance.below(4) {
                        0 => usize::try_from(chance.below(bytes.len() as u64)).unwrap(),
                        _ => bytes.len(),
                    };
                    connection.stream.write_all(&bytes[..sent]).unwrap();
                    let pause = chance.below(400);
                    if pause > 100 {
                        std::thread::sleep(Duration::from_micros(pause - 100));
                    }
                    if sent == bytes.len() && chance.below(20) == 0 {
                        assert_result(&connection.receive().unwrap(), payload);
                    }
                    if chance.below(8) != 0 {
                        connection.reset();
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_all_slots_work(&worker, 4);
    worker.wait_for_processes(4);
    ledger.assert_none_twice();
}

/// D4: with several requests at once in a process.
#[test]
fn callers_that_hang_up_cost_no_room_in_a_concurrent_process() {
    let worker = misbehave(&["--announce", "4"])
        .option("--processes", "1")
        .start();
    worker.wait_until_ready();
    for round in 0..200 {
        let mut connection = worker.connect();
        connection
            .send_payload(&format!("sleep {}", round % 7))
            .unwrap();
        connection.reset();
    }
    assert_all_slots_work(&worker, 4);
}

/// D6.
#[test]
fn a_process_that_announced_nothing_is_given_one_at_a_time() {
    for ids in ["always", "never"] {
        let worker = misbehave(&["--threads", "--ids", ids])
            .option("--processes", "1")
            .start();
        let waiting: Vec<_> = (0..8).map(|_| worker.post_aside("inflight 30")).collect();
        for waiting in waiting {
            assert_result(&waiting.join().unwrap(), 1);
        }
    }
    // Node's readline starts on each line as it comes.
    let Some(node) = crate::support::interpreter("node") else {
        return;
    };
    let script = r"
let now = 0, most = 0;
require('readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  const request = JSON.parse(line);
  now += 1;
  most = Math.max(most, now);
  await new Promise((done) => setTimeout(done, 20));
  now -= 1;
  console.log(JSON.stringify({ id: request.id, result: most }));
});
";
    let worker = crate::support::Builder::new(vec![node, "-e".to_owned(), script.to_owned()])
        .option("--processes", "1")
        .start();
    let waiting: Vec<_> = (0..8).map(|_| worker.post_aside("x")).collect();
    for waiting in waiting {
        assert_result(&waiting.join().unwrap(), 1);
    }
}

#[test]
fn a_process_is_given_as_many_at_once_as_it_announced() {
    for (announced, cap, most) in [("4", "64", 4), ("16", "3", 3), ("1", "64", 1)] {
        let worker = misbehave(&["--announce", announced])
            .option("--processes", "1")
            .option("--max-concurrency", cap)
            .start();
        worker.wait_until_ready();
        let waiting: Vec<_> = (0..12).map(|_| worker.post_aside("inflight 150")).collect();
        let seen = waiting
            .into_iter()
            .map(|waiting| waiting.join().unwrap().json()["result"].as_u64().unwrap())
            .max();
        assert_eq!(seen, Some(most), "announced {announced}, at most {cap}");
    }
}

/// A timeout among concurrent requests fails its own request, and the process is replaced.
#[test]
fn a_timeout_in_a_concurrent_process_fails_only_its_own_request() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--announce", "8"])
        .option("--processes", "1")
        .option("--timeout", "2s")
        .start();
    worker.wait_until_ready();
    let pid = worker.process();
    let hung = worker.post_aside("hang");
    ledger.wait_for_start("hang");
    // The sleepers sent now end after the time limit of the hung request, and well before theirs.
    std::thread::sleep(Duration::from_millis(1200));
    let others: Vec<_> = (0..4)
        .map(|number| worker.post_aside(&format!("sleep 1000 #{number}")))
        .collect();
    assert_error(&hung.join().unwrap(), 504, "handler_timeout", "maybe");
    for (number, waiting) in others.into_iter().enumerate() {
        assert_result(&waiting.join().unwrap(), format!("sleep 1000 #{number}"));
    }
    assert_ne!(worker.process(), pid);
}

/// The context that a handler asks for in its ready line.
#[test]
fn a_handler_is_given_the_context_that_it_asked_for() {
    let script = r#"
printf '%s\n' '{"ready":true,"context":["headers","timeout_ms","request_id","traceparent"]}'
while IFS= read -r line; do printf '{"result":%s}\n' "$line"; done
"#;
    let worker = sh(script, &[])
        .option("--pass-header", "X-Device")
        .option("--timeout", "5s")
        .start();
    worker.wait_until_ready();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("X-Device", "a \"quoted\" name"),
        ("X-Secret", "kept"),
        ("x-request-id", "req-1"),
        ("traceparent", traceparent),
    ];
    let body = body_of("x");
    let response = worker
        .connect()
        .request("POST", "/", &headers, Some(&body))
        .unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let request = &response.json()["result"];
    assert_eq!(request["payload"], "x");
    assert_eq!(request["headers"]["x-device"], "a \"quoted\" name");
    assert_eq!(
        request["headers"].as_object().unwrap().len(),
        1,
        "{request}"
    );
    assert_eq!(request["request_id"], "req-1");
    assert_eq!(request["traceparent"], traceparent);
    let timeout = request["timeout_ms"].as_u64().unwrap();
    assert!((1..=5000).contains(&timeout), "{timeout}");
}
