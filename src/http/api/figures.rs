//! `/metrics`, `/stats` and `/processes`: what the worker is doing, for machines and for people.

use super::respond::{self, ApiResponse};
use crate::budget::MemoryBudget;
use crate::config::HttpConfig;
use crate::logging::lost_lines;
use crate::logging::timestamp::seconds_since_1970;
use crate::metrics::averages::{Averages, Sample};
use crate::metrics::scrape::{OwnProcess, ProcessGauges, QueueGauges, Scrape};
use crate::metrics::{Format, Metrics, OutcomeLabel, encode};
use crate::pool::{Pool, ProcessReport};
use crate::procfs;
use crate::shutdown::{Shutdown, Stage};
use crate::threads::Threads;
use crate::version::version;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two measurements of the memory of all processes.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// The figures of a worker, and where they are found.
#[derive(Debug)]
pub struct Figures {
    metrics: Arc<Metrics>,
    pool: Arc<Pool>,
    budget: MemoryBudget,
    shutdown: Shutdown,
    threads: Threads,
    averages: Averages,
    buffered_limit_bytes: u64,
    connections_limit: usize,
    started_at: f64,
    /// When the memory of the processes was last measured.
    measured: Mutex<Option<Instant>>,
}

impl Figures {
    /// The figures of the worker with this pool, which starts now.
    pub fn new(
        config: &HttpConfig,
        pool: Arc<Pool>,
        metrics: Arc<Metrics>,
        budget: MemoryBudget,
        shutdown: Shutdown,
        threads: Threads,
    ) -> Figures {
        Figures {
            metrics,
            pool,
            budget,
            shutdown,
            threads,
            averages: Averages::default(),
            buffered_limit_bytes: config.max_buffered_bytes,
            connections_limit: config.max_connections.get(),
            started_at: seconds_since_1970(),
            measured: Mutex::new(None),
        }
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Takes a sample for the averages.
    pub fn sample(&self) {
        let ended_busy_ns = self.metrics.processes.busy_ns();
        let (queue, processes) = (self.pool.queue(), self.pool.processes());
        self.averages
            .record(sample(queue, processes, ended_busy_ns));
    }

    fn is_ready(&self) -> bool {
        !self.shutdown.is_at_least(Stage::Draining) && self.pool.why_not_ready().is_none()
    }

    /// The answer to a GET of `/metrics`.
    pub(super) fn text(&self, accept: Option<&HeaderValue>) -> ApiResponse {
        let format = Format::accepted(accept.and_then(|value| value.to_str().ok()));
        self.measure_memory();
        let scrape = Scrape {
            is_ready: self.is_ready(),
            queue: self.pool.queue(),
            processes: self.pool.processes(),
            buffered_bytes: self.budget.held(),
            buffered_limit_bytes: self.buffered_limit_bytes,
            connections: self.threads.connections(),
            connections_limit: self.connections_limit,
            log_lost: lost_lines(),
            worker: self.worker(),
        };
        // Writing to a string does not fail.
        let text = encode(&self.metrics, scrape, format).unwrap_or_default();
        let mut response = Response::new(Full::new(self.budget.count(text.into())));
        let kind = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// Has the memory of the processes measured beside this thread; the next request for them finds
    /// it. Not more often than once in [`MEMORY_PERIOD`], however often operators ask: `/proc`
    /// takes long to read for a process that forks without end, and the thread that reads it starts
    /// processes too.
    fn measure_memory(&self) {
        let now = Instant::now();
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.is_none_or(|at| now.saturating_duration_since(at) >= MEMORY_PERIOD) {
            *measured = Some(now);
            drop(measured);
            self.pool.measure_memory();
        }
    }

    fn worker(&self) -> OwnProcess {
        let own = procfs::own_figures();
        OwnProcess {
            cpu_seconds: own.cpu_seconds,
            open_fds: own.open_descriptors,
            max_fds: getrlimit(Resource::Nofile).current,
            resident_bytes: Some(procfs::own_resident_bytes()).filter(|bytes| *bytes > 0),
            threads: own.threads,
            start_time: self.started_at,
        }
    }

    /// The answer to a GET of `/stats`.
    pub(super) fn stats(&self) -> ApiResponse {
        let (queue, processes) = (self.pool.queue(), self.pool.processes());
        let totals = self.metrics.requests.totals();
        let total: u64 = totals.outcomes.values().sum();
        let ok = totals.outcomes.get(&OutcomeLabel::Ok).copied();
        let body = json!({
            "version": version(),
            "ready": self.is_ready(),
            "uptime_seconds": rounded(self.metrics.started.elapsed().as_secs_f64()),
            "demand": rounded(self.averages.demand()),
            "busy_ratio": rounded(self.averages.busy_ratio()),
            "queue": {
                "length": queue.length,
                "limit": queue.limit,
                "oldest_seconds": rounded(queue.oldest.as_secs_f64()),
            },
            "processes": {
                "up": processes.up(),
                "busy": processes.busy,
                "starting": processes.starting,
                "limit": processes.limit,
                "capacity": processes.capacity,
            },
            "requests": {
                "active": processes.active,
                "total": total,
                "failed": total - ok.unwrap_or(0),
            },
        });
        respond::json(StatusCode::OK, body.to_string().into())
    }

    /// The answer to a GET of `/processes`.
    pub(super) fn processes(&self) -> ApiResponse {
        self.measure_memory();
        let reports: Vec<Value> = self.pool.reports().iter().map(described).collect();
        let body = json!({ "processes": reports }).to_string();
        respond::json(StatusCode::OK, self.budget.count(body.into()))
    }
}

/// A sample of this moment; the busy time of processes that have ended is none of the gauges.
fn sample(queue: QueueGauges, processes: ProcessGauges, ended_busy_ns: u64) -> Sample {
    Sample {
        at: Instant::now(),
        demand: queue.length + processes.active,
        processes: processes.up(),
        busy_ns: ended_busy_ns + processes.busy_ns,
    }
}

fn described(report: &ProcessReport) -> Value {
    json!({
        "process": report.process,
        "pid": report.pid,
        "slot": report.slot,
        "state": report.state,
        "requests_active": report.requests_active,
        "request_id": report.request_id.as_deref(),
        "working_seconds": report.working.map(|time| rounded(time.as_secs_f64())),
        "served": report.served,
        "restarts": report.restarts,
        "resident_bytes": report.resident_bytes,
        "cpu_seconds": procfs::cpu_seconds(report.pid).map(rounded),
        "age_seconds": rounded(report.age.as_secs_f64()),
        "last_stderr_seconds": report.last_stderr.map(|time| rounded(time.as_secs_f64())),
    })
}

/// To the millisecond, or a thousandth: more digits say nothing.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::{pool_for, pool_that_is_up};
    use std::num::NonZeroUsize;

    fn figures(pool: Pool) -> Figures {
        Figures {
            metrics: Arc::new(Metrics::new(NonZeroUsize::MIN)),
            pool: Arc::new(pool),
            budget: MemoryBudget::new(1 << 20),
            shutdown: Shutdown::default(),
            threads: Threads::this_one(),
            averages: Averages::default(),
            buffered_limit_bytes: 1 << 20,
            connections_limit: 1,
            started_at: 0.0,
            measured: Mutex::new(None),
        }
    }

    #[test]
    fn demand_is_what_waits_and_what_is_worked_on() {
        let queue = QueueGauges {
            length: 3,
            ..QueueGauges::default()
        };
        let processes = ProcessGauges {
            starting: 8,
            idle: 1,
            busy: 2,
            stopping: 16,
            active: 4,
            busy_ns: 10,
            ..ProcessGauges::default()
        };
        let sample = sample(queue, processes, 5);
        assert_eq!(
            (sample.demand, sample.processes, sample.busy_ns),
            (7, 3, 15)
        );
    }

    #[tokio::test]
    async fn ready_is_what_can_serve_and_is_not_about_to_end() {
        let figures = [figures(pool_for(1)), figures(pool_that_is_up(1))];
        assert_eq!(figures.each_ref().map(Figures::is_ready), [false, true]);
        figures[1].shutdown.advance(Stage::Draining);
        assert!(!figures[1].is_ready());
    }
}
