//! Completion scripts and manual pages, generated from the definition of the command line.

use super::command_line;
use super::explain::near_miss;
use crate::version::version;
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::io::{Write, stdout};

/// Prints the completion script of a shell.
pub(super) fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    generate(shell, &mut command_line(), "faas-worker", &mut script);
    print(&script);
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
            .ok_or_else(|| format!("no command {name:?}{}", near_miss(name)))?,
    };
    let title = command.get_display_name().unwrap_or("faas-worker");
    let man = Man::new(command.clone()).title(title).manual("faas-worker");
    let mut page = Vec::new();
    man.render(&mut page)
        .map_err(|error| format!("cannot make the manual page: {error}"))?;
    Ok(page)
}

/// A reader that has closed its end wants no more of it.
fn print(text: &[u8]) {
    drop(stdout().write_all(text));
}
