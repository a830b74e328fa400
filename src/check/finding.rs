//! Findings of a check: the verdict about one rule, its cause, its mend and quotations.

use super::rule::{Level, Rule};
use std::time::Duration;

/// Most characters of a quotation.
const QUOTED: usize = 200;

/// Whether a rule is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Kept.
    Ok,
    /// Broken.
    Fail,
    /// Broken, but the level of the finding is not `must`: a handler need not keep the rule.
    Warn,
    /// Not tried.
    Skip,
}

impl Verdict {
    /// As machines read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Fail => "fail",
            Verdict::Warn => "warn",
            Verdict::Skip => "skip",
        }
    }
}

/// The finding of a check about one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// How much this finding matters; mostly the level of the rule.
    pub level: Level,
    /// Whether the rule is kept.
    pub verdict: Verdict,
    /// The finding in a few words, escaped.
    pub summary: String,
    /// The cause, in sentences, escaped.
    pub cause: String,
    /// How to mend it, in the words of the handler's language where that is known.
    pub mend: Vec<String>,
    /// Quotations of output with their names, escaped and cut.
    pub seen: Vec<(&'static str, String)>,
    /// How long the trial took.
    pub took: Duration,
}

impl Finding {
    /// The rule is kept.
    pub fn ok(rule: Rule, summary: impl Into<String>) -> Finding {
        Finding {
            rule,
            level: rule.level(),
            verdict: Verdict::Ok,
            summary: escaped(&summary.into()),
            cause: String::new(),
            mend: Vec::new(),
            seen: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// The rule was not tried; says why.
    pub fn skip(rule: Rule, why: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Skip,
            ..Finding::ok(rule, why)
        }
    }

    /// The rule is broken, at this level.
    pub fn broken(rule: Rule, level: Level, summary: impl Into<String>) -> Finding {
        let verdict = match level {
            Level::Must => Verdict::Fail,
            Level::Should | Level::Info => Verdict::Warn,
        };
        Finding {
            level,
            verdict,
            ..Finding::ok(rule, summary)
        }
    }

    /// With a cause.
    pub fn because(self, cause: impl Into<String>) -> Finding {
        let cause = escaped(&cause.into());
        Finding { cause, ..self }
    }

    /// With a mend.
    pub fn mended(self, mend: Vec<String>) -> Finding {
        Finding { mend, ..self }
    }

    /// With something that was seen, unless it is empty.
    pub fn seeing(mut self, name: &'static str, text: impl AsRef<[u8]>) -> Finding {
        let text = text.as_ref();
        if !text.is_empty() {
            self.seen.push((name, quoted(text)));
        }
        self
    }

    /// The finding as a strict check counts it: a broken rule of the level `should` fails the
    /// check, too.
    #[must_use]
    pub fn strict(self) -> Finding {
        let verdict = match (self.verdict, self.level) {
            (Verdict::Warn, Level::Should) => Verdict::Fail,
            (verdict, _) => verdict,
        };
        Finding { verdict, ..self }
    }
}

/// The text with control characters escaped, cut to a length that can be read.
pub(super) fn quoted(text: &[u8]) -> String {
    // A character takes four bytes at most.
    let beginning = &text[..text.len().min(4 * QUOTED + 4)];
    let decoded = String::from_utf8_lossy(beginning);
    let shown: String = decoded.chars().take(QUOTED).collect();
    let mut quoted = escaped(&shown);
    if decoded.chars().count() > QUOTED || text.len() > beginning.len() {
        quoted += &format!("… ({} bytes)", text.len());
    }
    quoted
}

/// The text with control characters escaped. A text that is escaped already stays as it is.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => escaped.extend(character.escape_default()),
            ' '..='~' => escaped.push(character),
            '\u{a0}'.. if is_visible(character) => escaped.push(character),
            other => escaped.extend(other.escape_unicode()),
        }
    }
    escaped
}

/// False for characters that a terminal obeys or does not show: separators, marks of direction,
/// byte order marks, surrogates' places and private use.
fn is_visible(character: char) -> bool {
    !matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_hold_no_control_characters_and_end() {
        for (text, expected) in [
            (&b"{\"id\":7}"[..], "{\"id\":7}"),
            (b"a\x1b[31m\r\nb", "a\\u{1b}[31m\\r\\nb"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("\u{feff}\u{202e}é".as_bytes(), "\\u{feff}\\u{202e}é"),
        ] {
            assert_eq!(quoted(text), expected);
        }
        let long = quoted("é".repeat(5000).as_bytes());
        assert!(long.ends_with("é… (10000 bytes)"), "{long}");
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), QUOTED);
        assert_eq!(quoted(&[b'x'; QUOTED]), "x".repeat(QUOTED));
    }

    #[test]
    fn summaries_and_causes_hold_no_control_characters() {
        let raw = "é\x1b[2J\n\u{9b}31m\u{7f}\u{202e}\u{61c}";
        let shown = "é\\u{1b}[2J\\n\\u{9b}31m\\u{7f}\\u{202e}\\u{61c}";
        for finding in [
            Finding::ok(Rule::Children, raw),
            Finding::skip(Rule::Children, raw),
            Finding::broken(Rule::Children, Level::Should, raw),
            Finding::ok(Rule::Children, shown),
        ] {
            assert_eq!(finding.summary, shown);
        }
        let finding = Finding::ok(Rule::Start, "").because(raw);
        assert_eq!(finding.cause, shown);
    }

    #[test]
    fn a_should_breaks_a_strict_check_alone() {
        let must = Finding::broken(Rule::Answers, Level::Must, "");
        let should = Finding::broken(Rule::Ids, Level::Should, "");
        let info = Finding::broken(Rule::Ready, Level::Info, "");
        for (finding, loose, strict) in [
            (must, true, true),
            (should, false, true),
            (info, false, false),
        ] {
            assert_eq!(finding.verdict == Verdict::Fail, loose, "{finding:?}");
            let counted = finding.strict();
            assert_eq!(counted.verdict == Verdict::Fail, strict, "{counted:?}");
        }
    }
}
