//! A line means the same as to a plain JSON reader, and the result passed on is one JSON value.
#![no_main]

use faas_worker::process::line::{Id, Parsed, ReplyBody, leading_id, parse};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Holds a meaning against the same line read as a whole.
fn compare(parsed: &Parsed<'_>, object: &serde_json::Map<String, Value>) {
    let (result, error) = (object.get("result"), object.get("error"));
    let is_reply = match (result, error) {
        (Some(_), _) | (None, Some(_)) => true,
        (None, None) => false,
    };
    match parsed {
        Parsed::Reply(_, answer) | Parsed::Unnamed(answer, _) => {
            assert!(is_reply, "a reply without result or error");
            let is_named = matches!(parsed, Parsed::Reply(..));
            assert_eq!(is_named, object.contains_key("id"));
            if let Parsed::Reply(Id::Integer(id), _) = parsed {
                assert_eq!(object["id"].as_u64(), Some(*id));
            }
            match answer {
                ReplyBody::Result(text) => {
                    assert!(error.is_none_or(Value::is_null));
                    assert_eq!(serde_json::from_str::<Value>(text).ok().as_ref(), result);
                }
                ReplyBody::Error {
                    message, status, ..
                } => {
                    let message: Value = serde_json::from_str(message).expect("a JSON string");
                    let error = error.expect("an error");
                    assert!(message.is_string());
                    assert!(*error == message || error["message"] == message);
                    assert!(status.is_none_or(|status| (400..=500).contains(&status)));
                }
                ReplyBody::Broken(_) => assert!(error.is_some()),
                ReplyBody::NotUtf8(_) => panic!("it is UTF-8"),
            }
        }
        Parsed::Ready(announcement) => {
            assert!(!is_reply && object["ready"] == true);
            assert!(announcement.concurrency.is_none_or(|number| number > 0));
        }
        Parsed::IdOnly(_) => assert!(!is_reply && object.contains_key("id")),
        Parsed::Malformed(..) => panic!("it is JSON"),
        Parsed::Stray => assert!(!is_reply, "a reply taken for a stray line"),
    }
}

fuzz_target!(|line: &[u8]| {
    if line.contains(&b'\n') {
        return;
    }
    let _ = leading_id(line);
    let parsed = parse(line);
    if let Parsed::Reply(_, ReplyBody::Result(text)) | Parsed::Unnamed(ReplyBody::Result(text), _) =
        &parsed
    {
        let body = format!("{{\"result\":{text}}}");
        serde_json::from_str::<IgnoredAny>(&body).expect("our body is one JSON value");
    }
    let plain = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    // serde_json's values have a depth and a range of numbers; what lies beyond has no model.
    if let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(plain) {
        // White space in front of the brace is a stray line by contract, and JSON all the same.
        if plain.starts_with(b"{") {
            compare(&parsed, &object);
        }
    } else if serde_json::from_slice::<IgnoredAny>(plain).is_err() {
        let is_answer = matches!(
            parsed,
            Parsed::Reply(_, ReplyBody::Result(_)) | Parsed::Unnamed(ReplyBody::Result(_), _)
        );
        assert!(!is_answer, "what is no JSON answered");
    }
});
