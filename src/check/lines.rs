//! Typical mistakes that one line of a handler's output shows.

use super::desk::RECORDED_BYTES;
use super::mend::Mend;
use crate::process::line::{ExtraMembers, Id, Parsed, ReplyBody, is_braced, parse};

/// A mistake, in words and with its mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// In a few words.
    pub(super) summary: String,
    pub(super) mend: Mend,
}

/// The lines of an output, and the part behind the last newline, which is empty where the output
/// ends with one.
pub(super) fn split(output: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut lines: Vec<&[u8]> = output.split(|byte| *byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    (lines, rest)
}

/// An output without its last line, where the record has cut that line.
fn whole_lines(output: &[u8]) -> &[u8] {
    match memchr::memrchr(b'\n', output) {
        _ if output.len() < RECORDED_BYTES => output,
        Some(end) => &output[..=end],
        None => b"",
    }
}

/// The line that the record has cut, if it has cut one.
pub(super) fn cut_line(output: &[u8]) -> Option<&[u8]> {
    let cut = &output[whole_lines(output).len()..];
    (!cut.is_empty()).then_some(cut)
}

/// True for a line that would answer a request.
pub(super) fn is_reply(line: &[u8]) -> bool {
    matches!(
        parse(line),
        Parsed::Reply(..) | Parsed::Unnamed(_, ExtraMembers::Nothing | ExtraMembers::Others)
    )
}

/// The last of the lines that would answer a request.
pub(super) fn last_reply(output: &[u8]) -> Option<&[u8]> {
    let (lines, rest) = split(output);
    let mut lines = lines.into_iter().chain([rest]).rev();
    lines.find(|line| is_reply(line))
}

/// The mistake that an output shows in which no line answered a request; `None` if it shows none.
pub(super) fn mistake_in(output: &[u8]) -> Option<Mistake> {
    let mistake = |summary: &str, mend| {
        let summary = summary.to_owned();
        Some(Mistake { summary, mend })
    };
    if is_utf16(output) {
        return mistake(
            "the output is UTF-16, and must be UTF-8",
            Mend::ByteOrderMark,
        );
    }
    let (lines, rest) = split(whole_lines(output));
    if lines.iter().any(|line| is_log_of_no_error(line)) {
        return mistake(
            "a line without an id has \"error\":null, as log lines have, and counts as a reply",
            Mend::LogLine,
        );
    }
    if is_braced(rest) && is_reply(rest) {
        return mistake("the reply has no newline at its end", Mend::Newline);
    }
    if is_braced(rest) {
        return mistake("half a reply, without its end", Mend::Newline);
    }
    let last = lines.iter().rev().find(|line| is_braced(line));
    let last = last.or(lines.iter().rev().find(|line| !line.is_empty()))?;
    mistake_of(last, &lines)
}

/// The mistake in the last of these lines.
fn mistake_of(last: &[u8], lines: &[&[u8]]) -> Option<Mistake> {
    let mistake = |summary: &str, mend| {
        let summary = summary.to_owned();
        Some(Mistake { summary, mend })
    };
    match parse(last) {
        Parsed::IdOnly(_) => mistake(
            "the reply has neither result nor error",
            Mend::ResultOrError,
        ),
        Parsed::Malformed(_, how) if how.contains("no JSON:") => Some(Mistake {
            summary: how,
            mend: Mend::NotANumber,
        }),
        Parsed::Malformed(_, how) if how.contains("one line") => Some(Mistake {
            summary: how,
            mend: Mend::OneLine,
        }),
        Parsed::Malformed(_, how) => Some(Mistake {
            summary: how,
            mend: Mend::ResultOrError,
        }),
        Parsed::Reply(_, ReplyBody::NotUtf8(byte))
        | Parsed::Unnamed(ReplyBody::NotUtf8(byte), _) => Some(Mistake {
            summary: format!("the reply is not UTF-8 at byte {byte} of its line"),
            mend: Mend::Encoding,
        }),
        Parsed::Reply(_, ReplyBody::Broken(_)) | Parsed::Unnamed(ReplyBody::Broken(_), _)
            if is_error_null(last) =>
        {
            mistake(
                "the reply has no result, and its error is null",
                Mend::NullError,
            )
        }
        Parsed::Reply(_, ReplyBody::Broken(how)) | Parsed::Unnamed(ReplyBody::Broken(how), _) => {
            let mend = match how.contains("status must") {
                true => Mend::Status,
                false => Mend::ResultOrError,
            };
            Some(Mistake { summary: how, mend })
        }
        Parsed::Unnamed(_, ExtraMembers::Logger) => mistake(
            "the reply has no id and a member that loggers write, so it counts as a log line",
            Mend::RepeatId,
        ),
        Parsed::Stray => stray(lines, last),
        Parsed::Reply(..) | Parsed::Unnamed(..) | Parsed::Ready(_) => None,
    }
}

/// True for a line without an id whose error is null, and which has members that no reply has.
fn is_log_of_no_error(line: &[u8]) -> bool {
    let parsed = parse(line);
    let is_log = matches!(
        parsed,
        Parsed::Unnamed(ReplyBody::Broken(_), ExtraMembers::Others)
    );
    is_log && is_error_null(line)
}

/// True for a line whose error is null.
fn is_error_null(line: &[u8]) -> bool {
    let value = serde_json::from_slice::<serde_json::Value>(line);
    value.is_ok_and(|value| value.get("error").is_some_and(serde_json::Value::is_null))
}

/// The mistake in a line that is no reply, the last of these lines.
fn stray(lines: &[&[u8]], last: &[u8]) -> Option<Mistake> {
    let (summary, mend) = if is_several_lines(lines) {
        (
            "the reply is spread over several lines".to_owned(),
            Mend::OneLine,
        )
    } else if is_braced(last) {
        let summary = match serde_json::from_slice::<serde_json::Value>(last) {
            Ok(_) => "the line has neither result nor error".to_owned(),
            Err(error) => format!("the line is not JSON: {error}"),
        };
        (summary, Mend::ResultOrError)
    } else if memchr::memmem::find(last, b"{\"").is_some() {
        let summary = "other text stands before the brace of the reply".to_owned();
        (summary, Mend::Stdout)
    } else {
        return None;
    };
    Some(Mistake { summary, mend })
}

/// The id in a reply that is no integer, or not this one, as the handler wrote it.
pub(super) fn wrong_id(line: &[u8], sent: u64) -> Option<String> {
    match parse(line) {
        Parsed::Reply(Id::Foreign(text), _) => Some(text.to_owned()),
        Parsed::Reply(Id::Integer(id), _) if id != sent => Some(id.to_string()),
        Parsed::Reply(..)
        | Parsed::Stray
        | Parsed::IdOnly(_)
        | Parsed::Ready(_)
        | Parsed::Unnamed(..)
        | Parsed::Malformed(..) => None,
    }
}

/// True for a byte order mark of UTF-16, or for text with a zero behind each character.
fn is_utf16(output: &[u8]) -> bool {
    output.starts_with(b"\xff\xfe")
        || output.starts_with(b"\xfe\xff")
        || output.starts_with(b"{\0\"\0")
        || output.starts_with(b"\0{\0\"")
}

/// True when the lines from the last brace that begins one on are an object together.
fn is_several_lines(lines: &[&[u8]]) -> bool {
    let Some(begin) = lines.iter().rposition(|line| line.starts_with(b"{")) else {
        return false;
    };
    let joined = lines[begin..].join(&b'\n');
    lines.len() - begin > 1 && serde_json::from_slice::<serde_json::Value>(&joined).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_from_the_output() {
        for (output, mend, words) in [
            (&b"{\"id\":7,\"result\":1}"[..], Mend::Newline, "no newline"),
            (b"{\"id\":7,\"res", Mend::Newline, "half a reply"),
            (b"{\"id\":7}\n", Mend::ResultOrError, "neither result"),
            (b"{\"answer\":1}\n", Mend::ResultOrError, "neither result"),
            (b"{\"id\":7,\"result\":NaN}\n", Mend::NotANumber, "NaN"),
            (
                b"{\n  \"id\": 7,\n  \"result\": 1\n}\n",
                Mend::OneLine,
                "several lines",
            ),
            (
                b"{\"id\":7,\n\"result\":1}\n",
                Mend::OneLine,
                "a reply is one line",
            ),
            (
                b"{\"id\":7,\"result\":\"\xe9\"}\n",
                Mend::Encoding,
                "not UTF-8",
            ),
            (b"\xff\xfe{\0\"\0", Mend::ByteOrderMark, "UTF-16"),
            (
                b"got it {\"id\":7,\"result\":1}\n",
                Mend::Stdout,
                "before the brace",
            ),
            (
                b"{\"error\":\"e\",\"level\":\"info\"}\n",
                Mend::RepeatId,
                "log line",
            ),
            (
                b"{\"id\":7,\"error\":5}\n",
                Mend::ResultOrError,
                "another shape",
            ),
            (b"{'id': 7, 'result': 1}\n", Mend::ResultOrError, "not JSON"),
            (
                b"{\"id\":7,\"error\":null}\n",
                Mend::NullError,
                "error is null",
            ),
            (b"{\"error\":null}\n", Mend::NullError, "error is null"),
            (
                b"{\"stage\":\"parse\",\"error\":null}\n{\"result\":1}\n",
                Mend::LogLine,
                "without an id",
            ),
            (
                b"{\"id\":7,\"error\":{\"message\":\"no\",\"status\":302}}\n",
                Mend::Status,
                "got 302",
            ),
        ] {
            let shown = String::from_utf8_lossy(output);
            let mistake = mistake_in(output).unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(mistake.mend, mend, "{shown}: {mistake:?}");
            assert!(mistake.summary.contains(words), "{shown}: {mistake:?}");
        }
        assert_eq!(mistake_in(b""), None);
        assert_eq!(mistake_in(b"hello\n"), None);
    }

    #[test]
    fn a_line_that_the_record_has_cut_shows_no_mistake() {
        let mut output = b"{\"id\":7,\"result\":\"".to_vec();
        output.resize(RECORDED_BYTES - 1, b'x');
        let mistake = mistake_in(&output).unwrap();
        assert!(mistake.summary.contains("half a reply"), "{mistake:?}");
        assert_eq!(cut_line(&output), None);
        output.push(b'x');
        assert_eq!(mistake_in(&output), None);
        assert_eq!(cut_line(&output), Some(output.as_slice()));
        output[..9].copy_from_slice(b"{\"id\":7}\n");
        let mistake = mistake_in(&output).unwrap();
        assert!(mistake.summary.contains("neither result"), "{mistake:?}");
        assert_eq!(cut_line(&output), Some(&output[9..]));
    }

    #[test]
    fn ids_are_compared_as_they_were_written() {
        for (line, wrong) in [
            (&b"{\"id\":7,\"result\":1}"[..], None),
            (b"{\"id\":\"7\",\"result\":1}", Some("\"7\"")),
            (b"{\"id\":[1],\"result\":1}", Some("[1]")),
            (b"{\"id\":8,\"result\":1}", Some("8")),
            (b"{\"id\":7.0,\"result\":1}", Some("7.0")),
            (b"{\"result\":1}", None),
        ] {
            assert_eq!(wrong_id(line, 7).as_deref(), wrong);
        }
    }
}
