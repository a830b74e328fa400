//! Takes in the orphans of processes, reaps them, and ends them with the worker.
//!
//! The worker takes in the orphans of its processes, as process 1 of a container does anyway: so
//! they are reaped, and killed when the worker stops in order. A process of the pool is never
//! reaped here: its status belongs to its slot. Only direct children are signalled and reaped, for
//! their numbers are not given to other processes before the worker reaps them.

use super::family::{Relation, family};
use crate::process::launcher_thread;
use crate::procfs::own_children;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

/// Longest time between two searches for dead orphans, for the case that no SIGCHLD comes.
const ORPHAN_SEARCH_PERIOD: Duration = Duration::from_secs(1);

/// Least time between two searches: many deaths are seen in one.
const MIN_SEARCH_PAUSE: Duration = Duration::from_millis(10);

/// Longest wait for killed orphans when the worker stops.
const ORPHANS_END_TIMEOUT: Duration = Duration::from_secs(1);

/// From now on, processes whose parent has ended become children of this one.
pub fn take_in_orphans() {
    family().inherit(&own_children());
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        warn!(%error, "orphans of processes will not be seen to their end");
    }
}

/// Reaps orphans as long as it is polled. Must be called within a runtime.
pub async fn reap_in_time() -> Infallible {
    let mut deaths = signal(SignalKind::child())
        .inspect_err(|error| warn!(%error, "orphans are reaped late"))
        .ok();
    let mut tick = interval(ORPHAN_SEARCH_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let death = async {
            match &mut deaths {
                Some(deaths) => drop(deaths.recv().await),
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: a signal or tick that is lost with it is followed by the search all the
        // same.
        tokio::select! {
            () = death => {}
            _ = tick.tick() => {}
        }
        // On the thread that starts processes: only between two starts is each child known for what
        // it is. Without that thread no process was started, and there are no orphans.
        drop(launcher_thread::run(reap_now).await);
        sleep(MIN_SEARCH_PAUSE).await;
    }
}

/// Reaps every child that has ended and belongs to no slot.
fn reap_now() {
    for pid in own_children() {
        if family().relation(pid) != Relation::OfSlot {
            reap(pid);
        }
    }
}

fn reap(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Ok(Some(_)) = rustix::process::waitid(WaitId::Pid(pid), options) {
        family().forget(pid);
    }
}

/// The orphans that are children of this program now.
pub fn orphans() -> Vec<Pid> {
    let mut orphans = own_children();
    orphans.retain(|pid| family().relation(*pid) == Relation::Orphan);
    orphans
}

/// Kills and reaps all orphans. The children of a killed orphan become children of the worker in
/// their turn, so this goes on until there are none.
pub async fn end_orphans() {
    let end = Instant::now() + ORPHANS_END_TIMEOUT;
    loop {
        let orphans = orphans();
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
