//! Tells kills by the kernel's out-of-memory killer from other kills.
//!
//! The kernel counts these kills for the whole control group only. So a process that was killed
//! when the count rose is taken for the killed one.

use crate::control_group;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a kill that was counted may explain the death of a process. A kill that explains none
/// within this time hit no process of the pool.
const KILL_EXPLAINS_FOR: Duration = Duration::from_secs(1);

/// Watches the count of the control group of the worker and its processes.
#[derive(Debug)]
pub(in crate::process) struct OomWatch {
    /// `None` where there is no such count: then nothing is ever explained.
    file: Option<PathBuf>,
    tally: Mutex<KillCounts>,
}

/// Kills that were counted, less the ones that explained a death.
#[derive(Debug)]
struct KillCounts {
    counted: u64,
    open: u64,
    rose_at: Option<Instant>,
}

impl OomWatch {
    /// Starts from the count as it is now.
    pub(in crate::process) fn start() -> OomWatch {
        let file = control_group::files("memory.events", "memory.oom_control")
            .into_iter()
            .find(|file| count(file).is_some());
        let counted = file.as_deref().and_then(count).unwrap_or_default();
        OomWatch {
            file,
            tally: Mutex::new(KillCounts {
                counted,
                open: 0,
                rose_at: None,
            }),
        }
    }

    /// Reads the count, so that earlier kills do not explain a later death.
    pub(in crate::process) fn note_earlier_kills(&self) {
        if let Some(counted) = self.file.as_deref().and_then(count) {
            self.tally().update(counted, Instant::now());
        }
    }

    /// Whether the kernel's killer explains the end of a process by SIGKILL that the worker did not
    /// send. Each kill explains one end.
    pub(in crate::process) fn explains_a_kill(&self) -> bool {
        self.note_earlier_kills();
        self.tally().take()
    }

    fn tally(&self) -> MutexGuard<'_, KillCounts> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KillCounts {
    fn update(&mut self, counted: u64, now: Instant) {
        let is_old = |rose: Instant| now.saturating_duration_since(rose) > KILL_EXPLAINS_FOR;
        if self.rose_at.is_some_and(is_old) {
            self.open = 0;
        }
        if counted > self.counted {
            self.open += counted - self.counted;
            self.rose_at = Some(now);
        }
        self.counted = counted;
    }

    /// Takes one kill out, if there is one.
    fn take(&mut self) -> bool {
        let is_one = self.open > 0;
        self.open = self.open.saturating_sub(1);
        is_one
    }
}

fn count(file: &Path) -> Option<u64> {
    count_in(&fs::read_to_string(file).ok()?)
}

/// The number in the line `oom_kill N`, which versions 1 and 2 of control groups share.
fn count_in(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_both_versions() {
        let table = [
            (
                "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 1\n",
                Some(3),
            ),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n", Some(12)),
            ("oom_kill_disable 0\nunder_oom 0\n", None),
            ("oom_kill x\n", None),
            ("", None),
        ];
        for (text, found) in table {
            assert_eq!(count_in(text), found, "{text:?}");
        }
    }

    #[test]
    fn each_kill_explains_one_death_and_not_a_later_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut tally = KillCounts {
            counted: 5,
            open: 0,
            rose_at: None,
        };
        let mut explains = |counted, millis| {
            tally.update(counted, at(millis));
            tally.take()
        };
        assert!(!explains(5, 0), "nothing has risen");
        assert!(explains(7, 100));
        assert!(explains(7, 200), "two at once");
        assert!(!explains(7, 300));
        assert!(explains(9, 400));
        assert!(!explains(9, 5000), "the other was no process of ours");
    }
}
