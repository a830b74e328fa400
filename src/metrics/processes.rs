//! Figures of the handler's processes that change rarely: starts, ends, and their output.

use super::histogram::{Histogram, HistogramTotals};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Declares reasons with their labels.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $reason:ident $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $reason,)* }

        impl $name {
            /// All there are.
            pub const ALL: &[$name] = &[$($name::$reason),*];

            /// The reason as a label says it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$reason => $label),* }
            }
        }
    };
}

reasons! {
    /// Why a process was started.
    StartReason {
        /// With the worker.
        Initial "initial",
        /// Requests waited.
        Growth "growth",
        /// In the place of a process that ended or was due.
        Replace "replace",
        /// For a reload.
        Reload "reload",
    }
}

reasons! {
    /// Why a process ended.
    ExitReason {
        /// It had reached `--max-requests`, `--max-age` or `--max-memory`.
        Recycled "recycled",
        /// A reload replaced it.
        Reload "reload",
        /// It had nothing to do, and was not needed.
        Idle "idle",
        /// The worker ended.
        Shutdown "shutdown",
        /// It exited by itself.
        Exited "exited",
        /// A signal ended it that the worker did not send.
        Signal "signal",
        /// The kernel's out-of-memory killer ended it.
        OutOfMemory "out_of_memory",
        /// It was too slow.
        Timeout "timeout",
        /// It broke the protocol.
        Doubt "doubt",
        /// It ended, or was too slow, before it was up.
        StartFailed "start_failed",
    }
}

reasons! {
    /// A stream of a process.
    HandlerStream {
        /// Lines that are no replies.
        Stdout "stdout",
        /// All lines.
        Stderr "stderr",
    }
}

/// Figures of the handler's processes. Recorded on any thread: all of this is rare.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    starts: [AtomicU64; StartReason::ALL.len()],
    exits: [AtomicU64; ExitReason::ALL.len()],
    logged_blocks: [AtomicU64; HandlerStream::ALL.len()],
    log_dropped_bytes: [AtomicU64; HandlerStream::ALL.len()],
    init: Mutex<Histogram>,
    /// Time with a request of processes that have ended, in nanoseconds.
    busy_ns: AtomicU64,
    reload: Mutex<Option<Reload>>,
}

/// The last reload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reload {
    /// Whether the new processes serve.
    pub is_successful: bool,
    /// When it was over, in seconds since 1970.
    pub at: f64,
}

impl ProcessMetrics {
    /// A process was started.
    pub fn started(&self, reason: StartReason) {
        self.starts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A process has ended.
    pub fn ended(&self, reason: ExitReason) {
        self.exits[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A process is up, this long after its start.
    pub fn came_up(&self, after: Duration) {
        // Bounds are a hundred times those of requests.
        let scaled = after / INIT_SCALE;
        let init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        init.record(scaled);
    }

    /// A process that was busy for this long in all has ended.
    pub fn add_busy(&self, time_ns: u64) {
        self.busy_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    /// Blocks of output were logged: lines that came together.
    pub fn logged(&self, stream: HandlerStream, blocks: u64) {
        self.logged_blocks[stream as usize].fetch_add(blocks, Ordering::Relaxed);
    }

    /// Output was not logged, because it came too fast.
    pub fn dropped(&self, stream: HandlerStream, bytes: u64) {
        self.log_dropped_bytes[stream as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// A reload is over.
    pub fn reloaded(&self, reload: Reload) {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    /// Starts for this reason.
    pub fn starts(&self, reason: StartReason) -> u64 {
        self.starts[reason as usize].load(Ordering::Relaxed)
    }

    /// Ends for this reason.
    pub fn exits(&self, reason: ExitReason) -> u64 {
        self.exits[reason as usize].load(Ordering::Relaxed)
    }

    /// Blocks of this stream that were logged, and bytes that were not.
    pub fn log(&self, stream: HandlerStream) -> (u64, u64) {
        let stream = stream as usize;
        (
            self.logged_blocks[stream].load(Ordering::Relaxed),
            self.log_dropped_bytes[stream].load(Ordering::Relaxed),
        )
    }

    /// Time with a request of processes that have ended, in nanoseconds.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed)
    }

    /// Times from start to up, divided by [`INIT_SCALE`].
    pub fn init(&self) -> HistogramTotals {
        let mut totals = HistogramTotals::default();
        let init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        init.add_to(&mut totals);
        totals
    }

    /// The last reload, if there was one.
    pub fn last_reload(&self) -> Option<Reload> {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts take about a hundred times as long as requests; the bounds of their histogram too.
pub const INIT_SCALE: u32 = 100;
