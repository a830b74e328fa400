//! The rules `eof`, `children` and `sigterm`: the end of a process, and its children behind it.

use super::{error_of, shown};
use crate::check::finding::Finding;
use crate::check::mend::Mend;
use crate::check::reply::Standing;
use crate::check::rule::{Level, Rule};
use crate::check::session::{EndOfInput, Session};
use crate::process::launch::LaunchError;
use crate::procfs::ignores;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Half of the default `--grace`: then the worker sends SIGTERM, and SIGKILL after as long again.
const ENDS_WITHIN: Duration = Duration::from_millis(2500);

/// A process that has not ended this long after SIGTERM puts it off until its stdin ends, or
/// ignores it.
const PUTS_OFF: Duration = Duration::from_millis(500);

/// The end of stdin ends the process.
pub(in crate::check) async fn eof(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let end = end_of_input(session).await?;
    let shown_bound = shown(ENDS_WITHIN);
    let Some(status) = end.ended else {
        let summary =
            format!("the process did not end within {shown_bound} of the end of its stdin");
        return Ok(Finding::broken(Rule::Eof, Level::Must, summary)
            .because(
                "The worker ends processes this way when it stops, reloads or replaces them; this \
                 one takes the grace to its end each time.",
            )
            .mended(session.mend(Mend::EndOfInput)));
    };
    if end.is_answered == Some(false) {
        let summary = format!("the process ended without the reply that it owed ({status})");
        return Ok(
            Finding::broken(Rule::Eof, Level::Must, summary).mended(session.mend(Mend::EndOfInput))
        );
    }
    let summary = format!("ended in {} ({status})", shown(end.took));
    Ok(Finding::ok(Rule::Eof, summary))
}

/// No process is left behind.
pub(in crate::check) async fn children(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let end = end_of_input(session).await?;
    if end.ended.is_none() {
        return Ok(Finding::skip(
            Rule::Children,
            "needs an end by the end of stdin",
        ));
    }
    if end.left.is_empty() {
        return Ok(Finding::ok(Rule::Children, "no process was left behind"));
    }
    let summary = format!("left behind: {}", end.left.join(", "));
    Ok(Finding::broken(Rule::Children, Level::Should, summary)
        .because("The worker kills them, so their work is lost at an unknown point.")
        .mended(session.mend(Mend::Children)))
}

/// Ends a process by the end of its stdin, once for both rules.
async fn end_of_input(session: &mut Session<'_>) -> Result<EndOfInput, LaunchError> {
    if let Some(end) = &session.facts.end_of_input {
        return Ok(end.clone());
    }
    let mut process = session.take_sound().await?;
    let payload = session.payload();
    let is_mute = session.facts.lacks.is_some();
    // A process that has written nothing yet may still be starting, and gets the time for that too.
    let start = match process.record().output_bytes {
        0 => session.time_to_start(),
        _ => Duration::ZERO,
    };
    let last = match is_mute {
        true => process.end_unasked(ENDS_WITHIN + start).await,
        false => process.ask_last(payload, ENDS_WITHIN + start).await,
    };
    let answer = last.outcome.as_ref();
    let is_answered = answer.is_some_and(|outcome| outcome.is_ok() || error_of(outcome).is_some());
    let ended = match process.standing() {
        Standing::Ended(status) => Some(status.clone()),
        Standing::Sound | Standing::Faulty(_) => None,
    };
    process.kill_and_reap().await;
    let end = EndOfInput {
        is_answered: (!is_mute).then_some(is_answered),
        ended,
        left: last.left,
        took: last.took,
    };
    session.facts.end_of_input = Some(end.clone());
    Ok(end)
}

/// SIGTERM ends the process.
pub(in crate::check) async fn sigterm(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let mut process = session.take_relayed().await?;
    let is_askable = session.facts.lacks.is_none() && session.facts.ends_after_reply.is_none();
    if is_askable && process.record().output_bytes == 0 {
        // A process that has answered has set up its handlers of signals.
        let (payload, limit) = (session.payload(), session.config.timeout);
        process.ask(payload, limit).await;
        process.wait_for_silence().await;
    }
    if let Standing::Ended(status) = process.standing() {
        let why = format!("the process ended before ({status})");
        return Ok(Finding::skip(Rule::Sigterm, why));
    }
    let begun = Instant::now();
    let is_ignored = ignores(process.pid(), Signal::TERM);
    let mut has_ended = process.terminate(PUTS_OFF).await;
    let is_put_off = !has_ended;
    if is_put_off {
        // As the worker does it: a handler may wait for the end of its stdin, so that a signal to a
        // whole service ends no request.
        let is_closed = process.close_input(PUTS_OFF).await;
        has_ended = is_closed || process.terminate(ENDS_WITHIN - 2 * PUTS_OFF).await;
    }
    let took = begun.elapsed();
    if has_ended {
        process.reap().await;
    }
    let standing = process.standing().clone();
    process.kill_and_reap().await;
    let summary = match standing {
        Standing::Ended(_) if is_put_off && is_ignored => "the process ignores SIGTERM".to_owned(),
        Standing::Ended(status) => {
            let how = match is_put_off {
                true => ", when its stdin had ended too",
                false => "",
            };
            let summary = format!("ended in {}{how} ({status})", shown(took));
            return Ok(Finding::ok(Rule::Sigterm, summary));
        }
        Standing::Sound | Standing::Faulty(_) => {
            format!(
                "the process did not end within {} of SIGTERM",
                shown(ENDS_WITHIN)
            )
        }
    };
    Ok(Finding::broken(Rule::Sigterm, Level::Should, summary).mended(session.mend(Mend::Signal)))
}
