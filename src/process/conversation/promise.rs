//! What a process has announced about requests at the same time.

/// The announcement of a process about requests at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Nothing: one at a time.
    Nothing,
    /// One at a time, strictly in order, ids repeated.
    Order,
    /// This many at the same time, in any order, ids repeated.
    Concurrency(usize),
    /// One at a time was announced, and another order seen: the process counts as working on all
    /// of its requests, in any order, and is given no further one beside them.
    Broken,
}

impl Promise {
    /// True when the process may work on several of its requests at the same time, in any order.
    pub(super) fn allows_any_order(self) -> bool {
        matches!(self, Promise::Concurrency(_) | Promise::Broken)
    }
}
