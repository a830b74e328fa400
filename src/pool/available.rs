//! Processes with room, in the order in which they are asked.
//!
//! Pure. Those that have answered come before those that have not (they may still be starting),
//! idle ones before busy ones with room left, and the most recently used first: its caches are
//! warm, and what is never asked can be let go. One that must show that it works comes before all
//! of them. One that is about to be replaced comes after the others that have answered.
//!
//! Also known is how many of them are idle, those included that were asked and have not looked
//! yet: what waits is theirs before it is written ahead on a busy one.

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Is to replace another, and shows with its first answer that it can.
    OnTrial,
    /// Has answered before, and has nothing to do.
    Idle,
    /// Has answered before, and has something to do.
    Busy,
    /// Has answered before, is about to be replaced, and has nothing to do.
    Superseded,
    /// Has answered before, is about to be replaced, and has something to do.
    SupersededBusy,
    /// Has never answered: it may still be starting, or never come up.
    New,
}

impl Rank {
    fn is_idle(self) -> bool {
        match self {
            Rank::OnTrial | Rank::Idle | Rank::New | Rank::Superseded => true,
            Rank::Busy | Rank::SupersededBusy => false,
        }
    }
}

/// Processes with room, and how to reach each.
#[derive(Debug)]
pub struct Available<W> {
    /// One list a rank, in the order of [`Rank`].
    ranked: [Vec<(u64, W)>; RANKS],
    /// Those that were idle when they were asked.
    asked: Vec<u64>,
}

const RANKS: usize = Rank::New as usize + 1;

const RANKS_IN_ORDER: [Rank; RANKS] = [
    Rank::OnTrial,
    Rank::Idle,
    Rank::Busy,
    Rank::Superseded,
    Rank::SupersededBusy,
    Rank::New,
];

impl<W> Available<W> {
    /// Nobody.
    pub fn new() -> Available<W> {
        Available {
            ranked: std::array::from_fn(|_| Vec::new()),
            asked: Vec::new(),
        }
    }

    /// Lists a process as the most recently used of its rank. It must not be listed already.
    pub fn list(&mut self, process: u64, rank: Rank, reach: W) {
        self.ranked[rank as usize].push((process, reach));
    }

    /// Takes a process off the list, if it is there; it need not look any more if it was asked.
    pub fn unlist(&mut self, process: u64) {
        if let Some(index) = self.asked.iter().rposition(|asked| *asked == process) {
            self.asked.swap_remove(index);
            return;
        }
        for ranked in &mut self.ranked {
            // From the end: the one that changes is mostly the one used last.
            if let Some(index) = ranked.iter().rposition(|(listed, _)| *listed == process) {
                ranked.remove(index);
                return;
            }
        }
    }

    /// Takes the one to ask next off the list. If it is idle it counts as such until it looks.
    pub fn next(&mut self) -> Option<W> {
        let (rank, (process, reach)) = RANKS_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .find_map(|(rank, listed)| Some((rank, listed.pop()?)))?;
        if rank.is_idle() {
            self.asked.push(process);
        }
        Some(reach)
    }

    /// Takes the one to ask next off the list, if there is one with nothing to do.
    pub fn next_idle(&mut self) -> Option<W> {
        let idle = RANKS_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .filter(|(rank, _)| rank.is_idle())
            .find_map(|(_, listed)| listed.pop());
        let (process, reach) = idle?;
        self.asked.push(process);
        Some(reach)
    }

    /// Takes the one to ask next off the list, of those that have never answered.
    pub fn next_new(&mut self) -> Option<W> {
        let (process, reach) = self.ranked[Rank::New as usize].pop()?;
        self.asked.push(process);
        Some(reach)
    }

    /// How many have nothing to do.
    pub fn idle(&self) -> usize {
        let lists = RANKS_IN_ORDER.iter().zip(&self.ranked);
        let idle = lists.filter(|(rank, _)| rank.is_idle());
        idle.map(|(_, listed)| listed.len()).sum::<usize>() + self.asked.len()
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
            (6, Rank::SupersededBusy),
            (7, Rank::OnTrial),
            (8, Rank::Superseded),
        ] {
            available.list(process, rank, process);
        }
        available.unlist(5);
        available.unlist(9);
        let order: Vec<u64> = std::iter::from_fn(|| available.next()).collect();
        assert_eq!(order, [7, 4, 2, 3, 8, 6, 1]);
    }

    #[test]
    fn one_that_was_asked_counts_as_idle_until_it_looks() {
        let mut available = Available::new();
        available.list(1, Rank::Idle, ());
        available.list(2, Rank::New, ());
        available.list(3, Rank::Busy, ());
        assert_eq!(available.idle(), 2);
        while available.next().is_some() {}
        assert_eq!(available.idle(), 2);
        available.unlist(1);
        available.unlist(3);
        assert_eq!(available.idle(), 1);
        available.unlist(2);
        assert_eq!(available.idle(), 0);
    }
}
