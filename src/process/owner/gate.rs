//! Holds up the reading of long replies while the memory budget is full.

use super::reading::READ_BYTES;
use crate::budget::{MemoryBudget, Overdraft, Usage};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;

/// Counts the bytes between one process and the rest of the worker, and holds up the reading of a
/// long reply while the memory budget is full.
///
/// Up to [`READ_BYTES`] of a line are read in any case: short replies and log lines never wait for
/// memory.
pub(super) struct Gate {
    budget: MemoryBudget,
    usage: Usage,
    overdraft: Option<Overdraft>,
    /// The wait for free bytes of the budget, while reading is held up.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Gate {
    pub(super) fn new(budget: MemoryBudget) -> Gate {
        Gate {
            usage: budget.usage(),
            overdraft: None,
            room: None,
            budget,
        }
    }

    /// This many bytes are on their way into the process, or were read from it and are not
    /// answered.
    pub(super) fn count(&mut self, bytes: usize) {
        self.usage.set(bytes);
    }

    /// Whether to read more, with `line_bytes` of a line read already. If not, the task is woken
    /// when there is room.
    pub(super) fn may_read(&mut self, cx: &mut Context<'_>, line_bytes: usize) -> bool {
        if line_bytes < READ_BYTES {
            self.overdraft = None;
            self.room = None;
            return true;
        }
        loop {
            if self.overdraft.is_some() || !self.budget.is_full() {
                self.room = None;
                return true;
            }
            self.overdraft = self.budget.overdraft();
            if self.overdraft.is_some() {
                continue;
            }
            self.budget.report_shortage();
            let budget = self.budget.clone();
            let room = self
                .room
                .get_or_insert_with(|| Box::pin(async move { budget.room().await }));
            if room.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.room = None;
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("usage", &self.usage)
            .field("overdraft", &self.overdraft)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn one_long_reply_at_a_time_is_read_while_the_budget_is_full() {
        let budget = MemoryBudget::new(64 * 1024);
        let mut context = Context::from_waker(Waker::noop());
        let [mut first, mut second] = [(); 2].map(|()| Gate::new(budget.clone()));
        first.count(READ_BYTES);
        second.count(READ_BYTES);
        assert!(first.may_read(&mut context, READ_BYTES));
        assert!(!second.may_read(&mut context, READ_BYTES));
        assert!(second.may_read(&mut context, READ_BYTES - 1), "a short one");
        assert!(!second.may_read(&mut context, READ_BYTES));
        // The first reply has been read to its end, and waits to be taken.
        assert!(first.may_read(&mut context, 0));
        assert!(second.may_read(&mut context, READ_BYTES));
        assert!(!first.may_read(&mut context, READ_BYTES));
        second.count(0);
        first.count(0);
        assert!(first.may_read(&mut context, READ_BYTES), "there is room");
    }
}
