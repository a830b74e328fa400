//! The flags of the worker, and the settings that they mean.

use super::isolation::IsolationOptions;
use super::sizes::{Given, Sizes};
use super::values::{
    Host, Reload, age, count, duration, folder, header_name, host, host_name, log_format,
    log_level, origin, port, positive_duration, reload, size, size_or_none, socket_address,
};
use super::{LogSettings, Task};
use crate::config::{
    Command, Config, HttpConfig, LogFormat, PoolConfig, ProcessConfig, RecycleConfig,
    ShutdownConfig,
};
use crate::control_group::memory_limit;
use clap::Args;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;

#[derive(Debug, Args)]
pub(super) struct Address {
    /// Address of the worker, or `localhost`
    #[arg(long, env = "HOST", default_value = "127.0.0.1", value_parser = host)]
    host: Host,
    /// Its port; 0 picks a free one
    #[arg(long, env = "PORT", default_value = "8000", value_parser = port)]
    port: u16,
}

#[derive(Debug, Args)]
pub(super) struct HealthOptions {
    #[command(flatten)]
    address: Address,
    /// Ask whether a process is up, which /ready tells, and not only whether the worker answers
    #[arg(long)]
    ready: bool,
    /// The worker's --admin, where it has one: with --ready, that is asked
    #[arg(long, env = "FAAS_ADMIN", value_name = "ADDR", value_parser = socket_address)]
    admin: Option<SocketAddr>,
}

impl HealthOptions {
    pub(super) fn task(&self) -> Task {
        match (self.ready, self.admin) {
            (false, _) => Task::Health(self.address.resolve()),
            (true, None) => Task::Ready(self.address.resolve()),
            (true, Some(admin)) => Task::Ready(vec![admin]),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ServeOptions {
    /// The command to run; split into words as a shell does, but no shell runs it
    #[arg(
        long,
        env = "HANDLER_FUNCTION",
        value_name = "COMMAND",
        hide_env_values = true
    )]
    handler: Option<String>,
    /// The command to run and its words, instead of --handler
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    address: Address,

    /// Processes to keep alive [default: the CPUs it may use, at least 2]
    #[arg(
        long,
        env = "FAAS_PROCESSES",
        value_name = "N",
        value_parser = count,
        help_heading = "Processes"
    )]
    processes: Option<NonZeroUsize>,
    /// Processes to grow to while requests wait for more than 20 ms [default: no more]
    #[arg(
        long,
        env = "FAAS_MAX_PROCESSES",
        value_name = "N",
        value_parser = count,
        help_heading = "Processes"
    )]
    max_processes: Option<NonZeroUsize>,
    /// How long one beyond --processes may have nothing to do
    #[arg(long, env = "FAAS_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = positive_duration, help_heading = "Processes")]
    idle_timeout: Duration,
    /// Replace a process after about so many requests
    #[arg(
        long,
        env = "FAAS_MAX_REQUESTS",
        value_name = "N",
        value_parser = count,
        help_heading = "Processes"
    )]
    max_requests: Option<NonZeroUsize>,
    /// Replace a process when it is about so old
    #[arg(long, env = "FAAS_MAX_AGE", value_name = "DURATION",
          value_parser = age, help_heading = "Processes")]
    max_age: Option<Duration>,
    /// Replace a process when it, and all below it, have more memory
    #[arg(long, env = "FAAS_MAX_MEMORY", value_name = "SIZE",
          value_parser = size, help_heading = "Processes")]
    max_memory: Option<u64>,
    /// Most requests at once for one process, whatever it announces
    #[arg(
        long,
        env = "FAAS_MAX_CONCURRENCY",
        value_name = "N",
        value_parser = count,
        default_value = "64",
        help_heading = "Processes"
    )]
    max_concurrency: NonZeroUsize,
    /// Most requests given ahead to a process that promised order; 1 turns it off
    #[arg(
        long,
        env = "FAAS_READ_AHEAD",
        value_name = "N",
        value_parser = count,
        default_value = "32",
        help_heading = "Processes"
    )]
    read_ahead: NonZeroUsize,
    /// Give a process no request before its ready line
    #[arg(long, env = "FAAS_WAIT_READY", help_heading = "Processes", value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    wait_ready: bool,
    /// Where processes start, and relative commands are looked for [default: where PWD points at that moment]
    #[arg(long, env = "FAAS_CHDIR", value_name = "DIR", value_parser = folder,
          help_heading = "Processes")]
    chdir: Option<PathBuf>,
    /// End with exit status 3 when no process ever came up
    #[arg(long, env = "FAAS_EXIT_ON_FAILURE", help_heading = "Processes", value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    exit_on_failure: bool,
    /// For the ready line; a first slow start is spared as long
    #[arg(long, env = "FAAS_STARTUP_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = positive_duration, help_heading = "Processes")]
    startup_timeout: Duration,
    /// From asking a process to stop until SIGKILL
    #[arg(long, env = "FAAS_GRACE", value_name = "DURATION", default_value = "5s",
          value_parser = duration, help_heading = "Processes")]
    grace: Duration,

    #[command(flatten)]
    isolation: IsolationOptions,

    /// For one reply; a caller may ask for less with x-faas-timeout-ms
    #[arg(long, env = "FAAS_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = positive_duration, help_heading = "Requests")]
    timeout: Duration,
    /// Requests that may wait
    #[arg(
        long,
        env = "FAAS_QUEUE",
        value_name = "N",
        value_parser = count,
        default_value = "1024",
        help_heading = "Requests"
    )]
    queue: NonZeroUsize,
    /// How long a request may wait
    #[arg(long, env = "FAAS_QUEUE_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = positive_duration, help_heading = "Requests")]
    queue_timeout: Duration,
    /// Largest request body [default: 8MiB, at most half of --max-buffered]
    #[arg(long, env = "FAAS_MAX_BODY", value_name = "SIZE",
          value_parser = size, help_heading = "Requests")]
    max_body: Option<u64>,
    /// Largest result [default: 8MiB, at most half of --max-buffered]
    #[arg(long, env = "FAAS_MAX_REPLY", value_name = "SIZE",
          value_parser = size, help_heading = "Requests")]
    max_reply: Option<u64>,
    /// All bodies and replies held at one time [default: 256MiB, at most a quarter of the control
    /// group's memory limit]
    #[arg(long, env = "FAAS_MAX_BUFFERED", value_name = "SIZE",
          value_parser = size, help_heading = "Requests")]
    max_buffered: Option<u64>,
    /// A header that handlers may ask for (repeatable); implies --wait-ready
    #[arg(long, env = "FAAS_PASS_HEADER", value_name = "NAME", value_delimiter = ',',
          value_parser = header_name, help_heading = "Requests")]
    pass_header: Vec<String>,

    /// Connections open at one time [default: 16384, at most one for each 256 KiB of the control
    /// group's memory limit]
    #[arg(
        long,
        env = "FAAS_MAX_CONNECTIONS",
        value_name = "N",
        value_parser = count,
        help_heading = "Connections"
    )]
    max_connections: Option<NonZeroUsize>,
    /// For a request's head
    #[arg(long, env = "FAAS_HEADER_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = positive_duration, help_heading = "Connections")]
    header_timeout: Duration,
    /// For a request's body
    #[arg(long, env = "FAAS_BODY_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = positive_duration, help_heading = "Connections")]
    body_timeout: Duration,
    /// How long a client may take nothing of a response
    #[arg(long, env = "FAAS_WRITE_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = positive_duration, help_heading = "Connections")]
    write_timeout: Duration,
    /// What a body or a response moves at least in a second, after 5 s; 0 turns it off
    #[arg(long, env = "FAAS_LEAST_RATE", value_name = "SIZE", default_value = "1KiB",
          value_parser = size_or_none, help_heading = "Connections")]
    least_rate: u64,
    /// How long a connection may be idle
    #[arg(long, env = "FAAS_KEEP_ALIVE", value_name = "DURATION", default_value = "75s",
          value_parser = positive_duration, help_heading = "Connections")]
    keep_alive: Duration,
    /// A host name to accept beyond the loopback names (repeatable)
    #[arg(long, env = "FAAS_ALLOW_HOST", value_name = "NAME", value_delimiter = ',',
          value_parser = host_name, help_heading = "Connections")]
    allow_host: Vec<String>,
    /// An origin whose pages may call, beyond our own (repeatable)
    #[arg(long, env = "FAAS_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',',
          value_parser = origin, help_heading = "Connections")]
    allow_origin: Vec<String>,
    /// A file of tokens, one a line: POST / then needs Authorization: Bearer with one of them
    #[arg(
        long,
        env = "FAAS_AUTH_TOKEN_FILE",
        value_name = "PATH",
        help_heading = "Connections"
    )]
    auth_token_file: Option<PathBuf>,
    /// Whether errors may quote what a handler printed, and the PATH [default: true where all
    /// addresses are loopback ones]
    #[arg(long, env = "FAAS_VERBOSE_ERRORS", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), help_heading = "Connections")]
    verbose_errors: Option<bool>,
    /// An address of its own for /ready, which is then not served beside POST /
    #[arg(long, env = "FAAS_ADMIN", value_name = "ADDR", value_parser = socket_address,
          help_heading = "Connections")]
    admin: Option<SocketAddr>,

    /// For development: replace the processes when files below PATH change [PATH by default: .]
    #[arg(long, env = "FAAS_RELOAD", value_name = "PATH", num_args = 0..=1, require_equals = true,
          default_missing_value = ".", value_parser = reload, help_heading = "Processes")]
    reload: Option<Reload>,

    /// After SIGTERM: how long the listener stays open
    #[arg(long, env = "FAAS_DRAIN_DELAY", value_name = "DURATION", default_value = "0s",
          value_parser = duration, help_heading = "Shutdown and log")]
    drain_delay: Duration,
    /// After that: how long requests and processes may take to finish
    #[arg(long, env = "FAAS_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = duration, help_heading = "Shutdown and log")]
    drain_timeout: Duration,
    /// text or json [default: text on a terminal, else json]
    #[arg(long, env = "FAAS_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format,
          help_heading = "Shutdown and log")]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug or trace
    #[arg(long, env = "FAAS_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = log_level, help_heading = "Shutdown and log")]
    log_level: Level,
}

pub(super) fn serve(options: ServeOptions) -> Result<Task, String> {
    let log = LogSettings {
        format: options.log_format,
        level: options.log_level,
    };
    let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let at_least_two = cpus.max(NonZeroUsize::MIN.saturating_add(1));
    let processes = options.processes.unwrap_or(at_least_two);
    let max_processes = options.max_processes.unwrap_or(processes);
    if max_processes < processes {
        return Err(format!(
            "--max-processes (FAAS_MAX_PROCESSES): fewer than --processes, which is {processes}: \
             \"{max_processes}\""
        ));
    }
    let given = Given {
        body: options.max_body,
        reply: options.max_reply,
        buffered: options.max_buffered,
        connections: options.max_connections,
    };
    let memory_limit = memory_limit();
    let sizes = Sizes::new(given, memory_limit)?;
    let listen = options.address.resolve();
    if let Some(admin) = options.admin.filter(|admin| is_taken_by(&listen, *admin)) {
        return Err(format!(
            "--admin (FAAS_ADMIN): needs a port of its own, --port has this one: \"{admin}\""
        ));
    }
    let is_loopback_only = listen.iter().all(|address| address.ip().is_loopback());
    let config = Config {
        memory_limit,
        command: command(options.handler, options.command)?,
        directory: options.chdir,
        exit_on_failure: options.exit_on_failure,
        pool: PoolConfig {
            processes,
            max_processes,
            idle_timeout: options.idle_timeout,
            processes_starting_at_once: at_least_two,
            queue: options.queue,
            queue_timeout: options.queue_timeout,
        },
        process: ProcessConfig {
            max_concurrency: options.max_concurrency,
            read_ahead: options.read_ahead,
            wait_ready: options.wait_ready || !options.pass_header.is_empty(),
            startup_timeout: options.startup_timeout,
            max_reply_bytes: usize::try_from(sizes.reply).unwrap_or(usize::MAX),
            grace: options.grace,
            recycle: RecycleConfig {
                max_requests: options.max_requests,
                max_age: options.max_age,
                max_memory_bytes: options.max_memory,
            },
        },
        isolation: options.isolation.into_config(),
        shutdown: ShutdownConfig {
            drain_delay: options.drain_delay,
            drain_timeout: options.drain_timeout,
        },
        reload: options.reload.and_then(|Reload(path)| path),
        http: HttpConfig {
            listen,
            max_body_bytes: sizes.body,
            max_buffered_bytes: sizes.buffered,
            max_connections: sizes.connections,
            header_timeout: options.header_timeout,
            body_timeout: options.body_timeout,
            write_timeout: options.write_timeout,
            least_rate: options.least_rate,
            keep_alive: options.keep_alive,
            allowed_hosts: options.allow_host,
            allowed_origins: options.allow_origin,
            auth_token_file: options.auth_token_file,
            verbose_errors: options.verbose_errors.unwrap_or(is_loopback_only),
            admin: options.admin,
            pass_headers: options.pass_header,
            timeout: options.timeout,
        },
    };
    Ok(Task::Serve(Box::new(config), log))
}

pub(super) fn command(
    handler: Option<String>,
    words: Vec<OsString>,
) -> Result<Option<Command>, String> {
    let words = match handler.filter(|_| words.is_empty()) {
        None => words,
        Some(handler) => {
            let words = shell_words::split(&handler)
                .map_err(|error| format!("--handler (HANDLER_FUNCTION): {error}: {handler:?}"))?;
            words.into_iter().map(OsString::from).collect()
        }
    };
    let mut words = words.into_iter();
    Ok(words.next().map(|program| Command {
        program,
        arguments: words.collect(),
    }))
}

/// Whether one of the addresses that are listened on covers this one.
fn is_taken_by(listen: &[SocketAddr], address: SocketAddr) -> bool {
    listen.iter().any(|taken| {
        let [ours, theirs] = [taken.ip(), address.ip()];
        // Port 0 is another one each time; an unspecified address is all of them.
        taken.port() == address.port()
            && address.port() != 0
            && (ours == theirs || ours.is_unspecified() || theirs.is_unspecified())
    })
}

impl Address {
    pub(super) fn resolve(&self) -> Vec<SocketAddr> {
        let ips = match self.host {
            Host::Address(ip) => vec![ip],
            Host::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        ips.into_iter()
            .map(|ip| SocketAddr::new(ip, self.port))
            .collect()
    }
}
