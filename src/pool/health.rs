//! The pool's health: whether it can serve at all, told from how its processes start and end.
//!
//! Pure. Decides when requests fail fast instead of waiting for a process that will not come.

use crate::cause::Cause;
use crate::error::RequestFailure;
use std::time::Duration;

/// Starts in a row, over the whole pool, that may fail before requests fail fast.
const MAX_FAILED_STARTS: u32 = 5;

/// The reason while requests have been given to processes and none has ever answered.
const NONE_HAS_ANSWERED: &str = "no process has answered since it was started, and the time for a \
     request was over; the 504 of that request has what was seen";

/// Counts of living, up and failed processes, and the last failure.
#[derive(Debug)]
pub(super) struct Health {
    alive: usize,
    up: usize,
    failed_starts: u32,
    /// Starts in a row that the system has refused.
    refused_starts: u32,
    evidence: Evidence,
    was_ever_up: bool,
    /// Processes are up after their ready line only (`--wait-ready`).
    requires_ready_line: bool,
    /// Why the last start failed, if no process has come up since.
    why: Option<Cause>,
    /// The reason that the log last gave for refusing requests.
    logged_why: Option<Cause>,
    next_start_in: Duration,
}

/// What requests have shown of the command since the worker was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// No request has used up its time with a process.
    Untried,
    /// A process has used up a request's time, and no process has ever answered.
    NoneYet {
        /// A process has come up since, which no request has tried.
        has_new_process: bool,
    },
    /// A process has answered, or sent its ready line.
    Answered,
}

impl Health {
    /// The health of a pool before its first start. With `no_command`, that reason is why it
    /// can never serve.
    pub(super) fn new(no_command: Option<String>) -> Health {
        Health {
            alive: 0,
            up: 0,
            failed_starts: if no_command.is_some() {
                MAX_FAILED_STARTS
            } else {
                0
            },
            refused_starts: 0,
            evidence: Evidence::Untried,
            was_ever_up: false,
            requires_ready_line: false,
            logged_why: no_command.clone().map(Cause::from),
            why: no_command.map(Cause::from),
            next_start_in: Duration::from_secs(1),
        }
    }

    /// Processes are up after their ready line only, whatever their age.
    pub(super) fn require_ready_line(&mut self) {
        self.requires_ready_line = true;
    }

    /// A process was started.
    pub(super) fn started(&mut self) {
        self.alive += 1;
        self.refused_starts = 0;
    }

    /// A process has answered, or sent its ready line, for the first time.
    pub(super) fn showed_life(&mut self) {
        self.evidence = Evidence::Answered;
    }

    /// A process that has never answered has used up a request's time.
    pub(super) fn unanswered(&mut self) {
        if self.evidence != Evidence::Answered {
            self.evidence = Evidence::NoneYet {
                has_new_process: false,
            };
        }
    }

    /// True when processes have been given requests and none has ever answered.
    pub(super) fn is_unproven(&self) -> bool {
        matches!(self.evidence, Evidence::NoneYet { .. })
    }

    /// A process is up; returns the news for the log if no process was up before.
    pub(super) fn came_up(&mut self) -> Option<&'static str> {
        self.up += 1;
        // The next request shows whether this process answers: a balancer that goes by readiness
        // sends none before.
        if let Evidence::NoneYet { has_new_process } = &mut self.evidence {
            *has_new_process = true;
        }
        self.failed_starts = 0;
        self.why = None;
        self.logged_why = None;
        self.refused_starts = 0;
        let was_ever_up = std::mem::replace(&mut self.was_ever_up, true);
        match (self.up, was_ever_up) {
            (1, false) => Some("ready: the first process is up"),
            (1, true) => Some("ready again: a process is up"),
            _ => None,
        }
    }

    /// True when a process has ever been up.
    pub(super) fn was_ever_up(&self) -> bool {
        self.was_ever_up
    }

    /// A process has left the pool that was never up.
    pub(super) fn left_before_up(&mut self) {
        self.alive -= 1;
    }

    /// A process has left the pool that was up.
    pub(super) fn left_after_up(&mut self) {
        self.alive -= 1;
        self.up -= 1;
    }

    /// A process has ended without ever being up; the next start comes after `next_start_in`.
    pub(super) fn start_failed(&mut self, why: Cause, next_start_in: Duration) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        self.note(why, next_start_in);
    }

    /// The command cannot be executed at all.
    pub(super) fn cannot_execute(&mut self, why: Cause, next_start_in: Duration) {
        self.failed_starts = self.failed_starts.max(MAX_FAILED_STARTS);
        self.note(why, next_start_in);
    }

    /// The failure that a request would get now, if any.
    pub(super) fn failure(&self) -> Option<RequestFailure> {
        let is_failing = self.failed_starts >= MAX_FAILED_STARTS;
        let is_refused = self.refused_starts >= MAX_FAILED_STARTS;
        if self.alive > 0 || !(is_failing || is_refused) {
            return None;
        }
        let why = self.why.clone()?;
        if !self.was_ever_up && !is_refused {
            return Some(RequestFailure::NotLoaded(why));
        }
        Some(RequestFailure::Unavailable {
            why,
            retry_after: self.next_start_in,
        })
    }

    /// Why requests are refused, for the log; once for each reason until a process is up.
    pub(super) fn take_news(&mut self) -> Option<Cause> {
        let (RequestFailure::NotLoaded(why) | RequestFailure::Unavailable { why, .. }) =
            self.failure()?
        else {
            return None;
        };
        if self.logged_why.as_ref() == Some(&why) {
            return None;
        }
        self.logged_why = Some(why.clone());
        Some(why)
    }

    /// Why requests may wait too long for a process, if the pool knows a reason.
    pub(super) fn why_requests_wait(&self) -> Option<Cause> {
        if self.is_unproven() {
            return Some(NONE_HAS_ANSWERED.into());
        }
        self.why_not_ready()
    }

    /// Why the pool is not ready, if it is not. A process that has come up since the last request
    /// without an answer makes it ready, so that a balancer sends the request that tries it.
    pub(super) fn why_not_ready(&self) -> Option<Cause> {
        if let Evidence::NoneYet {
            has_new_process: false,
        } = self.evidence
        {
            return Some(NONE_HAS_ANSWERED.into());
        }
        if self.up > 0 {
            return None;
        }
        if let Some(why) = self.why.clone() {
            return Some(why.map(|why| format!("no process is up: {why}")));
        }
        Some(Cause::from(if self.requires_ready_line {
            "no process is up: none has sent its ready line, which --wait-ready waits for"
        } else {
            "no process is up: none has sent its ready line or a reply, or lived for 10 s"
        }))
    }

    /// The system refused to start a process, which says nothing about the command.
    pub(super) fn start_refused(&mut self, why: Cause, next_start_in: Duration) {
        self.refused_starts = self.refused_starts.saturating_add(1);
        self.note(why, next_start_in);
    }

    fn note(&mut self, why: Cause, next_start_in: Duration) {
        self.why = Some(why);
        self.next_start_in = next_start_in;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    fn fail_starts(health: &mut Health, count: u32) {
        for _ in 0..count {
            health.started();
            health.left_before_up();
            health.start_failed("exit status: 3".into(), SOON);
        }
    }

    #[test]
    fn five_failed_starts_in_a_row_fail_requests_until_one_lives() {
        let mut health = Health::new(None);
        fail_starts(&mut health, 4);
        assert_eq!(health.failure(), None);
        fail_starts(&mut health, 1);
        assert_eq!(
            health.failure(),
            Some(RequestFailure::NotLoaded("exit status: 3".into()))
        );
        health.started();
        assert_eq!(health.failure(), None);
        assert!(health.why_not_ready().is_some());
        health.came_up();
        assert_eq!(health.why_not_ready(), None);
    }

    #[test]
    fn a_reason_is_told_once_until_it_changes_or_a_process_is_up() {
        let mut health = Health::new(None);
        let fail = |health: &mut Health, why: &str| {
            health.started();
            assert_eq!(health.take_news(), None, "one is starting");
            health.left_before_up();
            health.start_failed(why.into(), SOON);
            health.take_news()
        };
        for _ in 0..4 {
            assert_eq!(fail(&mut health, "a"), None);
        }
        assert_eq!(fail(&mut health, "a"), Some("a".into()));
        assert_eq!(fail(&mut health, "a"), None);
        assert_eq!(fail(&mut health, "b"), Some("b".into()));
        assert_eq!(fail(&mut health, "b"), None);
        health.started();
        health.came_up();
        health.left_after_up();
        for _ in 0..4 {
            assert_eq!(fail(&mut health, "b"), None);
        }
        assert_eq!(fail(&mut health, "b"), Some("b".into()));
    }

    #[test]
    fn becoming_ready_is_told_once_each_time() {
        let mut health = Health::new(None);
        health.started();
        health.started();
        assert_eq!(health.came_up(), Some("ready: the first process is up"));
        assert_eq!(health.came_up(), None);
        health.left_after_up();
        health.left_after_up();
        health.started();
        assert_eq!(health.came_up(), Some("ready again: a process is up"));
    }

    #[test]
    fn after_success_the_failure_is_another_one() {
        let mut health = Health::new(None);
        health.started();
        health.came_up();
        fail_starts(&mut health, 5);
        assert_eq!(health.failure(), None, "one is still alive");
        health.left_after_up();
        let why = "exit status: 3".into();
        assert_eq!(
            health.failure(),
            Some(RequestFailure::Unavailable {
                why,
                retry_after: SOON
            })
        );
    }

    #[test]
    fn a_command_that_cannot_be_executed_counts_as_five() {
        let mut health = Health::new(None);
        health.cannot_execute("not found".into(), SOON);
        assert_eq!(
            health.failure(),
            Some(RequestFailure::NotLoaded("not found".into()))
        );
    }

    #[test]
    fn a_start_that_the_system_refuses_is_told_and_is_no_fault_of_the_command() {
        let mut health = Health::new(None);
        for _ in 0..MAX_FAILED_STARTS {
            assert_eq!(health.failure(), None);
            health.start_refused("no descriptors".into(), SOON);
        }
        // Soon none waits for a process that cannot be had; and it is no fault of the command.
        let failure = RequestFailure::Unavailable {
            why: "no descriptors".into(),
            retry_after: SOON,
        };
        assert_eq!(health.failure(), Some(failure));
        let why = health.why_not_ready();
        assert_eq!(why, Some("no process is up: no descriptors".into()));
        health.started();
        health.left_before_up();
        assert_eq!(health.failure(), None);
    }

    #[test]
    fn while_none_has_ever_answered_the_pool_is_not_ready() {
        let mut health = Health::new(None);
        for _ in 0..2 {
            health.started();
            health.came_up();
        }
        assert_eq!(health.why_not_ready(), None);
        health.unanswered();
        let why = health.why_not_ready().unwrap();
        assert!(why.general().contains("has answered since"), "{why}");
        assert!(health.is_unproven());
        health.showed_life();
        assert_eq!(health.why_not_ready(), None);
        // Another one is silent: the function is slow, or that process is.
        health.unanswered();
        assert_eq!(health.why_not_ready(), None);
    }

    #[test]
    fn a_process_that_comes_up_has_the_next_request_show_whether_it_answers() {
        let mut health = Health::new(None);
        health.started();
        health.came_up();
        health.unanswered();
        assert!(health.why_not_ready().is_some());
        health.left_after_up();
        health.started();
        assert!(health.why_not_ready().is_some());
        health.came_up();
        assert_eq!(health.why_not_ready(), None);
        // A request that waits for that process all the same is told what is known.
        let why = health.why_requests_wait().unwrap();
        assert!(why.general().contains("has answered since"), "{why}");
        assert!(health.is_unproven());
        health.unanswered();
        assert!(health.why_not_ready().is_some());
        health.showed_life();
        assert_eq!(health.why_requests_wait(), None);
    }

    #[test]
    fn the_reason_names_the_signs_by_which_a_process_is_up() {
        let mut health = Health::new(None);
        let lived = |health: &Health| {
            let why = health.why_not_ready().unwrap();
            why.general().contains("lived for 10 s")
        };
        assert!(lived(&health));
        health.require_ready_line();
        assert!(!lived(&health));
    }

    #[test]
    fn one_success_starts_the_count_over() {
        let mut health = Health::new(None);
        fail_starts(&mut health, 4);
        health.started();
        health.came_up();
        health.left_after_up();
        fail_starts(&mut health, 4);
        assert_eq!(health.failure(), None);
    }
}
