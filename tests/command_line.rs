//! The command line: its help, and the messages about mistakes.

use crate::support::{Builder, Scratch, assert_result, misbehave, without_settings};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-worker");

fn typed(words: &[&str]) -> Output {
    let nothing = Builder::new(Vec::new()).bare();
    words
        .iter()
        .fold(nothing, |builder, word| builder.flag(word))
        .output()
}

fn printed(words: &[&str]) -> String {
    let output = typed(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message about a command line that is refused.
fn refused(words: &[&str]) -> String {
    said_by(typed(words), words)
}

#[track_caller]
fn said_by(output: Output, what: impl std::fmt::Debug) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{what:?}: {said}");
    assert!(output.stdout.is_empty(), "{what:?}");
    said
}

/// Runs a command line of sh on a terminal of its own, and gives its exit status and output; `None`
/// where there is no `script` to make a terminal.
fn on_a_terminal(line: &str) -> Option<(i32, String)> {
    let mut script = without_settings(Command::new("script"));
    script.args(["-qec", line, "/dev/null"]);
    match script.output() {
        Ok(output) => {
            let seen = String::from_utf8(output.stdout).unwrap();
            Some((output.status.code().unwrap(), seen.replace('\r', "")))
        }
        Err(_) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("script is required in CI")
        }
        Err(_) => None,
    }
}

fn longest_line(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap()
}

#[test]
fn the_help_fits_eighty_columns_and_the_short_one_has_a_line_a_setting() {
    let whole = printed(&["--help"]);
    assert!(longest_line(&whole) <= 80, "{whole}");
    for heading in [
        "Processes:",
        "Isolation",
        "Requests:",
        "Connections:",
        "Shutdown",
    ] {
        assert!(whole.contains(heading), "{heading}");
    }
    let short = printed(&["-h"]);
    assert!(longest_line(&short) <= 80, "{short}");
    assert!(
        short.contains("faas-worker --help has all options"),
        "{short}"
    );
    let options: Vec<&str> = short
        .lines()
        .skip_while(|line| *line != "Options:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect();
    assert!((10..=16).contains(&options.len()), "{options:?}");
    assert!(
        options.iter().all(|line| line.contains('-')),
        "a line each: {options:?}"
    );
    for flag in [
        "--handler",
        "--port",
        "--processes",
        "--timeout",
        "--log-level",
    ] {
        assert!(short.contains(flag), "{flag}");
    }
}

#[test]
fn the_help_is_as_wide_as_the_terminal() {
    let width = |columns: u32| {
        let line = format!("stty cols {columns}; '{PROGRAM}' --help | cat; '{PROGRAM}' --help");
        on_a_terminal(&line).map(|(_, seen)| seen)
    };
    // Without colours, whose escapes are no columns.
    let plain = |text: String| {
        let mut plain = String::new();
        let mut parts = text.split('\u{1b}');
        plain.push_str(parts.next().unwrap());
        for part in parts {
            plain.push_str(part.split_once('m').unwrap().1);
        }
        plain
    };
    let Some(narrow) = width(60).map(plain) else {
        return;
    };
    let (_, on_terminal) = narrow.rsplit_once("Turns any").unwrap();
    assert!(longest_line(on_terminal) <= 80, "{on_terminal}");
    let options = on_terminal.split("Example").next().unwrap();
    assert!(longest_line(options) <= 60, "{options}");
    let wide = plain(width(200).unwrap());
    let (_, on_terminal) = wide.rsplit_once("Turns any").unwrap();
    let longest = longest_line(on_terminal);
    assert!((100..=120).contains(&longest), "{longest}: {on_terminal}");
}

#[test]
fn the_example_in_the_help_works_as_it_stands() {
    let help = printed(&["--help"]);
    let line = help
        .lines()
        .find_map(|line| line.trim().strip_prefix("faas-worker -- "))
        .unwrap();
    let worker = Builder::new(shell_words::split(line).unwrap()).start();
    let response = worker.post("");
    assert_eq!(
        (response.status, response.text()),
        (200, "{\"result\":42}".to_owned())
    );
}

#[test]
fn help_and_version_are_commands_too() {
    assert_eq!(printed(&["help"]), printed(&["--help"]));
    assert_eq!(printed(&["help", "serve"]), printed(&["--help"]));
    assert_eq!(printed(&["help", "health"]), printed(&["health", "--help"]));
    assert!(printed(&["help", "health"]).contains("faas-worker health"));
    assert_eq!(printed(&["version"]), printed(&["--version"]));
    let said = refused(&["help", "helth"]);
    assert_eq!(said, "no command \"helth\", did you mean health?\n");
    assert_eq!(
        refused(&["help", "decode"]),
        "no command \"decode\", expected one of serve, map, health, top, new, completions, man, check, help, version\n"
    );
    let said = refused(&["helth"]);
    assert_eq!(said, "unexpected word \"helth\", did you mean health?\n");
}

#[test]
fn a_word_too_many_leads_to_the_help_of_its_command() {
    for (words, name) in [
        (&["health", "more"][..], "health"),
        (&["top", "127.0.0.1:1", "more"], "top"),
        (&["new", "python", "folder", "more"], "new"),
    ] {
        let expected =
            format!("unexpected word \"more\" (faas-worker {name} --help lists the options)\n");
        assert_eq!(refused(words), expected);
    }
    for name in ["serve", "check", "map"] {
        let said = refused(&[name, "python3"]);
        assert!(said.contains("a command is given after --"), "{said}");
    }
}

#[test]
fn a_command_in_quotes_is_answered_with_what_to_type() {
    for (words, meant) in [
        (
            &["--", "python3 serve.py x.y"][..],
            "-- python3 serve.py x.y",
        ),
        (
            &["--", "python3 serve.py", "a b"],
            "-- python3 serve.py 'a b'",
        ),
        (&["serve", "--", " ./run me "], "-- ./run me"),
    ] {
        let said = refused(words);
        assert!(said.ends_with(&format!("{meant}\n")), "{said}");
        assert!(said.contains("one word"), "{said}");
    }
    // A name that has a space in it.
    let scratch = Scratch::new();
    let path = scratch.file(
        "my handler",
        0o755,
        "#!/bin/sh\nwhile read -r line; do echo '{\"result\":1}'; done\n",
    );
    let worker = Builder::new(vec![path]).start();
    assert_eq!(worker.post("").text(), "{\"result\":1}");
}

#[test]
fn a_handler_is_given_once() {
    let said = refused(&["--handler", "a", "--", "b"]);
    assert!(said.contains("--handler and a command after --"), "{said}");
    // An option wins over its variable; the two are no contradiction.
    let worker = misbehave(&["--ready"])
        .environment("HANDLER_FUNCTION", "/nowhere")
        .start();
    assert_result(&worker.post("x"), "x");
}

#[test]
fn the_address_for_operators_has_a_port_of_its_own() {
    for (host, admin) in [
        ("127.0.0.1", "127.0.0.1:8765"),
        ("localhost", "[::1]:8765"),
        ("0.0.0.0", "127.0.0.1:8765"),
        ("127.0.0.1", "0.0.0.0:8765"),
    ] {
        let said = refused(&["--host", host, "--port", "8765", "--admin", admin]);
        assert!(said.starts_with("--admin (FAAS_ADMIN): "), "{said}");
        assert!(said.contains(admin), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_value_that_is_no_text_is_named() {
    let nothing = || Builder::new(Vec::new()).bare();
    let by_variable = nothing()
        .prepared_by("HANDLER_FUNCTION=$(printf 'a\\377b'); export HANDLER_FUNCTION")
        .output();
    let said = said_by(by_variable, "by variable");
    assert!(
        said.starts_with("--handler (HANDLER_FUNCTION): not UTF-8: \"a\\xFFb\""),
        "{said}"
    );
    for typed in [
        "--handler \"$(printf 'a\\377b')\"",
        "--handler=\"$(printf 'a\\377b')\"",
    ] {
        let by_flag = nothing().prepared_by(&format!("set -- {typed}")).output();
        let said = said_by(by_flag, typed);
        assert!(
            said.starts_with("--handler (HANDLER_FUNCTION): not UTF-8: "),
            "{said}"
        );
    }
    // A path may hold any bytes; the fault of this path is that it does not exist.
    let path = nothing()
        .prepared_by("FAAS_AUTH_TOKEN_FILE=$(printf '/nowhere/\\377'); export FAAS_AUTH_TOKEN_FILE")
        .output();
    let said = said_by(path, "path");
    assert!(
        said.contains("--auth-token-file (FAAS_AUTH_TOKEN_FILE)"),
        "{said}"
    );
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn without_a_handler_a_terminal_is_told_what_to_type() {
    let Some((status, seen)) = on_a_terminal(&format!("'{PROGRAM}' --port 0")) else {
        return;
    };
    assert_eq!(status, 2, "{seen}");
    assert!(seen.contains("no handler"), "{seen}");
    assert!(seen.contains("Usage: faas-worker"), "{seen}");
    // A container without a command stays up, and answers requests with the reason.
    let worker = Builder::new(Vec::new()).start();
    assert_eq!(worker.post("x").status, 500);
}

#[test]
fn completions_are_scripts_that_their_shell_reads_and_know_each_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        for command in ["health", "top", "new", "completions"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let scratch = Scratch::new();
    let script = scratch.file("completion", 0o644, printed(&["completions", "bash"]));
    let listed = |task: &[&str]| {
        let list = printed(task);
        let words = list
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let rules = listed(&["check", "--list"]);
    for (typed, word, expected) in [
        (
            &["he"][..],
            "he",
            vec!["health".to_owned(), "help".to_owned()],
        ),
        (&["new", ""], "", listed(&["new"])),
        (&["check", "--only", ""], "", rules.clone()),
        (&["check", "--explain", ""], "", rules),
        (
            &["check", "--format", "j"],
            "j",
            vec!["json".to_owned(), "junit".to_owned()],
        ),
    ] {
        let before = typed[..typed.len() - 1].last().unwrap_or(&"faas-worker");
        let all = typed
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>();
        let words = format!(
            "source \"$1\"; COMP_WORDS=(faas-worker {}); COMP_CWORD={}; \
             _faas__worker faas-worker '{word}' {before}; echo \"${{COMPREPLY[*]}}\"",
            all.join(" "),
            typed.len()
        );
        let mut bash = Command::new("bash");
        match bash.args(["-c", &words, "bash", &script]).output() {
            Ok(output) => {
                let offered = String::from_utf8_lossy(&output.stdout).into_owned();
                let offered: Vec<&str> = offered.split_whitespace().collect();
                for word in expected {
                    assert!(
                        offered.contains(&word.as_str()),
                        "{typed:?} {word}: {output:?}"
                    );
                }
            }
            Err(error) => eprintln!("skipped: there is no bash: {error}"),
        }
    }
    assert!(refused(&["completions", "tcsh"]).contains("not one of bash"));
}

#[test]
fn the_manual_page_has_each_setting_with_its_variable() {
    let page = printed(&["man"]);
    let help = printed(&["--help"]);
    for variable in help.split("[env: ").skip(1) {
        let variable = variable
            .trim_start()
            .split(|end: char| !(end.is_ascii_uppercase() || end == '_'));
        let variable = variable.map(str::to_owned).next().unwrap();
        assert!(page.contains(&variable), "{variable}");
    }
    assert!(page.starts_with(".ie") && page.contains("\n.TH faas-worker 1 "));
    assert!(printed(&["man", "top"]).contains(".TH faas-worker-top 1 "));
    assert!(refused(&["man", "helth"]).contains("did you mean health?"));
}
