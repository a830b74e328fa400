//! Settings of `faas-worker map`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Settings of `faas-worker map`, beside the settings of the pool.
#[derive(Debug, Clone)]
pub struct MapConfig {
    /// Files to read, in this order; empty, or `-`: standard input.
    pub inputs: Vec<PathBuf>,
    /// The file of replies; `None`: standard output.
    pub output: Option<PathBuf>,
    /// How a payload is found in an input line.
    pub form: InputForm,
    /// Whether each reply line repeats its input line.
    pub with_input: bool,
    /// Whether a reply line is the result alone.
    pub raw: bool,
    /// Whether replies are written as they come, and not in input order.
    pub unordered: bool,
    /// Items in hand at one time; `None`: their number follows the load.
    pub window: Option<NonZeroUsize>,
    /// That number at the start.
    pub least_window: NonZeroUsize,
    /// That number at most.
    pub most_window: NonZeroUsize,
    /// Bytes of lines and replies in hand at one time, beyond which no further item is taken.
    pub window_bytes: u64,
    /// The longest input line, in bytes.
    pub longest_line: usize,
    /// How often an item is given to a process at most.
    pub attempts: NonZeroUsize,
    /// When failed items end the run.
    pub halt: Halt,
    /// The job log.
    pub job_log: Option<PathBuf>,
    /// Which items of the job log are done again.
    pub resume: Resume,
    /// Whether progress is shown.
    pub progress: ShowProgress,
    /// Whether failed items leave the exit status at 0.
    pub exit_zero: bool,
}

/// How a payload is found in an input line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputForm {
    /// The line is the payload.
    Text,
    /// The line is a JSON value; its text is the payload, of a string the text inside.
    Json,
    /// The line is a JSON object, and this member has the payload.
    Field(String),
}

/// When failed items end the run, in the words of GNU parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Not at all.
    Never,
    /// At this limit no further line is read; items in hand are finished.
    Soon(FailureLimit),
    /// At this limit processes are killed.
    Now(FailureLimit),
}

/// A limit of failed items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureLimit {
    /// This number of items.
    Count(u64),
    /// This part of the items that have ended.
    Percent(u8),
}

/// Which items of the job log are done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// All: the job log begins anew.
    No,
    /// None.
    Rest,
    /// The failed items.
    RestAndFailed,
}

/// Whether progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowProgress {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
