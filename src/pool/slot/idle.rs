//! Inspects a process's memory and idle time.

use super::departure::StopReason;
use super::{Slot, Successor};
use crate::logging::milliseconds;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// From `Stage::IdleStopped` on, a process that has been idle for this long is stopped.
const IDLE_WHILE_DRAINING: Duration = Duration::from_millis(100);

/// How often a process's memory and idle time are inspected.
const INSPECTION_PERIOD: Duration = Duration::from_secs(1);

/// State of the inspections of a process: its idle time, and its memory.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) next: Instant,
    calls_taken: u64,
    idle_since: Instant,
    /// Whether the process was over `--max-memory` before its first request.
    is_too_large: bool,
}

impl Inspection {
    pub(super) fn new() -> Inspection {
        let now = Instant::now();
        Inspection {
            next: now + INSPECTION_PERIOD,
            calls_taken: 0,
            idle_since: now,
            is_too_large: false,
        }
    }
}

impl Slot {
    /// From now on the process is stopped as soon as it is idle.
    pub(super) fn stop_when_idle(&mut self) {
        self.stops_when_idle = true;
        self.idle_timeout = self.idle_timeout.min(IDLE_WHILE_DRAINING);
        self.inspection.next = Instant::now() + inspection_period(self.idle_timeout);
    }

    /// Inspects the process's memory and idle time.
    pub(super) fn inspect(&mut self) {
        let now = Instant::now();
        let Some(current) = &self.current else { return };
        self.inspection.next = now + inspection_period(self.idle_timeout);
        let calls_taken = current.member().calls_taken();
        if current.is_busy() || calls_taken != self.inspection.calls_taken {
            self.inspection.calls_taken = calls_taken;
            self.inspection.idle_since = now;
        }
        let lifetime = current.lifetime();
        let memory = lifetime.memory_bytes.and_then(|_| current.resident_bytes());
        match memory.and_then(|bytes| lifetime.judge_memory(bytes)) {
            Some(due) if calls_taken > 0 || self.inspection.is_too_large => {
                return self.recycle(due);
            }
            Some(due) => {
                // Its successor will be over the limit as well: replaced, but not at full speed for
                // ever.
                let delay = self.backoff.next(fastrand::f64());
                warn!(
                    process = current.number(),
                    limit = %due,
                    replaced_in_ms = milliseconds(delay),
                    "process is over its limit before its first request"
                );
                self.inspection.is_too_large = true;
                self.inspection.next = now + delay;
            }
            None if memory.is_some() => self.backoff.reset(),
            None => {}
        }
        let is_idle =
            now.saturating_duration_since(self.inspection.idle_since) >= self.idle_timeout;
        if is_idle && self.starter.dispatcher.lock().scaling.shrink() {
            self.successor = Successor::NotNeeded;
            if let Some(idle) = self.current.take() {
                info!(
                    process = idle.number(),
                    "process has had nothing to do, and is not needed"
                );
                self.stop_aside(idle, StopReason::Idle);
            }
        }
    }
}

fn inspection_period(idle_timeout: Duration) -> Duration {
    (idle_timeout / 4).clamp(Duration::from_millis(10), INSPECTION_PERIOD)
}
