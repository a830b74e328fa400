//! The rule `many`: thousands of requests to one process, and its memory meanwhile.

use super::is_answered;
use crate::check::finding::Finding;
use crate::check::language::Language;
use crate::check::mend::Mend;
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::check::stopwatch::Stopwatch;
use crate::process::launch::LaunchError;
use crate::procfs::tree_resident_bytes;
use std::time::{Duration, Instant};

/// Requests of a round.
const REQUESTS: usize = 10_000;

/// Longest time of a round, without the waits for a processor: a busy machine hides no growth.
const ROUND_LASTS: Duration = Duration::from_secs(2);

/// Requests that are there at the same time; the process is given as many of them as it may have.
const BATCH: usize = 100;

/// Rounds that are added while memory grows.
const MORE_ROUNDS: usize = 2;

/// Growth that is worth a word: bytes a request, and bytes in all.
const GROWTH_A_REQUEST: u64 = 1024;
const GROWTH: u64 = 4 << 20;

/// Growth that counts even after few requests: bytes a request.
const LARGE_GROWTH_A_REQUEST: u64 = 64 << 10;

/// Growth of a Java process that is no leak: its heap grows to a first size, a 64th of the
/// machine's memory and more, before it is collected.
const GROWTH_OF_JAVA: u64 = 512 << 20;

/// Resident memory around a half of a round, and the requests in it.
#[derive(Debug, Clone, Copy)]
struct Half {
    before: u64,
    after: u64,
    requests: u64,
}

impl Half {
    fn growth(self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    fn grows(self) -> bool {
        self.growth() > GROWTH_A_REQUEST * self.requests
    }
}

/// Many requests to one process.
pub(in crate::check) async fn many(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    if let Some(status) = session.facts.ends_after_reply.clone() {
        let summary = format!("the process ended behind its first reply ({status})");
        return Ok(Finding::broken(Rule::Many, Level::Must, summary)
            .because(
                "The worker starts a process for each request, which takes longer than most work.",
            )
            .mended(session.mend(Mend::Loop)));
    }
    let begun = Instant::now();
    let mut halves = Vec::new();
    let mut answered = 0;
    for round in 0..=MORE_ROUNDS {
        for _ in 0..2 {
            let pid = session.sound().await?.pid();
            let before = tree_resident_bytes(pid);
            let requests = match half_a_round(session, answered).await? {
                Ok(requests) => requests,
                Err(finding) => return Ok(*finding),
            };
            answered += requests;
            halves.push(Half {
                before,
                after: tree_resident_bytes(pid),
                requests: requests as u64,
            });
        }
        if !is_growing(warm(&halves)) || round == MORE_ROUNDS {
            break;
        }
    }
    let rate = answered as f64 / begun.elapsed().as_secs_f64();
    let summary = format!("{answered} requests, {rate:.0} a second");
    let halves = warm(&halves);
    if !is_leak(halves, least_growth(session.language)) {
        return Ok(Finding::ok(Rule::Many, summary));
    }
    let growth: u64 = halves.iter().map(|half| half.growth()).sum();
    let requests: u64 = halves.iter().map(|half| half.requests).sum();
    let each = growth as f64 / requests as f64 / 1024.0;
    let grew = format!("memory grew by {each:.1} KiB a request");
    let mib = growth >> 20;
    Ok(Finding::broken(Rule::Many, Level::Should, grew)
        .because(format!(
            "It grew by {mib} MiB over {requests} requests, and did not stop."
        ))
        .mended(session.mend(Mend::Memory)))
}

/// The halves without the first one, which warms the process up.
fn warm(halves: &[Half]) -> &[Half] {
    halves.get(1..).unwrap_or_default()
}

/// Growth in all that is worth a word, in bytes.
fn least_growth(language: Language) -> u64 {
    match language {
        Language::Java => GROWTH_OF_JAVA,
        _ => GROWTH,
    }
}

/// True when memory grew in each of the halves, and much in all of them together.
fn is_growing(halves: &[Half]) -> bool {
    let growth: u64 = halves.iter().map(|half| half.growth()).sum();
    growth > GROWTH && halves.iter().all(|half| half.grows())
}

/// True when growth over these halves, of at least so many bytes, is a leak. After few requests
/// only a large growth is: a runtime that collects garbage has had no reason to do so.
fn is_leak(halves: &[Half], least: u64) -> bool {
    let growth: u64 = halves.iter().map(|half| half.growth()).sum();
    let requests: u64 = halves.iter().map(|half| half.requests).sum();
    let tells = requests >= REQUESTS as u64 || growth > LARGE_GROWTH_A_REQUEST * requests;
    tells && growth > least && is_growing(halves)
}

/// Half a round; gives how many requests were answered, or what went wrong.
async fn half_a_round(
    session: &mut Session<'_>,
    before: usize,
) -> Result<Result<usize, Box<Finding>>, LaunchError> {
    let limit = session.config.timeout;
    let payload = session.payload();
    let mut watch = Stopwatch::start(session.sound().await?.pid());
    let mut answered = 0;
    // A slow handler is given fewer at a time, so that the round ends in time.
    let mut batch = 1;
    while answered < REQUESTS / 2 && !watch.is_over(ROUND_LASTS / 2) {
        let begun = Instant::now();
        let process = session.sound().await?;
        let payloads = vec![payload.to_owned(); batch];
        let replies = process.ask_all(&payloads, limit).await;
        let good = replies
            .iter()
            .take_while(|reply| is_answered(reply))
            .count();
        answered += good;
        if let Some(reply) = replies.get(good) {
            let count = before + answered;
            let what = format!("request {} in a row", count + 1);
            let mistake = match session.facts.is_order_broken {
                true => Mend::Order,
                false => Mend::Loop,
            };
            let finding = session.unanswered(Rule::Many, reply, &what, mistake);
            return Ok(Err(Box::new(finding)));
        }
        let each = begun.elapsed() / u32::try_from(batch).unwrap_or(u32::MAX);
        batch = match each < Duration::from_millis(1) {
            true => BATCH,
            false => 1,
        };
    }
    Ok(Ok(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_that_stops_is_none() {
        let half = |before: u64, after: u64| Half {
            before: before << 20,
            after: after << 20,
            requests: 5000,
        };
        assert!(is_growing(&[half(20, 36)]));
        assert!(is_growing(&[half(20, 36), half(36, 52), half(52, 70)]));
        // A collector has run.
        assert!(!is_growing(&[half(20, 36), half(36, 22), half(22, 38)]));
        // A cache is full.
        assert!(!is_growing(&[half(20, 36), half(36, 37)]));
        assert!(!is_growing(&[half(20, 23)]));
    }

    #[test]
    fn growth_over_few_requests_is_a_leak_only_if_it_is_large() {
        let half = |requests, mib: u64| Half {
            before: 0,
            after: mib << 20,
            requests,
        };
        assert!(is_leak(&[half(5000, 20), half(5000, 20)], GROWTH));
        assert!(!is_leak(&[half(500, 5), half(500, 5)], GROWTH));
        assert!(is_leak(&[half(50, 5), half(50, 5)], GROWTH));
        for (language, mib, is_told) in [
            (Language::Java, 60, false),
            (Language::Java, 300, true),
            (Language::Python, 60, true),
        ] {
            let halves = [half(5000, mib), half(5000, mib)];
            assert_eq!(
                is_leak(&halves, least_growth(language)),
                is_told,
                "{language:?}"
            );
        }
        // The first half warms the process up.
        let halves = [half(5000, 500), half(2000, 3)];
        assert!(is_growing(&halves));
        assert!(!is_growing(warm(&halves)));
    }
}
