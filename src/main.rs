//! `faas-worker`: reads the command line, sets up log, signals and runtime, and serves.

use faas_worker::cli::{self, Task};
use faas_worker::commands::health::health;
use faas_worker::config::Config;
use faas_worker::error::StartError;
use faas_worker::{Stop, logging, serve};
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

fn main() -> ExitCode {
    match cli::parse() {
        Err(status) => status,
        Ok(Task::Health(addresses)) => {
            let (line, is_well) = health(&addresses);
            // Whoever only wants the exit status may have closed its end.
            drop(writeln!(std::io::stdout(), "{line}"));
            ExitCode::from(u8::from(!is_well))
        }
        Ok(Task::Serve(config, log)) => {
            let _guard = logging::start(log.format, log.level);
            match run(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(start_error) => {
                    let cause = std::error::Error::source(&start_error);
                    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                    error!("{start_error}{cause}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn run(config: Config) -> Result<(), StartError> {
    let failed = |what| move |source| StartError::Runtime { what, source };
    // One thread: a second one costs more in hand-overs than it brings where handlers do the work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For large bodies only; more threads than this would take the handlers' share.
        .max_blocking_threads(2)
        .build()
        .map_err(failed("the runtime"))?;
    runtime.block_on(async {
        let stop = Stop::default();
        let mut terminate =
            signal(SignalKind::terminate()).map_err(failed("the handler of SIGTERM"))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(failed("the handler of SIGINT"))?;
        let asked = stop.clone();
        let signals = async move {
            for token in [&asked.drain, &asked.now] {
                // Cancel-safe: a signal that was received is given out by the next call.
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serve(config, stop) => served,
            () = signals => Ok(()),
        }
    })
}
