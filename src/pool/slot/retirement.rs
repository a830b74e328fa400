//! The limits at which a process is replaced: requests and age, which chance brings forward, and
//! memory.
//!
//! Pure. Memory is compared here, requests in `Member::poll_take`, age in `events::current_event`.

use crate::config::RecycleConfig;
use std::fmt;
use std::time::Duration;

/// The share of a limit by which chance may bring it forward, so that processes that were started
/// together are not replaced together.
const JITTER: f64 = 0.1;

/// The limits at which one process is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Requests; the process goes on while its successor starts.
    pub(super) requests: Option<u64>,
    /// Its age.
    pub(super) age: Option<Duration>,
    /// Resident memory of the process and its descendants, in bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// The limit that a process has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Requests,
    Age,
    Memory(u64),
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Due::Requests => f.write_str("--max-requests"),
            Due::Age => f.write_str("--max-age"),
            Due::Memory(bytes) => write!(f, "--max-memory, it has {bytes} bytes"),
        }
    }
}

impl Lifetime {
    /// The limits of one process; `chance` is from 0 to 1. The memory limit is not spread: growth
    /// is spread by itself, and the limit may be a hard one of the machine.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a positive number; exact up to 2^53 requests"
    )]
    pub(super) fn new(config: &RecycleConfig, chance: f64) -> Lifetime {
        let kept = 1.0 - JITTER * chance.clamp(0.0, 1.0);
        Lifetime {
            requests: config
                .max_requests
                .map(|limit| (limit.get() as f64 * kept).ceil() as u64),
            age: config.max_age.map(|limit| limit.mul_f64(kept)),
            memory_bytes: config.max_memory_bytes,
        }
    }

    /// Whether this much memory is over the limit.
    pub(super) fn judge_memory(&self, bytes: u64) -> Option<Due> {
        let is_over = self.memory_bytes.is_some_and(|limit| bytes > limit);
        is_over.then_some(Due::Memory(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    fn limits(requests: usize, chance: f64) -> Lifetime {
        let config = RecycleConfig {
            max_requests: NonZeroUsize::new(requests),
            max_age: Some(Duration::from_secs(100)),
            max_memory_bytes: Some(1000),
        };
        Lifetime::new(&config, chance)
    }

    #[test]
    fn limits_are_brought_forward_by_a_tenth_at_most() {
        for (requests, chance, expected) in [
            (1, 1.0, 1),
            (2, 1.0, 2),
            (100, 0.0, 100),
            (100, 0.5, 95),
            (100, 1.0, 90),
        ] {
            assert_eq!(limits(requests, chance).requests, Some(expected));
        }
        assert_eq!(limits(1, 1.0).age, Some(Duration::from_secs(90)));
    }

    #[test]
    fn memory_is_too_much_beyond_the_limit() {
        assert_eq!(limits(1, 1.0).judge_memory(1000), None);
        assert_eq!(limits(1, 1.0).judge_memory(1001), Some(Due::Memory(1001)));
    }
}
