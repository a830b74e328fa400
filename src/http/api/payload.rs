//! The payload out of a body, or why there is none.
//!
//! The Python worker read a body with FastAPI 0.116 and CPython 3.11: `class Request(BaseModel):
//! payload: str`. Callers know its answers, so these are the same: which content types are JSON,
//! which JSON is accepted (`NaN` is, and a byte order mark; 962 nested brackets and integers of
//! 4301 digits are not), the words and positions of syntax errors, and how `input` is rendered.
//!
//! What differs, on purpose:
//!
//! * A body in UTF-16 or UTF-32 is never read, and a surrogate encoded in three bytes is not UTF-8.
//! * A lone surrogate escape in the payload is 422 `string_unicode`; the Python worker failed with
//!   500 when it answered.
//! * Where only its error answer failed with 500, ours is given: in `input`, numbers that JSON
//!   cannot write (`NaN`, `1e400`) are `null`, lone surrogates U+FFFD. A body that is not UTF-8 is
//!   400 whatever its content type.
//! * An `input` of more than 1 KiB is a string with its beginning, see `input`.
//!
//! The payload is never decoded here, and never copied. Time is linear in the body, whatever it
//! holds; nothing recurses.

mod input;
mod json;
mod render;
#[cfg(test)]
mod tests;

use crate::error::RequestFailure;
use bytes::Bytes;
use json::{Bracket, Scanner, Stop, StringContents, Token, Unicode};
use std::ops::Range;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The payload of a request, as the client wrote it between the quotes. `is_json` says what the
/// body is by its content type, see [`is_json`].
///
/// It is a part of `body`, not a copy: valid UTF-8, all escapes valid, no raw control character,
/// no surrogate escape that is not half of a pair.
///
/// # Errors
///
/// [`RequestFailure::Invalid`] with what the Python worker answered, see the module.
pub fn find_payload(is_json: bool, body: &Bytes) -> Result<Bytes, RequestFailure> {
    if is_json && let Some(payload) = find_plain_payload(body) {
        return Ok(payload);
    }
    if body.is_empty() {
        return Err(invalid("missing", "[\"body\"]", "Field required", b"null"));
    }
    let mark = match body.strip_prefix(BYTE_ORDER_MARK) {
        Some(_) if is_json => BYTE_ORDER_MARK.len(),
        _ => 0,
    };
    let Ok(text) = std::str::from_utf8(body.get(mark..).unwrap_or_default()) else {
        return Err(unreadable());
    };
    if !is_json {
        let mut input = Vec::new();
        input::push_text(text, &mut input);
        return Err(not_an_object(&input));
    }
    let payload = scan_body(text).map_err(|stop| stopped(text, stop))??;
    Ok(body.slice(payload.start + mark..payload.end + mark))
}

/// The payload of a plain body, an object with `payload` as its only member; `None` for any
/// other body, right or wrong. Takes 4 µs for a KiB at most.
pub fn find_plain_payload(body: &Bytes) -> Option<Bytes> {
    plain_payload(body).map(|payload| body.slice(payload))
}

/// Whether FastAPI takes a body with this content type, or none, for JSON.
pub fn is_json(content_type: Option<&[u8]>) -> bool {
    let content_type = content_type.unwrap_or_default();
    if content_type.is_empty() {
        return true;
    }
    // The header is read as Latin-1, and Python's idea of white space is wider than ASCII's.
    let is_space = |byte: &u8| matches!(byte, 9..=13 | 28..=32 | 0x85 | 0xA0);
    let mut essence = content_type
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    while let [first, rest @ ..] = essence
        && is_space(first)
    {
        essence = rest;
    }
    while let [rest @ .., last] = essence
        && is_space(last)
    {
        essence = rest;
    }
    let mut parts = essence.split(|&byte| byte == b'/');
    let (Some(main), Some(sub), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let suffix = sub.get(sub.len().saturating_sub(5)..).unwrap_or_default();
    main.eq_ignore_ascii_case(b"application")
        && (sub.eq_ignore_ascii_case(b"json") || suffix.eq_ignore_ascii_case(b"+json"))
}

/// The payload of a plain body, read in one pass without allocation: an object with `payload` as
/// its only member. Anything else, right or wrong, is none here and read by [`scan_body`].
fn plain_payload(body: &[u8]) -> Option<Range<usize>> {
    let at = after_token(body, 0, b"{")?;
    let at = after_token(body, at, b"\"payload\"")?;
    let at = after_token(body, at, b":")?;
    let quote = json::skip_whitespace(body, at);
    if body.get(quote) != Some(&b'"') {
        return None;
    }
    let Ok(StringContents {
        range,
        unicode: Unicode::WellFormed,
    }) = json::scan_string(body, quote)
    else {
        return None;
    };
    let at = after_token(body, range.end + 1, b"}")?;
    if json::skip_whitespace(body, at) != body.len() {
        return None;
    }
    // Everything around it was matched byte by byte: only the payload may be anything but ASCII.
    std::str::from_utf8(body.get(range.clone())?)
        .ok()
        .map(|_| range)
}

fn after_token(body: &[u8], at: usize, token: &[u8]) -> Option<usize> {
    let start = json::skip_whitespace(body, at);
    body.get(start..)?
        .starts_with(token)
        .then_some(start + token.len())
}

/// The value of `payload`, the last one so far.
enum PayloadValue {
    Nothing,
    String(StringContents),
    Other(Range<usize>),
}

/// Reads any body to its end: the outer error is about JSON, the inner about what it says.
fn scan_body(text: &str) -> Result<Result<Range<usize>, RequestFailure>, Stop> {
    let mut scanner = Scanner::new(text);
    let mut found = PayloadValue::Nothing;
    let first = scanner.next()?;
    let mut token = first.clone();
    while token != Token::End {
        let is_payload = matches!(&token, Token::Key(key)
            if scanner.depth() == 1 && is_payload_key(text, key));
        token = scanner.next()?;
        if is_payload {
            found = read_payload(&mut scanner, token)?;
            token = scanner.next()?;
        }
    }
    let whole = 0..text.len();
    let mut input = Vec::new();
    Ok(Err(match (first, found) {
        (Token::Open(Bracket::Object), PayloadValue::String(payload)) => match payload.unicode {
            Unicode::WellFormed => return Ok(Ok(payload.range)),
            Unicode::LoneSurrogate => {
                input::push_value(
                    text,
                    payload.range.start - 1..payload.range.end + 1,
                    &mut input,
                )?;
                let message = "Input should be a valid string, unable to parse raw data as a \
                               unicode string";
                invalid("string_unicode", PAYLOAD_LOCATION, message, &input)
            }
        },
        (Token::Open(Bracket::Object), PayloadValue::Other(value)) => {
            input::push_value(text, value, &mut input)?;
            invalid(
                "string_type",
                PAYLOAD_LOCATION,
                "Input should be a valid string",
                &input,
            )
        }
        (Token::Open(Bracket::Object), PayloadValue::Nothing) => {
            input::push_value(text, whole, &mut input)?;
            invalid("missing", PAYLOAD_LOCATION, "Field required", &input)
        }
        (Token::Scalar(scalar), _) if text.get(scalar.clone()) == Some("null") => {
            invalid("missing", BODY_LOCATION, "Field required", b"null")
        }
        _ => {
            input::push_value(text, whole, &mut input)?;
            not_an_object(&input)
        }
    }))
}

const BODY_LOCATION: &str = "[\"body\"]";
const PAYLOAD_LOCATION: &str = "[\"body\",\"payload\"]";

fn is_payload_key(text: &str, key: &StringContents) -> bool {
    let contents = text.get(key.range.clone()).unwrap_or_default();
    contents == "payload" || json::characters(contents).eq("payload".chars())
}

/// Reads a value of `payload` to its end; its first token has been taken.
fn read_payload(scanner: &mut Scanner<'_>, first: Token) -> Result<PayloadValue, Stop> {
    let start = match first {
        Token::String(payload) => return Ok(PayloadValue::String(payload)),
        Token::Scalar(scalar) => return Ok(PayloadValue::Other(scalar)),
        Token::Open(_) => scanner.position() - 1,
        // The scanner never gives these after a key.
        Token::Key(_) | Token::Close(_) | Token::End => return Ok(PayloadValue::Nothing),
    };
    while scanner.depth() > 1 {
        scanner.next()?;
    }
    Ok(PayloadValue::Other(start..scanner.position()))
}

fn stopped(text: &str, stop: Stop) -> RequestFailure {
    let Stop::Syntax(message, at) = stop else {
        return unreadable();
    };
    let position = text.get(..at).unwrap_or_default().chars().count();
    let mut detail = format!(
        "[{{\"type\":\"json_invalid\",\"loc\":[\"body\",{position}],\
         \"msg\":\"JSON decode error\",\"input\":{{}},\"ctx\":{{\"error\":"
    )
    .into_bytes();
    render::render_text(message, &mut detail);
    detail.extend_from_slice(b"}}]");
    RequestFailure::Invalid {
        status: 422,
        detail: detail.into(),
    }
}

fn unreadable() -> RequestFailure {
    let detail = Bytes::from_static(b"\"There was an error parsing the body\"");
    RequestFailure::Invalid {
        status: 400,
        detail,
    }
}

fn not_an_object(input: &[u8]) -> RequestFailure {
    let message = "Input should be a valid dictionary or object to extract fields from";
    invalid("model_attributes_type", BODY_LOCATION, message, input)
}

/// One error as pydantic lists it. All but `input` are ours and need no escapes.
fn invalid(kind: &str, location: &str, message: &str, input: &[u8]) -> RequestFailure {
    let head =
        format!("[{{\"type\":\"{kind}\",\"loc\":{location},\"msg\":\"{message}\",\"input\":");
    let detail = [head.as_bytes(), input, b"}]"].concat();
    RequestFailure::Invalid {
        status: 422,
        detail: detail.into(),
    }
}
