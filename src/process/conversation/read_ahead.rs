//! How many requests a process that promised order may be given before it has answered the first.
//!
//! Pure: as many as it is expected to finish within [`WINDOW_LASTS`], by its own measured times.
//! A time is what passed since the process could start on the oldest request, shared by all the
//! replies that were there when it was looked at: replies that are read together took no less
//! for that.
//!
//! A reply that takes longer than the window closes it until it is there, and for [`CLOSED_FOR`]
//! after that. That is told by looks
//! at the process while the reply is overdue, not by the clock alone: on a busy machine a process
//! that is ready to run may wait for a processor for several milliseconds, and requests would wait
//! no less anywhere else.

use crate::procfs::Activity;
use std::time::{Duration, Instant};

/// No request is written ahead that is expected to wait for longer.
const WINDOW_LASTS: Duration = Duration::from_millis(1);

/// How long the window stays closed after a slow reply. Long against one slow request a second
/// among fast ones; short enough that a handler which was only slow at first is soon at its best.
const CLOSED_FOR: Duration = Duration::from_secs(3);

/// Replies after which what was measured before counts half.
const REMEMBERED: u64 = 64;

/// Parts of a reply that are counted, so that halves are exact enough.
const PARTS: u64 = 1024;

/// The measured times of one process, and what they allow.
#[derive(Debug)]
pub(super) struct ReadAhead {
    most: usize,
    /// Time and parts of replies measured lately.
    spent: Duration,
    parts: u64,
    has_first: bool,
    /// The window is closed until a reply comes.
    is_overdue: bool,
    closed_until: Option<Instant>,
    /// The last look at an overdue reply: since when it was worked on, when that was, and the
    /// processor time that the process had used.
    look: Option<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    since: Instant,
    at: Instant,
    used: Duration,
}

impl ReadAhead {
    /// Nothing measured yet; never more than `most` requests.
    pub(super) fn new(most: usize) -> ReadAhead {
        ReadAhead {
            most,
            spent: Duration::ZERO,
            parts: 0,
            has_first: false,
            is_overdue: false,
            closed_until: None,
            look: None,
        }
    }

    /// This many replies were there at a look, `spent` after the process could start on the first.
    pub(super) fn replied(&mut self, now: Instant, spent: Duration, replies: u64) {
        if std::mem::take(&mut self.is_overdue) {
            self.closed_until = Some(now + CLOSED_FOR);
        }
        // The first may hold what is done once only.
        if !self.has_first {
            self.has_first = true;
            return;
        }
        self.spent += spent;
        self.parts += replies * PARTS;
        while self.parts >= 2 * REMEMBERED * PARTS {
            self.spent /= 2;
            self.parts /= 2;
        }
    }

    /// How many requests the process may have at the same time.
    pub(super) fn window(&self, now: Instant) -> usize {
        let is_closed = self.is_overdue || self.closed_until.is_some_and(|until| now < until);
        if self.parts == 0 || is_closed {
            return 1;
        }
        let each = self.spent.as_nanos() * u128::from(PARTS) / u128::from(self.parts);
        let within = WINDOW_LASTS.as_nanos() / each.max(1);
        usize::try_from(within)
            .unwrap_or(usize::MAX)
            .min(self.most)
            .max(1)
    }

    /// When the process is to be looked at, if it has not answered by then what it could start on
    /// at `since`. `None` while the window is closed anyway.
    pub(super) fn next_look(&self, since: Instant) -> Option<Instant> {
        let last = self.look.filter(|look| look.since == since);
        let next = last.map_or(since, |look| look.at) + WINDOW_LASTS;
        (self.window(next) > 1).then_some(next)
    }

    /// What the process is seen doing while its reply is overdue.
    pub(super) fn looked(&mut self, now: Instant, since: Instant, activity: Activity) {
        let last = self.look.take().filter(|look| look.since == since);
        match activity {
            Activity::Asleep | Activity::Unknown => self.is_overdue = true,
            Activity::Runnable { used } => {
                let first = last.map_or(used, |look| look.used);
                if used.saturating_sub(first) >= WINDOW_LASTS {
                    self.is_overdue = true;
                    return;
                }
                self.look = Some(Look {
                    since,
                    at: now,
                    used: first,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    /// One that has answered often, each time after `each`.
    fn paced(each: Duration, most: usize) -> ReadAhead {
        let mut pace = ReadAhead::new(most);
        for _ in 0..200 {
            pace.replied(Instant::now(), each, 1);
        }
        pace
    }

    #[test]
    fn the_window_holds_what_is_done_within_a_millisecond() {
        for (each, most, window) in [
            (Duration::ZERO, 32, 32),
            (5 * US, 32, 32),
            (100 * US, 32, 10),
            (100 * US, 4, 4),
            (400 * US, 32, 2),
            (600 * US, 32, 1),
            (50 * MS, 32, 1),
            (5 * US, 1, 1),
        ] {
            let pace = paced(each, most);
            assert_eq!(pace.window(Instant::now()), window, "{each:?} {most}");
        }
    }

    #[test]
    fn nothing_is_known_before_the_second_reply() {
        let now = Instant::now();
        let mut pace = ReadAhead::new(32);
        assert_eq!(pace.window(now), 1);
        // It imported something.
        pace.replied(Instant::now(), 300 * MS, 1);
        assert_eq!(pace.window(now), 1);
        pace.replied(Instant::now(), 10 * US, 1);
        assert_eq!(pace.window(now), 32);
    }

    #[test]
    fn replies_read_together_share_their_time() {
        let now = Instant::now();
        let mut pace = ReadAhead::new(100);
        pace.replied(Instant::now(), MS, 1);
        for _ in 0..50 {
            pace.replied(Instant::now(), MS, 20);
        }
        assert_eq!(pace.window(now), 20);
    }

    #[test]
    fn one_that_becomes_slow_is_soon_given_one_at_a_time() {
        let mut pace = paced(5 * US, 32);
        let mut count = 0;
        while pace.window(Instant::now()) > 1 {
            pace.replied(Instant::now(), 2 * MS, 1);
            count += 1;
        }
        assert!(count <= 32, "{count}");
    }

    #[test]
    fn one_that_sleeps_over_an_overdue_reply_is_closed_for_some_seconds() {
        let since = Instant::now();
        for activity in [Activity::Asleep, Activity::Unknown] {
            let mut pace = paced(5 * US, 32);
            let due = pace.next_look(since).unwrap();
            assert_eq!(due, since + MS);
            pace.looked(due, since, activity);
            assert_eq!(pace.window(due), 1);
            assert_eq!(
                pace.next_look(since),
                None,
                "there is nothing left to close"
            );
            let answered = due + 2 * CLOSED_FOR;
            assert_eq!(pace.window(answered), 1, "it is still overdue");
            pace.replied(answered, 5 * US, 1);
            assert_eq!(pace.window(answered + CLOSED_FOR - US), 1);
            assert_eq!(pace.window(answered + CLOSED_FOR), 32);
        }
    }

    #[test]
    fn one_that_computes_is_closed_and_one_that_waits_for_a_processor_is_not() {
        let since = Instant::now();
        let mut pace = paced(5 * US, 32);
        let mut now = since;
        for _ in 0..100 {
            let due = pace.next_look(since).unwrap();
            assert_eq!(due, now + MS);
            now = due;
            pace.looked(now, since, Activity::Runnable { used: 7 * MS });
            assert_eq!(pace.window(now), 32);
        }
        pace.looked(now, since, Activity::Runnable { used: 8 * MS });
        assert_eq!(pace.window(now), 1);
    }

    #[test]
    fn what_was_computed_for_one_request_is_not_held_against_the_next() {
        let since = Instant::now();
        let mut pace = paced(5 * US, 32);
        pace.looked(since + MS, since, Activity::Runnable { used: 7 * MS });
        let next = since + 2 * MS;
        assert_eq!(pace.next_look(next), Some(next + MS));
        pace.looked(next + MS, next, Activity::Runnable { used: 9 * MS });
        assert_eq!(pace.window(next + MS), 32);
    }

    proptest! {
        #[test]
        fn the_window_is_never_more_than_it_may_be_nor_nothing(
            most in 1usize..100,
            times in proptest::collection::vec((0u64..5_000_000, 1u64..64), 0..200),
        ) {
            let now = Instant::now();
            let mut pace = ReadAhead::new(most);
            for (nanos, replies) in times {
                pace.replied(Instant::now(), Duration::from_nanos(nanos), replies);
                prop_assert!((1..=most).contains(&pace.window(now)));
                prop_assert!(pace.parts < 2 * REMEMBERED * PARTS);
            }
        }
    }
}
