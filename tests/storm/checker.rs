//! Compares every answer with the outcomes that its request may have, and with the ledger of the
//! handler.
//!
//! Knows the contract only: nothing here is taken from the code that it checks.

use crate::clients::{Outcome, Record};
use crate::faults::Mode;
use crate::killer::Strikes;
use crate::support::Ledger;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

/// Errors that any request may get, because a process can be killed or stopped at any moment.
const COMMON_ERRORS: [(u16, &str); 5] = [
    (429, "overloaded"),
    (502, "handler_exited"),
    (502, "handler_protocol"),
    (503, "handler_unavailable"),
    (504, "handler_timeout"),
];

/// Broken promises that are kept for the report.
const MOST_KEPT: usize = 20;

/// The counts of a storm, and its broken promises.
pub(crate) struct Report {
    mode: Mode,
    took: Duration,
    strikes: Strikes,
    pub(crate) requests: u64,
    /// For each fault and each outcome, how often.
    seen: BTreeMap<(&'static str, &'static str), BTreeMap<String, u64>>,
    run_by_hung_up: u64,
    pub(crate) whole_after: Duration,
    pub(crate) memory_kib: (u64, u64),
    pub(crate) descriptors: (usize, usize),
    pub(crate) broken: Vec<String>,
}

impl Report {
    pub(crate) fn new(mode: Mode, took: Duration, strikes: Strikes) -> Report {
        Report {
            mode,
            took,
            strikes,
            requests: 0,
            seen: BTreeMap::new(),
            run_by_hung_up: 0,
            whole_after: Duration::ZERO,
            memory_kib: (0, 0),
            descriptors: (0, 0),
            broken: Vec::new(),
        }
    }

    /// Holds all answers to the ledger, in which each request stands once for each time that a
    /// process began on it.
    pub(crate) fn check_answers(&mut self, records: &[Record], ledger: &Ledger) {
        let mut started: HashMap<String, u64> = HashMap::new();
        for payload in ledger.payloads() {
            *started.entry(payload).or_default() += 1;
        }
        for record in records {
            let times = started.remove(&record.payload).unwrap_or(0);
            self.check(record, times);
        }
        started.remove("echo #whole");
        if let Some(payload) = started.keys().next() {
            self.breaks(format!("run without having been sent: {payload:?}"));
        }
        self.requests = records.len() as u64;
    }

    fn check(&mut self, record: &Record, times: u64) {
        let (outcome, executed) = match &record.outcome {
            Outcome::HungUp => {
                self.run_by_hung_up += times;
                ("hung up".to_owned(), "maybe")
            }
            Outcome::Lost(error) => {
                self.breaks(format!("request {} was lost: {error}", record.number));
                ("lost".to_owned(), "maybe")
            }
            Outcome::Answered(answer) => {
                let code = answer.code.as_deref().unwrap_or("");
                let executed = match answer.status {
                    200 => "yes",
                    _ => answer.executed.as_deref().unwrap_or("missing"),
                };
                if let Err(why) = judge(record, answer.status, code, &answer.body) {
                    self.breaks(format!("request {}: {why}", record.number));
                }
                let outcome = format!("{} {code}", answer.status);
                (outcome.trim_end().to_owned(), executed)
            }
        };
        let is_right = match executed {
            "no" => times == 0,
            "yes" => times == 1,
            "maybe" => times <= 1,
            _ => false,
        };
        if !is_right {
            self.breaks(format!(
                "request {} ({:?}, {outcome}) was run {times} times, executed: {executed}",
                record.number, record.payload
            ));
        }
        let key = (record.fault.row, record.fault.command);
        let counts = self.seen.entry(key).or_default();
        *counts.entry(outcome).or_default() += 1;
    }

    fn breaks(&mut self, how: String) {
        if self.broken.len() < MOST_KEPT {
            self.broken.push(how);
        }
    }
}

/// Whether this may be the answer to that request.
fn judge(record: &Record, status: u16, code: &str, body: &[u8]) -> Result<(), String> {
    let fault = record.fault;
    let shown = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let parsed: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("{error} in {}", shown()))?;
    if status == 200 {
        let is_first = parsed["result"] == record.payload.as_str();
        // The half line that a request before it left may have made the first reply unreadable.
        // Then the second one is all that came, and it is this request's own by its id and mark.
        let second = format!("second of {}", record.payload);
        let is_second = fault.command.starts_with("twice") && parsed["result"] == second;
        let is_only_member = parsed.as_object().is_some_and(|body| body.len() == 1);
        let is_own = is_only_member && (is_first || is_second);
        return match (fault.may_succeed, is_own) {
            (true, true) => Ok(()),
            (true, false) => Err(format!(
                "{:?} had another's answer: {}",
                record.payload,
                shown()
            )),
            (false, _) => Err(format!("{:?} cannot have this: {}", fault.command, shown())),
        };
    }
    if parsed.get("detail").is_none() {
        return Err(format!("an error without detail: {}", shown()));
    }
    let mut allowed = COMMON_ERRORS.iter().chain(&fault.own_error);
    if allowed.any(|error| *error == (status, code)) {
        Ok(())
    } else {
        Err(format!(
            "{:?} cannot have {status} {code}: {}",
            fault.command,
            shown()
        ))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "\n{:?}: {} requests in {seconds:.1} s ({:.0} a second)",
            self.mode,
            self.requests,
            self.requests as f64 / seconds
        )?;
        writeln!(f, "  {:<6}{:<26}outcomes", "row", "asked for")?;
        for ((row, command), outcomes) in &self.seen {
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|(outcome, count)| format!("{outcome}: {count}"))
                .collect();
            writeln!(f, "  {row:<6}{command:<26}{}", outcomes.join(", "))?;
        }
        for (strike, count) in &self.strikes {
            writeln!(f, "  {strike:<32}{count}")?;
        }
        writeln!(
            f,
            "  hung up on and run all the same: {}; whole {:.2} s after the last fault; \
             memory {} -> {} KiB; descriptors {} -> {}",
            self.run_by_hung_up,
            self.whole_after.as_secs_f64(),
            self.memory_kib.0,
            self.memory_kib.1,
            self.descriptors.0,
            self.descriptors.1
        )?;
        for broken in &self.broken {
            writeln!(f, "  BROKEN: {broken}")?;
        }
        Ok(())
    }
}
