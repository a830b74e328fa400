//! `faas-worker`: reads the command line, sets up log, signals and runtime, and serves.

mod signals;

use faas_worker::cli::{self, LogSettings, Task, UnknownVariable};
use faas_worker::commands::check;
use faas_worker::commands::health::{Question, health};
use faas_worker::commands::new;
use faas_worker::commands::top::top;
use faas_worker::config::Config;
use faas_worker::config::map::MapConfig;
use faas_worker::error::StartError;
use faas_worker::map::map;
use faas_worker::process::launch::launch_if_asked;
use faas_worker::service_manager::InheritedSockets;
use faas_worker::threads::Runtimes;
use faas_worker::{Control, logging, serve};
use signals::Signals;
use std::io::Write;
use std::process::ExitCode;
use tracing::{error, warn};

/// Prints the state of a worker, good or bad.
fn tell(state: Result<String, String>) -> ExitCode {
    let (line, status) = match state {
        Ok(line) => (line, ExitCode::SUCCESS),
        Err(line) => (line, ExitCode::FAILURE),
    };
    // A caller that only wants the exit status may have closed its end.
    drop(writeln!(std::io::stdout(), "{line}"));
    status
}

fn main() -> ExitCode {
    // First, because each start of a process comes this way.
    if let Some(status) = launch_if_asked() {
        return status;
    }
    match cli::parse() {
        Err(status) => status,
        Ok(Task::Health(addresses)) => tell(health(&addresses, Question::Health)),
        Ok(Task::Ready(addresses)) => tell(health(&addresses, Question::Ready)),
        Ok(Task::Top(settings)) => top(&settings.addresses, settings.interval, settings.once),
        Ok(Task::New(language, directory)) => new::new(&language, &directory),
        Ok(Task::Languages) => new::list(),
        Ok(Task::ListRules) => {
            check::list();
            ExitCode::SUCCESS
        }
        Ok(Task::ExplainRule(rule)) => {
            check::explain(rule);
            ExitCode::SUCCESS
        }
        Ok(Task::Check(settings)) => {
            check::run(&settings.config, settings.form, settings.is_strict)
        }
        // Sockets are taken before there is a second thread.
        Ok(Task::Serve(config, log)) => match InheritedSockets::take() {
            Ok(inherited) => logged(log, || run(*config, inherited).map(|()| 0)),
            Err(why) => {
                drop(writeln!(std::io::stderr(), "{why}"));
                ExitCode::from(2)
            }
        },
        Ok(Task::Map(config, batch, log)) => logged(log, || run_batch(*config, *batch)),
    }
}

/// Runs with the log; gives the exit status.
fn logged(log: LogSettings, run: impl FnOnce() -> Result<u8, StartError>) -> ExitCode {
    let _last_lines = match logging::start(log.format, log.level) {
        Ok(last_lines) => last_lines,
        Err(error) => {
            // There is no log yet. With a closed stderr, the line is lost.
            let line = format!("cannot start the thread that writes the log: {error}");
            drop(writeln!(std::io::stderr(), "{line}"));
            return ExitCode::FAILURE;
        }
    };
    warn_of_unknown_variables();
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(start_error) => {
            let cause = std::error::Error::source(&start_error);
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            match start_error.exit_status() {
                // As any other bad setting is told.
                #[expect(clippy::print_stderr, reason = "as clap tells of a setting")]
                2 => eprintln!("{start_error}{cause}"),
                _ => error!("{start_error}{cause}"),
            }
            ExitCode::from(start_error.exit_status())
        }
    }
}

/// Variables that are no settings, and what handlers will not see of the environment.
fn warn_of_unknown_variables() {
    for UnknownVariable {
        name: variable,
        meant,
        is_withheld,
    } in cli::unknown_variables()
    {
        let hint = meant.map_or_else(
            || "faas-worker --help lists them.".to_owned(),
            |meant| format!("is {meant} meant?"),
        );
        let withheld = if is_withheld {
            " The handler will not see it: FAAS_ is the worker's prefix."
        } else {
            ""
        };
        warn!(variable, "no setting has this name; {hint}{withheld}");
    }
}

fn run(config: Config, inherited: InheritedSockets) -> Result<(), StartError> {
    let failed = |what| move |source| StartError::Runtime { what, source };
    let runtimes = Runtimes::start(config.threads).map_err(failed("the threads that serve"))?;
    let threads = runtimes.threads();
    runtimes.block_on(async {
        let control = Control::default();
        let signals = Signals::listen()?.obey(control.clone());
        // Cancel-safe: signals are listened to for as long as it serves, and no longer.
        tokio::select! {
            served = serve(config, control, threads, inherited) => served,
            () = signals => Ok(()),
        }
    })
}

/// Runs a batch; gives the exit status, which tells of the signal that ended it.
fn run_batch(config: Config, batch: MapConfig) -> Result<u8, StartError> {
    let failed = |what| move |source| StartError::Runtime { what, source };
    let runtimes = Runtimes::start(config.threads).map_err(failed("the threads that serve"))?;
    let threads = runtimes.threads();
    runtimes.block_on(async {
        let control = Control::default();
        let signals = Signals::listen()?;
        let first_stop = signals.first_stop();
        let signals = signals.obey(control.clone());
        // Cancel-safe: signals are listened to for as long as the batch runs, and no longer.
        let status = tokio::select! {
            status = map(config, batch, control.shutdown, threads) => status?,
            () = signals => 0,
        };
        Ok(first_stop.exit_status().unwrap_or(status))
    })
}
