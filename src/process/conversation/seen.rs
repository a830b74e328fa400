//! What a caller whose request took too long is told: what was seen, and the likely cause.

use super::{Conversation, Flight, Life, Ticket};
use crate::process::line;
use std::time::Duration;

/// What a stray line shows of itself in the `detail` of a 504, in characters.
const SHOWN_IN_DETAIL: usize = 200;

impl<T: Ticket> Conversation<T> {
    /// The `detail` of a 504: what was seen, and the likely cause.
    pub(super) fn what_was_seen(&self, flight: &Flight<T>) -> String {
        let limit = (flight.deadline() - flight.since).as_millis() as u64;
        let limit = humantime::format_duration(Duration::from_millis(limit));
        let strays = self.strays.count - flight.strays_before;
        let half = self.framer.partial();
        let seen = if flight.line.end > self.outgoing.sent {
            "the process has not read the whole request from its stdin".to_owned()
        } else if self.framer.is_inside_line() {
            let shown = shown_in_detail(half);
            if line::is_braced(half) {
                format!("the process wrote a line without end, so a newline is missing: {shown}")
            } else {
                format!("the process wrote a line without end that is no reply: {shown}")
            }
        } else if strays > 0 && self.strays.last.starts_with('{') {
            let last = &self.strays.last;
            format!(
                "{strays} lines were no replies; the last is not valid JSON, or has neither \
                 result nor error: {last}"
            )
        } else if strays > 0 && self.strays.last.contains("{\"") {
            let last = &self.strays.last;
            format!(
                "{strays} lines were no replies; the last has a reply glued to other output, so \
                 a newline is missing before it: {last}"
            )
        } else if strays > 0 {
            let last = &self.strays.last;
            format!("{strays} lines were no replies, the last: {last}")
        } else {
            "the process wrote nothing".to_owned()
        };
        let is_attempt = line::is_braced(half) || self.strays.last.contains("{\"");
        let hint = if self.life != Life::Shown && (self.limits.wait_ready || is_attempt) {
            ""
        } else if self.life != Life::Shown {
            "; it has not answered anything yet: if it is slow to start, let it send \
             {\"ready\":true} and set --wait-ready; if it did answer, it may not flush its output \
             after each reply"
        } else if strays == 0 && !self.framer.is_inside_line() {
            "; if it did answer, it may not flush its output after each reply"
        } else {
            ""
        };
        format!("no reply within {limit}: {seen}{hint}")
    }
}

pub(super) fn shown_in_detail(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_IN_DETAIL)])
        .chars()
        .take(SHOWN_IN_DETAIL)
        .collect()
}
