//! Reads flags and environment variables into settings.
//!
//! The only place that knows clap. Flags win over the environment, the environment over defaults.

mod explain;
mod generated;
mod help;
mod options;
mod sizes;
mod values;
mod variables;
mod words;

use crate::check::{CheckConfig, ReportForm, Rule};
use crate::config::map::MapConfig;
use crate::config::{Config, LogFormat};
use crate::version::version;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use explain::explain;
use help::{Extent, laid_out};
use options::{CheckOptions, HealthOptions, MapOptions, ServeOptions, TopOptions, serve};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing::Level;
pub use variables::{UnknownVariable, unknown_variables};

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Run the worker.
    Serve(Box<Config>, LogSettings),
    /// Run a batch.
    Map(Box<Config>, Box<MapConfig>, LogSettings),
    /// Ask a running worker whether it answers.
    Health(Vec<SocketAddr>),
    /// Ask a running worker whether it is ready.
    Ready(Vec<SocketAddr>),
    /// Show what a running worker does.
    Top(TopSettings),
    /// Write a handler into the directory, in the language of this name.
    New(String, PathBuf),
    /// List the languages of handlers.
    Languages,
    /// Check a handler.
    Check(Box<CheckSettings>),
    /// Print the rules of a check.
    ListRules,
    /// Print what a rule of a check is about.
    ExplainRule(Rule),
}

/// What `faas-worker check` tries, and how it tells of it.
#[derive(Debug)]
pub struct CheckSettings {
    /// What is tried.
    pub config: CheckConfig,
    /// The form of the findings.
    pub form: ReportForm,
    /// Whether rules that should be kept count as rules that must be.
    pub is_strict: bool,
}

/// What `faas-worker top` looks at, and how often.
#[derive(Debug)]
pub struct TopSettings {
    /// Addresses of the worker, in the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// Time between two samples.
    pub interval: Duration,
    /// Whether one table is printed, and no more.
    pub once: bool,
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
#[expect(
    clippy::print_stderr,
    reason = "there is no log before the settings are read"
)]
pub fn parse() -> Result<Task, ExitCode> {
    let words = words::joined(std::env::args_os());
    let command = without_empty_variables(command_line());
    let command = laid_out(command, Extent::asked_by(&words)).version(version());
    let matches = command.try_get_matches_from(&words);
    let refused = |message| {
        eprintln!("{message}");
        ExitCode::from(2)
    };
    let matches = matches.map_err(|error| explain(&error, &words))?;
    let serving = matches
        .subcommand()
        .filter(|(name, _)| ["serve", "map", "check"].contains(name));
    let serving = serving.map_or(&matches, |(_, serving)| serving);
    words::check_command(serving).map_err(refused)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| explain(&error, &words))?;
    let task = match cli.task {
        Some(TaskName::Serve(options)) => serve(options),
        Some(TaskName::Map(options)) => options.task(),
        Some(TaskName::Health(options)) => options.task(),
        Some(TaskName::Top(options)) => options.task(),
        Some(TaskName::New {
            language,
            directory,
        }) => Ok(match language {
            Some(language) => Task::New(language, directory),
            None => Task::Languages,
        }),
        Some(TaskName::Completions { shell }) => {
            generated::print_completions(shell);
            return Err(ExitCode::SUCCESS);
        }
        Some(TaskName::Man { command }) => {
            generated::print_man_page(command.as_deref()).map_err(refused)?;
            return Err(ExitCode::SUCCESS);
        }
        Some(TaskName::Check(options)) => options.task(),
        Some(TaskName::Help { command }) => {
            help::print(command.as_deref()).map_err(refused)?;
            return Err(ExitCode::SUCCESS);
        }
        Some(TaskName::Version) => {
            // A reader may have closed its end.
            drop(writeln!(std::io::stdout(), "faas-worker {}", version()));
            return Err(ExitCode::SUCCESS);
        }
        None => serve(cli.options),
    };
    match task.map_err(refused)? {
        // Elsewhere it goes on: a container stays up and tells each caller why.
        Task::Serve(config, _) if config.command.is_none() && std::io::stderr().is_terminal() => {
            Err(refused(help::no_handler()))
        }
        task => Ok(task),
    }
}

/// The definition of the command line.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommand("map", options::of_batch)
}

/// Ignores empty variables: compose files and charts leave variables empty that are not meant to
/// be set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let variable = argument.get_env().and_then(std::env::var_os);
        variable.is_some_and(|value| value.is_empty())
    };
    let unset = move |argument: clap::Arg| {
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
                            faas-worker map [OPTIONS] -- COMMAND [ARGS...]\n       \
                            faas-worker health [--ready] [OPTIONS]\n       \
                            faas-worker top [ADDRESS] [OPTIONS]\n       \
                            faas-worker new [LANGUAGE [DIRECTORY]]\n       \
                            faas-worker check [OPTIONS] -- COMMAND [ARGS...]"
)]
#[command(disable_help_subcommand = true, disable_help_flag = true)]
struct Cli {
    /// Print help, short with -h
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(subcommand)]
    task: Option<TaskName>,
    #[command(flatten)]
    options: ServeOptions,
}

#[derive(Debug, Subcommand)]
enum TaskName {
    /// Run the worker (the default)
    Serve(ServeOptions),
    /// Run a batch: input lines to reply lines, over all processes
    Map(MapOptions),
    /// Ask a running worker whether it answers: exit status 0 or 1
    Health(HealthOptions),
    /// Show a running worker and its processes, as a live table
    Top(TopOptions),
    /// Write a small working handler in a language; without one, list the languages
    New {
        /// The language: one of those that the command lists without it
        language: Option<String>,
        /// Where the files go; made if it is missing
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page, of all or of one command
    Man { command: Option<String> },
    /// Check whether a command is a correct handler, and say how to mend it: exit status 0 or 1
    Check(CheckOptions),
    /// Print help, of all or of one command
    Help { command: Option<String> },
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }
}
