//! What came of the requests: counted by status, and how long they took.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long something took, many times.
pub(super) struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    /// None yet. Three digits are kept.
    pub(super) fn new() -> Latencies {
        let nanoseconds = Histogram::new(3).expect("three digits are within one to five");
        Latencies { nanoseconds }
    }

    /// One more.
    pub(super) fn add(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        // The histogram grows to fit; a range that it cannot hold there is not.
        self.nanoseconds
            .record(nanoseconds)
            .expect("a histogram that grows takes every value");
    }

    /// Percentiles in microseconds; `null` if there was none.
    pub(super) fn to_json(&self) -> Value {
        if self.nanoseconds.is_empty() {
            return Value::Null;
        }
        let at = |quantile| self.nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
        json!({
            "count": self.nanoseconds.len(),
            "mean_us": self.nanoseconds.mean() / 1000.0,
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": self.nanoseconds.max() as f64 / 1000.0,
        })
    }
}

/// What came of the requests that are measured.
pub(super) struct Record {
    /// Answers that came while it was measured, by status.
    answered: BTreeMap<u16, u64>,
    ok: Latencies,
    refused: Latencies,
    other: Latencies,
    /// How late requests were sent. The figures are wrong if this is not small.
    pub late: Latencies,
    /// Connections that ended in the middle of a request.
    pub broken: u64,
    /// Bodies of a 200 that were not the same as the first one.
    pub wrong: u64,
    /// Requests without an answer at the end.
    pub unanswered: u64,
}

/// What an answer counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Its latency, and in the throughput.
    Wholly,
    /// Its latency: it came after the end.
    Latency,
    /// In the throughput: it was due before the beginning.
    Throughput,
    /// Not at all.
    Nothing,
}

impl Record {
    /// Nothing yet.
    pub(super) fn new() -> Record {
        Record {
            answered: BTreeMap::new(),
            ok: Latencies::new(),
            refused: Latencies::new(),
            other: Latencies::new(),
            late: Latencies::new(),
            broken: 0,
            wrong: 0,
            unanswered: 0,
        }
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, status: u16, latency: Duration, counts: Counts) {
        let (is_timed, is_counted) = match counts {
            Counts::Wholly => (true, true),
            Counts::Latency => (true, false),
            Counts::Throughput => (false, true),
            Counts::Nothing => (false, false),
        };
        if is_counted {
            *self.answered.entry(status).or_default() += 1;
        }
        if is_timed {
            match status {
                200 => self.ok.add(latency),
                429 | 503 => self.refused.add(latency),
                _ => self.other.add(latency),
            }
        }
    }

    /// All of it; `seconds` is how long it was measured.
    pub(super) fn to_json(&self, seconds: f64) -> Value {
        let ok = self.answered.get(&200).copied().unwrap_or(0);
        let all: u64 = self.answered.values().sum();
        json!({
            "seconds": seconds,
            "answered": self.answered,
            "per_second": all as f64 / seconds,
            "ok_per_second": ok as f64 / seconds,
            "ok": self.ok.to_json(),
            "refused": self.refused.to_json(),
            "other": self.other.to_json(),
            "late": self.late.to_json(),
            "broken": self.broken,
            "wrong": self.wrong,
            "unanswered": self.unanswered,
        })
    }
}
