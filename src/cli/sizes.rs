//! Limits on sizes, with defaults that follow from the given limits and from the memory limit of
//! the control group.

use crate::budget::MemoryBudget;
use std::num::NonZeroUsize;

const MIB: u64 = 1024 * 1024;

/// The memory budget where nothing else limits memory, in bytes.
const DEFAULT_BUFFERED_BYTES: u64 = 256 * MIB;

/// The largest body and the largest result, in bytes.
const DEFAULT_BODY_BYTES: u64 = 8 * MIB;

/// Connections where nothing limits memory.
const DEFAULT_CONNECTIONS: usize = 16_384;

/// Connections under the smallest memory limit.
const MIN_CONNECTIONS: usize = 64;

/// Bytes of the memory limit for each connection: a connection takes up to 48 KiB, so all of them
/// take less than a fifth of the memory limit.
const MEMORY_PER_CONNECTION_BYTES: u64 = 256 * 1024;

/// Sizes from the command line or variables.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    pub(super) body: Option<u64>,
    pub(super) reply: Option<u64>,
    pub(super) buffered: Option<u64>,
    pub(super) connections: Option<NonZeroUsize>,
}

/// The limits that hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) body: u64,
    pub(super) reply: u64,
    pub(super) buffered: u64,
    pub(super) connections: NonZeroUsize,
}

impl Sizes {
    /// The limits that hold under a control group's memory limit, in bytes.
    ///
    /// # Errors
    ///
    /// When a body of the given size could never be admitted.
    pub(super) fn new(given: Given, memory_limit: Option<u64>) -> Result<Sizes, String> {
        let by_limit = memory_limit.map_or(DEFAULT_BUFFERED_BYTES, |limit| limit / 4);
        let twice_a_body = given.body.map_or(0, |body| body.saturating_mul(2));
        let buffered = given.buffered.unwrap_or_else(|| {
            by_limit
                .clamp(MIB, DEFAULT_BUFFERED_BYTES)
                .max(twice_a_body)
        });
        let half = (buffered / 2).max(1);
        let body = given.body.unwrap_or(DEFAULT_BODY_BYTES.min(half));
        let largest = MemoryBudget::largest_request(buffered);
        if body > largest {
            return Err(format!(
                "--max-body (FAAS_MAX_BODY): does not fit into three quarters of --max-buffered \
                 (FAAS_MAX_BUFFERED), which is {}; expected at most {}: \"{}\"",
                shown(buffered),
                shown(largest),
                shown(body)
            ));
        }
        let by_memory = memory_limit.map_or(DEFAULT_CONNECTIONS, |limit| {
            usize::try_from(limit / MEMORY_PER_CONNECTION_BYTES).unwrap_or(DEFAULT_CONNECTIONS)
        });
        let by_memory = by_memory.clamp(MIN_CONNECTIONS, DEFAULT_CONNECTIONS);
        Ok(Sizes {
            body,
            reply: given.reply.unwrap_or(DEFAULT_BODY_BYTES.min(half)),
            buffered,
            connections: given
                .connections
                .or(NonZeroUsize::new(by_memory))
                .unwrap_or(NonZeroUsize::MIN),
        })
    }
}

/// A size in the largest unit that has no fraction: `3MiB`.
fn shown(bytes: u64) -> String {
    let units = [("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)];
    let unit = units
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(
        || format!("{bytes}B"),
        |(name, unit)| format!("{}{name}", bytes / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(given: Given, memory_limit: Option<u64>) -> [u64; 4] {
        let sizes = Sizes::new(given, memory_limit).unwrap();
        let connections = sizes.connections.get() as u64;
        [sizes.body, sizes.reply, sizes.buffered, connections]
    }

    #[test]
    fn limits_follow_from_the_memory_limit() {
        for (memory_limit, expected) in [
            (None, [8 * MIB, 8 * MIB, 256 * MIB, 16_384]),
            (Some(64 << 30), [8 * MIB, 8 * MIB, 256 * MIB, 16_384]),
            (Some(128 * MIB), [8 * MIB, 8 * MIB, 32 * MIB, 512]),
            (Some(32 * MIB), [4 * MIB, 4 * MIB, 8 * MIB, 128]),
            (Some(MIB), [MIB / 2, MIB / 2, MIB, 64]),
        ] {
            let sizes = sizes(Given::default(), memory_limit);
            assert_eq!(sizes, expected, "{memory_limit:?}");
        }
    }

    #[test]
    fn what_is_given_holds_and_the_rest_follows() {
        let body = Given {
            body: Some(30 * MIB),
            ..Given::default()
        };
        let expected = [30 * MIB, 8 * MIB, 60 * MIB, 512];
        assert_eq!(sizes(body, Some(128 * MIB)), expected);
        let all = Given {
            body: Some(MIB),
            reply: Some(64 * MIB),
            buffered: Some(4 * MIB),
            connections: NonZeroUsize::new(9),
        };
        assert_eq!(sizes(all, None), [MIB, 64 * MIB, 4 * MIB, 9]);
        let buffered = Given {
            buffered: Some(MIB),
            ..Given::default()
        };
        assert_eq!(sizes(buffered, None), [MIB / 2, MIB / 2, MIB, 16_384]);
    }

    #[test]
    fn a_body_that_can_never_be_admitted_is_an_error() {
        let given = Given {
            body: Some(4 * MIB),
            buffered: Some(4 * MIB),
            ..Given::default()
        };
        let why = Sizes::new(given, None).unwrap_err();
        assert_eq!(
            why,
            "--max-body (FAAS_MAX_BODY): does not fit into three quarters of --max-buffered \
             (FAAS_MAX_BUFFERED), which is 4MiB; expected at most 3MiB: \"4MiB\""
        );
        for (bytes, expected) in [
            (1 << 30, "1GiB"),
            (3 * MIB, "3MiB"),
            (2048, "2KiB"),
            (1025, "1025B"),
        ] {
            assert_eq!(shown(bytes), expected);
        }
    }
}
