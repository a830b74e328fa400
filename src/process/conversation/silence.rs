//! How long a process without ids must be silent after its first reply, or after stray output
//! between requests, before it is given the next request.

use std::time::{Duration, Instant};

/// Silence on stdout after which output of the last request no longer comes. A print that is longer
/// than the pipe goes on as soon as the pipe has been read; a process that could write and has no
/// processor is not silent.
const SILENCE_TIME: Duration = Duration::from_millis(20);

/// Longest wait for that silence.
const MAX_SILENCE_WAIT: Duration = Duration::from_secs(1);

/// The wait for silence.
///
/// A handler may print its payload, and a payload may hold lines like replies. Without ids the
/// first of them is taken for the reply, which costs the sender of the payload alone; a line that
/// comes after the next request was written would answer another caller.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Silence {
    wait: Option<Wait>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    since: Instant,
    last_output: Instant,
    last_runnable: Instant,
}

impl Wait {
    fn is_silent(self, now: Instant) -> bool {
        now >= self.last_output + SILENCE_TIME
    }
}

/// State of the wait for silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The wait goes on, or there was none.
    NotYet,
    /// The process has been silent.
    Silent,
    /// The process has not been silent for [`SILENCE_TIME`] within [`MAX_SILENCE_WAIT`].
    InVain,
}

impl Silence {
    /// Begins or prolongs a wait: the process has written something that must not answer the next
    /// request.
    pub(super) fn wait(&mut self, now: Instant) {
        let since = self.wait.map_or(now, |wait| wait.since);
        self.wait = Some(Wait {
            since,
            last_output: now,
            last_runnable: now,
        });
    }

    /// Prolongs a wait, if there is one: the process has written something.
    pub(super) fn output(&mut self, now: Instant) {
        if let Some(wait) = &mut self.wait {
            wait.last_output = now;
        }
    }

    /// Prolongs a wait, if there is one: the process runs, or would if it had a processor.
    pub(super) fn runnable(&mut self, now: Instant) {
        if let Some(wait) = &mut self.wait {
            wait.last_runnable = now;
        }
    }

    /// Ends the wait: the process repeats ids, which tell more than silence.
    pub(super) fn end(&mut self) {
        self.wait = None;
    }

    pub(super) fn is_awaited(self) -> bool {
        self.wait.is_some()
    }

    /// When [`Silence::end_if_over`] ends the wait.
    pub(super) fn deadline(self) -> Option<Instant> {
        let wait = self.wait?;
        let last = wait.last_output.max(wait.last_runnable);
        Some((last + SILENCE_TIME).min(wait.since + MAX_SILENCE_WAIT))
    }

    /// Ends the wait if it is over. All bytes that stdout holds must have been received before.
    pub(super) fn end_if_over(&mut self, now: Instant) -> Waited {
        match self.wait {
            Some(wait) if wait.is_silent(now) && now >= wait.last_runnable + SILENCE_TIME => {
                self.wait = None;
                Waited::Silent
            }
            // A process that computes all the time, and writes nothing meanwhile, is silent too.
            Some(wait) if now >= wait.since + MAX_SILENCE_WAIT => {
                self.wait = None;
                match wait.is_silent(now) {
                    true => Waited::Silent,
                    false => Waited::InVain,
                }
            }
            Some(_) | None => Waited::NotYet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_silence_or_in_vain() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        for (output, end, waited) in [
            (vec![], 20, Waited::Silent),
            (vec![19], 39, Waited::Silent),
            (vec![10, 20, 30], 50, Waited::Silent),
            ((0..1000).step_by(10).collect(), 1000, Waited::InVain),
        ] {
            let mut silence = Silence::default();
            silence.wait(begin);
            for output in &output {
                assert_eq!(silence.end_if_over(at(*output)), Waited::NotYet, "{output}");
                silence.output(at(*output));
            }
            assert_eq!(silence.deadline(), Some(at(end)));
            assert_eq!(silence.end_if_over(at(end - 1)), Waited::NotYet);
            assert!(silence.is_awaited());
            assert_eq!(silence.end_if_over(at(end)), waited);
            assert!(!silence.is_awaited());
            assert_eq!(silence.deadline(), None);
        }
    }

    #[test]
    fn a_process_that_could_write_is_not_silent() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut silence = Silence::default();
        silence.wait(begin);
        for millis in (20..1000).step_by(20) {
            silence.runnable(at(millis));
            assert_eq!(silence.end_if_over(at(millis)), Waited::NotYet, "{millis}");
        }
        assert_eq!(silence.end_if_over(at(1000)), Waited::Silent);
    }

    #[test]
    fn output_alone_begins_no_wait() {
        let mut silence = Silence::default();
        silence.output(Instant::now());
        assert!(!silence.is_awaited());
        assert_eq!(silence.deadline(), None);
    }
}
