//! The `detail` of a 504: what the worker saw of the process, and the likely cause.

use super::{Conversation, Fault, Flight, Ticket};
use crate::cause::Cause;
use crate::process::line::{self, ExtraMembers, Parsed};
use std::time::Duration;

/// Most characters of a stray line that the `detail` of a 504 quotes.
const MAX_QUOTED_LINE_CHARACTERS: usize = 200;

/// Length in bytes from which on a request line may be too long for its reader: many take 64 KiB.
const LONG_LINE_BYTES: u64 = 64 * 1024;

impl<T: Ticket> Conversation<T> {
    /// The `detail` of a 504 for a request that the process could not start on in time.
    pub(super) fn behind_detail(&self, index: usize) -> String {
        let limit = self.flights[index].limit();
        format!(
            "no reply within {limit}: the process was given it behind another request, which has no reply yet"
        )
    }

    /// The cause of a 504: what the worker saw of the process, and the likely cause of that.
    pub(super) fn timeout_cause(&self, flight: &Flight<T>) -> Cause {
        let [general, full] = [false, true].map(|quotes| self.seen(flight, quotes));
        let cause = match line::is_braced(self.framer.partial()) {
            true => Cause::quoting_reply(general, full),
            false => Cause::quoting(general, full),
        };
        cause.of_rule(Fault::TimedOut.rule())
    }

    /// How far a process that has ended came with its first request: how much of a reply it wrote,
    /// or that the request's line may have been too long for it. Empty if neither is known.
    pub fn progress_at_end(&self) -> String {
        let Some(first) = self.flights.front().filter(|_| !self.is_shared()) else {
            return String::new();
        };
        let half = self.framer.partial();
        let line_bytes = first.line.end - first.line.start;
        if line::is_braced(half) {
            let bytes = half.len();
            format!(
                ", after {bytes} bytes of a reply without its end (in Node, process.exit() cuts \
                 what is not written yet)"
            )
        } else if line_bytes >= LONG_LINE_BYTES {
            format!(
                ", with a request line of {line_bytes} bytes: it may be longer than its reader takes"
            )
        } else {
            String::new()
        }
    }

    fn seen(&self, flight: &Flight<T>, quotes: bool) -> String {
        let limit = flight.limit();
        let strays = self.strays.count - flight.strays_before;
        let last = shown(&self.strays.last);
        let half = self.framer.partial();
        // With several requests at the same time, output may be another caller's answer.
        let is_shared = self.promise.allows_any_order();
        let quote = |text: &str| {
            if is_shared || !quotes {
                String::new()
            } else {
                format!(": {text}")
            }
        };
        let shown = quote(&shown(half));
        let seen = if flight.line.end > self.outgoing.total_sent() {
            "the process has not read the whole request from its stdin".to_owned()
        } else if self.framer.is_inside_line() && line::is_braced(half) {
            format!("the process wrote a line without end, so a newline is missing{shown}")
        } else if self.framer.is_inside_line() {
            format!("the process wrote a line without end that is no reply{shown}")
        } else if strays == 0 {
            "the process wrote nothing".to_owned()
        } else {
            let lines = if strays == 1 {
                "1 line".to_owned()
            } else {
                format!("{strays} lines")
            };
            let parsed = line::parse(&self.strays.last);
            let cause = if matches!(parsed, Parsed::Unnamed(_, ExtraMembers::Logger)) {
                ", the last would be a reply, but has a member that loggers write (level, msg, time \
                 or the like), and no id: repeat the id"
            } else if last.is_empty() {
                ", the last an empty line"
            } else if self.strays.are_one_reply() {
                ", the last of them together are one JSON object with a result: a reply is one \
                 line, without indentation; the last"
            } else if last.starts_with('{') {
                ", the last is not valid JSON or has neither result nor error"
            } else if last.trim_start().starts_with('{') {
                ", the last has blanks before its brace: a reply begins with it"
            } else if last.contains("{\"") && !last.contains("\"payload\":") {
                ", the last has a reply glued to other output, so a newline is missing before it"
            } else {
                ", the last"
            };
            format!(
                "the process wrote {lines} to stdout that did not answer{cause}{}",
                if last.is_empty() {
                    String::new()
                } else {
                    quote(&last)
                }
            )
        };
        let hint = self.likely_cause(strays);
        format!("no reply within {limit}: {seen}{hint}")
    }

    /// The likely cause of a timeout, after this many stray lines; empty if there is none.
    fn likely_cause(&self, strays: u64) -> &'static str {
        let half = self.framer.partial();
        let last = shown(&self.strays.last);
        let is_attempt =
            [half, last.as_bytes()].into_iter().any(line::is_braced) || last.contains("{\"");
        match self.has_shown_life() {
            _ if self.is_suspended => {
                "; the process is suspended (state T): by SIGSTOP, or because it wanted something of \
                 a terminal"
            }
            _ if is_attempt => "",
            false if self.limits.wait_ready => "",
            false => {
                "; it has not answered anything yet: if it is slow to start, let it send \
                 {\"ready\":true} and set --wait-ready; if it did answer, it may not flush its \
                 output after each reply; or it reads its input to the end or in blocks (mawk does, \
                 without -W interactive)"
            }
            true if strays == 0 && !self.framer.is_inside_line() => {
                "; it is slow, or it hangs, or it does not flush its output after each reply, or \
                 reads its input to the end or in blocks (mawk does, without -W interactive)"
            }
            true => "",
        }
    }
}

impl<T> Flight<T> {
    /// How long the worker waited for a reply, in words.
    fn limit(&self) -> String {
        match self.callers_deadline {
            Some(deadline) if deadline < self.own_deadline() => {
                let left = deadline.saturating_duration_since(self.could_start_at);
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                let left = Duration::from_millis(left);
                let left = humantime::format_duration(left);
                format!("the {left} that x-faas-timeout-ms left for it")
            }
            Some(_) | None => humantime::format_duration(self.timeout).to_string(),
        }
    }
}

/// The part of a line that is kept for a `detail`.
pub(super) fn beginning(line: &[u8]) -> &[u8] {
    // A character takes four bytes at most.
    &line[..line.len().min(4 * MAX_QUOTED_LINE_CHARACTERS)]
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(beginning(line));
    text.chars().take(MAX_QUOTED_LINE_CHARACTERS).collect()
}
