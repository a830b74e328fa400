//! Processes that a process on trial has left behind.

use crate::process::reaping::orphans;
use crate::procfs::{is_zombie, name};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Processes that were left behind have this long to end too.
const CHILDREN_END_WITHIN: Duration = Duration::from_millis(200);

/// The names of the processes that were left behind, when they have had a moment to end.
pub(super) async fn names_of_orphans() -> Vec<String> {
    let end = Instant::now() + CHILDREN_END_WITHIN;
    loop {
        let orphans = orphans().into_iter();
        let alive: Vec<String> = orphans
            .filter_map(|pid| {
                let pid = pid.as_raw_pid().unsigned_abs();
                let name = name(pid).filter(|_| !is_zombie(pid))?;
                Some(format!("{name} (process {pid})"))
            })
            .collect();
        if alive.is_empty() || Instant::now() >= end {
            return alive;
        }
        sleep(Duration::from_millis(5)).await;
    }
}
