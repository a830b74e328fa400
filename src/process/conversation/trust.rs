//! Whether a process can be trusted, and why not.

use std::fmt;

/// Whether a process may be given requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It may.
    Sound,
    /// It may not, but may finish what it is working on, matched by id.
    Finishing(Fault),
    /// It may do nothing more.
    Condemned(Fault),
}

/// Why a process is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It echoes ids, and a reply had none.
    MissingId,
    /// A reply had an id that no request has.
    WrongId,
    /// A reply had the id of a request that was answered before.
    StaleId,
    /// A reply came that no request is waiting for.
    Unasked,
    /// A reply came before its request was written to the end.
    Premature,
    /// It promised order and did not keep it.
    OutOfOrder,
    /// Half a line was there when the next request was to be written.
    PartialLine,
    /// It repeats no ids, and went on writing after its reply.
    NeverSilent,
    /// A reply was not UTF-8: lines may be torn or mixed.
    NotUtf8,
    /// A line was longer than a reply may be.
    LineTooLong,
    /// It closed its stdin.
    InputClosed,
    /// It closed its stdout.
    OutputClosed,
    /// It did not answer in time.
    TimedOut,
    /// Its ready line, or its first sign of life, did not come in time.
    TooSlowToStart,
    /// Its ready line, which was waited for, was not the first line that it wrote.
    ReadyTooLate,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::MissingId => "a reply without id, from a process that echoes ids",
            Fault::WrongId => "a reply with an id that no request has",
            Fault::StaleId => "a second reply to one request",
            Fault::Unasked => "a reply that no request is waiting for",
            Fault::Premature => "a reply before its request was written to the end",
            Fault::OutOfOrder => "a reply out of the order that was promised",
            Fault::PartialLine => "half a line left on stdout after the reply",
            Fault::NeverSilent => {
                "it repeats no ids and went on printing for a second after its reply: what it prints \
                 could be taken for the next one (print to stderr, or repeat the id)"
            }
            Fault::NotUtf8 => "a reply that is not UTF-8",
            Fault::LineTooLong => "a line longer than a reply may be",
            Fault::InputClosed => "it closed its stdin",
            Fault::OutputClosed => "it closed its stdout",
            Fault::TimedOut => "no reply in time",
            Fault::TooSlowToStart => {
                "neither its ready line nor a reply came in the time to start (--startup-timeout, or \
                 without --wait-ready the time of the slowest start seen, if that is less)"
            }
            Fault::ReadyTooLate => {
                "its ready line was not the first line on its stdout, and counts as no ready line"
            }
        })
    }
}
