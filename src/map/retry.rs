//! Whether an item has ended, is given to the pool again, or shows that the handler is lost.

use crate::answer::Outcome;
use crate::error::{Executed, RETRY_SOON, RequestFailure};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// How long a handler may keep dying, without a reply, before the run ends.
const KEEPS_DYING_FOR: Duration = Duration::from_secs(10);

/// Items in a row whose process must have died before the handler counts as dying on all of them.
const LEAST_DEATHS: u32 = 20;

/// Time until an item is given to the pool again while no process is up.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Time until an item that may have been run is given to a process again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How much is borne before the run ends.
#[derive(Debug)]
pub(super) struct Patience {
    /// How often an item is given to a process at most.
    attempts: usize,
    /// Since when processes have failed, with no reply in between.
    dying_since: Option<Instant>,
    /// Items in a row whose process died.
    deaths: u32,
    /// Whether a process has had an item.
    has_run: bool,
}

impl Patience {
    pub(super) fn new(attempts: NonZeroUsize) -> Patience {
        Patience {
            attempts: attempts.get(),
            dying_since: None,
            deaths: 0,
            has_run: false,
        }
    }

    /// A process has replied.
    fn renew(&mut self) {
        self.dying_since = None;
        self.deaths = 0;
    }

    /// A process has failed without a reply.
    fn record_failure(&mut self, now: Instant) {
        self.dying_since.get_or_insert(now);
    }

    /// Whether processes have failed for too long by now.
    fn is_over(&self, now: Instant) -> bool {
        self.dying_since
            .is_some_and(|since| now.saturating_duration_since(since) >= KEEPS_DYING_FOR)
    }
}

/// The next step for an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The item has ended.
    End,
    /// The item is given to the pool again.
    Again(Duration),
    /// No item can be done; says why.
    GiveUp(String),
}

/// Decides about an item by its outcome, after this number of attempts.
pub(super) fn judge(
    outcome: &Outcome,
    attempts: usize,
    now: Instant,
    patience: &mut Patience,
) -> Next {
    let failure = match outcome {
        Ok(_) => {
            patience.has_run = true;
            patience.renew();
            return Next::End;
        }
        Err(failure) => failure,
    };
    match failure {
        // The first items may each have ended their process; later items may end none.
        RequestFailure::NotLoaded(why) | RequestFailure::Unavailable { why, .. } => {
            patience.record_failure(now);
            let is_unusable = matches!(failure, RequestFailure::NotLoaded(_)) && !patience.has_run;
            match is_unusable || patience.is_over(now) {
                true => Next::GiveUp(why.full().to_owned()),
                false => Next::Again(LOOKS_AGAIN_AFTER),
            }
        }
        RequestFailure::Overloaded { retry_after, .. } => {
            Next::Again((*retry_after).min(RETRY_SOON))
        }
        RequestFailure::Draining => Next::GiveUp("the run was ended".to_owned()),
        failure => {
            let executed = failure.code().executed();
            patience.has_run |= executed != Executed::No;
            if executed == Executed::Yes {
                patience.renew();
            }
            if let RequestFailure::Exited(why) = failure {
                patience.record_failure(now);
                patience.deaths += 1;
                if patience.is_over(now) && patience.deaths > LEAST_DEATHS {
                    return Next::GiveUp(why.full().to_owned());
                }
            }
            match executed != Executed::No && attempts < patience.attempts {
                true => Next::Again(RETRY_AFTER),
                false => Next::End,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failure: RequestFailure) -> Outcome {
        Err(failure)
    }

    #[test]
    fn an_item_is_done_again_as_often_as_it_may_be() {
        let now = Instant::now();
        let exited = || failed(RequestFailure::Exited("x".into()));
        let busy = |retry_after| {
            let why = "x".into();
            failed(RequestFailure::Overloaded { why, retry_after })
        };
        let (at_once, late) = (Duration::from_millis(1), RETRY_SOON * 30);
        let no_command = RequestFailure::NotLoaded("none".into());
        for (outcome, attempts, expected) in [
            (Ok("{\"result\":1}".into()), 1, Next::End),
            (exited(), 1, Next::Again(RETRY_AFTER)),
            (exited(), 2, Next::End),
            (failed(RequestFailure::bad_request("x")), 1, Next::End),
            (failed(RequestFailure::BodyTooLarge(1)), 1, Next::End),
            (busy(at_once), 9, Next::Again(at_once)),
            (busy(late), 9, Next::Again(RETRY_SOON)),
            (failed(no_command), 1, Next::GiveUp("none".to_owned())),
        ] {
            let mut patience = Patience::new(NonZeroUsize::new(2).unwrap());
            let next = judge(&outcome, attempts, now, &mut patience);
            assert_eq!(next, expected, "{outcome:?}");
        }
    }

    #[test]
    fn a_handler_that_keeps_dying_ends_the_run_unless_it_replies_again() {
        let mut patience = Patience::new(NonZeroUsize::MIN);
        let dying = failed(RequestFailure::Unavailable {
            why: "it died".into(),
            retry_after: Duration::from_secs(5),
        });
        let start = Instant::now();
        let again = Next::Again(LOOKS_AGAIN_AFTER);
        assert_eq!(judge(&dying, 1, start, &mut patience), again);
        let late = start + KEEPS_DYING_FOR;
        assert_eq!(judge(&Ok("{}".into()), 1, late, &mut patience), Next::End);
        assert_eq!(judge(&dying, 1, late, &mut patience), again);
        let later = late + KEEPS_DYING_FOR;
        let lost = Next::GiveUp("it died".to_owned());
        assert_eq!(judge(&dying, 1, later, &mut patience), lost);
    }

    #[test]
    fn a_handler_that_dies_on_each_item_ends_the_run_after_many_and_some_time() {
        let dying = || failed(RequestFailure::Exited("it died".into()));
        let start = Instant::now();
        let late = start + KEEPS_DYING_FOR;
        let lost = || Next::GiveUp("it died".to_owned());
        for (deaths, replies_before, now, expected) in [
            (LEAST_DEATHS, false, late, lost()),
            (LEAST_DEATHS, true, late, Next::End),
            (LEAST_DEATHS, false, start, Next::End),
            (LEAST_DEATHS - 1, false, late, Next::End),
        ] {
            let mut patience = Patience::new(NonZeroUsize::MIN);
            for _ in 0..deaths {
                assert_eq!(judge(&dying(), 1, start, &mut patience), Next::End);
            }
            if replies_before {
                judge(&Ok("{}".into()), 1, start, &mut patience);
            }
            let next = judge(&dying(), 1, now, &mut patience);
            assert_eq!(next, expected, "{deaths} {replies_before}");
        }
    }

    #[test]
    fn a_command_that_ends_with_the_first_items_is_tried_on_others() {
        let not_loaded = || failed(RequestFailure::NotLoaded("no".into()));
        let mut patience = Patience::new(NonZeroUsize::MIN);
        let now = Instant::now();
        let unusable = Next::GiveUp("no".to_owned());
        assert_eq!(judge(&not_loaded(), 1, now, &mut patience), unusable);
        let mut patience = Patience::new(NonZeroUsize::MIN);
        let exited = failed(RequestFailure::Exited("x".into()));
        assert_eq!(judge(&exited, 1, now, &mut patience), Next::End);
        let again = Next::Again(LOOKS_AGAIN_AFTER);
        assert_eq!(judge(&not_loaded(), 1, now, &mut patience), again);
        let late = now + KEEPS_DYING_FOR;
        assert_eq!(judge(&not_loaded(), 1, late, &mut patience), unusable);
    }
}
