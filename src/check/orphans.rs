//! Processes that a checked process has left behind.

use crate::process::reaping::orphans;
use crate::procfs::{is_zombie, name};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Processes that were left behind have this long to end too.
const CHILDREN_END_WITHIN: Duration = Duration::from_millis(200);

/// Names of processes that are told.
const TOLD_NAMES: usize = 5;

/// The names of the processes that were left behind, when they have had a moment to end.
pub(super) async fn names_of_orphans() -> Vec<String> {
    let end = Instant::now() + CHILDREN_END_WITHIN;
    loop {
        let orphans = orphans().into_iter();
        let alive: Vec<(String, u32)> = orphans
            .filter_map(|pid| {
                let pid = pid.as_raw_pid().unsigned_abs();
                Some((name_of_living(pid)?, pid))
            })
            .collect();
        if alive.is_empty() || Instant::now() >= end {
            return told(&alive);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The name of a process that has not ended; an ended one that is not reaped yet was not left
/// behind.
fn name_of_living(pid: u32) -> Option<String> {
    name(pid).filter(|_| !is_zombie(pid))
}

/// Processes by their names: how many there are of each, and the id of one.
fn told(processes: &[(String, u32)]) -> Vec<String> {
    let mut names: Vec<(&str, u32, usize)> = Vec::new();
    for (name, pid) in processes {
        match names.iter_mut().find(|(known, ..)| known == name) {
            Some((.., count)) => *count += 1,
            None => names.push((name, *pid, 1)),
        }
    }
    let shown = names.iter().take(TOLD_NAMES);
    let mut told: Vec<String> = shown
        .map(|(name, pid, count)| match count {
            1 => format!("{name} (process {pid})"),
            _ => format!("{name} ({count} processes, e.g. {pid})"),
        })
        .collect();
    let others = names.iter().skip(TOLD_NAMES);
    let others: usize = others.map(|(.., count)| count).sum();
    match others {
        0 => {}
        1 => told.push("one more".to_owned()),
        _ => told.push(format!("{others} more")),
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_was_not_left_behind() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(name_of_living(child.id()).is_some());
        child.kill().unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), options).unwrap();
        assert_eq!(name_of_living(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn processes_of_one_name_are_told_together() {
        let of = |names: &str| -> Vec<(String, u32)> {
            let names = names.split_whitespace().zip(1..);
            names.map(|(name, pid)| (name.to_owned(), pid)).collect()
        };
        for (names, expected) in [
            ("", ""),
            ("sleep", "sleep (process 1)"),
            ("a b a a", "a (3 processes, e.g. 1), b (process 2)"),
            (
                "a b c d e f",
                "a (process 1), b (process 2), c (process 3), d (process 4), e (process 5), one more",
            ),
            (
                "a a b c d e f g g",
                "a (2 processes, e.g. 1), b (process 3), c (process 4), d (process 5), \
                 e (process 6), 3 more",
            ),
        ] {
            assert_eq!(told(&of(names)).join(", "), expected);
        }
    }
}
