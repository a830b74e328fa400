//! What each process is doing, for metrics and for operators: written by its owner, read on any
//! thread.

use crate::metrics::scrape::ProcessGauges;
use compact_str::CompactString;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The stage of a process's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Life {
    Starting,
    Up,
    Stopping,
}

/// The slot of a process, as its status tells it; fixed for its life.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotFacts {
    pub(super) slot: usize,
    /// Processes of the slot before this one.
    pub(super) restarts: u64,
    /// Whether operators can ask which request a process works on.
    pub(super) tells_requests: bool,
}

/// What a process is doing. Only its owner's thread writes.
#[derive(Debug)]
pub(super) struct ProcessStatus {
    facts: SlotFacts,
    pid: u32,
    started: Instant,
    life: AtomicU8,
    was_up: AtomicBool,
    /// Requests without an answer.
    active: AtomicUsize,
    /// Most requests at the same time that the process has announced.
    capacity: AtomicUsize,
    served: AtomicU64,
    /// Since when the process has had a request, in nanoseconds since its start; `NEVER_NS`: it has
    /// none.
    busy_since_ns: AtomicU64,
    /// Time with a request before that, in nanoseconds.
    busy_ns: AtomicU64,
    /// Resident memory of the process and its descendants at the last measurement, in bytes.
    resident_bytes: Arc<AtomicU64>,
    /// When the process last wrote to stderr, in nanoseconds since its start; `NEVER_NS`: never.
    last_stderr_ns: AtomicU64,
    /// The request that made the process busy. `None` where operators cannot ask for it.
    request: Option<Mutex<CompactString>>,
}

/// In place of a time, in nanoseconds: never, or not now.
const NEVER_NS: u64 = u64::MAX;

impl ProcessStatus {
    /// The status of a process that was just started.
    pub(super) fn new(facts: SlotFacts, pid: u32) -> ProcessStatus {
        ProcessStatus {
            facts,
            pid,
            started: Instant::now(),
            life: AtomicU8::new(Life::Starting as u8),
            was_up: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            capacity: AtomicUsize::new(1),
            served: AtomicU64::new(0),
            busy_since_ns: AtomicU64::new(NEVER_NS),
            busy_ns: AtomicU64::new(0),
            resident_bytes: Arc::default(),
            last_stderr_ns: AtomicU64::new(NEVER_NS),
            request: facts.tells_requests.then(Mutex::default),
        }
    }

    /// The process was given a request.
    pub(super) fn began_request(&self, now: Instant, request_id: &CompactString) {
        let active = self.active.load(Ordering::Relaxed);
        self.active.store(active + 1, Ordering::Relaxed);
        if active == 0 {
            self.busy_since_ns
                .store(self.age_ns(now), Ordering::Relaxed);
            if let Some(request) = &self.request {
                request
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(request_id);
            }
        }
    }

    /// A request of the process was answered, by a result or a failure.
    pub(super) fn finished_request(&self, now: Instant) {
        let active = self.active.load(Ordering::Relaxed).saturating_sub(1);
        self.active.store(active, Ordering::Relaxed);
        let served = self.served.load(Ordering::Relaxed);
        self.served.store(served + 1, Ordering::Relaxed);
        if active == 0 {
            let busy = self.busy_ns_until(now);
            self.busy_ns.store(busy, Ordering::Relaxed);
            self.busy_since_ns.store(NEVER_NS, Ordering::Relaxed);
        }
    }

    /// Time since the process was started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The process is up.
    pub(super) fn came_up(&self) {
        self.was_up.store(true, Ordering::Relaxed);
        self.set_life(Life::Up);
    }

    /// Whether the process has ever been up.
    pub(super) fn was_up(&self) -> bool {
        self.was_up.load(Ordering::Relaxed)
    }

    /// The process takes no more requests.
    pub(super) fn stops(&self) {
        self.set_life(Life::Stopping);
    }

    /// The process has announced that it works on this many requests at the same time.
    pub(super) fn announced(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// The process has written to stderr.
    pub(super) fn wrote_stderr(&self, now: Instant) {
        self.last_stderr_ns
            .store(self.age_ns(now), Ordering::Relaxed);
    }

    /// Where the memory of the process is written when it has been measured.
    pub(super) fn resident_bytes(&self) -> &Arc<AtomicU64> {
        &self.resident_bytes
    }

    /// Time with a request, in nanoseconds.
    pub(super) fn busy_ns_until(&self, now: Instant) -> u64 {
        let before = self.busy_ns.load(Ordering::Relaxed);
        match self.busy_since_ns.load(Ordering::Relaxed) {
            NEVER_NS => before,
            since => before + self.age_ns(now).saturating_sub(since),
        }
    }

    fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Relaxed);
    }

    fn is(&self, life: Life) -> bool {
        self.life.load(Ordering::Relaxed) == life as u8
    }

    fn is_busy(&self) -> bool {
        self.busy_since_ns.load(Ordering::Relaxed) != NEVER_NS
    }

    fn age_ns(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.started);
        u64::try_from(age.as_nanos()).unwrap_or(NEVER_NS - 1)
    }

    fn since(&self, now: Instant, at_ns: &AtomicU64) -> Option<Duration> {
        match at_ns.load(Ordering::Relaxed) {
            NEVER_NS => None,
            at => Some(Duration::from_nanos(self.age_ns(now).saturating_sub(at))),
        }
    }
}

/// What one process is doing at a moment.
#[derive(Debug, Clone)]
pub struct ProcessReport {
    /// The number by which the log names the process.
    pub process: u64,
    /// Its process id.
    pub pid: u32,
    /// The number of its slot.
    pub slot: usize,
    /// `starting`, `idle`, `busy` or `stopping`.
    pub state: &'static str,
    /// Requests without an answer.
    pub requests_active: usize,
    /// The request that made it busy.
    pub request_id: Option<CompactString>,
    /// How long it has had a request.
    pub working: Option<Duration>,
    /// Requests that it has answered.
    pub served: u64,
    /// Processes of its slot before it.
    pub restarts: u64,
    /// Resident memory of the process and its descendants, in bytes, when last measured.
    pub resident_bytes: Option<u64>,
    /// Time since it was started.
    pub age: Duration,
    /// Time since it last wrote to stderr.
    pub last_stderr: Option<Duration>,
}

/// The statuses of all processes that there are, by number.
#[derive(Debug, Default)]
pub(super) struct Statuses(Mutex<BTreeMap<u64, Arc<ProcessStatus>>>);

impl Statuses {
    pub(super) fn insert(&self, process: u64, status: Arc<ProcessStatus>) {
        self.lock().insert(process, status);
    }

    pub(super) fn remove(&self, process: u64) {
        self.lock().remove(&process);
    }

    /// Adds up the processes.
    pub(super) fn totals(&self, now: Instant) -> ProcessGauges {
        let mut totals = ProcessGauges::default();
        for status in self.lock().values() {
            let is_busy = status.is_busy();
            match () {
                () if status.is(Life::Stopping) => totals.stopping += 1,
                () if is_busy => totals.busy += 1,
                () if status.is(Life::Up) => totals.idle += 1,
                () => totals.starting += 1,
            }
            if status.is(Life::Up) {
                totals.capacity += status.capacity.load(Ordering::Relaxed);
            }
            totals.active += status.active.load(Ordering::Relaxed);
            totals.busy_ns += status.busy_ns_until(now);
            totals.resident_bytes += status.resident_bytes.load(Ordering::Relaxed);
        }
        totals
    }

    /// Has the memory of all processes measured; a later report has it.
    pub(super) fn measure(&self, measure: impl Fn(u32, &Arc<AtomicU64>)) {
        for status in self.lock().values() {
            measure(status.pid, &status.resident_bytes);
        }
    }

    /// What each process is doing.
    pub(super) fn reports(&self, now: Instant) -> Vec<ProcessReport> {
        let statuses = self.lock();
        let reports = statuses.iter().map(|(process, status)| {
            let is_busy = status.is_busy();
            let resident = status.resident_bytes.load(Ordering::Relaxed);
            let request = status.request.as_ref().filter(|_| is_busy);
            ProcessReport {
                process: *process,
                pid: status.pid,
                slot: status.facts.slot,
                state: match () {
                    () if status.is(Life::Stopping) => "stopping",
                    () if is_busy => "busy",
                    () if status.is(Life::Up) => "idle",
                    () => "starting",
                },
                requests_active: status.active.load(Ordering::Relaxed),
                request_id: request.map(|request| {
                    let request = request.lock().unwrap_or_else(PoisonError::into_inner);
                    request.clone()
                }),
                working: status.since(now, &status.busy_since_ns),
                served: status.served.load(Ordering::Relaxed),
                restarts: status.facts.restarts,
                resident_bytes: (resident > 0).then_some(resident),
                age: now.saturating_duration_since(status.started),
                last_stderr: status.since(now, &status.last_stderr_ns),
            }
        });
        reports.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<ProcessStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: SlotFacts = SlotFacts {
        slot: 2,
        restarts: 3,
        tells_requests: true,
    };

    #[test]
    fn time_with_a_request_is_added_up() {
        let status = ProcessStatus::new(ME, 17);
        let at = |seconds| status.started + Duration::from_secs(seconds);
        let id = CompactString::new("r-1");
        status.began_request(at(1), &id);
        status.began_request(at(2), &CompactString::new("r-2"));
        assert_eq!(status.busy_ns_until(at(3)), 2_000_000_000);
        status.finished_request(at(4));
        status.finished_request(at(6));
        assert_eq!(status.busy_ns_until(at(9)), 5_000_000_000);
        status.began_request(at(10), &id);
        assert_eq!(status.busy_ns_until(at(11)), 6_000_000_000);
    }

    #[test]
    fn a_report_names_the_request_that_made_the_process_busy() {
        for tells_requests in [true, false] {
            let statuses = Statuses::default();
            let status = Arc::new(ProcessStatus::new(
                SlotFacts {
                    tells_requests,
                    ..ME
                },
                17,
            ));
            statuses.insert(7, Arc::clone(&status));
            let now = status.started + Duration::from_secs(1);
            assert_eq!(statuses.reports(now)[0].state, "starting");
            status.came_up();
            assert_eq!(statuses.reports(now)[0].state, "idle");
            status.began_request(now, &CompactString::new("r-1"));
            let later = now + Duration::from_secs(2);
            let report = &statuses.reports(later)[0];
            assert_eq!((report.process, report.pid, report.slot), (7, 17, 2));
            assert_eq!((report.state, report.restarts), ("busy", 3));
            assert_eq!(report.working, Some(Duration::from_secs(2)));
            assert_eq!(
                report.request_id.as_deref(),
                tells_requests.then_some("r-1")
            );
            status.stops();
            assert_eq!(statuses.reports(later)[0].state, "stopping");
            statuses.remove(7);
            assert!(statuses.reports(later).is_empty());
        }
    }

    #[test]
    fn processes_are_added_up_by_state() {
        let statuses = Statuses::default();
        let now = Instant::now();
        for number in 0..4 {
            let status = Arc::new(ProcessStatus::new(ME, 17));
            if number > 0 {
                status.came_up();
                status.announced(8);
            }
            if number > 1 {
                status.began_request(now, &CompactString::default());
            }
            if number > 2 {
                status.stops();
            }
            statuses.insert(number, status);
        }
        let totals = statuses.totals(now);
        let states = [totals.starting, totals.idle, totals.busy, totals.stopping];
        assert_eq!(states, [1, 1, 1, 1]);
        assert_eq!((totals.active, totals.capacity), (2, 16));
    }
}
