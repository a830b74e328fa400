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
pub enum Priority {
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

impl Priority {
    fn is_idle(self) -> bool {
        match self {
            Priority::OnTrial | Priority::Idle | Priority::New | Priority::Superseded => true,
            Priority::Busy | Priority::SupersededBusy => false,
        }
    }
}

/// Processes with room, and how to reach each.
#[derive(Debug)]
pub struct WaitingProcesses<W> {
    /// One list a priority, in the order of [`Priority`].
    ranked: [Vec<(u64, W)>; PRIORITIES],
    /// Those that were idle when they were asked.
    asked: Vec<u64>,
}

const PRIORITIES: usize = Priority::New as usize + 1;

const PRIORITIES_IN_ORDER: [Priority; PRIORITIES] = [
    Priority::OnTrial,
    Priority::Idle,
    Priority::Busy,
    Priority::Superseded,
    Priority::SupersededBusy,
    Priority::New,
];

impl<W> WaitingProcesses<W> {
    /// Nobody.
    pub fn new() -> WaitingProcesses<W> {
        WaitingProcesses {
            ranked: std::array::from_fn(|_| Vec::new()),
            asked: Vec::new(),
        }
    }

    /// Lists a process as the most recently used of its priority. It must not be listed already.
    pub fn register(&mut self, process: u64, priority: Priority, reach: W) {
        self.ranked[priority as usize].push((process, reach));
    }

    /// Takes a process off the list, if it is there; it need not look any more if it was asked.
    pub fn withdraw(&mut self, process: u64) {
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
    pub fn pop(&mut self) -> Option<W> {
        let (priority, (process, reach)) = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .find_map(|(priority, listed)| Some((priority, listed.pop()?)))?;
        if priority.is_idle() {
            self.asked.push(process);
        }
        Some(reach)
    }

    /// Takes the one to ask next off the list, if there is one with nothing to do.
    pub fn pop_idle(&mut self) -> Option<W> {
        let idle = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .filter(|(priority, _)| priority.is_idle())
            .find_map(|(_, listed)| listed.pop());
        let (process, reach) = idle?;
        self.asked.push(process);
        Some(reach)
    }

    /// Takes the one to ask next off the list, of those that have never answered.
    pub fn pop_new(&mut self) -> Option<W> {
        let (process, reach) = self.ranked[Priority::New as usize].pop()?;
        self.asked.push(process);
        Some(reach)
    }

    /// How many have nothing to do.
    pub fn idle(&self) -> usize {
        let lists = PRIORITIES_IN_ORDER.iter().zip(&self.ranked);
        let idle = lists.filter(|(priority, _)| priority.is_idle());
        idle.map(|(_, listed)| listed.len()).sum::<usize>() + self.asked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recently_used_idle_one_is_asked_first() {
        let mut waiting_processes = WaitingProcesses::new();
        for (process, priority) in [
            (1, Priority::New),
            (2, Priority::Idle),
            (3, Priority::Busy),
            (4, Priority::Idle),
            (5, Priority::Idle),
            (6, Priority::SupersededBusy),
            (7, Priority::OnTrial),
            (8, Priority::Superseded),
        ] {
            waiting_processes.register(process, priority, process);
        }
        waiting_processes.withdraw(5);
        waiting_processes.withdraw(9);
        let order: Vec<u64> = std::iter::from_fn(|| waiting_processes.pop()).collect();
        assert_eq!(order, [7, 4, 2, 3, 8, 6, 1]);
    }

    #[test]
    fn one_that_was_asked_counts_as_idle_until_it_looks() {
        let mut waiting_processes = WaitingProcesses::new();
        waiting_processes.register(1, Priority::Idle, ());
        waiting_processes.register(2, Priority::New, ());
        waiting_processes.register(3, Priority::Busy, ());
        assert_eq!(waiting_processes.idle(), 2);
        while waiting_processes.pop().is_some() {}
        assert_eq!(waiting_processes.idle(), 2);
        waiting_processes.withdraw(1);
        waiting_processes.withdraw(3);
        assert_eq!(waiting_processes.idle(), 1);
        waiting_processes.withdraw(2);
        assert_eq!(waiting_processes.idle(), 0);
    }
}
