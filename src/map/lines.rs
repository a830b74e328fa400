//! Splits chunks of a file into lines.

use bytes::Bytes;
use memchr::memchr;

/// A line without its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RawLine {
    /// All of it.
    Whole(Bytes),
    /// The line is longer than a line may be; its length in bytes.
    TooLong(usize),
}

impl RawLine {
    /// Bytes of the line, without its line feed.
    pub(super) fn length(&self) -> usize {
        match self {
            RawLine::Whole(line) => line.len(),
            RawLine::TooLong(length) => *length,
        }
    }
}

/// Splits chunks into lines. A line within one chunk is a part of the chunk, without a copy.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The length of that line so far.
    length: usize,
    longest: usize,
}

impl Splitter {
    /// A splitter for lines of at most `longest` bytes.
    pub(super) fn new(longest: usize) -> Splitter {
        Splitter {
            begun: Vec::new(),
            length: 0,
            longest,
        }
    }

    /// Appends the lines that end in this chunk.
    pub(super) fn split(&mut self, mut chunk: Bytes, lines: &mut Vec<RawLine>) {
        while let Some(at) = memchr(b'\n', &chunk) {
            let line = chunk.split_to(at);
            drop(chunk.split_to(1));
            lines.push(match self.length {
                0 if line.len() <= self.longest => RawLine::Whole(line),
                _ => {
                    self.begin(&line);
                    self.end()
                }
            });
        }
        self.begin(&chunk);
    }

    /// Appends the last line, if it has no line feed.
    pub(super) fn finish(&mut self, lines: &mut Vec<RawLine>) {
        if self.length > 0 {
            lines.push(self.end());
        }
    }

    fn begin(&mut self, part: &[u8]) {
        self.length += part.len();
        if self.length <= self.longest {
            self.begun.extend_from_slice(part);
        } else {
            self.begun = Vec::new();
        }
    }

    fn end(&mut self) -> RawLine {
        let length = std::mem::take(&mut self.length);
        let line = std::mem::take(&mut self.begun);
        if length > self.longest {
            return RawLine::TooLong(length);
        }
        RawLine::Whole(line.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(text: &[u8], step: usize, longest: usize) -> Vec<RawLine> {
        let (mut splitter, mut lines) = (Splitter::new(longest), Vec::new());
        for chunk in text.chunks(step) {
            splitter.split(Bytes::copy_from_slice(chunk), &mut lines);
        }
        splitter.finish(&mut lines);
        lines
    }

    #[test]
    fn a_last_line_without_its_end_counts_and_an_empty_line_is_a_line() {
        let whole = |text: &'static str| RawLine::Whole(text.into());
        for (text, expected) in [
            ("", vec![]),
            ("a", vec![whole("a")]),
            ("a\n", vec![whole("a")]),
            ("\n\na\r\n", vec![whole(""), whole(""), whole("a\r")]),
            ("abcdef\nb", vec![RawLine::TooLong(6), whole("b")]),
        ] {
            for step in 1..4 {
                assert_eq!(lines_of(text.as_bytes(), step, 5), expected, "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_change_lines(text in "[ab\n]{0,60}", step in 1usize..9) {
            let mut expected: Vec<_> = text.split('\n').collect();
            if expected.last() == Some(&"") {
                expected.pop();
            }
            let expected = expected.into_iter().map(|line| match line.len() {
                0..=4 => RawLine::Whole(Bytes::copy_from_slice(line.as_bytes())),
                length => RawLine::TooLong(length),
            });
            prop_assert_eq!(lines_of(text.as_bytes(), step, 4), expected.collect::<Vec<_>>());
        }
    }
}
