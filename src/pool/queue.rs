//! Requests that wait: bounded, first in first out, each for a limited time.
//!
//! Pure: time comes in. Places are given out in order of arrival and kept for life, so that a
//! request that is handed back stands where it stood, in front of all that came later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Weight of the newest measurement in [`Queue::wait_for_newcomer`]: one eighth.
const PACE_WEIGHT: u32 = 8;

/// Requests that wait.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: BTreeMap<u64, Waiting<T>>,
    bound: usize,
    /// How many of those waiting were handed back; the bound does not count them.
    handed_back: usize,
    next_place: u64,
    /// When one was last taken while others went on waiting.
    last_taken: Option<Instant>,
    /// Measured time between two takings from a queue that was not empty.
    pace: Option<Duration>,
}

/// One that waits.
#[derive(Debug)]
pub struct Waiting<T> {
    /// The request.
    pub item: T,
    until: Instant,
    /// Whether a process had it before.
    pub is_handed_back: bool,
}

/// One taken from the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// It may be run.
    InTime(T),
    /// It has waited too long, and must not be run.
    TooLate(T),
}

impl<T> Queue<T> {
    /// An empty queue for at most `bound` requests.
    pub fn new(bound: usize) -> Queue<T> {
        Queue {
            waiting: BTreeMap::new(),
            bound,
            handed_back: 0,
            next_place: 0,
            last_taken: None,
            pace: None,
        }
    }

    /// Puts a request at the end, to wait no longer than `until`; `build` makes it, given its
    /// place. `None` if the queue is full.
    pub fn push(&mut self, until: Instant, build: impl FnOnce(u64) -> T) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        let place = self.next_place;
        self.next_place += 1;
        let item = build(place);
        self.waiting.insert(
            place,
            Waiting {
                item,
                until,
                is_handed_back: false,
            },
        );
        Some(place)
    }

    /// Puts a request back at the place that it had.
    pub fn hand_back(&mut self, place: u64, until: Instant, item: T) {
        self.handed_back += 1;
        self.waiting.insert(
            place,
            Waiting {
                item,
                until,
                is_handed_back: true,
            },
        );
    }

    /// Takes the one that has waited longest.
    pub fn take(&mut self, now: Instant) -> Option<Taken<T>> {
        let (_, waiting) = self.waiting.pop_first()?;
        self.handed_back -= usize::from(waiting.is_handed_back);
        if let Some(last) = self.last_taken {
            let measured = now.saturating_duration_since(last);
            let pace = self.pace.unwrap_or(measured);
            self.pace = Some((pace * (PACE_WEIGHT - 1) + measured) / PACE_WEIGHT);
        }
        self.last_taken = (!self.waiting.is_empty()).then_some(now);
        let is_in_time = now < waiting.until;
        Some(if is_in_time {
            Taken::InTime(waiting.item)
        } else {
            Taken::TooLate(waiting.item)
        })
    }

    /// Takes out the request at this place, if it still waits.
    pub fn remove(&mut self, place: u64) -> Option<T> {
        let waiting = self.waiting.remove(&place)?;
        self.handed_back -= usize::from(waiting.is_handed_back);
        Some(waiting.item)
    }

    /// Takes out all that have waited too long.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let is_late = |waiting: &Waiting<T>| now >= waiting.until;
        let late = self.waiting.iter().filter(|(_, waiting)| is_late(waiting));
        let places: Vec<u64> = late.map(|(place, _)| *place).collect();
        places
            .into_iter()
            .filter_map(|place| self.remove(place))
            .collect()
    }

    /// Takes out all.
    pub fn clear(&mut self) -> Vec<T> {
        self.handed_back = 0;
        self.last_taken = None;
        std::mem::take(&mut self.waiting)
            .into_values()
            .map(|waiting| waiting.item)
            .collect()
    }

    /// When the next one will have waited too long. Looks at all of them.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    /// The place of the one that has waited longest, and the place that the next to come will have.
    pub fn places(&self) -> (Option<u64>, u64) {
        let first = self.waiting.first_key_value();
        (first.map(|(place, _)| *place), self.next_place)
    }

    /// The one that has waited longest.
    pub fn first(&self) -> Option<&Waiting<T>> {
        self.waiting.first_key_value().map(|(_, first)| first)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How long one that came now would wait, by the measured pace.
    pub fn wait_for_newcomer(&self) -> Duration {
        let ahead = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.pace.unwrap_or(Duration::ZERO).saturating_mul(ahead)
    }

    fn is_full(&self) -> bool {
        self.waiting.len() - self.handed_back >= self.bound
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
        assert_eq!(queue.waiting.len(), 2);
    }

    #[test]
    fn one_handed_back_is_first_again_and_does_not_count() {
        let now = Instant::now();
        let mut queue = queue_of(2, 2, now + MS);
        let first = queue.take(now);
        assert_eq!(first, Some(Taken::InTime(0)));
        assert_eq!(queue.push(now + MS, |place| place), Some(2));
        queue.hand_back(0, now + MS, 0);
        assert_eq!((queue.waiting.len(), queue.is_full()), (3, true));
        assert_eq!(queue.take(now), Some(Taken::InTime(0)));
        assert_eq!((queue.waiting.len(), queue.is_full()), (2, true));
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

    proptest! {
        #[test]
        fn it_is_first_in_first_out_and_bounded(
            steps in proptest::collection::vec((0u8..4, 0u64..40), 0..200),
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
                prop_assert_eq!(queue.waiting.len(), model.len());
            }
        }
    }
}
