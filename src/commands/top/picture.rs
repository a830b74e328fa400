//! The state of the table between readings: rates, order of processes, and a worker that is gone.

use super::columns::{fitting, line, plain, titles};
use super::numbers::{duration, rate};
use super::report::{ProcessRow, Stats};
use std::cmp::Ordering;
use std::time::Instant;

/// Time at work from which a process is marked, in seconds.
const SLOW_SECONDS: f64 = 1.0;

/// Time at work from which a process is taken for hung, in seconds.
const HUNG_SECONDS: f64 = 10.0;

/// Characters of the bar that shows the busy ratio.
const BAR_WIDTH: usize = 20;

/// What a worker told at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) stats: Stats,
    /// `None` at an address that does not tell the processes.
    pub(super) processes: Option<Vec<ProcessRow>>,
}

/// Order of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Working,
    Memory,
    Cpu,
    Served,
    Process,
}

impl Sort {
    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Working => Sort::Memory,
            Sort::Memory => Sort::Cpu,
            Sort::Cpu => Sort::Served,
            Sort::Served => Sort::Process,
            Sort::Process => Sort::Working,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Sort::Working => "time at work",
            Sort::Memory => "memory",
            Sort::Cpu => "CPU",
            Sort::Served => "requests served",
            Sort::Process => "process",
        }
    }
}

/// How a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Usual,
    Title,
    Slow,
    Alarm,
}

/// The readings and the choices of the user.
#[derive(Debug)]
pub(super) struct Picture {
    last: Reading,
    before: Option<Reading>,
    gone: Option<(Instant, String)>,
    pub(super) sort: Sort,
    pub(super) paused: bool,
}

impl Picture {
    pub(super) fn new(first: Reading) -> Picture {
        Picture {
            last: first,
            before: None,
            gone: None,
            sort: Sort::Working,
            paused: false,
        }
    }

    /// Takes a reading, or the reason why there is none; a paused picture stays as it is.
    pub(super) fn take(&mut self, reading: Result<Reading, String>, now: Instant) {
        if self.paused {
            return;
        }
        match reading {
            Ok(reading) => {
                self.before = Some(std::mem::replace(&mut self.last, reading));
                self.gone = None;
            }
            Err(why) => {
                let since = self.gone.take().map_or(now, |(since, _)| since);
                self.gone = Some((since, why));
            }
        }
    }

    /// All lines for a screen of this width and height.
    pub(super) fn lines(&self, width: usize, height: usize, now: Instant) -> Vec<(String, Tone)> {
        let mut lines = self.head();
        if let Some((since, why)) = &self.gone {
            let time = duration(now.saturating_duration_since(*since).as_secs_f64());
            let why: String = why.chars().map(plain).collect();
            lines.push((format!("gone for {time}: {why}"), Tone::Alarm));
        }
        let Some(processes) = &self.last.processes else {
            let text = "the table of processes needs the address of the worker's --admin";
            lines.push((text.to_owned(), Tone::Usual));
            return lines;
        };
        let columns = fitting(width);
        lines.push((titles(&columns), Tone::Title));
        let sorted = self.sorted(processes);
        let room = height.saturating_sub(lines.len());
        let shown = match sorted.len() > room {
            true => room.saturating_sub(1),
            false => sorted.len(),
        };
        let rows = sorted.iter().take(shown);
        lines.extend(rows.map(|(process, cpu)| (line(&columns, process, *cpu), tone(process))));
        if shown < sorted.len() {
            let more = sorted.len() - shown;
            lines.push((format!("and {more} more"), Tone::Usual));
        }
        lines
    }

    /// The lines above the table.
    fn head(&self) -> Vec<(String, Tone)> {
        let Reading { stats, .. } = &self.last;
        let rate = self.requests_per_second();
        let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        let (ready, ready_tone) = match stats.ready {
            true => ("ready", Tone::Usual),
            false => ("not ready", Tone::Alarm),
        };
        let version: String = stats.version.chars().map(plain).collect();
        let up = duration(stats.uptime_seconds);
        let paused = if self.paused { ", paused" } else { "" };
        let sort = self.sort.name();
        let first = format!("faas-worker {version}, {ready}, up {up}, by {sort}{paused}");
        let (requests, queue, counts) = (&stats.requests, &stats.queue, &stats.processes);
        let oldest = queue.oldest_seconds.filter(|_| queue.length > 0);
        let oldest = oldest.map_or_else(|| "-".to_owned(), duration);
        let second = format!(
            "requests {rate}/s, {} active, {} failed of {}; queue {}/{}, oldest {oldest}",
            requests.active, requests.failed, requests.total, queue.length, queue.limit
        );
        let third = format!(
            "busy [{}] {:.0}%; processes {} busy, {} up, {} starting, at most {}",
            bar(stats.busy_ratio),
            stats.busy_ratio * 100.0,
            counts.busy,
            counts.up,
            counts.starting,
            counts.limit
        );
        vec![
            (first, ready_tone),
            (second, Tone::Usual),
            (third, Tone::Usual),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    fn requests_per_second(&self) -> Option<f64> {
        let before = self.before.as_ref()?;
        let total = |reading: &Reading| reading.stats.requests.total as f64;
        rate(
            total(before),
            total(&self.last),
            self.seconds_between(before),
        )
    }

    fn seconds_between(&self, before: &Reading) -> f64 {
        let time = self.last.at.saturating_duration_since(before.at);
        time.as_secs_f64()
    }

    /// Share of a CPU since the reading before, in per cent; of a process that is new, over its
    /// life.
    fn cpu(&self, process: &ProcessRow) -> Option<f64> {
        let now = process.cpu_seconds?;
        let earlier = self.before.as_ref().and_then(|before| {
            let mut all = before.processes.iter().flatten();
            let same = all.find(|other| other.pid == process.pid)?;
            rate(same.cpu_seconds?, now, self.seconds_between(before))
        });
        let share = earlier.or_else(|| rate(0.0, now, process.age_seconds));
        share.map(|share| share * 100.0)
    }

    /// The processes in their order, each with its share of a CPU.
    fn sorted<'a>(&self, processes: &'a [ProcessRow]) -> Vec<(&'a ProcessRow, Option<f64>)> {
        let with_cpu = processes.iter().map(|process| (process, self.cpu(process)));
        let mut rows: Vec<_> = with_cpu.collect();
        rows.sort_by(|(left, left_cpu), (right, right_cpu)| {
            let order = match self.sort {
                Sort::Working => falling(left.working_seconds, right.working_seconds),
                Sort::Memory => right.resident_bytes.cmp(&left.resident_bytes),
                Sort::Cpu => falling(*left_cpu, *right_cpu),
                Sort::Served => right.served.cmp(&left.served),
                Sort::Process => Ordering::Equal,
            };
            order.then(left.process.cmp(&right.process))
        });
        rows
    }
}

/// The larger number first, and a number before none.
fn falling(left: Option<f64>, right: Option<f64>) -> Ordering {
    let number = |value: Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
    number(right).total_cmp(&number(left))
}

fn tone(process: &ProcessRow) -> Tone {
    match process.working_seconds {
        Some(seconds) if seconds > HUNG_SECONDS => Tone::Alarm,
        Some(seconds) if seconds > SLOW_SECONDS => Tone::Slow,
        _ => Tone::Usual,
    }
}

/// A ratio as a bar of characters.
fn bar(ratio: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to the length of the bar"
    )]
    let full = (ratio.clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as usize;
    format!("{}{}", "|".repeat(full), " ".repeat(BAR_WIDTH - full))
}

#[cfg(test)]
#[path = "picture_tests.rs"]
pub(super) mod tests;
