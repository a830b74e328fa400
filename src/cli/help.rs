//! The help: as wide as the terminal, in short with -h and whole with --help.

use super::Cli;
use super::explain::no_command;
use clap::{Arg, Command, CommandFactory};
use std::ffi::{OsStr, OsString};

/// Columns where neither a terminal nor `COLUMNS` says how many there are.
const DEFAULT_WIDTH: usize = 80;

/// Most columns: longer lines are hard to read.
const MAX_WIDTH: usize = 120;

/// Flags of the short help, the ones that most people set, each with a text that fits its line.
const COMMON: [(&str, &str); 15] = [
    ("handler", "The command, instead of after --"),
    ("host", "Address of the worker"),
    ("port", "Port; 0 picks a free one"),
    ("processes", "Processes to keep alive [default: the CPUs]"),
    ("max-processes", "Processes to grow to under load"),
    ("wait-ready", "No request before a process's ready line"),
    ("reload", "Replace the processes when files change"),
    ("timeout", "Longest time for one reply"),
    ("queue", "Requests that may wait"),
    ("max-body", "Largest request body"),
    ("allow-host", "A host name to accept beyond loopback"),
    ("auth-token-file", "Tokens of which callers need one"),
    ("log-level", "error, warn, info, debug, trace"),
    ("help", "Print this; --help prints all there is"),
    ("version", "Print the version"),
];

/// How much of the help is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Short,
    Whole,
}

impl Extent {
    /// The extent for these words, the program's name among them: short for `-h`, else whole.
    pub(super) fn asked_by(words: &[OsString]) -> Extent {
        let mut options = words.iter().take_while(|word| *word != "--");
        if options.any(|word| word == "-h") {
            Extent::Short
        } else {
            Extent::Whole
        }
    }
}

/// The command line with its help set out for this terminal, to this extent.
pub(super) fn laid_out(command: Command, extent: Extent) -> Command {
    let described = move |argument: Arg| {
        let is_switch = argument.get_value_names() == Some(&["BOOL".into()]);
        let argument = argument
            .hide_env_values(true)
            .hide_possible_values(is_switch)
            .hide_default_value(is_switch);
        match extent {
            Extent::Short => shortened(argument),
            Extent::Whole => argument.next_line_help(true),
        }
    };
    let command = command
        .term_width(width())
        .mut_args(described)
        .mut_subcommands(move |task| task.term_width(width()).mut_args(described))
        // Both ask at a port that is in use, so 0 means nothing there.
        .mut_subcommand("health", |health| {
            health.mut_arg("port", |port| port.help(PORT_OF_WORKER))
        })
        .mut_subcommand("top", |top| {
            top.mut_arg("port", |port| port.help(PORT_OF_WORKER))
        });
    match extent {
        Extent::Short => command.after_help(SHORT_END),
        Extent::Whole => command.after_help(format!("{EXAMPLE}\n\n{UNITS}\n\n{STATUSES}")),
    }
}

/// A flag as in the short help: on one line without a heading, or hidden.
fn shortened(argument: Arg) -> Arg {
    let argument = argument
        .hide_env(true)
        .help_heading(clap::builder::Resettable::Reset);
    let Some(name) = argument.get_long() else {
        return argument;
    };
    match COMMON.iter().find(|(common, _)| *common == name) {
        Some((_, text)) => argument.help(*text),
        // Flags of one command alone have no variable.
        None if argument.get_env().is_none() => argument,
        None => argument.hide_short_help(true),
    }
}

const PORT_OF_WORKER: &str =
    "Its port [default: 8000, on OpenFaaS 8080, on Azure Functions its own]";

const SHORT_END: &str = "faas-worker --help has all options, with the variable that sets each.";

// Needs only a shell, and can be copied as it stands.
const EXAMPLE: &str = "\
Example, with a function that answers anything with 42:
  faas-worker -- sh -c 'while read -r line; do echo \"{\\\"result\\\":42}\"; done'
  curl --json '{\"payload\":\"\"}' http://127.0.0.1:8000/";

const UNITS: &str = "\
Durations are written 250ms, 30s, 5m; sizes 64KiB, 8MiB. Each option can be set by the variable \
named beside it; what is typed wins.";

const STATUSES: &str = "\
Exit status: 0 after an orderly end, 1 if the worker cannot start, 2 for a bad setting, 3 by --exit-on-failure.";

/// Prints the help of all, or of one command.
pub(super) fn print(name: Option<&str>) -> Result<(), String> {
    let mut command = laid_out(super::command_line(), Extent::Whole);
    command.build();
    // A reader that has closed its end wants no more of it.
    let printed = match name.filter(|name| *name != "serve") {
        None => command.print_help(),
        Some(name) => match command.find_subcommand_mut(name) {
            Some(task) => task.print_help(),
            None => return Err(no_command(name)),
        },
    };
    drop(printed);
    Ok(())
}

/// The message for a start without a handler.
pub(super) fn no_handler() -> String {
    let usage = Cli::command().render_usage();
    format!(
        "no handler: give its command after --, with --handler, or in HANDLER_FUNCTION\n\n\
         {usage}\n\n{EXAMPLE}\n\nfaas-worker -h has the options that most people set."
    )
}

/// Columns of the terminal on which the help is read.
fn width() -> usize {
    let columns = |name: &OsStr| name.to_str()?.parse().ok();
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout());
    let terminal = terminal.map(|size| usize::from(size.ws_col)).ok();
    let told = || std::env::var_os("COLUMNS").as_deref().and_then(columns);
    terminal
        .or_else(told)
        .filter(|columns| *columns > 0)
        .unwrap_or(DEFAULT_WIDTH)
        .min(MAX_WIDTH)
}
