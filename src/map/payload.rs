//! Finds the payload in an input line, as the inside of a JSON string.

use super::lines::RawLine;
use crate::config::map::InputForm;
use crate::error::RequestFailure;
use crate::json_string::escaped;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// An input line with its payload.
#[derive(Debug, Clone)]
pub(super) struct InputLine {
    /// Its number in the input, from 1.
    pub(super) number: u64,
    /// The inside of the payload's JSON string, or why there is no payload.
    pub(super) payload: Result<Bytes, RequestFailure>,
    /// The whole line; of a line that is too long, its length in digits.
    pub(super) text: Bytes,
    pub(super) is_too_long: bool,
    /// Bytes of the input up to its end.
    pub(super) position: u64,
    /// A hash of the payload, which tells a changed input from the logged input.
    pub(super) hash: u64,
}

impl InputLine {
    /// Finds the payload in the line with this number.
    pub(super) fn new(number: u64, line: RawLine, form: &InputForm, longest: usize) -> InputLine {
        let is_too_long = matches!(line, RawLine::TooLong(_));
        let (text, payload) = match line {
            RawLine::Whole(text) => (text.clone(), payload(&text, form)),
            RawLine::TooLong(length) => {
                let failure = RequestFailure::BodyTooLarge(longest as u64);
                (Bytes::from(length.to_string()), Err(failure))
            }
        };
        let hash = hash(payload.as_ref().unwrap_or(&text));
        InputLine {
            number,
            payload,
            text,
            is_too_long,
            position: 0,
            hash,
        }
    }
}

/// The inside of the payload's JSON string.
fn payload(line: &Bytes, form: &InputForm) -> Result<Bytes, RequestFailure> {
    match form {
        InputForm::Text => text(line),
        InputForm::Json => {
            let value: &RawValue = serde_json::from_slice(line)
                .map_err(|error| bad(&format!("the line is no JSON value: {error}")))?;
            of_value(line, value.get())
        }
        InputForm::Field(name) => {
            let members: HashMap<String, &RawValue> = serde_json::from_slice(line)
                .map_err(|error| bad(&format!("the line is no JSON object: {error}")))?;
            let value = members
                .get(name)
                .ok_or_else(|| bad(&format!("the line has no member {name:?}")))?;
            of_value(line, value.get())
        }
    }
}

/// The inside of a JSON string, or the text of another value as the inside of a JSON string.
fn of_value(line: &Bytes, value: &str) -> Result<Bytes, RequestFailure> {
    let inside = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    match inside {
        // An escape may be half of a surrogate pair, which is no character.
        Some(inside) if inside.contains("\\u") => match serde_json::from_str::<String>(value) {
            Ok(_) => Ok(line.slice_ref(inside.as_bytes())),
            Err(error) => Err(bad(&format!("the payload is no text: {error}"))),
        },
        Some(inside) => Ok(line.slice_ref(inside.as_bytes())),
        None => text(&line.slice_ref(value.as_bytes())),
    }
}

/// The text as the inside of a JSON string.
fn text(text: &Bytes) -> Result<Bytes, RequestFailure> {
    escaped(text).map_err(|error| bad(&format!("the line is not UTF-8: {error}")))
}

fn bad(why: &str) -> RequestFailure {
    RequestFailure::bad_request(why)
}

/// FNV-1a of 64 bits: short, and the same in each version of the program.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_in_each_form_of_line() {
        let field = || InputForm::Field("q".to_owned());
        for (form, line, expected) in [
            (InputForm::Text, "abc", Some("abc")),
            (InputForm::Text, "", Some("")),
            (InputForm::Text, "a\"\\\t\r", Some(r#"a\"\\\t\r"#)),
            (InputForm::Text, "é\u{2028}😀", Some("é\u{2028}😀")),
            (InputForm::Json, r#" "a\nb" "#, Some(r"a\nb")),
            (InputForm::Json, r#"{"a": "b"}"#, Some(r#"{\"a\": \"b\"}"#)),
            (InputForm::Json, "abc", None),
            (InputForm::Json, r#""\ud83d\ude00""#, Some(r"\ud83d\ude00")),
            (InputForm::Json, r#""\ud83d""#, None),
            (InputForm::Json, r#""a" 1"#, None),
            (field(), r#"{"p":1,"q":"a\u0041"}"#, Some(r"a\u0041")),
            (field(), r#"{"q":[1]}"#, Some("[1]")),
            (field(), r#"{"p":1}"#, None),
            (field(), "1", None),
        ] {
            let line = Bytes::from_static(line.as_bytes());
            let found = payload(&line, &form).ok();
            let expected = expected.map(Bytes::from);
            assert_eq!(found, expected, "{form:?} {line:?}");
        }
        let bytes = Bytes::from_static(b"\xff");
        assert!(payload(&bytes, &InputForm::Text).is_err());
    }

    #[test]
    fn the_hash_is_the_same_in_each_version() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
