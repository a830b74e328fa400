//! Splits a stream of bytes into lines.

/// Longest part of a stray line that is logged, in bytes.
pub const MAX_STRAY_BYTES: usize = 8 * 1024;

/// Room for `{"id":…,"result":` and unknown members around a result of the largest size, in bytes.
const MAX_ENVELOPE_BYTES: usize = 4 * 1024;

/// Splits a stream into lines, whatever the sizes of the reads.
///
/// Holds at most one line: up to the largest reply when it begins with `{`, [`MAX_STRAY_BYTES`]
/// bytes when it does not. A longer line is reported once, as soon as it is too long, and then
/// skipped up to its end.
#[derive(Debug)]
pub struct Framer {
    partial: Vec<u8>,
    max_line_bytes: usize,
    skipping: bool,
}

/// One line, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum ProcessLine<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// The beginning of a line that is longer than its limit; the rest is skipped.
    TooLong(&'a [u8]),
}

impl Framer {
    /// A framer for lines whose `result` may have this many bytes.
    pub fn new(max_reply_bytes: usize) -> Framer {
        let max_line_bytes = max_reply_bytes.saturating_add(MAX_ENVELOPE_BYTES);
        Framer {
            partial: Vec::new(),
            max_line_bytes,
            skipping: false,
        }
    }

    /// Takes the bytes of a read; `each` gets every line that ends, or becomes too long, in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(ProcessLine<'_>)) {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = match end {
                Some(end) => (&bytes[..end], &bytes[end + 1..]),
                None => (bytes, &bytes[bytes.len()..]),
            };
            bytes = rest;
            if self.skipping {
                self.skipping = end.is_none();
            } else if end.is_some() && self.partial.is_empty() {
                let limit = self.limit(piece);
                each(if piece.len() > limit {
                    too_long(piece, limit)
                } else {
                    ProcessLine::Whole(piece)
                });
            } else {
                self.partial.extend_from_slice(piece);
                self.finish_partial(end.is_some(), &mut each);
            }
        }
    }

    /// The line whose end has not been read yet.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// True in the middle of a line, be it kept or skipped.
    pub fn is_inside_line(&self) -> bool {
        self.skipping || !self.partial.is_empty()
    }

    fn finish_partial(&mut self, ended: bool, each: &mut impl FnMut(ProcessLine<'_>)) {
        let limit = self.limit(&self.partial);
        if self.partial.len() > limit {
            each(too_long(&self.partial, limit));
            self.skipping = !ended;
        } else if ended {
            each(ProcessLine::Whole(&self.partial));
        } else {
            return;
        }
        // A large reply must not keep its buffer for the life of the process.
        if self.partial.capacity() > 64 * 1024 {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
        }
    }

    fn limit(&self, line: &[u8]) -> usize {
        if is_braced(line) {
            self.max_line_bytes
        } else {
            MAX_STRAY_BYTES
        }
    }
}

/// True when a line may be a reply: it begins with `{`, one byte order mark forgiven.
pub fn is_braced(line: &[u8]) -> bool {
    without_mark(line).first() == Some(&b'{')
}

/// Number of objects in this text, not counting objects inside of another: each may be a reply.
pub fn objects_in(text: &[u8]) -> usize {
    let (mut count, mut depth) = (0, 0_usize);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' if depth > 0 => is_string = !is_string,
            _ if is_string => {}
            b'{' => {
                count += usize::from(depth == 0);
                depth += 1;
            }
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    count
}

/// Most replies that a line, or the beginning of one, may have been meant as. A line without a
/// brace is neither a reply nor a part of one.
pub fn replies_at_most(line: &[u8]) -> usize {
    match memchr::memchr2(b'{', b'}', line) {
        Some(_) => objects_in(line).max(1),
        None => 0,
    }
}

fn too_long(line: &[u8], limit: usize) -> ProcessLine<'_> {
    ProcessLine::TooLong(&line[..limit.min(MAX_STRAY_BYTES)])
}

pub(super) fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}
