//! The queue of waiting calls: bounded, first in first out, each call for a limited time.
//!
//! Pure: time comes in. A call's place is given out in order of arrival and kept for life, so that
//! a call that is handed back stands where it stood before.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The newest measurement in [`Queue::wait_for_newcomer`] counts as one part in this many.
const PACE_PARTS: u32 = 8;

/// Gaps in [`Queue::fresh`] are closed when they are more than half of its entries and this many.
const MIN_GAPS_TO_CLOSE: usize = 32;

/// The queue of waiting calls.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Calls handed back, by place.
    handed_back: BTreeMap<u64, QueueEntry<T>>,
    /// Fresh calls with their places, in order. A call that was removed leaves a gap, except at the
    /// front.
    fresh: VecDeque<(u64, Option<QueueEntry<T>>)>,
    gaps: usize,
    bound: usize,
    next_place: u64,
    /// When a call was last taken while others went on waiting.
    last_taken: Option<Instant>,
    /// Measured time between two takes from a queue that was not empty.
    pace: Option<Duration>,
}

#[derive(Debug)]
struct QueueEntry<T> {
    item: T,
    until: Instant,
}

/// The call that has waited longest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Oldest<'a, T> {
    /// A process took the call before.
    HandedBack(&'a T),
    /// No process has had the call yet.
    Fresh(&'a T),
}

/// A call taken from the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// The call may be run.
    InTime(T),
    /// The call has waited too long, and must not be run.
    TooLate(T),
}

impl<T> Queue<T> {
    /// An empty queue for at most `bound` calls.
    pub(super) fn new(bound: usize) -> Queue<T> {
        Queue {
            handed_back: BTreeMap::new(),
            fresh: VecDeque::new(),
            gaps: 0,
            bound,
            next_place: 0,
            last_taken: None,
            pace: None,
        }
    }

    /// Puts a call at the end, to wait until `until` at most; `build` makes it from its place.
    /// `None` if the queue is full.
    pub(super) fn push(&mut self, until: Instant, build: impl FnOnce(u64) -> T) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        let place = self.next_place;
        self.next_place += 1;
        let item = build(place);
        self.fresh
            .push_back((place, Some(QueueEntry { item, until })));
        Some(place)
    }

    /// Puts a call back at the place that it had.
    pub(super) fn hand_back(&mut self, place: u64, until: Instant, item: T) {
        self.handed_back.insert(place, QueueEntry { item, until });
    }

    /// Takes the call that has waited longest.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken<T>> {
        let entry = match self.is_handed_back_first() {
            true => self.handed_back.pop_first()?.1,
            false => self.take_fresh()?,
        };
        Some(self.taken(entry, now))
    }

    /// Takes the call at this place, if it still waits.
    pub(super) fn take_at(&mut self, place: u64, now: Instant) -> Option<Taken<T>> {
        let entry = self.remove_entry(place)?;
        Some(self.taken(entry, now))
    }

    /// Measures the pace, and tells whether the call that was taken out may be run.
    fn taken(&mut self, entry: QueueEntry<T>, now: Instant) -> Taken<T> {
        if let Some(last) = self.last_taken {
            let measured = now.saturating_duration_since(last);
            let pace = self.pace.unwrap_or(measured);
            self.pace = Some((pace * (PACE_PARTS - 1) + measured) / PACE_PARTS);
        }
        self.last_taken = (!self.is_empty()).then_some(now);
        let is_in_time = now < entry.until;
        if is_in_time {
            Taken::InTime(entry.item)
        } else {
            Taken::TooLate(entry.item)
        }
    }

    fn take_fresh(&mut self) -> Option<QueueEntry<T>> {
        let (_, first) = self.fresh.pop_front()?;
        self.close_first_gaps();
        first
    }

    fn close_first_gaps(&mut self) {
        while let Some((_, None)) = self.fresh.front() {
            self.fresh.pop_front();
            self.gaps -= 1;
        }
    }

    /// Removes the call at this place, if it still waits.
    pub(super) fn remove(&mut self, place: u64) -> Option<T> {
        Some(self.remove_entry(place)?.item)
    }

    fn remove_entry(&mut self, place: u64) -> Option<QueueEntry<T>> {
        if let Some(entry) = self.handed_back.remove(&place) {
            return Some(entry);
        }
        if self.fresh.front().is_some_and(|(first, _)| *first == place) {
            return self.take_fresh();
        }
        let found = self.fresh.binary_search_by_key(&place, |(place, _)| *place);
        let entry = self.fresh[found.ok()?].1.take()?;
        self.gaps += 1;
        self.close_first_gaps();
        if self.gaps > self.fresh.len() / 2 + MIN_GAPS_TO_CLOSE {
            self.fresh.retain(|(_, entry)| entry.is_some());
            self.gaps = 0;
        }
        Some(entry)
    }

    /// Removes all calls that have waited too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let late = self.all().filter(|(_, entry)| now >= entry.until);
        let places: Vec<u64> = late.map(|(place, _)| place).collect();
        places
            .into_iter()
            .filter_map(|place| self.remove(place))
            .collect()
    }

    /// Removes all calls.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.last_taken = None;
        self.gaps = 0;
        let handed_back = std::mem::take(&mut self.handed_back).into_values();
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        handed_back
            .chain(fresh.filter_map(|(_, entry)| entry))
            .map(|entry| entry.item)
            .collect()
    }

    /// When the next call expires. Looks at all of them.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.all().map(|(_, entry)| entry.until).min()
    }

    /// The place of the first call, and the place that the next new call will have.
    pub(super) fn places(&self) -> (Option<u64>, u64) {
        let back = self.handed_back.first_key_value();
        let fresh = self.fresh.front().map(|(place, _)| *place);
        let first = back.map(|(place, _)| *place).into_iter().chain(fresh).min();
        (first, self.next_place)
    }

    /// The first fresh call from this place on that is wanted, with its place.
    pub(super) fn find_fresh(
        &self,
        first: u64,
        is_wanted: impl Fn(u64, &T) -> bool,
    ) -> Option<(u64, &T)> {
        let start = self.fresh.partition_point(|(place, _)| *place < first);
        let fresh = self.fresh.range(start..);
        let mut fresh = fresh.filter_map(|(place, entry)| Some((*place, &entry.as_ref()?.item)));
        fresh.find(|(place, item)| is_wanted(*place, item))
    }

    /// The call that has waited longest.
    pub(super) fn first(&self) -> Option<Oldest<'_, T>> {
        if self.is_handed_back_first() {
            let (_, first) = self.handed_back.first_key_value()?;
            return Some(Oldest::HandedBack(&first.item));
        }
        let (_, first) = self.fresh.front()?;
        first.as_ref().map(|entry| Oldest::Fresh(&entry.item))
    }

    /// The call that has waited longest, whether it was handed back or not.
    pub(super) fn first_item(&self) -> Option<&T> {
        match self.first()? {
            Oldest::HandedBack(first) | Oldest::Fresh(first) => Some(first),
        }
    }

    /// Most calls that may wait.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Number of waiting calls.
    pub(super) fn len(&self) -> usize {
        self.handed_back.len() + self.fresh.len() - self.gaps
    }

    /// True when no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long a new call would wait, by the measured pace.
    pub(super) fn wait_for_newcomer(&self) -> Duration {
        let ahead = u32::try_from(self.len()).unwrap_or(u32::MAX);
        self.pace.unwrap_or(Duration::ZERO).saturating_mul(ahead)
    }

    /// Whether any call was handed back.
    pub(super) fn has_handed_back(&self) -> bool {
        !self.handed_back.is_empty()
    }

    /// Whether the call that has waited longest was handed back. A call that was handed back is not
    /// always older than all others: a process may have taken it while an older one was left to its
    /// thread.
    fn is_handed_back_first(&self) -> bool {
        let Some((back, _)) = self.handed_back.first_key_value() else {
            return false;
        };
        self.fresh.front().is_none_or(|(fresh, _)| back < fresh)
    }

    /// All waiting calls: those that were handed back, then the others, each in order.
    fn all(&self) -> impl Iterator<Item = (u64, &QueueEntry<T>)> {
        let handed_back = self.handed_back.iter();
        let handed_back = handed_back.map(|(place, entry)| (*place, entry));
        let fresh = self.fresh.iter();
        let fresh = fresh.filter_map(|(place, entry)| Some((*place, entry.as_ref()?)));
        handed_back.chain(fresh)
    }

    /// Full for new calls; calls that were handed back do not count.
    fn is_full(&self) -> bool {
        self.fresh.len() - self.gaps >= self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue_of(bound: usize, count: u64, until: Instant) -> Queue<u64> {
        let mut queue = Queue::new(bound);
        for _ in 0..count {
            queue.push(until, |place| place);
        }
        queue
    }

    #[test]
    fn a_full_queue_refuses_until_one_leaves() {
        let now = Instant::now();
        let mut queue = queue_of(2, 2, now + MS);
        assert_eq!(queue.push(now + MS, |place| place), None);
        assert_eq!(queue.remove(0), Some(0));
        assert_eq!(queue.push(now + MS, |place| place), Some(2));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn one_handed_back_is_first_again_and_does_not_count() {
        let now = Instant::now();
        let mut queue = queue_of(2, 2, now + MS);
        let first = queue.take(now);
        assert_eq!(first, Some(Taken::InTime(0)));
        assert_eq!(queue.push(now + MS, |place| place), Some(2));
        queue.hand_back(0, now + MS, 0);
        assert_eq!((queue.len(), queue.is_full()), (3, true));
        assert_eq!(queue.take(now), Some(Taken::InTime(0)));
        assert_eq!((queue.len(), queue.is_full()), (2, true));
        assert!(matches!(queue.take(now), Some(Taken::InTime(1))));
        queue.hand_back(1, now + MS, 1);
        assert_eq!(queue.push(now + MS, |place| place), Some(3));
    }

    #[test]
    fn what_waited_too_long_is_never_handed_out_to_run() {
        let now = Instant::now();
        let mut queue = queue_of(2, 2, now + MS);
        assert_eq!(queue.next_deadline(), Some(now + MS));
        assert_eq!(queue.take(now + MS), Some(Taken::TooLate(0)));
        assert_eq!(queue.expire(now), Vec::<u64>::new());
        assert_eq!(queue.expire(now + MS), vec![1]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_wait_of_a_newcomer_follows_the_pace() {
        let mut now = Instant::now();
        let mut queue = queue_of(1000, 200, now + 1000 * MS);
        for _ in 0..100 {
            queue.take(now);
            now += 10 * MS;
        }
        assert_eq!(queue.wait_for_newcomer(), 1000 * MS);
        queue.clear();
        assert_eq!(queue.wait_for_newcomer(), Duration::ZERO);
    }

    #[test]
    fn calls_that_leave_in_the_middle_keep_no_entry() {
        let now = Instant::now();
        let mut queue = queue_of(100, 1, now + MS);
        for _ in 0..10_000 {
            let place = queue.push(now + MS, |place| place).unwrap();
            assert_eq!(queue.remove(place), Some(place));
            assert_eq!(queue.remove(place), None);
            assert!(queue.fresh.len() < 100);
        }
        assert_eq!((queue.len(), queue.take(now)), (1, Some(Taken::InTime(0))));
    }

    #[test]
    fn one_handed_back_is_known_as_such() {
        let now = Instant::now();
        let mut queue = queue_of(2, 2, now + MS);
        assert_eq!(queue.first(), Some(Oldest::Fresh(&0)));
        queue.take(now);
        queue.hand_back(0, now + MS, 0);
        assert_eq!(queue.first(), Some(Oldest::HandedBack(&0)));
        queue.take(now);
        assert_eq!(queue.first(), Some(Oldest::Fresh(&1)));
    }

    #[test]
    fn one_taken_before_an_older_one_keeps_its_place_behind_it() {
        let now = Instant::now();
        let mut queue = queue_of(3, 3, now + MS);
        assert_eq!(queue.find_fresh(0, |_, item| *item > 0), Some((1, &1)));
        assert_eq!(queue.find_fresh(2, |_, _| true), Some((2, &2)));
        assert_eq!(queue.take_at(1, now), Some(Taken::InTime(1)));
        assert_eq!(queue.take_at(1, now), None);
        queue.hand_back(1, now + MS, 1);
        assert_eq!(queue.places(), (Some(0), 3));
        assert_eq!(queue.first(), Some(Oldest::Fresh(&0)));
        assert_eq!(queue.take(now), Some(Taken::InTime(0)));
        assert_eq!(queue.first(), Some(Oldest::HandedBack(&1)));
        assert_eq!(queue.take_at(2, now + MS), Some(Taken::TooLate(2)));
    }

    proptest! {
        #[test]
        fn the_queue_is_first_in_first_out_and_bounded(
            steps in proptest::collection::vec((0u8..5, 0u64..40), 0..200),
        ) {
            let now = Instant::now();
            let mut queue = Queue::new(5);
            let mut model: Vec<u64> = Vec::new();
            let mut out: Vec<u64> = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        let fresh = model.len() - model.iter().filter(|p| out.contains(p)).count();
                        let place = queue.push(now + MS, |place| place);
                        prop_assert_eq!(place.is_some(), fresh < 5);
                        model.extend(place);
                    }
                    1 => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(queue.take(now), first.map(Taken::InTime));
                        out.extend(first);
                    }
                    2 => {
                        let at = model.iter().position(|place| *place == number);
                        let taken = at.map(|at| model.remove(at));
                        prop_assert_eq!(queue.take_at(number, now), taken.map(Taken::InTime));
                        out.extend(taken);
                    }
                    3 => {
                        let at = model.iter().position(|place| *place == number);
                        let removed = at.map(|at| model.remove(at));
                        prop_assert_eq!(queue.remove(number), removed);
                    }
                    _ => {
                        if out.contains(&number) && !model.contains(&number) {
                            queue.hand_back(number, now + MS, number);
                            model.push(number);
                            model.sort_unstable();
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
