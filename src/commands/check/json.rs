//! Findings as JSON, one object a line.

use super::{ReportWriter, Totals};
use crate::check::{Finding, Verdict};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Findings as JSON, one object a line.
pub(super) struct JsonReport;

impl ReportWriter for JsonReport {
    fn begin(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finding(&mut self, out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
        writeln!(out, "{}", object(finding))
    }

    fn end(&mut self, out: &mut dyn Write, all: &Totals) -> io::Result<()> {
        let totals = json!({
            "passed": all.count(Verdict::Ok),
            "failed": all.count(Verdict::Fail),
            "warned": all.count(Verdict::Warn),
            "skipped": all.count(Verdict::Skip),
        });
        writeln!(out, "{totals}")
    }
}

/// A finding as a JSON object. Several quotations under one name are a list.
pub(super) fn object(finding: &Finding) -> Value {
    let mut seen = Map::new();
    for (name, text) in &finding.seen {
        match seen.get_mut(*name) {
            Some(Value::Array(texts)) => texts.push(json!(text)),
            Some(first) => *first = json!([first, text]),
            None => drop(seen.insert((*name).to_owned(), json!(text))),
        }
    }
    json!({
        "id": finding.rule.id(),
        "level": finding.level.as_str(),
        "verdict": finding.verdict.as_str(),
        "summary": finding.summary,
        "cause": finding.cause,
        "expected": finding.rule.expected(),
        "mend": finding.mend.join("\n"),
        "seen": seen,
        "ms": u64::try_from(finding.took.as_millis()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Level, Rule};

    #[test]
    fn a_finding_is_one_line_whatever_was_seen() {
        let finding = Finding::broken(Rule::Stray, Level::Should, "2 lines")
            .mended(vec!["one".to_owned(), "two".to_owned()])
            .seeing("stdout", "a\n\"b\"")
            .seeing("stdout", "c");
        let mut out = Vec::new();
        JsonReport.finding(&mut out, &finding).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["verdict"], "warn");
        assert_eq!(object["mend"], "one\ntwo");
        assert_eq!(object["seen"], json!({"stdout": ["a\\n\"b\"", "c"]}));
    }
}
