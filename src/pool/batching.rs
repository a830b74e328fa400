//! Whether to wait a moment for more requests, so that they are written together.
//!
//! Pure. Under load each turn of the runtime's thread brings some requests, and to write them into
//! a pipe costs the same for one as for many, most of all where it wakes the process that reads
//! it. So a process that may have several takes them when no more are coming, after
//! [`MOST_TURNS`] at most; a single one is taken at once.

/// Turns of the thread that requests may be left waiting. Measured with a handler that takes no
/// time, on 64 connections: one turn was worth 4 % of the throughput, two 5 %, four no more.
const MOST_TURNS: u32 = 2;

/// What a process has seen of the queue since it last took something.
#[derive(Debug, Default)]
pub(super) struct Batching {
    seen: usize,
    turns: u32,
}

impl Batching {
    /// Whether to look again in the next turn, now that so many wait and the process has room for
    /// so many.
    pub(super) fn waits_for_more(&mut self, waiting: usize, room: usize) -> bool {
        let is_growing = waiting > self.seen.max(1) && waiting < room;
        if !is_growing || self.turns == MOST_TURNS {
            *self = Batching::default();
            return false;
        }
        self.seen = waiting;
        self.turns += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_waited_for_while_it_grows_and_not_for_long() {
        let table: [(&[usize], &[bool]); 7] = [
            (&[1], &[false]),
            (&[0], &[false]),
            (&[2, 2], &[true, false]),
            (&[5, 9, 20], &[true, true, false]),
            // More than fit need not be waited for.
            (&[32], &[false]),
            (&[5, 40], &[true, false]),
            // What others took meanwhile is no scaling.
            (&[5, 4, 5, 5], &[true, false, true, false]),
        ];
        for (waiting, expected) in table {
            let mut batching = Batching::default();
            let waits_for_more: Vec<bool> = waiting
                .iter()
                .map(|n| batching.waits_for_more(*n, 32))
                .collect();
            assert_eq!(waits_for_more, expected, "{waiting:?}");
        }
    }
}
