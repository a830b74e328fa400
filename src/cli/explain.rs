//! Messages about a command line with a mistake, shorter than clap's.

use super::Cli;
use super::variables::closest;
use clap::builder::{PossibleValue, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory};
use std::any::TypeId;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

/// Prints the message about a mistake, or clap's own where there is none here; returns the exit
/// status.
#[expect(
    clippy::print_stderr,
    reason = "there is no log before the settings are read"
)]
pub(super) fn explain(error: &clap::Error, words: &[OsString]) -> ExitCode {
    match message(error, words) {
        Some(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
        None => {
            drop(error.print());
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

fn message(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            bad_value(argument?, context(ContextKind::InvalidValue)?, error)
        }
        ErrorKind::InvalidUtf8 => bad_text(words),
        ErrorKind::MissingRequiredArgument => missing_argument(error),
        ErrorKind::UnknownArgument => {
            let argument = argument?;
            if argument.starts_with('-') {
                let suggested = context(ContextKind::SuggestedArg);
                Some(bad_flag(argument, suggested, words))
            } else {
                Some(bad_word(argument, words))
            }
        }
        ErrorKind::InvalidSubcommand => {
            Some(bad_word(context(ContextKind::InvalidSubcommand)?, words))
        }
        _ => None,
    }
}

/// The message about a bad value, with its flag, its variable and the value.
fn bad_value(argument: &str, value: &str, error: &clap::Error) -> Option<String> {
    let flag = match argument.strip_prefix(['[', '<']) {
        // An argument without a flag, such as [ADDRESS].
        Some(name) => name.split([']', '>']).next()?,
        None => argument.split([' ', '=', '[']).next()?,
    };
    let why = std::error::Error::source(error);
    let why = why.map_or_else(
        || match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(values)) if !values.is_empty() => {
                format!("not one of {}", values.join(", "))
            }
            _ => "a value is missing".to_owned(),
        },
        |why| match is_boolean(flag) {
            true => "not a boolean, expected true or false".to_owned(),
            false => why.to_string(),
        },
    );
    let shown = match value {
        "" if std::error::Error::source(error).is_none() => String::new(),
        _ => format!(": {value:?}"),
    };
    Some(format!("{flag}{}: {why}{shown}", variable_of(flag)))
}

/// The message about an argument that a command needs, with the values that it may have.
fn missing_argument(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = missing.first()?.trim_matches(['<', '>']);
    let command = Cli::command();
    let argument = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|argument| argument.get_id().as_str().eq_ignore_ascii_case(name))?;
    let values = argument.get_possible_values();
    let values: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
    Some(format!(
        "{name}: missing, expected one of {}",
        values.join(", ")
    ))
}

/// The message about a value that is not UTF-8; clap does not name the flag or variable.
fn bad_text(words: &[OsString]) -> Option<String> {
    let words: Vec<&OsString> = words.iter().take_while(|word| *word != "--").collect();
    let typed = words.iter().enumerate().find_map(|(index, word)| {
        if word.to_str().is_some() {
            return None;
        }
        let shown = word.to_string_lossy();
        let flag = match shown.split_once('=') {
            Some((flag, _)) if flag.starts_with("--") => flag.to_owned(),
            _ => words.get(index.checked_sub(1)?)?.to_str()?.to_owned(),
        };
        Some((flag, (*word).clone()))
    });
    let (flag, value) = typed.or_else(|| {
        let command = Cli::command();
        command.get_arguments().find_map(|argument| {
            let value = std::env::var_os(argument.get_env()?)?;
            let is_bad = value.to_str().is_none() && !is_path(argument.get_value_parser());
            is_bad.then(|| (format!("--{}", argument.get_long().unwrap_or("")), value))
        })
    })?;
    Some(format!(
        "{flag}{}: not UTF-8: {value:?}",
        variable_of(&flag)
    ))
}

/// Whether a flag takes a boolean.
fn is_boolean(flag: &str) -> bool {
    let command = Cli::command();
    let argument = find(&command, flag);
    argument.is_some_and(|argument| argument.get_value_parser().type_id() == TypeId::of::<bool>())
}

/// Whether a flag takes a path, which may hold any bytes.
fn is_path(parser: &ValueParser) -> bool {
    parser.type_id() == TypeId::of::<PathBuf>()
}

/// Flags of other programs, with the flag of this one.
const OTHER_NAMES: [(&str, &str); 19] = [
    ("--workers", "--processes"),
    ("--worker", "--processes"),
    ("--instances", "--processes"),
    ("--replicas", "--processes"),
    ("-w", "--processes"),
    ("-n", "--processes"),
    ("--jobs", "--processes"),
    ("-j", "--processes"),
    ("--concurrency", "--max-concurrency"),
    ("--bind", "--host and --port"),
    ("--listen", "--host and --port"),
    ("--address", "--host and --port"),
    ("-p", "--port"),
    ("--token", "--auth-token-file"),
    ("--memory", "--limit-memory"),
    ("--watch", "--reload"),
    ("--cwd", "--chdir"),
    ("--command", "--handler"),
    ("-v", "--version"),
];

fn bad_flag(flag: &str, suggested: Option<&str>, words: &[OsString]) -> String {
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == flag);
    if let Some(message) = split_handler(flag, words).filter(|_| other.is_none()) {
        return message;
    }
    let meant = match other {
        Some((_, "--processes")) if is_batch(words) => Some("--processes (-j)"),
        Some((_, meant)) => Some(*meant),
        None => suggested,
    };
    let meant = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
    format!("unexpected flag {flag}{meant} (faas-worker --help lists them)")
}

/// The message about a word that is no flag and no value: a misspelt command, or most likely a
/// handler without its `--`.
fn bad_word(word: &str, words: &[OsString]) -> String {
    let at = words.iter().position(|typed| typed == word);
    let before = at.and_then(|at| words.get(at.checked_sub(1)?));
    if let Some(flag) = before.and_then(|flag| joined_flag(flag)) {
        return format!("unexpected word {word:?}: did you mean {flag}={word}?");
    }
    if let Some(message) = split_handler(word, words) {
        return message;
    }
    if is_batch(words) && words.iter().any(|word| word == "--") {
        return format!(
            "unexpected word {word:?}: an input file is given with -i, as in: -i {word}"
        );
    }
    let is_first = at == Some(1);
    let meant = near_miss(word);
    if is_first && !meant.is_empty() {
        return format!("unexpected word {word:?}{meant}");
    }
    if let Some(name) = command_without_handler(words) {
        return format!("unexpected word {word:?} (faas-worker {name} --help lists the options)");
    }
    format!("unexpected word {word:?}: a command is given after --, as in: -- {word} ...")
}

fn is_batch(words: &[OsString]) -> bool {
    words.get(1).is_some_and(|first| first == "map")
}

/// The message about a word behind the value of `--handler`: most likely a part of the command,
/// which that flag takes as one word.
fn split_handler(word: &str, words: &[OsString]) -> Option<String> {
    let at = words.iter().position(|typed| typed == word)?;
    let before = words.get(at.checked_sub(1)?)?.to_str()?;
    let program = match before.strip_prefix("--handler=") {
        Some(program) => program,
        None if words.get(at.checked_sub(2)?)? == "--handler" => before,
        None => return None,
    };
    let rest = words[at..].iter().map(|word| word.to_string_lossy());
    let rest = rest.take_while(|word| !word.starts_with("--"));
    let rest: Vec<String> = rest.map(Cow::into_owned).collect();
    let command = format!("{program} {}", shell_words::join(rest));
    let quoted = shell_words::quote(&command);
    Some(format!(
        "unexpected word {word:?}: --handler takes the whole command as one word: \
         --handler {quoted}, or -- {command}"
    ))
}

/// The name of the command that was typed, if it takes no handler after `--`.
fn command_without_handler(words: &[OsString]) -> Option<String> {
    let mut command = Cli::command();
    let first = words.get(1)?;
    let typed = command.find_subcommand_mut(first)?;
    // Arguments that all commands share are known to them only after this.
    typed.build();
    let takes_handler = typed.get_arguments().any(Arg::is_last_set);
    (!takes_handler).then(|| typed.get_name().to_owned())
}

/// The flag, if it takes a value only with an equals sign.
fn joined_flag(flag: &OsStr) -> Option<String> {
    let flag = flag.to_str()?;
    let command = Cli::command();
    let argument = find(&command, flag)?;
    argument.is_require_equals_set().then(|| flag.to_owned())
}

/// Commands of other programs, with the command of this one.
const OTHER_COMMANDS: [(&str, &str); 6] = [
    ("run", "serve"),
    ("start", "serve"),
    ("server", "serve"),
    ("healthcheck", "health"),
    ("status", "health"),
    ("ping", "health"),
];

/// The message about a name that no command has: the command that is meant, or else all of them.
pub(super) fn no_command(name: &str) -> String {
    let advice = match near_miss(name) {
        meant if meant.is_empty() => {
            let command = Cli::command();
            let names = command.get_subcommands().map(clap::Command::get_name);
            format!(", expected one of {}", Vec::from_iter(names).join(", "))
        }
        meant => meant,
    };
    format!("no command {name:?}{advice}")
}

/// `, did you mean health?` if a command has a name like this.
fn near_miss(word: &str) -> String {
    let command = Cli::command();
    let names: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let word = word.to_lowercase();
    let other = OTHER_COMMANDS.iter().find(|(name, _)| *name == word);
    let meant = match other {
        Some((_, meant)) => Some((*meant).to_owned()),
        None => closest(&word, &names),
    };
    meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"))
}

fn variable_of(flag: &str) -> String {
    let command = Cli::command();
    let variable = find(&command, flag).and_then(Arg::get_env);
    variable.map_or_else(String::new, |variable| {
        format!(" ({})", variable.to_string_lossy())
    })
}

fn find<'a>(command: &'a clap::Command, flag: &str) -> Option<&'a Arg> {
    let name = flag.strip_prefix("--")?;
    command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message about a command line, given without the program's name.
    fn said(words: &[&str]) -> String {
        let words: Vec<OsString> = std::iter::once("faas-worker")
            .chain(words.iter().copied())
            .map(OsString::from)
            .collect();
        let words = super::super::words::joined(words.into_iter());
        let error = Cli::command().try_get_matches_from(&words).unwrap_err();
        message(&error, &words).unwrap_or_else(|| error.to_string())
    }

    #[test]
    fn mistakes_are_answered_with_what_to_type() {
        for (words, expected) in [
            (
                &["helth"][..],
                "unexpected word \"helth\", did you mean health?",
            ),
            (
                &["Health"],
                "unexpected word \"Health\", did you mean health?",
            ),
            (&["hepl"], "unexpected word \"hepl\", did you mean help?"),
            (
                &["versoin"],
                "unexpected word \"versoin\", did you mean version?",
            ),
            (&["run"], "unexpected word \"run\", did you mean serve?"),
            (
                &["serve", "python3"],
                "unexpected word \"python3\": a command is given after --, as in: -- python3 ...",
            ),
            (
                &["--port", "80", "helth"],
                "unexpected word \"helth\": a command is given after --, as in: -- helth ...",
            ),
            (
                &["--workers", "3"],
                "unexpected flag --workers, did you mean --processes? (faas-worker --help lists them)",
            ),
            (
                &["-w", "3"],
                "unexpected flag -w, did you mean --processes? (faas-worker --help lists them)",
            ),
            (
                &["map", "--jobs", "4"],
                "unexpected flag --jobs, did you mean --processes (-j)? (faas-worker --help lists them)",
            ),
            (
                &["-j", "4"],
                "unexpected flag -j, did you mean --processes? (faas-worker --help lists them)",
            ),
            (
                &["map", "in.txt", "--", "cat"],
                "unexpected word \"in.txt\": an input file is given with -i, as in: -i in.txt",
            ),
            (
                &["map", "cat"],
                "unexpected word \"cat\": a command is given after --, as in: -- cat ...",
            ),
            (
                &["--handler", "perl", "stats.pl", "--port", "80"],
                "unexpected word \"stats.pl\": --handler takes the whole command as one word: \
                 --handler 'perl stats.pl', or -- perl stats.pl",
            ),
            (
                &["serve", "--handler=python3", "-u", "x.py"],
                "unexpected word \"-u\": --handler takes the whole command as one word: \
                 --handler 'python3 -u x.py', or -- python3 -u x.py",
            ),
            (
                &["top", "localhost"],
                "ADDRESS: not an address with a port, expected e.g. 127.0.0.1:9000: \"localhost\"",
            ),
            (
                &["--prot", "80"],
                "unexpected flag --prot, did you mean --port? (faas-worker --help lists them)",
            ),
            (
                &["--processes", "-1"],
                "--processes (FAAS_PROCESSES): not a whole number from 1 to 1000000: \"-1\"",
            ),
            (
                &["--timeout", "-1s"],
                "--timeout (FAAS_TIMEOUT): not a duration, expected e.g. 250ms or 30s: \"-1s\"",
            ),
            (
                &["--reload", "src", "--", "x"],
                "unexpected word \"src\": did you mean --reload=src?",
            ),
            (
                &["--wait-ready", "true"],
                "unexpected word \"true\": did you mean --wait-ready=true?",
            ),
            (&["--host"], "--host (HOST): a value is missing"),
            (
                &["--sandbox=ja"],
                "--sandbox (FAAS_SANDBOX): not a boolean, expected true or false: \"ja\"",
            ),
            (
                &["completions"],
                "SHELL: missing, expected one of bash, elvish, fish, powershell, zsh",
            ),
        ] {
            assert_eq!(said(words), expected, "{words:?}");
        }
    }
}
