//! `faas-worker map`: input lines to reply lines, over the processes of a pool.
//!
//! A thread reads lines and finds their payloads (`input`, `lines`, `payload`); a bounded number of
//! items is in hand at one time (`window`, `size`, `retry`); a thread writes replies (`reply`,
//! `output`) and after them the job log (`job_log`), from which a later run goes on (`files`).
//! `halt` and `progress` follow the items that have ended; `run` joins the parts, and `end` tells
//! how a run ended.

mod end;
mod files;
mod halt;
mod input;
mod job_log;
mod lines;
mod output;
mod payload;
mod progress;
mod reply;
mod retry;
mod run;
mod size;
mod stderr;
mod window;

use crate::budget::MemoryBudget;
use crate::config::map::MapConfig;
use crate::config::{Command, Config};
use crate::error::StartError;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::process::reaping::{end_orphans, reap_in_time};
use crate::shutdown::{Shutdown, Stage};
use crate::threads::Threads;
use crate::worker::{LAST_KILLS_TIMEOUT, prepare_system};
use end::{BatchEnd, USAGE, status_and_lines};
use input::{Input, Source};
use output::Output;
use progress::Progress;
use run::Run;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stderr::{Stderr, Teller};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Runs a batch to its end; returns the exit status. From [`Stage::Draining`] on no line is read,
/// and items in hand are finished; [`Stage::Killing`] ends the run immediately.
///
/// # Errors
///
/// When the processes cannot be started on this system.
pub async fn map(
    config: Config,
    map: MapConfig,
    shutdown: Shutdown,
    threads: Threads,
) -> Result<u8, StartError> {
    let stderr = Stderr::start().map_err(|source| StartError::Runtime {
        what: "the thread that writes to standard error",
        source,
    })?;
    if map.output.is_none() && output::was_closed(std::io::stdout()) {
        stderr.teller().tell(
            "map: standard output is closed, or is /dev/null: replies go nowhere; -o FILE keeps them",
        );
    }
    let opened = open_apart(&config, &map, stderr.teller());
    // Cancel-safe: the program ends. A pipe without its other end opens when that end does.
    let (status, last_lines) = match shutdown.run_until(Stage::Draining, opened).await {
        None => (0, vec![ended_by_signal(&map)]),
        Some(Err(why)) => (USAGE, vec![format!("map: {why}")]),
        Some(Ok(opened)) => {
            let teller = stderr.teller();
            run(opened, &teller, &config, &map, &shutdown, &threads).await?
        }
    };
    stderr.finish(&last_lines, &shutdown).await;
    Ok(status)
}

/// Runs a batch whose files are open; returns the exit status and the last lines.
async fn run(
    (mut input, output, before): (Input, Output, Before),
    teller: &Teller,
    config: &Config,
    map: &MapConfig,
    shutdown: &Shutdown,
    threads: &Threads,
) -> Result<(u8, Vec<String>), StartError> {
    for warning in &before.warnings {
        teller.tell(warning);
    }
    let began = Instant::now();
    // Without a line no process is started.
    let first = shutdown
        .run_until(Stage::Draining, input.batches.recv())
        .await
        .flatten();
    let is_in_the_way = map.output.is_none() && std::io::stdout().is_terminal();
    let progress = Progress::new(map.progress, is_in_the_way, input.size, teller.clone());
    let mut run = Run::new(map, &output, progress);
    run.offset = before.length;
    run.counts.done_before = before.done;
    run.counts.failed_before = before.failed;
    let end = match first {
        None => BatchEnd::Whole,
        Some(Err(why)) => BatchEnd::Input(why),
        Some(Ok(lines)) => {
            run.begin_at(&lines);
            run.read_lines.extend(lines);
            with_processes(&mut run, &mut input, config, shutdown, threads).await?
        }
    };
    let (counts, unfinished) = (run.counts, run.unfinished);
    // The thread that writes ends when no sender is left.
    drop(run);
    let written = output.finish(shutdown).await;
    let mut last_lines = Vec::new();
    if shutdown.is_at_least(Stage::Draining) && written.is_ok() {
        last_lines.push(ended_by_signal(map));
    }
    let (status, lines) = status_and_lines(map, &end, counts, unfinished, began.elapsed(), written);
    last_lines.extend(lines);
    Ok((status, last_lines))
}

fn ended_by_signal(map: &MapConfig) -> String {
    match map.job_log {
        Some(_) => "map: ended by a signal; --resume goes on",
        None => "map: ended by a signal, before the end of its input",
    }
    .to_owned()
}

/// What the runs before have left.
struct Before {
    /// Bytes of the output.
    length: u64,
    /// Items that are not done again.
    done: u64,
    /// Items of these that failed.
    failed: u64,
    /// What is to be told before the run.
    warnings: Vec<String>,
}

/// Opens all files on a thread of their own, because a pipe without its other end holds it up.
async fn open_apart(
    config: &Config,
    map: &MapConfig,
    teller: Teller,
) -> Result<(Input, Output, Before), String> {
    let command = config.command.as_ref().map(Command::shown);
    let (command, map) = (command.unwrap_or_default(), map.clone());
    let (done, opened) = oneshot::channel();
    std::thread::Builder::new()
        .name("map-open".to_owned())
        // The receiver goes with a signal.
        .spawn(move || drop(done.send(open(&command, &map, teller))))
        .map_err(|error| format!("cannot start the thread that opens files: {error}"))?;
    let panicked = |_| Err("the thread that opens files has panicked".to_owned());
    opened.await.unwrap_or_else(panicked)
}

/// Opens all files, and starts the threads that read and write.
fn open(command: &str, map: &MapConfig, teller: Teller) -> Result<(Input, Output, Before), String> {
    let sources = input::open(map)?;
    let opened = files::open(map, &sources, command)?;
    let mut before = Before {
        length: opened.length,
        done: opened.logged.done(),
        failed: opened.logged.failed(),
        warnings: opened.warnings,
    };
    if sources.iter().any(Source::is_terminal) {
        let typed = "map: reading from the terminal, up to Ctrl-D";
        before.warnings.push(typed.to_owned());
    }
    let input = input::start(map, sources, opened.logged)?;
    let output = Output::start(opened.files, teller)
        .map_err(|error| format!("cannot start the thread that writes replies: {error}"))?;
    Ok((input, output, before))
}

/// Starts the processes, gives them the items of the run, and ends them.
async fn with_processes(
    run: &mut Run<'_>,
    input: &mut Input,
    config: &Config,
    shutdown: &Shutdown,
    threads: &Threads,
) -> Result<BatchEnd, StartError> {
    let limit = Some(prepare_system(config)?);
    // Counts only: at a limit the pool would give no item to a process, while replies of later
    // items wait for the first one. The window has the limit.
    let budget = MemoryBudget::new(u64::MAX);
    let metrics = Arc::new(Metrics::new(config.threads));
    // A shutdown of its own for the processes: they end after the run without a signal, so a signal
    // that comes then still counts as the first.
    let ending = Shutdown::default();
    let (counted, told) = (budget.clone(), ending.clone());
    let pool = Pool::start(config, limit, counted, told, threads, metrics)?;
    // Cancel-safe: reaping is made up for by `end_orphans`.
    let end = tokio::select! {
        end = run.drive(&pool, &budget, input, shutdown) => end,
        never = reap_in_time() => match never {},
    };
    let (grace, is_hasty) = (config.process.grace, end.is_hasty());
    stop(pool.stop(), &ending, grace, is_hasty, shutdown).await;
    end_orphans().await;
    Ok(end)
}

/// Ends the processes: by the end of their stdin, after `grace` by SIGTERM, and after as long again
/// by SIGKILL; immediately by SIGKILL when the end is hasty or [`Stage::Killing`] is reached.
/// `stopped` is ready when all of them have ended.
async fn stop(
    stopped: impl Future<Output = ()>,
    ending: &Shutdown,
    grace: Duration,
    is_hasty: bool,
    shutdown: &Shutdown,
) {
    tokio::pin!(stopped);
    if !is_hasty {
        let time_is_over = async {
            sleep(grace).await;
            ending.advance(Stage::Terminating);
            sleep(grace).await;
        };
        // Cancel-safe: stopping goes on below.
        tokio::select! {
            () = &mut stopped => return,
            () = time_is_over => {}
            () = shutdown.reached(Stage::Killing) => {}
        }
    }
    ending.advance(Stage::Killing);
    drop(timeout(LAST_KILLS_TIMEOUT, stopped).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const GRACE: Duration = Duration::from_secs(5);

    /// Stops processes that end at this stage, or never, with a second signal after some time; returns
    /// how long that took.
    async fn stop_of(ends_at: Option<Stage>, is_hasty: bool, signal_after: Duration) -> Duration {
        let (ending, shutdown) = (Shutdown::default(), Shutdown::default());
        let began = tokio::time::Instant::now();
        let stopped = async {
            match ends_at {
                Some(Stage::Serving) => {}
                Some(stage) => ending.reached(stage).await,
                None => pending().await,
            }
        };
        let signal = async {
            sleep(signal_after).await;
            shutdown.advance(Stage::Killing);
            sleep(GRACE * 100).await;
        };
        tokio::select! {
            () = stop(stopped, &ending, GRACE, is_hasty, &shutdown) => began.elapsed(),
            () = signal => Duration::MAX,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn processes_get_the_grace_twice_and_none_after_a_second_signal() {
        let (never, second) = (GRACE * 100, Duration::from_secs(1));
        let at_once = Duration::ZERO;
        for (ends_at, is_hasty, signal, expected) in [
            (Some(Stage::Serving), false, never, at_once),
            (Some(Stage::Terminating), false, never, GRACE),
            (Some(Stage::Killing), false, never, GRACE * 2),
            (Some(Stage::Killing), false, second, second),
            (Some(Stage::Killing), true, never, at_once),
            // The kernel keeps a process whose disk or network does not answer.
            (None, false, never, GRACE * 2 + LAST_KILLS_TIMEOUT),
            (None, true, never, LAST_KILLS_TIMEOUT),
        ] {
            let took = stop_of(ends_at, is_hasty, signal).await;
            // The clock of the runtime counts in milliseconds.
            let is_right = took >= expected && took < expected + Duration::from_millis(10);
            assert!(is_right, "{ends_at:?} {is_hasty} {signal:?}: {took:?}");
        }
    }
}
