//! What a process is doing right now.

use std::fs;
use std::time::Duration;

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It waits for something other than a processor.
    Asleep,
    /// It runs, or would if it had a processor.
    Runnable {
        /// Processor time that it has used in its life.
        used: Duration,
    },
    /// The system does not say.
    Unknown,
}

/// Looks at the main thread of a process.
pub fn activity(pid: u32) -> Activity {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    match state.ok().as_deref().and_then(state_letter) {
        None => Activity::Unknown,
        Some(b'R') => {
            let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"));
            let used = schedstat.ok().as_deref().and_then(time_on_processor);
            used.map_or(Activity::Unknown, |used| Activity::Runnable { used })
        }
        Some(_) => Activity::Asleep,
    }
}

/// True when a process is stopped: by SIGSTOP, or because it wanted something of a terminal.
pub fn is_stopped(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    matches!(
        state.ok().as_deref().and_then(state_letter),
        Some(b'T' | b't')
    )
}

/// The third field of `/proc/[pid]/stat`, see proc(5). The second may hold anything but is the
/// last with a parenthesis.
fn state_letter(stat: &str) -> Option<u8> {
    stat[stat.rfind(')')? + 1..].trim_start().bytes().next()
}

/// The first number of `/proc/[pid]/schedstat`, in nanoseconds: the kernel's documentation calls
/// it time spent on the cpu.
fn time_on_processor(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state_letter("17 (a) R (b) S 1 17"), Some(b'S'));
        assert_eq!(state_letter("17"), None);
        let used = time_on_processor("83087099 90956626 272\n");
        assert_eq!(used, Some(Duration::from_nanos(83_087_099)));
    }

    #[test]
    fn one_that_sleeps_is_told_from_one_that_is_gone() {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        while activity(child.id()) != Activity::Asleep {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(activity(child.id()), Activity::Unknown);
    }
}
