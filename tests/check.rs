//! `faas-worker check`: each typical mistake is named, with a mend in the words of its language,
//! and good handlers keep all rules.

use crate::support::{Scratch, interpreter, program, rust_example};
use serde_json::Value;
use std::process::Output;

/// The findings of one check.
struct Report {
    status: i32,
    findings: Vec<Value>,
    totals: Value,
}

impl Report {
    #[track_caller]
    fn finding(&self, id: &str) -> &Value {
        let mut findings = self.findings.iter();
        let finding = findings.find(|finding| finding["id"] == id);
        finding.unwrap_or_else(|| panic!("{id} is not reported: {:#?}", self.findings))
    }

    /// The rule has this verdict, and its finding these words.
    #[track_caller]
    fn assert_found(&self, id: &str, verdict: &str, words: &[&str]) {
        let finding = self.finding(id);
        assert_eq!(finding["verdict"], verdict, "{finding:#}");
        let text = finding.to_string();
        for word in words {
            assert!(text.contains(word), "{word} is not in {finding:#}");
        }
    }

    /// No other rule than these is broken.
    #[track_caller]
    fn assert_broken(&self, ids: &[&str]) {
        let findings = self.findings.iter();
        let broken = findings.filter(|it| it["verdict"] == "fail" || it["verdict"] == "warn");
        let broken: Vec<&str> = broken.map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(broken, ids, "{:#?}", self.findings);
    }
}

fn output(options: &[&str], command: &[&str]) -> Output {
    program()
        .arg("check")
        .args(options)
        .arg("--")
        .args(command)
        .output()
        .unwrap()
}

fn check(options: &[&str], command: &[&str]) -> Report {
    let output = output(&[options, &["--format", "json"]].concat(), command);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut findings: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    Report {
        status: output.status.code().unwrap(),
        totals: findings.pop().unwrap_or_default(),
        findings,
    }
}

/// The check of a handler in Python, or `None` where there is no Python.
fn check_python(options: &[&str], source: &str) -> Option<Report> {
    let python = interpreter("python3")?;
    let scratch = Scratch::new();
    let file = scratch.file("handler.py", 0o644, source);
    Some(check(options, &[&python, &file]))
}

/// The loop of a handler, with the part that answers `request`.
fn answering(part: &str) -> String {
    let part = part.replace('\n', "\n    ");
    format!(
        "import json, sys\nfor line in sys.stdin:\n    request = json.loads(line)\n    \
         id, payload = request['id'], request['payload']\n    {part}\n"
    )
}

const ECHO: &str = "print(json.dumps({'id': id, 'result': payload}), flush=True)";

/// A silent handler is waited for, so its time is short.
const SILENT: &[&str] = &["--timeout", "3s", "--only", "answers"];

// ---- Good handlers ------------------------------------------------------------------------------

#[test]
fn a_good_handler_keeps_all_rules() {
    let report = check(&["--strict"], &[&rust_example("echo")]);
    assert_eq!(report.status, 0, "{:#?}", report.findings);
    report.assert_broken(&[]);
    assert_eq!(report.findings.len(), 15);
    assert_eq!(report.totals["failed"], 0);
    report.assert_found("ready", "ok", &["concurrency 1"]);
    report.assert_found("order", "ok", &["200 replies in order, each flushed"]);
    report.assert_found("unicode", "ok", &["each character came back"]);
    report.assert_found("concurrency", "skip", &[]);
}

#[test]
fn serve_py_and_the_shell_keep_all_rules() {
    let root = env!("CARGO_MANIFEST_DIR");
    if let Some(python) = interpreter("python3") {
        let scratch = Scratch::new();
        scratch.file(
            "mine.py",
            0o644,
            "def handle(payload):\n    return payload\n",
        );
        let serve = format!("{root}/examples/python/serve.py");
        let function = format!("{}/mine.py:handle", scratch.directory().display());
        let report = check(&["--strict"], &[&python, &serve, &function]);
        assert_eq!(report.status, 0, "{:#?}", report.findings);
    }
    for file in ["reading.sh", "decode_type_a.sh"] {
        let file = format!("{root}/examples/shell/{file}");
        let payload = ["--strict", "--payload", "dev-1,42.5,1678886400"];
        let report = check(&payload, &["sh", &file]);
        assert_eq!(report.status, 0, "{file}: {:#?}", report.findings);
    }
    // It repeats no id, and says so.
    let report = check(&[], &["sh", &format!("{root}/examples/shell/minimal.sh")]);
    assert_eq!(report.status, 0, "{:#?}", report.findings);
    report.assert_broken(&["ids"]);
}

#[test]
fn a_handler_that_works_on_many_at_once_is_seen_to() {
    let report = check(
        &["--strict", "--payload", "sleep 20"],
        &[&rust_example("misbehave"), "--announce", "8"],
    );
    report.assert_found("concurrency", "ok", &["8 at once"]);
    assert_eq!(report.status, 0, "{:#?}", report.findings);
}

// ---- Mistakes: no answer ------------------------------------------------------------------------

#[test]
fn a_reply_that_is_not_flushed_is_told_from_a_read_to_the_end() {
    let source = "out = open(1, 'w', closefd=False)\n".to_owned()
        + &answering("out.write(json.dumps({'id': id, 'result': payload}) + '\\n')");
    let Some(report) = check_python(SILENT, &source) else {
        return;
    };
    assert_eq!(report.status, 1);
    let words = [
        "did not flush",
        "In Python",
        "flush=True",
        "at the end of stdin",
    ];
    report.assert_found("answers", "fail", &words);

    let source = "import json, sys\nrequest = json.load(sys.stdin)\n\
                  print(json.dumps({'id': request['id'], 'result': 1}))\n";
    let report = check_python(SILENT, source).unwrap();
    let words = [
        "to the end",
        "In Python: for line in sys.stdin",
        "line by line",
    ];
    report.assert_found("answers", "fail", &words);
}

#[test]
fn a_start_that_waits_has_its_time() {
    let source = "import time\ntime.sleep(2)\nprint('{\"ready\":true}', flush=True)\n".to_owned()
        + &answering(ECHO);
    let options = ["--timeout", "1s", "--only", "answers,large,eof"];
    let Some(report) = check_python(&options, &source) else {
        return;
    };
    report.assert_broken(&[]);
    // Too slow for a check, and so no judgement about its end.
    let part = "while True: pass";
    let options = ["--timeout", "500ms", "--only", "answers,eof,children"];
    let report = check_python(&options, &answering(part)).unwrap();
    report.assert_found("answers", "fail", &["starts slowly: --timeout 30s"]);
    report.assert_found("eof", "skip", &["started in time"]);
    report.assert_found("children", "skip", &[]);
}

/// The ready line ends the start, so the process has the time for a reply alone.
#[test]
fn a_ready_process_that_reads_nothing_has_no_time_to_start() {
    let script = "echo '{\"ready\":true}'; exec sleep 1000";
    let options = ["--timeout", "1s", "--only", "answers"];
    let report = check(&options, &["sh", "-c", script]);
    let words = ["no reply within 1 s", "has not read the request"];
    report.assert_found("answers", "fail", &words);
}

/// A process for each request, because each ends behind its reply; only the rule `one-each` finds that.
#[test]
fn a_further_process_has_its_start_before_its_time() {
    let part = "answer = {'error': 'no'} if payload == 'no' else {'result': payload}\n\
                print(json.dumps({'id': id} | answer), flush=True)\nbreak";
    let source = "import time\ntime.sleep(3)\n".to_owned() + &answering(part);
    let options = ["--timeout", "1s", "--failing", "no"];
    let only = ["--only", "answers,error,eof"];
    let Some(report) = check_python(&[&options[..], &only].concat(), &source) else {
        return;
    };
    report.assert_found("error", "ok", &["no"]);
    report.assert_found("eof", "ok", &["exit status: 0"]);
}

#[test]
fn a_rule_alone_is_tried_with_the_rules_that_it_needs() {
    let report = check(
        &["--timeout", "1s", "--only", "many"],
        &["sh", "-c", "exit 3"],
    );
    report.assert_found("answers", "fail", &["exit status: 3"]);
    report.assert_found("many", "skip", &["needs an answer"]);
    let part = "print(json.dumps({'id': str(id), 'result': payload}), flush=True)";
    let Some(report) = check_python(&["--only", "many"], &answering(part)) else {
        return;
    };
    report.assert_found("many", "skip", &["needs the id"]);
}

#[test]
fn mawk_is_told_to_read_lines() {
    let mawk = "/usr/bin/mawk";
    if !std::path::Path::new(mawk).exists() {
        eprintln!("skipped: mawk is not on this machine");
        return;
    }
    let program = "{ id = $0; sub(/^[^0-9]*/, \"\", id); sub(/,.*/, \"\", id); \
                   printf \"{\\\"id\\\":%s,\\\"result\\\":1}\\n\", id; fflush() }";
    let report = check(SILENT, &[mawk, program]);
    report.assert_found(
        "answers",
        "fail",
        &["reads stdin in blocks", "-W interactive"],
    );
    let report = check(SILENT, &[mawk, "-W", "interactive", program]);
    report.assert_found("answers", "ok", &[]);
}

#[test]
fn output_without_end_is_no_buffer_of_replies() {
    let source = "import os\nwhile True: os.write(1, b'x' * 65536)\n";
    let Some(report) = check_python(&["--timeout", "1s", "--only", "answers"], source) else {
        return;
    };
    report.assert_found("answers", "fail", &[]);
    let text = report.finding("answers").to_string();
    assert!(!text.contains("flush"), "{text}");
}

#[test]
fn a_reply_without_a_newline_is_quoted() {
    let part = "sys.stdout.write(json.dumps({'id': id, 'result': payload})); sys.stdout.flush()";
    let Some(report) = check_python(SILENT, &answering(part)) else {
        return;
    };
    let words = ["no newline", "\\\"result\\\": \\\"check\\\"}", "In Python"];
    report.assert_found("answers", "fail", &words);
}

#[test]
fn replies_in_a_wrong_form_are_told_apart() {
    for (part, words) in [
        (
            "print(json.dumps({'id': id, 'result': 1}, indent=2), flush=True)",
            ["several lines", "without indent="],
        ),
        (
            "print(json.dumps({'id': id, 'error': None}), flush=True)",
            ["its error is null", "only in except"],
        ),
        (
            "print(json.dumps({'id': id, 'error': {'message': 'no', 'status': 302}}), flush=True)",
            ["got 302", "a redirect too"],
        ),
        (
            "print('{\"stage\":\"parse\",\"error\":null}\\n{\"result\":1}', flush=True)",
            ["without an id", "Print log lines to stderr"],
        ),
        (
            "print(json.dumps({'id': id, 'result': float('nan')}), flush=True)",
            ["NaN is no JSON", "allow_nan=False"],
        ),
        (
            "print(json.dumps({'answer': 1}), flush=True)",
            ["neither result nor error", "\\\"answer\\\": 1"],
        ),
        (
            "print({'id': id, 'result': payload}, flush=True)",
            ["not JSON", "json.dumps"],
        ),
        (
            "sys.stdout.buffer.write((json.dumps({'id': id, 'result': 1}) + '\\n').encode('utf-16')); sys.stdout.flush()",
            ["UTF-16", "not \\\"utf-8-sig\\\" or \\\"utf-16\\\""],
        ),
        (
            "print('answer: ' + json.dumps({'id': id, 'result': 1}), flush=True)",
            ["before the brace", "In Python"],
        ),
    ] {
        let options = ["--timeout", "3s", "--only", "answers,stray"];
        let Some(report) = check_python(&options, &answering(part)) else {
            return;
        };
        report.assert_found("answers", "fail", &words);
        // Told once: the line was meant as a reply.
        report.assert_found("stray", "skip", &[]);
        assert_eq!(report.status, 1, "{part}");
    }
}

#[test]
fn a_handler_that_dies_of_a_payload_or_at_its_start_is_quoted() {
    let part = "device, value = payload.split(',')";
    let Some(report) = check_python(&["--only", "answers"], &answering(part)) else {
        return;
    };
    let words = [
        "exit status: 1",
        "ValueError",
        "--payload TEXT",
        "except Exception",
    ];
    report.assert_found("answers", "fail", &words);
    let report = check_python(&["--only", "answers"], "import no_such_module\n").unwrap();
    let words = ["ModuleNotFoundError", "did not come as far as its loop"];
    report.assert_found("answers", "fail", &words);
}

#[test]
fn an_exception_of_node_is_quoted_and_not_its_version() {
    let Some(node) = interpreter("node") else {
        return;
    };
    let scratch = Scratch::new();
    for (source, stderr, loops) in [
        (
            "require('no-such-module')",
            "Error: Cannot find module",
            false,
        ),
        (
            "throw new RangeError('too far')",
            "RangeError: too far",
            false,
        ),
        ("throw 'no error'", "no error", false),
        (
            "require('readline').createInterface({input: process.stdin})\
             .on('line', line => line.no.such)",
            "TypeError: Cannot read",
            true,
        ),
    ] {
        let file = scratch.file("handler.js", 0o644, source);
        let report = check(&["--only", "answers"], &[&node, &file]);
        report.assert_found("answers", "fail", &[]);
        let finding = report.finding("answers");
        let seen = finding["seen"]["stderr"].as_str().unwrap();
        assert!(seen.contains(stderr), "{finding:#}");
        let cause = finding["cause"].as_str().unwrap();
        assert_eq!(cause.contains("as far as its loop"), !loops, "{finding:#}");
        let mend = finding["mend"].as_str().unwrap_or_default();
        assert_eq!(mend.contains("payload"), loops, "{finding:#}");
    }
}

#[test]
fn a_command_that_cannot_be_started_is_status_3() {
    let report = check(&[], &["/no/such/handler"]);
    assert_eq!(report.status, 3);
    report.assert_found("start", "fail", &["no such file"]);
    report.assert_found("answers", "skip", &["needs a start"]);
    assert_eq!(report.totals["skipped"], 14);
}

#[test]
fn a_pipe_is_no_command() {
    let scratch = Scratch::new();
    let report = check(&[], &[&scratch.pipe("handler")]);
    assert_eq!(report.status, 3);
    report.assert_found("start", "fail", &["not a program: a pipe"]);
}

// ---- Mistakes: ids, and how many replies --------------------------------------------------------

#[test]
fn ids_that_are_no_integers_break_a_must_and_missing_ids_a_should() {
    for (id, words) in [
        ("str(id)", ["is text", "same integer"]),
        ("[id]", ["is an array", "same integer"]),
        (
            "float(id) * 1.5e3",
            ["is a rounded number", "request[\\\"id\\\"]"],
        ),
        ("id + 1", ["is another number", "was sent"]),
    ] {
        let part = format!("print(json.dumps({{'id': {id}, 'result': 1}}), flush=True)");
        let options = ["--only", "answers,ids,many"];
        let Some(report) = check_python(&options, &answering(&part)) else {
            return;
        };
        report.assert_found("answers", "ok", &[]);
        report.assert_found("ids", "fail", &words);
        report.assert_found("many", "skip", &["needs the id"]);
        assert_eq!(report.finding("ids")["level"], "must");
        assert_eq!(report.status, 1, "{id}");
    }
    let part = "print(json.dumps({'result': payload}), flush=True)";
    let report = check_python(&["--only", "ids"], &answering(part)).unwrap();
    report.assert_found("ids", "warn", &["has no id", "silence"]);
    assert_eq!(report.status, 0);
    let report = check_python(&["--only", "ids", "--strict"], &answering(part)).unwrap();
    report.assert_found("ids", "fail", &["has no id"]);
    assert_eq!(report.status, 1);
}

#[test]
fn an_id_is_found_in_a_reply_longer_than_the_record() {
    let part = "print(json.dumps({'id': id, 'result': 'x' * 300_000}), flush=True)";
    let Some(report) = check_python(&["--only", "answers,ids,one-each"], &answering(part)) else {
        return;
    };
    report.assert_found("ids", "ok", &["repeated"]);
    report.assert_broken(&[]);
    let part = part.replace("'id': id, ", "");
    let report = check_python(&["--only", "ids"], &answering(&part)).unwrap();
    report.assert_found("ids", "skip", &["too long"]);
}

#[test]
fn two_replies_to_one_request_are_both_shown() {
    let options = ["--only", "one-each"];
    let second = "print(json.dumps({'id': id, 'result': 'second'}), flush=True)";
    let Some(report) = check_python(&options, &answering(&format!("{ECHO}\n{second}"))) else {
        return;
    };
    let words = [
        "2 replies to one request",
        "\\\"check\\\"",
        "\\\"second\\\"",
    ];
    report.assert_found("one-each", "fail", &words);
    let without = "print('{\"result\":1}', flush=True)";
    let report = check_python(&options, &answering(&format!("{without}\n{without}"))).unwrap();
    report.assert_found(
        "one-each",
        "fail",
        &["written twice", "one line for each request"],
    );
}

#[test]
fn prints_and_logs_on_stdout_are_shown() {
    let source = "print('starting up', flush=True)\n".to_owned()
        + &answering(&format!(
            "print('before', flush=True)\n{ECHO}\nprint('behind', flush=True)"
        ));
    let options = ["--only", "answers,stray"];
    let Some(report) = check_python(&options, &source) else {
        return;
    };
    let words = ["starting up", "before", "behind", "file=sys.stderr"];
    report.assert_found("stray", "warn", &words);
    assert_eq!(report.status, 0);
    let once = "print('hello', flush=True)\n".to_owned() + &answering(ECHO);
    let report = check_python(&options, &once).unwrap();
    report.assert_found(
        "stray",
        "warn",
        &["1 line on stdout", "It is logged and answers"],
    );
    let log = "print(json.dumps({'level': 'info', 'msg': 'got it'}), flush=True)";
    let report = check_python(&options, &answering(&format!("{log}\n{ECHO}"))).unwrap();
    report.assert_found(
        "stray",
        "warn",
        &["log lines in JSON", "got it", "logging.basicConfig"],
    );
}

#[test]
fn a_ready_line_behind_a_banner_counts_as_none() {
    let source = "print('hello')\nprint('{\"ready\":true,\"concurrency\":1}', flush=True)\n";
    let source = source.to_owned() + &answering(ECHO);
    let Some(report) = check_python(&["--only", "ready,order"], &source) else {
        return;
    };
    report.assert_found(
        "ready",
        "warn",
        &["behind another line", "first line on stdout"],
    );
    report.assert_found("order", "skip", &["was announced"]);
}

// ---- Mistakes: promises -------------------------------------------------------------------------

#[test]
fn a_promise_that_is_not_kept_is_shown() {
    // Answers the second of two lines first where two are there.
    let backwards = "import json, os, sys\nprint('{\"ready\":true,\"concurrency\":1}', flush=True)\n\
        rest = b''\nwhile block := os.read(0, 65536):\n    \
        *lines, rest = (rest + block).split(b'\\n')\n    \
        for line in reversed(lines):\n        \
        print(json.dumps({'id': json.loads(line)['id'], 'result': 1}), flush=True)\n";
    let Some(report) = check_python(&["--only", "order"], backwards) else {
        return;
    };
    let words = ["came before reply", "strictly in the order", "concurrency"];
    report.assert_found("order", "fail", &words);
    // Writes all replies to a block of lines at once.
    let together = backwards
        .replace("reversed(lines)", "lines")
        .replace(", flush=True)\n", ")\n");
    let together = together.replace(
        "import json",
        "sys_out = open(1, 'w', closefd=False)\nimport json",
    );
    let together =
        together.replace("'result': 1})", "'result': 1}), file=sys_out") + "    sys_out.flush()\n";
    let together = together.replace("\"concurrency\":1}')", "\"concurrency\":1}', flush=True)");
    let report = check_python(&["--only", "order"], &together).unwrap();
    report.assert_found(
        "order",
        "fail",
        &["200 replies were written in", "Flush each reply"],
    );
}

#[test]
fn a_broken_order_is_told_as_such_in_a_row_and_of_a_slow_handler() {
    let source = "print('{\"ready\":true,\"concurrency\":1}', flush=True)\n".to_owned();
    // Writes each 97th reply behind the next one.
    let mixed = "import json, sys\n".to_owned()
        + &source
        + "kept = ''\nfor number, line in enumerate(sys.stdin):\n    \
           reply = json.dumps({'id': json.loads(line)['id'], 'result': 1}) + '\\n'\n    \
           if number % 97 == 96: kept = reply; continue\n    \
           sys.stdout.write(reply + kept); sys.stdout.flush(); kept = ''\n";
    let Some(report) = check_python(&["--only", "order,many"], &mixed) else {
        return;
    };
    report.assert_found("order", "fail", &["strictly in the order"]);
    // What the process does with requests in a row is no end of it.
    let many = report.finding("many").to_string();
    assert!(!many.contains("for line in sys.stdin"), "{many}");
    let slow = "import time\n".to_owned() + &source;
    let slow = slow + &answering(&format!("time.sleep(0.02)\n{ECHO}"));
    let report = check_python(&["--only", "order"], &slow).unwrap();
    report.assert_found("order", "ok", &["200 replies in order"]);
    let mixed = mixed.replace("import json, sys", "import json, sys, time");
    let mixed = mixed.replace("    reply = ", "    time.sleep(0.005); reply = ");
    let report = check_python(&["--only", "order"], &mixed).unwrap();
    report.assert_found("order", "fail", &["strictly in the order"]);
}

#[test]
fn an_announced_concurrency_must_be_had() {
    let source = "import time\nprint('{\"ready\":true,\"concurrency\":16}', flush=True)\n"
        .to_owned()
        + &answering(&format!("time.sleep(0.02)\n{ECHO}"));
    let Some(report) = check_python(&["--only", "concurrency"], &source) else {
        return;
    };
    let words = ["announced 16, never had 2 at once", "asyncio", "One took"];
    report.assert_found("concurrency", "fail", &words);
}

// ---- Mistakes: texts and sizes ------------------------------------------------------------------

#[test]
fn a_wrong_encoding_is_found_by_its_first_character() {
    let options = ["--only", "unicode"];
    let latin = "sys.stdout.buffer.write(json.dumps({'id': id, 'result': payload}, ensure_ascii=False)\
        .encode('latin-1', 'replace') + b'\\n'); sys.stdout.flush()";
    let Some(report) = check_python(&options, &answering(latin)) else {
        return;
    };
    report.assert_found("unicode", "fail", &["UTF-8", "reconfigure"]);
    let ascii = "payload = payload.encode('ascii', 'replace').decode()\n".to_owned() + ECHO;
    let report = check_python(&options, &answering(&ascii)).unwrap();
    report.assert_found("unicode", "fail", &["U+0085 came back as U+003F"]);
    let half = "print('{\"id\":%d,\"result\":\"echo-\\\\ud800\"}' % id, flush=True)";
    let report = check_python(&options, &answering(half)).unwrap();
    report.assert_found("unicode", "fail", &["half a surrogate pair", "UTF-8"]);
    let mark = "sys.stdout.buffer.write(b'\\xef\\xbb\\xbf' + json.dumps({'id': id, 'result': payload})\
        .encode() + b'\\n'); sys.stdout.flush()";
    let report = check_python(&options, &answering(mark)).unwrap();
    report.assert_found("unicode", "warn", &["byte order mark", "utf-8-sig"]);
}

#[test]
fn a_function_that_changes_texts_is_no_wrong_encoding() {
    for change in [
        "__import__('html').escape(payload)",
        "__import__('re').sub('[^a-z0-9]+', '-', payload.lower())",
        "__import__('urllib.parse').parse.quote(payload)",
        "payload[:20]",
        "json.dumps(payload)",
        "' '.join(payload.split())",
        "__import__('unicodedata').normalize('NFKC', payload)",
    ] {
        let part = format!("print(json.dumps({{'id': id, 'result': {change}}}), flush=True)");
        let Some(report) = check_python(&["--only", "unicode,large"], &answering(&part)) else {
            return;
        };
        report.assert_broken(&[]);
        report.assert_found(
            "unicode",
            "ok",
            &["the function changes the text, not compared"],
        );
        assert_eq!(report.finding("unicode")["level"], "must");
    }
}

#[test]
fn a_reader_that_decodes_chunks_cuts_characters() {
    let source = "import json, os\nrest = ''\nwhile block := os.read(0, 65536):\n    \
        *lines, rest = (rest + block.decode('utf-8', 'replace')).split('\\n')\n    \
        for line in lines:\n        request = json.loads(line)\n        \
        print(json.dumps({'id': request['id'], 'result': request['payload']}), flush=True)\n";
    let Some(report) = check_python(&["--only", "unicode,large"], source) else {
        return;
    };
    report.assert_broken(&["large"]);
    let words = ["U+FFFD", "Decode whole lines, not chunks"];
    report.assert_found("large", "fail", &words);
    // Told once.
    let source = "import json, sys\nfor line in sys.stdin.buffer:\n    \
        request = json.loads(line.decode('ascii', 'replace'))\n    \
        print(json.dumps({'id': request['id'], 'result': request['payload']}), flush=True)\n";
    let report = check_python(&["--only", "unicode,large"], source).unwrap();
    report.assert_broken(&["unicode"]);
    report.assert_found("large", "ok", &["see unicode"]);
}

#[test]
fn a_reader_that_cuts_long_lines_is_found() {
    let source = "import json, sys\nwhile line := sys.stdin.readline(65536):\n    \
        request = json.loads(line)\n    \
        print(json.dumps({'id': request['id'], 'result': 1}), flush=True)\n";
    let Some(report) = check_python(&["--only", "large,unicode"], source) else {
        return;
    };
    report.assert_found("unicode", "ok", &["was not compared"]);
    let words = [
        "at a line of 1 MiB",
        "any length",
        "readline() without a size",
    ];
    report.assert_found("large", "fail", &words);
    // Takes each piece that it reads for a line.
    let source = "import json, os\nwhile line := os.read(0, 1 << 20):\n    \
        request = json.loads(line)\n    \
        print(json.dumps({'id': request['id'], 'result': 1}), flush=True)\n";
    let report = check_python(&["--only", "large"], source).unwrap();
    report.assert_found("large", "fail", &["byte by byte", "a part of a line"]);
}

// ---- Mistakes: the life of a process ------------------------------------------------------------

#[test]
fn a_handler_that_ends_behind_a_reply_is_told_once() {
    let Some(report) = check_python(&[], &answering(&format!("{ECHO}\nbreak"))) else {
        return;
    };
    report.assert_broken(&["many"]);
    let words = [
        "ended behind its first reply",
        "in a loop",
        "In Python: for line in sys.stdin",
    ];
    report.assert_found("many", "fail", &words);
}

#[test]
fn memory_that_grows_with_each_request_is_measured() {
    let source =
        "kept = []\n".to_owned() + &answering(&format!("kept.append(bytearray(8192))\n{ECHO}"));
    let Some(report) = check_python(&["--only", "many"], &source) else {
        return;
    };
    report.assert_found("many", "warn", &["memory grew by 8.", "--max-requests"]);
}

#[test]
fn a_handler_that_ignores_the_end_of_its_input_or_sigterm_is_found() {
    let source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n".to_owned()
        + &answering(ECHO)
        + "time.sleep(60)\n";
    let Some(report) = check_python(&["--only", "eof,sigterm,children"], &source) else {
        return;
    };
    report.assert_found(
        "eof",
        "fail",
        &["did not end within 2.5 s", "if not line: break"],
    );
    report.assert_found("sigterm", "warn", &["did not end", "SIG_IGN"]);
    report.assert_found("children", "skip", &[]);
    assert_eq!(report.status, 1);
    let source = source.replace("time.sleep(60)\n", "");
    let report = check_python(&["--only", "eof,sigterm"], &source).unwrap();
    report.assert_found("eof", "ok", &["exit status: 0"]);
    report.assert_found("sigterm", "warn", &["ignores SIGTERM"]);
}

#[test]
fn a_reply_that_is_lost_at_the_end_of_the_input_is_found() {
    // Works in a thread that nobody waits for.
    let source = "import json, os, sys, threading, time\ndef work(id):\n    time.sleep(0.3)\n    \
        print(json.dumps({'id': id, 'result': 1}), flush=True)\n\
        for line in sys.stdin:\n    \
        threading.Thread(target=work, args=(json.loads(line)['id'],)).start()\nos._exit(0)\n";
    let Some(report) = check_python(&["--only", "eof"], source) else {
        return;
    };
    report.assert_found("eof", "fail", &["without the reply that it owed"]);
}

#[test]
fn processes_that_are_left_behind_are_named() {
    let source =
        "import subprocess\nsubprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL)\n"
            .to_owned()
            + &answering(ECHO);
    let Some(report) = check_python(&["--only", "children,eof"], &source) else {
        return;
    };
    report.assert_found("eof", "ok", &["exit status: 0"]);
    report.assert_found("children", "warn", &["left behind: sleep", ".terminate()"]);
    assert_eq!(report.status, 0);
}

#[test]
fn processes_of_one_name_are_counted() {
    let part = format!("__import__('subprocess').Popen(['sleep', '300'], stdout=2)\n{ECHO}");
    let Some(report) = check_python(&["--only", "answers,children"], &answering(&part)) else {
        return;
    };
    report.assert_found("children", "warn", &["sleep (", " processes, e.g. "]);
    let summary = report.finding("children")["summary"].as_str().unwrap();
    assert_eq!(summary.matches("sleep").count(), 1, "{summary}");
}

#[test]
fn the_name_of_a_process_left_behind_may_be_any_bytes() {
    let source = "import os, time\n\
                  name = open('/proc/self/comm', 'wb', buffering=0)\n\
                  name.write(b'a\\x1b[2J\\xff\\xc2\\x9b\\xe2\\x80\\xae')\n\
                  if os.fork() == 0:\n    \
                  [os.close(number) for number in (0, 1, 2)]\n    time.sleep(300)\n"
        .to_owned()
        + &answering(ECHO);
    let Some(python) = interpreter("python3") else {
        return;
    };
    let scratch = Scratch::new();
    let file = scratch.file("handler.py", 0o644, &source);
    for form in ["text", "tap", "json", "junit"] {
        let printed = output(&["--only", "children", "--format", form], &[&python, &file]);
        let text = String::from_utf8(printed.stdout).unwrap();
        assert!(text.contains("u{1b}"), "{form}: {text}");
        let is_raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(is_raw), "{form}: {text:?}");
    }
}

#[test]
fn payloads_that_must_fail_are_shown_with_their_status() {
    let part = "if payload == 'bad': print(json.dumps({'id': id, 'error': {'message': 'no', 'status': 422}}), flush=True)\n\
        else: print(json.dumps({'id': id, 'result': 1}), flush=True)";
    let options = ["--only", "error", "--failing", "bad"];
    let Some(report) = check_python(&options, &answering(part)) else {
        return;
    };
    report.assert_found("error", "ok", &["422 \\\"no\\\"", "bad"]);
    let options = ["--only", "error", "--failing", "good"];
    let report = check_python(&options, &answering(part)).unwrap();
    report.assert_found("error", "warn", &["answered with a result"]);
    assert_eq!(report.status, 0);
}

// ---- The forms of the findings ------------------------------------------------------------------

#[test]
fn the_text_names_broken_rules_and_fits_80_columns() {
    let output = output(
        &[],
        &["sh", "-c", "while read -r line; do echo \"$line\"; done"],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\n  FAIL  answers      "), "{text}");
    assert!(text.contains("neither result nor error"), "{text}");
    assert!(
        text.contains("\n  skip  unicode      needs an answer\n"),
        "{text}"
    );
    assert!(text.contains("1 of 6 rules broken: answers."), "{text}");
    assert!(
        text.ends_with("More: faas-worker check --explain answers\n"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn tap_and_junit_have_a_case_for_each_rule() {
    let handler = rust_example("echo");
    let options = ["--only", "start,answers,order,error"];
    let tap = output(&[&options[..], &["--format", "tap"]].concat(), &[&handler]);
    let tap = String::from_utf8(tap.stdout).unwrap();
    assert!(
        tap.starts_with("TAP version 14\nok 1 - start: up in "),
        "{tap}"
    );
    assert!(tap.contains("\nok 4 - error # SKIP no --failing"), "{tap}");
    assert!(tap.ends_with("\n1..4\n"), "{tap}");
    let junit = output(
        &[&options[..], &["--format", "junit"]].concat(),
        &[&handler],
    );
    let junit = String::from_utf8(junit.stdout).unwrap();
    assert!(
        junit.contains("tests=\"4\" failures=\"0\" errors=\"0\" skipped=\"1\""),
        "{junit}"
    );
    assert_eq!(junit.matches("<testcase ").count(), 4, "{junit}");
}

#[test]
fn rules_are_listed_and_explained() {
    let run = |words: &[&str]| program().arg("check").args(words).output().unwrap();
    let list = run(&["--list"]);
    assert!(list.status.success());
    assert_eq!(String::from_utf8(list.stdout).unwrap().lines().count(), 15);
    let explained = run(&["--explain", "answers"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.contains("flush=True") && text.contains("jq --unbuffered"),
        "{text}"
    );
    let unknown = run(&["--only", "anwsers", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(2));
    let text = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        text.contains("expected one of start, answers, ids"),
        "{text}"
    );
    let none = run(&[]);
    assert_eq!(none.status.code(), Some(2));
    let text = String::from_utf8(none.stderr).unwrap();
    assert!(text.contains("faas-worker check -- python3"), "{text}");
}

#[test]
fn the_page_has_each_rule_with_its_level() {
    let list = program().args(["check", "--list"]).output().unwrap();
    let page = include_str!("../docs/check.md");
    let list = String::from_utf8(list.stdout).unwrap();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (id, level) = (words.next().unwrap(), words.next().unwrap());
        let section = page.split_once(&format!("\n### {id}\n\n"));
        let (_, section) = section.unwrap_or_else(|| panic!("{id} has no section"));
        assert!(section.starts_with(level), "{id}: {level}");
    }
    assert_eq!(page.matches("\n### ").count(), list.lines().count());
}
