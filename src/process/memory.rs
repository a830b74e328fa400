//! How much memory a process and all below it have.

use std::fs;

/// Processes that are counted; what lies beyond is left out, so that one look stays short.
const MOST_PROCESSES: usize = 256;

/// Resident memory of the process and its descendants, in bytes. Memory that they share is counted
/// once for each. Those that end meanwhile, or were never there, count nothing.
pub fn resident_bytes(pid: u32) -> u64 {
    let page_bytes = rustix::param::page_size() as u64;
    let mut pages = 0;
    let mut found = vec![pid];
    let mut looked_at = 0;
    while let Some(&pid) = found.get(looked_at).filter(|_| looked_at < MOST_PROCESSES) {
        looked_at += 1;
        let statm = fs::read_to_string(format!("/proc/{pid}/statm"));
        pages += statm
            .ok()
            .and_then(|text| resident_pages(&text))
            .unwrap_or(0);
        found.extend(children(pid));
    }
    pages * page_bytes
}

/// The second number of `/proc/[pid]/statm`, see proc(5).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = threads.into_iter().flatten().flatten();
    lists
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_resident_one() {
        assert_eq!(resident_pages("1000 23 4 5 0 6 0\n"), Some(23));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn what_is_held_counts_and_what_is_gone_does_not() {
        let held = std::hint::black_box(vec![1u8; 32 << 20]);
        assert!(resident_bytes(std::process::id()) > held.len() as u64);
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
