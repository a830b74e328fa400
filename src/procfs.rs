//! State, processor time, memory and children of a process, as `/proc` tells them: see proc(5).
//!
//! Reading is apart from parsing, which is pure. A process that has ended, or never was, has no
//! state, no memory and no children.

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// Most processes of one tree that [`tree_resident_bytes`] counts, so that one measurement stays
/// short.
const MAX_VISITED_PROCESSES: usize = 256;

/// Most processes of one tree that [`is_tree_runnable`] visits: a command, and shells around it.
const MAX_TREE_PROCESSES: usize = 8;

/// State of the main thread of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// The thread waits for something other than a processor.
    Asleep,
    /// The thread runs, or would if it had a processor.
    Runnable {
        /// Processor time used since the thread began.
        used: Duration,
    },
    /// The system does not say.
    Unknown,
}

/// The state of the main thread of a process.
pub fn activity(pid: u32) -> Activity {
    match state(pid) {
        None => Activity::Unknown,
        Some(b'R') => {
            let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"));
            let used = schedstat.ok().as_deref().and_then(processor_time);
            used.map_or(Activity::Unknown, |used| Activity::Runnable { used })
        }
        Some(_) => Activity::Asleep,
    }
}

/// True when a process is suspended: by SIGSTOP, or because it wanted something of a terminal.
pub fn is_suspended(pid: u32) -> bool {
    matches!(state(pid), Some(b'T' | b't'))
}

/// True when a process has ended and was not reaped.
pub fn is_zombie(pid: u32) -> bool {
    state(pid) == Some(b'Z')
}

/// True when the main thread of a process or of one of its first descendants runs, would run if it
/// had a processor, waits for a disk, or is suspended: it may be in the middle of a write. A thread
/// that waits for anything else is not: a pipe that is empty holds up no write.
pub fn is_tree_runnable(pid: u32) -> bool {
    let mut tree = first_of_tree(pid);
    tree.any(|pid| matches!(state(pid), Some(b'R' | b'D' | b'T' | b't')))
}

/// True when a thread of the process, or of one of its first descendants, is blocked in a read of
/// its stdin. `None` where the system does not say, or runs on another architecture.
pub fn waits_for_input(pid: u32) -> Option<bool> {
    let read = match std::env::consts::ARCH {
        "x86_64" => "0",
        "aarch64" | "riscv64" => "63",
        "x86" | "arm" | "powerpc64" | "s390x" => "3",
        _ => return None,
    };
    let mut is_known = false;
    for pid in first_of_tree(pid) {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
        {
            let Ok(thread) = thread else { continue };
            let Ok(call) = fs::read_to_string(thread.path().join("syscall")) else {
                continue;
            };
            is_known = true;
            let mut words = call.split_ascii_whitespace();
            if words.next() == Some(read) && words.next() == Some("0x0") {
                return Some(true);
            }
        }
    }
    is_known.then_some(false)
}

/// Calls of write(2) and its kin by a process, its first descendants, and the descendants that they
/// have waited for. `None` where the system does not say.
pub fn tree_write_calls(pid: u32) -> Option<u64> {
    let mut calls = None;
    for pid in first_of_tree(pid) {
        if let Some(own) = fs::read_to_string(format!("/proc/{pid}/io"))
            .ok()
            .as_deref()
            .and_then(write_calls)
        {
            calls = Some(calls.unwrap_or(0) + own);
        }
    }
    calls
}

/// Time in which the main threads of a process and of its first descendants could run and had no
/// processor; zero where the system does not say.
pub fn tree_processor_wait(pid: u32) -> Duration {
    let waits = first_of_tree(pid).map(|pid| processor_wait_of(&format!("/proc/{pid}")));
    waits.sum()
}

/// Time in which this thread could run and had no processor; zero where the system does not say.
pub fn own_processor_wait() -> Duration {
    processor_wait_of("/proc/thread-self")
}

fn processor_wait_of(process: &str) -> Duration {
    let schedstat = fs::read_to_string(format!("{process}/schedstat"));
    let wait = schedstat.ok().as_deref().and_then(processor_wait);
    wait.unwrap_or_default()
}

/// True when a process ignores a signal, and has no handler for it.
pub fn ignores(pid: u32, signal: Signal) -> bool {
    is_ignored_by(Path::new(&format!("/proc/{pid}")), signal)
}

/// True when this program ignores a signal.
pub fn own_ignores(signal: Signal) -> bool {
    is_ignored_by(Path::new("/proc/self"), signal)
}

fn is_ignored_by(process: &Path, signal: Signal) -> bool {
    let status = fs::read(process.join("status")).unwrap_or_default();
    // It holds the name of the process, which may be any bytes.
    is_in_mask(&String::from_utf8_lossy(&status), "SigIgn:", signal)
}

/// Whether a signal is in the mask of this name in `/proc/PID/status`.
fn is_in_mask(status: &str, name: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// The name of a process, which may hold control characters; U+FFFD stands for bytes that are not
/// UTF-8.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Calls of write(2) in `/proc/PID/io`.
fn write_calls(io: &str) -> Option<u64> {
    let mut lines = io.lines();
    lines.find_map(|line| line.strip_prefix("syscw: ")?.parse().ok())
}

/// A process and its first descendants, each found when it is asked for.
fn first_of_tree(pid: u32) -> impl Iterator<Item = u32> {
    let mut found = VecDeque::from([pid]);
    let next = move || {
        let pid = found.pop_front()?;
        let children = children_by_thread(Path::new(&format!("/proc/{pid}"))).unwrap_or_default();
        let children = children
            .iter()
            .map(|child| child.as_raw_pid().unsigned_abs());
        found.extend(children);
        Some(pid)
    };
    std::iter::from_fn(next).take(MAX_TREE_PROCESSES)
}

fn state(pid: u32) -> Option<u8> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    fields_behind_name(&stat)?.bytes().next()
}

/// Resident memory of this program, in bytes; 0 where the system does not say.
pub fn own_resident_bytes() -> u64 {
    resident_bytes(Path::new("/proc/self"))
}

/// Figures of this program.
#[derive(Debug, Clone, Copy)]
pub struct OwnFigures {
    /// Processor time of all its threads.
    pub cpu_seconds: Option<f64>,
    /// Descriptors that it has open.
    pub open_descriptors: Option<usize>,
    /// Its threads.
    pub threads: Option<u64>,
}

/// Figures of this program, as far as the system tells.
pub fn own_figures() -> OwnFigures {
    let stat = fs::read("/proc/self/stat").unwrap_or_default();
    // The reading itself has one open.
    let descriptors = fs::read_dir("/proc/self/fd").map(|entries| entries.count() - 1);
    OwnFigures {
        cpu_seconds: stat_cpu_seconds(&stat),
        open_descriptors: descriptors.ok(),
        threads: stat_field(&stat, 17),
    }
}

/// Processor time of all threads of a process.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    stat_cpu_seconds(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Processor time in `/proc/PID/stat`: in user mode and in the kernel, in ticks of the clock.
fn stat_cpu_seconds(stat: &[u8]) -> Option<f64> {
    let ticks = stat_field(stat, 11)? + stat_field(stat, 12)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A number in `/proc/PID/stat`; 0 is the field behind the name.
fn stat_field(stat: &[u8], index: usize) -> Option<u64> {
    let mut fields = fields_behind_name(stat)?.split_ascii_whitespace();
    fields.nth(index)?.parse().ok()
}

/// Resident memory of a process and its descendants, in bytes. Memory that several of them share is
/// counted once for each.
pub fn tree_resident_bytes(pid: u32) -> u64 {
    let mut bytes = 0;
    let mut found = vec![pid];
    let mut visited = 0;
    while let Some(&pid) = found
        .get(visited)
        .filter(|_| visited < MAX_VISITED_PROCESSES)
    {
        visited += 1;
        let process = format!("/proc/{pid}");
        let process = Path::new(&process);
        bytes += resident_bytes(process);
        let children = children_by_thread(process).unwrap_or_default();
        found.extend(
            children
                .iter()
                .map(|child| child.as_raw_pid().unsigned_abs()),
        );
    }
    bytes
}

fn resident_bytes(process: &Path) -> u64 {
    let statm = fs::read_to_string(process.join("statm"));
    let pages = statm.ok().as_deref().and_then(resident_pages);
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The children of this program, also those that have ended and are not reaped.
pub fn own_children() -> Vec<Pid> {
    children_by_thread(Path::new("/proc/self")).unwrap_or_else(|_| own_children_by_parent())
}

/// The children of a process by the kernel's lists, one a thread. Fails where the kernel was built
/// without these lists.
fn children_by_thread(process: &Path) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(process.join("task"))? {
        match fs::read_to_string(thread?.path().join("children")) {
            Ok(list) => found.extend(list.split_whitespace().filter_map(parse_pid)),
            // The thread has just ended. Without the lists, this thread has none either.
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

/// The children of this program, by the parent of every process of the system.
fn own_children_by_parent() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let children = entries.flatten().filter_map(|entry| {
        let pid = parse_pid(entry.file_name().to_str()?)?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        (parent(&stat) == Some(own)).then_some(pid)
    });
    children.collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// The fields of `/proc/PID/stat` behind the name: state, parent and more. The name stands in
/// parentheses and may hold anything, further parentheses included.
fn fields_behind_name(stat: &[u8]) -> Option<&str> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    Some(fields.trim_start())
}

/// The parent in `/proc/PID/stat`.
fn parent(stat: &[u8]) -> Option<Pid> {
    parse_pid(fields_behind_name(stat)?.split_whitespace().nth(1)?)
}

/// Time on a processor, in `/proc/PID/schedstat`: the first number, in nanoseconds.
fn processor_time(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Time of waiting for a processor, in `/proc/PID/schedstat`: the second number, in nanoseconds.
fn processor_wait(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Resident memory in `/proc/PID/statm`: the second number, in pages.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_threads_are_found_behind_any_name() {
        let stat = b"17 (a ) R 1 (x)) S 1 17 17 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 99";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(stat_cpu_seconds(stat), Some(200.0 / ticks));
        assert_eq!(stat_field(stat, 17), Some(7));
        assert_eq!(stat_field(b"", 17), None);
        let own = own_figures();
        assert!(own.threads >= Some(1) && own.open_descriptors >= Some(3));
    }
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::process::Command;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        let table: [(&[u8], Option<u8>, Option<i32>); 7] = [
            (b"7 (sh) S 3 7 7 0", Some(b'S'), Some(3)),
            (b"17 (a) R (b) S 1 17", Some(b'S'), Some(1)),
            (b"7 (a) b) (c)) Z 12 7", Some(b'Z'), Some(12)),
            (b"7 (\xff\n) R 1 7", Some(b'R'), Some(1)),
            (b"7 (kthreadd) S 0 0", Some(b'S'), None),
            (b"17", None, None),
            (b"", None, None),
        ];
        for (stat, state, parent_pid) in table {
            let fields = fields_behind_name(stat);
            let found = fields.and_then(|fields| fields.bytes().next());
            assert_eq!(found, state, "{}", String::from_utf8_lossy(stat));
            let found = parent(stat).map(Pid::as_raw_pid);
            assert_eq!(found, parent_pid, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn calls_of_write_are_found() {
        let io = "rchar: 3\nwchar: 4\nsyscr: 5\nsyscw: 6\nread_bytes: 7\n";
        assert_eq!(write_calls(io), Some(6));
        assert!(!ignores(std::process::id(), Signal::TERM));
        assert_eq!(write_calls(""), None);
        assert!(tree_write_calls(std::process::id()).is_some());
        assert_eq!(tree_write_calls(u32::MAX), None);
        assert_eq!(waits_for_input(u32::MAX), None);
        assert!(name(std::process::id()).is_some());
    }

    #[test]
    fn an_ignored_signal_is_found_in_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000001001000\n";
        assert!(is_in_mask(status, "SigBlk:", Signal::HUP));
        assert!(!is_in_mask(status, "SigIgn:", Signal::HUP));
        assert!(is_in_mask(status, "SigIgn:", Signal::XFSZ));
        assert!(!is_in_mask("", "SigIgn:", Signal::HUP));
        assert!(!is_in_mask("SigIgn:\tx\n", "SigIgn:", Signal::HUP));
    }

    #[test]
    fn a_process_may_have_any_name() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let name = c"a\xff\x1b\n";
            rustix::thread::set_name(name).unwrap();
            sender.send(rustix::thread::gettid()).unwrap();
            // Ends with the sender.
            let _ = ended.recv();
        });
        let thread_id = receiver.recv().unwrap().as_raw_pid().unsigned_abs();
        assert_eq!(name(thread_id).as_deref(), Some("a\u{fffd}\u{1b}\n"));
        assert!(!ignores(thread_id, Signal::TERM));
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn processor_time_is_the_first_number_and_resident_memory_the_second() {
        let used = processor_time("83087099 90956626 272\n");
        assert_eq!(used, Some(Duration::from_nanos(83_087_099)));
        assert_eq!(processor_time(""), None);
        let waited = processor_wait("83087099 90956626 272\n");
        assert_eq!(waited, Some(Duration::from_nanos(90_956_626)));
        assert_eq!(processor_wait("83087099"), None);
        assert_eq!(tree_processor_wait(u32::MAX), Duration::ZERO);
        assert_eq!(resident_pages("1000 23 4 5 0 6 0\n"), Some(23));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn a_process_that_computes_below_a_shell_makes_its_tree_runnable() {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "sh -c 'while :; do :; done' & read line; kill $!; wait; read line",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        while !is_tree_runnable(shell.id()) {
            std::thread::yield_now();
        }
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        while is_tree_runnable(shell.id()) {
            std::thread::yield_now();
        }
        drop(stdin);
        shell.wait().unwrap();
        assert!(!is_tree_runnable(shell.id()));
    }

    #[test]
    fn a_sleeping_process_is_told_from_one_that_is_gone() {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        while activity(child.id()) != Activity::Asleep {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(activity(child.id()), Activity::Unknown);
    }

    #[test]
    fn memory_that_is_held_counts_and_that_of_no_process_does_not() {
        let held = std::hint::black_box(vec![1u8; 32 << 20]);
        assert!(tree_resident_bytes(std::process::id()) > held.len() as u64);
        assert!(own_resident_bytes() > held.len() as u64);
        assert_eq!(tree_resident_bytes(u32::MAX), 0);
    }

    #[test]
    fn both_ways_to_list_children_find_one_that_has_ended() {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).unwrap();
        assert!(
            children_by_thread(Path::new("/proc/self")).is_ok_and(|found| found.contains(&pid))
        );
        assert!(own_children_by_parent().contains(&pid));
        child.wait().unwrap();
    }
}
