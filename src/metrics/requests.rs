//! Figures of the requests for the function, kept by each thread for itself.

use super::histogram::{Histogram, HistogramTotals, add};
use crate::error::Code;
use crate::threads::mailbox::this_thread;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutcomeLabel {
    /// The handler's result.
    Ok,
    /// A failure with this code.
    Failed(Code),
    /// The client left before there was a response.
    ClientGone,
}

/// Outcomes there are.
const OUTCOMES: usize = Code::ALL.len() + 2;

impl OutcomeLabel {
    /// All outcomes that a request for the function can have.
    pub fn all() -> impl Iterator<Item = OutcomeLabel> {
        let failures = Code::ALL.iter().copied();
        let failures = failures
            .filter(|code| !matches!(code, Code::NotFound | Code::MethodNotAllowed))
            .map(OutcomeLabel::Failed);
        [OutcomeLabel::Ok, OutcomeLabel::ClientGone]
            .into_iter()
            .chain(failures)
    }

    /// The outcome as a label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeLabel::Ok => "ok",
            OutcomeLabel::ClientGone => "client_gone",
            OutcomeLabel::Failed(code) => code.as_str(),
        }
    }

    fn index(self) -> usize {
        match self {
            OutcomeLabel::Ok => 0,
            OutcomeLabel::ClientGone => 1,
            OutcomeLabel::Failed(code) => 2 + code as usize,
        }
    }
}

/// Figures of all requests for the function.
#[derive(Debug)]
pub struct RequestMetrics(Box<[ThreadFigures]>);

/// The figures of one thread, alone in their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadFigures {
    outcomes: [AtomicU64; OUTCOMES],
    /// Times of responses with a result.
    ok: Histogram,
    /// Times of other responses, by status and outcome: a handler chooses among 200 statuses.
    other: Mutex<BTreeMap<(u16, OutcomeLabel), Histogram>>,
    queue: Histogram,
    invoke: Histogram,
}

/// The sums over all threads.
#[derive(Debug, Default)]
pub struct RequestTotals {
    /// Requests by outcome.
    pub outcomes: BTreeMap<OutcomeLabel, u64>,
    /// Times of responses, by status and outcome.
    pub durations: BTreeMap<(u16, OutcomeLabel), HistogramTotals>,
    /// Times in the queue.
    pub queue: HistogramTotals,
    /// Times that processes worked on requests.
    pub invoke: HistogramTotals,
}

impl RequestMetrics {
    /// Figures that are all 0.
    pub(super) fn new(threads: NonZeroUsize) -> RequestMetrics {
        RequestMetrics(
            (0..threads.get())
                .map(|_| ThreadFigures::default())
                .collect(),
        )
    }

    /// Records a request that is over, on its thread: its response's status, if it had one, the
    /// time since its head, and the times in the queue and in a process.
    pub fn record(
        &self,
        outcome: OutcomeLabel,
        status: Option<u16>,
        total: Duration,
        times: Option<(Duration, Duration)>,
    ) {
        let own = &self.0[this_thread().index()];
        add(&own.outcomes[outcome.index()], 1);
        match (outcome, status) {
            (OutcomeLabel::Ok, _) => own.ok.record(total),
            (_, Some(status)) => {
                let mut other = own.other.lock().unwrap_or_else(PoisonError::into_inner);
                other.entry((status, outcome)).or_default().record(total);
            }
            (_, None) => {}
        }
        if let Some((queued, worked)) = times {
            own.queue.record(queued);
            own.invoke.record(worked);
        }
    }

    /// The sums over all threads.
    pub fn totals(&self) -> RequestTotals {
        let mut totals = RequestTotals::default();
        for own in &self.0 {
            for outcome in OutcomeLabel::all() {
                let count = own.outcomes[outcome.index()].load(Ordering::Relaxed);
                *totals.outcomes.entry(outcome).or_default() += count;
            }
            let ok = totals.durations.entry((200, OutcomeLabel::Ok)).or_default();
            own.ok.add_to(ok);
            let other = own.other.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, histogram) in other.iter() {
                histogram.add_to(totals.durations.entry(*key).or_default());
            }
            own.queue.add_to(&mut totals.queue);
            own.invoke.add_to(&mut totals.invoke);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_request_is_counted_once_under_its_outcome() {
        let metrics = RequestMetrics::new(NonZeroUsize::MIN);
        let millisecond = Duration::from_millis(1);
        let times = Some((millisecond, 2 * millisecond));
        metrics.record(OutcomeLabel::Ok, Some(200), millisecond, times);
        let failed = OutcomeLabel::Failed(Code::HandlerError);
        metrics.record(failed, Some(422), millisecond, times);
        metrics.record(failed, Some(400), millisecond, times);
        metrics.record(OutcomeLabel::ClientGone, None, millisecond, None);
        let totals = metrics.totals();
        assert_eq!(totals.outcomes.len(), OutcomeLabel::all().count());
        assert_eq!(totals.outcomes.values().sum::<u64>(), 4);
        assert_eq!(totals.outcomes[&failed], 2);
        let statuses: Vec<u16> = totals.durations.keys().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [200, 400, 422]);
        assert_eq!((totals.queue.count(), totals.invoke.count()), (3, 3));
    }

    #[test]
    fn the_figures_of_all_threads_are_added_up() {
        let metrics = RequestMetrics::new(NonZeroUsize::MIN.saturating_add(1));
        let millisecond = Duration::from_millis(1);
        for (own, requests) in metrics.0.iter().zip([2, 3]) {
            for _ in 0..requests {
                add(&own.outcomes[OutcomeLabel::Ok.index()], 1);
                own.ok.record(millisecond);
                own.queue.record(millisecond);
                own.invoke.record(millisecond);
            }
        }
        let totals = metrics.totals();
        assert_eq!(totals.outcomes[&OutcomeLabel::Ok], 5);
        assert_eq!(totals.durations[&(200, OutcomeLabel::Ok)].count(), 5);
        assert_eq!((totals.queue.count(), totals.invoke.count()), (5, 5));
    }

    #[test]
    fn each_outcome_has_a_place_and_a_name_of_its_own() {
        let all: Vec<OutcomeLabel> = OutcomeLabel::all().collect();
        let places: BTreeSet<usize> = all.iter().map(|outcome| outcome.index()).collect();
        assert_eq!(places.len(), all.len());
        assert!(places.iter().all(|place| *place < OUTCOMES));
        let names: BTreeSet<&str> = all.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(names.len(), all.len());
    }
}
