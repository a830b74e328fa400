//! The example handlers in many languages (`examples/*/reading.*`): the same function, so the same
//! answers, in spite of the ways of each language with text, numbers and output.
//!
//! Where the runtime of a language is missing, its test is skipped and says so; with
//! `FAAS_TEST_LANGUAGES=all` it fails. The tests unset the locale, or set it to C: neither may
//! change an answer.

use crate::support::{
    Builder, PATIENCE, Scratch, Worker, assert_error, processes, program, within,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How a language runs its handler. In the commands, `SOURCE` stands for the path of the file,
/// `PROGRAM` for the path of the output of `compile`, and `EXAMPLE` for a program built by cargo.
pub(crate) struct Language {
    /// Below `examples`.
    file: &'static str,
    /// Succeeds where the runtime and the libraries are there.
    probe: &'static [&'static str],
    compile: Option<&'static [&'static str]>,
    run: &'static [&'static str],
    /// The `concurrency` of the ready line.
    announces: u32,
    /// Whether text can hold U+0000; where it cannot, a payload with it is refused.
    holds_nul: bool,
    /// Whether Debian has a runtime that is new enough.
    is_in_debian: bool,
}

/// A handler that promises order, in a language that has nothing to compile.
const PLAIN: Language = Language {
    file: "",
    probe: &[],
    compile: None,
    run: &[],
    announces: 1,
    holds_nul: true,
    is_in_debian: true,
};

/// Lists the languages, and makes a test for each one.
macro_rules! languages {
    ($($name:ident: $language:expr,)+) => {
        pub(crate) const LANGUAGES: &[(&str, Language)] = &[$((stringify!($name), $language)),+];
        $(mod $name {
            #[test]
            fn decodes_readings_under_any_locale_until_it_is_told_to_end() {
                super::check(stringify!($name));
            }
        })+
    };
}

languages! {
    awk: Language {
        file: "awk/reading.awk",
        probe: &["gawk", "--version"],
        run: &["gawk", "-f", "SOURCE"],
        ..PLAIN
    },
    bash: Language {
        file: "shell/reading.bash",
        probe: &["bash", "--version"],
        run: &["bash", "SOURCE"],
        ..PLAIN
    },
    c: Language {
        file: "c/reading.c",
        probe: &["cc", "--version"],
        compile: Some(&["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", "PROGRAM", "SOURCE"]),
        run: &["PROGRAM"],
        ..PLAIN
    },
    go: Language {
        file: "go/reading.go",
        probe: &["go", "version"],
        compile: Some(&["go", "build", "-o", "PROGRAM", "SOURCE"]),
        run: &["PROGRAM"],
        announces: 16,
        ..PLAIN
    },
    java: Language {
        file: "java/Reading.java",
        probe: &["javap", "-cp", "/usr/share/java/gson.jar", "com.google.gson.Gson"],
        run: &["java", "-cp", "/usr/share/java/gson.jar", "SOURCE"],
        announces: 16,
        ..PLAIN
    },
    javascript: Language {
        file: "javascript/reading.js",
        probe: &["node", "--version"],
        run: &["node", "SOURCE"],
        announces: 16,
        ..PLAIN
    },
    jq: Language {
        file: "jq/reading.jq",
        probe: &["jq", "--version"],
        run: &["jq", "--unbuffered", "-ncf", "SOURCE"],
        ..PLAIN
    },
    lua: Language {
        file: "lua/reading.lua",
        probe: &["lua5.4", "-e", "require 'dkjson'"],
        run: &["lua5.4", "SOURCE"],
        ..PLAIN
    },
    perl: Language {
        file: "perl/reading.pl",
        probe: &["perl", "-MJSON::PP", "-e1"],
        run: &["perl", "SOURCE"],
        ..PLAIN
    },
    php: Language {
        file: "php/reading.php",
        probe: &["php", "--version"],
        run: &["php", "SOURCE"],
        ..PLAIN
    },
    python: Language {
        file: "python/reading.py",
        probe: &["python3", "--version"],
        run: &["python3", "SOURCE"],
        ..PLAIN
    },
    python_async: Language {
        file: "python/reading_async.py",
        probe: &["python3", "--version"],
        run: &["python3", "SOURCE"],
        announces: 64,
        ..PLAIN
    },
    r: Language {
        file: "r/reading.R",
        probe: &["Rscript", "-e", "library(jsonlite)"],
        run: &["Rscript", "SOURCE"],
        holds_nul: false,
        ..PLAIN
    },
    ruby: Language {
        file: "ruby/reading.rb",
        probe: &["ruby", "-rjson", "-e1"],
        run: &["ruby", "SOURCE"],
        ..PLAIN
    },
    rust: Language {
        file: "rust/reading.rs",
        probe: &["true"],
        run: &["EXAMPLE"],
        ..PLAIN
    },
    sh: Language {
        file: "shell/reading.sh",
        probe: &["true"],
        run: &["sh", "SOURCE"],
        ..PLAIN
    },
    typescript: Language {
        file: "typescript/reading.mts",
        probe: &["node", "--experimental-strip-types", "-e", ""],
        run: &["node", "--experimental-strip-types", "SOURCE"],
        announces: 16,
        is_in_debian: false,
        ..PLAIN
    },
}

/// Whether the runtime of the language is there. Where it is missing, the test is skipped and says
/// so.
pub(crate) fn is_there(name: &str, language: &Language) -> bool {
    let mut probe = Command::new(language.probe[0]);
    probe.args(&language.probe[1..]);
    let is_there = probe.output().is_ok_and(|output| output.status.success());
    if !is_there {
        let is_required = std::env::var("FAAS_TEST_LANGUAGES").is_ok_and(|value| value == "all");
        assert!(
            !is_required || !language.is_in_debian,
            "{name} is required by FAAS_TEST_LANGUAGES=all, and this fails: {probe:?}"
        );
        eprintln!("skipped: {name}, because this fails: {probe:?}");
    }
    is_there
}

fn check(name: &str) {
    let (_, language) = LANGUAGES.iter().find(|(known, _)| *known == name).unwrap();
    if !is_there(name, language) {
        return;
    }
    let scratch = Scratch::new();
    let words = |template: &[&str]| -> Vec<String> {
        let words = template.iter().map(|&word| match word {
            "SOURCE" => format!("{}/examples/{}", env!("CARGO_MANIFEST_DIR"), language.file),
            "PROGRAM" => scratch.path("program"),
            "EXAMPLE" => crate::support::rust_example("reading"),
            word => word.to_owned(),
        });
        words.collect()
    };
    if let Some(compile) = language.compile {
        let compile = words(compile);
        let output = Command::new(&compile[0]).args(&compile[1..]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compile:?}: {said}");
    }
    let command = words(language.run);
    assert_lines_are_answered_until_their_end(language, &command);
    assert_sigterm_ends(&command);
    assert_rules_are_kept(&command);
    assert_callers_are_answered(language, command);
}

/// The table of `docs/handlers.md` names each file of [`LANGUAGES`], with its command and the
/// concurrency that it announces, and each of these files has a test.
#[test]
fn the_table_of_languages_is_complete() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(format!("{root}/examples")).unwrap() {
        let folder = folder.unwrap().path();
        for file in std::fs::read_dir(&folder).into_iter().flatten() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.to_lowercase().starts_with("reading") {
                let folder = folder.file_name().unwrap().to_str().unwrap();
                files.push(format!("{folder}/{name}"));
            }
        }
    }
    files.sort();
    let mut tested: Vec<&str> = LANGUAGES.iter().map(|(_, it)| it.file).collect();
    tested.sort_unstable();
    assert_eq!(files, tested);

    let page = include_str!("../docs/handlers.md");
    for (name, language) in LANGUAGES {
        let link = format!("](../examples/{})", language.file);
        let mut rows = page.lines().filter(|line| line.contains(&link));
        let row = rows
            .next()
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[4], language.announces.to_string(), "{row}");
        let file = language.file.rsplit('/').next().unwrap();
        let words = language.run.iter().map(|&word| match word {
            "SOURCE" => file,
            "PROGRAM" => "./reading",
            "EXAMPLE" => "target/release/reading",
            word => word,
        });
        let command = words.collect::<Vec<_>>().join(" ");
        assert!(cells[3].starts_with(&format!("`{command}`")), "{row}");
    }
}

// ---- Payloads -----------------------------------------------------------------------------------

const READINGS: [(&str, f64, u64); 6] = [
    ("dev-1,42.5,1678886400", 42.5, 1_678_886_400),
    ("dev-1,-0.05,0", -0.05, 0),
    (" ,7,1", 7.0, 1),
    ("*,0,999999999999999", 0.0, 999_999_999_999_999),
    ("\"}\\u0041\\,-0.0,1", 0.0, 1),
    ("dev 1,999999999999999,1", 999_999_999_999_999.0, 1),
];

const NO_READINGS: [&str; 32] = [
    "",
    "hello",
    "dev-1,42.5",
    ",1,1",
    "dev-1,,1",
    "dev-1,1,",
    ",,",
    "dev-1,42.5,1678886400,",
    "dev-1,42.5,1678886400,1",
    "dev-1,1,nan",
    "dev-1,nan,1",
    "dev-1,inf,1",
    "dev-1,1e3,1",
    "dev-1,0x10,1",
    "dev-1,1_0,1",
    "dev-1,007,1",
    "dev-1,1,007",
    "dev-1,+1,1",
    "dev-1,.5,1",
    "dev-1,5.,1",
    "dev-1,1.2.3,1",
    "dev-1,-,1",
    "dev-1,--1,1",
    "dev-1,1-1,1",
    "dev-1, 1,1",
    "dev-1,1,1\n",
    "dev-1,1\n,1",
    "dev-1,1,1.5",
    "dev-1,1,-1",
    "dev-1,1,1234567890123456",
    "dev-1,1234567890123456,1",
    "dev-1,\u{664}\u{662},1",
];

const REFUSAL: &str = "expected device,value,timestamp";

/// Control characters but U+0000, characters with an escape in JSON, ends of lines, and code points
/// of each plane: the first, one in the middle, and the last.
fn text_of_every_plane() -> String {
    let mut text: String = ('\u{1}'..=' ').chain('\u{7f}'..='\u{a1}').collect();
    text += "\"\\/\\n\\u0041\\\"}{\u{2027}\u{2028}\u{2029}\u{202a}\u{d7ff}\u{e000}\u{feff}";
    for plane in 0..=0x10 {
        let points = [0, 0x1234, 0xfffd, 0xfffe, 0xffff].map(|point| plane * 0x1_0000 + point);
        text.extend(
            points[usize::from(plane == 0)..]
                .iter()
                .map(|&point| char::from_u32(point).unwrap()),
        );
    }
    text
}

/// Fails unless `result` is the reading; 7 and 7.0 are the same number.
#[track_caller]
fn assert_reading(result: &Value, payload: &str, value: f64, timestamp: u64) {
    let device = payload.split(',').next();
    let mut expected = json!({"device": device, "value": value, "timestamp": timestamp});
    let mut result = result.clone();
    for reading in [&mut result, &mut expected] {
        for name in ["value", "timestamp"] {
            reading[name] = json!(reading[name].as_f64());
        }
    }
    let excerpt: String = payload.chars().take(80).collect();
    assert!(
        result == expected,
        "{excerpt:?}: {:.200}",
        result.to_string()
    );
}

// ---- Without a worker ---------------------------------------------------------------------------

/// The handler as a process of its own, under the locale C. Killed when it is dropped.
struct Handler {
    process: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Handler {
    fn start(command: &[String]) -> Handler {
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let _ = sender.send(line.expect("a line in UTF-8"));
            }
        });
        Handler {
            requests: process.stdin.take(),
            process,
            replies,
        }
    }

    #[track_caller]
    fn next(&self) -> Value {
        let line = self.replies.recv_timeout(PATIENCE).expect("one more line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:.200}"))
    }

    #[track_caller]
    fn wait_for_end(&mut self) -> ExitStatus {
        within(PATIENCE, "the handler has ended", || {
            self.process.try_wait().unwrap()
        })
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request line in the form of the worker's.
fn request_line(id: u64, payload: &str) -> String {
    let payload = serde_json::to_string(payload).unwrap();
    let escaped = ["\u{85}", "\u{2028}", "\u{2029}"];
    let payload = escaped.iter().fold(payload, |text, &separator| {
        let point = u32::from(separator.chars().next().unwrap());
        text.replace(separator, &format!("\\u{point:04x}"))
    });
    format!("{{\"id\":{id},\"payload\":{payload}}}\n")
}

/// All lines are written at once, and stdin ends behind them: none goes unanswered.
fn assert_lines_are_answered_until_their_end(language: &Language, command: &[String]) {
    let mut handler = Handler::start(command);
    let ready = json!({"ready": true, "concurrency": language.announces});
    assert_eq!(handler.next(), ready, "the first line");

    let planes = format!("{},1.5,2", text_of_every_plane());
    let mut payloads: Vec<&str> = READINGS.iter().map(|(payload, ..)| *payload).collect();
    payloads.push(&planes);
    payloads.extend(NO_READINGS);
    // From the largest id down, in large steps.
    let ids: Vec<u64> = (0..payloads.len() as u64)
        .map(|at| (1 << 53) - 1 - at * 98_765_432_109_876)
        .collect();
    let lines: String = ids
        .iter()
        .zip(&payloads)
        .map(|(&id, payload)| request_line(id, payload))
        .collect();
    let mut requests = handler.requests.take().unwrap();
    requests.write_all(lines.as_bytes()).unwrap();
    drop(requests);

    let mut replies: Vec<Value> = ids.iter().map(|_| handler.next()).collect();
    if language.announces > 1 {
        replies.sort_by_key(|reply| std::cmp::Reverse(reply["id"].as_u64()));
    }
    for ((&id, payload), reply) in ids.iter().zip(&payloads).zip(&replies) {
        assert_eq!(reply["id"].as_u64(), Some(id), "{payload:?}: {reply}");
        let known = READINGS.iter().find(|(known, ..)| known == payload);
        match known {
            Some(&(_, value, timestamp)) => {
                assert_reading(&reply["result"], payload, value, timestamp);
            }
            None if *payload == planes => assert_reading(&reply["result"], payload, 1.5, 2),
            None => assert_eq!(
                *reply,
                json!({"id": id, "error": {"message": REFUSAL, "status": 422}}),
                "{payload:?}"
            ),
        }
    }
    assert!(handler.wait_for_end().success());
    assert!(
        handler.replies.recv().is_err(),
        "a line behind the last reply"
    );
}

fn assert_sigterm_ends(command: &[String]) {
    let mut handler = Handler::start(command);
    let line = request_line(7, "dev-1,1,2");
    let requests = handler.requests.as_mut().unwrap();
    requests.write_all(line.as_bytes()).unwrap();
    handler.next();
    assert_eq!(handler.next()["id"], 7);
    processes::signal(handler.process.id(), Signal::TERM);
    handler.wait_for_end();
}

/// `faas-worker check --strict` finds nothing to mend.
fn assert_rules_are_kept(command: &[String]) {
    let output = program()
        .args(["check", "--strict", "--timeout", "20s"])
        .args([
            "--payload",
            READINGS[0].0,
            "--failing",
            NO_READINGS[1],
            "--",
        ])
        .args(command)
        .output()
        .unwrap();
    let findings = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}:\n{findings}");
}

// ---- With a worker ------------------------------------------------------------------------------

fn assert_callers_are_answered(language: &Language, command: Vec<String>) {
    let mut worker = Builder::new(command)
        .prepared_by("unset LANG LANGUAGE LC_ALL LC_CTYPE")
        .option("--grace", "20s")
        .start();
    for (payload, value, timestamp) in READINGS {
        assert_read(&worker, payload, value, timestamp);
    }
    for payload in NO_READINGS {
        assert_refused(&worker, payload, REFUSAL);
    }
    for character in ["x", "\u{1d11e}"] {
        let device = character.repeat((1 << 20) / character.len());
        assert_read(&worker, &format!("{device},1,2"), 1.0, 2);
    }
    let planes = text_of_every_plane();
    assert_read(&worker, &format!("{planes},1,2"), 1.0, 2);
    let with_nul = format!("{planes}\0{planes}\\u0000,1,2");
    match language.holds_nul {
        true => assert_read(&worker, &with_nul, 1.0, 2),
        false => {
            assert_refused(&worker, &with_nul, "U+0000 in the payload");
            assert_read(&worker, "\\u0000,1,2", 1.0, 2);
        }
    }
    assert_each_of_many_has_its_own_answer(&worker);

    worker.signal(Signal::TERM);
    assert!(worker.wait_for_end(Duration::from_secs(40)).success());
    let log = worker.log.text();
    assert!(!log.contains("\"level\":\"WARN\""), "{log}");
}

#[track_caller]
fn assert_read(worker: &Worker, payload: &str, value: f64, timestamp: u64) {
    let response = worker.post(payload);
    assert_eq!(response.status, 200, "{:.200}", response.text());
    assert_reading(&response.json()["result"], payload, value, timestamp);
}

#[track_caller]
fn assert_refused(worker: &Worker, payload: &str, detail: &str) {
    let response = worker.post(payload);
    assert_error(&response, 422, "handler_error", "yes");
    assert_eq!(response.detail(), detail, "{payload:.80?}");
}

fn assert_each_of_many_has_its_own_answer(worker: &Worker) {
    let mut callers = Vec::new();
    for number in 0..200 {
        let payload = format!("dev-{number},{number}.5,{}", 1_678_886_400 + number);
        let mut connection = worker.connect();
        connection.send_payload(&payload).unwrap();
        callers.push((number, payload, connection));
    }
    for (number, payload, mut connection) in callers {
        let response = connection.receive().unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        let value = f64::from(u32::try_from(number).unwrap()) + 0.5;
        assert_reading(
            &response.json()["result"],
            &payload,
            value,
            1_678_886_400 + number,
        );
    }
}
