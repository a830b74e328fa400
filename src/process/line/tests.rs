use super::*;
use crate::process::ids::IdDigits;
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn lines(max_reply: usize, reads: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    let mut framer = Framer::new(max_reply);
    let mut seen = Vec::new();
    for read in reads {
        framer.feed(read, |line| {
            seen.push(match line {
                ProcessLine::Whole(line) => (true, line.to_vec()),
                ProcessLine::TooLong(line) => (false, line.to_vec()),
            });
        });
    }
    seen
}

fn encoded(payload: &str) -> String {
    let mut line = Vec::new();
    encode_request(
        &mut line,
        &IdDigits::new(7),
        payload.as_bytes(),
        &RequestContext::default(),
    );
    String::from_utf8(line).unwrap()
}

#[test]
fn a_line_with_brace_over_the_limit_is_reported_once_and_skipped() {
    let long = format!("{{{}", "x".repeat(9000));
    let seen = lines(100, &[long.as_bytes(), b"more", b"end\nnext\n"]);
    assert_eq!(seen.len(), 2);
    assert!(!seen[0].0 && seen[0].1.len() == 4196);
    assert_eq!(seen[1], (true, b"next".to_vec()));
}

#[test]
fn a_long_line_without_brace_is_cut() {
    let long = "x".repeat(3 * MAX_STRAY_BYTES);
    let seen = lines(1 << 20, &[long.as_bytes(), b"\n{}\n"]);
    assert_eq!(seen[0], (false, vec![b'x'; MAX_STRAY_BYTES]));
    assert_eq!(seen[1], (true, b"{}".to_vec()));
}

#[test]
fn lines_mean_what_the_protocol_says() {
    let result = |id, text| Parsed::Reply(id, ReplyBody::Result(text));
    let unnamed = |text, extra| Parsed::Unnamed(ReplyBody::Result(text), extra);
    let foreign = |text| result(Id::Foreign(text), "1");
    let answer = |message, status, is_beside_result| {
        let answer = ReplyBody::Error {
            message,
            status,
            is_beside_result,
        };
        Parsed::Reply(Id::Integer(7), answer)
    };
    let error = |message, status| answer(message, status, false);
    let ready = |concurrency, context| {
        Parsed::Ready(Announcement {
            concurrency,
            context,
            complaint: None,
        })
    };
    let table = [
        (r#"{"id":7,"result":1}"#, result(Id::Integer(7), "1")),
        (
            r#"{"result":{"a":[1e400]},"id":7}"#,
            result(Id::Integer(7), r#"{"a":[1e400]}"#),
        ),
        (
            r#"{"\u0069d":7,"result":null}"#,
            result(Id::Integer(7), "null"),
        ),
        (r#"{"id":"7","result":1}"#, foreign(r#""7""#)),
        (r#"{"id":7.0,"result":1}"#, foreign("7.0")),
        (r#"{"id":-7,"result":1}"#, foreign("-7")),
        (r#"{"id":null,"result":1}"#, foreign("null")),
        (
            r#"{"result":"x"}"#,
            unnamed(r#""x""#, ExtraMembers::Nothing),
        ),
        (
            r#"{"result":1,"result":2}"#,
            unnamed("2", ExtraMembers::Nothing),
        ),
        (
            r#"{"result":1,"error":null}"#,
            unnamed("1", ExtraMembers::Nothing),
        ),
        (
            r#"{"result":1,"cost":2}"#,
            unnamed("1", ExtraMembers::Others),
        ),
        (
            r#"{"result":1,"ready":true}"#,
            unnamed("1", ExtraMembers::Others),
        ),
        (
            r#"{"result":1,"Level":2}"#,
            unnamed("1", ExtraMembers::Logger),
        ),
        (
            r#"{"@timestamp":3,"result":1}"#,
            unnamed("1", ExtraMembers::Logger),
        ),
        (r#"{"id":7,"error":"no"}"#, error(r#""no""#, None)),
        (
            r#"{"id":7,"error":"no","result":1}"#,
            answer(r#""no""#, None, true),
        ),
        (
            r#"{"id":7,"error":{"message":"no","status":404}}"#,
            error(r#""no""#, Some(404)),
        ),
        (
            r#"{"id":7,"error":{"message":"no","more":[]}}"#,
            error(r#""no""#, None),
        ),
        (r#"{"id":7}"#, Parsed::IdOnly(Id::Integer(7))),
        (r#"{"id":7,"x":1}"#, Parsed::IdOnly(Id::Integer(7))),
        (r#"{"level":"info"}"#, Parsed::Stray),
        (r#"{"result":1},"x":2"#, Parsed::Stray),
        (r#"{"result":1} {"result":2}"#, Parsed::Stray),
        (r#"{"result":01}"#, Parsed::Stray),
        (r#"{"result":"#, Parsed::Stray),
        (r#" {"result":1}"#, Parsed::Stray),
        (r#"[{"result":1}]"#, Parsed::Stray),
        ("", Parsed::Stray),
        ("loading model", Parsed::Stray),
        (
            "\u{feff}{\"result\":1}\r",
            unnamed("1", ExtraMembers::Nothing),
        ),
        (r#"{"ready":true}"#, ready(None, vec![])),
        (
            r#"{"ready":true,"concurrency":16}"#,
            ready(Some(16), vec![]),
        ),
        (
            r#"{"ready":true,"context":["headers","request_id","headers"]}"#,
            ready(None, vec![ContextMember::Headers, ContextMember::RequestId]),
        ),
        (r#"{"ready":false}"#, Parsed::Stray),
        (r#"{"ready":"true"}"#, Parsed::Stray),
    ];
    for (line, meaning) in table {
        assert_eq!(parse(line.as_bytes()), meaning, "{line}");
    }
}

/// What loggers write by default, each with an error and a result beside it.
#[test]
fn loggers_lines_are_told_from_replies() {
    let beside = r#""error":"boom","result":1}"#;
    for (logger, line) in [
        ("structlog", r#"{"event":"cache is down","#),
        ("python-json-logger", r#"{"message":"m","exc_info":"t","#),
        (
            "python-json-logger, more",
            r#"{"asctime":"a","levelname":"ERROR","#,
        ),
        ("loguru, flat", r#"{"time":"t","extra":{},"#),
        ("zap", r#"{"ts":1.5,"caller":"a.go:1","#),
        ("pino", r#"{"level":50,"time":1,"pid":1,"hostname":"h","#),
        ("bunyan", r#"{"name":"app","hostname":"h","v":0,"#),
        ("winston", r#"{"level":"error","#),
        ("logrus", r#"{"msg":"m","#),
        ("zerolog", r#"{"level":"error","#),
        ("slog", r#"{"time":"t","level":"ERROR","msg":"m","#),
        ("log15", r#"{"lvl":"eror","t":"t","#),
        ("ECS", r#"{"@timestamp":"t","log.level":"error","#),
        ("logstash", r#"{"@version":"1","logger_name":"a","#),
        ("GCP", r#"{"severity":"ERROR","#),
        ("log4j2", r#"{"instant":{},"loggerName":"a","#),
        (".NET", r#"{"EventId":0,"LogLevel":"Error","#),
        ("escaped", r#"{"\u006cevel":"error","#),
    ] {
        let line = format!("{line}{beside}");
        let parsed = parse(line.as_bytes());
        assert!(
            matches!(parsed, Parsed::Unnamed(_, ExtraMembers::Logger)),
            "{logger}: {parsed:?}"
        );
    }
}

#[test]
fn a_reply_that_is_no_json_is_told_with_the_place_of_the_error() {
    for (line, byte, cause) in [
        (r#"{"id":7,"result":NaN}"#, 17, "NaN is no JSON"),
        (
            r#"{"id":7,"result":[1,-Infinity]}"#,
            21,
            "-Infinity is no JSON",
        ),
        (r#"{"id":7,"result":Infinity}"#, 17, "Infinity is no JSON"),
        (r#"{"id":7,"result":undefined}"#, 17, "undefined is no JSON"),
        (r#"{"id":7,"result":"a"#, 18, "one line"),
        (r#"{ "id" : 7 ,"result":'a'}"#, 21, "expected value"),
        (r#"{"id":7,"result":1} x"#, 20, "trailing characters"),
    ] {
        let Parsed::Malformed(7, why) = parse(line.as_bytes()) else {
            panic!("{line}: {:?}", parse(line.as_bytes()))
        };
        let is_right = why.contains(&format!("at byte {byte}:")) && why.contains(cause);
        assert!(is_right, "{line}: {why}");
    }
    for line in [r#"{"result":NaN}"#, r#"{"id":"7","result":NaN}"#, "{id:7}"] {
        assert_eq!(parse(line.as_bytes()), Parsed::Stray, "{line}");
    }
}

#[test]
fn errors_of_another_shape_are_broken() {
    for error in [
        "1",
        "null",
        "[]",
        "{}",
        r#"{"message":1}"#,
        r#"{"message":"m","status":399}"#,
        r#"{"message":"m","status":501}"#,
        r#"{"message":"m","status":"4040"}"#,
        r#"{"message":"m","status":4040404040}"#,
    ] {
        let line = format!(r#"{{"id":7,"error":{error}}}"#);
        let parsed = parse(line.as_bytes());
        assert!(
            matches!(parsed, Parsed::Reply(Id::Integer(7), ReplyBody::Broken(_))),
            "{line}: {parsed:?}"
        );
        // Every caller is told how, so nothing of it is quoted.
        assert!(!format!("{parsed:?}").contains("4040"), "{parsed:?}");
    }
}

#[test]
fn a_reply_that_is_not_utf_8_is_broken_and_other_such_lines_are_stray() {
    let parsed = parse(b"{\"id\":7,\"result\":\"\xff\"}");
    assert_eq!(
        parsed,
        Parsed::Reply(Id::Integer(7), ReplyBody::NotUtf8(18))
    );
    assert_eq!(parse(b"{\"note\":\"\xff\"}"), Parsed::Stray);
    assert_eq!(parse(b"\xff\xfe"), Parsed::Stray);
}

#[test]
fn bad_announcements_are_complained_about_and_promise_nothing() {
    for line in [
        r#"{"ready":true,"concurrency":0}"#,
        r#"{"ready":true,"concurrency":"4"}"#,
        r#"{"ready":true,"context":"headers"}"#,
        r#"{"ready":true,"context":["cookies"]}"#,
    ] {
        let Parsed::Ready(announcement) = parse(line.as_bytes()) else {
            panic!("{line}")
        };
        assert!(announcement.complaint.is_some(), "{line}");
        assert_eq!(
            (announcement.concurrency, announcement.context.len()),
            (None, 0),
            "{line}"
        );
    }
}

#[test]
fn a_million_brackets_overflow_nothing() {
    let line = format!(
        r#"{{"result":{}{}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert!(matches!(
        parse(line.as_bytes()),
        Parsed::Unnamed(ReplyBody::Result(_), ExtraMembers::Nothing)
    ));
    assert_eq!(
        parse("{\"result\":".repeat(200_000).as_bytes()),
        Parsed::Stray
    );
}

#[test]
fn an_id_is_found_at_the_beginning_of_a_long_line() {
    assert_eq!(leading_id(br#"{"id":7,"result":"xxx"#), Some(7));
    assert_eq!(leading_id(br#"{ "id" : 70 , "result":"xxx"#), Some(70));
    assert_eq!(leading_id(br#"{"id":7"#), None);
    assert_eq!(leading_id(br#"{"id":"7","result":"#), None);
    assert_eq!(leading_id(br#"{"result":"#), None);
}

#[test]
fn requests_are_written_in_the_shortest_form() {
    let table = [
        ("plain", "plain"),
        (r"\u0041\/\u00e9", "A/é"),
        (r"\ud83d\ude00", "😀"),
        (r#"\"\\\b\f\n\r\t"#, r#"\"\\\b\f\n\r\t"#),
        (r"\u000a\u0022\u005c\u001F", r#"\n\"\\\u001f"#),
        ("x\u{2028}y\u{2029}z\u{85}w", r"x\u2028y\u2029z\u0085w"),
        (r"\u2028\u0085", r"\u2028\u0085"),
        ("é\u{a0}\u{2020}", "é\u{a0}\u{2020}"),
        ("\u{7f}", "\u{7f}"),
    ];
    for (payload, expected) in table {
        assert_eq!(
            encoded(payload),
            format!("{{\"id\":7,\"payload\":\"{expected}\"}}\n")
        );
    }
}

#[test]
fn context_members_follow_the_payload() {
    let headers = [
        ("x-a".to_owned(), "1\"\u{2028}".to_owned()),
        ("x-b".to_owned(), String::new()),
    ];
    let context = RequestContext {
        headers: Some(&headers),
        timeout_ms: Some(250),
        request_id: Some("r"),
        traceparent: None,
        tracestate: None,
    };
    let mut line = Vec::new();
    encode_request(&mut line, &IdDigits::new(0), b"p", &context);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"id\":0,\"payload\":\"p\",\"headers\":{\"x-a\":\"1\\\"\\u2028\",\"x-b\":\"\"},\
         \"timeout_ms\":250,\"request_id\":\"r\"}\n"
    );
}

/// Every character that some language's line reader takes for a line break.
const LINE_BREAKS: &[char] = &[
    '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}',
];

#[test]
fn every_code_point_survives_however_it_is_escaped() {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    for chunk in all.chunks(4096) {
        let text: String = chunk.iter().collect();
        let quoted = serde_json::to_string(&text).unwrap();
        let escaped: String = text
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect();
        for payload in [&quoted[1..quoted.len() - 1], &escaped] {
            let line = encoded(payload);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(LINE_BREAKS));
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(value["payload"], text);
        }
    }
}

proptest! {
    #[test]
    fn framing_never_depends_on_reads(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), any::<u8>()], 0..400),
        cuts in proptest::collection::vec(0usize..400, 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(lines(10, &pieces), lines(10, &[&bytes]));
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_a_result_invalid(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in r#"\{("id":[0-9"]{0,3},?)?("result":.{0,20})?\}"#,
    ) {
        for line in [bytes.as_slice(), text.as_bytes()] {
            leading_id(line);
            if let Parsed::Reply(_, ReplyBody::Result(result))
            | Parsed::Unnamed(ReplyBody::Result(result), _) = parse(line)
            {
                let body = format!("{{\"result\":{result}}}");
                prop_assert!(serde_json::from_str::<IgnoredAny>(&body).is_ok());
            }
        }
    }

    #[test]
    fn any_text_arrives_as_it_was_sent(text in ".*") {
        let quoted = serde_json::to_string(&text).unwrap();
        let line = encoded(&quoted[1..quoted.len() - 1]);
        prop_assert!(!line[..line.len() - 1].contains(LINE_BREAKS));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&value["payload"], &serde_json::Value::String(text));
    }
}
