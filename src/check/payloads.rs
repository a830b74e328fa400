//! Texts that a check sends as payloads.

use super::damage::{Damage, damage};
use crate::json_string::escaped;
use bytes::Bytes;

/// The payload of a check that was given none.
pub(super) const USUAL: &str = "check";

/// Characters of each plane: the first, the last, and some more.
const POINTS: [u32; 5] = [0x0000, 0x1234, 0xd7ff, 0xfffd, 0xffff];

/// Control characters but U+0000, characters with an escape in JSON, ends of lines, and characters
/// of each plane.
pub(super) fn every_plane() -> String {
    let mut text: String = ('\u{1}'..='\u{1f}').collect();
    text += "\"\\/\\n\\u0041\\\"}{'`$%\u{7f}\u{85}\u{a0}é\u{2027}\u{2028}\u{2029}\u{feff}";
    for plane in 0..=0x10_u32 {
        let points = POINTS.iter().map(|point| (plane << 16) + point);
        let characters = points.filter_map(char::from_u32);
        text.extend(characters.filter(|character| *character != '\0'));
    }
    text
}

/// A text with characters of one to four bytes, of at least this many bytes.
pub(super) fn long(bytes: usize) -> String {
    const PART: &str = "0123456789 abcdefghijklmnopqrstuvwxyz é€𝄞";
    PART.repeat(bytes.div_ceil(PART.len()))
}

/// A payload as the inside of a JSON string.
pub(super) fn in_string(payload: &str) -> Bytes {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    escaped(&payload).expect("a str is UTF-8")
}

/// Whether a result repeats a text of its payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// No string of the result begins as the text does, or holds it.
    None,
    /// A string of the result holds the text.
    Same,
    /// A string of the result begins as the text does, and goes on as the function changes it.
    Changed,
    /// A string of the result begins as the text does, and was damaged.
    Damaged(Damage),
}

/// The text that stands in front of a payload, so that a result shows whether it repeats it.
pub(super) const MARK: &str = "echo-";

/// Looks for the text, which begins with [`MARK`], in the strings of a result.
pub(super) fn echo(result: &serde_json::Value, text: &str) -> Echo {
    let mut strings = Vec::new();
    collect(result, &mut strings);
    if strings.iter().any(|string| string.contains(text)) {
        return Echo::Same;
    }
    let begun = strings
        .iter()
        .find_map(|string| string.find(MARK).map(|at| &string[at..]));
    let Some(begun) = begun else {
        return Echo::None;
    };
    damage(text, begun).map_or(Echo::Changed, Echo::Damaged)
}

fn collect<'a>(value: &'a serde_json::Value, strings: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::String(text) => strings.push(text),
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, strings)),
        serde_json::Value::Object(members) => {
            members.values().for_each(|value| collect(value, strings));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn damage_to_an_echo_is_found() {
        let text = "echo-aé\u{85}b";
        let damaged = |sent, came| Echo::Damaged(Damage::Character(sent, vec![came]));
        for (result, expected) in [
            (json!("echo-aé\u{85}b"), Echo::Same),
            (json!({"a": ["<echo-aé\u{85}b>"]}), Echo::Same),
            (json!({"a": 7, "b": "other"}), Echo::None),
            (json!(null), Echo::None),
            (json!("echo-a\u{fffd}"), damaged('é', '\u{fffd}')),
            (json!("echo-a?"), damaged('é', '?')),
            (json!({"a": "echo-aé"}), Echo::Changed),
            (json!("echo-a&eacute;"), Echo::Changed),
        ] {
            assert_eq!(echo(&result, text), expected, "{result}");
        }
    }

    #[test]
    fn the_texts_hold_what_they_promise() {
        let text = every_plane();
        for character in [
            '\u{1}',
            '\u{85}',
            '\u{2028}',
            '\u{ffff}',
            '\u{10ffff}',
            '"',
            '\\',
        ] {
            assert!(text.contains(character), "{character:?}");
        }
        assert!(!text.contains('\0'));
        assert!((1 << 20..(1 << 20) + 64).contains(&long(1 << 20).len()));
    }
}
