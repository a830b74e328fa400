//! The line of a request.

use crate::json_string::{push_char, unescaped, unicode_escape};
use crate::process::ids::IdDigits;

/// Members beside `payload`, already chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestContext<'a> {
    /// Names and values of headers.
    pub headers: Option<&'a [(String, String)]>,
    /// Time left for this request, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The request id.
    pub request_id: Option<&'a str>,
    /// The caller's `traceparent`.
    pub traceparent: Option<&'a str>,
    /// The caller's `tracestate`.
    pub tracestate: Option<&'a str>,
}

/// Appends the line of a request.
///
/// `payload` is the inside of a valid JSON string without lone surrogates; it is written as the
/// shortest JSON for the same text. U+0085, U+2028 and U+2029 are escaped too, because line
/// readers of some languages split there (Node's readline, Python's `str.splitlines`).
pub fn encode_request(
    line: &mut Vec<u8>,
    id: &IdDigits,
    payload: &[u8],
    context: &RequestContext<'_>,
) {
    line.reserve(payload.len() + 56);
    line.extend_from_slice(b"{\"id\":");
    line.extend_from_slice(id.as_bytes());
    line.extend_from_slice(b",\"payload\":\"");
    shorten(line, payload);
    line.push(b'"');
    if let Some(headers) = context.headers {
        line.extend_from_slice(b",\"headers\":{");
        for (index, (name, value)) in headers.iter().enumerate() {
            line.extend_from_slice(if index == 0 { b"" } else { b"," });
            push_string(line, name);
            line.push(b':');
            push_string(line, value);
        }
        line.push(b'}');
    }
    if let Some(timeout_ms) = context.timeout_ms {
        line.extend_from_slice(b",\"timeout_ms\":");
        let mut digits = itoa::Buffer::new();
        line.extend_from_slice(digits.format(timeout_ms).as_bytes());
    }
    for (name, value) in [
        ("request_id", context.request_id),
        ("traceparent", context.traceparent),
        ("tracestate", context.tracestate),
    ] {
        let Some(value) = value else { continue };
        line.push(b',');
        push_string(line, name);
        line.push(b':');
        push_string(line, value);
    }
    line.extend_from_slice(b"}\n");
}

/// True for characters at which some line readers split beside the line feed.
fn splits_lines(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn push_string(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    text.chars().for_each(|c| push_char(line, c, splits_lines));
    line.push(b'"');
}

/// Copies the inside of a JSON string, each character in its shortest form.
fn shorten(line: &mut Vec<u8>, mut text: &[u8]) {
    // C2 and E2 begin U+0085 and U+2028 in UTF-8, and many other characters.
    while let Some(at) = memchr::memchr3(b'\\', 0xC2, 0xE2, text) {
        line.extend_from_slice(&text[..at]);
        text = &text[at..];
        let (taken, c) = match text {
            [b'\\', b'u', ..] => match unicode_escape(text, 0) {
                Some((c, end)) => (end, c.unwrap_or(char::REPLACEMENT_CHARACTER)),
                None => (text.len(), char::REPLACEMENT_CHARACTER),
            },
            [b'\\', escaped, ..] => (2, unescaped(*escaped)),
            [0xC2, 0x85, ..] => (2, '\u{85}'),
            [0xE2, 0x80, 0xA8, ..] => (3, '\u{2028}'),
            [0xE2, 0x80, 0xA9, ..] => (3, '\u{2029}'),
            _ => {
                line.push(text[0]);
                text = &text[1..];
                continue;
            }
        };
        push_char(line, c, splits_lines);
        text = &text[taken..];
    }
    line.extend_from_slice(text);
}
