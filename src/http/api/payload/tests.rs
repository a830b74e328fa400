use super::json::{MAX_DEPTH, scan_string};
use super::{find_payload, is_json, plain_payload, scan_body};
use crate::error::RequestFailure;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

const JSON: Option<&[u8]> = Some(b"application/json");

/// The payload decoded, or status and `detail`; checks all that is promised of either.
fn answer(content_type: Option<&[u8]>, body: &Bytes) -> Result<String, (u16, Bytes)> {
    match find_payload(is_json(content_type), body) {
        Ok(payload) => {
            assert!(
                body.as_ptr_range().start <= payload.as_ptr_range().start,
                "no part of the body"
            );
            assert!(
                payload.as_ptr_range().end <= body.as_ptr_range().end,
                "no part of the body"
            );
            let quoted = format!("\"{}\"", std::str::from_utf8(&payload).unwrap());
            Ok(serde_json::from_str(&quoted).unwrap())
        }
        Err(RequestFailure::Invalid { status, detail }) => {
            serde_json::from_slice::<serde::de::IgnoredAny>(&detail).unwrap();
            Err((status, detail))
        }
        Err(other) => panic!("not an answer to a body: {other:?}"),
    }
}

fn found(body: impl Into<Bytes>) -> String {
    answer(JSON, &body.into()).unwrap()
}

fn status(body: impl Into<Bytes>) -> u16 {
    answer(JSON, &body.into()).unwrap_err().0
}

fn input(body: impl Into<Bytes>) -> String {
    let detail = String::from_utf8(answer(JSON, &body.into()).unwrap_err().1.into()).unwrap();
    let (_, input) = detail.split_once("\"input\":").unwrap();
    input.strip_suffix("}]").unwrap().to_owned()
}

/// The whole of a body as Python renders it, before it is cut.
fn rendered(body: impl Into<Vec<u8>>) -> String {
    let body = String::from_utf8(body.into()).unwrap();
    let mut out = Vec::new();
    assert!(super::render::render(&body, 0..body.len(), &mut out).is_ok());
    String::from_utf8(out).unwrap()
}

fn unbase64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').bytes();
    let values = digits.map(|digit| alphabet.iter().position(|&one| one == digit).unwrap());
    let bits: String = values.map(|value| format!("{value:06b}")).collect();
    let bytes = bits.as_bytes().chunks_exact(8);
    bytes
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

#[test]
fn bodies_are_answered_as_recorded() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../../../tests/body-cases.json")).unwrap();
    assert!(cases.len() > 200, "only {} cases", cases.len());
    for case in cases {
        // Header values are Latin-1.
        let content_type: Option<Vec<u8>> = case["content_type"].as_str().map(|text| {
            text.chars()
                .map(|character| u8::try_from(character).unwrap())
                .collect()
        });
        let body = match case["body"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => unbase64(case["body_base64"].as_str().unwrap()),
        };
        let (status, got) = match answer(content_type.as_deref(), &body.into()) {
            Ok(payload) => (200, serde_json::json!({ "result": payload })),
            Err((status, detail)) => {
                let detail: Value = serde_json::from_slice(&detail).unwrap();
                (status, serde_json::json!({ "detail": detail }))
            }
        };
        // As text, so that the order of keys counts where the reader keeps it.
        assert_eq!(
            (u64::from(status), got.to_string()),
            (
                case["expect"]["status"].as_u64().unwrap(),
                case["expect"]["body"].to_string()
            ),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn input_is_spelled_as_python_spells_it() {
    for (body, expected) in [
        (r#"{"b":1, "a":2, "b":3}"#, r#"{"b":3,"a":2}"#),
        (
            r#"{"a":{"y":1,"y":{"z":1,"z":2}},"a":[{"y":1,"y":{"z":1,"z":2}}],"c":0}"#,
            r#"{"a":[{"y":{"z":2}}],"c":0}"#,
        ),
        (
            r#"{"_sa":1,"c":{"_sab":2},"\u005fsa":3,"d":[]}"#,
            r#"{"c":{},"d":[]}"#,
        ),
        (
            "[1E5,1e16,1.50,-0,-0.0,1e-5,12345678901234567890123]",
            "[100000.0,1e+16,1.5,0,-0.0,1e-05,12345678901234567890123]",
        ),
        (
            r#"["\u0001\u00e9\/\b\u2028", NaN, -1e999]"#,
            "[\"\\u0001é/\\b\u{2028}\",null,null]",
        ),
    ] {
        assert_eq!(input(body), expected, "{body}");
    }
}

#[test]
fn nesting_is_read_as_deep_as_python_reads() {
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    let beside = |depth: usize| {
        [
            br#"{"payload":"x","a":"#.to_vec(),
            nested(depth),
            b"}".to_vec(),
        ]
        .concat()
    };
    assert_eq!(rendered(nested(MAX_DEPTH)).into_bytes(), nested(MAX_DEPTH));
    assert_eq!(status(nested(MAX_DEPTH + 1)), 400);
    assert_eq!(found(beside(MAX_DEPTH - 1)), "x");
    assert_eq!(status(beside(MAX_DEPTH)), 400);
    for endless in ["[", "{\"a\":", "[{\"payload\":"] {
        assert_eq!(status(endless.repeat(1_000_000)), 400);
    }
}

#[test]
fn integers_are_read_as_long_as_python_reads() {
    let beside = |digits: usize| format!(r#"{{"payload":"x","a":-{}}}"#, "9".repeat(digits));
    assert_eq!(found(beside(4300)), "x");
    assert_eq!(status(beside(4301)), 400);
    assert_eq!(status(format!("[{} x", "9".repeat(4301))), 400);
    assert_eq!(status(format!("{{x:{}", "9".repeat(4301))), 422);
    assert_eq!(rendered(format!("[{}]", "7".repeat(4300))).len(), 4302);
    assert_eq!(rendered(format!("[{}.5]", "7".repeat(100_000))), "[null]");
}

#[test]
fn replaced_members_in_replaced_members_are_written_once() {
    let leaf = "x".repeat(1 << 20);
    let open = r#"{"a":0,"a":"#.repeat(900);
    let body = format!("{open}\"{leaf}\"{}", "}".repeat(900));
    let expected = format!("{}\"{leaf}\"{}", "{\"a\":".repeat(900), "}".repeat(900));
    assert_eq!(rendered(body), expected);
    let many = format!("{{{}\"a\":1}}", "\"a\":0,".repeat(200_000));
    assert_eq!(rendered(many), "{\"a\":1}");
}

#[test]
fn every_byte_ends_a_plain_run_or_does_not() {
    for length in 0..40 {
        for at in 0..length {
            for byte in 0..=255 {
                let mut text = vec![b'x'; length];
                text[at] = byte;
                let body = [b"\"", text.as_slice(), b"\""].concat();
                match scan_string(&body, 0) {
                    Ok(text) if byte == b'"' => assert_eq!(text.range, 1..at + 1),
                    Ok(text) => {
                        assert_eq!(text.range, 1..length + 1);
                        assert!(byte >= b' ');
                    }
                    Err(_) => assert!(byte < b' ' || byte == b'\\', "{byte} at {at} of {length}"),
                }
            }
        }
    }
}

#[test]
fn every_code_point_comes_through_and_no_lone_surrogate() {
    let all: String = (0..=0x10_FFFF).filter_map(char::from_u32).collect();
    for choice in [0, 3] {
        let body = format!("{{\"payload\":{}}}", escaped(&all, &[choice]));
        assert!(found(body) == all, "escapes chosen: {choice}");
    }
    for surrogate in 0xD800..0xE000 {
        for body in [
            format!("{{\"payload\":\"\\u{surrogate:04x}\"}}"),
            format!("{{\"payload\":\"\\ud800\\u{surrogate:04X}\\udc00\"}}"),
        ] {
            let (status, detail) = answer(JSON, &body.into()).unwrap_err();
            assert_eq!(status, 422);
            assert!(
                detail.starts_with(b"[{\"type\":\"string_unicode\""),
                "{surrogate:x}"
            );
        }
    }
}

/// `text` as a JSON string, each character escaped or not as `choices` say.
fn escaped(text: &str, choices: &[u8]) -> String {
    let mut written = String::from("\"");
    for (character, choice) in text.chars().zip(choices.iter().cycle()) {
        let must_be_escaped = character < ' ' || character == '"' || character == '\\';
        let short = "\"\"\\\\//\u{8}b\u{c}f\nn\rr\tt";
        let short = short.chars().collect::<Vec<_>>();
        let short = short
            .chunks(2)
            .find(|pair| pair[0] == character)
            .map(|pair| pair[1]);
        match (choice % 4, short) {
            (0 | 1, _) if !must_be_escaped => written.push(character),
            (0 | 2, Some(letter)) => written.extend(['\\', letter]),
            (choice, _) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    written += &if choice == 1 {
                        format!("\\u{unit:04X}")
                    } else {
                        format!("\\u{unit:04x}")
                    };
                }
            }
        }
    }
    written + "\""
}

/// Bodies that are nearly right.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "{\"payload\":\"", "\"payload\":", "\"payload\"",
            "\"x\"", "\"}", "\\u0070", "\\ud83d\\ude00", "\\ud800", "\\u", "1", "-", "1.5e3", "null",
            "NaN", " ", "\n", "\u{0}", "é", "😀", "_sa", "\u{feff}", "\"a\":", ",\"payload\":\"y\"",
            "{\"payload\":\"x\"", "{\"a\":[1,{}]", ",\"b\":{\"payload\":1}", "\\n", "\\\"",
        ]).prop_map(str::to_owned),
        1 => ".{0,3}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_payload_is_found_however_it_is_escaped(
        payload in any::<String>(),
        other in any::<String>(),
        choices in proptest::collection::vec(any::<u8>(), 1..50),
        space in "[ \t\r\n]{0,3}",
        before in any::<bool>(),
        after in any::<bool>(),
    ) {
        let other = escaped(&format!("{other}!"), &choices);
        let mut members = vec![format!("{space}{}{space}:{space}{}{space}",
            escaped("payload", &choices), escaped(&payload, &choices))];
        if before {
            members.insert(0, format!("{other}:{{\"payload\":{other}}}"));
            members.insert(0, "\"payload\":[1]".to_owned());
        }
        if after {
            members.push(format!("{other}:[{other},{space}-1.5e3]"));
        }
        let body = format!("{space}{{{}}}{space}", members.join(","));
        let read: Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(read["payload"].as_str(), Some(payload.as_str()));
        prop_assert_eq!(answer(JSON, &Bytes::from(body)), Ok(payload));
    }

    #[test]
    fn any_bytes_get_a_valid_answer(
        content_type in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        body in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let body = Bytes::from(body);
        let _ = answer(content_type.as_deref(), &body);
        let _ = answer(JSON, &body);
    }

    #[test]
    fn what_serde_json_reads_is_read_alike(body in soup()) {
        let got = answer(JSON, &Bytes::from(body.clone()));
        match serde_json::from_str::<Value>(&body) {
            Ok(read) => match &read["payload"] {
                Value::String(payload) => prop_assert_eq!(got.as_ref(), Ok(payload)),
                _ => prop_assert_eq!(got.map_err(|(status, _)| status), Err(422)),
            },
            Err(_) if got.is_ok() => prop_assert!(
                body.contains("NaN") || body.contains("\\ud8") || body.starts_with('\u{feff}'),
                "accepted: {}", body
            ),
            Err(_) => {}
        }
    }

    #[test]
    fn the_short_way_finds_what_the_long_way_finds(body in soup()) {
        if let Some(range) = plain_payload(body.as_bytes()) {
            prop_assert_eq!(scan_body(&body), Ok(Ok(range)));
        }
    }
}
