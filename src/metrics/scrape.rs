//! The gauges of one scrape, read from where they are at that moment.

use std::time::Duration;

/// What a scrape finds beside the counters and histograms.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Whether `/ready` says yes.
    pub is_ready: bool,
    /// The queue.
    pub queue: QueueGauges,
    /// The handler's processes.
    pub processes: ProcessGauges,
    /// Bytes of bodies and replies that are held.
    pub buffered_bytes: u64,
    /// Most of them: `--max-buffered`.
    pub buffered_limit_bytes: u64,
    /// Open connections.
    pub connections: usize,
    /// Most of them: `--max-connections`.
    pub connections_limit: usize,
    /// Lines of the worker's log that were lost.
    pub log_lost: u64,
    /// The worker's own process.
    pub worker: OwnProcess,
}

/// The queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueGauges {
    /// Calls that wait.
    pub length: usize,
    /// Most that may: `--queue`.
    pub limit: usize,
    /// How long the first of them has waited.
    pub oldest: Duration,
}

/// The handler's processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessGauges {
    /// Not up yet.
    pub starting: usize,
    /// Up, without a request.
    pub idle: usize,
    /// With a request.
    pub busy: usize,
    /// Asked to end, or at an end.
    pub stopping: usize,
    /// Most that may be: `--max-processes`.
    pub limit: usize,
    /// Requests that the processes which are up can work on at the same time.
    pub capacity: usize,
    /// Requests that were written to processes and are unanswered.
    pub active: usize,
    /// Time with a request of all processes that there are, in nanoseconds.
    pub busy_ns: u64,
    /// Resident memory of all processes and their descendants, when it was last measured.
    pub resident_bytes: u64,
}

impl ProcessGauges {
    /// Processes that are up.
    pub fn up(&self) -> usize {
        self.idle + self.busy
    }
}

/// The worker's own process, as far as the system tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnProcess {
    /// Processor time of all its threads.
    pub cpu_seconds: Option<f64>,
    /// Open descriptors.
    pub open_fds: Option<usize>,
    /// Most of them.
    pub max_fds: Option<u64>,
    /// Its resident memory.
    pub resident_bytes: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// When it was started, in seconds since 1970.
    pub start_time: f64,
}
