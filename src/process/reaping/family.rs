//! Which children of the worker belong to a slot, were inherited, or are orphans.
//!
//! One list for the whole program, as the kernel's list of children is.

use rustix::process::Pid;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The children of the worker that are no orphans.
#[derive(Debug)]
pub(super) struct Family {
    /// Processes of a pool that their slots have not reaped.
    of_slots: BTreeSet<i32>,
    /// Children from before this program was executed in its process; not ours to kill.
    inherited: BTreeSet<i32>,
}

static FAMILY: Mutex<Family> = Mutex::new(Family {
    of_slots: BTreeSet::new(),
    inherited: BTreeSet::new(),
});

/// The children of this worker.
pub(super) fn family() -> MutexGuard<'static, Family> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about a child of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// Signalled and reaped by its slot.
    OfSlot,
    /// Reaped when it ends, and left alone until then.
    Inherited,
    /// Reaped when it ends, and killed when the worker stops in order.
    Orphan,
}

impl Family {
    /// What to do about this child.
    pub(super) fn relation(&self, pid: Pid) -> Relation {
        let pid = pid.as_raw_pid();
        match (self.of_slots.contains(&pid), self.inherited.contains(&pid)) {
            (true, _) => Relation::OfSlot,
            (false, true) => Relation::Inherited,
            (false, false) => Relation::Orphan,
        }
    }

    /// The child belongs to a slot. Must be called on the launcher thread, which reaps orphans.
    pub(super) fn add_to_slot(&mut self, pid: Pid) {
        self.of_slots.insert(pid.as_raw_pid());
    }

    /// The slot of the child has reaped it, or given it up.
    pub(super) fn remove_from_slot(&mut self, pid: Pid) {
        self.of_slots.remove(&pid.as_raw_pid());
    }

    /// These children were there before the program was executed.
    pub(super) fn inherit(&mut self, children: &[Pid]) {
        self.inherited = children.iter().map(|pid| pid.as_raw_pid()).collect();
    }

    /// An inherited child or an orphan has been reaped.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.inherited.remove(&pid.as_raw_pid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_s_process_is_no_orphan_until_it_is_given_up() {
        let mut family = Family {
            of_slots: BTreeSet::new(),
            inherited: BTreeSet::from([5]),
        };
        let pid = |raw| Pid::from_raw(raw).unwrap();
        family.add_to_slot(pid(7));
        assert_eq!(family.relation(pid(5)), Relation::Inherited);
        assert_eq!(family.relation(pid(7)), Relation::OfSlot);
        family.remove_from_slot(pid(7));
        assert_eq!(family.relation(pid(7)), Relation::Orphan);
    }
}
