//! Checks and repairs of the command line's words, before and after clap has read them.

use clap::ArgMatches;
use clap::parser::ValueSource;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The words, with each negative number joined to the flag before it, so that clap reads the number
/// as a bad value and not as an unknown flag.
pub(super) fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut is_option = true;
    for word in words {
        is_option = is_option && word != "--";
        let is_negative = word.to_str().is_some_and(|word| {
            let number = word.strip_prefix('-').unwrap_or("");
            number.starts_with(|c: char| c.is_ascii_digit())
        });
        match joined.last_mut().filter(|_| is_option && is_negative) {
            Some(flag) if is_flag_alone(flag) => {
                flag.push("=");
                flag.push(word);
            }
            Some(_) | None => joined.push(word),
        }
    }
    joined
}

fn is_flag_alone(word: &OsStr) -> bool {
    let word = word.to_str().unwrap_or("");
    word.starts_with("--") && !word.contains('=')
}

/// Refuses a command of the handler that is given twice, or is a whole command line in one word.
pub(super) fn check_command(matches: &ArgMatches) -> Result<(), String> {
    let Ok(Some(mut command)) = matches.try_get_many::<OsString>("command") else {
        return Ok(());
    };
    if matches.value_source("handler") == Some(ValueSource::CommandLine) {
        return Err("--handler and a command after -- were both given: one of them".to_owned());
    }
    let program = command
        .next()
        .map_or("", |program| program.to_str().unwrap_or(""));
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !is_several_words(program) || is_file(program, &path) {
        return Ok(());
    }
    let others = command.map(|word| format!(" {}", quoted(word)));
    let typed: String = std::iter::once(program.trim().to_owned())
        .chain(others)
        .collect();
    Err(format!(
        "{program:?} is one word, and no command has this name; without the quotes it is several: \
         -- {typed}"
    ))
}

fn is_several_words(program: &str) -> bool {
    program.trim().contains(char::is_whitespace)
}

fn is_file(program: &str, path: &OsStr) -> bool {
    let is_in_path = || std::env::split_paths(path).any(|folder| folder.join(program).is_file());
    Path::new(program).exists() || !program.contains('/') && is_in_path()
}

/// A word with the quotes that a shell needs.
fn quoted(word: &OsStr) -> String {
    shell_words::quote(&word.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_number_belongs_to_the_flag_before_it() {
        let words = |typed: &str| -> Vec<OsString> { joined(typed.split(' ').map(OsString::from)) };
        assert_eq!(words("w --processes -1"), ["w", "--processes=-1"]);
        assert_eq!(words("w --timeout -1s --x"), ["w", "--timeout=-1s", "--x"]);
        assert_eq!(words("w --port=1 -2"), ["w", "--port=1", "-2"]);
        assert_eq!(
            words("w -- --processes -1"),
            ["w", "--", "--processes", "-1"]
        );
        assert_eq!(words("w --port -h"), ["w", "--port", "-h"]);
    }
}
