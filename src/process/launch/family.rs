//! The children of the worker: whose they are, and the end of those that nobody waits for.
//!
//! The worker takes in the orphans of its processes, as process 1 of a container does anyway: so
//! they are reaped, and killed with an orderly end. A process of the pool is never reaped here:
//! its status belongs to its slot. Only direct children are signalled and reaped, for their
//! numbers are not given to others before we reap them.

use super::spawner;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

/// Looks for dead orphans at least this often, whatever signals say.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Least time between two looks: many deaths are seen in one.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// How long an orderly end waits for what it kills.
const LAST_KILLS: Duration = Duration::from_secs(1);

/// Whose the children are. The kernel's list of children is the whole program's, and so is this.
#[derive(Debug)]
struct Family {
    /// Processes of a pool that their slots have not reaped.
    own: BTreeSet<i32>,
    /// Children from before this program was executed in its process; not ours to kill.
    inherited: BTreeSet<i32>,
}

static FAMILY: Mutex<Family> = Mutex::new(Family {
    own: BTreeSet::new(),
    inherited: BTreeSet::new(),
});

fn family() -> MutexGuard<'static, Family> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about a child of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Its slot sees to it.
    Own,
    /// Reaped when it ends, and left alone until then.
    Inherited,
    /// Reaped when it ends, and killed with an orderly end.
    Orphan,
}

impl Family {
    fn relation(&self, pid: Pid) -> Relation {
        let pid = pid.as_raw_pid();
        match (self.own.contains(&pid), self.inherited.contains(&pid)) {
            (true, _) => Relation::Own,
            (false, true) => Relation::Inherited,
            (false, false) => Relation::Orphan,
        }
    }
}

/// From now on, processes whose parent has ended become children of this one.
pub fn take_in_orphans() {
    family().inherited = children().iter().map(|pid| pid.as_raw_pid()).collect();
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        warn!(%error, "orphans of processes will not be seen to their end");
    }
}

/// The child belongs to a slot. Must be called on the thread that reaps.
pub(super) fn own(pid: Pid) {
    family().own.insert(pid.as_raw_pid());
}

/// The child has been reaped by its slot, or given up by it.
pub(super) fn disown(pid: Pid) {
    family().own.remove(&pid.as_raw_pid());
}

/// Reaps orphans as long as it is polled. Must be called within a runtime.
pub async fn reap_in_time() -> Infallible {
    let mut deaths = signal(SignalKind::child())
        .inspect_err(|error| warn!(%error, "orphans are reaped late"))
        .ok();
    let mut tick = interval(LOOK_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let death = async {
            match &mut deaths {
                Some(deaths) => drop(deaths.recv().await),
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: a signal or tick that is lost with it is followed by the look all the same.
        tokio::select! {
            () = death => {}
            _ = tick.tick() => {}
        }
        spawner::reap().await;
        sleep(LEAST_PAUSE).await;
    }
}

/// Reaps every child that has ended and is not a slot's. Must be called on the thread that
/// starts processes: only between two starts is each child known for what it is.
pub(super) fn reap_now() {
    for pid in children() {
        if family().relation(pid) != Relation::Own {
            reap(pid);
        }
    }
}

fn reap(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Ok(Some(_)) = rustix::process::waitid(WaitId::Pid(pid), options) {
        family().inherited.remove(&pid.as_raw_pid());
    }
}

/// Kills and reaps all that processes have left behind. What a killed one leaves behind in its
/// turn comes up as the next child, so this goes on until there is none.
pub async fn end_orphans() {
    let end = Instant::now() + LAST_KILLS;
    loop {
        let mut orphans = children();
        orphans.retain(|pid| family().relation(*pid) == Relation::Orphan);
        if orphans.is_empty() {
            return;
        }
        if Instant::now() >= end {
            warn!(processes = orphans.len(), "descendants do not end");
            return;
        }
        for &pid in &orphans {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            reap(pid);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The children of this process, dead ones included.
fn children() -> Vec<Pid> {
    children_by_thread().unwrap_or_else(|_| children_by_parent())
}

/// As the kernel lists them, where it was built to do so.
fn children_by_thread() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(text) => found.extend(text.split_whitespace().filter_map(pid)),
            // A thread that has just ended. (Where the lists do not exist, neither does ours.)
            Err(error) if is_gone(&error) && fs::exists("/proc/thread-self/children")? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::SRCH]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// By a look at every process.
fn children_by_parent() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let found = entries.flatten().filter_map(|entry| {
        let pid = pid(entry.file_name().to_str()?)?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        (parent_in(&stat) == Some(own)).then_some(pid)
    });
    found.collect()
}

fn pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// The parent in a line of `/proc/PID/stat`: the second field after the name, which stands in
/// parentheses and may hold anything.
fn parent_in(stat: &[u8]) -> Option<Pid> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    pid(rest.split_whitespace().nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        let table: [(&[u8], Option<i32>); 5] = [
            (b"7 (sh) S 3 7 7 0", Some(3)),
            (b"7 (a) b) (c)) Z 12 7", Some(12)),
            (b"7 (\xff\n) R 1 7", Some(1)),
            (b"7 (kthreadd) S 0 0", None),
            (b"", None),
        ];
        for (stat, parent) in table {
            let found = parent_in(stat).map(Pid::as_raw_pid);
            assert_eq!(found, parent, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn both_ways_to_list_children_find_one_that_has_ended() {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(pid), options).unwrap();
        assert!(children_by_thread().is_ok_and(|found| found.contains(&pid)));
        assert!(children_by_parent().contains(&pid));
        child.wait().unwrap();
    }

    #[test]
    fn a_slot_s_process_is_no_orphan_until_it_is_given_up() {
        let mut family = Family {
            own: BTreeSet::new(),
            inherited: BTreeSet::from([5]),
        };
        let pid = |raw| Pid::from_raw(raw).unwrap();
        family.own.insert(7);
        assert_eq!(family.relation(pid(5)), Relation::Inherited);
        assert_eq!(family.relation(pid(7)), Relation::Own);
        family.own.remove(&7);
        assert_eq!(family.relation(pid(7)), Relation::Orphan);
    }
}
