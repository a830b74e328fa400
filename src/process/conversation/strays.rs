//! Lines of the process that are no replies.

use super::timeout_detail::beginning;
use crate::process::line;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// Most bytes of stray lines that are kept as the possible parts of one reply.
const MAX_JOINED_BYTES: usize = 4 * 1024;

/// Lines of the process that are no replies.
#[derive(Debug, Default)]
pub(super) struct Strays {
    pub(super) count: u64,
    /// Lines since the last event that came too fast to be told one by one.
    pub(super) left_out: u64,
    /// The beginning of the last line.
    pub(super) last: Vec<u8>,
    /// The last line with a brace and all lines behind it, while they are shorter than
    /// [`MAX_JOINED_BYTES`]: together they may be one reply over several lines.
    joined: Vec<u8>,
}

impl Strays {
    /// Counts one more line, and keeps its beginning.
    pub(super) fn record(&mut self, line: &[u8]) {
        self.count += 1;
        self.last.clear();
        self.last.extend_from_slice(beginning(line));
        self.join(line);
    }

    fn join(&mut self, line: &[u8]) {
        if line::is_braced(line) {
            self.joined.clear();
        } else if self.joined.is_empty() {
            return;
        }
        if self.joined.len() + line.len() < MAX_JOINED_BYTES {
            self.joined.extend_from_slice(line);
            self.joined.push(b'\n');
        } else {
            self.joined.clear();
        }
    }

    /// True when the last lines together are a JSON object with a result.
    pub(super) fn are_one_reply(&self) -> bool {
        let object = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&self.joined);
        object.is_ok_and(|object| object.contains_key("result"))
    }
}
