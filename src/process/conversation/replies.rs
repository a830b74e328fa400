//! Lines from the process: which request a line answers, and what it shows of the process.

use super::{Conversation, ConversationEvent, Fault, Ids, MAX_EVENTS, Promise, Ticket, Trust};
use crate::answer::result_object;
use crate::cause::Cause;
use crate::error::RequestFailure;
use crate::process::line::{self, Announcement, ExtraMembers, Id, Parsed, ProcessLine, ReplyBody};
use bytes::Bytes;
use std::time::Instant;

/// Most characters of a wrong id that an error message quotes.
const MAX_QUOTED_ID_CHARACTERS: usize = 40;

impl<T: Ticket> Conversation<T> {
    pub(super) fn line(&mut self, now: Instant, line: ProcessLine<'_>) {
        let is_first = !std::mem::replace(&mut self.has_spoken, true);
        match line {
            ProcessLine::Whole(line) => self.whole_line(now, line, is_first),
            ProcessLine::TooLong(line) if line::is_braced(line) => self.too_long(now, line),
            ProcessLine::TooLong(_) => self.stray(now, line),
        }
    }

    fn whole_line(&mut self, now: Instant, line: &[u8], is_first: bool) {
        // Most lines are ordinary replies to the oldest request.
        let first = self.flights.front().and_then(|first| {
            let result = line::plain_reply(line, &first.digits)?;
            Some(Parsed::Reply(
                Id::Integer(first.id),
                ReplyBody::Result(result),
            ))
        });
        match first.unwrap_or_else(|| line::parse(line)) {
            Parsed::Reply(id, answer) => self.named_reply(now, id, &answer),
            Parsed::Unnamed(answer, extra) => match (self.ids, extra) {
                (_, ExtraMembers::Logger) | (Ids::Repeated, ExtraMembers::Others) => {
                    self.stray(now, ProcessLine::Whole(line))
                }
                (Ids::Repeated, ExtraMembers::Nothing) => {
                    self.misnamed_reply(now, Fault::MissingId, &"".into())
                }
                (Ids::Unknown | Ids::Never, ExtraMembers::Nothing | ExtraMembers::Others) => {
                    self.unnamed_reply(now, &answer);
                }
            },
            Parsed::IdOnly(Id::Integer(id)) if self.index_of(id).is_some() => {
                let broken = ReplyBody::Broken(
                    "the reply has neither result nor error (JavaScript leaves out a result that \
                     is undefined: return null; cat repeats the request)"
                        .to_owned(),
                );
                self.named_reply(now, Id::Integer(id), &broken);
            }
            Parsed::Malformed(id, how) if self.index_of(id).is_some() => {
                self.named_reply(now, Id::Integer(id), &ReplyBody::Broken(how));
                // Further replies may stand behind this one, without a line end between them.
                self.count_possible_replies(line::objects_in(line).saturating_sub(1));
            }
            Parsed::Ready(announcement) if is_first => self.ready(now, announcement),
            Parsed::Ready(_) => {
                self.stray(now, ProcessLine::Whole(line));
                self.late_ready_line();
            }
            Parsed::IdOnly(_) | Parsed::Malformed(..) | Parsed::Stray => {
                self.stray(now, ProcessLine::Whole(line))
            }
        }
    }

    /// A reply that names its request.
    fn named_reply(&mut self, now: Instant, id: Id<'_>, answer: &ReplyBody<'_>) {
        let Id::Integer(number) = id else {
            return self.misnamed_reply(now, Fault::WrongId, &kind_of(id));
        };
        let Some(index) = self.index_of(number) else {
            if !self.closed_ids.contains(number) {
                return self.misnamed_reply(now, Fault::WrongId, &kind_of(id));
            }
            self.count_possible_replies(1);
            return self.doubt(Fault::StaleId);
        };
        self.ids = Ids::Repeated;
        self.silence.end();
        self.reply(now, index, answer);
    }

    /// A reply of a process that has never named a request.
    fn unnamed_reply(&mut self, now: Instant, answer: &ReplyBody<'_>) {
        let Some(first) = self.flights.front() else {
            return self.doubt(Fault::Unasked);
        };
        if first.line.end > self.outgoing.total_sent() {
            return self.doubt(Fault::Premature);
        }
        // A process that repeats ids may have printed this line before its reply, as a part of a
        // payload.
        if std::mem::replace(&mut self.ids, Ids::Never) == Ids::Unknown {
            self.silence.wait(now);
        }
        self.reply(now, 0, answer);
    }

    fn reply(&mut self, now: Instant, index: usize, answer: &ReplyBody<'_>) {
        if let ReplyBody::Error {
            is_beside_result: true,
            ..
        } = answer
        {
            self.events.push(ConversationEvent::ErrorBesideResult);
        }
        let Some(mut flight) = self.take_flight(index) else {
            return;
        };
        self.show_life(now, flight.could_start_at);
        self.last_replied = Some(now);
        let is_out_of_order = self.promise == Promise::Order && index > 0;
        if is_out_of_order {
            self.forget_promise(now);
        } else {
            self.replies_in_order += 1;
            self.possible_replies = 0;
            self.start_next(now);
        }
        if flight.ticket.is_some() {
            let outcome = outcome(answer, self.limits.max_reply_bytes);
            self.events.extend(flight.close(outcome));
        }
        if flight.line.end > self.outgoing.total_sent() {
            self.doubt(Fault::Premature);
        } else if is_out_of_order {
            self.doubt(Fault::OutOfOrder);
        } else if matches!(answer, ReplyBody::NotUtf8(_)) {
            self.doubt(Fault::NotUtf8);
        }
        if self.trust != Trust::Sound && self.flights.is_empty() {
            self.condemn_if_finishing();
        }
    }

    /// A reply without an id, or with an id that no request has. The request that it must be meant
    /// for fails: the only one, or the first if the process keeps order.
    fn misnamed_reply(&mut self, now: Instant, fault: Fault, which: &Cause) {
        if let Some(index) = self.meant_request() {
            let cause = which.clone().map(|which| format!("{fault}{which}"));
            let cause = cause.of_rule(fault.rule());
            self.fail(now, index, RequestFailure::Protocol(cause));
        }
        self.doubt(fault);
    }

    fn too_long(&mut self, now: Instant, line: &[u8]) {
        let meant = match line::leading_id(line) {
            Some(id) => self.index_of(id),
            None => self.meant_request(),
        };
        match meant {
            Some(index) => {
                if self.is_behind_another(index) {
                    self.forget_promise(now);
                }
                let failure = RequestFailure::ReplyTooLarge(self.limits.max_reply_bytes);
                self.fail(now, index, failure);
            }
            None => self.count_possible_replies(1),
        }
        if line::objects_in(line) > 1 {
            self.count_possible_replies(usize::MAX);
        }
        self.doubt(Fault::LineTooLong);
    }

    /// The index of the request that a reply without a usable id is meant for: the only request, or
    /// the first, if the process keeps order.
    fn meant_request(&self) -> Option<usize> {
        let is_first = self.flights.len() == 1 || self.promise == Promise::Order;
        (is_first && !self.flights.is_empty()).then_some(0)
    }

    fn fail(&mut self, now: Instant, index: usize, failure: RequestFailure) {
        let flight = self.take_flight(index);
        self.events
            .extend(flight.and_then(|mut flight| flight.close(Err(failure))));
        self.start_next(now);
    }

    /// A process that keeps order can start on the next request from now on.
    fn start_next(&mut self, now: Instant) {
        if self.promise == Promise::Order
            && let Some(first) = self.flights.front_mut()
        {
            first.could_start_at = first.could_start_at.max(now);
            first.strays_before = self.strays.count;
        }
    }

    /// The process has broken its promise of order: from now on it counts as working on all of its
    /// requests, and may finish them in any order.
    fn forget_promise(&mut self, now: Instant) {
        self.promise = Promise::Broken;
        for flight in self.flights.iter_mut().skip(1) {
            flight.could_start_at = flight.could_start_at.max(now);
        }
    }

    fn ready(&mut self, now: Instant, announcement: Announcement) {
        self.show_life(now, self.started);
        self.is_ready = true;
        self.promise = match announcement.concurrency {
            None => Promise::Nothing,
            Some(1) => Promise::Order,
            Some(number) => Promise::Concurrency(number.min(self.limits.max_concurrency)),
        };
        if announcement.concurrency.is_some() {
            self.ids = Ids::Repeated;
        }
        self.wanted_members.clone_from(&announcement.context);
        self.events.push(ConversationEvent::Ready(announcement));
    }

    /// A ready line that was not the first line counts as none: an earlier request may have been
    /// printed. If the ready line is waited for, it will not come any more.
    fn late_ready_line(&mut self) {
        if !std::mem::replace(&mut self.was_ready_late, true) && !self.is_ready {
            self.events.push(ConversationEvent::ReadyTooLate);
            if self.limits.wait_ready {
                self.condemn(Fault::ReadyTooLate);
            }
        }
    }

    /// The process may be this many requests further than its replies say.
    fn count_possible_replies(&mut self, requests: usize) {
        self.possible_replies = self.possible_replies.saturating_add(requests);
    }

    /// The process shows life by a line; called before the flag of that line is set. `asked` is the
    /// time from which on it could have shown life: an idle hour is no slow start.
    fn show_life(&mut self, now: Instant, asked: Instant) {
        if !self.has_shown_life() {
            let took = now.saturating_duration_since(asked);
            self.events.push(ConversationEvent::CameUp {
                shown_after: Some(took),
            });
        }
    }

    fn stray(&mut self, now: Instant, line: ProcessLine<'_>) {
        let (line, is_cut) = match line {
            ProcessLine::Whole(line) => (line, false),
            ProcessLine::TooLong(line) => (line, true),
        };
        if self.flights.is_empty() && self.ids == Ids::Never {
            self.silence.wait(now);
        }
        if !self.flights.is_empty() {
            self.count_possible_replies(if is_cut {
                usize::MAX
            } else {
                line::replies_at_most(line)
            });
        }
        let shown = &line[..line.len().min(line::MAX_STRAY_BYTES)];
        self.strays.record(shown);
        if self.events.len() >= MAX_EVENTS {
            self.strays.left_out += 1;
            return;
        }
        let is_cut = is_cut || shown.len() < line.len();
        let text = Bytes::copy_from_slice(shown);
        let meant = self.meant_request();
        let ticket = meant.and_then(|index| self.flights[index].ticket.as_ref());
        let request = ticket.and_then(Ticket::name);
        self.events.push(ConversationEvent::Stray {
            text,
            request,
            is_cut,
        });
    }
}

/// Says what is wrong with an id. The id itself is output of the handler, and quoted as such.
fn kind_of(id: Id<'_>) -> Cause {
    let (kind, text) = match id {
        Id::Integer(number) => ("", number.to_string()),
        Id::Foreign(text) => {
            let kind = match text.as_bytes().first() {
                Some(b'"') => ": it is a string, and must be the integer as it was sent",
                Some(b'[') => ": it is an array, and must be the integer as it was sent",
                Some(b'{') => ": it is an object, and must be the integer as it was sent",
                Some(b't' | b'f') => ": it is a boolean, and must be the integer as it was sent",
                Some(b'n') => ": it is null, and must be the integer as it was sent",
                _ => ": it is no integer as it was sent",
            };
            (kind, text.chars().take(MAX_QUOTED_ID_CHARACTERS).collect())
        }
    };
    Cause::quoting(kind, format!("{kind} ({text})"))
}

fn outcome(answer: &ReplyBody<'_>, max_reply_bytes: usize) -> Result<Bytes, RequestFailure> {
    match answer {
        ReplyBody::Result(result) if result.len() > max_reply_bytes => {
            Err(RequestFailure::ReplyTooLarge(max_reply_bytes))
        }
        // Made here, where the text is copied out of its line anyway, so that the response needs no
        // second copy.
        ReplyBody::Result(result) => Ok(result_object(result)),
        ReplyBody::Error {
            message, status, ..
        } => Err(RequestFailure::Handler {
            message: Bytes::copy_from_slice(message.as_bytes()),
            status: status.unwrap_or(400),
        }),
        ReplyBody::Broken(how) => {
            let cause = Cause::from(how.clone()).of_rule("answers");
            Err(RequestFailure::Protocol(cause))
        }
        ReplyBody::NotUtf8(byte) => {
            let cause = format!("the reply is not UTF-8 at byte {byte} of its line");
            let cause = Cause::from(cause).of_rule(Fault::NotUtf8.rule());
            Err(RequestFailure::Protocol(cause))
        }
    }
}
