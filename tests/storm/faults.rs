//! The commands of requests to the handler, and the outcomes that each may have.

use crate::support::Chance;

/// How the handler speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    WithoutIds,
    WithIds,
    InOrder,
    Concurrent,
}

impl Mode {
    pub(crate) const ALL: [Mode; 4] = [
        Mode::WithoutIds,
        Mode::WithIds,
        Mode::InOrder,
        Mode::Concurrent,
    ];

    /// The options of the misbehaving handler.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Mode::WithoutIds => &["--ids", "never", "--ready"],
            Mode::WithIds => &["--ready"],
            Mode::InOrder => &["--announce", "1"],
            Mode::Concurrent => &["--announce", "8"],
        }
    }
}

/// A command of a request, and its possible outcomes.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The letter and number of the fault in the catalogue, or a dash.
    pub(crate) row: &'static str,
    /// What the handler obeys; a mark of the request's own follows.
    pub(crate) command: &'static str,
    /// Its share of the requests, relative to the sum of all weights.
    weight: u64,
    /// Whether it can be answered with a result.
    pub(crate) may_succeed: bool,
    /// An error that only this one can have.
    pub(crate) own_error: Option<(u16, &'static str)>,
    /// The modes in which the protocol can tell it from something right.
    modes: &'static [Mode],
}

const ANY: &[Mode] = &Mode::ALL;
const IDS: &[Mode] = &[Mode::WithIds, Mode::InOrder, Mode::Concurrent];
/// An id that another request may have by now is an answer to that one.
const ONE: &[Mode] = &[Mode::WithIds];
/// Where another answer can come in between.
const MIXED: &[Mode] = &[Mode::Concurrent];
/// Where another answer cannot come in between.
const SINGLE: &[Mode] = &[Mode::WithoutIds, Mode::WithIds, Mode::InOrder];

const fn good(row: &'static str, command: &'static str, weight: u64) -> Fault {
    Fault {
        row,
        command,
        weight,
        may_succeed: true,
        own_error: None,
        modes: ANY,
    }
}

const fn bad(row: &'static str, command: &'static str, weight: u64) -> Fault {
    Fault {
        may_succeed: false,
        ..good(row, command, weight)
    }
}

const fn only(modes: &'static [Mode], fault: Fault) -> Fault {
    Fault { modes, ..fault }
}

const fn or(status: u16, code: &'static str, fault: Fault) -> Fault {
    Fault {
        own_error: Some((status, code)),
        ..fault
    }
}

/// All commands of the storm.
pub(crate) const FAULTS: &[Fault] = &[
    good("-", "echo", 9000),
    good("-", "sleep 1", 300),
    good("-", "sleep 20", 60),
    or(400, "handler_error", bad("-", "error no such device", 60)),
    bad("B2", "exit 3", 20),
    bad("B2", "exit-in-line 0", 10),
    good("B3", "reply-exit 0", 20),
    bad("B4", "abort", 10),
    bad("B4", "signal SEGV", 4),
    bad("B4", "signal KILL", 4),
    bad("B5", "hang", 3),
    bad("B5", "stop", 2),
    good("B6", "sleep 498", 2),
    only(SINGLE, good("B10", "deaf", 3)),
    bad("B8", "grandchild-exit 0", 4),
    only(SINGLE, good("C1", "byte-by-byte", 20)),
    // A large reply of another request may be written into the middle of its line.
    only(
        MIXED,
        or(502, "reply_too_large", good("C1", "byte-by-byte", 20)),
    ),
    bad("C2", "partial", 3),
    only(SINGLE, good("C2", "partial-after", 10)),
    or(502, "reply_too_large", bad("C3", "endless", 4)),
    or(502, "reply_too_large", bad("C3", "big 70000", 10)),
    bad("C4", "invalid-utf8", 10),
    good("C4", "bom", 10),
    good("C6", "raw-answer some print", 20),
    good("C6", "answer-raw some print", 20),
    bad("C6", "raw {'result': 1}", 3),
    good("C7", "flood 300000", 6),
    good("C7", "flood-stderr 300000", 6),
    good("C8", "twice", 10),
    only(IDS, good("C8", "twice-later 1", 10)),
    only(IDS, good("C8", "twice-next", 10)),
    only(IDS, good("C9", "unasked", 10)),
    only(IDS, bad("C10", "wrong-id", 10)),
    only(ONE, bad("C10", "next-id", 10)),
    only(ONE, bad("C10", "stale-id", 10)),
];

/// Picks the command of the next request.
pub(crate) fn pick(mode: Mode, chance: &mut Chance) -> &'static Fault {
    let possible = || FAULTS.iter().filter(|fault| fault.modes.contains(&mode));
    let mut at = chance.below(possible().map(|fault| fault.weight).sum());
    for fault in possible() {
        match at.checked_sub(fault.weight) {
            Some(rest) => at = rest,
            None => return fault,
        }
    }
    &FAULTS[0]
}
