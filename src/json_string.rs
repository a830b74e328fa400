//! Escapes of JSON strings (RFC 8259, section 7), in both directions.
//!
//! Pure. Which characters are escaped beside the ones that JSON demands is up to the caller.

use bytes::Bytes;
use std::io::Write;
use std::str::Utf8Error;

/// The character that a one-letter escape stands for: `\n` is a line feed, `\"` a quote. The letter
/// must be one that JSON has.
pub fn unescaped(letter: u8) -> char {
    match letter {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(other),
    }
}

/// Reads a `\uXXXX` at `at`, or two that are a surrogate pair. Gives the character and the index
/// behind the escape; no character for a surrogate that stands alone. `None` for anything but an
/// escape of this kind.
pub fn unicode_escape(text: &[u8], at: usize) -> Option<(Option<char>, usize)> {
    let first = code_unit(text, at)?;
    if let Some(character) = char::from_u32(first) {
        return Some((Some(character), at + 6));
    }
    if let (0xD800..0xDC00, Some(second @ 0xDC00..0xE000)) = (first, code_unit(text, at + 6)) {
        let joined = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return Some((char::from_u32(joined), at + 12));
    }
    Some((None, at + 6))
}

/// The number in the `\uXXXX` at `at`.
fn code_unit(text: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text.get(at..at + 6)? else {
        return None;
    };
    digits.iter().try_fold(0, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}

/// Appends a character in its shortest form, or as `\uXXXX` if `is_escaped` says so. Characters
/// that JSON demands to be escaped are escaped in any case; the others must be below U+10000 for
/// that.
pub fn push_char(out: &mut Vec<u8>, character: char, is_escaped: impl Fn(char) -> bool) {
    let letter = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        control if control < ' ' || is_escaped(control) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(control));
            return;
        }
        plain => {
            out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

/// A text as the inside of a JSON string, without a copy where nothing is escaped.
///
/// # Errors
///
/// When it is not UTF-8.
pub fn escaped(text: &Bytes) -> Result<Bytes, Utf8Error> {
    let is_plain = |byte: &u8| (b' '..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    if text.iter().all(is_plain) {
        return Ok(text.clone());
    }
    let text = std::str::from_utf8(text)?;
    let mut inside = Vec::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        push_char(&mut inside, character, |_| false);
    }
    Ok(inside.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_escaped(text in any::<String>()) {
            let inside = escaped(&Bytes::from(text.clone())).unwrap();
            let string = format!("\"{}\"", std::str::from_utf8(&inside).unwrap());
            prop_assert_eq!(serde_json::from_str::<String>(&string).unwrap(), text);
        }
    }

    #[test]
    fn unicode_escapes_are_read_with_their_pairs() {
        for (text, read) in [
            (r"\u0041", Some((Some('A'), 6))),
            (r"\u00e9x", Some((Some('é'), 6))),
            (r"\ud83d\ude00", Some((Some('😀'), 12))),
            (r"\ud83d", Some((None, 6))),
            (r"\ud83dx\ude00", Some((None, 6))),
            (r"\ude00\ud83d", Some((None, 6))),
            (r"\u004", None),
            (r"\u+041", None),
            (r"\n0041", None),
        ] {
            assert_eq!(unicode_escape(text.as_bytes(), 0), read, "{text}");
        }
    }

    #[test]
    fn every_character_that_is_pushed_is_the_same_character_in_json() {
        for character in ('\0'..='\u{ffff}').chain(['😀', '\u{10ffff}']) {
            for is_escaped in [false, true] {
                let is_escaped = is_escaped && character < '\u{10000}';
                let mut string = vec![b'"'];
                push_char(&mut string, character, |_| is_escaped);
                string.push(b'"');
                let read: char = serde_json::from_slice(&string).unwrap();
                assert_eq!(read, character);
                let is_short = string.len() == character.len_utf8() + 2;
                assert!(is_short || string[1] == b'\\', "{character:?}");
            }
        }
    }

    #[test]
    fn one_letter_escapes_are_read_as_they_are_written() {
        for character in ['"', '\\', '\u{8}', '\u{c}', '\n', '\r', '\t'] {
            let mut written = Vec::new();
            push_char(&mut written, character, |_| false);
            assert_eq!(unescaped(written[1]), character);
        }
        assert_eq!(unescaped(b'/'), '/');
    }
}
