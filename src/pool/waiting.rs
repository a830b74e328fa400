//! Processes that wait for a call, in the order in which they are woken.
//!
//! Pure. Processes that have answered before come before new ones (which may still be starting),
//! idle ones before busy ones that may be given more, processes of the caller's thread before those
//! of other threads, and the most recently used first: its caches are warm, and a process that is
//! never woken can be stopped. A successor on trial comes before all others; a process that is
//! about to be replaced comes after the others that have answered.
//!
//! Also counts idle processes, including those woken but not yet polled; waiting calls are reserved
//! for them before any is written ahead to a busy process. A process that has never answered counts
//! as idle even while it works on its first requests.

use crate::threads::mailbox::{ThreadNumber, this_thread};

/// Which processes are woken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Successor on trial: its first answer shows that it works.
    OnTrial,
    /// Has answered before; idle.
    Idle,
    /// Has answered before; busy, and may be given more.
    Busy,
    /// Has answered before, and is about to be replaced; idle.
    Superseded,
    /// Has answered before, and is about to be replaced; busy, and may be given more.
    SupersededBusy,
    /// Has never answered: it may still be starting, or never come up.
    New,
}

impl Priority {
    /// Whether a process of this priority counts as idle.
    fn is_idle(self) -> bool {
        match self {
            Priority::OnTrial | Priority::Idle | Priority::New | Priority::Superseded => true,
            Priority::Busy | Priority::SupersededBusy => false,
        }
    }
}

/// A process on a thread, with the waker (or other handle) by which it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registered<W> {
    pub(super) process: u64,
    pub(super) thread: ThreadNumber,
    pub(super) waker: W,
}

impl<W> Registered<W> {
    /// A process of the calling thread.
    pub(super) fn on_this_thread(process: u64, waker: W) -> Registered<W> {
        Registered {
            process,
            thread: this_thread(),
            waker,
        }
    }
}

/// Registered processes.
#[derive(Debug)]
pub(super) struct WaitingProcesses<W> {
    /// One stack for each priority, in the order of [`Priority`].
    ranked: [Vec<Registered<W>>; PRIORITIES],
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
    pub(super) fn register(&mut self, priority: Priority, registered: Registered<W>) {
        self.ranked[priority as usize].push(registered);
    }

    /// Removes a process, registered or woken, if it is there.
    pub(super) fn withdraw(&mut self, process: u64) {
        if let Some(index) = self.woken.iter().rposition(|woken| *woken == process) {
            self.woken.swap_remove(index);
            return;
        }
        for ranked in &mut self.ranked {
            // From the end: mostly the process used last changes.
            if let Some(index) = ranked.iter().rposition(|listed| listed.process == process) {
                ranked.remove(index);
                return;
            }
        }
    }

    /// Takes the process to wake next for a call of the given thread. If it counts as idle, it does
    /// so until it is polled.
    pub(super) fn pop(&mut self, callers_thread: ThreadNumber) -> Option<Registered<W>> {
        let (priority, registered) = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .find_map(|(priority, listed)| Some((priority, pop_near(listed, callers_thread)?)))?;
        if priority.is_idle() {
            self.woken.push(registered.process);
        }
        Some(registered)
    }

    /// Takes the process to wake next among the processes that count as idle.
    pub(super) fn pop_idle(&mut self, callers_thread: ThreadNumber) -> Option<Registered<W>> {
        let idle = PRIORITIES_IN_ORDER
            .iter()
            .zip(&mut self.ranked)
            .filter(|(priority, _)| priority.is_idle())
            .find_map(|(_, listed)| pop_near(listed, callers_thread))?;
        self.woken.push(idle.process);
        Some(idle)
    }

    /// Takes the process to wake next of the processes that have never answered.
    pub(super) fn pop_new(&mut self, callers_thread: ThreadNumber) -> Option<Registered<W>> {
        let new = pop_near(&mut self.ranked[Priority::New as usize], callers_thread)?;
        self.woken.push(new.process);
        Some(new)
    }

    /// Number of processes that count as idle.
    pub(super) fn idle(&self) -> usize {
        let lists = PRIORITIES_IN_ORDER.iter().zip(&self.ranked);
        let idle = lists.filter(|(priority, _)| priority.is_idle());
        idle.map(|(_, listed)| listed.len()).sum::<usize>() + self.woken.len()
    }
}

/// Takes the most recently used process of the caller's thread, or else of any thread.
fn pop_near<W>(
    listed: &mut Vec<Registered<W>>,
    callers_thread: ThreadNumber,
) -> Option<Registered<W>> {
    let last = listed.pop()?;
    if last.thread == callers_thread {
        return Some(last);
    }
    // Few processes: a search costs less than a list for each thread.
    match listed.iter().rposition(|one| one.thread == callers_thread) {
        Some(index) => {
            let near = listed.remove(index);
            listed.push(last);
            Some(near)
        }
        None => Some(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ThreadNumber = ThreadNumber::FIRST;

    fn register(
        waiting: &mut WaitingProcesses<()>,
        process: u64,
        priority: Priority,
        thread: usize,
    ) {
        let thread = ThreadNumber::new(thread);
        let registered = Registered {
            process,
            thread,
            waker: (),
        };
        waiting.register(priority, registered);
    }

    #[test]
    fn the_most_recently_used_idle_process_is_woken_first() {
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
            register(&mut waiting_processes, process, priority, 0);
        }
        waiting_processes.withdraw(5);
        waiting_processes.withdraw(9);
        let popped = std::iter::from_fn(|| waiting_processes.pop(HERE));
        let order: Vec<u64> = popped.map(|one| one.process).collect();
        assert_eq!(order, [7, 4, 2, 3, 8, 6, 1]);
    }

    #[test]
    fn of_one_priority_those_of_the_callers_thread_come_first() {
        let mut waiting_processes = WaitingProcesses::new();
        for (process, priority, thread) in [
            (1, Priority::Idle, 0),
            (2, Priority::Idle, 1),
            (3, Priority::Idle, 0),
            (4, Priority::Idle, 1),
            (5, Priority::Busy, 1),
            (6, Priority::Busy, 0),
            (7, Priority::New, 0),
            (8, Priority::New, 1),
        ] {
            register(&mut waiting_processes, process, priority, thread);
        }
        let near = ThreadNumber::new(1);
        let idle = waiting_processes.pop_idle(HERE).map(|one| one.process);
        assert_eq!(idle, Some(3));
        let new = waiting_processes.pop_new(HERE).map(|one| one.process);
        assert_eq!(new, Some(7));
        // An idle one of another thread comes before a busy one of the own.
        let popped = std::iter::from_fn(|| waiting_processes.pop(near));
        let order: Vec<u64> = popped.map(|one| one.process).collect();
        assert_eq!(order, [4, 2, 1, 5, 6, 8]);
    }

    #[test]
    fn a_woken_process_counts_as_idle_until_it_looks() {
        let mut waiting_processes = WaitingProcesses::new();
        register(&mut waiting_processes, 1, Priority::Idle, 0);
        register(&mut waiting_processes, 2, Priority::New, 0);
        register(&mut waiting_processes, 3, Priority::Busy, 0);
        assert_eq!(waiting_processes.idle(), 2);
        while waiting_processes.pop(HERE).is_some() {}
        assert_eq!(waiting_processes.idle(), 2);
        waiting_processes.withdraw(1);
        waiting_processes.withdraw(3);
        assert_eq!(waiting_processes.idle(), 1);
        waiting_processes.withdraw(2);
        assert_eq!(waiting_processes.idle(), 0);
    }
}
