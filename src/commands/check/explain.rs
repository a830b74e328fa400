//! `faas-worker check --list` and `--explain`: the rules themselves, without a handler.

use super::text::paragraph;
use crate::check::{Mend, Rule, general_mend, mends_by_language};
use std::io::{self, Write};

/// Columns of the texts.
const WIDTH: usize = 80;

/// Prints all rules, one a line.
pub fn list() {
    let mut out = io::stdout().lock();
    for rule in Rule::ALL {
        let line = format!(
            "{:<13}{:<8}{}",
            rule.id(),
            rule.level().as_str(),
            rule.expected()
        );
        // A reader that has closed its end wants no more of it.
        drop(writeln!(out, "{line}"));
    }
}

/// Prints the expectation of a rule, its trial, and its mends in each language.
pub fn explain(rule: Rule) {
    let mut out = io::stdout().lock();
    drop(out.write_all(explanation(rule).as_bytes()));
}

fn explanation(rule: Rule) -> String {
    let head = format!(
        "{} ({}): {}.",
        rule.id(),
        rule.level().as_str(),
        rule.expected()
    );
    let mut text = paragraph(&head, WIDTH, 0, 0) + "\n";
    text += &paragraph(rule.tried(), WIDTH, 0, 0);
    for mend in mends_of(rule) {
        text.push('\n');
        text += &paragraph(general_mend(*mend), WIDTH, 0, 0);
        for (language, words) in mends_by_language(*mend) {
            text += &paragraph(&format!("{language:<11} {words}"), WIDTH, 2, 12);
        }
    }
    text
}

/// The mends of the mistakes that break a rule.
fn mends_of(rule: Rule) -> &'static [Mend] {
    match rule {
        Rule::Start => &[],
        Rule::Answers => &[
            Mend::Flush,
            Mend::Newline,
            Mend::ReadLines,
            Mend::Mawk,
            Mend::OneLine,
            Mend::ResultOrError,
            Mend::NullError,
            Mend::Status,
            Mend::LogLine,
            Mend::NotANumber,
            Mend::Refuse,
        ],
        Rule::Ids => &[Mend::RepeatId],
        Rule::OneEach => &[Mend::OneReply],
        Rule::Order => &[Mend::Order, Mend::FlushEach],
        Rule::Concurrency => &[Mend::Concurrency],
        Rule::Error => &[Mend::Refuse],
        Rule::Unicode => &[Mend::Encoding, Mend::ByteOrderMark],
        Rule::Large => &[Mend::LongLines, Mend::WholeLines],
        Rule::Many => &[Mend::Loop, Mend::Memory],
        Rule::Stray => &[Mend::Stdout],
        Rule::Eof => &[Mend::EndOfInput],
        Rule::Sigterm => &[Mend::Signal],
        Rule::Ready => &[Mend::Ready],
        Rule::Children => &[Mend::Children],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_explained_within_the_width() {
        for rule in Rule::ALL {
            let text = explanation(*rule);
            assert!(text.contains(rule.id()), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}
