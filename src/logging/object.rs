//! Lines of a handler that are one JSON object: passed on as they are, with one member appended, or
//! shown as text.

use super::can_disguise;
use super::text::TextValue;
use crate::json_string::push_char;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The member that is appended: process, stream and request of the line.
const OUR_MEMBER: &str = "faas";

/// Members that loggers write their text into, which is shown first.
const TEXT_MEMBERS: [&str; 2] = ["msg", "message"];

/// The line as a JSON object that can be passed on: valid, in one line, and without a member `faas`
/// of its own. White space behind the object is left out.
pub fn object_in(line: &[u8]) -> Option<&str> {
    let line = line.trim_ascii_end();
    // A carriage return is white space to JSON, and the end of a line to some readers.
    let is_braced = line.first() == Some(&b'{') && line.last() == Some(&b'}');
    if !is_braced || line.contains(&b'\r') {
        return None;
    }
    let object = std::str::from_utf8(line).ok()?;
    let members = members(object)?;
    let is_ours = members.iter().any(|(name, _)| name == OUR_MEMBER);
    (!is_ours).then_some(object)
}

/// Appends an object to a line of the log, with the JSON object `ours` as its member `faas`. Each
/// byte stays; only a character that can disguise is written as its escape, which means the same.
pub(super) fn push_object(line: &mut Vec<u8>, object: &str, ours: &[u8]) {
    let Some(inside) = object.trim_ascii_end().strip_suffix('}') else {
        return;
    };
    for c in inside.chars() {
        // A tab stands between members: within a string, JSON demands its escape.
        if c != '\t' && can_disguise(c) {
            push_char(line, c, can_disguise);
        } else {
            line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    let is_empty = inside.trim_ascii() == "{";
    line.extend_from_slice(if is_empty { b"\"" } else { b",\"" });
    line.extend_from_slice(OUR_MEMBER.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(ours);
    line.push(b'}');
}

/// An object as text: the text of the event first, then `name=value` of each other member.
pub(super) fn shown(object: &str) -> String {
    let Some(members) = members(object) else {
        return object.to_owned();
    };
    let place = |wanted: &str| members.iter().position(|(name, _)| name == wanted);
    let first = TEXT_MEMBERS.iter().find_map(|name| place(name));
    let mut text = first.map_or_else(String::new, |index| plain(members[index].1).into_owned());
    for (index, (name, value)) in members.iter().enumerate() {
        if first != Some(index) {
            let separator = if text.is_empty() { "" } else { " " };
            let value = match value.get().starts_with('"') {
                true => TextValue(&plain(value)).to_string(),
                false => value.get().to_owned(),
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{name}={value}");
        }
    }
    text
}

/// A string without its quotes and escapes, or the JSON of any other value.
fn plain(value: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => text.into(),
        Err(_) => value.get().into(),
    }
}

/// The members of an object, in order; `None` for anything else.
fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let members = deserializer.deserialize_map(MembersVisitor).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_is_one_object_without_our_member_is_passed_on() {
        for (line, is_passed) in [
            (&b"{}"[..], true),
            (br#"{"level":"warn","msg":"battery low"}"#, true),
            (b"{\"a\":1} \t\r", true),
            (b"{\t\"a\" :\t1 }", true),
            (r#"{"naïve":"日🦀"}"#.as_bytes(), true),
            (br#"{"a":{"faas":1},"b":["faas"],"c":"faas"}"#, true),
            (br#"{"faas":1}"#, false),
            (br#"{"a":1,"f\u0061as":1}"#, false),
            (br#" {"a":1}"#, false),
            (br#"{"a":1}{"b":2}"#, false),
            (br#"{"a":1} {"b":2}"#, false),
            (br#"{"a":NaN}"#, false),
            (br#"{"a":1"#, false),
            (br#"["a"]"#, false),
            (b"7", false),
            (b"", false),
            (b"{\"a\":\r1}", false),
            (b"{\"a\":\"\n\"}", false),
            (b"{\"a\":\"\x1b[1m\"}", false),
            (b"{\"a\":\"\0\"}", false),
            (b"{\"a\":\"\xff\"}", false),
        ] {
            let shown = String::from_utf8_lossy(line);
            assert_eq!(object_in(line).is_some(), is_passed, "{shown:?}");
        }
    }

    #[test]
    fn an_object_keeps_each_byte_and_gains_one_member() {
        for (object, passed) in [
            ("{}", r#"{"faas":{"p":1}}"#),
            ("{ }", r#"{ "faas":{"p":1}}"#),
            (
                r#"{"n":1.10e+05, "n":2}"#,
                r#"{"n":1.10e+05, "n":2,"faas":{"p":1}}"#,
            ),
            (
                "{\t\"a\":\"\\t\\u0041é\" }",
                "{\t\"a\":\"\\t\\u0041é\" ,\"faas\":{\"p\":1}}",
            ),
            (r#"{"a":{}}"#, r#"{"a":{},"faas":{"p":1}}"#),
            (
                "{\"a\":\"\u{2028}\u{9b}\u{202e}\u{7f}\"}",
                r#"{"a":"\u2028\u009b\u202e\u007f","faas":{"p":1}}"#,
            ),
        ] {
            let mut line = Vec::new();
            push_object(&mut line, object, b"{\"p\":1}");
            assert_eq!(String::from_utf8(line).unwrap(), passed);
        }
    }

    #[test]
    fn as_text_the_words_of_the_event_come_first() {
        for (object, text) in [
            (
                r#"{"level":"warn","msg":"battery low","device":"d7"}"#,
                "battery low level=warn device=d7",
            ),
            (r#"{"message":"a","msg":"b"}"#, "b message=a"),
            (
                r#"{"a":"b c","d":[1, 2],"e":null}"#,
                r#"a="b c" d=[1, 2] e=null"#,
            ),
            (r#"{"msg":{"a":1}}"#, r#"{"a":1}"#),
            (r#"{"a":"\ud800"}"#, r#"a="\"\\ud800\"""#),
            ("{}", ""),
        ] {
            assert_eq!(shown(object), text);
        }
    }
}
