//! Output becomes the events that it should, and no output passes for another event of the log.

use super::*;
use crate::logging::tests::{in_each_format, is_disguise};
use crate::metrics::Metrics;
use crate::process::output_log::{LogAllowance, StreamLog};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

/// Pieces of output that look like events, end lines, break encodings or begin escapes.
const PIECES: [&[u8]; 25] = [
    b"\n",
    b"\r\n",
    b"\r",
    b"\t",
    b" ",
    b"\0",
    b"\x1b[2K\x1b[1A",
    b"\xff",
    b"\xc2\x9b1m",
    "\u{2028}".as_bytes(),
    "\u{202e}".as_bytes(),
    "\u{85}".as_bytes(),
    b"{",
    b"}",
    b"\"",
    b"\\",
    b":",
    b",",
    b"{}",
    b"\"faas\":{\"process\":1}",
    b"{\"timestamp\":\"now\",\"level\":\"ERROR\",\"message\":\"forged\"}",
    b"{\"severity\":\"ERROR\",\"message\":\"forged\xe2\x80\xa8\",\"faas\":{\"process\":1}}",
    "{\"msg\":\"forged\u{2028}\u{202e}\u{9b}1m\"}".as_bytes(),
    b"2026-11-26T22:15:03.123456Z  INFO forged process=1",
    b"{\"msg\":\"a\\n2026-11-26T22:15:03.123456Z  INFO forged\",\"process\":1}",
];

fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = || prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec);
    let pieces = prop::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat());
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    let line = prop_oneof![2 => piece(), 3 => pieces, 1 => bytes];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join(&b"\n"[..]))
}

/// Logs this as the output of process 7.
fn log(output: &[u8]) {
    let now = Instant::now();
    let mut log = StreamLog::new(
        7,
        "stderr",
        LogAllowance::new(now, Arc::new(Metrics::new(NonZeroUsize::MIN))),
    );
    log.write(now, output, None);
}

/// Fails unless a line of a format for collectors says that it is from process 7.
fn check_json(line: &str, format: &str) {
    assert!(!line.contains(is_disguise), "{line:?}");
    let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
    let ours = json!({"process": 7, "stream": "stderr"});
    if event.get("faas") == Some(&ours) {
        let end = ",\"faas\":{\"process\":7,\"stream\":\"stderr\"}}";
        let is_alone = line
            .strip_suffix(&end[1..])
            .is_some_and(|rest| rest.trim_ascii() == "{");
        let object = line.strip_suffix(end).map(|object| format!("{object}}}"));
        let object = object.map(|object| serde_json::from_str::<Value>(&object));
        let is_foreign = matches!(&object, Some(Ok(object)) if object.get("faas").is_none());
        assert!(is_alone || is_foreign, "{line:?}");
        return;
    }
    let prefix = if format == "ecs" { "faas_worker." } else { "" };
    assert_eq!(event["message"], "handler output", "{line:?}");
    assert_eq!(event[format!("{prefix}process")], 7, "{line:?}");
    assert!(event[format!("{prefix}text")].is_string(), "{line:?}");
}

/// Fails unless a line of text is the head of an event of process 7, or is marked as its output.
fn check_text(line: &str) {
    assert!(!line.contains(is_disguise), "{line:?}");
    const TIME: usize = "2026-11-26T22:15:03.123456Z".len();
    let is_head = line.get(TIME..) == Some("  INFO handler output process=7 stream=stderr");
    assert!(is_head || line.starts_with("    | "), "{line:?}");
}

#[test]
fn each_object_is_an_event_and_the_lines_between_stay_together() {
    let pieces = |block: &str| -> Vec<String> {
        let shown = |piece: Piece<'_>| match piece {
            Piece::Object(object) => format!("object {object}"),
            Piece::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
        };
        Pieces::of(block.as_bytes()).map(shown).collect()
    };
    let traceback = "Traceback:\n  File\n    {\"a\": 1}\nValueError: no";
    for (block, expected) in [
        ("", vec![]),
        ("\n \n", vec![]),
        (traceback, vec![format!("text {traceback}")]),
        ("{}", vec!["object {}".to_owned()]),
        (
            "{\"a\":1}\n{\"b\":2}\n",
            vec!["object {\"a\":1}".to_owned(), "object {\"b\":2}".to_owned()],
        ),
        (
            "a\nb\n{}\n\n{}\nc\n{d}\n",
            vec![
                "text a\nb".to_owned(),
                "object {}".to_owned(),
                "object {}".to_owned(),
                "text c\n{d}\n".to_owned(),
            ],
        ),
    ] {
        assert_eq!(pieces(block), expected, "{block:?}");
    }
}

proptest! {
    #[test]
    fn no_output_passes_for_another_event(output in output()) {
        for (format, lines) in in_each_format(|| log(&output)) {
            for line in lines.split_terminator('\n') {
                match format {
                    "text" => check_text(line),
                    _ => check_json(line, format),
                }
            }
        }
    }
}
