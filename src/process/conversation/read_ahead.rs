//! How many requests a process that promised order may be given before it has answered the first.
//!
//! Pure: as many as the process is expected to finish within [`MAX_WAIT_AHEAD`], by its measured
//! service time. This number is the window. Service time = (time of a read − time when the process
//! could start on its oldest request) ÷ replies in that read. A read that brings several replies
//! tells nothing of each alone.
//!
//! A reply that takes longer than [`MAX_WAIT_AHEAD`] closes the window until it comes, and for
//! [`CLOSED_FOR`] after that. The activity of the process decides that, not the clock alone: on a
//! busy machine a process that is ready to run may wait several milliseconds for a processor, and
//! requests would wait as long for any other process.

use crate::procfs::Activity;
use std::time::{Duration, Instant};

/// Longest expected wait of a request that is written ahead.
const MAX_WAIT_AHEAD: Duration = Duration::from_millis(1);

/// How long the window stays closed after a slow reply. Long against one slow request a second
/// among fast ones; short enough that a handler which was only slow at first is soon at its best.
const CLOSED_FOR: Duration = Duration::from_secs(3);

/// Number of replies after which earlier measurements count half.
const REMEMBERED_REPLIES: u64 = 64;

/// Parts of a reply that are counted, so that halving rounds little.
const PARTS: u64 = 1024;

/// Whether the pace of a process limits its requests ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAheadWindow {
    /// As many as the process is expected to finish soon, for callers wait for it.
    Measured,
    /// As many as may be, for a check: on a busy machine, a measured window stays closed.
    Open,
}

/// The measured service times of one process, and the window that they allow.
#[derive(Debug)]
pub(super) struct ReadAhead {
    window: ReadAheadWindow,
    most: usize,
    /// Time of the replies measured lately.
    spent: Duration,
    /// The replies measured lately, in parts.
    parts: u64,
    has_first: bool,
    /// The window is closed until a reply comes.
    is_overdue: bool,
    closed_until: Option<Instant>,
    /// The last check of the process while a reply was overdue.
    overdue: Option<OverdueReply>,
}

/// A check of the process while a reply was overdue.
#[derive(Debug, Clone, Copy)]
struct OverdueReply {
    /// When the process could start on the request.
    since: Instant,
    at: Instant,
    /// Processor time that the process had used at the first check for this request.
    used: Duration,
}

impl ReadAhead {
    /// A window of at most `most` requests; a measured one is of one request until something is
    /// measured.
    pub(super) fn new(window: ReadAheadWindow, most: usize) -> ReadAhead {
        ReadAhead {
            window,
            most,
            spent: Duration::ZERO,
            parts: 0,
            has_first: false,
            is_overdue: false,
            closed_until: None,
            overdue: None,
        }
    }

    /// A read brought this many replies, `spent` after the process could start on the first.
    pub(super) fn replied(&mut self, now: Instant, spent: Duration, replies: u64) {
        if std::mem::take(&mut self.is_overdue) {
            self.closed_until = Some(now + CLOSED_FOR);
        }
        // The first reply may take longer: many programs load something for it, once.
        if !self.has_first {
            self.has_first = true;
            return;
        }
        self.spent += spent;
        self.parts += replies * PARTS;
        while self.parts >= 2 * REMEMBERED_REPLIES * PARTS {
            self.spent /= 2;
            self.parts /= 2;
        }
    }

    /// How many requests the process may have at the same time.
    pub(super) fn most_requests(&self, now: Instant) -> usize {
        if self.window == ReadAheadWindow::Open {
            return self.most;
        }
        let is_closed = self.is_overdue || self.closed_until.is_some_and(|until| now < until);
        if self.parts == 0 || is_closed {
            return 1;
        }
        let each = self.spent.as_nanos() * u128::from(PARTS) / u128::from(self.parts);
        let within = MAX_WAIT_AHEAD.as_nanos() / each.max(1);
        usize::try_from(within)
            .unwrap_or(usize::MAX)
            .min(self.most)
            .max(1)
    }

    /// When the activity of the process is to be checked, if a request that it could start on at
    /// `since` has no reply by then. `None` while the window is closed or open anyway.
    pub(super) fn next_activity_check(&self, since: Instant) -> Option<Instant> {
        let last = self.overdue.filter(|overdue| overdue.since == since);
        let next = last.map_or(since, |overdue| overdue.at) + MAX_WAIT_AHEAD;
        let is_measured = self.window == ReadAheadWindow::Measured;
        (is_measured && self.most_requests(next) > 1).then_some(next)
    }

    /// The activity of the process while its reply is overdue.
    pub(super) fn record_activity(&mut self, now: Instant, since: Instant, activity: Activity) {
        let last = self.overdue.take().filter(|overdue| overdue.since == since);
        match activity {
            Activity::Asleep | Activity::Unknown => self.is_overdue = true,
            Activity::Runnable { used } => {
                let first = last.map_or(used, |overdue| overdue.used);
                if used.saturating_sub(first) >= MAX_WAIT_AHEAD {
                    self.is_overdue = true;
                    return;
                }
                self.overdue = Some(OverdueReply {
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

    /// A process that has answered often, each time after `each`.
    fn paced(each: Duration, most: usize) -> ReadAhead {
        let mut ahead = ReadAhead::new(ReadAheadWindow::Measured, most);
        for _ in 0..200 {
            ahead.replied(Instant::now(), each, 1);
        }
        ahead
    }

    #[test]
    fn an_open_window_takes_no_notice_of_the_pace() {
        let now = Instant::now();
        let mut ahead = ReadAhead::new(ReadAheadWindow::Open, 200);
        assert_eq!(ahead.most_requests(now), 200);
        for _ in 0..3 {
            ahead.replied(now, 50 * MS, 1);
        }
        ahead.record_activity(now, now, Activity::Asleep);
        assert_eq!(ahead.most_requests(now), 200);
        assert_eq!(ahead.next_activity_check(now), None);
    }

    #[test]
    fn the_window_holds_as_many_as_are_done_within_a_millisecond() {
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
            let ahead = paced(each, most);
            assert_eq!(
                ahead.most_requests(Instant::now()),
                window,
                "{each:?} {most}"
            );
        }
    }

    #[test]
    fn nothing_is_known_before_the_second_reply() {
        let now = Instant::now();
        let mut ahead = ReadAhead::new(ReadAheadWindow::Measured, 32);
        assert_eq!(ahead.most_requests(now), 1);
        // It imported something.
        ahead.replied(Instant::now(), 300 * MS, 1);
        assert_eq!(ahead.most_requests(now), 1);
        ahead.replied(Instant::now(), 10 * US, 1);
        assert_eq!(ahead.most_requests(now), 32);
    }

    #[test]
    fn replies_read_together_share_their_time() {
        let now = Instant::now();
        let mut ahead = ReadAhead::new(ReadAheadWindow::Measured, 100);
        ahead.replied(Instant::now(), MS, 1);
        for _ in 0..50 {
            ahead.replied(Instant::now(), MS, 20);
        }
        assert_eq!(ahead.most_requests(now), 20);
    }

    #[test]
    fn a_process_that_becomes_slow_is_soon_given_one_request_at_a_time() {
        let mut ahead = paced(5 * US, 32);
        let mut count = 0;
        while ahead.most_requests(Instant::now()) > 1 {
            ahead.replied(Instant::now(), 2 * MS, 1);
            count += 1;
        }
        assert!(count <= 32, "{count}");
    }

    #[test]
    fn a_process_asleep_over_an_overdue_reply_is_given_one_at_a_time_for_some_seconds() {
        let since = Instant::now();
        for activity in [Activity::Asleep, Activity::Unknown] {
            let mut ahead = paced(5 * US, 32);
            let due = ahead.next_activity_check(since).unwrap();
            assert_eq!(due, since + MS);
            ahead.record_activity(due, since, activity);
            assert_eq!(ahead.most_requests(due), 1);
            assert_eq!(
                ahead.next_activity_check(since),
                None,
                "there is nothing left to close"
            );
            let answered = due + 2 * CLOSED_FOR;
            assert_eq!(ahead.most_requests(answered), 1, "it is still overdue");
            ahead.replied(answered, 5 * US, 1);
            assert_eq!(ahead.most_requests(answered + CLOSED_FOR - US), 1);
            assert_eq!(ahead.most_requests(answered + CLOSED_FOR), 32);
        }
    }

    #[test]
    fn a_computing_process_loses_its_window_and_one_without_a_processor_does_not() {
        let since = Instant::now();
        let mut ahead = paced(5 * US, 32);
        let mut now = since;
        for _ in 0..100 {
            let due = ahead.next_activity_check(since).unwrap();
            assert_eq!(due, now + MS);
            now = due;
            ahead.record_activity(now, since, Activity::Runnable { used: 7 * MS });
            assert_eq!(ahead.most_requests(now), 32);
        }
        ahead.record_activity(now, since, Activity::Runnable { used: 8 * MS });
        assert_eq!(ahead.most_requests(now), 1);
    }

    #[test]
    fn processor_time_of_one_request_is_not_held_against_the_next() {
        let since = Instant::now();
        let mut ahead = paced(5 * US, 32);
        ahead.record_activity(since + MS, since, Activity::Runnable { used: 7 * MS });
        let next = since + 2 * MS;
        assert_eq!(ahead.next_activity_check(next), Some(next + MS));
        ahead.record_activity(next + MS, next, Activity::Runnable { used: 9 * MS });
        assert_eq!(ahead.most_requests(next + MS), 32);
    }

    proptest! {
        #[test]
        fn the_window_is_at_least_one_and_at_most_its_limit(
            most in 1usize..100,
            times in proptest::collection::vec((0u64..5_000_000, 1u64..64), 0..200),
        ) {
            let now = Instant::now();
            let mut ahead = ReadAhead::new(ReadAheadWindow::Measured, most);
            for (nanos, replies) in times {
                ahead.replied(Instant::now(), Duration::from_nanos(nanos), replies);
                prop_assert!((1..=most).contains(&ahead.most_requests(now)));
                prop_assert!(ahead.parts < 2 * REMEMBERED_REPLIES * PARTS);
            }
        }
    }
}
