//! The rules `unicode`, `large` and `error`: payloads that are hard to read or to serve.

use super::{error_of, is_answered, result_of, shown, unanswered};
use crate::answer::Outcome;
use crate::check::damage::Damage;
use crate::check::finding::{Finding, Verdict};
use crate::check::lines::{is_reply, split};
use crate::check::mend::Mend;
use crate::check::payloads::{Echo, MARK, echo, every_plane, long};
use crate::check::reply::Reply;
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::process::launch::LaunchError;
use std::time::Duration;

/// Length of the line that comes byte by byte, and of the long one, in bytes.
const SHORT_LINE: usize = 1000;
const LONG_LINE: usize = 1 << 20;

/// Any text comes through.
pub(in crate::check) async fn unicode(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let payload = session.payload();
    let text = format!("{MARK}{}", every_plane());
    let reply = session.ask(&format!("{text}{payload}")).await?;
    let output = session.process().record().output.clone();
    let (lines, _) = split(&output);
    if lines.iter().filter(|line| is_reply(line)).count() > 1 {
        let summary = "two lines were read where one was sent";
        return Ok(Finding::broken(Rule::Unicode, Level::Must, summary)
            .mended(session.mend(Mend::ReadLines))
            .seeing("stdout", output));
    }
    let planes = match unharmed(session, &reply, &text, "characters of every plane") {
        Ok(planes) => planes,
        Err(finding) => return Ok(*finding),
    };
    let text = format!("{MARK}a\0b");
    let with_nul = session.ask(&format!("{text}{payload}")).await?;
    let nul = match unharmed(session, &with_nul, &text, "U+0000") {
        Ok(nul) => nul,
        Err(finding) => return Ok(*finding),
    };
    if has_byte_order_mark(&session.facts.first.output) {
        let summary = "a byte order mark stands before a line";
        return Ok(Finding::broken(Rule::Unicode, Level::Should, summary)
            .because("The worker overlooks one; most readers of JSON do not.")
            .mended(session.mend(Mend::ByteOrderMark))
            .seeing("stdout", &session.facts.first.output));
    }
    Ok(Finding::ok(Rule::Unicode, undamaged(&planes, &nul)))
}

/// What came back of a text with these characters; a finding where the text was not answered, or
/// was damaged.
fn unharmed(
    session: &mut Session<'_>,
    reply: &Reply,
    text: &str,
    characters: &str,
) -> Result<Echo, Box<Finding>> {
    let rule = Rule::Unicode;
    if !is_answered(reply) {
        let what = format!("a payload with {characters}");
        let finding = session.unanswered(rule, reply, &what, Mend::Encoding);
        return Err(Box::new(finding));
    }
    match repeated(reply, text) {
        Echo::Damaged(damage) => {
            let output = session.process().record().output.clone();
            let finding = damaged(session, rule, &damage.shown(), Mend::Encoding, output);
            Err(Box::new(finding))
        }
        echo @ (Echo::None | Echo::Same | Echo::Changed) => Ok(echo),
    }
}

/// What came back of a text with all planes, and of one with U+0000, where neither was damaged.
fn undamaged(planes: &Echo, nul: &Echo) -> &'static str {
    match (planes, nul) {
        (Echo::Same, Echo::Same) => "each character came back",
        (Echo::Same, _) => {
            "each character came back, but for U+0000, which was answered without it"
        }
        (Echo::Changed, _) => "the function changes the text, not compared",
        (_, _) => "answered; the text does not come back, and was not compared",
    }
}

/// Long lines come through, in any pieces.
pub(in crate::check) async fn large(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let payload = session.payload();
    let limit = session.config.timeout;
    let (mut summary, mut is_changed) = (String::new(), false);
    for (bytes, pieces) in [
        (SHORT_LINE, "that came byte by byte"),
        (LONG_LINE, "of 1 MiB"),
    ] {
        let text = format!("{MARK}{}", long(bytes));
        let mut process = session.take_relayed().await?;
        // A process that has written nothing yet may still be starting, and gets the time for that
        // too.
        let start = match process.record().output_bytes {
            0 => session.time_to_start(),
            _ => Duration::ZERO,
        };
        let reply = process
            .ask(&format!("{text}{payload}"), limit + start)
            .await;
        let finding = match repeated(&reply, &text) {
            _ if !is_answered(&reply) => {
                let what = format!("a line {pieces}");
                let mend = session.mend(Mend::LongLines);
                Some(unanswered(&process, Rule::Large, &reply, &what).mended(mend))
            }
            // The rule `unicode` has told of the damage.
            Echo::Damaged(_) if session.facts.is_text_broken => None,
            Echo::Damaged(damage) => {
                let how = format!("in a line {pieces}, {}", damage.shown());
                let output = process.record().output.clone();
                // Whole lines have kept their characters in the rule `unicode`.
                let is_in_pieces = session.config.rules.contains(&Rule::Unicode);
                let mend = match damage.is_replaced() && is_in_pieces {
                    true => Mend::WholeLines,
                    false => damage.mend(),
                };
                Some(damaged(session, Rule::Large, &how, mend, output))
            }
            Echo::Changed => {
                is_changed = true;
                None
            }
            Echo::Same | Echo::None => None,
        };
        let (count, lines) = process.take_strays();
        session.add_strays(count, lines);
        session.keep_relayed(process);
        if let Some(finding) = finding {
            return Ok(finding);
        }
        summary = format!("1 MiB in {}", shown(reply.took));
    }
    if session.facts.is_text_broken {
        summary += "; the text was not compared, see unicode";
    } else if is_changed {
        summary += "; the function changes the text, not compared";
    }
    Ok(Finding::ok(Rule::Large, summary))
}

/// Errors are answered as errors.
pub(in crate::check) async fn error(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    let mut seen = Vec::new();
    for payload in &session.config.failing {
        let reply = session.ask(payload).await?;
        if !is_answered(&reply) {
            let what = "a --failing payload";
            let finding = session.unanswered(Rule::Error, &reply, what, Mend::Refuse);
            return Ok(Finding {
                level: Level::Should,
                verdict: Verdict::Warn,
                ..finding
            }
            .seeing("payload", payload));
        }
        let error = reply.outcome.as_ref().and_then(error_of);
        let Some(error) = error else {
            let result = reply.outcome.as_ref().and_then(result_of);
            let summary = "a --failing payload was answered with a result";
            return Ok(Finding::broken(Rule::Error, Level::Info, summary)
                .mended(session.mend(Mend::Refuse))
                .seeing("payload", payload)
                .seeing("result", result.unwrap_or_default().to_string()));
        };
        seen.push((payload.clone(), error));
    }
    let others = session.facts.errors.iter().cloned();
    let seen: Vec<(String, String)> = seen.into_iter().chain(others).collect();
    let Some((payload, error)) = seen.first() else {
        let why = "no --failing payload was given, and no other had an error";
        return Ok(Finding::skip(Rule::Error, why));
    };
    let summary = match seen.len() {
        1 => error.clone(),
        count => format!("{error}, and {} more", count - 1),
    };
    Ok(Finding::ok(Rule::Error, summary).seeing("payload", payload))
}

/// Whether a reply repeats a text of its payload; an error does not.
fn repeated(reply: &Reply, text: &str) -> Echo {
    if reply.outcome.as_ref().is_some_and(has_half_pair) {
        return Echo::Damaged(Damage::HalfPair);
    }
    let result = reply.outcome.as_ref().and_then(result_of);
    result.map_or(Echo::None, |result| echo(&result, text))
}

/// True for a result with an escape such as `\ud800`, which alone is no character.
fn has_half_pair(outcome: &Outcome) -> bool {
    let read = |body| serde_json::from_slice::<serde_json::Value>(body).err();
    let error = outcome.as_ref().ok().and_then(|body| read(body));
    error.is_some_and(|error| {
        let text = error.to_string();
        text.contains("surrogate") || text.contains("hex escape")
    })
}

fn damaged(session: &Session<'_>, rule: Rule, how: &str, mend: Mend, output: Vec<u8>) -> Finding {
    Finding::broken(rule, Level::Must, how)
        .mended(session.mend(mend))
        .seeing("stdout", output)
}

fn has_byte_order_mark(output: &[u8]) -> bool {
    let (lines, rest) = split(output);
    let mut lines = lines.into_iter().chain([rest]);
    lines.any(|line| line.starts_with("\u{feff}".as_bytes()))
}
