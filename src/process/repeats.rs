//! Output of failed starts: equal outputs in a row are logged once, and counted after that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest output that is compared, in bytes.
const MAX_COMPARED_BYTES: usize = 64 * 1024;

/// Longest time that an output is withheld because it may equal the last one.
const MAX_WITHHELD_TIME: Duration = Duration::from_millis(200);

/// Whether a process ended before its start was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartEnd {
    /// The process ended by itself before it was up.
    Failed,
    /// The process was up, or was stopped.
    NotFailed,
}

/// The output of the last failed start of a pool. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FailedOutput(Arc<Mutex<Failed>>);

#[derive(Debug, Default)]
struct Failed {
    text: Vec<u8>,
    repeated: u64,
}

impl FailedOutput {
    fn begins_with(&self, text: &[u8]) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.text.starts_with(text)
    }

    /// Has the same output logged again: after a change, its effect is to be seen.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Failed::default();
    }

    /// A start with this output has failed; returns how many starts in a row before had the same.
    fn record(&self, text: &[u8]) -> u64 {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.text == text {
            failed.repeated += 1;
        } else {
            failed.text = text.to_vec();
            failed.repeated = 0;
        }
        failed.repeated
    }
}

/// Output of one process since its start, while it may equal the output of the last failed start.
#[derive(Debug)]
pub(super) struct StartOutput {
    known: FailedOutput,
    printed: Vec<u8>,
    /// Bytes of it that are logged, or need not be.
    logged: usize,
    withheld_since: Option<Instant>,
    /// False once the output is too long, or was withheld for too long, to be compared.
    is_compared: bool,
}

impl StartOutput {
    pub(super) fn new(known: FailedOutput) -> StartOutput {
        StartOutput {
            known,
            printed: Vec::new(),
            logged: 0,
            withheld_since: None,
            is_compared: true,
        }
    }

    /// True until there is output.
    pub(super) fn is_new(&self) -> bool {
        self.is_compared && self.printed.is_empty()
    }

    /// When withheld output is to be logged.
    pub(super) fn withheld_until(&self) -> Option<Instant> {
        self.withheld_since.map(|since| since + MAX_WITHHELD_TIME)
    }

    /// True while there is output that is not logged.
    pub(super) fn is_withholding(&self) -> bool {
        self.logged < self.printed.len()
    }

    /// Takes a block of lines; returns the output to log now.
    pub(super) fn push(&mut self, now: Instant, block: Vec<u8>) -> Option<Vec<u8>> {
        if !self.is_compared {
            return Some(block);
        }
        if !self.printed.is_empty() {
            self.printed.push(b'\n');
        }
        self.printed.extend_from_slice(&block);
        if self.printed.len() > MAX_COMPARED_BYTES {
            return self.give_up();
        }
        if self.known.begins_with(&self.printed) {
            self.withheld_since.get_or_insert(now);
            return None;
        }
        self.withheld_since = None;
        self.take_withheld()
    }

    /// Returns withheld output if its time is over.
    pub(super) fn end_if_withheld_too_long(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.withheld_until().is_some_and(|end| end <= now) {
            return self.give_up();
        }
        None
    }

    /// The process has ended; returns the output to log, and how many failed starts in a row before
    /// had the same.
    pub(super) fn end(&mut self, end: StartEnd) -> (Option<Vec<u8>>, u64) {
        if end == StartEnd::NotFailed || !self.is_compared || self.printed.is_empty() {
            return (self.give_up(), 0);
        }
        self.is_compared = false;
        let repeated = self.known.record(&self.printed);
        if repeated > 0 {
            self.logged = self.printed.len();
        }
        (self.take_withheld(), repeated)
    }

    fn give_up(&mut self) -> Option<Vec<u8>> {
        self.is_compared = false;
        self.withheld_since = None;
        let withheld = self.take_withheld();
        self.printed = Vec::new();
        self.logged = 0;
        withheld
    }

    fn take_withheld(&mut self) -> Option<Vec<u8>> {
        let withheld = &self.printed[self.logged..];
        let withheld = withheld.strip_prefix(b"\n").unwrap_or(withheld).to_vec();
        self.logged = self.printed.len();
        (!withheld.is_empty()).then_some(withheld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged of a process that prints these blocks and ends; and how often it was so.
    fn run(known: &FailedOutput, blocks: &[&str], has_failed: bool) -> (Vec<String>, u64) {
        let now = Instant::now();
        let mut output = StartOutput::new(known.clone());
        let blocks = blocks.iter().map(|block| block.as_bytes().to_vec());
        let mut logged: Vec<_> = blocks.filter_map(|block| output.push(now, block)).collect();
        let end = match has_failed {
            true => StartEnd::Failed,
            false => StartEnd::NotFailed,
        };
        let (rest, repeated) = output.end(end);
        logged.extend(rest);
        let logged = logged
            .into_iter()
            .map(|text| String::from_utf8(text).unwrap());
        (logged.collect(), repeated)
    }

    #[test]
    fn the_same_output_of_failed_starts_is_logged_once_and_counted() {
        let known = FailedOutput::default();
        let long = "x".repeat(MAX_COMPARED_BYTES + 1);
        for (blocks, has_failed, logged, repeated) in [
            (&["a", "b"][..], true, &["a", "b"][..], 0),
            (&["a\nb"], true, &[], 1),
            (&["a", "b"], true, &[], 2),
            // A beginning, or more, is something else; and so is one that came up.
            (&["a"], false, &["a"], 0),
            (&["a", "b", "c"], false, &["a\nb\nc"], 0),
            (&["a", "c"], true, &["a\nc"], 0),
            (&["a", "b"], true, &["a\nb"], 0),
            (&[], true, &[], 0),
            (&["a", "b"], true, &[], 1),
            (&[&long], true, &[&long], 0),
            (&[&long], true, &[&long], 0),
        ] {
            let found = run(&known, blocks, has_failed);
            assert_eq!(found.0, logged, "{blocks:?}");
            assert_eq!(found.1, repeated, "{blocks:?}");
        }
    }

    #[test]
    fn withheld_output_is_logged_after_a_while() {
        let known = FailedOutput::default();
        run(&known, &["a", "b"], true);
        let now = Instant::now();
        let mut output = StartOutput::new(known);
        assert_eq!(output.push(now, b"a".to_vec()), None);
        assert_eq!(output.withheld_until(), Some(now + MAX_WITHHELD_TIME));
        assert_eq!(
            output.end_if_withheld_too_long(now + MAX_WITHHELD_TIME / 2),
            None
        );
        assert_eq!(
            output.end_if_withheld_too_long(now + MAX_WITHHELD_TIME),
            Some(b"a".to_vec())
        );
        assert_eq!(output.push(now, b"b".to_vec()), Some(b"b".to_vec()));
        assert_eq!(output.end(StartEnd::Failed), (None, 0));
    }
}
