//! A part of a body as the Python worker's error answers show it, in `input`.
//!
//! Python renders the decoded value anew, and so must we: numbers and escapes in Python's
//! spelling, of duplicate keys the last value in the first one's place, members that begin with
//! `_sa` left out (a habit of FastAPI's encoder). What is written is always valid JSON: where
//! Python fails, numbers that JSON cannot write become `null`, and surrogates that stand alone
//! U+FFFD.
//!
//! Nothing here recurses, and no part of the text is rendered twice: a first walk notes which
//! members are left out or replaced, a second one writes.

use super::json::{Bracket, Scanner, Stop, Token, characters, skip_whitespace};
use crate::json_string::push_char;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// What to do with a member instead of writing it as it stands.
struct Edit {
    /// Where the contents of its key start.
    key: usize,
    /// The byte after its value.
    end: usize,
    /// The value to write in the place of its own; without one the member is left out.
    value: Option<Range<usize>>,
}

/// A member of an object that is still open.
struct ObjectMember {
    key: usize,
    /// Stands for the key. A false match among the members of one object is as likely as a flipped
    /// bit: the hash is keyed at random.
    hash: u64,
    is_hidden: bool,
    value: Range<usize>,
}

/// Writes the value at `range` of `text`, which the scanner has accepted before, to `out`.
pub(super) fn render(text: &str, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), Stop> {
    let edits = find_edits(text, range.clone())?;
    // One scanner for the value, and one for each replacement that is being written inside it.
    let mut scanners = vec![Scanner::within(text, range)];
    let mut needs_comma = false;
    while let Some(scanner) = scanners.last_mut() {
        match scanner.next()? {
            Token::Key(key) => {
                let edit = edits.binary_search_by_key(&key.range.start, |edit| edit.key);
                let edit = edit.ok().and_then(|found| edits.get(found));
                if let Some(edit) = edit {
                    scanner.skip_value(edit.end);
                }
                let replacement = match edit {
                    Some(Edit { value: None, .. }) => continue,
                    Some(Edit {
                        value: Some(value), ..
                    }) => Some(value.clone()),
                    None => None,
                };
                separate(&mut needs_comma, out);
                write_string(part(text, key.range), out);
                out.push(b':');
                needs_comma = false;
                scanners.extend(replacement.map(|value| Scanner::within(text, value)));
            }
            Token::String(string) => {
                separate(&mut needs_comma, out);
                write_string(part(text, string.range), out);
            }
            Token::Scalar(scalar) => {
                separate(&mut needs_comma, out);
                write_scalar(part(text, scalar), out);
            }
            Token::Open(bracket) => {
                separate(&mut needs_comma, out);
                out.push(if bracket == Bracket::Object {
                    b'{'
                } else {
                    b'['
                });
                needs_comma = false;
            }
            Token::Close(bracket) => {
                out.push(if bracket == Bracket::Object {
                    b'}'
                } else {
                    b']'
                });
                needs_comma = true;
            }
            Token::End => {
                scanners.pop();
            }
        }
    }
    Ok(())
}

/// Writes `text` as a JSON string.
pub(super) fn render_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    text.chars()
        .for_each(|character| push_char(out, character, |_| false));
    out.push(b'"');
}

/// The edits that the value at `range` needs, in the order of their keys.
fn find_edits(text: &str, range: Range<usize>) -> Result<Vec<Edit>, Stop> {
    let hash_keys = RandomState::new();
    let mut edits = Vec::new();
    // The members of all open objects, the outermost first, and where each object's start.
    let mut members: Vec<ObjectMember> = Vec::new();
    let mut starts = Vec::new();
    let mut scanner = Scanner::within(text, range);
    loop {
        match scanner.next()? {
            Token::Key(key) => {
                let contents = part(text, key.range.clone());
                let mut hasher = hash_keys.build_hasher();
                characters(contents).for_each(|character| hasher.write_u32(character.into()));
                let value = skip_whitespace(text.as_bytes(), scanner.position());
                members.push(ObjectMember {
                    key: key.range.start,
                    hash: hasher.finish(),
                    is_hidden: characters(contents).take(3).eq("_sa".chars()),
                    value: value..value,
                });
                continue;
            }
            Token::Open(Bracket::Object) => {
                starts.push(members.len());
                continue;
            }
            Token::Open(Bracket::Array) => continue,
            Token::Close(Bracket::Object) => {
                let start = starts.pop().unwrap_or_default();
                edit_members(members.split_off(start), &mut edits);
            }
            Token::Close(Bracket::Array) | Token::String(_) | Token::Scalar(_) => {}
            Token::End => break,
        }
        // A value is complete; in an object it belongs to the last key.
        if let (Some(Bracket::Object), Some(member)) = (scanner.inside(), members.last_mut()) {
            member.value.end = scanner.position();
        }
    }
    edits.sort_unstable_by_key(|edit| edit.key);
    Ok(edits)
}

/// Notes which members of one object are hidden, replaced, or left out as duplicates.
fn edit_members(mut members: Vec<ObjectMember>, edits: &mut Vec<Edit>) {
    members.sort_unstable_by_key(|member| (member.hash, member.key));
    for same in members.chunk_by(|one, other| one.hash == other.hash) {
        match same {
            [first, .., last] if !first.is_hidden => {
                let value = Some(last.value.clone());
                edits.push(Edit {
                    key: first.key,
                    end: first.value.end,
                    value,
                });
                edits.extend(same.iter().skip(1).map(leave_out));
            }
            _ => edits.extend(same.iter().filter(|member| member.is_hidden).map(leave_out)),
        }
    }
}

fn leave_out(member: &ObjectMember) -> Edit {
    Edit {
        key: member.key,
        end: member.value.end,
        value: None,
    }
}

fn separate(needs_comma: &mut bool, out: &mut Vec<u8>) {
    if std::mem::replace(needs_comma, true) {
        out.push(b',');
    }
}

fn part(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

fn write_string(contents: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    characters(contents).for_each(|character| push_char(out, character, |_| false));
    out.push(b'"');
}

/// Writes a constant or a number in Python's spelling.
fn write_scalar(scalar: &str, out: &mut Vec<u8>) {
    let is_number = scalar
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let is_integer = scalar
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    let written = match scalar {
        "null" | "true" | "false" => scalar.to_owned(),
        // Python has no negative zero among its integers.
        "-0" => "0".to_owned(),
        _ if is_integer => scalar.to_owned(),
        _ if is_number => scalar
            .parse()
            .map_or_else(|_| "null".to_owned(), python_float),
        _ => "null".to_owned(),
    };
    out.extend_from_slice(written.as_bytes());
}

/// `repr(number)`: the same shortest digits and the same switch to an exponent as Rust's `{:?}`,
/// but the exponent has a sign and two digits at least.
fn python_float(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    let digits = format!("{number:?}");
    match digits.split_once('e') {
        None => digits,
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
    }
}
