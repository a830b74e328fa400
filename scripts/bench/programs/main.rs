//! The programs that `scripts/bench.sh` measures with: one binary, so that there is one to build.
//!
//! Nothing of the worker is in here but the handler library and, for `path`, the parts that a
//! request passes on its way.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::disallowed_methods)]

mod bare_hyper;
mod first_answer;
mod function;
mod load;
mod path;
mod pipelined;
mod pipes;
mod sleep;
mod turnaround;
mod turns;

use clap::{Parser, Subcommand};
use std::hint::black_box;
use std::process::ExitCode;

/// What is measured, and what measures it.
#[derive(Parser)]
#[command(name = "bench")]
enum Program {
    /// Sends requests and prints what came of them as JSON
    Load(Box<load::Options>),
    /// Sends many requests in each write, and prints how many were answered
    Pipelined(pipelined::Options),
    /// The same HTTP server as the worker's, without any process behind it
    BareHyper(bare_hyper::Options),
    /// A handler that takes a given time for each request
    Sleep(sleep::Options),
    /// Such a handler that measures how long it waits from a reply to the next request
    Turnaround(turnaround::Options),
    /// Moves bytes into processes and back, with nothing else done to them
    Pipes(pipes::Options),
    /// Gives processes one line at a time, with no HTTP around it
    Turns(turns::Options),
    /// Starts a server again and again, and prints how long its first answer took
    FirstAnswer(first_answer::Options),
    /// Takes requests along their path through the worker, without sockets and pipes
    Path(PathOptions),
    #[command(subcommand, hide = true)]
    Child(Child),
}

#[derive(clap::Args)]
struct PathOptions {
    /// Which requests
    #[arg(long, value_enum)]
    case: path::Case,
    /// How many
    #[arg(long)]
    requests: u64,
}

/// Processes that the programs start themselves.
#[derive(Subcommand)]
enum Child {
    /// Reads so many bytes and writes them back, until there are no more
    PipeEnd { bytes: usize },
}

fn main() -> ExitCode {
    let done = match Program::parse() {
        Program::Load(options) => load::run(&options),
        Program::Pipelined(options) => pipelined::run(&options),
        Program::BareHyper(options) => bare_hyper::run(&options),
        Program::Sleep(options) => sleep::run(&options),
        Program::Turnaround(options) => turnaround::run(&options),
        Program::Pipes(options) => pipes::run(&options),
        Program::Turns(options) => turns::run(&options),
        Program::FirstAnswer(options) => first_answer::run(&options),
        Program::Path(options) => {
            let mut path = path::Path::new(options.case);
            for _ in 0..options.requests {
                black_box(path.request());
            }
            Ok(())
        }
        Program::Child(Child::PipeEnd { bytes }) => pipes::end(bytes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
