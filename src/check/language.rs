//! Which language a handler is written in, as far as its command tells.

use crate::config::Command;
use crate::regular_file;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A language of handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Node,
    Ruby,
    Perl,
    Php,
    Shell,
    Java,
    Go,
    Lua,
    Awk,
    Jq,
    R,
    /// A program of machine code: C, Rust, Go and others.
    Compiled,
    /// The command does not tell.
    Unknown,
}

/// Names of programs, without the digits of a version, with the language that they run.
const PROGRAMS: [(&str, Language); 36] = [
    ("python", Language::Python),
    ("pypy", Language::Python),
    ("uvicorn", Language::Python),
    ("node", Language::Node),
    ("nodejs", Language::Node),
    ("deno", Language::Node),
    ("bun", Language::Node),
    ("tsx", Language::Node),
    ("ts-node", Language::Node),
    ("npx", Language::Node),
    ("npm", Language::Node),
    ("ruby", Language::Ruby),
    ("jruby", Language::Ruby),
    ("bundle", Language::Ruby),
    ("perl", Language::Perl),
    ("php", Language::Php),
    ("java", Language::Java),
    ("kotlin", Language::Java),
    ("scala", Language::Java),
    ("groovy", Language::Java),
    ("go", Language::Go),
    ("lua", Language::Lua),
    ("luajit", Language::Lua),
    ("awk", Language::Awk),
    ("gawk", Language::Awk),
    ("mawk", Language::Awk),
    ("original-awk", Language::Awk),
    ("jq", Language::Jq),
    ("gojq", Language::Jq),
    ("Rscript", Language::R),
    ("R", Language::R),
    ("sh", Language::Shell),
    ("bash", Language::Shell),
    ("dash", Language::Shell),
    ("zsh", Language::Shell),
    ("ksh", Language::Shell),
];

/// Ends of the names of files, with the language in them.
const EXTENSIONS: [(&str, Language); 15] = [
    ("py", Language::Python),
    ("js", Language::Node),
    ("mjs", Language::Node),
    ("cjs", Language::Node),
    ("ts", Language::Node),
    ("mts", Language::Node),
    ("rb", Language::Ruby),
    ("pl", Language::Perl),
    ("php", Language::Php),
    ("lua", Language::Lua),
    ("awk", Language::Awk),
    ("jq", Language::Jq),
    ("R", Language::R),
    ("jar", Language::Java),
    ("sh", Language::Shell),
];

/// Most bytes of a program's file that are read to learn its kind.
const BEGINNING: usize = 8192;

/// The name of a note that the linker of Go leaves at the beginning of a program.
const GO_NOTE: &[u8] = b"\x04\0\0\0Go\0\0";

impl Language {
    /// The languages that have a name.
    #[cfg(test)]
    pub(super) const ALL: [Language; 13] = [
        Language::Python,
        Language::Node,
        Language::Ruby,
        Language::Perl,
        Language::Php,
        Language::Shell,
        Language::Java,
        Language::Go,
        Language::Lua,
        Language::Awk,
        Language::Jq,
        Language::R,
        Language::Compiled,
    ];

    /// The language of the handler that this command runs; `directory` is where it starts.
    pub(super) fn of(command: &Command, directory: &Path) -> Language {
        let words = std::iter::once(&command.program).chain(&command.arguments);
        let words: Vec<&OsStr> = words.map(AsRef::as_ref).collect();
        match of_words(&words) {
            Language::Unknown => of_file(&beginning_of(&command.program, directory)),
            known => known,
        }
    }

    /// The name of the language in `mends.txt`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Language::Python => "Python",
            Language::Node => "JavaScript",
            Language::Ruby => "Ruby",
            Language::Perl => "Perl",
            Language::Php => "PHP",
            Language::Shell => "shell",
            Language::Java => "Java",
            Language::Go => "Go",
            Language::Lua => "Lua",
            Language::Awk => "awk",
            Language::Jq => "jq",
            Language::R => "R",
            Language::Compiled => "compiled",
            Language::Unknown => "",
        }
    }
}

/// The language that the words of a command tell: of the first word that is known, for a program
/// may be run by another (`env`, `uv run`). A shell is the language only if nothing else is.
fn of_words(words: &[&OsStr]) -> Language {
    let mut found = Language::Unknown;
    for word in words {
        let word = word.to_string_lossy();
        // A script for `sh -c` has words of its own.
        for part in word.split(|c: char| c.is_whitespace() || ";|&(){}\"'`$".contains(c)) {
            match of_word(part) {
                Language::Unknown => {}
                Language::Shell => found = Language::Shell,
                known => return known,
            }
        }
    }
    found
}

fn of_word(word: &str) -> Language {
    let name = word.rsplit('/').next().unwrap_or_default();
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if let Some((_, language)) = PROGRAMS.iter().find(|(known, _)| *known == bare) {
        return *language;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return Language::Unknown;
    };
    let known = EXTENSIONS.iter().find(|(known, _)| *known == extension);
    match known {
        Some((_, language)) if !stem.is_empty() => *language,
        Some(_) | None => Language::Unknown,
    }
}

/// The language that the beginning of a program's file tells.
fn of_file(beginning: &[u8]) -> Language {
    if beginning.starts_with(b"\x7fELF") {
        return match memchr::memmem::find(beginning, GO_NOTE) {
            Some(_) => Language::Go,
            None => Language::Compiled,
        };
    }
    let Some(rest) = beginning.strip_prefix(b"#!") else {
        return Language::Unknown;
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words: Vec<&OsStr> = line.split_whitespace().map(OsStr::new).collect();
    of_words(&words)
}

/// True for a command of mawk, by any name, that is not told to read line by line.
pub(super) fn is_mawk(command: &Command) -> bool {
    let is_interactive = |word: &OsString| word.to_string_lossy().contains("interactive");
    if command.arguments.iter().any(is_interactive) {
        return false;
    }
    // `awk` may be a link to it.
    let file = file_of(&command.program, Path::new("."));
    let file = file.canonicalize().unwrap_or(file);
    file.file_name().is_some_and(|name| name == "mawk")
}

/// The first bytes of the file of a program; none if it cannot be read.
fn beginning_of(program: &OsStr, directory: &Path) -> Vec<u8> {
    let mut beginning = Vec::new();
    if let Ok(file) = regular_file::open(&file_of(program, directory)) {
        // A file that ends or fails earlier tells as much as it has.
        let _ = file.take(BEGINNING as u64).read_to_end(&mut beginning);
    }
    beginning
}

/// The file of a program, as a start finds it; empty if there is none.
fn file_of(program: &OsStr, directory: &Path) -> PathBuf {
    match program.to_string_lossy().contains('/') {
        true => directory.join(program),
        false => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).map(|folder| folder.join(program));
            let found: Option<PathBuf> = found.into_iter().find(|file| file.is_file());
            found.unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_tell_their_language() {
        for (command, language) in [
            ("python3 handler.py", Language::Python),
            ("/usr/bin/python3.11 -m app", Language::Python),
            ("env A=b uv run serve.py", Language::Python),
            ("sh -c exec python3 x.py", Language::Python),
            ("node index.js", Language::Node),
            ("node22 x", Language::Node),
            ("ruby x.rb", Language::Ruby),
            ("bundle exec x", Language::Ruby),
            ("perl -e 1", Language::Perl),
            ("php8.2 x.php", Language::Php),
            ("java -jar x.jar", Language::Java),
            ("lua5.4 x.lua", Language::Lua),
            ("gawk -f x.awk", Language::Awk),
            ("jq --unbuffered .", Language::Jq),
            ("Rscript x.R", Language::R),
            ("bash x.bash", Language::Shell),
            ("sh -c while read -r line; do echo x; done", Language::Shell),
            ("./decode", Language::Unknown),
            (".py", Language::Unknown),
        ] {
            let words: Vec<&OsStr> = command.split(' ').map(OsStr::new).collect();
            assert_eq!(of_words(&words), language, "{command}");
        }
    }

    #[test]
    fn mawk_is_known_unless_it_reads_lines() {
        for (words, expected) in [
            ("/usr/bin/mawk -f x.awk", true),
            ("/no/such/mawk {}", true),
            ("/no/such/mawk -W interactive {}", false),
            ("/no/such/gawk {}", false),
        ] {
            let mut words = words.split(' ').map(OsString::from);
            let command = Command {
                program: words.next().unwrap(),
                arguments: words.collect(),
            };
            assert_eq!(is_mawk(&command), expected, "{command:?}");
        }
    }

    #[test]
    fn files_tell_the_language_of_commands_that_do_not() {
        for (beginning, language) in [
            (
                &b"#!/usr/bin/env python3\nimport json"[..],
                Language::Python,
            ),
            (b"#!/bin/sh -e\n# python3", Language::Shell),
            (b"\x7fELF\x02", Language::Compiled),
            (
                b"\x7fELF\x02\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0",
                Language::Go,
            ),
            (b"", Language::Unknown),
            (b"MZ", Language::Unknown),
        ] {
            assert_eq!(of_file(beginning), language);
        }
        let own = std::env::current_exe().unwrap();
        let command = Command {
            program: own.into_os_string(),
            arguments: Vec::new(),
        };
        assert_eq!(Language::of(&command, Path::new("/")), Language::Compiled);
    }
}
