//! The rules `start`, `ready` and `stray`: the start of a process, its announcement, and its stray
//! lines.

use super::shown;
use crate::check::finding::{Finding, Verdict};
use crate::check::mend::Mend;
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::process::line::ContextMember;
use std::time::Duration;

/// A start of this length is worth `--wait-ready`.
const SLOW_START: Duration = Duration::from_secs(1);

/// Stray lines that are shown.
const SHOWN_LINES: usize = 3;

/// The command can be executed.
pub(in crate::check) fn start(session: &Session<'_>, launched: Duration) -> Finding {
    let up = session.facts.first.up_after;
    let summary = match up {
        Some(up) => format!("up in {}", shown(up)),
        None => format!("executed in {}", shown(launched)),
    };
    Finding {
        took: up.unwrap_or(launched),
        ..Finding::ok(Rule::Start, summary)
    }
}

/// The announcement of the process.
pub(in crate::check) fn ready(session: &mut Session<'_>) -> Finding {
    let first = &session.facts.first;
    if first.was_ready_late {
        let summary = "the ready line came behind another line, and counts as none";
        return Finding::broken(Rule::Ready, Level::Should, summary)
            .mended(session.mend(Mend::Ready))
            .seeing("stdout", &first.output);
    }
    let advice = |after: Duration| match after >= SLOW_START {
        true => "; set --wait-ready, so that no request waits for the start",
        false => "",
    };
    let Some((after, announcement)) = &first.ready else {
        let up = first.up_after.unwrap_or_default();
        return Finding::ok(
            Rule::Ready,
            match up >= SLOW_START {
                true => format!(
                    "no ready line, first reply after {}: send {{\"ready\":true}} and set --wait-ready",
                    shown(up)
                ),
                false => "no ready line: one request at a time".to_owned(),
            },
        );
    };
    if let Some(complaint) = &announcement.complaint {
        let summary = format!("a part of the ready line is not understood: {complaint}");
        return Finding::broken(Rule::Ready, Level::Should, summary);
    }
    let concurrency = announcement
        .concurrency
        .map_or_else(String::new, |number| format!(", concurrency {number}"));
    let context: Vec<&str> = announcement
        .context
        .iter()
        .map(ContextMember::name)
        .collect();
    let context = match context.is_empty() {
        true => String::new(),
        false => format!(", context {}", context.join(", ")),
    };
    let summary = format!(
        "after {}{concurrency}{context}{}",
        shown(*after),
        advice(*after)
    );
    Finding::ok(Rule::Ready, summary)
}

/// Nothing but replies on stdout.
pub(in crate::check) fn stray(session: &mut Session<'_>) -> Finding {
    let count = session.facts.strays;
    if count == 0 {
        return Finding::ok(Rule::Stray, "nothing on stdout but replies");
    }
    let lines = match count {
        1 => "1 line on stdout is no reply".to_owned(),
        count => format!("{count} lines on stdout are no replies"),
    };
    let is_log = session.facts.stray_lines.iter().any(|line| is_log(line));
    let cause = match (count, is_log) {
        (1, true) => {
            "It is a log line in JSON. It is logged and answers nothing, but without ids a log line \
             with a result or an error may be taken for a reply."
        }
        (_, true) => {
            "They are log lines in JSON. They are logged and answer nothing, but without ids a log \
             line with a result or an error may be taken for a reply."
        }
        (1, false) => {
            "It is logged and answers nothing, but a printed payload may hold a line like a reply."
        }
        (_, false) => {
            "They are logged and answer nothing, but a printed payload may hold a line like a reply."
        }
    };
    let mut finding = Finding::broken(Rule::Stray, Level::Should, lines)
        .because(cause)
        .mended(session.mend(Mend::Stdout));
    for line in session.facts.stray_lines.iter().take(SHOWN_LINES) {
        finding = finding.seeing("stdout", line);
    }
    debug_assert_eq!(finding.verdict, Verdict::Warn);
    finding
}

fn is_log(line: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line);
    object.is_ok_and(|object| {
        let names = ["level", "lvl", "severity", "msg", "message", "levelname"];
        names.iter().any(|name| object.contains_key(*name))
    })
}
