//! The rules `order` and `concurrency`: whether a process keeps its announcement.

use super::{is_answered, result_of, sentence, shown};
use crate::check::finding::Finding;
use crate::check::mend::Mend;
use crate::check::payloads::MARK;
use crate::check::reply::{Reply, Standing};
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::check::stopwatch::Stopwatch;
use crate::process::launch::LaunchError;
use crate::procfs::{cpu_seconds, tree_write_calls};
use serde_json::Value;
use std::time::Duration;

/// Requests that are there at the same time for a process that promised order.
const AHEAD: usize = 200;

/// A handler that takes less than this for a request does not wait, and shows no overlap.
const WAITS_FROM: Duration = Duration::from_millis(5);

/// Requests together that take at least this share of the time of single requests in a row did not
/// overlap.
const NO_OVERLAP: f64 = 0.75;

/// Share of a processor from which on a process computed all the time, and had no wait to share.
const COMPUTES: f64 = 0.7;

/// Least time over which the use of a processor is measured.
const COMPUTES_FOR: Duration = Duration::from_millis(200);

/// Measurements on a busy machine; one is enough on any other.
const MEASUREMENTS: usize = 3;

const NEEDS_TO_LIVE_ON: &str = "needs a process that goes on behind its reply";

/// Replies come in order, each written by itself.
pub(in crate::check) async fn order(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    if !session.facts.first.promises_order {
        return Ok(Finding::skip(
            Rule::Order,
            "no \"concurrency\":1 was announced",
        ));
    }
    if session.facts.ends_after_reply.is_some() {
        return Ok(Finding::skip(Rule::Order, NEEDS_TO_LIVE_ON));
    }
    let payload = session.payload();
    // Only a process that has answered is given requests ahead.
    session.ask(payload).await?;
    let limit = session.config.timeout;
    let process = session.sound().await?;
    let pid = process.pid();
    let before = tree_write_calls(pid);
    let replies = process
        .ask_all(&vec![payload.to_owned(); AHEAD], limit)
        .await;
    let after = tree_write_calls(pid);
    let order = process.record().order.clone();
    if let Some(pair) = order.windows(2).find(|pair| pair[0] > pair[1]) {
        let first = order.iter().min().copied().unwrap_or(0);
        let summary = format!(
            "reply {} came before reply {} of {AHEAD}",
            pair[0] - first + 1,
            pair[1] - first + 1
        );
        return Ok(Finding::broken(Rule::Order, Level::Must, summary)
            .because("\"concurrency\":1 promises that replies keep the order of the requests.")
            .mended(session.mend(Mend::Order)));
    }
    if let Some(reply) = replies.iter().find(|reply| !is_answered(reply)) {
        let standing = session.process().standing().clone();
        if let Standing::Faulty(fault) = standing {
            return Ok(Finding::broken(Rule::Order, Level::Must, fault.to_string())
                .mended(session.mend(Mend::Order)));
        }
        let what = "one of 200 requests ahead";
        return Ok(session.unanswered(Rule::Order, reply, what, Mend::Order));
    }
    let calls = before.zip(after);
    Ok(flushed(
        session,
        calls.map(|(before, after)| after.saturating_sub(before)),
    ))
}

/// The finding about replies in order that were written by so many calls of write(2).
fn flushed(session: &Session<'_>, calls: Option<u64>) -> Finding {
    match calls {
        Some(calls) if calls < AHEAD as u64 => {
            let summary = format!("{AHEAD} replies were written in {calls} pieces");
            Finding::broken(Rule::Order, Level::Must, summary)
                .because(
                    "\"concurrency\":1 promises that each reply is flushed before the next request is \
                     begun: else a process that dies takes finished work with it, which is run again.",
                )
                .mended(session.mend(Mend::FlushEach))
        }
        Some(_) => Finding::ok(Rule::Order, "200 replies in order, each flushed"),
        None => Finding::ok(Rule::Order, "200 replies in order"),
    }
}

/// As many requests at the same time as were announced.
pub(in crate::check) async fn concurrency(
    session: &mut Session<'_>,
) -> Result<Finding, LaunchError> {
    let at_once = session.facts.first.at_once;
    if at_once < 2 {
        return Ok(Finding::skip(
            Rule::Concurrency,
            "no concurrency of 2 or more was announced",
        ));
    }
    if session.facts.ends_after_reply.is_some() {
        return Ok(Finding::skip(Rule::Concurrency, NEEDS_TO_LIVE_ON));
    }
    let payload = session.payload();
    let payloads = vec![payload.to_owned(); at_once];
    let mut times = Times::default();
    for _ in 0..MEASUREMENTS {
        let was_busy = match measure(session, &payloads, &mut times).await? {
            Ok(was_busy) => was_busy,
            Err(finding) => return Ok(*finding),
        };
        if !was_busy {
            break;
        }
    }
    let (alone, is_in_order) = (times.alone(), times.is_in_order);
    let did_not_overlap = times.did_not_overlap(at_once);
    let times = format!(
        "one took {}, {at_once} took {}",
        shown(alone),
        shown(times.together())
    );
    let computes = did_not_overlap && computes(session, &payloads).await?;
    if did_not_overlap && !computes {
        let summary = format!("announced {at_once}, never had 2 at once");
        return Ok(Finding::broken(Rule::Concurrency, Level::Must, summary)
            .because(sentence(&times))
            .mended(session.mend(Mend::Concurrency)));
    }
    if let Some(finding) = mixed_up(session, at_once).await? {
        return Ok(finding);
    }
    let summary = match (alone >= WAITS_FROM || !is_in_order, computes) {
        (true, false) => format!("{at_once} at once: {times}"),
        (true, true) => format!("{at_once} at once, computing all the time: {times}"),
        (false, _) => format!("{at_once} at once, each too short to see an overlap"),
    };
    Ok(Finding::ok(Rule::Concurrency, summary))
}

/// Times of single requests, and of as many at the same time as were announced.
#[derive(Debug)]
struct Times {
    alone: Vec<Duration>,
    together: Vec<Duration>,
    /// The replies to requests at the same time came in the order of the requests.
    is_in_order: bool,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            alone: Vec::new(),
            together: Vec::new(),
            is_in_order: true,
        }
    }
}

impl Times {
    /// The usual time of a single request.
    fn alone(&self) -> Duration {
        let mut sorted = self.alone.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The time of all requests: the shortest, since other programs only make it longer.
    fn together(&self) -> Duration {
        self.together.iter().min().copied().unwrap_or_default()
    }

    /// True when requests waited for something one after the other.
    fn did_not_overlap(&self, at_once: usize) -> bool {
        let one_by_one = self.alone().as_secs_f64() * at_once as f64;
        let is_one_by_one = self.together().as_secs_f64() >= NO_OVERLAP * one_by_one;
        self.alone() >= WAITS_FROM && self.is_in_order && is_one_by_one
    }
}

/// Adds a measurement; true if the machine was busy meanwhile. Gives the finding that requests were
/// not answered, if they were not.
async fn measure(
    session: &mut Session<'_>,
    payloads: &[String],
    times: &mut Times,
) -> Result<Result<bool, Box<Finding>>, LaunchError> {
    let payload = session.payload();
    // Starts the process, if none is there.
    session.ask(payload).await?;
    let mut was_busy = false;
    for _ in 0..3 {
        let watch = Stopwatch::start(session.sound().await?.pid());
        session.ask(payload).await?;
        let lap = watch.lap();
        times.alone.push(lap.took);
        was_busy |= lap.was_busy;
    }
    let limit = session.config.timeout;
    let process = session.sound().await?;
    let watch = Stopwatch::start(process.pid());
    let replies = process.ask_all(payloads, limit).await;
    let lap = watch.lap();
    times.together.push(lap.took_together);
    let order = &process.record().order;
    times.is_in_order &= order.windows(2).all(|pair| pair[0] < pair[1]);
    if let Some(finding) = without_answers(session, &replies, payloads.len()) {
        return Ok(Err(Box::new(finding)));
    }
    Ok(Ok(was_busy || lap.was_busy))
}

/// True when a process uses a processor all the time that it has these requests.
async fn computes(session: &mut Session<'_>, payloads: &[String]) -> Result<bool, LaunchError> {
    let limit = session.config.timeout;
    let process = session.sound().await?;
    let pid = process.pid();
    let (mut watch, before) = (Stopwatch::start(pid), cpu_seconds(pid));
    // The kernel counts in hundredths of a second.
    while !watch.is_over(COMPUTES_FOR) && *process.standing() == Standing::Sound {
        process.ask_all(payloads, limit).await;
    }
    let took = watch.lap().took.as_secs_f64();
    let used = cpu_seconds(pid).zip(before);
    Ok(used.is_some_and(|(after, before)| after - before > COMPUTES * took))
}

/// The finding that some of many requests were not answered.
fn without_answers(
    session: &mut Session<'_>,
    replies: &[Reply],
    at_once: usize,
) -> Option<Finding> {
    let missing: Vec<&Reply> = replies.iter().filter(|reply| !is_answered(reply)).collect();
    let reply = *missing.first()?;
    let what = format!("{} of {at_once} requests at once", missing.len());
    Some(session.unanswered(Rule::Concurrency, reply, &what, Mend::Concurrency))
}

/// The finding that a result repeats the text of another request.
async fn mixed_up(
    session: &mut Session<'_>,
    at_once: usize,
) -> Result<Option<Finding>, LaunchError> {
    let payload = session.payload();
    let marks: Vec<String> = (0..at_once)
        .map(|number| format!("{MARK}{number}-"))
        .collect();
    let payloads: Vec<String> = marks
        .iter()
        .map(|mark| format!("{mark}{payload}"))
        .collect();
    let limit = session.config.timeout;
    let replies = session.sound().await?.ask_all(&payloads, limit).await;
    for (mark, reply) in marks.iter().zip(&replies) {
        let result = reply.outcome.as_ref().and_then(result_of);
        let text = result.as_ref().map_or_else(String::new, Value::to_string);
        let other = marks
            .iter()
            .find(|other| *other != mark && text.contains(*other));
        if let Some(other) = other.filter(|_| !text.contains(mark)) {
            let summary = "a reply has the id of one request and the text of another";
            return Ok(Some(
                Finding::broken(Rule::Concurrency, Level::Must, summary)
                    .because("Keep the id with its request, and not in a variable of all.")
                    .seeing("request", mark)
                    .seeing("reply", other),
            ));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_overlap_by_their_order_or_their_times() {
        let times = |alone: &[u64], together: &[u64], is_in_order| Times {
            alone: alone.iter().copied().map(Duration::from_millis).collect(),
            together: together
                .iter()
                .copied()
                .map(Duration::from_millis)
                .collect(),
            is_in_order,
        };
        for (times, did_not_overlap) in [
            (times(&[20, 20, 20], &[320], true), true),
            (times(&[20, 20, 90], &[320], true), true),
            (times(&[20, 20, 20], &[320], false), false),
            (times(&[20, 20, 20], &[25], true), false),
            // One of them was measured in a quiet moment.
            (times(&[20, 20, 20], &[320, 25, 320], true), false),
            (times(&[4, 4, 4], &[64], true), false),
            (Times::default(), false),
        ] {
            assert_eq!(times.did_not_overlap(16), did_not_overlap, "{times:?}");
        }
    }
}
