//! Findings as TAP 14: a plan, a test point a rule, and a YAML block behind each that is broken.

use super::{ReportWriter, Totals};
use crate::check::{Finding, Verdict};
use serde_json::json;
use std::io::{self, Write};

/// Findings as TAP 14.
#[derive(Default)]
pub(super) struct TapReport {
    number: usize,
}

impl ReportWriter for TapReport {
    fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "TAP version 14")
    }

    fn finding(&mut self, out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
        self.number += 1;
        let (result, directive) = match finding.verdict {
            Verdict::Ok => ("ok", String::new()),
            Verdict::Fail => ("not ok", String::new()),
            // A test point that may fail is a TODO in this format.
            Verdict::Warn => ("not ok", " # TODO should be kept".to_owned()),
            Verdict::Skip => ("ok", format!(" # SKIP {}", escaped(&finding.summary))),
        };
        let summary = match finding.verdict {
            Verdict::Skip => String::new(),
            Verdict::Ok | Verdict::Fail | Verdict::Warn => format!(": {}", finding.summary),
        };
        let description = escaped(&format!("{}{summary}", finding.rule.id()));
        writeln!(out, "{result} {} - {description}{directive}", self.number)?;
        if matches!(finding.verdict, Verdict::Fail | Verdict::Warn) {
            block(out, finding)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write, _: &Totals) -> io::Result<()> {
        // A rule that others need is reported too, so the plan is only known behind the last.
        writeln!(out, "1..{}", self.number)
    }
}

/// The YAML block of a test point. JSON's strings are strings of YAML.
fn block(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    writeln!(out, "  ---")?;
    writeln!(out, "  level: {}", finding.level.as_str())?;
    writeln!(out, "  message: {}", json!(finding.summary))?;
    if !finding.cause.is_empty() {
        writeln!(out, "  cause: {}", json!(finding.cause))?;
    }
    writeln!(out, "  expected: {}", json!(finding.rule.expected()))?;
    if !finding.seen.is_empty() {
        writeln!(out, "  seen:")?;
        for (name, text) in &finding.seen {
            writeln!(out, "    - {}: {}", json!(name), json!(text))?;
        }
    }
    if !finding.mend.is_empty() {
        writeln!(out, "  mend:")?;
        for line in &finding.mend {
            writeln!(out, "    - {}", json!(line))?;
        }
    }
    writeln!(out, "  duration_ms: {}", finding.took.as_millis())?;
    writeln!(out, "  ...")
}

/// A description without line breaks, in which `#` and `\` begin nothing.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('#', "\\#");
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Level, Rule};

    #[test]
    fn test_points_are_escaped_and_numbered() {
        let mut out = Vec::new();
        let mut tap = TapReport::default();
        tap.begin(&mut out).unwrap();
        let ids = Finding::broken(Rule::Ids, Level::Should, "the id \"#1\\\" is text");
        tap.finding(&mut out, &ids.seeing("stdout", "a: b\n"))
            .unwrap();
        tap.finding(&mut out, &Finding::skip(Rule::Order, "why # not"))
            .unwrap();
        tap.finding(&mut out, &Finding::ok(Rule::Eof, "ended"))
            .unwrap();
        tap.end(&mut out, &Totals::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "TAP version 14");
        assert_eq!(
            lines[1],
            "not ok 1 - ids: the id \"\\#1\\\\\" is text # TODO should be kept"
        );
        assert_eq!(lines[2], "  ---");
        assert!(text.contains("    - \"stdout\": \"a: b\\\\n\"\n"), "{text}");
        assert!(
            text.contains("\nok 2 - order # SKIP why \\# not\n"),
            "{text}"
        );
        assert!(text.ends_with("\nok 3 - eof: ended\n1..3\n"), "{text}");
    }
}
