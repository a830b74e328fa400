//! Splits output into the events that it is logged as.

use crate::logging::object::object_in;

/// The output of one event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line that is one JSON object.
    Object(&'a str),
    /// Other lines that stand together, a traceback for one.
    Text(&'a [u8]),
}

impl Piece<'_> {
    /// The bytes of the output.
    pub(super) fn length(&self) -> usize {
        match self {
            Piece::Object(object) => object.len(),
            Piece::Text(text) => text.len(),
        }
    }
}

/// The events of a block of lines, in order.
pub(super) struct Pieces<'a> {
    rest: &'a [u8],
    /// The object behind the text that was found last.
    next: Option<&'a str>,
}

impl<'a> Pieces<'a> {
    /// The events of these lines.
    pub(super) fn of(block: &'a [u8]) -> Pieces<'a> {
        let (rest, next) = (block, None);
        Pieces { rest, next }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if let Some(object) = self.next.take() {
            return Some(Piece::Object(object));
        }
        let block = self.rest;
        let mut begin = 0;
        while begin < block.len() {
            let line_end = memchr::memchr(b'\n', &block[begin..]);
            let end = line_end.map_or(block.len(), |length| begin + length);
            if let Some(object) = object_in(&block[begin..end]) {
                self.rest = block.get(end + 1..).unwrap_or_default();
                let text = block[..begin].trim_ascii_end();
                if text.is_empty() {
                    return Some(Piece::Object(object));
                }
                self.next = Some(object);
                return Some(Piece::Text(text));
            }
            begin = end + 1;
        }
        self.rest = &[];
        (!block.trim_ascii().is_empty()).then_some(Piece::Text(block))
    }
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
