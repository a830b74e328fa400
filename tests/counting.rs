//! The figures of a worker against those of its clients: each request counted once, under what
//! became of it, while processes die, clients hang up and two threads count.
//!
//! 20,000 requests and some 200 deaths of processes; `FAAS_TEST_REQUESTS=100000` has more than
//! 1,000.

use crate::support::client::{body_of, request_bytes};
use crate::support::{Chance, Worker, eventually, misbehave};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const CLIENTS: u64 = 16;

/// Deaths among the requests that wait for their answers: one in this many.
const ONE_DEATH_IN: u64 = 90;

fn requests() -> u64 {
    let count = std::env::var("FAAS_TEST_REQUESTS").ok();
    count.map_or(20_000, |count| count.parse().unwrap())
}

/// What a client has seen become of its requests.
#[derive(Debug, Default)]
struct Seen {
    /// Answers by outcome: `ok`, or the code of the failure.
    answers: BTreeMap<String, u64>,
    /// Requests that were sent whole, by clients that closed the connection before an answer came.
    hung_up: u64,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        for (outcome, count) in other.answers {
            *self.answers.entry(outcome).or_default() += count;
        }
        self.hung_up += other.hung_up;
    }
}

/// Sends requests until none are left; closes one in fifty connections behind its request.
fn ask(worker: &Worker, seed: u64, left: &AtomicU64) -> Seen {
    let mut chance = Chance::seeded(seed);
    let mut connection = worker.connect();
    let mut seen = Seen::default();
    let mut number = 0;
    while left
        .try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
        .is_ok()
    {
        number += 1;
        let mark = format!("#{seed} {number}");
        if chance.below(50) == 0 {
            let payload = match chance.below(2) {
                0 => format!("echo {mark}"),
                _ => format!("sleep 3 {mark}"),
            };
            connection.send_payload(&payload).unwrap();
            // An orderly end: a reset would also take the request out of the kernel's buffer.
            connection = worker.connect();
            seen.hung_up += 1;
            continue;
        }
        let payload = match chance.below(ONE_DEATH_IN) {
            0 => format!("exit 3 {mark}"),
            1..10 => format!("error {mark}"),
            _ => format!("echo {mark}"),
        };
        let body = match chance.below(100) {
            0 => b"{}".to_vec(),
            _ => body_of(&payload),
        };
        let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body));
        connection.send(&bytes).unwrap();
        let answer = connection.receive().unwrap();
        let outcome = answer.header("x-faas-error").unwrap_or("ok").to_owned();
        *seen.answers.entry(outcome).or_default() += 1;
        // Probes between them are no requests for the function.
        if chance.below(100) == 0 {
            connection.request("GET", "/health", &[], None).unwrap();
        }
    }
    seen
}

/// Requests by outcome, without outcomes that no request had.
fn counted(worker: &Worker) -> BTreeMap<String, u64> {
    let figures = worker.scrape();
    let outcomes = figures.iter().filter_map(|(name, count)| {
        let outcome = name.strip_prefix("faas_requests_total{outcome=\"")?;
        let outcome = outcome.strip_suffix("\"}").unwrap().to_owned();
        // Whole numbers far below 2^53.
        Some((outcome, format!("{count}").parse().unwrap()))
    });
    outcomes.filter(|(_, count)| *count > 0).collect()
}

/// Every outcome that the clients bring about, once, so that each has its series.
fn have_each_outcome(worker: &Worker) {
    let mut connection = worker.connect();
    for payload in ["echo", "error", "exit 3", "echo"] {
        connection.post(payload).unwrap();
    }
    let bad = request_bytes(worker.address, "POST", "/", &[], Some(b"{}"));
    connection.send(&bad).unwrap();
    connection.receive().unwrap();
}

/// The comparison. A request with an answer is counted under that answer: each number of a failure
/// is the clients' own. A client that hung up has no answer; its request is counted once too: as
/// `client_gone`, or as `ok` where the process was faster than the news of the hang-up. So `ok` and
/// `client_gone` together are the answers of 200 and the hang-ups, neither is less than its own
/// part can be, and the sum over all outcomes is the number of requests that were sent.
#[test]
fn figures_and_clients_agree_to_the_unit_while_processes_die_and_clients_hang_up() {
    let worker = misbehave(&["--ready"])
        .option("--processes", "4")
        .option("--threads", "2")
        .option("--log-level", "error")
        .start_quietly();
    worker.wait_until_ready();
    have_each_outcome(&worker);
    let (before, series) = (counted(&worker), worker.scrape().into_keys());
    let series: Vec<String> = series.collect();
    let sent = requests();
    let left = AtomicU64::new(sent);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let clients = (1..=CLIENTS).map(|seed| {
            let (worker, left) = (&worker, &left);
            scope.spawn(move || ask(worker, seed, left))
        });
        let clients: Vec<_> = clients.collect();
        for client in clients {
            seen.add(client.join().unwrap());
        }
    });
    let answered: u64 = seen.answers.values().sum();
    assert_eq!(answered + seen.hung_up, sent);
    // The last hang-ups may be on their way.
    let counted = eventually("all requests are counted", || {
        let mut counted = counted(&worker);
        for (outcome, count) in &before {
            *counted.get_mut(outcome).unwrap() -= count;
        }
        (counted.values().sum::<u64>() >= sent).then_some(counted)
    });
    eprintln!("{counted:?} counted, {seen:?}");
    assert_eq!(counted.values().sum::<u64>(), sent);
    let of = |outcome: &str| counted.get(outcome).copied().unwrap_or(0);
    for (outcome, count) in &counted {
        let own = seen.answers.get(outcome).copied().unwrap_or(0);
        match outcome.as_str() {
            "ok" => assert!((own..=own + seen.hung_up).contains(count), "{own} {count}"),
            "client_gone" => assert!(*count <= seen.hung_up, "{count}"),
            failure => assert_eq!(*count, own, "{failure}"),
        }
    }
    assert_eq!(
        of("ok") + of("client_gone"),
        seen.answers["ok"] + seen.hung_up
    );
    assert!(of("client_gone") > 0, "hang-ups are seen");

    // Deaths leave no series behind: none has a process in its labels.
    let deaths = seen.answers["handler_exited"];
    assert!(deaths > sent / 150, "{deaths}");
    let all_deaths = (deaths + before["handler_exited"]) as f64;
    let figures = eventually("all deaths are counted", || {
        let figures = worker.scrape();
        let counted = figures["faas_process_exits_total{reason=\"exited\"}"];
        (counted >= all_deaths).then_some(figures)
    });
    let counted = figures["faas_process_exits_total{reason=\"exited\"}"];
    assert_eq!(counted, all_deaths);
    let after: Vec<String> = figures.into_keys().collect();
    assert_eq!(after, series);
}
