//! The trials of the rules: each asks a process, looks, and tells a finding.

pub(super) mod answers;
pub(super) mod end;
pub(super) mod many;
pub(super) mod replies;
pub(super) mod texts;
pub(super) mod together;
pub(super) mod told;

use super::checked_process::CheckedProcess;
use super::finding::Finding;
use super::reply::{Reply, Standing};
use super::rule::{Level, Rule};
use crate::answer::Outcome;
use crate::error::RequestFailure;
use serde_json::Value;
use std::time::Duration;

/// A duration as people read it: `41 ms`, `2.1 s`.
pub(super) fn shown(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0).replace(".0 ", " "),
    }
}

/// The status and the message of an error that a handler answered.
pub(super) fn error_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Err(RequestFailure::Handler { message, status }) => {
            let message = String::from_utf8_lossy(message);
            Some(format!("{status} {message}"))
        }
        Ok(_) | Err(_) => None,
    }
}

/// The value of `result`.
fn result_of(outcome: &Outcome) -> Option<Value> {
    let body = outcome.as_ref().ok()?;
    let mut body: Value = serde_json::from_slice(body).ok()?;
    Some(body["result"].take())
}

/// True when a handler answered: with a result, or with an error of its own.
fn is_answered(reply: &Reply) -> bool {
    match &reply.outcome {
        Some(outcome) => outcome.is_ok() || error_of(outcome).is_some(),
        None => false,
    }
}

/// Why a request was not answered, in the words of the worker.
fn failure(process: &CheckedProcess, reply: &Reply) -> String {
    if let Standing::Ended(status) = process.standing() {
        return format!("the process ended ({status})");
    }
    match &reply.outcome {
        None => match process.standing() {
            Standing::Faulty(fault) => fault.to_string(),
            Standing::Sound | Standing::Ended(_) => "it was given no request".to_owned(),
        },
        Some(Ok(_)) => "it was answered".to_owned(),
        Some(Err(failed)) => {
            let cause = failed.cause().map(|cause| cause.full().to_owned());
            cause.unwrap_or_else(|| failed.code().as_str().to_owned())
        }
    }
}

/// The finding that a request of this rule was not answered.
pub(super) fn unanswered(
    process: &CheckedProcess,
    rule: Rule,
    reply: &Reply,
    what: &str,
) -> Finding {
    let why = failure(process, reply);
    let finding = match process.standing() {
        Standing::Ended(_) => Finding::broken(rule, Level::Must, format!("{why} at {what}")),
        Standing::Sound | Standing::Faulty(_) => {
            let summary = format!("{what} had no answer");
            Finding::broken(rule, Level::Must, summary).because(sentence(&why))
        }
    };
    let (output, stderr) = (&process.record().output, process.last_error_line());
    finding.seeing("stdout", output).seeing("stderr", stderr)
}

/// The text as a sentence: with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return String::new();
    };
    let end = match text.ends_with(['.', '?', '!']) {
        true => "",
        false => ".",
    };
    format!("{}{}{end}", first.to_uppercase(), characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sentences_are_for_people() {
        assert_eq!(shown(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(shown(Duration::from_micros(41_400)), "41 ms");
        assert_eq!(shown(Duration::from_millis(2140)), "2.1 s");
        assert_eq!(shown(Duration::from_secs(5)), "5 s");
        assert_eq!(sentence("no reply within 5s"), "No reply within 5s.");
        assert_eq!(sentence(""), "");
    }
}
