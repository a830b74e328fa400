//! `faas-worker new`: what it writes runs as it says, and nothing is overwritten.

use crate::languages::{LANGUAGES, is_there};
use crate::support::{Builder, Scratch, assert_result, program};
use serde_json::{Value, json};
use std::process::{Command, Output};

fn new(words: &[&str]) -> Output {
    program().arg("new").args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The names that the list has, in its order.
fn listed() -> Vec<String> {
    let output = new(&[]);
    assert!(output.status.success());
    let names = text(&output.stdout);
    names
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// The rest of the line that begins with this label.
fn step<'a>(steps: &'a str, label: &str) -> Option<&'a str> {
    let line = steps.lines().find(|line| line.starts_with(label))?;
    Some(line[label.len()..].trim_start())
}

#[test]
fn the_list_has_each_language_of_the_examples() {
    let mut listed = listed();
    listed.sort();
    let mut examples: Vec<String> = LANGUAGES
        .iter()
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    examples.sort();
    assert_eq!(listed, examples);
}

#[test]
fn each_language_runs_by_the_commands_that_are_printed() {
    for name in listed() {
        let is_compiled_by_cargo = name == "rust";
        let language = LANGUAGES
            .iter()
            .find(|(known, _)| known.replace('_', "-") == name);
        let (_, language) = language.unwrap();
        if is_compiled_by_cargo || !is_there(&name, language) {
            continue;
        }
        let scratch = Scratch::new();
        let directory = scratch.path("function");
        let output = new(&[&name, &directory]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let steps = text(&output.stdout);
        if let Some(build) = step(&steps, "build:") {
            let built = Command::new("sh")
                .args(["-c", build])
                .current_dir(&directory)
                .output()
                .unwrap();
            assert!(built.status.success(), "{name}: {}", text(&built.stderr));
        }
        let run = step(&steps, "run:").unwrap();
        let command = run.strip_prefix("faas-worker -- ").unwrap();
        let words = command.split(' ').map(str::to_owned).collect();
        let worker = Builder::new(words).directory(&directory).start();
        let body = std::fs::read(format!("{directory}/payload.json")).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let answer = worker.post(body["payload"].as_str().unwrap());
        let reading = json!({"device": "dev-1", "value": 42.5, "timestamp": 1_678_886_400});
        assert_result(&answer, reading);
        let check = step(&steps, "check:").unwrap();
        let words = check.strip_prefix("faas-worker check ").unwrap().split(' ');
        let mut checked = program();
        checked.args(["check", "--only", "answers"]).args(words);
        let checked = checked.current_dir(&directory).output().unwrap();
        let told = text(&checked.stdout);
        assert!(
            checked.status.success() && !told.contains("422"),
            "{name}: {told}"
        );
    }
}

#[test]
fn a_file_that_is_there_is_left_as_it_is() {
    let scratch = Scratch::new();
    let directory = scratch.path("");
    for name in ["reading.sh", "payload.json", "Dockerfile"] {
        let there = scratch.path(name);
        std::fs::write(&there, "mine").unwrap();
        let output = new(&["sh", &directory]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(&there), "{output:?}");
        assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
        let left = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(left, 1, "something was written beside {name}");
        std::fs::remove_file(&there).unwrap();
    }
    // A link to nowhere is in the way as well: writing would follow it.
    std::os::unix::fs::symlink("/nowhere/at/all", scratch.path("Dockerfile")).unwrap();
    assert_eq!(new(&["sh", &directory]).status.code(), Some(1));
}

#[test]
fn what_cannot_be_written_is_told() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("file"), "").unwrap();
    let output = new(&["sh", &scratch.path("file/function")]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains("cannot write") && told.contains("reading.sh"),
        "{told}"
    );
    let output = new(&["cobol"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(
        told.contains("cobol") && told.contains("python-async"),
        "{told}"
    );
}
