//! The line that is written for an item.

use super::payload::InputLine;
use crate::answer::{Outcome, result_of};
use crate::config::map::{InputForm, MapConfig};
use crate::error::RequestFailure;
use crate::http::api::respond::status_and_detail;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::io::Write;

/// The form of reply lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyForm {
    raw: bool,
    with_input: bool,
    /// Whether an input line is a JSON value.
    is_json: bool,
}

impl ReplyForm {
    pub(super) fn new(config: &MapConfig) -> ReplyForm {
        ReplyForm {
            raw: config.raw,
            with_input: config.with_input,
            is_json: config.form != InputForm::Text,
        }
    }

    /// Appends the line of an item. With `--raw` a failed item has none: the text for standard
    /// error is returned.
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        line: &InputLine,
        outcome: &Outcome,
    ) -> Option<String> {
        match outcome {
            Ok(result) if self.raw => push_raw(out, result),
            Ok(result) => {
                self.open(out, line);
                out.extend_from_slice(&result[1..]);
            }
            Err(failure) if self.raw => {
                let (status, detail) = status_and_detail(failure);
                let detail = String::from_utf8_lossy(&detail);
                let (number, code) = (line.number, failure.code().as_str());
                return Some(format!("map: line {number}: {code} ({status}): {detail}"));
            }
            Err(failure) => {
                self.open(out, line);
                push_error(out, failure);
            }
        }
        out.push(b'\n');
        None
    }

    fn open(self, out: &mut Vec<u8>, line: &InputLine) {
        out.push(b'{');
        if !self.with_input {
            return;
        }
        out.extend_from_slice(b"\"input\":");
        if line.is_too_long {
            out.extend_from_slice(b"null,");
            return;
        }
        let value = serde_json::from_slice::<&RawValue>(&line.text);
        match value {
            Ok(value) if self.is_json => out.extend_from_slice(value.get().as_bytes()),
            _ => {
                let text = String::from_utf8_lossy(&line.text);
                // Writing to a Vec cannot fail.
                let _ = write!(out, "{}", serde_json::Value::from(text));
            }
        }
        out.push(b',');
    }
}

fn push_error(out: &mut Vec<u8>, failure: &RequestFailure) {
    let (status, detail) = status_and_detail(failure);
    let code = failure.code();
    let _ = write!(
        out,
        "\"error\":{{\"code\":\"{}\",\"message\":",
        code.as_str()
    );
    out.extend_from_slice(&detail);
    let executed = code.executed().as_str();
    let _ = write!(out, ",\"status\":{status},\"executed\":\"{executed}\"}}}}");
}

/// Appends the result alone; a string without its quotes.
fn push_raw(out: &mut Vec<u8>, reply: &Bytes) {
    let result = result_of(reply);
    let value = result.trim_ascii();
    if value.first() == Some(&b'"')
        && let Ok(text) = serde_json::from_slice::<String>(value)
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::lines::RawLine;

    fn written(form: ReplyForm, outcome: &Outcome) -> (String, Option<String>) {
        let text = RawLine::Whole(r#"{"q":"a"}"#.into());
        let line = InputLine::new(7, text, &InputForm::Field("q".to_owned()), 100);
        let mut out = Vec::new();
        let told = form.write(&mut out, &line, outcome);
        (String::from_utf8(out).unwrap(), told)
    }

    #[test]
    fn a_line_that_was_too_long_is_not_repeated() {
        let line = InputLine::new(7, RawLine::TooLong(12), &InputForm::Text, 10);
        let form = ReplyForm {
            raw: false,
            with_input: true,
            is_json: false,
        };
        let mut out = Vec::new();
        form.write(&mut out, &line, &Err(RequestFailure::BodyTooLarge(10)));
        assert!(out.starts_with(br#"{"input":null,"error":{"code":"body_too_large""#));
    }

    #[test]
    fn a_reply_is_one_line_in_each_form() {
        let result = || Ok(Bytes::from_static(br#"{"result":"a\"b"}"#));
        let failed = Err(RequestFailure::Handler {
            message: Bytes::from_static(br#""no""#),
            status: 400,
        });
        let form = |raw, with_input, is_json| ReplyForm {
            raw,
            with_input,
            is_json,
        };
        let plain = form(false, false, false);
        assert_eq!(written(plain, &result()).0, "{\"result\":\"a\\\"b\"}\n");
        let error =
            r#""error":{"code":"handler_error","message":"no","status":400,"executed":"yes"}}"#;
        assert_eq!(written(plain, &failed).0, format!("{{{error}\n"));
        let with_json = form(false, true, true);
        let expected = format!("{{\"input\":{{\"q\":\"a\"}},{error}\n");
        assert_eq!(written(with_json, &failed).0, expected);
        let with_text = form(false, true, false);
        let expected = "{\"input\":\"{\\\"q\\\":\\\"a\\\"}\",\"result\":\"a\\\"b\"}\n";
        assert_eq!(written(with_text, &result()).0, expected);
        let raw = form(true, false, false);
        assert_eq!(written(raw, &result()).0, "a\"b\n");
        let number = Ok(Bytes::from_static(br#"{"result":[1,2]}"#));
        assert_eq!(written(raw, &number).0, "[1,2]\n");
        let (line, told) = written(raw, &failed);
        assert_eq!(line, "");
        assert_eq!(told.unwrap(), "map: line 7: handler_error (400): \"no\"");
    }
}
