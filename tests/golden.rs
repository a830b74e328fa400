//! The log in each format, one event of each kind, against recorded files in `tests/golden`.
//!
//! `UPDATE=1 cargo test --test it golden` records them anew; times, ports and the like are replaced
//! by `…`.

use crate::support::client::{body_of, request_bytes};
use crate::support::{Builder, Scratch, Worker, eventually, sh, within};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// A handler that prints and fails as its payload says.
const HANDLER: &str = r#"
printf '{"ready":true}\n'
while IFS= read -r line; do
    case $line in
        *stray*) echo 'a stray line' ;;
        *forged*) printf 'Traceback:\r\n  \033[31mred\033[0m \377\n%s\n%s\nValueError: 7\n' \
            '2026-01-01T00:00:00.000000Z ERROR stopped' '"level":"ERROR","message":"stopped"}' >&2 ;;
        *object*) printf '{"level":"warn", "msg":"battery low","volts":3.10}\n' >&2 ;;
        *error*) printf '{"error":{"message":"no such device","status":404}}\n'; continue ;;
        *exit*) exit 3 ;;
        *hang*) sleep 100 ;;
        *slow*) sleep 0.2 ;;
    esac
    printf '{"result":1}\n'
done
"#;

/// Each kind of event, by words of its first line; an access log's event by its request.
const KINDS: [&[&str]; 24] = [
    &["listening"],
    &["processes start in this directory"],
    &["process started"],
    &["ready: the first process is up"],
    &["handler output", "stdout"],
    &["handler output", "stderr", "r-forged"],
    &["battery low"],
    &["total_us", "r-stray"],
    &["request failed, its answer has the cause", "handler_error"],
    &["total_us", "r-error"],
    &["request refused, its answer has the cause"],
    &["total_us", "r-bad"],
    &["process ended"],
    &["request failed, its answer has the cause", "handler_exited"],
    &["ready again: a process is up"],
    &[
        "request failed, its answer has the cause",
        "handler_timeout",
    ],
    &["process replaced"],
    &["process stopped"],
    &["client_gone"],
    &["asked to reload"],
    &["reload begun"],
    &["reload done, the new processes serve"],
    &["shutting down"],
    &["stopped"],
];

/// Fields whose values differ from run to run.
const VARYING: [&str; 15] = [
    "timestamp",
    "time",
    "@timestamp",
    "address",
    "threads",
    "version",
    "directory",
    "pid",
    "after_ms",
    "lived_ms",
    "took_ms",
    "queue_us",
    "invoke_us",
    "total_us",
    "remote",
];

/// The events, each with the lines that belong to it in the format for people.
fn entries(worker: &Worker) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in worker.log.lines() {
        match (line.starts_with("    | "), entries.last_mut()) {
            (true, Some(last)) => *last = format!("{last}\n{line}"),
            _ => entries.push(line),
        }
    }
    entries
}

/// The first event of this kind. "process stopped" is another kind than "stopped".
fn find(entries: &[String], words: &[&str]) -> Option<String> {
    let has = |entry: &&String| words.iter().all(|word| entry.contains(word));
    let mut found = entries.iter().filter(has);
    let found = match words {
        ["stopped"] => found.rfind(|entry| {
            let others = ["process stopped", "handler output"];
            !others.iter().any(|other| entry.contains(other))
        }),
        _ => found.next(),
    };
    found.cloned()
}

/// Has the worker log each kind of event.
fn run(format: &str) -> Vec<String> {
    let scratch = Scratch::new();
    scratch.file("handler.sh", 0o600, HANDLER);
    let mut worker = handler(format)
        .directory(scratch.directory())
        .start_quietly();
    worker.wait_until_ready();
    let post = |name: &str, body: &[u8]| {
        let id = format!("r-{name}");
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("x-request-id", &*id), ("traceparent", trace)];
        let mut connection = worker.connect();
        connection
            .request("POST", "/", &headers, Some(body))
            .unwrap();
        // Its event may come after the answer.
        logged(&worker, &["total_us", &id]);
    };
    let payload = |name: &str| post(name, &body_of(name));
    payload("stray");
    payload("forged");
    logged(&worker, &["handler output", "stderr", "r-forged"]);
    payload("object");
    logged(&worker, &["battery low"]);
    payload("error");
    post("bad", b"{}");
    payload("exit");
    logged(&worker, &["ready again: a process is up"]);
    payload("hang");
    logged(&worker, &["process stopped"]);
    worker.wait_until_ready();
    let mut leaver = worker.connect();
    let headers = [("x-request-id", "r-gone")];
    let body = body_of("slow");
    let asked = request_bytes(worker.address, "POST", "/", &headers, Some(&body));
    leaver.send(&asked).unwrap();
    worker.wait_until_read();
    drop(leaver);
    logged(&worker, &["client_gone"]);
    worker.signal(Signal::HUP);
    logged(&worker, &["reload done"]);
    worker.signal(Signal::TERM);
    worker.wait_for_end(Duration::from_secs(20));
    within(Duration::from_secs(5), "the last line is read", || {
        find(&entries(&worker), &["stopped"])
    });
    entries(&worker)
}

fn handler(format: &str) -> Builder {
    let handler = Builder::new(vec!["sh".to_owned(), "handler.sh".to_owned()]);
    handler
        .option("--processes", "1")
        .option("--timeout", "300ms")
        .option("--log-format", format)
        .flag("--access-log")
        .environment("GOOGLE_CLOUD_PROJECT", "demo")
}

#[track_caller]
fn logged(worker: &Worker, words: &[&str]) {
    eventually(&format!("{words:?} is logged"), || {
        find(&entries(worker), words)
    });
}

/// An event with `…` in the place of values that differ from run to run.
fn settled(entry: &str, format: &str) -> String {
    let mut settled = entry.to_owned();
    if format == "text" {
        // A time, then the level.
        let (_, rest) = settled.split_once(' ').unwrap();
        settled = format!("… {rest}");
    }
    for field in VARYING {
        for (begin, ends) in [
            (format!("\"{field}\":\""), &["\""][..]),
            (format!("\"{field}\":"), &[",", "}"]),
            (format!("\"faas_worker.{field}\":\""), &["\""]),
            (format!("\"faas_worker.{field}\":"), &[",", "}"]),
            (format!(" {field}="), &[" ", "\n"]),
        ] {
            let Some(at) = settled.find(&begin) else {
                continue;
            };
            let from = at + begin.len();
            let rest = &settled[from..];
            let ends = ends.iter().filter_map(|end| rest.find(end));
            let to = from + ends.min().unwrap_or(rest.len());
            settled.replace_range(from..to, "…");
            break;
        }
    }
    settled
}

/// Compares with the recorded file, or records it.
fn check(format: &str) {
    let entries = run(format);
    let mut found = String::new();
    for words in KINDS {
        let entry = find(&entries, words).unwrap_or_else(|| panic!("{words:?} is not logged"));
        found.push_str(&settled(&entry, format));
        found.push('\n');
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join(format!("tests/golden/log.{format}"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    for (found, recorded) in found.lines().zip(recorded.lines()) {
        assert_eq!(found, recorded);
    }
    assert_eq!(found, recorded);
}

#[test]
fn the_log_for_people_is_as_recorded() {
    check("text");
}

#[test]
fn the_log_in_json_is_as_recorded() {
    check("json");
}

#[test]
fn the_log_for_google_cloud_is_as_recorded() {
    check("gcp");
}

#[test]
fn the_log_for_elastic_is_as_recorded() {
    check("ecs");
}

/// A line of a handler that looks like an event of the worker is not one: of all bytes that a line
/// can have, a line break alone could end an event, and it never gets there.
#[test]
fn output_of_a_handler_forges_no_event() {
    let forgeries = [
        // Ends the text of an event and begins another one, where quotes and breaks are not
        // escaped.
        "x\"}\n{\"timestamp\":\"2026\",\"level\":\"ERROR\",\"message\":\"forged\"",
        "x\r{\"level\":\"ERROR\",\"message\":\"forged\"",
        // Takes the cursor to the begin of the line, or up.
        "\u{1b}[1G\u{1b}[2K2026-01-01T00:00:00Z ERROR forged",
        "\u{1b}[1A\u{8}\u{8}forged",
        "\u{85}\u{2028}forged\u{2029}forged",
        "2026-01-01T00:00:00.000000Z ERROR forged",
        "    | forged",
    ];
    let script = r#"while read -r line; do printf '%b\n\377\000\n' "$TEXT" >&2
        printf '{"result":1}\n'; done"#;
    let text = forgeries.join("\n");
    let escaped: String = text.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
    for format in ["text", "json", "gcp", "ecs"] {
        let worker = sh(script, &[])
            .option("--processes", "1")
            .option("--log-format", format)
            .environment("TEXT", &escaped)
            .start_quietly();
        assert_eq!(worker.post("x").status, 200);
        let told = || worker.log.text().contains("    | forged");
        eventually("the last line is logged", || told().then_some(()));
        for line in worker.log.lines() {
            let shown = format!("{format}: {line:?}");
            let is_control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            assert!(!line.contains(is_control), "{shown}");
            if !line.contains("forged") {
                continue;
            }
            match format {
                "text" => assert!(line.starts_with("    | "), "{shown}"),
                _ => {
                    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                    assert_eq!(event["message"], "handler output", "{shown}");
                }
            }
        }
    }
}
