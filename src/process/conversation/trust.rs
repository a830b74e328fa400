//! Whether a process can be trusted, why not, and how it loses trust.

use super::{Conversation, Ids, Promise, Ticket};
use crate::cause::Cause;
use crate::error::RequestFailure;
use std::fmt;

/// Whether a process may be given requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The process may be given requests.
    Sound,
    /// The process is given no request, but may finish its open requests, matched by id.
    Finishing(Fault),
    /// The process is given no request, and no more time for those that it has. A reply that still
    /// comes is delivered.
    Condemned(Fault),
}

/// Why a process is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process repeats ids, and a reply had none.
    MissingId,
    /// A reply had an id that no request has.
    WrongId,
    /// A reply had the id of a request that was answered before.
    StaleId,
    /// A reply came that no request is waiting for.
    Unasked,
    /// A reply came before its request was written to the end.
    Premature,
    /// The process promised order and did not keep it.
    OutOfOrder,
    /// Half a line was there when the next request was to be written.
    PartialLine,
    /// The process repeats no ids, and went on writing after its reply.
    NeverSilent,
    /// A reply was not UTF-8: lines may be torn or mixed.
    NotUtf8,
    /// A line was longer than a reply may be.
    LineTooLong,
    /// The process closed its stdin.
    InputClosed,
    /// The process closed its stdout.
    OutputClosed,
    /// The process did not answer in time.
    TimedOut,
    /// The ready line, or the first sign of life, did not come in time.
    TooSlowToStart,
    /// The ready line, which was waited for, was not the first line of the process.
    ReadyTooLate,
}

impl Fault {
    /// The rule of `faas-worker check` that tries for this fault.
    pub fn rule(self) -> &'static str {
        match self {
            Fault::MissingId | Fault::WrongId => "ids",
            Fault::StaleId | Fault::Unasked | Fault::Premature => "one-each",
            Fault::OutOfOrder => "order",
            Fault::PartialLine | Fault::LineTooLong | Fault::TimedOut => "answers",
            Fault::NeverSilent => "stray",
            Fault::NotUtf8 => "unicode",
            Fault::InputClosed | Fault::OutputClosed => "many",
            Fault::TooSlowToStart | Fault::ReadyTooLate => "ready",
        }
    }

    /// The fault as the cause of a failed request.
    pub(super) fn cause(self) -> Cause {
        Cause::from(self.to_string()).of_rule(self.rule())
    }
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

impl<T: Ticket> Conversation<T> {
    /// The process has closed its stdin with `unread` bytes in it. It may still answer the requests
    /// that it has read, and never those it has not.
    pub fn input_closed(&mut self, unread: u64) {
        if unread > 0 || !self.outgoing().is_empty() {
            self.condemn(Fault::InputClosed);
        } else {
            self.finish_only(Fault::InputClosed);
        }
    }

    /// The process has closed its stdout: no reply can come.
    pub fn output_closed(&mut self) {
        self.condemn(Fault::OutputClosed);
    }

    /// From here on the process is given no request. A process that repeats ids may finish the
    /// requests that it has.
    pub(super) fn doubt(&mut self, fault: Fault) {
        if self.ids == Ids::Repeated {
            // A request ahead that the process has not started on is given to another one; so the
            // process must not go on to start on it.
            let mut flights = self.flights.iter().skip(self.started_at_most());
            let keeps_order = self.promise == Promise::Order;
            if keeps_order && flights.any(|flight| flight.ticket.is_some()) {
                return self.condemn(fault);
            }
            return self.finish_only(fault);
        }
        for mut flight in self.flights.drain(..) {
            let failure = RequestFailure::Protocol(fault.cause());
            self.events.extend(flight.close(Err(failure)));
        }
        self.condemn(fault);
    }

    pub(super) fn finish_only(&mut self, fault: Fault) {
        if self.trust == Trust::Sound {
            self.trust = Trust::Finishing(fault);
        }
        if self.flights.is_empty() {
            self.condemn_if_finishing();
        }
    }

    pub(super) fn condemn(&mut self, fault: Fault) {
        match self.trust {
            Trust::Sound => self.trust = Trust::Condemned(fault),
            Trust::Finishing(_) | Trust::Condemned(_) => self.condemn_if_finishing(),
        }
    }

    /// Condemns with the first fault, which is the cause of all later ones.
    pub(super) fn condemn_if_finishing(&mut self) {
        if let Trust::Finishing(fault) = self.trust {
            self.trust = Trust::Condemned(fault);
        }
    }
}
