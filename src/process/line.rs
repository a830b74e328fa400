//! Framing, and the JSON of lines: bytes in, meaning out. No I/O, no state but half a line.
//!
//! Never decoded here: payloads and results. They pass as the JSON text they came in, which is
//! checked (a result) or known (a payload) to be one valid JSON value.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a stray line may show of itself in the log, in bytes.
pub const STRAY_LIMIT: usize = 8 * 1024;

/// Room for `{"id":…,"result":` and unknown members around a result of the largest size, in bytes.
const ENVELOPE_LIMIT: usize = 4 * 1024;

/// Splits a stream into lines, whatever the sizes of the reads.
///
/// Holds at most one line: up to the largest reply when it begins with `{`, [`STRAY_LIMIT`] bytes
/// when it does not. What is longer is reported once, as soon as it is too long, and then skipped
/// up to its end.
#[derive(Debug)]
pub struct Framer {
    partial: Vec<u8>,
    reply_limit: usize,
    skipping: bool,
}

/// One line, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// The beginning of a line that is longer than its limit; the rest is skipped.
    TooLong(&'a [u8]),
}

impl Framer {
    /// A framer for lines whose `result` may have this many bytes.
    pub fn new(max_reply_bytes: usize) -> Framer {
        let reply_limit = max_reply_bytes.saturating_add(ENVELOPE_LIMIT);
        Framer {
            partial: Vec::new(),
            reply_limit,
            skipping: false,
        }
    }

    /// Takes what was read and hands over each line that ends, or becomes too long, in it.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
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
                    Line::Whole(piece)
                });
            } else {
                self.partial.extend_from_slice(piece);
                self.finish_partial(end.is_some(), &mut each);
            }
        }
    }

    /// What was read of a line whose end has not been seen.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// True in the middle of a line, be it kept or skipped.
    pub fn is_inside_line(&self) -> bool {
        self.skipping || !self.partial.is_empty()
    }

    fn finish_partial(&mut self, ended: bool, each: &mut impl FnMut(Line<'_>)) {
        let limit = self.limit(&self.partial);
        if self.partial.len() > limit {
            each(too_long(&self.partial, limit));
            self.skipping = !ended;
        } else if ended {
            each(Line::Whole(&self.partial));
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
            self.reply_limit
        } else {
            STRAY_LIMIT
        }
    }
}

/// True when a line may be a reply: it begins with `{`, one byte order mark forgiven.
pub fn is_braced(line: &[u8]) -> bool {
    without_mark(line).first() == Some(&b'{')
}

fn too_long(line: &[u8], limit: usize) -> Line<'_> {
    Line::TooLong(&line[..limit.min(STRAY_LIMIT)])
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// What a line means.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// Not for us: print debugging, banners, JSON without `result` or `error`.
    Stray,
    /// JSON with an id and nothing else of ours; broken if the id is that of a request.
    IdOnly(Id),
    /// The ready line.
    Ready(Announcement),
    /// An answer, and the id it names.
    Reply(Option<Id>, Answer<'a>),
}

/// An id as a process wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// A JSON integer that could be one of ours.
    Integer(u64),
    /// Anything else: `"7"`, `7.0`, `-1`, `null`.
    Foreign,
}

/// The answer in a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The JSON text of `result`.
    Result(&'a str),
    /// An error; its message is JSON text with its quotes.
    Error {
        /// The message.
        message: &'a str,
        /// The status, if one was chosen.
        status: Option<u16>,
        /// True when the reply had a result too.
        is_beside_result: bool,
    },
    /// Neither, of a shape that breaks the protocol; says how.
    Broken(String),
    /// Text that is not UTF-8; says from which byte on.
    NotUtf8(usize),
}

/// What a ready line announces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// How many requests at once, if said.
    pub concurrency: Option<usize>,
    /// The members wanted beside `payload`.
    pub context: Vec<ContextMember>,
    /// What in the line was not understood, for the log.
    pub complaint: Option<String>,
}

/// A member that a handler may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextMember {
    /// The headers named by `--pass-header`.
    Headers,
    /// What is left for this request, in milliseconds.
    TimeoutMs,
    /// The request id.
    RequestId,
    /// The caller's trace context.
    Traceparent,
}

/// Reads one line. One byte order mark before it and one CR after it are forgiven.
pub fn parse(line: &[u8]) -> Parsed<'_> {
    let line = without_mark(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first() != Some(&b'{') {
        return Parsed::Stray;
    }
    match std::str::from_utf8(line) {
        Ok(text) => envelope(text).map_or(Parsed::Stray, Envelope::meaning),
        Err(error) => parse_broken_text(line, error.valid_up_to()),
    }
}

/// A line with invalid UTF-8 is a broken reply if it would be a reply otherwise.
fn parse_broken_text(line: &[u8], valid_up_to: usize) -> Parsed<'static> {
    let text = String::from_utf8_lossy(line);
    let broken = || Answer::NotUtf8(valid_up_to);
    match envelope(&text).map(Envelope::meaning) {
        Some(Parsed::Reply(id, _)) => Parsed::Reply(id, broken()),
        Some(Parsed::IdOnly(id)) => Parsed::Reply(Some(id), broken()),
        Some(Parsed::Ready(_) | Parsed::Stray) | None => Parsed::Stray,
    }
}

/// The id at the very beginning of a line that is too long to be read whole.
pub fn leading_id(line: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(without_mark(line));
    let rest = text
        .trim_start_matches('{')
        .trim_start()
        .strip_prefix("\"id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    integer(&rest[..digits])
}

#[derive(Default)]
struct Envelope<'a> {
    id: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
    ready: Option<&'a str>,
    concurrency: Option<&'a str>,
    context: Option<&'a str>,
}

/// The members of a JSON object; of duplicate ones the last wins. `None` if it is not one.
fn envelope(text: &str) -> Option<Envelope<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let envelope = deserializer.deserialize_map(EnvelopeVisitor).ok()?;
    deserializer.end().ok()?;
    Some(envelope)
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key::<Key>()? {
            let place = match key {
                Key::Id => &mut envelope.id,
                Key::Result => &mut envelope.result,
                Key::Error => &mut envelope.error,
                Key::Ready => &mut envelope.ready,
                Key::Concurrency => &mut envelope.concurrency,
                Key::Context => &mut envelope.context,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = Some(map.next_value::<&'de RawValue>()?.get());
        }
        Ok(envelope)
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Id,
    Result,
    Error,
    Ready,
    Concurrency,
    Context,
    #[serde(other)]
    Other,
}

impl<'a> Envelope<'a> {
    fn meaning(self) -> Parsed<'a> {
        let id = self
            .id
            .map(|text| integer(text).map_or(Id::Foreign, Id::Integer));
        match (self.result, self.error) {
            (Some(result), None | Some("null")) => Parsed::Reply(id, Answer::Result(result)),
            (result, Some(error)) => Parsed::Reply(id, error_answer(error, result.is_some())),
            (None, None) if self.ready == Some("true") => Parsed::Ready(self.announcement()),
            (None, None) => id.map_or(Parsed::Stray, Parsed::IdOnly),
        }
    }

    fn announcement(&self) -> Announcement {
        let mut announcement = Announcement::default();
        if let Some(text) = self.concurrency {
            match integer(text).and_then(|number| usize::try_from(number).ok()) {
                Some(number) if number > 0 => announcement.concurrency = Some(number),
                Some(_) | None => {
                    announcement.complaint = Some(format!(
                        "concurrency must be a whole number from 1 up, got {text}"
                    ));
                }
            }
        }
        let Some(text) = self.context else {
            return announcement;
        };
        let Ok(names) = serde_json::from_str::<Vec<Cow<'_, str>>>(text) else {
            announcement.complaint = Some(format!("context must be a list of names, got {text}"));
            return announcement;
        };
        for name in names {
            match name.as_ref() {
                "headers" => announcement.context.push(ContextMember::Headers),
                "timeout_ms" => announcement.context.push(ContextMember::TimeoutMs),
                "request_id" => announcement.context.push(ContextMember::RequestId),
                "traceparent" => announcement.context.push(ContextMember::Traceparent),
                unknown => {
                    announcement.complaint = Some(format!(
                        "context knows headers, timeout_ms, request_id and traceparent, got {unknown:?}"
                    ));
                }
            }
        }
        announcement.context.dedup();
        announcement
    }
}

/// A JSON integer without sign, fraction or exponent.
fn integer(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero {
        text.parse().ok()
    } else {
        None
    }
}

#[derive(serde::Deserialize)]
struct ErrorObject<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    status: Option<serde_json::Number>,
}

const ERROR_SHAPE: &str = r#"expected "error":"message" or "error":{"message":"…","status":400}"#;

fn error_answer(error: &str, is_beside_result: bool) -> Answer<'_> {
    let answer = |message, status| Answer::Error {
        message,
        status,
        is_beside_result,
    };
    if error.starts_with('"') {
        return answer(error, None);
    }
    let Ok(object) = serde_json::from_str::<ErrorObject<'_>>(error) else {
        return Answer::Broken(format!("the error has another shape: {ERROR_SHAPE}"));
    };
    let message = object
        .message
        .map(RawValue::get)
        .filter(|text| text.starts_with('"'));
    let Some(message) = message else {
        return Answer::Broken(format!("the error has no string message: {ERROR_SHAPE}"));
    };
    let Some(number) = object.status else {
        return answer(message, None);
    };
    match number.as_u64() {
        Some(status @ 400..=500) => answer(message, Some(status as u16)),
        Some(_) | None => Answer::Broken(format!(
            "the error's status must be 400 to 499, or 500, got {number}: {ERROR_SHAPE}"
        )),
    }
}

/// Members beside `payload`, already chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// Names and values of headers.
    pub headers: Option<&'a [(String, String)]>,
    /// What is left for this request, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The request id.
    pub request_id: Option<&'a str>,
    /// The caller's trace context.
    pub traceparent: Option<&'a str>,
}

/// Appends the line of a request.
///
/// `payload` is the inside of a valid JSON string without lone surrogates; it is written as the
/// shortest JSON for the same text. U+0085, U+2028 and U+2029 are escaped too, because line
/// readers of some languages split there (Node's readline, Python's `str.splitlines`).
pub fn encode_request(line: &mut Vec<u8>, id: u64, payload: &[u8], context: &Context<'_>) {
    line.reserve(payload.len() + 40);
    line.extend_from_slice(b"{\"id\":");
    let mut digits = [0; 20];
    line.extend_from_slice(decimal(id, &mut digits));
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
        line.extend_from_slice(decimal(timeout_ms, &mut digits));
    }
    for (name, value) in [
        ("request_id", context.request_id),
        ("traceparent", context.traceparent),
    ] {
        let Some(value) = value else { continue };
        line.push(b',');
        push_string(line, name);
        line.push(b':');
        push_string(line, value);
    }
    line.extend_from_slice(b"}\n");
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

fn push_string(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    text.chars().for_each(|c| push_char(line, c));
    line.push(b'"');
}

/// Copies the inside of a JSON string, each character in its shortest form.
fn shorten(line: &mut Vec<u8>, mut text: &[u8]) {
    // Of these three, C2 and E2 begin U+0085 and U+2028 in UTF-8, and much else.
    while let Some(at) = memchr::memchr3(b'\\', 0xC2, 0xE2, text) {
        line.extend_from_slice(&text[..at]);
        text = &text[at..];
        let (taken, c) = match text {
            [b'\\', b'u', ..] => unicode_escape(text),
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
        push_char(line, c);
        text = &text[taken..];
    }
    line.extend_from_slice(text);
}

fn unescaped(letter: u8) -> char {
    match letter {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(other),
    }
}

/// Length and character of a `\uXXXX`, or of two that are a surrogate pair.
fn unicode_escape(text: &[u8]) -> (usize, char) {
    let unit = |at: usize| {
        let digits = text
            .get(at..at + 4)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    let (taken, units) = match unit(2) {
        Some(high @ 0xD800..=0xDBFF) => (12, [high, unit(8).unwrap_or(0)]),
        Some(single) => (6, [single, 0]),
        None => (text.len(), [0xFFFD, 0]),
    };
    let c = char::decode_utf16(units).next().and_then(Result::ok);
    (
        taken.min(text.len()),
        c.unwrap_or(char::REPLACEMENT_CHARACTER),
    )
}

fn push_char(line: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
            line.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            return;
        }
        plain => {
            line.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    line.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests;
