//! Payloads that would be answers, if a handler prints them: forged replies, ready lines, half
//! lines and log lines.

use crate::support::Chance;

/// Ids that an attacker remembers at most.
const MOST_KNOWN: usize = 256;

/// The parts of forged lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    CountingUp,
    Random,
    /// Ids that the handler has told its own caller before.
    Stale,
    /// Ids close to an id that the handler has told.
    NearStale,
    WithoutId,
    Ready,
    HalfLines,
    LogLines,
    OddIds,
    Errors,
}

const STRATEGIES: [Strategy; 10] = [
    Strategy::CountingUp,
    Strategy::Random,
    Strategy::Stale,
    Strategy::NearStale,
    Strategy::WithoutId,
    Strategy::Ready,
    Strategy::HalfLines,
    Strategy::LogLines,
    Strategy::OddIds,
    Strategy::Errors,
];

/// Empty lines of a long print: several times as many as a pipe holds.
const EMPTY_LINES: usize = 300_000;

/// A kind of handler whose attacks have at most this many lines is too slow for a long print.
const FEW_LINES: u64 = 100;

/// One payload, and what its sender could make of its own request with it.
pub(crate) struct Forgery {
    pub(crate) payload: String,
    /// It holds replies without an id: a process that has shown no id so far takes one of them for
    /// the answer to the request that it has, which is the attacker's own.
    pub(crate) answers_itself: bool,
}

/// Makes payloads, and remembers the ids that it was told.
pub(crate) struct Forger {
    known: Vec<u64>,
    lines: u64,
}

impl Forger {
    /// Makes payloads of about `lines` lines.
    pub(crate) fn new(lines: u64) -> Forger {
        let known = Vec::new();
        Forger { known, lines }
    }

    pub(crate) fn learn(&mut self, id: u64) {
        if self.known.len() == MOST_KNOWN {
            self.known.remove(0);
        }
        self.known.push(id);
    }

    /// The payload of request `number`. Its last line is a mark of its own.
    pub(crate) fn forge(&self, number: u64, chance: &mut Chance) -> Forgery {
        if self.lines >= FEW_LINES && chance.below(10) == 0 {
            return long_print(number);
        }
        let strategy = STRATEGIES[chance.below(10) as usize];
        let mut text = String::new();
        let mut id = match chance.below(2) {
            0 => 1 + chance.below(2000),
            _ => chance.below(1 << 30),
        };
        for line in 0..self.lines {
            id = match strategy {
                Strategy::Random => random_id(chance),
                Strategy::Stale if !self.known.is_empty() => self.one_known(chance),
                Strategy::NearStale if !self.known.is_empty() => {
                    (self.one_known(chance) + chance.below(2001)).saturating_sub(1000)
                }
                _ => id + 1,
            };
            text += &forged_line(strategy, line, id, number);
        }
        text += &format!("forge #{number}");
        Forgery {
            payload: text,
            answers_itself: strategy == Strategy::WithoutId || strategy == Strategy::LogLines,
        }
    }

    fn one_known(&self, chance: &mut Chance) -> u64 {
        self.known[chance.below(self.known.len() as u64) as usize]
    }
}

/// The text of a forged answer, which no victim may ever get.
pub(crate) fn mark_of(number: u64) -> String {
    format!("forged by #{number}.")
}

/// Replies without an id before and behind more empty lines than a pipe holds. Printed before the
/// handler's own reply, the first line answers the request while the worker still reads the rest.
fn long_print(number: u64) -> Forgery {
    let mark = mark_of(number);
    let reply = format!("{{\"result\":\"{mark}\"}}\n");
    let empty_lines = "\n".repeat(EMPTY_LINES);
    let replies = reply.repeat(3);
    Forgery {
        payload: format!("{reply}{empty_lines}{replies}{empty_lines}forge #{number}"),
        answers_itself: true,
    }
}

fn random_id(chance: &mut Chance) -> u64 {
    (chance.below(1 << 27) << 26) | chance.below(1 << 26)
}

fn forged_line(strategy: Strategy, line: u64, id: u64, number: u64) -> String {
    let mark = mark_of(number);
    match strategy {
        Strategy::CountingUp | Strategy::Random | Strategy::Stale | Strategy::NearStale => {
            format!("{{\"id\":{id},\"result\":\"{mark}\"}}\n")
        }
        // Far enough apart that they are not all read at once.
        Strategy::WithoutId if line.is_multiple_of(8) => "-".repeat(8000) + "\n",
        Strategy::WithoutId => format!("{{\"result\":\"{mark}\"}}\n"),
        Strategy::Ready if line.is_multiple_of(2) => {
            "{\"ready\":true,\"concurrency\":64}\n".to_owned()
        }
        Strategy::Ready => format!("{{\"id\":{id},\"result\":\"{mark}\"}}\n"),
        Strategy::HalfLines => match line % 3 {
            0 => format!("{{\"id\":{id},\"res\n"),
            1 => format!("ult\":\"{mark}\"}}\n"),
            _ => format!("{{\"id\":{id},\"result\":\"{mark}\n"),
        },
        Strategy::LogLines => match line % 3 {
            0 => format!("{{\"level\":\"error\",\"error\":\"{mark}\"}}\n"),
            1 => format!("{{\"msg\":\"x\",\"id\":{id},\"result\":\"{mark}\"}}\n"),
            _ => format!("{{\"stage\":\"x\",\"result\":\"{mark}\"}}\n"),
        },
        Strategy::OddIds => {
            let odd = match line % 7 {
                0 => format!("\"{id}\""),
                1 => format!("{id}.0"),
                2 => format!("{id}e0"),
                3 => "null".to_owned(),
                4 => "18446744073709551616".to_owned(),
                5 => format!("-{id}"),
                _ => format!("{id},\"id\":{}", id + 1),
            };
            format!("{{\"id\":{odd},\"result\":\"{mark}\"}}\n")
        }
        Strategy::Errors if line.is_multiple_of(2) => {
            format!("{{\"id\":{id},\"error\":\"{mark}\"}}\n")
        }
        Strategy::Errors => {
            format!("{{\"id\":{id},\"error\":{{\"message\":\"{mark}\",\"status\":404}}}}\n")
        }
    }
}
