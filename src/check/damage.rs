//! Damage to a text between stdin and stdout, told from a change that a function makes.

use super::mend::Mend;

/// This many question marks in a row stand for characters that an encoding lacks.
const QUESTION_MARKS: &str = "????";

/// Damage that no function does on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    /// A character came back as other characters: it, and these.
    Character(char, Vec<char>),
    /// UTF-8 was decoded as another encoding, and encoded again.
    EncodedTwice(char),
    /// Some characters came whole, and this many U+FFFD stand for parts of others.
    CutCharacter(usize),
    /// Characters beyond U+FFFF are missing.
    LostPlanes,
    /// A half of a surrogate pair stands alone.
    HalfPair,
}

impl Damage {
    /// The damage in a few words.
    pub(super) fn shown(&self) -> String {
        match self {
            Damage::Character(sent, came) => {
                let came: Vec<String> = came.iter().map(|one| point(*one)).collect();
                format!("{} came back as {}", point(*sent), came.join(" "))
            }
            Damage::EncodedTwice(sent) => {
                format!("{} came back in UTF-8 that was encoded twice", point(*sent))
            }
            Damage::CutCharacter(1) => "one character was cut, and came back as U+FFFD".to_owned(),
            Damage::CutCharacter(count) => {
                format!("characters were cut: {count} U+FFFD came back")
            }
            Damage::LostPlanes => "the characters beyond U+FFFF are missing".to_owned(),
            Damage::HalfPair => "half a surrogate pair came back alone".to_owned(),
        }
    }

    /// True where U+FFFD stands for characters or parts of them.
    pub(super) fn is_replaced(&self) -> bool {
        match self {
            Damage::CutCharacter(_) => true,
            Damage::Character(_, came) => came.contains(&'\u{fffd}'),
            Damage::EncodedTwice(_) | Damage::LostPlanes | Damage::HalfPair => false,
        }
    }

    /// How it is mended.
    pub(super) fn mend(&self) -> Mend {
        match self {
            Damage::CutCharacter(_) => Mend::WholeLines,
            Damage::Character(..)
            | Damage::EncodedTwice(_)
            | Damage::LostPlanes
            | Damage::HalfPair => Mend::Encoding,
        }
    }
}

/// The damage in a text that came back changed; `None`: its function changes it.
pub(super) fn damage(sent: &str, came: &str) -> Option<Damage> {
    // Where the text is the same up to a character beyond ASCII, that character shows its damage.
    let mut behind = came.chars();
    let mut differing = None;
    for character in sent.chars() {
        let next = behind.next();
        if next != Some(character) {
            differing = Some((character, next));
            break;
        }
    }
    if let Some((character, Some(first))) = differing
        && !character.is_ascii()
    {
        let low = char::from_u32(u32::from(character) & 0xffff);
        let is_twice = twice(character).starts_with(first) && is_encoded_twice(sent, came);
        match first {
            _ if is_twice => return Some(Damage::EncodedTwice(character)),
            '?' => return Some(Damage::Character(character, vec![first])),
            _ if u32::from(character) > 0xffff && Some(first) == low => {
                return Some(Damage::Character(character, vec![first]));
            }
            _ => {}
        }
    }
    elsewhere(sent, came)
}

/// Damage that shows wherever it is in the text.
fn elsewhere(sent: &str, came: &str) -> Option<Damage> {
    if is_encoded_twice(sent, came) {
        return Some(Damage::EncodedTwice('é'));
    }
    let replaced = |text: &str| text.matches('\u{fffd}').count();
    let count = replaced(came).saturating_sub(replaced(sent));
    if count > 0 {
        let is_whole = |character: &char| !character.is_ascii() && *character != '\u{fffd}';
        return Some(match came.chars().any(|character| is_whole(&character)) {
            true => Damage::CutCharacter(count),
            false => Damage::Character(first_wide(sent), vec!['\u{fffd}']),
        });
    }
    if came.contains(QUESTION_MARKS) && !sent.contains('?') {
        return Some(Damage::Character(first_wide(sent), vec!['?']));
    }
    let is_beyond = |character: char| u32::from(character) > 0xffff;
    let planes = sent.find(is_beyond)?;
    let is_lost = came.starts_with(&sent[..planes]) && !came.contains(is_beyond);
    // A text that ends there may be cut on purpose.
    let goes_on = came.len() > planes;
    (is_lost && goes_on).then_some(Damage::LostPlanes)
}

/// The first character of the text beyond ASCII.
fn first_wide(text: &str) -> char {
    let wide = text.chars().find(|character| !character.is_ascii());
    wide.unwrap_or('\u{fffd}')
}

fn is_encoded_twice(sent: &str, came: &str) -> bool {
    let twice = twice('é');
    sent.contains('é') && came.contains(&twice) && !sent.contains(&twice)
}

/// The UTF-8 of a character, decoded as Latin-1.
fn twice(character: char) -> String {
    let mut bytes = [0; 4];
    let encoded = character.encode_utf8(&mut bytes);
    encoded.bytes().map(char::from).collect()
}

fn point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::payloads::{every_plane, long};

    fn beyond(character: char) -> bool {
        u32::from(character) > 0xffff
    }

    #[test]
    fn a_function_that_changes_a_text_does_no_damage() {
        let escaped = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;");
        let slug = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let quoted = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte.is_ascii_alphanumeric() || byte == b'-' {
                    true => char::from(byte).to_string(),
                    false => format!("%{byte:02X}"),
                })
                .collect()
        };
        let cut = |text: &str| text.chars().take(20).collect::<String>();
        let in_json = |text: &str| serde_json::Value::from(text).to_string();
        let collapsed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let composed = |text: &str| text.replace('\u{a0}', " ").replace('\u{2027}', "x");
        let ascii = |text: &str| text.replace(|c: char| !c.is_ascii(), "");
        let functions: [&dyn Fn(&str) -> String; 8] = [
            &escaped, &slug, &quoted, &cut, &in_json, &collapsed, &composed, &ascii,
        ];
        for text in [every_plane(), long(1000)] {
            for (index, function) in functions.iter().enumerate() {
                assert_eq!(damage(&text, &function(&text)), None, "function {index}");
            }
        }
    }

    #[test]
    fn damage_is_told_by_its_kind() {
        let planes = every_plane() + "check";
        let long = long(100);
        let escaped = |text: &str| text.replace('"', "&quot;");
        let twice: String = planes.bytes().map(char::from).collect();
        let marks = planes.replace(|c: char| !c.is_ascii(), "?");
        let none = planes.replace(|c: char| !c.is_ascii(), "\u{fffd}");
        for (sent, came, words, mend) in [
            (
                &planes,
                &marks,
                "U+0085 came back as U+003F",
                Mend::Encoding,
            ),
            (
                &planes,
                &escaped(&marks),
                "U+0085 came back as U+003F",
                Mend::Encoding,
            ),
            (&planes, &none, "U+0085 came back as U+FFFD", Mend::Encoding),
            (&planes, &twice, "encoded twice", Mend::Encoding),
            (&planes, &escaped(&twice), "encoded twice", Mend::Encoding),
            (
                &planes,
                &planes.replace(beyond, ""),
                "beyond U+FFFF",
                Mend::Encoding,
            ),
            (
                &planes,
                &planes
                    .replace('\u{11234}', "\u{1234}")
                    .replace('\u{10000}', "\0"),
                "U+10000 came back as U+0000",
                Mend::Encoding,
            ),
            (
                &long,
                &long.replacen('é', "\u{fffd}\u{fffd}", 1),
                "2 U+FFFD came back",
                Mend::WholeLines,
            ),
        ] {
            let damage = damage(sent, came).unwrap_or_else(|| panic!("{words}"));
            assert!(damage.shown().contains(words), "{words}: {damage:?}");
            assert_eq!(damage.mend(), mend, "{words}");
        }
    }
}
