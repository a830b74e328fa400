//! What events and answers mean: the payload of an event, the type and the document of an
//! error. Pure.

use crate::error::{Code, RequestFailure};
use crate::http::api::payload::find_payload;
use crate::http::api::respond::{Reader, detail};
use crate::json_string::escaped;
use bytes::Bytes;

/// The inside of the payload's JSON string: the string `payload` of an event that is an object with
/// one, else all of the event's text.
///
/// # Errors
///
/// [`RequestFailure::Invalid`] for an event that is not UTF-8.
pub(super) fn payload_of(event: &Bytes) -> Result<Bytes, RequestFailure> {
    if let Ok(payload) = find_payload(true, event) {
        return Ok(payload);
    }
    escaped(event).map_err(|_| RequestFailure::bad_request("the event is not UTF-8"))
}

/// The type of an error, in the form that Lambda asks for: a category and a reason.
pub(super) fn error_type(code: Code) -> String {
    let known = match code {
        Code::HandlerError => "Handler.Error",
        Code::HandlerTimeout => "Function.Timeout",
        Code::HandlerExited => "Runtime.ExitError",
        Code::ReplyTooLarge => "Function.ResponseSizeTooLarge",
        Code::InvalidRequest
        | Code::BodyTimeout
        | Code::BodyTooLarge
        | Code::Unauthorized
        | Code::Forbidden
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::Overloaded
        | Code::HandlerNotLoaded
        | Code::HandlerUnavailable
        | Code::Draining
        | Code::HandlerProtocol => return format!("Runtime.{}", camel_case(code.as_str())),
    };
    known.to_owned()
}

/// `handler_not_loaded` as `HandlerNotLoaded`.
fn camel_case(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}

/// The document that tells Lambda, and through it the caller, of a failure.
pub(super) fn error_document(failure: &RequestFailure, reader: Reader<'_>) -> Bytes {
    let detail = detail(failure, reader);
    let kind = error_type(failure.code());
    let mut document = b"{\"errorMessage\":".to_vec();
    document.extend_from_slice(&detail);
    document.extend_from_slice(b",\"errorType\":\"");
    document.extend_from_slice(kind.as_bytes());
    document.extend_from_slice(b"\",\"stackTrace\":[]}");
    document.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The payload that a handler reads for this event.
    fn payload(event: &str) -> String {
        let inside = payload_of(&Bytes::copy_from_slice(event.as_bytes())).unwrap();
        let string = format!("\"{}\"", std::str::from_utf8(&inside).unwrap());
        serde_json::from_str(&string).unwrap()
    }

    #[test]
    fn a_string_payload_is_the_payload_and_any_other_event_is_one_itself() {
        for (event, expected) in [
            (r#"{"payload":"a\nb"}"#, "a\nb"),
            (r#"{"payload":""}"#, ""),
            (r#" {"other":1,"payload":"x"} "#, "x"),
            (r#"{"payload":"x","payload":"y"}"#, "y"),
            (r#"{"payload":7}"#, r#"{"payload":7}"#),
            (
                r#"{"Records":[{"a":"\u00e9"}]}"#,
                r#"{"Records":[{"a":"\u00e9"}]}"#,
            ),
            (r#"{"payload":"\ud83d"}"#, r#"{"payload":"\ud83d"}"#),
            (r#"[{"payload":"x"}]"#, r#"[{"payload":"x"}]"#),
            (r#""text""#, r#""text""#),
            ("null", "null"),
            ("{\n\t}", "{\n\t}"),
            ("no JSON", "no JSON"),
            ("", ""),
        ] {
            assert_eq!(payload(event), expected, "{event:?}");
        }
    }

    #[test]
    fn an_event_that_is_not_utf_8_is_refused() {
        let failure = payload_of(&Bytes::from_static(b"\"\xff\"")).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidRequest);
    }

    #[test]
    fn each_code_has_a_type_of_its_own_with_a_category_and_a_reason() {
        let types: Vec<String> = Code::ALL.iter().copied().map(error_type).collect();
        for kind in &types {
            let (category, reason) = kind.split_once('.').unwrap();
            assert!(
                ["Function", "Handler", "Runtime"].contains(&category),
                "{kind}"
            );
            assert!(
                reason.bytes().all(|byte| byte.is_ascii_alphabetic()),
                "{kind}"
            );
            assert!(
                reason.starts_with(|first: char| first.is_ascii_uppercase()),
                "{kind}"
            );
            assert_eq!(
                types.iter().filter(|other| *other == kind).count(),
                1,
                "{kind}"
            );
        }
        assert_eq!(
            error_type(Code::HandlerNotLoaded),
            "Runtime.HandlerNotLoaded"
        );
        assert_eq!(error_type(Code::HandlerTimeout), "Function.Timeout");
    }

    #[test]
    fn an_error_is_told_as_lambda_shows_errors() {
        let failure = RequestFailure::Handler {
            message: Bytes::from_static(br#""no \"such\" device""#),
            status: 404,
        };
        let document = error_document(&failure, Reader::Operator);
        let document: Value = serde_json::from_slice(&document).unwrap();
        let expected = json!({
            "errorMessage": "no \"such\" device",
            "errorType": "Handler.Error",
            "stackTrace": [],
        });
        assert_eq!(document, expected);
    }
}
