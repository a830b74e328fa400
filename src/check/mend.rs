//! Mends of typical mistakes, in the words of the handler's language.
//!
//! The texts stand in `mends.txt`: a section for each mend, with a sentence for every language and
//! one line for each language that has words of its own.

use super::language::Language;

/// The texts of all mends.
const TEXTS: &str = include_str!("mends.txt");

/// Languages that stand for all where the command does not tell its own.
const USUAL: usize = 2;

/// Makes the list of mends, each with the heading of its section.
macro_rules! mends {
    ($($mend:ident $heading:literal,)*) => {
        /// A way to mend a typical mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the texts say what each is about")]
        pub enum Mend { $($mend),* }

        impl Mend {
            /// All mends.
            #[cfg(test)]
            const ALL: &[Mend] = &[$(Mend::$mend),*];

            /// The heading of its section.
            fn heading(self) -> &'static str {
                match self { $(Mend::$mend => $heading),* }
            }
        }
    };
}

mends! {
    Flush "flush",
    Newline "newline",
    ReadLines "read-lines",
    Mawk "mawk",
    OneLine "one-line",
    RepeatId "repeat-id",
    ResultOrError "result-or-error",
    NullError "null-error",
    Status "status",
    LogLine "log-line",
    NotANumber "not-a-number",
    Encoding "encoding",
    ByteOrderMark "byte-order-mark",
    Stdout "stdout",
    OneReply "one-reply",
    LongLines "long-lines",
    WholeLines "whole-lines",
    Loop "loop",
    EndOfInput "end-of-input",
    Signal "signal",
    Children "children",
    Order "order",
    FlushEach "flush-each",
    Concurrency "concurrency",
    Memory "memory",
    Refuse "refuse",
    Ready "ready",
}

/// The text of a mend: a sentence for every language, and one in the words of the language.
pub(super) fn mend_text(mend: Mend, language: Language) -> Vec<String> {
    let mut shown = mends_by_language(mend);
    match language {
        // A command that does not tell its language may be any of these.
        Language::Unknown => shown.truncate(USUAL),
        known => shown.retain(|(label, _)| *label == known.label()),
    }
    let mut lines = vec![general_mend(mend).to_owned()];
    lines.extend(shown.into_iter().map(|(label, text)| match label {
        "compiled" => text.to_owned(),
        "shell" => format!("In a shell: {text}"),
        label => format!("In {label}: {text}"),
    }));
    lines
}

/// The sentence of a mend for every language.
pub fn general_mend(mend: Mend) -> &'static str {
    lines_of(mend).next().unwrap_or_default()
}

/// The sentences of a mend in the words of each language, with the names of the languages.
pub fn mends_by_language(mend: Mend) -> Vec<(&'static str, &'static str)> {
    let lines = lines_of(mend).skip(1);
    lines.filter_map(|line| line.split_once(": ")).collect()
}

/// The lines of the section of a mend.
fn lines_of(mend: Mend) -> impl Iterator<Item = &'static str> {
    let lines = TEXTS.lines();
    let is_heading = move |line: &&str| line.strip_prefix("# ") == Some(mend.heading());
    let section = lines.skip_while(move |line| !is_heading(line)).skip(1);
    section.take_while(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_speaks_the_language_of_the_command() {
        let python = mend_text(Mend::Flush, Language::Python);
        assert_eq!(python.len(), 2);
        assert_eq!(python[1], "In Python: print(json.dumps(reply), flush=True)");
        let jq = mend_text(Mend::Flush, Language::Jq);
        assert!(jq[1].contains("--unbuffered"), "{jq:?}");
        assert_eq!(mend_text(Mend::Flush, Language::Unknown).len(), 3);
        assert_eq!(mend_text(Mend::Order, Language::Python).len(), 1);
        // No mend of another language, where the own one has none.
        assert_eq!(mend_text(Mend::NotANumber, Language::Awk).len(), 1);
    }

    #[test]
    fn each_mend_has_a_section_and_each_line_a_language() {
        for mend in Mend::ALL {
            let general = general_mend(*mend);
            assert!(general.ends_with(['.', '}']), "{mend:?}: {general}");
            let labels: Vec<&str> = mends_by_language(*mend)
                .iter()
                .map(|(label, _)| *label)
                .collect();
            let lines = lines_of(*mend).count();
            assert_eq!(labels.len(), lines - 1, "{mend:?}");
            for label in labels {
                let is_known = Language::ALL.iter().any(|known| known.label() == label);
                assert!(is_known, "{mend:?}: {label}");
            }
        }
        for mend in [
            Mend::Flush,
            Mend::Newline,
            Mend::ReadLines,
            Mend::RepeatId,
            Mend::Stdout,
        ] {
            assert_eq!(
                mends_by_language(mend).len(),
                Language::ALL.len(),
                "{mend:?}"
            );
        }
        let sections = TEXTS.lines().filter(|line| line.starts_with("# "));
        assert_eq!(sections.count(), Mend::ALL.len());
    }
}
