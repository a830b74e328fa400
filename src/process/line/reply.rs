//! Reads the lines of a process: replies, the ready line, and everything else.

use super::envelope::{Envelope, envelope};
use super::framing::without_mark;
use crate::process::ids::IdDigits;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Meaning of a line.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// No line of the protocol: print debugging, banners, JSON without `result` or `error`.
    Stray,
    /// JSON with an id and no other member of the protocol; a broken reply if a request has the id.
    IdOnly(Id<'a>),
    /// The ready line.
    Ready(Announcement),
    /// An answer, and the id it names.
    Reply(Id<'a>, ReplyBody<'a>),
    /// An answer without an id, and the kind of its further members.
    Unnamed(ReplyBody<'a>, ExtraMembers),
    /// A line that begins with an id as a reply does, and is no JSON.
    Malformed(u64, String),
}

/// An id as a process wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id<'a> {
    /// A JSON integer without sign, which may be the id of a request.
    Integer(u64),
    /// Any other value, as its JSON text: `"7"`, `7.0`, `-1`, `null`.
    Foreign(&'a str),
}

/// Members of a line without an id beside its `result` or `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraMembers {
    /// Nothing.
    Nothing,
    /// Members that no reply has.
    Others,
    /// Members that loggers write.
    Logger,
}

/// The answer in a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplyBody<'a> {
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
    /// Neither a result nor an error, but a break of the protocol; says how.
    Broken(String),
    /// Text that is not UTF-8 from this byte on.
    NotUtf8(usize),
}

/// The announcement of a ready line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// How many requests at the same time, if said.
    pub concurrency: Option<usize>,
    /// The members wanted beside `payload`.
    pub context: Vec<ContextMember>,
    /// A part of the line that was not understood, for the log.
    pub complaint: Option<String>,
}

/// A member that a handler may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextMember {
    /// The headers named by `--pass-header`.
    Headers,
    /// Time left for this request, in milliseconds.
    TimeoutMs,
    /// The request id.
    RequestId,
    /// The caller's `traceparent`.
    Traceparent,
    /// The caller's `tracestate`.
    Tracestate,
}

impl ContextMember {
    /// The name in a ready line.
    pub fn name(&self) -> &'static str {
        match self {
            ContextMember::Headers => "headers",
            ContextMember::TimeoutMs => "timeout_ms",
            ContextMember::RequestId => "request_id",
            ContextMember::Traceparent => "traceparent",
            ContextMember::Tracestate => "tracestate",
        }
    }
}

/// Reads one line. One byte order mark before it and one CR after it are forgiven.
pub fn parse(line: &[u8]) -> Parsed<'_> {
    let line = without_mark(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first() != Some(&b'{') {
        return Parsed::Stray;
    }
    match std::str::from_utf8(line) {
        Ok(text) => plain(text).unwrap_or_else(|| match envelope(text) {
            Ok(envelope) => envelope.meaning(),
            Err(error) => malformed(text, &error),
        }),
        Err(error) => parse_broken_text(line, error.valid_up_to()),
    }
}

/// The result of the ordinary reply to the request with this id; comparing its digits takes less
/// than reading a number of 16 digits. `None` means: read the line by [`parse`].
pub fn plain_reply<'a>(line: &'a [u8], id: &IdDigits) -> Option<&'a str> {
    let rest = id.strip_from(line.strip_prefix(b"{\"id\":")?)?;
    let result = rest.strip_prefix(b",\"result\":")?.strip_suffix(b"}")?;
    // One value and nothing after it: there is no further member.
    let result: &RawValue = serde_json::from_str(std::str::from_utf8(result).ok()?).ok()?;
    Some(result.get())
}

/// The ordinary reply, `{"id":7,"result":…}` without white space around the names, read in a third
/// of the instructions. `None` means: read the line by [`envelope`].
fn plain(text: &str) -> Option<Parsed<'_>> {
    let rest = text.strip_prefix("{\"id\":")?;
    let (id, rest) = rest.split_once(',')?;
    let id = integer(id)?;
    let result = rest.strip_prefix("\"result\":")?.strip_suffix('}')?;
    // One value and nothing after it: there is no further member.
    let result: &RawValue = serde_json::from_str(result).ok()?;
    Some(Parsed::Reply(
        Id::Integer(id),
        ReplyBody::Result(result.get()),
    ))
}

/// A line with invalid UTF-8 is a broken reply if it would be a reply otherwise.
fn parse_broken_text(line: &[u8], valid_up_to: usize) -> Parsed<'static> {
    let text = String::from_utf8_lossy(line);
    let broken = || ReplyBody::NotUtf8(valid_up_to);
    match envelope(&text).map(Envelope::meaning) {
        Ok(Parsed::Reply(Id::Integer(id), _) | Parsed::IdOnly(Id::Integer(id))) => {
            Parsed::Reply(Id::Integer(id), broken())
        }
        Ok(Parsed::Reply(Id::Foreign(_), _) | Parsed::IdOnly(Id::Foreign(_))) => {
            Parsed::Reply(Id::Foreign("in a line that is not UTF-8"), broken())
        }
        Ok(Parsed::Unnamed(_, extra)) => Parsed::Unnamed(broken(), extra),
        Ok(Parsed::Ready(_) | Parsed::Stray | Parsed::Malformed(..)) | Err(_) => Parsed::Stray,
    }
}

/// A line with a brace that is no JSON object: a broken reply, if it begins with an id.
fn malformed(text: &str, error: &serde_json::Error) -> Parsed<'static> {
    let Some(id) = leading_id(text.as_bytes()) else {
        return Parsed::Stray;
    };
    let byte = error.column().saturating_sub(1);
    let is_constant = |word: &&str| {
        // The minus sign is taken before the error is seen.
        let found = [byte, byte.saturating_sub(1)];
        let mut found = found.into_iter().filter_map(|at| text.get(at..));
        found.any(|rest| rest.starts_with(*word))
    };
    let constant = ["NaN", "-Infinity", "Infinity", "undefined"];
    let constant = constant.iter().find(|word| is_constant(word));
    let cause = match (constant, error.classify()) {
        (Some(word), _) => format!("{word} is no JSON: null or a string may stand for it"),
        (None, serde_json::error::Category::Eof) => {
            "the line ends inside of it: a reply is one line".to_owned()
        }
        (None, _) => error.to_string(),
    };
    Parsed::Malformed(id, format!("the reply is not JSON at byte {byte}: {cause}"))
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

impl<'a> Envelope<'a> {
    fn meaning(self) -> Parsed<'a> {
        let id = self
            .id
            .map(|text| integer(text).map_or(Id::Foreign(text), Id::Integer));
        let answer = match (self.result, self.error) {
            (Some(result), None | Some("null")) => ReplyBody::Result(result),
            (result, Some(error)) => error_answer(error, result.is_some()),
            (None, None) if self.ready == Some("true") => {
                return Parsed::Ready(self.announcement());
            }
            (None, None) => return id.map_or(Parsed::Stray, Parsed::IdOnly),
        };
        match id {
            Some(id) => Parsed::Reply(id, answer),
            None => Parsed::Unnamed(answer, self.extra()),
        }
    }

    fn extra(&self) -> ExtraMembers {
        let has_ready = [self.ready, self.concurrency, self.context];
        if self.has_loggers {
            ExtraMembers::Logger
        } else if self.has_others || has_ready.iter().any(Option::is_some) {
            ExtraMembers::Others
        } else {
            ExtraMembers::Nothing
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
                "tracestate" => ContextMember::Tracestate,
                unknown => {
                    announcement.complaint = Some(format!(
                        "context knows headers, timeout_ms, request_id, traceparent and tracestate, got {unknown:?}"
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
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if text.is_empty() || leading_zero {
        return None;
    }
    let mut value = 0u64;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = match text.len() {
            // Up to 19 digits cannot overflow.
            ..=19 => value * 10 + u64::from(digit),
            _ => value.checked_mul(10)?.checked_add(u64::from(digit))?,
        };
    }
    Some(value)
}

/// Members of an error; the last of duplicate members wins.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

const ERROR_SHAPE: &str = r#"expected "error":"message" or "error":{"message":"…","status":400}"#;

fn error_answer(error: &str, is_beside_result: bool) -> ReplyBody<'_> {
    let answer = |message, status| ReplyBody::Error {
        message,
        status,
        is_beside_result,
    };
    if error.starts_with('"') {
        return answer(error, None);
    }
    let Ok(object) = serde_json::from_str::<Members<'_>>(error) else {
        return ReplyBody::Broken(format!("the error has another shape: {ERROR_SHAPE}"));
    };
    let message = object.get("message").map(|text| text.get());
    let message = message.filter(|text| text.starts_with('"'));
    let Some(message) = message else {
        return ReplyBody::Broken(format!("the error has no string message: {ERROR_SHAPE}"));
    };
    let status = object.get("status").map(|text| text.get());
    let Some(status) = status.filter(|status| *status != "null") else {
        return answer(message, None);
    };
    match status.parse() {
        Ok(number @ 400..=500) => answer(message, Some(number)),
        // What it is instead may be long, or no caller's business.
        Ok(number @ 0_u16..) => ReplyBody::Broken(format!(
            "the error's status must be 400 to 499, or 500, got {number}: {ERROR_SHAPE}"
        )),
        Err(_) => ReplyBody::Broken(format!(
            "the error's status must be a number, 400 to 499 or 500: {ERROR_SHAPE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_result_for_an_id_is_that_of_the_whole_line() {
        let seven = IdDigits::new(7);
        for (text, result) in [
            (
                "{\"id\":7,\"result\": {\"a\":[1,{}]} }",
                Some("{\"a\":[1,{}]}"),
            ),
            ("{\"id\":77,\"result\":1}", None),
            ("{\"id\":8,\"result\":1}", None),
            ("{\"id\":7 ,\"result\":1}", None),
            ("{\"id\":7,\"result\":1,\"result\":2}", None),
            ("{\"id\":7,\"result\":1,\"error\":\"a\"}", None),
            ("{\"id\":7,\"result\":1}}", None),
            ("{\"id\":7,\"result\":}", None),
        ] {
            assert_eq!(plain_reply(text.as_bytes(), &seven), result, "{text}");
            if let Some(result) = result {
                let whole = Parsed::Reply(Id::Integer(7), ReplyBody::Result(result));
                assert_eq!(parse(text.as_bytes()), whole);
            }
        }
        assert_eq!(plain_reply(b"{\"id\":7,\"result\":\"\xff\"}", &seven), None);
    }

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
                prop_assert_eq!(Some(short), long.ok(), "{}", text);
            }
        }
    }
}
