//! `input` in an error answer: the faulty part of the body, cut where it is long.
//!
//! The Python worker repeats all of it, rendered anew, which for a hostile body is many times its
//! size and takes long. Here `input` is at most [`MAX_INPUT_BYTES`] bytes of it: a longer one is a
//! string with its beginning and `… (cut)`.

use super::json::Stop;
use super::render::{render, render_text};
use std::ops::Range;

/// The longest `input` that is repeated as a whole, in bytes as rendered.
pub(super) const MAX_INPUT_BYTES: usize = 1024;

/// A part of a body up to this size, in bytes, is rendered as Python renders it before it is cut;
/// of a larger one the beginning is shown as it was sent.
const MAX_RENDERED_BYTES: usize = 16 * 1024;

const CUT: &str = "… (cut)";

/// Writes the value at `range` of `text`, which the scanner has accepted before.
pub(super) fn push_value(text: &str, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), Stop> {
    let value = text.get(range.clone()).unwrap_or_default();
    if value.len() > MAX_RENDERED_BYTES {
        push_cut(value, out);
        return Ok(());
    }
    let before = out.len();
    render(text, range, out)?;
    if out.len() - before > MAX_INPUT_BYTES {
        let rendered = out.split_off(before);
        push_cut(&String::from_utf8_lossy(&rendered), out);
    }
    Ok(())
}

/// Writes `text` as a JSON string.
pub(super) fn push_text(text: &str, out: &mut Vec<u8>) {
    let beginning = beginning(text);
    if beginning.len() == text.len() {
        let before = out.len();
        render_text(text, out);
        if out.len() - before <= MAX_INPUT_BYTES + 2 {
            return;
        }
        out.truncate(before);
    }
    // As many characters as fit with all their escapes; each takes six bytes at most.
    let mut written = Vec::new();
    let mut end = 0;
    for (at, character) in beginning.char_indices() {
        let next = at + character.len_utf8();
        let mut one = Vec::new();
        render_text(&beginning[at..next], &mut one);
        if written.len() + one.len() > MAX_INPUT_BYTES + 2 {
            break;
        }
        written.extend_from_slice(&one[1..one.len() - 1]);
        end = next;
    }
    render_text(&format!("{}{CUT}", &beginning[..end]), out);
}

/// Writes the beginning of a JSON value as a string: of a string its contents, of any other value
/// its JSON text.
fn push_cut(value: &str, out: &mut Vec<u8>) {
    let Some(contents) = value.strip_prefix('"') else {
        return push_text(value, out);
    };
    let mut end = 0;
    let beginning = beginning(contents);
    while let Some(rest) = beginning.get(end..).filter(|rest| !rest.is_empty()) {
        let unit = match rest.as_bytes() {
            [b'\\', b'u', ..] => 6,
            [b'\\', ..] => 2,
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        if end + unit > MAX_INPUT_BYTES.min(beginning.len()) {
            break;
        }
        end += unit;
    }
    let shown = format!("\"{}\"", &beginning[..end]);
    let mut rendered = Vec::new();
    // A beginning of a valid string that ends between two of its units is one itself.
    if render(&shown, 0..shown.len(), &mut rendered).is_ok() && rendered.ends_with(b"\"") {
        rendered.pop();
        out.extend_from_slice(&rendered);
        out.extend_from_slice(CUT.as_bytes());
        out.push(b'"');
    } else {
        push_text(value, out);
    }
}

/// At most [`MAX_INPUT_BYTES`] bytes, ending with a whole character.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(MAX_INPUT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> String {
        let mut out = Vec::new();
        assert!(push_value(text, 0..text.len(), &mut out).is_ok());
        String::from_utf8(out).unwrap()
    }

    fn text(text: &str) -> String {
        let mut out = Vec::new();
        push_text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_short_is_whole_and_what_is_long_is_cut() {
        assert_eq!(value(r#"{"a": [1, 2.0]}"#), r#"{"a":[1,2.0]}"#);
        assert_eq!(text("a\"b"), r#""a\"b""#);
        let short = format!("\"{}\"", "x".repeat(MAX_INPUT_BYTES - 2));
        assert_eq!(value(&short), short);
        for repeat in [1_000, 10_000, 100_000] {
            let numbers = format!("[{}1]", "1, ".repeat(repeat));
            let cut = value(&numbers);
            assert!(
                cut.starts_with("\"[1,") && cut.ends_with("… (cut)\""),
                "{cut}"
            );
            let long = format!("\"{}\"", "é".repeat(repeat));
            let cut = value(&long);
            assert!(
                cut.starts_with("\"ééé") && cut.ends_with("é… (cut)\""),
                "{cut}"
            );
        }
        let controls = text(&"\u{1}".repeat(1_000_000));
        assert!(controls.ends_with("\\u0001… (cut)\""), "{controls}");
    }

    proptest! {
        #[test]
        fn an_input_is_always_one_json_value_of_bounded_length(
            piece in r#"[a-zé\u{1}\u{2028}😀]{0,3}|\\u00e9|\\ud83d\\ude00|\\ud800|\\n|\\\\"#,
            repeat in 0usize..6000,
        ) {
            let contents = piece.repeat(repeat);
            let mut out = Vec::new();
            push_text(&contents, &mut out);
            prop_assert!(out.len() <= MAX_INPUT_BYTES + 20);
            prop_assert!(serde_json::from_slice::<String>(&out).is_ok());
            if !contents.contains('\u{1}') {
                let string = format!("\"{contents}\"");
                let mut out = Vec::new();
                prop_assert!(push_value(&string, 0..string.len(), &mut out).is_ok());
                prop_assert!(out.len() <= 6 * MAX_INPUT_BYTES + 20, "{}", out.len());
                prop_assert!(serde_json::from_slice::<String>(&out).is_ok());
            }
        }
    }
}
