//! Lines: broken replies of processes, and payloads that try to smuggle in a line.

use crate::support::client::{body_of, request_bytes};
use crate::support::{
    Builder, Ledger, Response, Worker, assert_error, assert_result, assert_within, interpreter,
    misbehave, processes, rust_example, sh,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BOTH: [&str; 2] = ["always", "never"];

/// One process that comes up at once, with ids or without.
fn single(ids: &str) -> Worker {
    let worker = misbehave(&["--ready", "--ids", ids])
        .option("--processes", "1")
        .option("--timeout", "3s")
        .start();
    worker.wait_until_ready();
    worker
}

/// Fails unless the process that has misbehaved is replaced by another.
#[track_caller]
fn assert_replaced(worker: &Worker, pid: u32) {
    processes::wait_until_gone(&[pid]);
    assert_ne!(worker.process(), pid);
}

/// Fails unless the message tells of the line break that a reply did not have.
#[track_caller]
fn assert_names_line_break(detail: &str) {
    assert!(
        detail.contains("newline") || detail.contains("line break"),
        "{detail}"
    );
}

/// An answer for a broken protocol: no handler's words in it.
#[track_caller]
fn assert_protocol(response: &Response) {
    assert_error(response, 502, "handler_protocol", "maybe");
}

/// C1.
#[test]
fn a_reply_in_single_bytes_is_a_reply() {
    for ids in BOTH {
        let worker = single(ids);
        let payload = format!("byte-by-byte {}", "long ".repeat(40));
        for _ in 0..3 {
            assert_result(&worker.post(&payload), payload.clone());
        }
    }
}

/// C1.
#[test]
fn many_replies_in_one_write_are_as_many_replies() {
    // Collects eight requests and answers all in one write, the last first.
    let Some(python) = interpreter("python3") else {
        return;
    };
    let script = r#"
import json, sys
print('{"ready":true,"concurrency":8}', flush=True)
while True:
    lines = [json.loads(sys.stdin.readline()) for _ in range(8)]
    text = "".join(json.dumps({"id": r["id"], "result": r["payload"]}) + "\n" for r in lines[::-1])
    sys.stdout.write(text)
    sys.stdout.flush()
"#;
    let worker = Builder::new(vec![python, "-c".to_owned(), script.to_owned()])
        .option("--processes", "1")
        .flag("--wait-ready")
        .start();
    worker.wait_until_ready();
    for round in 0..10 {
        let waiting: Vec<_> = (0..8)
            .map(|number| {
                let payload = format!("{round}-{number}");
                (payload.clone(), worker.post_aside(&payload))
            })
            .collect();
        for (payload, waiting) in waiting {
            assert_result(&waiting.join().unwrap(), payload);
        }
    }
}

/// C2.
#[test]
fn half_a_line_and_then_silence_times_out() {
    for ids in BOTH {
        let worker = single(ids);
        let pid = worker.process();
        let response = worker.post("partial");
        assert_error(&response, 504, "handler_timeout", "maybe");
        assert_names_line_break(&response.detail());
        assert_replaced(&worker, pid);
    }
}

/// C2: half a line after the reply puts the process in doubt, not the reply.
#[test]
fn half_a_line_after_a_reply_costs_the_process() {
    for ids in BOTH {
        let worker = single(ids);
        let pid = worker.process();
        assert_result(&worker.post("partial-after"), "partial-after");
        assert_result(&worker.post("own"), "own");
        if ids == "never" {
            assert_replaced(&worker, pid);
        }
    }
}

/// C3.
#[test]
fn results_up_to_the_limit_pass_and_larger_ones_do_not() {
    let limit = 65536;
    let worker = misbehave(&["--ready"])
        .option("--max-reply", "64KiB")
        .start();
    for digits in [limit - 1, limit] {
        let response = worker.post(&format!("digits {digits}"));
        assert_eq!(response.status, 200, "{digits}: {}", response.text());
        assert_eq!(response.body.len(), digits + r#"{"result":}"#.len());
    }
    let response = worker.post(&format!("digits {}", limit + 1));
    assert_error(&response, 502, "reply_too_large", "maybe");
    assert_result(&worker.post("next"), "next");
}

/// C3.
#[test]
fn an_endless_line_is_cut_off_and_memory_stays_bounded() {
    let worker = misbehave(&["--ready"])
        .option("--max-reply", "64KiB")
        .option("--timeout", "10s")
        .start();
    worker.wait_until_ready();
    let before = processes::peak_memory_kib(worker.pid());
    for _ in 0..3 {
        let start = Instant::now();
        assert_error(&worker.post("endless"), 502, "reply_too_large", "maybe");
        assert_within(Duration::from_secs(9), start);
    }
    let grown = processes::peak_memory_kib(worker.pid()) - before;
    assert!(grown < 8 * 1024, "{grown} KiB more");
    assert_result(&worker.post("next"), "next");
}

/// C4.
#[test]
fn invalid_bytes_in_a_reply_are_a_broken_protocol() {
    let worker = single("always");
    let pid = worker.process();
    assert_protocol(&worker.post("invalid-utf8"));
    assert_result(&worker.post("next"), "next");
    assert_replaced(&worker, pid);
    // A raw NUL is no JSON: a stray line, or a broken reply; never an answer.
    let response = worker.post("nul");
    assert!([502, 504].contains(&response.status), "{}", response.text());
}

/// C4.
#[test]
fn one_byte_order_mark_and_one_carriage_return_are_forgiven() {
    for ids in BOTH {
        let worker = single(ids);
        let pid = worker.process();
        assert_result(&worker.post("bom"), "bom");
        let id = if ids == "always" { r#""id":$ID,"# } else { "" };
        assert_result(&worker.post(&format!("raw {{{id}\"result\":1}}\r")), 1);
        assert_eq!(worker.process(), pid, "no reason to replace it");
    }
}

/// C5: the difference between a stray line and an answer.
#[test]
fn only_a_reply_answers() {
    let worker = single("always");
    let pid = worker.process();
    for stray in [
        "not JSON at all",
        "{not JSON",
        "{}",
        r#"{"level":"info","message":"hello"}"#,
        r#"{"ready":true}"#,
        r#"{"ready":true,"concurrency":50}"#,
        "[1,2]",
        "null",
        "17",
        "",
        "   ",
        r#""{\"id\":$ID,\"result\":1}""#,
        r#"[{"id":$ID,"result":1}]"#,
    ] {
        let payload = format!("raw-answer {stray}");
        assert_result(&worker.post(&payload), payload);
    }
    let answer = |text: &str| worker.post(&format!("raw {text}"));
    assert_result(&answer(r#"{"id":$ID,"result":1,"error":null}"#), 1);
    assert_result(&answer(r#"{"error":null,"result":[],"id":$ID}"#), json!([]));
    assert_result(&answer(r#"{"id":$ID,"result":null}"#), Value::Null);
    assert_result(
        &answer(r#"{ "id" : $ID , "more" : [1] , "result" : 2 } "#),
        2,
    );
    let both = answer(r#"{"id":$ID,"result":1,"error":"wins"}"#);
    assert_error(&both, 400, "handler_error", "yes");
    assert_eq!(both.detail(), "wins");
    assert_eq!(worker.process(), pid, "no reason to replace it");
}

/// C5.
#[test]
fn an_id_with_neither_result_nor_error_is_answered_with_a_hint() {
    let worker = single("always");
    let start = Instant::now();
    let response = worker.post(r#"raw {"id":$ID}"#);
    assert_protocol(&response);
    assert!(
        start.elapsed() < Duration::from_millis(2900),
        "at once, not at the timeout"
    );
    assert!(
        response.detail().contains("undefined"),
        "{}",
        response.detail()
    );
    assert_result(&worker.post("next"), "next");
}

/// C5.
#[test]
fn an_error_of_another_shape_is_a_broken_protocol() {
    let worker = single("always");
    for shape in [
        "17",
        "true",
        "[]",
        "{}",
        r#"{"message":17}"#,
        r#"{"status":404}"#,
    ] {
        assert_protocol(&worker.post(&format!(r#"raw {{"id":$ID,"error":{shape}}}"#)));
    }
    assert_result(&worker.post("next"), "next");
}

/// C6.
#[test]
fn print_debugging_is_logged_and_never_an_answer() {
    for ids in BOTH {
        let worker = misbehave(&["--banner", "Welcome to my handler", "--ids", ids])
            .option("--processes", "1")
            .start();
        assert_result(
            &worker.post("raw-answer debugging before"),
            "raw-answer debugging before",
        );
        assert_result(
            &worker.post("answer-raw debugging after"),
            "answer-raw debugging after",
        );
        let three = "raw-answer one\ntwo {\nthree";
        assert_result(&worker.post(three), three);
        assert_result(
            &worker.post("stderr-answer to stderr"),
            "stderr-answer to stderr",
        );
        for text in [
            "Welcome to my handler",
            "debugging before",
            "debugging after",
            "one",
            "two {",
            "three",
            "to stderr",
        ] {
            worker.log.wait_for(&[text]);
        }
    }
}

/// C6: Python's `print(x, end="")` puts its text on the line of the reply.
#[test]
fn debugging_glued_to_the_reply_is_told_in_the_504() {
    for ids in BOTH {
        let worker = single(ids);
        let id = if ids == "always" { r#""id":$ID,"# } else { "" };
        let response = worker.post(&format!("raw value is 5{{{id}\"result\":1}}"));
        assert_error(&response, 504, "handler_timeout", "maybe");
        let detail = response.detail();
        assert_names_line_break(&detail);
        assert!(
            detail.contains("value is 5"),
            "names what was seen: {detail}"
        );
        assert_result(&worker.post("next"), "next");
    }
}

/// C7: as many bytes as `FAAS_TEST_FLOOD` says (1073741824 for a gibibyte), else a part of that.
#[test]
fn a_flood_is_drained_and_the_reply_still_arrives() {
    let bytes = std::env::var("FAAS_TEST_FLOOD").unwrap_or_else(|_| "16000000".to_owned());
    let worker = misbehave(&["--ready"]).option("--timeout", "5m").start();
    worker.wait_until_ready();
    let before = processes::peak_memory_kib(worker.pid());
    for payload in [format!("flood {bytes}"), format!("flood-stderr {bytes}")] {
        let begun = Instant::now();
        let mut connection = worker.connect();
        let patience = Some(Duration::from_secs(300));
        connection.stream.set_read_timeout(patience).unwrap();
        let response = connection.post(&payload).unwrap();
        eprintln!("{payload}: {:?}", begun.elapsed());
        assert_result(&response, payload);
    }
    let grown = processes::peak_memory_kib(worker.pid()) - before;
    assert!(grown < 32 * 1024, "{grown} KiB more");
    let logged: usize = worker.log.lines().iter().map(String::len).sum();
    assert!(logged < 8_000_000, "the log is limited: {logged} bytes");
}

/// C8.
#[test]
fn a_second_reply_is_never_an_answer() {
    for ids in BOTH {
        for payload in ["twice", "twice-later 30"] {
            let worker = single(ids);
            let pid = worker.process();
            assert_result(&worker.post(payload), payload);
            assert_replaced(&worker, pid);
            for round in 0..3 {
                assert_result(
                    &worker.post(&format!("own {round}")),
                    format!("own {round}"),
                );
            }
        }
    }
}

/// C8: promised only with ids, which tell a second reply from the reply to the next request.
#[test]
fn a_second_reply_after_the_next_request_was_written_is_never_an_answer() {
    for payload in ["own", "sleep 50"] {
        let worker = single("always");
        let pid = worker.process();
        assert_result(&worker.post("twice-next"), "twice-next");
        let response = worker.post(payload);
        if response.status == 200 {
            assert_result(&response, payload);
        } else {
            assert_protocol(&response);
        }
        assert_replaced(&worker, pid);
    }
}

/// C9.
#[test]
fn a_reply_that_nobody_asked_for_costs_the_process() {
    for ids in BOTH {
        let worker = single(ids);
        let pid = worker.process();
        assert_result(&worker.post("unasked"), "unasked");
        assert_replaced(&worker, pid);
        assert_result(&worker.post("own"), "own");
    }
}

/// C10.
#[test]
fn a_reply_with_another_id_answers_nobody() {
    for (payload, warm) in [
        ("wrong-id", true),
        ("wrong-id", false),
        ("stale-id", true),
        ("next-id", true),
        (r#"raw {"id":"$ID","result":"wrong"}"#, true),
        (r#"raw {"id":"$ID","result":"wrong"}"#, false),
        (r#"raw {"id":$ID.0,"result":"wrong"}"#, true),
        (r#"raw {"id":-$ID,"result":"wrong"}"#, true),
        (r#"raw {"id":null,"result":"wrong"}"#, true),
        (r#"raw {"id":18446744073709551617,"result":"wrong"}"#, true),
        // Ids once, ids always.
        (r#"raw {"result":"wrong"}"#, true),
    ] {
        let worker = single("always");
        if warm {
            assert_result(&worker.post("warm"), "warm");
        }
        let pid = worker.wait_for_processes(1)[0];
        let response = worker.post(payload);
        if payload == "stale-id" {
            // Its own reply might still come.
            assert_error(&response, 504, "handler_timeout", "maybe");
        } else {
            assert_protocol(&response);
        }
        for round in 0..3 {
            assert_result(
                &worker.post(&format!("own {round}")),
                format!("own {round}"),
            );
        }
        assert_replaced(&worker, pid);
    }
}

/// C10: the first reply has an id, the second has not.
#[test]
fn ids_once_means_ids_always() {
    let worker = misbehave(&["--ready", "--ids", "sometimes"])
        .option("--processes", "1")
        .option("--timeout", "1s")
        .start();
    for round in 0..4 {
        let payload = format!("own {round}");
        let response = worker.post(&payload);
        if round % 2 == 0 {
            assert_result(&response, payload);
        } else {
            assert_protocol(&response);
        }
    }
}

/// C10: with several at once, a wrong id costs its own request at most.
#[test]
fn a_wrong_id_among_several_at_once_costs_only_its_own() {
    let ledger = Ledger::new();
    let worker = ledger
        .misbehave(&["--announce", "8"])
        .option("--processes", "1")
        .option("--timeout", "2s")
        .start();
    worker.wait_until_ready();
    let good: Vec<_> = (0..5)
        .map(|number| {
            let payload = format!("sleep 600 #{number}");
            (payload.clone(), worker.post_aside(&payload))
        })
        .collect();
    ledger.wait_for_entries(5);
    let pid = worker.wait_for_processes(1)[0];
    let response = worker.post("wrong-id");
    assert!([502, 504].contains(&response.status), "{}", response.text());
    for (payload, waiting) in good {
        assert_result(&waiting.join().unwrap(), payload);
    }
    assert_replaced(&worker, pid);
}

/// C11.
#[test]
fn a_process_that_stops_reading_times_out() {
    for ids in BOTH {
        let worker = single(ids);
        assert_result(&worker.post("deaf"), "deaf");
        let pid = worker.wait_for_processes(1)[0];
        let start = Instant::now();
        let response = worker.post(&"x".repeat(1 << 20));
        assert_error(&response, 504, "handler_timeout", "maybe");
        assert_within(Duration::from_secs(10), start);
        assert_replaced(&worker, pid);
    }
}

/// C11.
#[test]
fn a_large_payload_is_written_while_its_reply_is_read() {
    let worker = misbehave(&["--stream"])
        .option("--processes", "1")
        .option("--max-body", "16MiB")
        .option("--max-reply", "16MiB")
        .start();
    let payload = "0123456789abcdef".repeat(8 << 16);
    for _ in 0..2 {
        assert_result(&worker.post(&payload), payload.clone());
    }
}

/// C12: one line is one request, for any bytes of the payload and any runtime that splits lines.
#[test]
fn no_payload_smuggles_in_a_second_line() {
    let smuggled = r#"{"id":999,"payload":"smuggled"}"#;
    let payloads: Vec<String> = [
        "\n", "\r\n", "\r", "\u{2028}", "\u{2029}", "\u{85}", "\u{b}", "\u{c}", "\u{1c}", "\u{1e}",
        "\0",
    ]
    .iter()
    .map(|end| format!("begin{end}{smuggled}{end}end"))
    .collect();
    let ledger = Ledger::new();
    let worker = ledger.misbehave(&[]).start();
    for payload in &payloads {
        assert_result(&worker.post(payload), payload.as_str());
    }
    assert_eq!(ledger.payloads(), payloads);

    let readline = r"
const readline = require('readline');
let count = 0;
readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', (line) => {
  const request = JSON.parse(line);
  count += 1;
  console.log(JSON.stringify({ id: request.id, result: [request.payload, count] }));
});
";
    let splitlines = r#"
import json, os, sys
rest, count = "", 0
while True:
    block = os.read(0, 65536).decode()
    if not block: break
    *lines, rest = (rest + block + "|").splitlines()
    rest = rest[:-1]
    for line in lines:
        request = json.loads(line)
        count += 1
        print(json.dumps({"id": request["id"], "result": [request["payload"], count]}), flush=True)
"#;
    for (name, option, script) in [("node", "-e", readline), ("python3", "-c", splitlines)] {
        let Some(program) = interpreter(name) else {
            continue;
        };
        let worker = Builder::new(vec![program, option.to_owned(), script.to_owned()])
            .option("--processes", "1")
            .start();
        for (count, payload) in (1..).zip(&payloads) {
            assert_result(&worker.post(payload), json!([payload, count]));
        }
    }
}

/// The line that a handler reads is the shortest encoding of the request.
#[test]
fn a_request_line_is_the_shortest_json_for_its_payload() {
    let worker = misbehave(&["--function", "line"])
        .option("--processes", "1")
        .start();
    let mut connection = worker.connect();
    for (sent, expected) in [
        (r#""abc""#, r#""abc""#),
        (r#""\u0061\/\u00e9\ud83d\ude00""#, r#""a/é😀""#),
        (r#""é中😀""#, r#""é中😀""#),
        (r#""\u0022\u005c""#, r#""\"\\""#),
        (r#""\u000a\u000d\u0009\u0008\u000c""#, r#""\n\r\t\b\f""#),
        (r#""\u0000\u001F\u007f""#, "\"\\u0000\\u001f\u{7f}\""),
        ("\"\u{2028}\u{2029}\u{85}\"", r#""\u2028\u2029\u0085""#),
        (r#""\u2028\u2029\u0085""#, r#""\u2028\u2029\u0085""#),
    ] {
        let body = format!("{{\"payload\":{sent}}}");
        let response = connection
            .request("POST", "/", &[], Some(body.as_bytes()))
            .unwrap();
        assert_eq!(response.status, 200, "{sent}: {}", response.text());
        let line = response.json()["result"].as_str().unwrap().to_owned();
        let seen = line.split_once(r#","payload":"#).unwrap().1;
        assert_eq!(
            seen.to_lowercase(),
            format!("{expected}}}\n").to_lowercase()
        );
        assert!(line.starts_with(r#"{"id":"#), "{line}");
    }
}

/// A shell handler cuts a request line by its texts: their order and spacing are promised.
#[test]
fn a_request_line_has_the_promised_text() {
    // The line comes back as the result, byte for byte.
    let script = r#"
printf '{"ready":true%s}\n' "$1"
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    printf '{"id":%s,"result":%s}\n' "$id" "$line"
done"#;
    let all = r#","context":["tracestate","traceparent","request_id","timeout_ms","headers"]"#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("X-Tenant", "a \"b\""),
        ("x-request-id", "c0ffee-1"),
        ("traceparent", trace),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ];
    let members = format!(
        r#","headers":{{"x-tenant":"a \"b\""}},"timeout_ms":N,"request_id":"c0ffee-1","traceparent":"{trace}","tracestate":"a=1,b=2""#
    );
    let without_digits = |text: &str| {
        let (before, rest) = text.split_once(r#""timeout_ms":"#)?;
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        Some(format!(r#"{before}"timeout_ms":N{rest}"#))
    };
    for (context, members) in [("", ""), (all, &members)] {
        let worker = sh(script, &[context])
            .option("--pass-header", "x-tenant")
            .start();
        worker.wait_until_ready();
        let mut connection = worker.connect();
        let body = body_of("dev-1, 42");
        let response = connection
            .request("POST", "/", &headers, Some(&body))
            .unwrap();
        let text = response.text();
        let rest = text.strip_prefix(r#"{"result":{"id":"#).expect(&text);
        let (id, rest) = rest.split_once(',').unwrap();
        let id: u64 = id.parse().expect(&text);
        assert!((1..1 << 53).contains(&id), "{id}");
        let expected = format!(r#""payload":"dev-1, 42"{members}}}}}"#);
        let rest = without_digits(rest).unwrap_or_else(|| rest.to_owned());
        assert_eq!(rest, expected);
    }
}

/// C13.
#[test]
fn every_code_point_comes_back() {
    let worker = Builder::new(vec![rust_example("echo")]).start();
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    let mut connection = worker.connect();
    for (number, chunk) in all.chunks(8192).enumerate() {
        let text: String = chunk.iter().collect();
        assert_result(&connection.post(&text).unwrap(), text.as_str());
        // And with all of it as escapes, for some.
        if number % 8 == 0 {
            let mut body = "{\"payload\":\"".to_owned();
            for unit in text.encode_utf16() {
                body += &format!("\\u{unit:04x}");
            }
            body += "\"}";
            let response = connection
                .request("POST", "/", &[], Some(body.as_bytes()))
                .unwrap();
            assert_result(&response, text);
        }
    }
}

/// C13.
#[test]
fn lone_surrogates_are_refused() {
    let worker = misbehave(&[]).start();
    let mut connection = worker.connect();
    for text in [
        r"\ud800",
        r"\udc00",
        r"a\udfffb",
        r"\ud83dx",
        r"\ud83d\u0041",
        r"\ude00\ud83d",
    ] {
        let body = format!("{{\"payload\":\"{text}\"}}");
        let response = connection
            .request("POST", "/", &[], Some(body.as_bytes()))
            .unwrap();
        assert_error(&response, 422, "invalid_request", "no");
        assert_eq!(
            response.json()["detail"][0]["type"],
            "string_unicode",
            "{text}"
        );
        assert_eq!(
            response.json()["detail"][0]["loc"],
            json!(["body", "payload"])
        );
    }
    let body = br#"{"payload":"\u0000"}"#;
    let response = connection.request("POST", "/", &[], Some(body)).unwrap();
    assert_result(&response, "\0");
}

/// C14, C15: the body of an answer is one JSON value, for any output of a process.
#[test]
fn no_reply_breaks_out_of_the_body() {
    let mut worker = single("always");
    for text in [
        r#"{"id":$ID,"result":1},"x":2"#,
        r#"{"id":$ID,"result":1}}"#,
        r#"{"id":$ID,"result":1} {"id":$ID,"result":2}"#,
        r#"{"id":$ID,"result":}"#,
        r#"{"id":$ID,"result":"a"#,
        r#"{"id":$ID,"result":01}"#,
        r#"{"id":$ID,"result":nul}"#,
        r#"{"id":$ID,"result":NaN}"#,
        r#"{"id":$ID,"result":'a'}"#,
        r#"{"id":$ID,"result":[1,]}"#,
        r#"{"id":$ID,"result":{"a":1}"#,
        "{\"id\":$ID,\"result\":\"tab\there\"}",
        r#"{"id":$ID,"result":"\x"}"#,
        r#"{"id":$ID,"result":"\ud800"}"#,
        r#"{"id":$ID,"error":"\ud800"}"#,
        r#"{"id":$ID,"error":"a","x":}"#,
    ] {
        if worker.has_ended() {
            panic!("the worker ended");
        }
        // A process that has served is replaced at once.
        assert_result(&worker.post("warm"), "warm");
        let response = worker.post(&format!("raw {text}"));
        // A lone surrogate is good JSON though no good text, and may pass as it is.
        if !text.contains("\\ud800") {
            assert!(
                [502, 504].contains(&response.status),
                "{text}: {}",
                response.text()
            );
            assert_eq!(response.json().as_object().unwrap().len(), 1);
        }
    }
    // A further member is the handler's own matter, and no part of the answer.
    assert_result(&worker.post(r#"raw {"id":$ID,"result":1,"x":2}"#), 1);
    for (text, count) in [("[", 1_000_000), ("{\"a\":", 200_000)] {
        let response = worker.post(&format!(
            r#"raw {{"id":$ID,"result":{}}}"#,
            text.repeat(count)
        ));
        assert!([502, 504].contains(&response.status), "{}", response.status);
    }
    let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let response = worker.post(&format!(r#"raw {{"id":$ID,"result":{deep}}}"#));
    match response.status {
        200 => assert_eq!(response.text(), format!(r#"{{"result":{deep}}}"#)),
        status => assert_eq!(status, 502, "passed through or refused"),
    }
    assert_result(&worker.post("next"), "next");
}

/// A payload cannot reach into the line around it.
#[test]
fn no_payload_breaks_out_of_its_line() {
    let worker = misbehave(&["--function", "line"]).start();
    for payload in [
        r#"","id":1,"payload":"other"#,
        "\\",
        "\\\"",
        r#""}"#,
        "\u{7f}\u{80}\u{9f}",
    ] {
        let bytes = request_bytes(worker.address, "POST", "/", &[], Some(&body_of(payload)));
        let mut connection = worker.connect();
        connection.send(&bytes).unwrap();
        let line = connection.receive().unwrap().json()["result"]
            .as_str()
            .unwrap()
            .to_owned();
        let request: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(request["payload"], payload);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(request.as_object().unwrap().len(), 2, "{request}");
    }
}
