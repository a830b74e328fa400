//! Completion scripts and manual pages, generated from the definition of the command line.

use super::command_line;
use super::explain::no_command;
use crate::check::Rule;
use crate::version::version;
use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::io::{Write, stdout};

/// The languages of `faas-worker new`, as it lists them.
const LANGUAGES: [&str; 17] = [
    "sh",
    "bash",
    "awk",
    "jq",
    "python",
    "python-async",
    "javascript",
    "typescript",
    "ruby",
    "php",
    "perl",
    "lua",
    "r",
    "go",
    "java",
    "c",
    "rust",
];

/// Prints the completion script of a shell.
pub(super) fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    generate(shell, &mut with_values(), "faas-worker", &mut script);
    if shell == Shell::Bash {
        // The generator gives commands of a program with a hyphen two names, and finds none.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("faas__subcmd__worker", "faas__worker").into();
    }
    print(&script);
}

/// The command line with the values that a shell may offer. The program itself reads these words
/// with parsers that have errors of their own.
fn with_values() -> Command {
    let rules: Vec<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    let offer = |command: Command, name: &'static str, values: &[&'static str]| {
        let values = PossibleValuesParser::new(values.iter().copied());
        command.mut_arg(name, |argument| argument.value_parser(values))
    };
    command_line()
        .mut_subcommand("new", |new| offer(new, "language", &LANGUAGES))
        .mut_subcommand("check", |check| {
            let check = offer(check, "only", &rules);
            let check = offer(check, "explain", &rules);
            offer(check, "format", &["text", "tap", "json", "junit"])
        })
}

/// Prints the manual page of the program, or of one of its commands.
pub(super) fn print_man_page(name: Option<&str>) -> Result<(), String> {
    let page = man_page(name)?;
    print(&page);
    Ok(())
}

fn man_page(name: Option<&str>) -> Result<Vec<u8>, String> {
    let mut program = command_line().version(version());
    program.build();
    let command: &Command = match name {
        None => &program,
        Some(name) => program
            .find_subcommand(name)
            .ok_or_else(|| no_command(name))?,
    };
    let title = command.get_display_name().unwrap_or("faas-worker");
    let man = Man::new(command.clone())
        .title(title)
        .source(format!("faas-worker {}", version()))
        .manual("faas-worker");
    let mut page = Vec::new();
    man.render(&mut page)
        .map_err(|error| format!("cannot make the manual page: {error}"))?;
    Ok(page)
}

/// A reader that has closed its end wants no more of it.
fn print(text: &[u8]) {
    drop(stdout().write_all(text));
}
