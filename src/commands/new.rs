//! `faas-worker new`: writes a small working handler in a language, with what runs it.
//!
//! The handlers are the files of `examples/`, embedded, so that they are tested once. Beside the
//! handler stand a request body to try it with and a Dockerfile. No file is overwritten.

mod dockerfile;
mod languages;

use languages::{LANGUAGES, LanguageTemplate, closest, language, names};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The body of a first request, for `curl --json @payload.json`.
const PAYLOAD: &str = "{\"payload\":\"dev-1,42.5,1678886400\"}\n";

/// The payload in [`PAYLOAD`], which the handlers answer with a result.
const PAYLOAD_TEXT: &str = "dev-1,42.5,1678886400";

/// Prints the languages, a line each: the name, then what it stands for.
pub fn list() -> ExitCode {
    let mut table = String::new();
    for language in LANGUAGES {
        let _ = writeln!(table, "{:13} {}", language.name, language.title);
    }
    say(&table)
}

/// Writes a handler in the language of this name into the directory, which is made if it is
/// missing, and prints how to run it. Exit status 1 if a file is in the way or cannot be written, 2
/// if there is no such language.
#[expect(clippy::print_stderr, reason = "the message of a command, as clap's")]
pub fn new(name: &str, directory: &Path) -> ExitCode {
    let Some(language) = language(name) else {
        let names: Vec<&str> = names().collect();
        let meant =
            closest(name).map_or_else(String::new, |meant| format!(" (did you mean {meant}?)"));
        eprintln!(
            "error: no language {name:?}{meant}; there are {}",
            names.join(", ")
        );
        return ExitCode::from(2);
    };
    match write(language, directory) {
        Ok(()) => say(&next_steps(language, directory)),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout. A reader that has closed its end wants no more of it.
fn say(text: &str) -> ExitCode {
    drop(io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

/// The files of a language, by their paths in the directory.
fn files(language: &LanguageTemplate) -> Vec<(&'static str, String)> {
    let mut files = vec![(language.file, language.source.to_owned())];
    if let Some((path, manifest)) = language.manifest {
        files.push((path, manifest.to_owned()));
    }
    files.push(("payload.json", PAYLOAD.to_owned()));
    files.push(("Dockerfile", dockerfile::text(language)));
    files
}

fn write(language: &LanguageTemplate, directory: &Path) -> Result<(), String> {
    let files: Vec<(PathBuf, String)> = files(language)
        .into_iter()
        .map(|(name, text)| (directory.join(name), text))
        .collect();
    // Asked before anything is written, so that a refusal leaves the directory as it was.
    let in_the_way = files
        .iter()
        .find(|(path, _)| path.symlink_metadata().is_ok());
    if let Some((path, _)) = in_the_way {
        return Err(format!(
            "{} exists, and is left as it is: give another directory",
            path.display()
        ));
    }
    for (path, text) in files {
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The files that were written, and the commands that build, run, try and check the handler.
fn next_steps(language: &LanguageTemplate, directory: &Path) -> String {
    let mut text = String::new();
    for (name, _) in files(language) {
        let _ = writeln!(text, "wrote {}", directory.join(name).display());
    }
    text.push('\n');
    let mut step = |label: &str, command: &str| {
        let _ = writeln!(text, "{label:6} {command}");
    };
    if directory != Path::new(".") {
        let quoted = directory.to_string_lossy();
        step("enter:", &format!("cd {}", shell_words::quote(&quoted)));
    }
    if let Some(build) = language.build {
        step("build:", build);
    }
    let command = language.command;
    step("run:", &format!("faas-worker -- {command}"));
    step("try:", "curl --json @payload.json http://127.0.0.1:8000/");
    step(
        "check:",
        &format!("faas-worker check --payload {PAYLOAD_TEXT} -- {command}"),
    );
    if !language.packages.is_empty() {
        let _ = writeln!(
            text,
            "\n{} needs, by the names of Debian's packages: {}",
            language.title,
            language.packages.join(", ")
        );
    }
    if let Some(runtime) = language.runtime {
        let _ = writeln!(
            text,
            "\nThe command needs {runtime}, of which Debian has no package"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_name_each_file_and_each_command() {
        let go = language("go").unwrap();
        assert_eq!(
            next_steps(go, Path::new("my function")),
            "wrote my function/reading.go\n\
             wrote my function/payload.json\n\
             wrote my function/Dockerfile\n\
             \n\
             enter: cd 'my function'\n\
             build: go build reading.go\n\
             run:   faas-worker -- ./reading\n\
             try:   curl --json @payload.json http://127.0.0.1:8000/\n\
             check: faas-worker check --payload dev-1,42.5,1678886400 -- ./reading\n\
             \n\
             Go needs, by the names of Debian's packages: golang-go\n"
        );
        let sh = next_steps(language("sh").unwrap(), Path::new("."));
        assert!(!sh.contains("enter:") && !sh.contains("build:") && !sh.contains("needs"));
        let typescript = next_steps(language("ts").unwrap(), Path::new("."));
        assert!(typescript.ends_with(
            "\n\nThe command needs Node 22.6 or later, of which Debian has no package\n"
        ));
    }
}
