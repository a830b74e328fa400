//! The processors that the worker may use, and how many of them serve.

use crate::control_group;
use rustix::thread::sched_getaffinity;
use std::num::NonZeroUsize;

/// Processors for each thread that serves: the rest is for the handler's processes.
const PROCESSORS_PER_THREAD: usize = 4;

/// Most threads that serve by default.
const MAX_DEFAULT_THREADS: usize = 8;

/// The processors that the worker may use at one time: those of its affinity mask, or the quota of
/// its control group, rounded up, if that is less.
pub fn allowed() -> NonZeroUsize {
    let mask = sched_getaffinity(None).map_or(1, |mask| mask.count() as usize);
    let quota = control_group::processor_quota();
    let allowed = quota.map_or(mask, |quota| mask.min(quota));
    NonZeroUsize::new(allowed).unwrap_or(NonZeroUsize::MIN)
}

/// Threads that serve, by default, with this many processors.
pub fn threads_for(processors: NonZeroUsize) -> NonZeroUsize {
    let threads = (processors.get() / PROCESSORS_PER_THREAD).clamp(1, MAX_DEFAULT_THREADS);
    NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_processors_serves_and_never_more_than_eight() {
        for (processors, threads) in [
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 1),
            (7, 1),
            (8, 2),
            (12, 3),
            (16, 4),
            (32, 8),
            (256, 8),
        ] {
            let processors = NonZeroUsize::new(processors).unwrap();
            assert_eq!(threads_for(processors).get(), threads, "{processors}");
        }
    }
}
