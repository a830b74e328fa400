//! Deadlines of a conversation: of its requests, of the start, of half lines and of silence.

use super::{Conversation, ConversationEvent, Fault, Promise, Ticket, Trust, silence::Waited};
use crate::error::RequestFailure;
use crate::procfs::Activity;
use std::time::{Duration, Instant};

/// A line whose first part keeps the process from being given a request must end within this time.
/// Python without buffering prints a line and its end in two writes: a part of a line alone is no
/// reason to doubt a process.
pub(super) const HALF_LINE_TIMEOUT: Duration = Duration::from_millis(100);

/// A process that has sent neither a ready line nor a reply counts as up after this long.
pub const UP_AFTER: Duration = Duration::from_secs(10);

impl<T: Ticket> Conversation<T> {
    /// When [`Conversation::expire`] has something to do next. `slowest_start` is that of the pool.
    /// A condemned process has no deadlines.
    pub fn next_deadline(&self, slowest_start: Option<Duration>) -> Option<Instant> {
        if matches!(self.trust, Trust::Condemned(_)) {
            return None;
        }
        let flights =
            (0..self.flights.len()).filter_map(|index| self.deadline_of(index, slowest_start));
        let waits_for_ready = self.limits.wait_ready && !self.is_ready;
        let startup = waits_for_ready.then(|| self.started + self.limits.startup_timeout);
        let lived =
            (self.is_coming_up() && !self.limits.wait_ready).then(|| self.started + UP_AFTER);
        let half_line = self.half_line_since.map(|since| since + HALF_LINE_TIMEOUT);
        let silence = self.silence.deadline();
        let rest = [
            startup,
            lived,
            half_line,
            silence,
            self.next_activity_check(),
        ];
        // Mostly none of the rest is there, which a chain of iterators would take longer to find.
        rest.into_iter().fold(flights.min(), earlier)
    }

    /// True when a reply is overdue, and the activity of the process decides whether it may be
    /// given requests ahead. All bytes that stdout holds must have been received before.
    pub fn must_check_activity(&self, now: Instant) -> bool {
        self.next_activity_check().is_some_and(|check| now >= check)
    }

    /// True when a process without ids has been silent for long enough, unless it is runnable. All
    /// bytes that stdout holds must have been received before.
    pub fn must_check_runnable(&self, now: Instant) -> bool {
        self.silence.deadline().is_some_and(|end| now >= end)
    }

    /// Records that the process, or a descendant, is runnable: it may be in the middle of a write.
    pub fn record_runnable(&mut self, now: Instant) {
        self.silence.runnable(now);
    }

    /// Records the activity of the process while its reply is overdue.
    pub fn record_activity(&mut self, now: Instant, activity: Activity) {
        if let Some(first) = self.flights.front() {
            self.read_ahead
                .record_activity(now, first.could_start_at, activity);
        }
    }

    /// Records whether the process was suspended (SIGSTOP, state T) when its time was over.
    pub fn record_suspended(&mut self, is_suspended: bool) {
        self.is_suspended = is_suspended;
    }

    /// Fails requests whose time is over, and condemns a process that is too slow. All bytes that
    /// stdout holds must have been received before: an answer that is there wins.
    ///
    /// * A request whose caller waits fails with 504. The process goes on if it is spared (it has
    ///   shown no life, and is younger than the slowest start seen), if the request was only
    ///   written ahead, or if only the caller's time budget is over.
    /// * In all other cases, and when the caller had its 504 earlier, the process is at fault: one
    ///   that works on several requests at the same time loses this request and finishes the
    ///   others; any other is condemned.
    pub fn expire(&mut self, now: Instant, slowest_start: Option<Duration>) {
        let age = now.saturating_duration_since(self.started);
        self.expire_waits(now, age);
        let is_spared = !self.has_shown_life() && age < self.spared_for(slowest_start);
        let mut index = 0;
        while index < self.flights.len() {
            let deadline = self.deadline_of(index, slowest_start);
            if deadline.is_none_or(|deadline| now < deadline) {
                index += 1;
                continue;
            }
            let is_behind_another = self.is_behind_another(index);
            let is_own_time_over = now >= self.flights[index].own_deadline();
            let failure = RequestFailure::TimedOut(if is_behind_another {
                self.behind_detail(index).into()
            } else {
                self.timeout_cause(&self.flights[index])
            });
            let event = self.flights[index].close(Err(failure));
            let is_told_only_now = event.is_some();
            self.events.extend(event);
            if is_own_time_over && !is_behind_another && !self.has_shown_life() {
                self.events.push(ConversationEvent::Unanswered);
            }
            // The end of a caller's time budget ends the caller's wait, and no process.
            if is_told_only_now && (is_spared || is_behind_another || !is_own_time_over) {
                index += 1;
            } else if self.promise.allows_any_order() {
                self.take_flight(index);
                self.finish_only(Fault::TimedOut);
            } else {
                // The slot stops a condemned process: `LiveProcess::stop`.
                self.condemn(if is_told_only_now || self.has_shown_life() {
                    Fault::TimedOut
                } else {
                    Fault::TooSlowToStart
                });
                return;
            }
        }
    }

    /// Ends waits that belong to no request: for the start, the end of a line, and silence.
    fn expire_waits(&mut self, now: Instant, age: Duration) {
        if self.limits.wait_ready && !self.is_ready {
            if age >= self.limits.startup_timeout {
                self.condemn(Fault::TooSlowToStart);
            }
        } else if self.is_coming_up() && age >= UP_AFTER {
            self.is_up_by_age = true;
            self.events
                .push(ConversationEvent::CameUp { shown_after: None });
        }
        if self
            .half_line_since
            .is_some_and(|since| now >= since + HALF_LINE_TIMEOUT)
        {
            self.half_line_since = None;
            if self.is_in_half_a_line() {
                self.doubt(Fault::PartialLine);
            }
        }
        if self.silence.end_if_over(now) == Waited::InVain {
            self.doubt(Fault::NeverSilent);
        }
    }

    fn next_activity_check(&self) -> Option<Instant> {
        let first = self.flights.front()?;
        let can_start = first.line.end <= self.outgoing.total_sent();
        let is_ahead = self.promise == Promise::Order && self.has_replied() && can_start;
        if is_ahead && self.trust == Trust::Sound {
            self.read_ahead.next_activity_check(first.could_start_at)
        } else {
            None
        }
    }

    /// While the caller waits: when it gets its 504. After that: when the process is condemned for
    /// the request.
    fn deadline_of(&self, index: usize, slowest_start: Option<Duration>) -> Option<Instant> {
        let flight = &self.flights[index];
        match (&flight.ticket, self.is_behind_another(index)) {
            (Some(_), false) => Some(flight.deadline()),
            // The time of the request has not begun, but the caller's time budget runs.
            (Some(_), true) => flight.callers_deadline,
            (None, true) => None,
            (None, false) if self.has_shown_life() => Some(flight.own_deadline()),
            (None, false) => {
                let spared = self.started + self.spared_for(slowest_start);
                Some(spared.max(flight.own_deadline()))
            }
        }
    }

    /// True while the process has shown no life and is too young to count as up.
    fn is_coming_up(&self) -> bool {
        !self.is_up_by_age && !self.has_shown_life()
    }

    fn spared_for(&self, slowest_start: Option<Duration>) -> Duration {
        let longest = self.limits.startup_timeout;
        slowest_start.map_or(longest, |slowest| slowest.min(longest))
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
