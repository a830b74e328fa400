//! Flags of `faas-worker map`.

use super::isolation::IsolationOptions;
use super::processes::ProcessOptions;
use super::requests::RequestOptions;
use super::shutdown::ShutdownOptions;
use super::{Defaults, HandlerFlags, Sizes, Task};
use crate::cli::values::{count, halt, show_progress};
use crate::config::map::{Halt, InputForm, MapConfig, Resume, ShowProgress};
use crate::config::{AccessLog, Config, HttpConfig};
use crate::control_group::memory_limit;
use clap::{Args, Command};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Time until an item that waits for a process fails: longer than any run.
const WAITS_FOR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Flags of `faas-worker map`, one struct for each heading of the help.
#[derive(Debug, Args)]
pub(in crate::cli) struct MapOptions {
    /// A file of input lines (repeatable); - is standard input, as without the flag
    #[arg(short, long, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The file of reply lines [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Each input line is a JSON value: a string's text is the payload, or else the value's text
    #[arg(long)]
    json: bool,
    /// Each input line is a JSON object, whose member NAME has the payload; implies --json
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Repeat the input line in each reply line, as the member "input"
    #[arg(long, conflicts_with = "raw")]
    with_input: bool,
    /// Write the result alone, strings without quotes, and failures to standard error
    #[arg(long)]
    raw: bool,
    /// Write replies as they come, not in input order
    #[arg(short, long)]
    unordered: bool,
    /// Keep input order, as without the flag
    #[arg(short, long, conflicts_with = "unordered")]
    keep_order: bool,
    /// Items in hand at one time [default: 4 for each request that processes work on at once, and
    /// more of fast ones]
    #[arg(long, value_name = "N", value_parser = count)]
    window: Option<NonZeroUsize>,
    /// How often a failing item is tried in all; one that no process has seen is always tried again
    #[arg(long, value_name = "N", value_parser = count, default_value = "1")]
    retries: NonZeroUsize,
    /// End after failed items: never, or soon or now, then fail=N or fail=N%
    #[arg(long, value_name = "WHEN", value_parser = halt, default_value = "never")]
    halt: Halt,
    /// Log each item that has ended, in the columns of GNU parallel
    #[arg(long, value_name = "FILE")]
    job_log: Option<PathBuf>,
    /// Go on where the run of the job log ended
    #[arg(long, requires = "job_log")]
    resume: bool,
    /// As --resume, and do failed items again; their new replies are appended
    #[arg(long, requires = "job_log")]
    resume_failed: bool,
    /// Show progress on standard error: auto, always or never
    #[arg(long, value_name = "WHEN", value_parser = show_progress, default_value = "auto")]
    progress: ShowProgress,
    /// Leave the exit status at 0 when items have failed
    #[arg(long)]
    exit_zero: bool,
    #[command(flatten)]
    handler: HandlerFlags,
    #[command(flatten)]
    processes: ProcessOptions,
    #[command(flatten)]
    isolation: IsolationOptions,
    #[command(flatten)]
    requests: RequestOptions,
    #[command(flatten)]
    shutdown: ShutdownOptions,
}

/// Flags that a batch shares with `serve` and does not use.
const UNUSED: [&str; 8] = [
    "reload",
    "exit-on-failure",
    "queue",
    "queue-timeout",
    "pass-header",
    "drain-delay",
    "drain-timeout",
    "access-log",
];

/// Fits the flags that a batch shares with `serve`: unused flags are hidden, and the log is for
/// people.
pub(in crate::cli) fn of_batch(map: Command) -> Command {
    map.mut_args(|argument| match argument.get_long() {
        Some("processes") => argument.short('j'),
        Some("log-level") => argument.default_value("warn"),
        Some("log-format") => argument
            .default_value("text")
            .help("text, json, gcp for Google Cloud Logging, or ecs for Elasticsearch"),
        Some("log-handler") => argument.default_value("raw"),
        Some(name) if UNUSED.contains(&name) => argument.hide(true),
        Some(_) | None => argument,
    })
}

impl MapOptions {
    /// The task of running a batch with these flags.
    pub(in crate::cli) fn task(self) -> Result<Task, String> {
        let memory_limit = memory_limit();
        let resume = self.resumed();
        let sizes = Sizes::new(self.requests.sizes(None), memory_limit)?;
        let directory = self.processes.chdir.clone();
        let log = self.shutdown.log();
        let (mut pool, process) = self.processes.into_config(
            &self.requests,
            &Defaults::default(),
            sizes.reply,
            self.shutdown.log_handler,
        )?;
        let at_once = process.max_concurrency.max(process.read_ahead);
        let four = NonZeroUsize::MIN.saturating_add(3);
        let least_window = pool.max_processes.saturating_mul(four);
        let most_window = least_window.saturating_mul(at_once);
        pool.queue = self.window.unwrap_or(most_window).saturating_add(1);
        pool.queue_timeout = WAITS_FOR;
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let map = MapConfig {
            inputs: self.input,
            output: self.output,
            form: match self.field {
                Some(name) => InputForm::Field(name),
                None if self.json => InputForm::Json,
                None => InputForm::Text,
            },
            with_input: self.with_input,
            raw: self.raw,
            unordered: self.unordered,
            window: self.window,
            least_window,
            most_window,
            window_bytes: sizes.buffered / 4,
            longest_line: bytes(sizes.body),
            attempts: self.retries,
            halt: self.halt,
            job_log: self.job_log,
            resume,
            progress: self.progress,
            exit_zero: self.exit_zero,
        };
        let command = self.handler.command(None)?;
        let config = Config {
            memory_limit,
            command: Some(command.ok_or("map: no handler: give its command after --")?),
            directory,
            exit_on_failure: false,
            threads: NonZeroUsize::MIN,
            pool,
            process,
            isolation: self.isolation.into_config(),
            shutdown: self.shutdown.into_config(),
            reload: None,
            lambda: None,
            lock_file: None,
            http: no_http(&sizes),
        };
        Ok(Task::Map(Box::new(config), Box::new(map), log))
    }
}

impl MapOptions {
    /// What is done again of an earlier run.
    fn resumed(&self) -> Resume {
        match (self.resume_failed, self.resume) {
            (true, _) => Resume::RestAndFailed,
            (false, true) => Resume::Rest,
            (false, false) => Resume::No,
        }
    }
}

/// The settings of a server that listens nowhere.
fn no_http(sizes: &Sizes) -> HttpConfig {
    HttpConfig {
        listen: Vec::new(),
        function_paths: Vec::new(),
        takes_x_timeout: false,
        max_body_bytes: sizes.body,
        max_buffered_bytes: sizes.buffered,
        admin: None,
        verbose_errors: Some(true),
        access_log: AccessLog::Off,
        auth_token_file: None,
        max_connections: NonZeroUsize::MIN,
        header_timeout: WAITS_FOR,
        body_timeout: WAITS_FOR,
        write_timeout: WAITS_FOR,
        least_rate: 0,
        keep_alive: WAITS_FOR,
        max_connection_age: None,
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        pass_headers: Vec::new(),
    }
}
