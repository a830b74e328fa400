//! Lines of stderr that came together, cut to their limits.

use super::{MAX_LINE_BYTES, quote};
use std::time::{Duration, Instant};

/// Largest block of lines that is kept together, in bytes.
const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// Longest that a block is kept while more comes.
pub(super) const MAX_BLOCK_AGE: Duration = Duration::from_millis(200);

/// Lines that came together.
#[derive(Debug, Default)]
pub(super) struct Block {
    text: Vec<u8>,
    since: Option<Instant>,
    line_length: usize,
    pub(super) last_line: String,
    pub(super) last_line_came: Option<Instant>,
    pub(super) last_read: Option<Instant>,
}

impl Block {
    /// When the block is to be logged if nothing more comes: it ends when it was quiet for so long.
    pub(super) fn quiet_at(&self, quiet: Duration) -> Option<Instant> {
        self.since.and(self.last_read).map(|read| read + quiet)
    }

    /// True when the block is as old, or as long, as a block may be.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_old = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) >= MAX_BLOCK_AGE);
        is_old || self.text.len() >= MAX_BLOCK_BYTES
    }

    /// Adds bytes that were read now; a line beyond its limit is cut.
    pub(super) fn push(&mut self, now: Instant, bytes: &[u8]) {
        self.since.get_or_insert(now);
        self.last_read = Some(now);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, &b"\n"[..]),
                None => (piece, &b""[..]),
            };
            let room = MAX_LINE_BYTES.saturating_sub(self.line_length);
            self.text.extend_from_slice(&line[..line.len().min(room)]);
            // Once, where the limit is passed.
            if line.len() > room && self.line_length <= MAX_LINE_BYTES {
                self.text.extend_from_slice("… (cut)".as_bytes());
            }
            self.text.extend_from_slice(end);
            self.line_length = match end {
                [] => self.line_length + line.len(),
                _ => 0,
            };
        }
    }

    /// Takes all of the block, without white space at its end.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.truncate(text.trim_ascii_end().len());
        self.note_last_line(&text);
        text
    }

    /// Takes the lines that have ended, each with its line end. A line without one stays.
    pub(super) fn take_lines(&mut self) -> Vec<u8> {
        let end = memchr::memrchr(b'\n', &self.text).map_or(0, |at| at + 1);
        let rest = self.text.split_off(end);
        let lines = std::mem::replace(&mut self.text, rest);
        self.note_last_line(&lines);
        lines
    }

    /// Takes the line that has not ended, if there is one, with a line end.
    pub(super) fn take_half_line(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.text);
        self.line_length = 0;
        if !line.is_empty() {
            line.push(b'\n');
        }
        self.note_last_line(&line);
        line
    }

    /// The text was taken; remembers the last line in it.
    fn note_last_line(&mut self, text: &[u8]) {
        self.since = None;
        if let Some(last) = last_line(text) {
            let last = String::from_utf8_lossy(last.trim_ascii());
            self.last_line = quote(&last).into_owned();
            self.last_line_came = self.last_read;
        }
    }
}

/// The last line that is not blank; where it is below the stack of an exception, as Node and Java
/// write it, the line of the exception. `None` where there is no line but the version of Node.
fn last_line(text: &[u8]) -> Option<&[u8]> {
    let lines = text.rsplit(|byte| *byte == b'\n');
    let mut lines = lines.filter(|line| !line.trim_ascii().is_empty());
    let last = lines.next()?;
    let is_end = is_end_of_node(last);
    if !is_end && !last.trim_ascii_start().starts_with(b"at ") {
        return Some(last);
    }
    let names_it = |line: &&[u8]| {
        let mut names = ["Error", "Exception", "error"].iter();
        let has_name = names.any(|name| memchr::memmem::find(line, name.as_bytes()).is_some());
        !line[0].is_ascii_whitespace() && has_name && line.contains(&b':')
    };
    let other = lines.clone().find(|line| !is_end_of_node(line));
    let usual = if is_end { other } else { Some(last) };
    lines.find(names_it).or(usual)
}

/// True for lines that Node writes below any exception: its version, and how to have a stack shown.
fn is_end_of_node(line: &[u8]) -> bool {
    line.starts_with(b"Node.js v") || line.starts_with(b"(Use `node ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_exception_is_found_above_its_stack() {
        for (text, line) in [
            ("a\nb\n\n", "b"),
            (
                "x.js:1\n  parse()\n\nSyntaxError: bad\n    at JSON.parse\n    at f {\n  code: 1\n}\n\nNode.js v20.1",
                "SyntaxError: bad",
            ),
            (
                "Exception in thread \"main\" E: no\n\tat A.main(A.java:3)\n",
                "Exception in thread \"main\" E: no",
            ),
            ("    at f\n    at g\n", "    at g"),
            ("Error: no\nlast", "last"),
            (
                "x.js:1\nUncaught:\n'boom'\n(Use `node --trace-uncaught ...` to see)\n\nNode.js v20.1",
                "'boom'",
            ),
        ] {
            assert_eq!(last_line(text.as_bytes()), Some(line.as_bytes()), "{text}");
        }
        assert_eq!(last_line(b" \n"), None);
        // The exception came in the block before.
        assert_eq!(last_line(b"\nNode.js v20.1\n"), None);
    }

    #[test]
    fn a_traceback_stays_one_block_and_its_last_line_is_kept() {
        let mut block = Block::default();
        block.push(Instant::now(), b"Traceback:\n  File\nValue");
        block.push(Instant::now(), b"Error: no\n\n");
        assert_eq!(block.take(), b"Traceback:\n  File\nValueError: no");
        assert_eq!(block.last_line, "ValueError: no");
        assert!(!block.is_due(Instant::now()));
    }

    #[test]
    fn long_lines_are_cut_and_the_next_is_whole() {
        let mut block = Block::default();
        block.push(Instant::now(), &[b'x'; 3 * MAX_LINE_BYTES]);
        block.push(Instant::now(), b"xxx\nnext\n");
        let text = String::from_utf8(block.take()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), MAX_LINE_BYTES + "… (cut)".len());
        assert_eq!(lines[1], "next");
        // The limit is passed by what is behind it, in whatever pieces it comes.
        let full = "x".repeat(MAX_LINE_BYTES);
        for (pieces, line) in [
            (vec![format!("{full}\n")], full.clone()),
            (vec![full.clone(), "\n".to_owned()], full.clone()),
            (
                vec![full.clone(), "y\n".to_owned()],
                format!("{full}… (cut)"),
            ),
            (
                vec![full.clone(), "y".to_owned(), "z\n".to_owned()],
                format!("{full}… (cut)"),
            ),
        ] {
            let mut block = Block::default();
            for piece in pieces {
                block.push(Instant::now(), piece.as_bytes());
            }
            assert_eq!(block.take(), line.as_bytes());
        }
    }

    #[test]
    fn lines_that_are_not_looked_into_keep_their_bytes_and_half_a_line_waits_for_its_end() {
        let mut block = Block::default();
        block.push(Instant::now(), b"a\xff \n\n\x1b[1mb\r\nhal");
        assert_eq!(block.take_lines(), b"a\xff \n\n\x1b[1mb\r\n");
        assert_eq!(block.quiet_at(Duration::ZERO), None);
        assert_eq!(block.take_lines(), b"");
        block.push(Instant::now(), b"f\n");
        assert_eq!(block.take_lines(), b"half\n");
        assert_eq!(block.last_line, "half");
        block.push(Instant::now(), b"end");
        assert_eq!(block.take_half_line(), b"end\n");
        assert_eq!(block.take_half_line(), b"");
        // The limit of a line counts over blocks.
        block.push(Instant::now(), &[b'x'; MAX_LINE_BYTES]);
        assert_eq!(block.take_lines(), b"");
        block.push(Instant::now(), b"yz\n");
        assert_eq!(block.take_lines().len(), MAX_LINE_BYTES + "… (cut)\n".len());
    }
}
