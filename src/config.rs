//! The validated settings, one struct for each component.
//!
//! Flags and variables are the business of `cli` alone.

pub mod map;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// All settings of a worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// The memory limit of the control group that the worker runs in, in bytes.
    pub memory_limit: Option<u64>,
    /// The handler's words; `None` when no command was given.
    pub command: Option<Command>,
    /// The folder that processes start in; `None`: the folder of the worker.
    pub directory: Option<PathBuf>,
    /// Whether the worker ends when no process ever came up.
    pub exit_on_failure: bool,
    /// Threads that serve connections and processes.
    pub threads: NonZeroUsize,
    /// The HTTP server and API.
    pub http: HttpConfig,
    /// The pool and its queue.
    pub pool: PoolConfig,
    /// Each process.
    pub process: ProcessConfig,
    /// Limits and sandbox of the processes.
    pub isolation: IsolationConfig,
    /// Shutting down.
    pub shutdown: ShutdownConfig,
    /// A file or folder; when something in it changes, the processes are replaced.
    pub reload: Option<PathBuf>,
    /// A file that is there while requests are taken.
    pub lock_file: Option<PathBuf>,
    /// AWS Lambda; `None`: calls come over HTTP.
    pub lambda: Option<LambdaConfig>,
}

/// A command split into words; runs without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Command {
    /// The command with quotes, as a shell would take it.
    pub fn shown(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        shell_words::join(words.map(|word| word.to_string_lossy()))
    }
}

/// Settings of the HTTP server and API.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where to listen; port 0 picks a free one. More than one where `localhost` has two families.
    pub listen: Vec<SocketAddr>,
    /// Paths of the function beside `/`; `*` at the end of one stands for any rest.
    pub function_paths: Vec<String>,
    /// Whether a request's `x-timeout` counts as its time, as in OpenFaaS.
    pub takes_x_timeout: bool,
    /// Largest request body, in bytes.
    pub max_body_bytes: u64,
    /// All bodies and replies held at one time, in bytes.
    pub max_buffered_bytes: u64,
    /// Where `/ready`, `/metrics` and `/stats` are served instead of at `listen`, and `/processes`
    /// at all.
    pub admin: Option<SocketAddr>,
    /// Whether errors may quote a handler's output and paths of the machine; by default where all
    /// addresses that are listened on are loopback ones.
    pub verbose_errors: Option<bool>,
    /// Which requests for the handler are logged.
    pub access_log: AccessLog,
    /// The file of tokens; callers must send one of them.
    pub auth_token_file: Option<PathBuf>,
    /// Connections open at one time.
    pub max_connections: NonZeroUsize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response.
    pub write_timeout: Duration,
    /// The least rate of a body or a response, in bytes a second; 0: no limit.
    pub least_rate: u64,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// After about this long a connection is asked to close: its next response says so.
    pub max_connection_age: Option<Duration>,
    /// Host names accepted beyond the loopback names, lower case, without port.
    pub allowed_hosts: Vec<String>,
    /// Origins accepted beyond our own, as `scheme://host[:port]`, lower case.
    pub allowed_origins: Vec<String>,
    /// Headers that handlers may ask for, lower case.
    pub pass_headers: Vec<String>,
}

/// Settings of a worker that takes its calls from AWS Lambda.
#[derive(Debug, Clone)]
pub struct LambdaConfig {
    /// Where the runtime API listens.
    pub runtime_api: SocketAddr,
    /// Events that are worked on at one time.
    pub events: NonZeroUsize,
    /// How Lambda starts the worker.
    pub start: LambdaStart,
}

/// How Lambda starts a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LambdaStart {
    /// For an event that waits already.
    OnDemand,
    /// Ahead of events.
    Ahead,
    /// To make a snapshot of it, from which later workers are restored.
    Snapshot,
}

/// Settings of the pool.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Processes that are kept alive.
    pub processes: NonZeroUsize,
    /// Processes that may be alive while requests wait; never fewer than `processes`.
    pub max_processes: NonZeroUsize,
    /// How long a process beyond `processes` may be idle.
    pub idle_timeout: Duration,
    /// Processes that may be starting at the same time.
    pub processes_starting_at_once: NonZeroUsize,
    /// Requests that may wait.
    pub queue: NonZeroUsize,
    /// How long a request may wait.
    pub queue_timeout: Duration,
    /// The longest time that a handler is given for one request.
    pub timeout: Duration,
}

/// Settings of one process.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Caps the concurrency that a handler announces.
    pub max_concurrency: NonZeroUsize,
    /// Caps how many requests a process that promised order may have at the same time.
    pub read_ahead: NonZeroUsize,
    /// No request before the ready line.
    pub wait_ready: bool,
    /// How long the ready line may take, and how long a first slow start is spared from being
    /// replaced.
    pub startup_timeout: Duration,
    /// Largest `result`, in bytes.
    pub max_reply_bytes: usize,
    /// From asking a process to stop to killing it.
    pub grace: Duration,
    /// How its stderr is logged.
    pub log: HandlerLog,
    /// When a process is replaced.
    pub recycle: RecycleConfig,
}

/// When a process is replaced by a new one.
#[derive(Debug, Clone, Default)]
pub struct RecycleConfig {
    /// Requests given to the process.
    pub max_requests: Option<NonZeroUsize>,
    /// The age of the process.
    pub max_age: Option<Duration>,
    /// Resident memory of the process and its descendants, in bytes.
    pub max_memory_bytes: Option<u64>,
}

/// Settings of the isolation of processes, beyond the isolation that all of them have.
#[derive(Debug, Clone, Default)]
pub struct IsolationConfig {
    /// Most private memory that a process may write to, in bytes.
    pub memory_bytes: Option<u64>,
    /// Most processor time of a process over its life, in seconds.
    pub cpu_seconds: Option<u64>,
    /// Most descriptors that a process may have open.
    pub files: Option<u64>,
    /// The sandbox; `None`: files may be used as their permissions say.
    pub sandbox: Option<SandboxPaths>,
}

/// Files that may be used in the sandbox, beyond the files that every program needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxPaths {
    /// Files and folders that may be read and executed, with all below them.
    pub read: Vec<PathBuf>,
    /// Files and folders that may be read, executed and written, with all below them.
    pub write: Vec<PathBuf>,
}

/// Settings of the shutdown.
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// How long the listener stays open after the signal.
    pub drain_delay: Duration,
    /// How long requests and processes may take to finish after that.
    pub drain_timeout: Duration,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
    /// For Google Cloud Logging: as JSON, in its names.
    Gcp,
    /// For Elasticsearch: as JSON, in the names of the Elastic Common Schema.
    Ecs,
}

/// Which requests for the handler are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// No request; failures are warned of as always.
    Off,
    /// Each.
    On,
    /// Each that has no result.
    Errors,
}

/// How the stderr of handlers is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerLog {
    /// As events that name the process.
    Events,
    /// Line by line as it is.
    Raw,
}
