//! What a line from a process means.

use super::framing::without_mark;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

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
        Ok(text) => plain(text)
            .or_else(|| envelope(text).map(Envelope::meaning))
            .unwrap_or(Parsed::Stray),
        Err(error) => parse_broken_text(line, error.valid_up_to()),
    }
}

/// The ordinary reply, read in a third of the instructions: `{"id":7,"result":…}`, with no white
/// space around the names. Anything else, right or wrong, is none here and read by [`envelope`].
fn plain(text: &str) -> Option<Parsed<'_>> {
    let rest = text.strip_prefix("{\"id\":")?;
    let (id, rest) = rest.split_once(',')?;
    let id = Id::Integer(integer(id)?);
    let result = rest.strip_prefix("\"result\":")?.strip_suffix('}')?;
    // One value and nothing after it: there is no further member.
    let result: &RawValue = serde_json::from_str(result).ok()?;
    Some(Parsed::Reply(Some(id), Answer::Result(result.get())))
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
            let member = match name.as_ref() {
                "headers" => ContextMember::Headers,
                "timeout_ms" => ContextMember::TimeoutMs,
                "request_id" => ContextMember::RequestId,
                "traceparent" => ContextMember::Traceparent,
                unknown => {
                    announcement.complaint = Some(format!(
                        "context knows headers, timeout_ms, request_id and traceparent, got {unknown:?}"
                    ));
                    continue;
                }
            };
            if !announcement.context.contains(&member) {
                announcement.context.push(member);
            }
        }
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

/// Of duplicate members the last wins, as everywhere.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

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
    let Ok(object) = serde_json::from_str::<Members<'_>>(error) else {
        return Answer::Broken(format!("the error has another shape: {ERROR_SHAPE}"));
    };
    let message = object.get("message").map(|text| text.get());
    let message = message.filter(|text| text.starts_with('"'));
    let Some(message) = message else {
        return Answer::Broken(format!("the error has no string message: {ERROR_SHAPE}"));
    };
    let status = object.get("status").map(|text| text.get());
    let Some(status) = status.filter(|status| *status != "null") else {
        return answer(message, None);
    };
    match status.parse() {
        Ok(number @ 400..=500) => answer(message, Some(number)),
        Ok(_) | Err(_) => Answer::Broken(format!(
            "the error's status must be 400 to 499, or 500, got {status}: {ERROR_SHAPE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_short_way_is_taken_for_ordinary_replies_only() {
        for (text, is_plain) in [
            ("{\"id\":7,\"result\":\"a\"}", true),
            ("{\"id\":7,\"result\": {\"a\":[1,{}]} }", true),
            ("{\"id\":18446744073709551615,\"result\":null}", true),
            ("{\"id\":7,\"result\":1,\"result\":2}", false),
            ("{\"id\":7,\"result\":1,\"error\":\"a\"}", false),
            ("{\"id\":7,\"result\":1}}", false),
            ("{\"id\":7,\"result\":}", false),
            ("{\"id\":07,\"result\":1}", false),
            ("{\"id\":-7,\"result\":1}", false),
            ("{\"id\":\"7\",\"result\":1}", false),
            ("{\"id\":7, \"result\":1}", false),
            ("{\"id\":7,\"error\":\"a\"}", false),
            ("{\"result\":1}", false),
        ] {
            assert_eq!(plain(text).is_some(), is_plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_ends_where_the_long_one_does(
            id in r#"0|[1-9][0-9]{0,2}|-?0?[0-9]{1,21}|"7"|7\.0|null"#,
            result in r#"[0-9]{1,3}|"[a,}"\\]{0,4}"|\{"a":\[1,2\]\}|1,"result":2|1,"error":"e"|[ 1{}]{0,3}"#,
            end in r#"\}|\}\}| \}|\} |,"error":null\}"#,
        ) {
            let text = format!("{{\"id\":{id},\"result\":{result}{end}");
            let long = envelope(&text).map(Envelope::meaning);
            if let Some(short) = plain(&text) {
                prop_assert_eq!(Some(short), long, "{}", text);
            }
        }
    }
}
