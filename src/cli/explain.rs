//! What is said of a command line that cannot be understood.

use super::Cli;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::process::ExitCode;

/// Prints what clap has to say; a bad value with its flag, its variable and the value.
pub(super) fn explain(error: &clap::Error) -> ExitCode {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let is_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    );
    if is_value
        && let (Some(argument), Some(value)) = (
            context(ContextKind::InvalidArg),
            context(ContextKind::InvalidValue),
        )
    {
        let flag = argument.split([' ', '=', '[']).next().unwrap_or(argument);
        let why = std::error::Error::source(error);
        let why = why.map_or_else(
            || "a value is missing, or is not one".to_owned(),
            ToString::to_string,
        );
        eprintln!("{flag}{}: {why}: {value:?}", variable_of(flag));
        return ExitCode::from(2);
    }
    // A word that is no flag: most likely a command without its `--`.
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(word) = context(ContextKind::InvalidArg).filter(|word| !word.starts_with('-'))
    {
        eprintln!("unexpected word {word:?}: a command is given after --, as in: -- {word} ...");
        return ExitCode::from(2);
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(flag) = context(ContextKind::InvalidArg)
    {
        let meant = context(ContextKind::SuggestedArg);
        let meant = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
        eprintln!("unexpected flag {flag}{meant} (faas-worker --help lists them)");
        return ExitCode::from(2);
    }
    drop(error.print());
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn variable_of(flag: &str) -> String {
    let command = Cli::command();
    let name = flag.trim_start_matches('-');
    let found = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name));
    let variable = found.and_then(clap::Arg::get_env);
    variable.map_or_else(String::new, |variable| {
        format!(" ({})", variable.to_string_lossy())
    })
}
