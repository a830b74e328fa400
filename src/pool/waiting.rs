//! Processes that wait for a call, in the order in which they are woken.
//!
//! Pure. Processes that have answered before come before new ones (which may still be starting),
//! idle ones before busy ones with room left, and the most recently used first: its caches are
//! warm, and a process that is never woken can be stopped. A successor on trial comes before all
//! others; a process that is about to be replaced comes after the others that have answered.
//!
//! Also counts idle processes, including those woken but not yet polled; waiting calls are reserved
//! for them before any is written ahead to a busy process.

/// Which processes are woken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Successor on trial: its first answer shows that it works.
    OnTrial,
    /// Has answered before; idle.
    Idle,
    /// Has answered before; busy, with room.
    Busy,
    /// Has answered before, and is about to be replaced; idle.
    Superseded,
    /// Has answered before, and is about to be replaced; busy, with room.
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

/// Registered processes, each with the waker (or other handle) by which it is reached.
#[derive(Debug)]
pub(super) struct WaitingProcesses<W> {
    /// One stack for each priority, in the order of [`Priority`].
    ranked: [Vec<(u64, W)>; PRIORITIES],
    /// Idle processes that were woken and have not been polled since.
    woken: Vec<u64>,
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
    /// No process.
    pub(super) fn new() -> WaitingProcesses<W> {
        WaitingProcesses {
            ranked: std::array::from_fn(|_| Vec::new()),
            woken: Vec::new(),
        }
    }

    /// Registers a process as the most recently used of its priority. It must not be registered
    /// already.
    pub(super) fn register(&mut self, process: u64, priority: Priority, reach: W) {
        self.ranked[priority as usize].push((process, reach));
    }

    /// Removes a process, registered or woken, if it is there.
    pub(super) fn withdraw(&mut self, process: u64) {
        if let Some(index) = self.woken.iter().rposition(|woken| *woken == process) {
            self.woken.swap_remove(index);
            return;
        }
        for ranked in &mut self.ranked {
            // From the end: mostly the process used last changes.
            if let Some(index) = ranked.iter().rposition(|(listed, _)| *listed == process) {
                ranked.remove(index);
                return;
            }
        }
    }

    /// Takes the process to wake next. An idle one counts as idle until it is polled.
    pub(super) fn pop(&mut self) -> Option<W> {
        let (priority, (process, reach)) = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .find_map(|(priority, listed)| Some((priority, listed.pop()?)))?;
        if priority.is_idle() {
            self.woken.push(process);
        }
        Some(reach)
    }

    /// Takes the idle process to wake next.
    pub(super) fn pop_idle(&mut self) -> Option<W> {
        let idle = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .filter(|(priority, _)| priority.is_idle())
            .find_map(|(_, listed)| listed.pop());
        let (process, reach) = idle?;
        self.woken.push(process);
        Some(reach)
    }

    /// Takes the process to wake next of the processes that have never answered.
    pub(super) fn pop_new(&mut self) -> Option<W> {
        let (process, reach) = self.ranked[Priority::New as usize].pop()?;
        self.woken.push(process);
        Some(reach)
    }

    /// Number of idle processes.
    pub(super) fn idle(&self) -> usize {
        let lists = PRIORITIES_IN_ORDER.iter().zip(&self.ranked);
        let idle = lists.filter(|(priority, _)| priority.is_idle());
        idle.map(|(_, listed)| listed.len()).sum::<usize>() + self.woken.len()
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
