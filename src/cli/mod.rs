//! What was typed: flags and environment variables, and the settings they mean.
//!
//! The only place that knows clap. Flags win over the environment, the environment over defaults.

mod explain;
mod isolation;
mod options;
mod sizes;
mod values;
mod variables;

use crate::config::{Config, LogFormat};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use explain::explain;
use options::{Address, ServeOptions, serve};
use std::net::SocketAddr;
use std::process::ExitCode;
use tracing::Level;
pub use variables::unknown_variables;

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Run the worker.
    Serve(Box<Config>, LogSettings),
    /// Ask a running worker how it is.
    Health(Vec<SocketAddr>),
}

/// How much is logged, and how.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// The least severe level that is logged.
    pub level: Level,
}

/// Reads the command line and the environment. On a mistake, or when help was asked for, prints
/// what there is to say and gives the exit status.
pub fn parse() -> Result<Task, ExitCode> {
    let matches = without_empty_variables(Cli::command()).try_get_matches();
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| explain(&error))?;
    let task = match cli.task {
        Some(TaskName::Serve(options)) => serve(options),
        Some(TaskName::Health(address)) => Ok(Task::Health(address.resolve())),
        None => serve(cli.options),
    };
    task.map_err(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}

/// An empty variable is one that is not set: compose files and charts leave them so.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let variable = argument.get_env().and_then(std::env::var_os);
        variable.is_some_and(|value| value.is_empty())
    };
    let unset = move |argument: clap::Arg| {
        let argument = argument.hide_env_values(true);
        if is_empty(&argument) {
            argument.env(clap::builder::Resettable::Reset)
        } else {
            argument
        }
    };
    command
        .mut_args(unset)
        .mut_subcommands(move |task| task.mut_args(unset))
}

/// Turns any command into an HTTP function.
///
/// Starts the command several times ahead of need, speaks newline-delimited JSON with those
/// processes over stdin and stdout, and answers POST / with what they return.
#[derive(Debug, Parser)]
#[command(name = "faas-worker", version, args_conflicts_with_subcommands = true)]
#[command(
    override_usage = "faas-worker [serve] [OPTIONS] [-- COMMAND [ARGS...]]\n       \
                            faas-worker health [--host HOST] [--port PORT]"
)]
#[command(
    after_help = "Durations are written 250ms, 30s, 5m; sizes 64KiB, 8MiB. \
                        Each option can be set by the variable named beside it.\n\n\
                        Example: faas-worker --port 8000 -- python3 examples/python/serve.py \
                        examples.python.handler.decode_type_a"
)]
#[command(disable_help_subcommand = true, disable_help_flag = true)]
struct Cli {
    /// Print help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(subcommand)]
    task: Option<TaskName>,
    #[command(flatten)]
    options: ServeOptions,
}

// Made once, at the start: its size is of no account.
#[expect(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
enum TaskName {
    /// Run the worker (the default)
    Serve(ServeOptions),
    /// Ask a running worker whether it answers: exit status 0 or 1
    Health(Address),
}

#[cfg(test)]
mod tests {
    use super::options::command;
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let split = |text: &str| command(Some(text.to_owned()), Vec::new());
        let words = split(r#"a 'b c' "d $(e)" f\ g"#).unwrap().unwrap();
        assert_eq!(words.program, "a");
        assert_eq!(words.arguments, ["b c", "d $(e)", "f g"]);
        assert_eq!(split("  ").unwrap(), None);
        assert!(
            split("a 'b")
                .unwrap_err()
                .starts_with("--handler (HANDLER_FUNCTION): ")
        );
    }
}
