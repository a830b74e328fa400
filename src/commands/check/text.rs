//! Findings for people, at the width of their terminal.

use super::{ReportWriter, Totals};
use crate::check::{Finding, Verdict};
use std::io::{self, IsTerminal, Write};

/// Columns where there is no terminal, and most columns of a line.
const USUAL_WIDTH: usize = 80;

/// The column in which summaries begin.
const SUMMARY: usize = 21;

/// The column in which causes and mends begin.
const DETAIL: usize = 8;

/// Findings for people.
pub(super) struct TextReport {
    width: usize,
    has_colour: bool,
}

impl TextReport {
    /// For stdout: as wide as its terminal, and in colour on a terminal alone.
    pub(super) fn for_stdout() -> TextReport {
        let columns = rustix::termios::tcgetwinsize(io::stdout());
        let columns = columns.map_or(0, |size| usize::from(size.ws_col));
        let width = match columns {
            0 => USUAL_WIDTH,
            columns => columns.clamp(40, USUAL_WIDTH),
        };
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        TextReport {
            width,
            has_colour: io::stdout().is_terminal() && !is_plain,
        }
    }

    fn word(&self, verdict: Verdict) -> String {
        let (word, colour) = match verdict {
            Verdict::Ok => ("ok  ", "32"),
            Verdict::Fail => ("FAIL", "1;31"),
            Verdict::Warn => ("warn", "33"),
            Verdict::Skip => ("skip", "2"),
        };
        match self.has_colour {
            true => format!("\x1b[{colour}m{word}\x1b[0m"),
            false => word.to_owned(),
        }
    }

    fn paragraph(
        &self,
        out: &mut dyn Write,
        text: &str,
        begin: usize,
        hang: usize,
    ) -> io::Result<()> {
        out.write_all(paragraph(text, self.width, begin, hang).as_bytes())
    }
}

impl ReportWriter for TextReport {
    fn begin(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finding(&mut self, out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
        let room = self.width.saturating_sub(SUMMARY);
        let lines = wrapped(&finding.summary, room, room);
        let mut lines = lines.iter();
        let first = lines.next().map_or("", String::as_str);
        writeln!(
            out,
            "  {}  {:<13}{first}",
            self.word(finding.verdict),
            finding.rule.id()
        )?;
        for line in lines {
            writeln!(out, "{:SUMMARY$}{line}", "")?;
        }
        if !finding.cause.is_empty() {
            self.paragraph(out, &finding.cause, DETAIL, 0)?;
        }
        let is_broken = matches!(finding.verdict, Verdict::Fail | Verdict::Warn);
        if is_broken {
            for (name, text) in &finding.seen {
                self.paragraph(out, &format!("{name}: {text}"), DETAIL, 2)?;
            }
        }
        for line in &finding.mend {
            self.paragraph(out, &format!("> {line}"), DETAIL, 2)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write, all: &Totals) -> io::Result<()> {
        let tried = all.findings.len() - all.count(Verdict::Skip);
        let findings = all.findings.iter();
        let broken: Vec<&str> = findings
            .filter(|finding| finding.verdict == Verdict::Fail)
            .map(|finding| finding.rule.id())
            .collect();
        let warned = all.count(Verdict::Warn);
        let warned = match warned {
            0 => String::new(),
            count => format!(" {}", warnings(count)),
        };
        let text = match broken.first() {
            None => format!("{} tried, none broken.{warned}", rules(tried)),
            Some(first) => format!(
                "{} of {} broken: {}.{warned}\nMore: faas-worker check --explain {first}",
                broken.len(),
                rules(tried),
                broken.join(", ")
            ),
        };
        for line in text.lines() {
            self.paragraph(out, line, 0, 0)?;
        }
        Ok(())
    }
}

fn rules(count: usize) -> String {
    match count {
        1 => "1 rule".to_owned(),
        count => format!("{count} rules"),
    }
}

fn warnings(count: usize) -> String {
    match count {
        1 => "1 warning; --strict makes it a failure.".to_owned(),
        count => format!("{count} warnings; --strict makes them failures."),
    }
}

/// A text in lines of at most `width` columns, indented by `begin`, and from the second line on by
/// `hang` more.
pub(super) fn paragraph(text: &str, width: usize, begin: usize, hang: usize) -> String {
    let width = width.saturating_sub(begin);
    let mut paragraph = String::new();
    for (index, line) in wrapped(text, width, width.saturating_sub(hang))
        .iter()
        .enumerate()
    {
        let indent = begin + if index == 0 { 0 } else { hang };
        paragraph += &format!("{:indent$}{line}\n", "");
    }
    paragraph
}

/// The words of a text in lines of at most `width` characters, the first of at most `first`. A word
/// that is longer is cut.
fn wrapped(text: &str, first: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = first;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("one line is there");
            let gap = usize::from(!line.is_empty());
            if line.chars().count() + gap + word.len() <= room {
                if gap == 1 {
                    line.push(' ');
                }
                line.extend(&word);
                break;
            }
            if line.is_empty() || word.len() > width {
                // A word longer than any line.
                let used = line.chars().count() + gap;
                let cut = word.len().min(room.saturating_sub(used));
                if cut > 0 {
                    if gap == 1 {
                        line.push(' ');
                    }
                    line.extend(word.drain(..cut));
                } else if line.is_empty() {
                    line.extend(word.drain(..));
                }
            }
            lines.push(String::new());
            room = width;
            if word.is_empty() {
                break;
            }
        }
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_words_and_long_words_are_cut() {
        assert_eq!(wrapped("a bc def", 4, 4), ["a bc", "def"]);
        assert_eq!(wrapped("a bc def", 80, 80), ["a bc def"]);
        assert_eq!(wrapped("", 5, 5), [""]);
        assert_eq!(wrapped("ab abcdefgh x", 5, 5), ["ab ab", "cdefg", "h x"]);
        assert_eq!(wrapped("abcdefghij", 5, 4), ["abcde", "fghi", "j"]);
        for width in 1..30 {
            for line in wrapped(
                "some words, aVeryLongWordWithoutAnEnd, and more",
                width,
                width,
            ) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
