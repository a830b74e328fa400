//! The ids of requests that were answered lately.

/// Number of ids that are remembered: several times as many as a process has requests by default.
const REMEMBERED_IDS: usize = 256;

/// The ids of requests that were answered lately, so that a second reply to one of them is told
/// from a reply with an id that was never given. 0 is no id.
#[derive(Debug)]
pub(super) struct ClosedIds {
    ids: [u64; REMEMBERED_IDS],
    next: usize,
}

impl Default for ClosedIds {
    fn default() -> ClosedIds {
        ClosedIds {
            ids: [0; REMEMBERED_IDS],
            next: 0,
        }
    }
}

impl ClosedIds {
    /// Remembers the id of an answered request, in the place of the oldest id.
    pub(super) fn record(&mut self, id: u64) {
        self.ids[self.next] = id;
        self.next = (self.next + 1) % REMEMBERED_IDS;
    }

    /// Whether a request with this id was answered lately.
    pub(super) fn contains(&self, id: u64) -> bool {
        id != 0 && self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ids_are_remembered() {
        let mut closed = ClosedIds::default();
        assert!(!closed.contains(0));
        let last = REMEMBERED_IDS as u64 + 10;
        (1..=last).for_each(|id| closed.record(id));
        assert!((11..=last).all(|id| closed.contains(id)));
        assert!((0..=10).all(|id| !closed.contains(id)));
    }
}
