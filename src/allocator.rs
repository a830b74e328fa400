//! Freed memory that goes back to the system.
//!
//! glibc keeps what was freed in the middle of its heap: after a storm of connections or of large
//! bodies a worker would go on holding several times what it uses, and in a container with little
//! memory that is missing elsewhere. glibc gives such memory back only when asked, and has no safe
//! way to be asked: this file holds the crate's only `unsafe`.

/// Growth that is not worth giving back, in bytes.
const SPARE_BYTES: u64 = 1024 * 1024;

/// Blocks from this size on are pages of their own, which go back to the system when they are
/// freed, in bytes. glibc starts with 128 KiB and raises that to the size of each block that was
/// freed, up to 32 MiB: then the largest bodies and replies tear holes into the heap, and a worker
/// has several times of what it uses. The buffers of a payload of 1 MiB stay below it: mapping their
/// pages anew for each request takes longer than all else.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 3 * 1024 * 1024;

/// What may be free at the end of the heap before it shrinks, in bytes. With a limit of its own for
/// mapped blocks, glibc would leave it at 128 KiB, and the heap would shrink and grow with each
/// large payload.
#[cfg(target_env = "gnu")]
const FREE_AT_THE_END: libc::c_int = 8 * 1024 * 1024;

/// When to give memory back: pure, the figures come in.
#[derive(Debug)]
pub struct Trimming {
    /// The largest load since memory was last given back.
    peak_load: u64,
    /// Resident memory after that.
    kept: u64,
    /// Looks since then.
    looks: u32,
    /// The least resident memory so far.
    least: u64,
}

/// A storm may end in the moment in which memory is given back: after so many looks it is tried
/// again for as long as memory is more than the load tells.
const LOOKS_UNTIL_NEXT: u32 = 5;

impl Trimming {
    /// For a program that has this much of the machine's memory and has served nothing yet: a storm
    /// may come before the first look.
    pub fn new(resident: u64) -> Trimming {
        Trimming {
            peak_load: 0,
            kept: resident,
            looks: 0,
            least: resident,
        }
    }

    /// Whether to give memory back now. `load` is a rough count of what is in use, in bytes, and
    /// `resident` what the program has of the machine. True once after each storm, and once in each
    /// lull of one: when less than half of its load is left, and memory has grown since the last
    /// time, or what was in use then is gone. True also when memory has grown by more than twice of
    /// the load, and, some looks after the last time, when it is more than the least so far and the
    /// load explain.
    pub fn is_due(&mut self, load: u64, resident: u64) -> bool {
        self.looks = self.looks.saturating_add(1);
        self.least = self.least.min(resident);
        // A connection with full buffers takes three times of what it counts for.
        let usual = self.least + self.least / 4 + SPARE_BYTES + 3 * load;
        if self.looks >= LOOKS_UNTIL_NEXT && resident > usual {
            return true;
        }
        self.peak_load = self.peak_load.max(load);
        let is_over = load <= self.peak_load / 2;
        let has_grown = resident > self.kept + self.kept / 10 + SPARE_BYTES;
        let is_freed = self.peak_load - load > SPARE_BYTES;
        // What came and went between two looks never was a load.
        let is_unexplained = load < resident.saturating_sub(self.kept) / 2;
        (has_grown && (is_over || is_unexplained)) || (is_over && is_freed)
    }

    /// Memory was given back, and this much is resident now.
    pub fn done(&mut self, load: u64, resident: u64) {
        self.peak_load = load;
        self.kept = resident;
        self.looks = 0;
    }
}

/// Has large blocks go back to the system as soon as they are freed, from now on.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
pub fn map_large_blocks() {
    // SAFETY: mallopt(3) takes two numbers, and these parameters change only where later blocks are
    // taken from. Should it fail, memory is given back later, by malloc_trim.
    let _ = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_THE_END)
    };
}

/// Other allocators have rules of their own.
#[cfg(not(target_env = "gnu"))]
pub fn map_large_blocks() {}

/// Gives freed memory back to the system. Takes some milliseconds after a large storm.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes a number only, may be called by any thread at any time, and
    // touches nothing but memory that was freed. Its answer, whether there was any, is of no use.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Gives freed memory back to the system: other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::own_resident_bytes;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn memory_is_given_back_once_after_a_storm() {
        let mut trimming = Trimming::new(5 * MIB);
        assert!(!trimming.is_due(0, 5 * MIB), "nothing has happened");
        assert!(!trimming.is_due(40 * MIB, 50 * MIB), "it is in use");
        assert!(!trimming.is_due(30 * MIB, 50 * MIB), "most of it still is");
        assert!(trimming.is_due(MIB, 50 * MIB));
        trimming.done(MIB, 15 * MIB);
        assert!(
            !trimming.is_due(0, 15 * MIB),
            "there is nothing left to give"
        );
        assert!(!trimming.is_due(0, 16 * MIB), "nor for so little");
        assert!(trimming.is_due(0, 30 * MIB));
    }

    #[test]
    fn memory_is_given_back_after_a_storm_that_had_a_lull() {
        let mut trimming = Trimming::new(5 * MIB);
        assert!(!trimming.is_due(40 * MIB, 50 * MIB));
        assert!(trimming.is_due(18 * MIB, 50 * MIB));
        trimming.done(18 * MIB, 40 * MIB);
        assert!(!trimming.is_due(18 * MIB, 40 * MIB), "it is in use");
        assert!(
            trimming.is_due(0, 40 * MIB),
            "no growth since, but it is free now"
        );
        trimming.done(0, 6 * MIB);
        assert!(!trimming.is_due(0, 6 * MIB));
    }

    #[test]
    fn memory_is_given_back_after_a_storm_that_no_look_has_seen() {
        let mut trimming = Trimming::new(5 * MIB);
        let (load, idle) = (MIB / 8, 5 * MIB);
        assert!(!trimming.is_due(load, idle));
        assert!(trimming.is_due(load, idle + 3 * MIB));
        trimming.done(load, idle + 3 * MIB);
        assert!(!trimming.is_due(load, idle + 3 * MIB), "it did not help");
    }

    #[test]
    fn memory_is_given_back_after_a_storm_before_the_first_look() {
        let mut trimming = Trimming::new(5 * MIB);
        assert!(trimming.is_due(MIB / 8, 25 * MIB));
    }

    #[test]
    fn memory_that_grew_while_it_was_given_back_goes_back_later() {
        let mut trimming = Trimming::new(5 * MIB);
        let load = MIB / 8;
        assert!(!trimming.is_due(load, 5 * MIB));
        assert!(trimming.is_due(load, 20 * MIB));
        // The next storm came in between, and no look sees its load.
        trimming.done(load, 25 * MIB);
        let due = (1..20).find(|_| trimming.is_due(load, 24 * MIB));
        assert_eq!(due, Some(5));
        trimming.done(load, 5 * MIB);
        assert!(!(1..20).any(|_| trimming.is_due(load, 6 * MIB)));
    }

    #[test]
    fn a_large_block_goes_back_when_it_is_freed() {
        map_large_blocks();
        // glibc would take the next ones from its heap by itself.
        drop(std::hint::black_box(vec![1_u8; 24 << 20]));
        let mut blocks: Vec<(Vec<u8>, Box<[u8; 1000]>)> = (0..12)
            .map(|_| (vec![1; 4 << 20], Box::new([1; 1000])))
            .collect();
        let before = own_resident_bytes();
        for (large, _) in &mut blocks {
            *large = Vec::new();
        }
        let given = before.saturating_sub(own_resident_bytes());
        assert!(given > 24 * MIB || cfg!(not(target_env = "gnu")), "{given}");
        drop(blocks);
    }

    #[test]
    fn what_was_freed_in_the_middle_of_the_heap_goes_back() {
        // Every second block is freed: the heap cannot shrink from its end.
        let mut blocks: Vec<Option<Vec<u8>>> =
            (0..2000).map(|_| Some(vec![1; 32 * 1024])).collect();
        for block in blocks.iter_mut().step_by(2) {
            *block = None;
        }
        let before = own_resident_bytes();
        give_back();
        let given = before.saturating_sub(own_resident_bytes());
        assert!(given > 16 * MIB || cfg!(not(target_env = "gnu")), "{given}");
        drop(blocks);
    }
}
