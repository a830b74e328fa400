//! Processes as the kernel sees them.

use super::{PATIENCE, eventually, within};
use rustix::process::{Pid, Signal};
use std::fs;
use std::time::Duration;

/// One line of the process table.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    parent: u32,
    pub(crate) state: char,
}

fn look(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so what follows is found from its end.
    let (name, rest) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat[rest + 2..].split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process {
        pid,
        name: stat[name + 1..rest].to_owned(),
        parent,
        state,
    })
}

fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| look(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// The children of a process, zombies included.
pub(crate) fn children(pid: u32) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| process.parent == pid)
        .collect()
}

/// The children that still run.
pub(crate) fn living_children(pid: u32) -> Vec<u32> {
    let mut pids: Vec<u32> = children(pid)
        .iter()
        .filter(|process| process.state != 'Z' && process.state != 'X')
        .map(|process| process.pid)
        .collect();
    pids.sort_unstable();
    pids
}

/// The pids below a process, itself left out.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let table = all();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(
            table
                .iter()
                .filter(|entry| entry.parent == parent)
                .map(|entry| entry.pid),
        );
        at += 1;
    }
    found.split_off(1)
}

/// Waits until none of these processes runs any more.
#[track_caller]
pub(crate) fn wait_until_gone(pids: &[u32]) {
    wait_until_gone_within(PATIENCE, pids);
}

/// Waits until none of these processes runs any more, with a deadline of its own.
#[track_caller]
pub(crate) fn wait_until_gone_within(limit: Duration, pids: &[u32]) {
    within(limit, &format!("processes {pids:?} are gone"), || {
        are_gone(pids).then_some(())
    });
}

/// Waits until a process has reaped all of its children that have ended.
#[track_caller]
pub(crate) fn wait_for_no_zombie(parent: u32) {
    eventually("no zombie is left", || (zombies(parent) == 0).then_some(()));
}

pub(crate) fn zombies(pid: u32) -> usize {
    children(pid)
        .iter()
        .filter(|process| process.state == 'Z')
        .count()
}

/// Whether it runs; a zombie does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    look(pid).is_some_and(|process| process.state != 'Z' && process.state != 'X')
}

/// Whether none of these processes runs.
pub(crate) fn are_gone(pids: &[u32]) -> bool {
    !pids.iter().any(|&pid| is_alive(pid))
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// Processor time used so far, in clock ticks of 10 ms.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The most memory that a process has had, in KiB.
pub(crate) fn peak_memory_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmHWM:")
}

/// The memory that a process has now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The processes that were started with this variable in their environment.
pub(crate) fn with_variable(name: &str, value: &str) -> Vec<u32> {
    let entry = format!("{name}={value}");
    let has_it = |pid: &u32| {
        let entries = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        entries
            .split(|byte| *byte == 0)
            .any(|found| found == entry.as_bytes())
    };
    let pids = all().into_iter().map(|process| process.pid);
    pids.filter(has_it).collect()
}

/// How many descriptors a process has open.
pub(crate) fn descriptor_count(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// How many descriptors a process has open once their number has not changed for 50 ms.
#[track_caller]
pub(crate) fn settled_descriptor_count(pid: u32) -> usize {
    eventually("the number of descriptors settles", || {
        let count = descriptor_count(pid);
        std::thread::sleep(Duration::from_millis(50));
        (count == descriptor_count(pid)).then_some(count)
    })
}
