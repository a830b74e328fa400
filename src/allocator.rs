//! Returns freed memory from the allocator to the system.
//!
//! glibc keeps blocks that were freed in the middle of its heap: after a storm of connections or of
//! large bodies a worker would hold several times the memory in use, which handlers lack in a small
//! container. glibc returns this memory only on a call, for which there is no safe function: this
//! file holds the crate's only `unsafe`.

/// Growth that is too small for a trim, in bytes.
const SPARE_BYTES: u64 = 1024 * 1024;

/// The size from which glibc maps a block in pages of its own, which return to the system when the
/// block is freed, in bytes. glibc starts with 128 KiB and raises the size to that of each freed
/// block, up to 32 MiB: then the largest bodies and replies tear holes into the heap, and a worker
/// holds several times the memory in use. The buffers of a payload of 1 MiB stay below the size:
/// mapping their pages anew takes longer than the rest of the request.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD_BYTES: libc::c_int = 3 * 1024 * 1024;

/// Free bytes at the end of the heap from which glibc shrinks the heap. Once the size for mapped
/// blocks is set, glibc leaves this one at 128 KiB, and the heap would shrink and grow with each
/// large payload.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD_BYTES: libc::c_int = 8 * 1024 * 1024;

/// Decides when to return memory to the system. Pure: the caller measures.
#[derive(Debug)]
pub(crate) struct Trimming {
    /// The largest load since the last trim.
    peak_load: u64,
    /// Resident memory after the last trim.
    kept: u64,
    /// Samples since the last trim.
    samples: u32,
    /// The least resident memory so far.
    least: u64,
}

/// Samples after a trim from which resident memory above the load's usual need is a reason for
/// another one: a storm may end while memory is being trimmed.
const SAMPLES_UNTIL_NEXT: u32 = 5;

impl Trimming {
    /// The state of a program with this much resident memory, before its first request: a storm may
    /// come before the first sample.
    pub(crate) fn new(resident: u64) -> Trimming {
        Trimming {
            peak_load: 0,
            kept: resident,
            samples: 0,
            least: resident,
        }
    }

    /// Whether to trim now. `load` is a rough count of the bytes in use, and `resident` the memory
    /// that the program has of the machine. True in three cases:
    ///
    /// * less than half of the largest load is left, and memory has grown since the last trim or
    ///   the load of that time is gone: once after each storm, and once in each lull;
    /// * memory has grown by more than twice the load;
    /// * [`SAMPLES_UNTIL_NEXT`] samples after the last trim, resident memory is above the least so
    ///   far plus a quarter of it, [`SPARE_BYTES`] and three times the load.
    pub(crate) fn is_due(&mut self, load: u64, resident: u64) -> bool {
        self.samples = self.samples.saturating_add(1);
        self.least = self.least.min(resident);
        // A connection with full buffers takes three times the bytes that it counts for.
        let usual = self.least + self.least / 4 + SPARE_BYTES + 3 * load;
        if self.samples >= SAMPLES_UNTIL_NEXT && resident > usual {
            return true;
        }
        self.peak_load = self.peak_load.max(load);
        let is_over = load <= self.peak_load / 2;
        let has_grown = resident > self.kept + self.kept / 10 + SPARE_BYTES;
        let is_freed = self.peak_load - load > SPARE_BYTES;
        // A storm between two samples never showed as a load.
        let is_unexplained = load < resident.saturating_sub(self.kept) / 2;
        (has_grown && (is_over || is_unexplained)) || (is_over && is_freed)
    }

    /// Records a trim, with the load and the resident memory after it.
    pub(crate) fn done(&mut self, load: u64, resident: u64) {
        self.peak_load = load;
        self.kept = resident;
        self.samples = 0;
    }
}

/// Has glibc return large blocks to the system as soon as they are freed, from now on.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
pub(crate) fn map_large_blocks() {
    // SAFETY: mallopt(3) takes two numbers, and these parameters decide only where later blocks
    // come from. After a failure, memory returns later, by malloc_trim.
    let _ = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    };
}

/// Does nothing: other allocators have rules of their own.
#[cfg(not(target_env = "gnu"))]
pub fn map_large_blocks() {}

/// Returns freed memory to the system. Takes some milliseconds after a large storm.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim(3) takes a number only, may be called by any thread at any time, and
    // touches only freed memory. Its answer, whether there was any, has no use here.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators return freed memory by themselves.
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
    fn memory_is_given_back_after_a_storm_between_two_samples() {
        let mut trimming = Trimming::new(5 * MIB);
        let (load, idle) = (MIB / 8, 5 * MIB);
        assert!(!trimming.is_due(load, idle));
        assert!(trimming.is_due(load, idle + 3 * MIB));
        trimming.done(load, idle + 3 * MIB);
        assert!(!trimming.is_due(load, idle + 3 * MIB), "it did not help");
    }

    #[test]
    fn memory_is_given_back_after_a_storm_before_the_first_sample() {
        let mut trimming = Trimming::new(5 * MIB);
        assert!(trimming.is_due(MIB / 8, 25 * MIB));
    }

    #[test]
    fn memory_that_grew_while_it_was_given_back_goes_back_later() {
        let mut trimming = Trimming::new(5 * MIB);
        let load = MIB / 8;
        assert!(!trimming.is_due(load, 5 * MIB));
        assert!(trimming.is_due(load, 20 * MIB));
        // The next storm came in between, and no sample shows its load.
        trimming.done(load, 25 * MIB);
        let due = (1..20).find(|_| trimming.is_due(load, 24 * MIB));
        assert_eq!(due, Some(5));
        trimming.done(load, 5 * MIB);
        assert!(!(1..20).any(|_| trimming.is_due(load, 6 * MIB)));
    }

    #[test]
    fn a_large_block_goes_back_when_it_is_freed() {
        map_large_blocks();
        // By default, glibc would take the next blocks from its heap.
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
        // Other tests take memory at the same time, so one of several tries must show it.
        let given = (0..5).map(|_| {
            // Every second block is freed: the heap cannot shrink from its end.
            let mut blocks: Vec<Option<Vec<u8>>> =
                (0..2000).map(|_| Some(vec![1; 32 * 1024])).collect();
            for block in blocks.iter_mut().step_by(2) {
                *block = None;
            }
            let before = own_resident_bytes();
            give_back();
            before.saturating_sub(own_resident_bytes())
        });
        let most = given.max().unwrap_or_default();
        assert!(most > 16 * MIB || cfg!(not(target_env = "gnu")), "{most}");
    }
}
