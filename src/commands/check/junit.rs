//! Findings as the XML of JUnit, in the form that servers of continuous integration read.

use super::{ReportWriter, Totals};
use crate::check::{Finding, Verdict};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Findings as the XML of JUnit; written when all are there, for the head has their numbers.
pub(super) struct JunitReport;

impl ReportWriter for JunitReport {
    fn begin(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finding(&mut self, _: &mut dyn Write, _: &Finding) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write, all: &Totals) -> io::Result<()> {
        let seconds: f64 = all
            .findings
            .iter()
            .map(|finding| finding.took.as_secs_f64())
            .sum();
        writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(
            out,
            "<testsuites>\n  <testsuite name=\"faas-worker check\" tests=\"{}\" failures=\"{}\" \
             errors=\"0\" skipped=\"{}\" time=\"{seconds:.3}\">",
            all.findings.len(),
            all.count(Verdict::Fail),
            all.count(Verdict::Skip),
        )?;
        for finding in &all.findings {
            case(out, finding)?;
        }
        writeln!(out, "  </testsuite>\n</testsuites>")
    }
}

fn case(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    write!(
        out,
        "    <testcase classname=\"faas-worker.check.{}\" name=\"{}\" time=\"{:.3}\"",
        finding.level.as_str(),
        finding.rule.id(),
        finding.took.as_secs_f64(),
    )?;
    let summary = escaped(&finding.summary);
    match finding.verdict {
        Verdict::Ok => writeln!(out, "/>"),
        Verdict::Skip => writeln!(out, "><skipped message=\"{summary}\"/></testcase>"),
        Verdict::Fail => writeln!(
            out,
            "><failure message=\"{summary}\">{}</failure></testcase>",
            escaped(&details(finding))
        ),
        Verdict::Warn => writeln!(
            out,
            "><system-err>{}</system-err></testcase>",
            escaped(&format!("{}\n{}", finding.summary, details(finding)))
        ),
    }
}

fn details(finding: &Finding) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if !finding.cause.is_empty() {
        let _ = writeln!(text, "{}", finding.cause);
    }
    let _ = writeln!(text, "expected: {}", finding.rule.expected());
    for (name, seen) in &finding.seen {
        let _ = writeln!(text, "{name}: {seen}");
    }
    for line in &finding.mend {
        let _ = writeln!(text, "mend: {line}");
    }
    text
}

/// The text for XML 1.0, which has no control characters but tab and line breaks.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                escaped.extend(control.escape_unicode());
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Level, Rule};

    #[test]
    fn texts_of_handlers_break_no_xml() {
        let finding = Finding::broken(Rule::Answers, Level::Must, "\"<a>\" & 'b'\u{1}\u{ffff}")
            .seeing("stdout", "]]>\u{1b}");
        let mut out = Vec::new();
        let all = Totals {
            findings: vec![finding, Finding::skip(Rule::Ids, "why <not>")],
        };
        JunitReport.end(&mut out, &all).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("message=\"&quot;&lt;a&gt;&quot; &amp; &apos;b&apos;\\u{1}\\u{ffff}\""),
            "{text}"
        );
        assert!(text.contains("stdout: ]]&gt;\\u{1b}\n"), "{text}");
        assert!(
            text.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"1\""),
            "{text}"
        );
        assert!(
            text.contains("<skipped message=\"why &lt;not&gt;\"/>"),
            "{text}"
        );
    }
}
