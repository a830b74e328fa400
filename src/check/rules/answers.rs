//! The rule `answers`: one line in, one line out.

use super::{error_of, sentence, shown};
use crate::check::checked_process::FIRST_START;
use crate::check::finding::Finding;
use crate::check::flood::answers_when_flooded;
use crate::check::language::is_mawk;
use crate::check::lines::{Mistake, last_reply, mistake_in, wrong_id};
use crate::check::mend::Mend;
use crate::check::overdue::{OverdueProcess, explain};
use crate::check::payloads::USUAL;
use crate::check::reply::{Reply, Standing};
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::error::RequestFailure;
use crate::process::launch::LaunchError;
use crate::procfs::{is_tree_runnable, waits_for_input};
use std::time::Duration;

/// How long a process that has not answered is watched behind the end of its stdin.
const LISTENS_FOR: Duration = Duration::from_secs(2);

/// Why rules that need an answer are not tried.
const NEEDS_AN_ANSWER: &str = "needs an answer";

/// Each payload is answered by a line.
pub(in crate::check) async fn answers(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let mut payloads: Vec<String> = session.config.payloads.clone();
    if payloads.is_empty() {
        payloads.push(USUAL.to_owned());
    }
    let mut times = Vec::new();
    for payload in &payloads {
        let reply = match times.is_empty() {
            true => {
                let limit = session.config.timeout;
                session.process().ask_first(payload, limit).await
            }
            false => session.ask(payload).await?,
        };
        if times.is_empty() {
            session.facts.first = session.process().record().clone();
        }
        if let Some(broken) = judge(session, payload, &reply).await? {
            session.facts.lacks = Some(NEEDS_AN_ANSWER);
            return Ok(broken);
        }
        times.push(reply.took);
        if session.facts.wrong_id.is_some() {
            break;
        }
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    let summary = match (session.facts.errors.first(), times.len()) {
        (Some((_, error)), 1) => format!("replied in {}, with {error}", shown(slowest)),
        (_, 1) => format!("replied in {}", shown(slowest)),
        (_, count) => format!("{count} payloads, each within {}", shown(slowest)),
    };
    Ok(Finding::ok(Rule::Answers, summary))
}

/// The finding about a reply, where it breaks the rule.
async fn judge(
    session: &mut Session<'_>,
    payload: &str,
    reply: &Reply,
) -> Result<Option<Finding>, LaunchError> {
    let outcome = match &reply.outcome {
        Some(outcome) => outcome,
        None => return Ok(Some(never_given(session))),
    };
    if let Some(error) = error_of(outcome) {
        session.facts.errors.push((payload.to_owned(), error));
        return Ok(None);
    }
    let Err(failed) = outcome else {
        return Ok(None);
    };
    let record = session.process().record();
    let output = record.output.clone();
    let sent = record.last_id.unwrap_or(0);
    // A reply came, and only its id is wrong.
    if let Some(id) = last_reply(&output).and_then(|line| wrong_id(line, sent)) {
        session.facts.wrong_id = Some(id);
        return Ok(None);
    }
    Ok(Some(match failed {
        RequestFailure::TimedOut(_) => overdue(session, payload, output).await?,
        RequestFailure::Exited(_) => ended(session, &output),
        other => {
            let why = other.cause().map_or_else(
                || other.code().as_str().to_owned(),
                |cause| cause.full().to_owned(),
            );
            broken_reply(session, &why, &output)
        }
    }))
}

/// The process closed a pipe, or ended, before it could be asked.
fn never_given(session: &mut Session<'_>) -> Finding {
    let output = session.process().record().output.clone();
    match session.process().standing().clone() {
        Standing::Faulty(fault) => broken_reply(session, &fault.to_string(), &output),
        Standing::Ended(_) | Standing::Sound => ended(session, &output),
    }
}

fn ended(session: &mut Session<'_>, output: &[u8]) -> Finding {
    let status = match session.process().standing() {
        Standing::Ended(status) => status.clone(),
        Standing::Sound | Standing::Faulty(_) => "it closed its pipes".to_owned(),
    };
    let stderr = session.process().last_error_line();
    // A request that was not read cannot have ended its process.
    let is_unread = session.process().left_unread();
    let summary = format!("the process ended without a reply ({status})");
    let finding = Finding::broken(Rule::Answers, Level::Must, summary);
    let finding = match mistake_in(output) {
        Some(Mistake { summary, mend }) => finding
            .because(sentence(&summary))
            .mended(session.mend(mend)),
        None if is_unread || is_start_failure(&stderr) => {
            let why = match stderr.is_empty() {
                true => ", and says nothing on its stderr.",
                false => ": its stderr says why.",
            };
            finding.because(format!("The program did not come as far as its loop{why}"))
        }
        None => finding.mended(session.mend(Mend::Refuse)),
    };
    finding.seeing("stdout", output).seeing("stderr", stderr)
}

/// True for the last lines of programs that failed before any payload: a file or module is missing,
/// or their source is wrong.
fn is_start_failure(stderr: &str) -> bool {
    [
        "SyntaxError",
        "IndentationError",
        "ModuleNotFoundError",
        "ImportError",
        "No such file",
        "can't open file",
        "Cannot find module",
        "cannot load such file",
        "not found",
        "ClassNotFoundException",
        "Could not find or load main class",
        "error while loading shared libraries",
        "syntax error",
    ]
    .iter()
    .any(|words| stderr.contains(words))
}

fn broken_reply(session: &mut Session<'_>, why: &str, output: &[u8]) -> Finding {
    let (summary, mend) = match mistake_in(output) {
        Some(Mistake { summary, mend }) => (summary, Some(mend)),
        None => (why.to_owned(), None),
    };
    let mend = mend.map_or_else(Vec::new, |mend| session.mend(mend));
    let cause = match summary == why {
        true => String::new(),
        false => format!("The worker answers 502: {why}."),
    };
    let stderr = session.process().last_error_line();
    Finding::broken(Rule::Answers, Level::Must, summary)
        .because(cause)
        .mended(mend)
        .seeing("stdout", output)
        .seeing("stderr", stderr)
}

/// A process that has not answered in time: its stdin is closed, and what comes then is looked at.
async fn overdue(
    session: &mut Session<'_>,
    payload: &str,
    output: Vec<u8>,
) -> Result<Finding, LaunchError> {
    let limit = session.config.timeout;
    session.count_strays();
    let is_mawk = is_mawk(&session.config.command);
    let process = session.process();
    let pid = process.pid();
    let is_alive = !matches!(process.standing(), Standing::Ended(_));
    let (had, longer) = times(limit, process.is_starting().then_some(FIRST_START));
    let mut overdue = OverdueProcess {
        limit: had,
        longer,
        unread_bytes: process.unread_bytes(),
        is_mawk,
        waits_for_input: waits_for_input(pid).filter(|_| is_alive),
        is_running: is_alive && is_tree_runnable(pid),
        ..OverdueProcess::default()
    };
    let is_slow = is_alive && (process.is_starting() || overdue.is_running);
    if is_alive {
        let has_ended = process.close_input(LISTENS_FOR).await;
        if has_ended {
            process.reap().await;
        }
    }
    if let Standing::Ended(status) = process.standing() {
        overdue.ended = Some(status.clone());
    }
    let all = process.record().output.clone();
    overdue.output_at_end = all.get(output.len()..).unwrap_or_default().to_vec();
    overdue.output = output;
    let stderr = process.last_error_line();
    process.kill_and_reap().await;
    // Stray lines behind the end of stdin say nothing of a process that serves.
    process.take_strays();
    if mistake_in(&overdue.output).is_none() {
        overdue.answers_when_flooded =
            answers_when_flooded(session.launcher, payload, limit).await?;
    }
    session.facts.is_slow = is_slow;
    let explained = explain(&overdue);
    let mends = explained.mends.iter();
    let mend = mends.flat_map(|mend| session.mend(*mend)).collect();
    let finding = Finding::broken(Rule::Answers, Level::Must, explained.summary)
        .because(explained.cause)
        .mended(mend)
        .seeing("stdout", &overdue.output)
        .seeing("at the end of stdin", &overdue.output_at_end)
        .seeing("stderr", stderr);
    Ok(finding)
}

/// The time that a process had for its first answer, in words, and a longer one, as `--timeout`
/// takes it. A process that was still starting had the time of a start if that is longer.
fn times(limit: Duration, start: Option<Duration>) -> (String, String) {
    let had = limit.max(start.unwrap_or_default());
    let longer = (2 * had).max(FIRST_START);
    (shown(had), shown(longer).replace(' ', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_advised_is_longer_than_what_the_process_had() {
        for (limit, start, had, longer) in [
            (5, None, "5 s", "30s"),
            (5, Some(30), "30 s", "60s"),
            (20, None, "20 s", "40s"),
            (40, Some(30), "40 s", "80s"),
        ] {
            let (limit, start) = (Duration::from_secs(limit), start.map(Duration::from_secs));
            let expected = (had.to_owned(), longer.to_owned());
            assert_eq!(times(limit, start), expected, "{limit:?} {start:?}");
        }
    }
}
