//! Processes with room, in the order in which they are asked.
//!
//! Pure. Those that have answered come before those that have not (they may still be starting),
//! idle ones before busy ones with room left, and the most recently used first: its caches are
//! warm, and what is never asked can be let go. One that must show that it works comes before all
//! of them, one that is about to be replaced after.

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Is to replace another, and shows with its first answer that it can.
    OnTrial,
    /// Has answered before, and has nothing to do.
    Idle,
    /// Has answered before, and has something to do.
    Busy,
    /// Has never answered.
    New,
    /// Is about to be replaced.
    Superseded,
}

/// Processes with room, and how to reach each.
#[derive(Debug)]
pub struct Available<W> {
    /// One list a rank, in the order of [`Rank`].
    ranked: [Vec<(u64, W)>; RANKS],
}

const RANKS: usize = Rank::Superseded as usize + 1;

impl<W> Available<W> {
    /// Nobody.
    pub fn new() -> Available<W> {
        Available {
            ranked: std::array::from_fn(|_| Vec::new()),
        }
    }

    /// Lists a process as the most recently used of its rank. It must not be listed already.
    pub fn list(&mut self, process: u64, rank: Rank, reach: W) {
        self.ranked[rank as usize].push((process, reach));
    }

    /// Takes a process off the list, if it is there.
    pub fn unlist(&mut self, process: u64) {
        for ranked in &mut self.ranked {
            // From the end: the one that changes is mostly the one used last.
            if let Some(index) = ranked.iter().rposition(|(listed, _)| *listed == process) {
                ranked.remove(index);
                return;
            }
        }
    }

    /// Takes the one to ask next off the list.
    pub fn next(&mut self) -> Option<W> {
        let next = self.ranked.iter_mut().find_map(Vec::pop);
        next.map(|(_, reach)| reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recently_used_idle_one_is_asked_first() {
        let mut available = Available::new();
        for (process, rank) in [
            (1, Rank::New),
            (2, Rank::Idle),
            (3, Rank::Busy),
            (4, Rank::Idle),
            (5, Rank::Idle),
            (6, Rank::Superseded),
            (7, Rank::OnTrial),
        ] {
            available.list(process, rank, process);
        }
        available.unlist(5);
        available.unlist(9);
        let order: Vec<u64> = std::iter::from_fn(|| available.next()).collect();
        assert_eq!(order, [7, 4, 2, 3, 1, 6]);
    }
}
