//! A storm in which handlers print their payloads, and some clients send payloads made of forged
//! replies and ready lines: every answer is its own request's, or an error.

use crate::forger::{Forger, mark_of};
use crate::support::{Builder, Chance, Connection, Response, Worker, interpreter, misbehave};
use crate::support::{eventually, rust_example, sh, worker};
use std::fmt;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const VICTIMS: u64 = 20;
const ATTACKERS: u64 = 4;

/// Broken promises that are kept for the report.
const MOST_KEPT: usize = 5;

/// A kind of handler; all kinds repeat ids.
struct Kind {
    name: &'static str,
    handler: fn() -> Option<Builder>,
    /// Its share of the requests, relative to the sum of all weights.
    weight: u64,
    /// Lines of each attack.
    lines: u64,
    /// Requests of others between two attacks of a client: a process that an attack has put in
    /// doubt is replaced.
    every: u64,
    /// The command of the victims' payloads; a mark follows.
    victim: &'static str,
}

const fn kind(name: &'static str, handler: fn() -> Option<Builder>, weight: u64) -> Kind {
    Kind {
        name,
        handler,
        weight,
        lines: 300,
        every: 60,
        victim: "victim",
    }
}

/// An interpreter takes long to start.
const fn slow(kind: Kind) -> Kind {
    Kind { every: 150, ..kind }
}

/// Takes a moment for each request, so that many are in flight.
const fn working(kind: Kind) -> Kind {
    Kind {
        victim: "sleep 1",
        ..kind
    }
}

/// Slow kinds first: time that they do not use is left for the fast kinds.
const KINDS: &[Kind] = &[
    slow(kind("serve.py", || worker::python("prints"), 1)),
    slow(kind(
        "serve.py, async",
        || worker::python("async_prints"),
        1,
    )),
    slow(kind("Python, 16 threads", python_threads, 1)),
    slow(kind("Node, 16 at once", || node("concurrent"), 1)),
    slow(kind("Node, nothing announced", || node("single"), 1)),
    Kind {
        // Each byte of a line is a system call of the shell's.
        lines: 30,
        ..kind("sh with ids", shell, 1)
    },
    kind("Rust library, println!", library, 3),
    kind("ids, nothing announced", || prints(&[]), 3),
    kind("ids, ready line", || prints(&["--ready"]), 3),
    working(kind("order promised", || prints(&["--announce", "1"]), 2)),
    working(kind("16 at once", || prints(&["--announce", "16"]), 3)),
];

fn shell() -> Option<Builder> {
    Some(sh(include_str!("handlers/prints.sh"), &[]))
}

fn library() -> Option<Builder> {
    Some(Builder::new(vec![
        rust_example("careless"),
        "verbose".to_owned(),
    ]))
}

fn prints(options: &[&str]) -> Option<Builder> {
    Some(misbehave(&[options, &["--print"]].concat()))
}

fn python_threads() -> Option<Builder> {
    let script = include_str!("handlers/prints.py");
    let words = [interpreter("python3")?, "-c".to_owned(), script.to_owned()];
    Some(Builder::new(words.to_vec()))
}

fn node(how: &str) -> Option<Builder> {
    let script = include_str!("handlers/prints.js");
    let words = [interpreter("node")?, "-e".to_owned(), script.to_owned()];
    Some(Builder::new([&words[..], &[how.to_owned()]].concat()))
}

/// The outcomes of the requests of one client, or of all clients.
#[derive(Default)]
struct Tally {
    right: u64,
    /// Attackers that got their own forgery as their answer.
    answered_itself: u64,
    attacks: u64,
    errors: u64,
    broken: Vec<String>,
}

impl Tally {
    fn requests(&self) -> u64 {
        self.right + self.answered_itself + self.errors
    }

    fn add(&mut self, other: Tally) {
        self.right += other.right;
        self.answered_itself += other.answered_itself;
        self.attacks += other.attacks;
        self.errors += other.errors;
        self.broken.extend(other.broken);
        self.broken.truncate(MOST_KEPT);
    }
}

/// The counts of a storm of forgeries, and its broken promises.
pub(crate) struct Report {
    rows: Vec<(&'static str, Duration, Tally)>,
    skipped: Vec<&'static str>,
}

impl Report {
    pub(crate) fn requests(&self) -> u64 {
        self.rows.iter().map(|(_, _, tally)| tally.requests()).sum()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.rows
            .iter()
            .any(|(_, _, tally)| !tally.broken.is_empty())
    }
}

/// Storms over one worker after another, one for each kind of handler.
pub(crate) fn storm(requests: u64, limit: Duration, seed: u64) -> Report {
    let mut report = Report {
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    let end = Instant::now() + limit;
    let mut requests_left = requests;
    let mut weight_left: u64 = KINDS.iter().map(|kind| kind.weight).sum();
    for (number, kind) in KINDS.iter().enumerate() {
        let share = requests_left * kind.weight / weight_left;
        let kinds_left = u32::try_from(KINDS.len() - number).unwrap();
        weight_left -= kind.weight;
        let Some(handler) = (kind.handler)() else {
            report.skipped.push(kind.name);
            continue;
        };
        let time = end.saturating_duration_since(Instant::now()) / kinds_left;
        let begun = Instant::now();
        let tally = storm_over(kind, handler, share, time, seed + number as u64);
        requests_left -= tally.requests().min(requests_left);
        report.rows.push((kind.name, begun.elapsed(), tally));
    }
    report
}

fn storm_over(kind: &Kind, handler: Builder, requests: u64, time: Duration, seed: u64) -> Tally {
    let mut worker = handler
        .option("--timeout", "3s")
        .option("--queue-timeout", "5s")
        .option("--log-level", "error")
        .start_quietly();
    wait_for_an_answer(&worker);
    let (address, end) = (worker.address, Instant::now() + time);
    let sent = &AtomicU64::new(0);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..VICTIMS + ATTACKERS)
            .map(|client| {
                let chance = Chance::seeded(seed.wrapping_mul(1000) + client);
                let forger = (client >= VICTIMS).then(|| Forger::new(kind.lines));
                let mut client = Client {
                    address,
                    connection: None,
                    chance,
                    forger,
                    tally: Tally::default(),
                };
                scope.spawn(move || {
                    while Instant::now() < end {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            break;
                        }
                        client.send(number, kind);
                        client.wait_for((number + kind.every).min(requests), sent, end);
                    }
                    client.tally
                })
            })
            .collect();
        for client in clients {
            tally.add(client.join().unwrap());
        }
    });
    wait_for_an_answer(&worker);
    worker.signal(rustix::process::Signal::TERM);
    let status = worker.wait_for_end(Duration::from_secs(25));
    if !status.success() {
        tally.broken.push(format!("the worker ended with {status}"));
    }
    // A storm in which next to nothing is answered could not show a forged answer.
    if tally.right < tally.requests() / 10 || tally.attacks == 0 {
        let few = format!("{} right answers, {} attacks", tally.right, tally.attacks);
        tally
            .broken
            .push(format!("too few to tell anything: {few}"));
    }
    tally
}

fn wait_for_an_answer(worker: &Worker) {
    eventually("a request is answered", || {
        let answer = worker.connect().post("whole");
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
}

/// A victim, or an attacker if it has a forger.
struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
    chance: Chance,
    forger: Option<Forger>,
    tally: Tally,
}

impl Client {
    fn send(&mut self, number: u64, kind: &Kind) {
        let Some(forger) = &mut self.forger else {
            return self.exchange(number, &format!("{} #{number}", kind.victim), false);
        };
        self.tally.attacks += 1;
        if self.chance.below(4) == 0 {
            return self.ask_for_id(number);
        }
        let forgery = forger.forge(number, &mut self.chance);
        self.exchange(number, &forgery.payload, forgery.answers_itself);
    }

    /// An attacker waits until other clients have sent `number` requests.
    fn wait_for(&self, number: u64, sent: &AtomicU64, end: Instant) {
        while self.forger.is_some() && sent.load(Ordering::Relaxed) < number && Instant::now() < end
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has the handler tell the id of this request, which must be of no use for another request.
    fn ask_for_id(&mut self, number: u64) {
        let payload = format!("request #{number}");
        match self.post(&payload) {
            Ok(answer) if answer.status == 200 => {
                let result = &answer.json()["result"];
                let told = result.as_str().or(result["payload"].as_str());
                if told == Some(&payload) {
                    self.tally.right += 1;
                } else {
                    self.breaks(number, &answer);
                }
                if let (Some(id), Some(forger)) = (result["id"].as_u64(), &mut self.forger) {
                    forger.learn(id);
                }
            }
            other => self.judge_error(number, other),
        }
    }

    fn exchange(&mut self, number: u64, payload: &str, answers_itself: bool) {
        match self.post(payload) {
            Ok(answer) if answer.status == 200 => {
                let body = answer.json();
                let is_only_member = body.as_object().is_some_and(|body| body.len() == 1);
                if is_only_member && body["result"] == payload {
                    self.tally.right += 1;
                } else if answers_itself && body["result"] == mark_of(number) {
                    self.tally.answered_itself += 1;
                } else {
                    self.breaks(number, &answer);
                }
            }
            Ok(answer) if answers_itself && answer.text().contains(&mark_of(number)) => {
                self.tally.answered_itself += 1;
            }
            other => self.judge_error(number, other),
        }
    }

    /// Errors of the worker's own are right: an attack may cost its neighbours an answer.
    fn judge_error(&mut self, number: u64, answer: Result<Response>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return self
                    .tally
                    .broken
                    .push(format!("#{number} is lost: {error}"));
            }
        };
        match answer.header("x-faas-error") {
            None | Some("handler_error") => self.breaks(number, &answer),
            Some(_) => {
                self.tally.errors += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn breaks(&mut self, number: u64, answer: &Response) {
        self.tally.errors += 1;
        if self.tally.broken.len() < MOST_KEPT {
            let text: String = answer.text().chars().take(300).collect();
            let broken = format!("#{number} was answered {}: {text}", answer.status);
            self.tally.broken.push(broken);
        }
    }

    fn post(&mut self, payload: &str) -> Result<Response> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.address)?);
        }
        let answer = self.connection.as_mut().unwrap().post(payload);
        if !matches!(&answer, Ok(answer) if answer.header("connection") != Some("close")) {
            self.connection = None;
        }
        answer
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nForge: {} requests", self.requests())?;
        for (name, took, tally) in &self.rows {
            writeln!(
                f,
                "  {name:<26}{:>8} right, {} errors, {} attacks ({} answered themselves), {:.1} s",
                tally.right,
                tally.errors,
                tally.attacks,
                tally.answered_itself,
                took.as_secs_f64()
            )?;
            for broken in &tally.broken {
                writeln!(f, "  BROKEN: {broken}")?;
            }
        }
        for name in &self.skipped {
            writeln!(
                f,
                "  {name:<26}skipped: its interpreter is not on this machine"
            )?;
        }
        Ok(())
    }
}
