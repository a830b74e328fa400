use super::deadlines::{HALF_LINE_TIMEOUT, UP_AFTER};
use super::*;
use crate::error::RequestFailure;
use crate::procfs::Activity;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// A request that remembers nothing but its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request(u64, String);

impl Ticket for Request {
    fn payload(&self) -> &[u8] {
        self.1.as_bytes()
    }
    fn context(&self, _: Instant, _: &[ContextMember]) -> RequestContext<'_> {
        RequestContext::default()
    }
    fn timeout(&self) -> Duration {
        TIMEOUT
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Each request, with whether it never started.
fn told_apart<T>(open: Vec<OpenRequest<T>>) -> Vec<(T, bool)> {
    open.into_iter()
        .map(|open| match open {
            OpenRequest::NeverStarted(request) => (request, true),
            OpenRequest::MayHaveStarted { ticket, .. } => (ticket, false),
        })
        .collect()
}

/// A conversation with its clock and all that came of it.
struct Bench {
    talk: Conversation<Request>,
    now: Instant,
    /// Here ids count up from 1, or in such steps: the test is to know them.
    last_id: u64,
    id_step: u64,
    /// All that was written to the process.
    written: Vec<u8>,
    answers: Vec<(u64, Result<String, RequestFailure>)>,
    strays: usize,
    ups: Vec<Option<Duration>>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ConversationConfig)) -> Bench {
        let mut limits = ConversationConfig {
            max_concurrency: 8,
            read_ahead: 4,
            window: ReadAheadWindow::Measured,
            wait_ready: false,
            startup_timeout: 60 * TIMEOUT,
            max_reply_bytes: 64,
        };
        change(&mut limits);
        let now = Instant::now();
        let talk = Conversation::new(limits, now);
        Bench {
            talk,
            now,
            last_id: 0,
            id_step: 1,
            written: Vec::new(),
            answers: Vec::new(),
            strays: 0,
            ups: Vec::new(),
        }
    }

    /// Gives a request if the process may be given one, and has its line written.
    fn give(&mut self, number: u64) -> bool {
        let has_free = self.free_capacity() > 0;
        if has_free {
            self.gives(Request(number, "p".to_owned()));
            self.send_all();
        }
        self.collect();
        has_free
    }

    fn gives(&mut self, request: Request) {
        self.last_id += self.id_step;
        self.talk.give(self.now, self.last_id, request);
    }

    fn free_capacity(&self) -> usize {
        self.talk.free_capacity(self.now)
    }

    fn send_all(&mut self) {
        self.sends(self.talk.outgoing().len());
    }

    fn sends(&mut self, bytes: usize) {
        self.written
            .extend_from_slice(&self.talk.outgoing()[..bytes]);
        self.talk.sent(self.now, bytes);
    }

    /// The process is dead, and has not read so many bytes of what was written.
    fn end(&mut self, unread: usize, holders: PipeHolders) -> Vec<(Request, bool)> {
        let read = self.written.len().saturating_sub(unread);
        let unread = self.written[read..].to_vec();
        told_apart(self.talk.end(&unread, holders))
    }

    fn says(&mut self, text: &str) -> &mut Bench {
        self.talk.received(self.now, text.as_bytes());
        self.collect();
        self
    }

    /// So long that a process without ids is given the next request.
    fn is_silent(&mut self) {
        self.waits(20 * MS, None);
    }

    fn waits(&mut self, time: Duration, slowest_start: Option<Duration>) {
        self.now += time;
        self.talk.expire(self.now, slowest_start);
        self.collect();
    }

    fn collect(&mut self) {
        for event in self.talk.take_events() {
            match event {
                ConversationEvent::Answered {
                    ticket: request,
                    outcome,
                    ..
                } => {
                    let text = outcome.map(|object| {
                        let object = String::from_utf8_lossy(&object).into_owned();
                        let result = object.strip_prefix("{\"result\":").unwrap();
                        result.strip_suffix('}').unwrap().to_owned()
                    });
                    self.answers.push((request.0, text));
                }
                ConversationEvent::Stray { .. } => self.strays += 1,
                ConversationEvent::CameUp { shown_after } => self.ups.push(shown_after),
                ConversationEvent::StraysLeftOut(count) => {
                    self.strays += usize::try_from(count).unwrap()
                }
                ConversationEvent::Ready(_)
                | ConversationEvent::ReadyTooLate
                | ConversationEvent::Unanswered
                | ConversationEvent::ErrorBesideResult => {}
            }
        }
    }

    fn fault(&self) -> Option<Fault> {
        match self.talk.trust() {
            Trust::Sound => None,
            Trust::Finishing(fault) | Trust::Condemned(fault) => Some(*fault),
        }
    }

    fn is_condemned(&self) -> bool {
        matches!(self.talk.trust(), Trust::Condemned(_))
    }

    fn failure(&self, number: u64) -> &RequestFailure {
        let answer = self
            .answers
            .iter()
            .find(|(answered, _)| *answered == number);
        answer.unwrap().1.as_ref().unwrap_err()
    }

    fn result(&self, number: u64) -> &str {
        let answer = self
            .answers
            .iter()
            .find(|(answered, _)| *answered == number);
        answer.unwrap().1.as_ref().unwrap()
    }
}

#[test]
fn a_process_that_announced_nothing_is_given_one_request() {
    let mut bench = Bench::new();
    assert!(bench.give(1));
    assert!(!bench.give(2));
    bench.says("{\"result\":1}\n");
    assert_eq!(bench.result(1), "1");
    bench.is_silent();
    assert!(bench.give(2));
}

#[test]
fn announced_concurrency_is_capped_and_matched_by_id() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":100}\n");
    assert_eq!(bench.free_capacity(), 8);
    for number in 1..=8 {
        assert!(bench.give(number));
    }
    assert!(!bench.give(9));
    bench.says("{\"id\":3,\"result\":\"c\"}\n{\"id\":1,\"result\":\"a\"}\n");
    assert_eq!((bench.result(3), bench.result(1)), ("\"c\"", "\"a\""));
    assert_eq!((bench.fault(), bench.free_capacity()), (None, 2));
}

#[test]
fn a_cap_of_one_is_no_promise_of_order() {
    let mut bench = Bench::with(|limits| limits.max_concurrency = 1);
    bench.says("{\"ready\":true,\"concurrency\":16}\n");
    assert_eq!(bench.talk.promise, Promise::Concurrency(1));
}

#[test]
fn a_ready_line_after_the_first_reply_is_a_stray_line() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"result\":1}\n{\"ready\":true,\"concurrency\":4}\n");
    bench.is_silent();
    assert_eq!(
        (bench.free_capacity(), bench.strays, bench.fault()),
        (1, 1, None)
    );
}

#[test]
fn without_ids_a_second_reply_or_half_a_line_ends_it_before_the_next_request() {
    for (rest, fault) in [
        ("{\"result\":2}\n", Fault::Unasked),
        ("{\"resu", Fault::PartialLine),
        ("pri", Fault::PartialLine),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        assert!(bench.talk.must_read_before_giving());
        bench.says(&format!("{{\"result\":1}}\n{rest}"));
        assert!(!bench.give(2), "{rest}");
        bench.waits(HALF_LINE_TIMEOUT, None);
        assert_eq!(bench.fault(), Some(fault), "{rest}");
        assert!(bench.is_condemned());
        assert_eq!(bench.answers.len(), 1);
    }
}

#[test]
fn a_line_and_its_end_in_two_writes_cost_no_process() {
    // Before the first reply it may print what it likes, but for the beginning of a reply.
    let mut bench = Bench::new();
    bench.says("loading");
    assert_eq!(bench.free_capacity(), 1);
    bench.says(" model\n{\"result\":true}");
    assert_eq!(bench.free_capacity(), 0);
    let mut bench = Bench::new();
    bench.says("{\"ready\":true}");
    assert_eq!(bench.free_capacity(), 0);
    bench.says("\n");
    assert!(bench.give(1));
    bench.says("{\"result\":1}\ndebug");
    bench.waits(HALF_LINE_TIMEOUT - MS, None);
    assert_eq!((bench.free_capacity(), bench.fault()), (0, None));
    bench.says("\n");
    bench.waits(HALF_LINE_TIMEOUT, None);
    assert_eq!((bench.free_capacity(), bench.fault()), (1, None));
}

/// What it has printed in one go, before its reply, does not answer the next caller.
#[test]
fn a_process_of_unknown_ids_is_given_the_next_request_after_silence() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"result\":\"printed\"}\n");
    assert_eq!((bench.answers.len(), bench.free_capacity()), (1, 0));
    for _ in 0..10 {
        bench.waits(15 * MS, None);
        bench.says("\n\n");
        assert_eq!(bench.free_capacity(), 0);
    }
    bench.says("{\"result\":\"forged\"}\n");
    assert_eq!(bench.fault(), Some(Fault::Unasked));
    assert_eq!(bench.answers.len(), 1);

    // One that printed no more than its reply waits once in its life.
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"result\":1}\n");
    bench.waits(19 * MS, None);
    assert_eq!(bench.free_capacity(), 0);
    bench.waits(MS, None);
    for number in 2..5 {
        assert!(bench.give(number), "{number}");
        bench.says(&format!("print\n{{\"result\":{number}}}\n"));
    }
    // It waits again when it prints behind its reply.
    assert!(bench.give(5));
    bench.says("{\"result\":5}\nprint\n");
    assert_eq!(bench.free_capacity(), 0);
    bench.waits(20 * MS, None);
    assert_eq!((bench.free_capacity(), bench.fault()), (1, None));
}

#[test]
fn a_process_without_ids_that_is_never_silent_ends() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"result\":1}\n");
    for _ in 0..100 {
        assert_eq!((bench.free_capacity(), bench.fault()), (0, None));
        bench.waits(10 * MS, None);
        bench.says("\n");
    }
    bench.waits(MS, None);
    assert_eq!(bench.fault(), Some(Fault::NeverSilent));
}

#[test]
fn a_process_that_repeats_ids_waits_for_no_silence() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1,\"result\":1}\nprint\n");
    assert_eq!((bench.free_capacity(), bench.fault()), (1, None));
}

#[test]
fn a_flood_of_lines_is_counted_and_the_reply_behind_it_arrives() {
    let mut bench = Bench::new();
    bench.give(1);
    let now = bench.now;
    bench.talk.received(now, &[b'\n'; 60_000]);
    assert!(bench.talk.events.len() <= MAX_EVENTS);
    bench.says("{\"result\":1}\n");
    assert_eq!((bench.result(1), bench.strays), ("1", 60_000));
}

#[test]
fn a_timeout_says_why_the_last_line_is_no_reply() {
    for (line, cause) in [
        (
            "{\"result\":1,\"level\":\"x\"}",
            "a member that loggers write",
        ),
        ("  {\"id\":1,\"result\":1}", "blanks before its brace"),
        ("", "did not answer, the last an empty line"),
        ("done {\"result\":1}", "glued to other output"),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        bench.says(&format!("{line}\n"));
        bench.waits(TIMEOUT, Some(Duration::ZERO));
        let RequestFailure::TimedOut(seen) = bench.failure(1) else {
            panic!("{line}")
        };
        assert!(seen.full().contains(cause), "{line}: {seen}");
    }
}

#[test]
fn an_idle_hour_is_no_slow_start() {
    let mut bench = Bench::new();
    bench.waits(3600 * TIMEOUT, None);
    bench.give(1);
    bench.now += 5 * MS;
    bench.says("{\"result\":1}\n");
    assert_eq!(bench.ups, [None, Some(5 * MS)]);
}

#[test]
fn with_concurrency_nothing_of_another_answer_is_shown() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":2}\n");
    bench.give(1);
    bench.now += 500 * MS;
    bench.give(2);
    bench.says("stray secret\n{\"id\":2,\"result\":\"secret");
    bench.waits(500 * MS, None);
    let RequestFailure::TimedOut(seen) = bench.failure(1) else {
        panic!()
    };
    assert!(!seen.full().contains("secret"), "{seen}");
}

#[test]
fn a_long_line_fails_only_the_request_that_it_names() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":2}\n");
    bench.give(1);
    bench.says(&format!("{{\"id\":77,\"result\":\"{}\n", "x".repeat(9000)));
    bench.says("{\"id\":1,\"result\":1}\n");
    assert_eq!(bench.result(1), "1");
}

#[test]
fn a_process_that_repeated_an_id_once_must_always_do_so() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1,\"result\":1}\n");
    assert!(!bench.talk.must_read_before_giving());
    bench.give(2);
    bench.says("{\"result\":2}\n");
    assert!(matches!(bench.failure(2), RequestFailure::Protocol(_)));
    assert_eq!(bench.fault(), Some(Fault::MissingId));
}

#[test]
fn a_line_without_an_id_is_no_reply_of_a_process_that_repeats_ids() {
    for (line, fault) in [
        ("{\"level\":\"warning\",\"error\":\"refused\"}\n", None),
        ("{\"error\":\"refused\",\"attempt\":3}\n", None),
        ("{\"result\":1,\"ready\":true}\n", None),
        ("{\"error\":\"refused\"}\n", Some(Fault::MissingId)),
    ] {
        // By its ready line, and by its first reply.
        for first in ["{\"ready\":true,\"concurrency\":1}\n", ""] {
            let mut bench = Bench::new();
            bench.says(first);
            bench.give(1);
            bench.says("{\"id\":1,\"result\":1}\n");
            bench.give(2);
            bench.says(line);
            assert_eq!(bench.fault(), fault, "{line}");
            if fault.is_none() {
                bench.says("{\"id\":2,\"result\":2}\n");
                assert_eq!((bench.result(2), bench.strays), ("2", 1), "{line}");
            }
        }
    }
}

#[test]
fn a_logger_s_line_is_no_reply_of_a_process_without_ids() {
    for before in ["", "{\"result\":0}\n"] {
        for line in [
            "{\"event\":\"cache is down\",\"error\":\"refused\"}\n",
            "{\"msg\":\"done\",\"result\":5}\n",
        ] {
            let mut bench = Bench::new();
            if !before.is_empty() {
                bench.give(1);
                bench.says(before);
            }
            // Neither an answer nor one that nobody asked for.
            bench.says(line);
            assert_eq!((bench.strays, bench.fault()), (1, None), "{line}");
            bench.is_silent();
            assert!(bench.give(2));
            bench.says(line).says("{\"result\":\"fine\",\"cost\":3}\n");
            assert_eq!((bench.result(2), bench.strays), ("\"fine\"", 2), "{line}");
        }
    }
}

#[test]
fn a_ready_line_counts_only_as_the_very_first_line() {
    let ready = "{\"ready\":true,\"concurrency\":8}\n";
    let long = format!("{}\n", "x".repeat(9000));
    for first in ["\n", "loading\n", "{\"ready\":false}\n", &long] {
        let mut bench = Bench::new();
        bench.says(first);
        let strays = bench.strays;
        bench.says(ready).says(ready);
        assert_eq!(
            (bench.free_capacity(), bench.strays),
            (1, strays + 2),
            "{first}"
        );
        assert_eq!(bench.fault(), None);
        // One that is waited for would never come.
        let mut bench = Bench::with(|limits| limits.wait_ready = true);
        bench.says(first).says(ready);
        assert_eq!(bench.fault(), Some(Fault::ReadyTooLate), "{first}");
    }
    // A request was written before it: a payload that is printed announces nothing.
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("working on it\n").says(ready);
    bench.says("{\"id\":1,\"result\":1}\n");
    assert_eq!((bench.result(1), bench.free_capacity()), ("1", 1));
    // In pieces it is one line all the same.
    let mut bench = Bench::new();
    bench.says(&ready[..9]).says(&ready[9..]);
    assert_eq!(bench.free_capacity(), 8);
}

#[test]
fn no_id_is_free_that_a_request_has() {
    let mut bench = Bench::new();
    assert!(bench.talk.is_free(1));
    bench.give(1);
    assert!(!bench.talk.is_free(1));
    bench.says("{\"id\":1,\"result\":1}\n");
    assert!(bench.talk.is_free(1));
}

#[test]
fn a_reply_to_the_request_at_work_that_is_no_json_fails_at_once() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1,\"result\":{\"x\":NaN}}\n");
    let RequestFailure::Protocol(how) = bench.failure(1) else {
        panic!()
    };
    assert!(how.full().contains("at byte 22: NaN"), "{how}");
    assert_eq!((bench.fault(), bench.free_capacity()), (None, 1));
    // With an id of nobody it is a line like any other.
    bench.give(2);
    bench.says("{\"id\":77,\"result\":NaN}\n");
    assert_eq!((bench.answers.len(), bench.strays), (1, 1));
    bench.says("{\"id\":2,\"result\":2}\n");
    assert_eq!(bench.result(2), "2");
}

#[test]
fn an_unknown_id_answers_no_request() {
    for id in [
        "\"1\"",
        "1.0",
        "2",
        "0",
        "-1",
        "null",
        "18446744073709551617",
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        bench.says(&format!("{{\"id\":{id},\"result\":1}}\n"));
        assert!(
            matches!(bench.failure(1), RequestFailure::Protocol(_)),
            "{id}"
        );
        assert_eq!(bench.fault(), Some(Fault::WrongId), "{id}");
        assert!(bench.is_condemned(), "{id}");
    }
}

#[test]
fn a_second_reply_to_one_request_leaves_the_next_its_own() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1,\"result\":\"first\"}\n");
    bench.give(2);
    bench.says("{\"id\":1,\"result\":\"again\"}\n");
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::StaleId));
    bench.says("{\"id\":2,\"result\":\"second\"}\n");
    assert_eq!(
        (bench.result(1), bench.result(2)),
        ("\"first\"", "\"second\"")
    );
    assert!(bench.is_condemned());
}

#[test]
fn an_early_reply_without_an_id_answers_no_request() {
    let mut bench = Bench::new();
    bench.gives(Request(1, "p".repeat(100)));
    bench.sends(10);
    bench.says("{\"result\":\"of another\"}\n");
    assert!(matches!(bench.failure(1), RequestFailure::Protocol(_)));
    assert_eq!(bench.fault(), Some(Fault::Premature));
}

#[test]
fn a_reply_before_its_request_is_written_costs_the_process_also_with_its_id() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":4}\n");
    bench.give(1);
    bench.gives(Request(2, "p".repeat(100)));
    bench.sends(10);
    bench.says("{\"id\":2,\"result\":\"guessed\"}\n");
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::Premature));
    // What it had read before, it may finish.
    bench.says("{\"id\":1,\"result\":1}\n");
    assert_eq!(bench.result(1), "1");
    assert!(bench.is_condemned());
}

#[test]
fn a_process_that_breaks_its_order_is_given_no_more_requests() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":1}\n");
    // Written ahead, past the bound: how it came there does not matter here.
    for number in [1, 2] {
        let request = Request(number, "p".to_owned());
        bench.talk.promise = Promise::Concurrency(2);
        bench.gives(request);
        bench.talk.promise = Promise::Order;
    }
    bench.send_all();
    bench.says("{\"id\":2,\"result\":2}\n");
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::OutOfOrder));
    bench.says("{\"id\":1,\"result\":1}\n");
    assert_eq!((bench.result(1), bench.result(2)), ("1", "2"));
    assert!(bench.is_condemned());
}

#[test]
fn a_reply_that_is_not_utf_8_costs_the_process() {
    let mut bench = Bench::new();
    bench.give(1);
    bench
        .talk
        .received(bench.now, b"{\"id\":1,\"result\":\"\xff\"}\n");
    bench.collect();
    assert!(matches!(bench.failure(1), RequestFailure::Protocol(_)));
    assert_eq!(bench.fault(), Some(Fault::NotUtf8));
    assert!(bench.is_condemned());
}

#[test]
fn only_the_first_ready_line_announces() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":2}\n");
    bench.says("{\"ready\":true,\"concurrency\":4}\n{\"ready\":true}\n");
    assert_eq!((bench.free_capacity(), bench.strays), (2, 2));
}

#[test]
fn among_several_requests_a_reply_with_a_wrong_id_fails_none() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":4}\n");
    bench.give(1);
    bench.give(2);
    bench.says("{\"id\":77,\"result\":\"whose\"}\n");
    assert!(bench.answers.is_empty());
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::WrongId));
    bench.says("{\"id\":2,\"result\":2}\n{\"id\":1,\"result\":1}\n");
    assert_eq!((bench.result(1), bench.result(2)), ("1", "2"));
    assert!(bench.is_condemned());
}

#[test]
fn a_known_id_with_neither_result_nor_error_fails_at_once_and_costs_no_process() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1}\n");
    let RequestFailure::Protocol(how) = bench.failure(1) else {
        panic!()
    };
    assert!(how.full().contains("undefined"), "{how}");
    assert_eq!(bench.fault(), None);
    bench.says("{\"id\":1}\n{\"id\":77}\n{}\n");
    assert_eq!((bench.strays, bench.fault()), (3, None));
}

#[test]
fn results_up_to_the_limit_pass_and_larger_ones_fail() {
    for (length, fits) in [(63, true), (64, true), (65, false)] {
        let mut bench = Bench::new();
        bench.give(1);
        let result = format!("\"{}\"", "x".repeat(length - 2));
        bench.says(&format!("{{\"id\":1,\"result\":{result}}}\n"));
        assert_eq!(bench.answers[0].1.is_ok(), fits, "{length}");
        assert_eq!(bench.fault(), None);
    }
}

#[test]
fn a_line_without_end_fails_the_request_that_it_names() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":4}\n");
    bench.give(1);
    bench.give(2);
    bench.says(&format!("{{\"id\":2,\"result\":\"{}", "x".repeat(9000)));
    assert_eq!(*bench.failure(2), RequestFailure::ReplyTooLarge(64));
    bench.says("xxx\"}\n{\"id\":1,\"result\":1}\n");
    assert_eq!(bench.result(1), "1");
    assert!(bench.is_condemned());
}

#[test]
fn the_clock_starts_when_the_line_is_written() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true}\n");
    bench.gives(Request(1, "p".to_owned()));
    bench.sends(1);
    bench.now += 900 * MS;
    bench.send_all();
    assert_eq!(bench.talk.next_deadline(None), Some(bench.now + TIMEOUT));
    bench.waits(999 * MS, None);
    assert!(bench.answers.is_empty());
    bench.waits(MS, None);
    assert!(matches!(bench.failure(1), RequestFailure::TimedOut(_)));
    assert_eq!(bench.fault(), Some(Fault::TimedOut));
}

/// Its owner reads on until it is gone, and would look at a passed deadline again and again.
#[test]
fn of_a_condemned_process_nothing_is_late() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.waits(TIMEOUT, Some(Duration::ZERO));
    assert!(bench.is_condemned());
    assert_eq!(bench.talk.next_deadline(Some(Duration::ZERO)), None);
    let mut bench = Bench::with(|limits| limits.wait_ready = true);
    bench.waits(60 * TIMEOUT, None);
    assert!(bench.is_condemned());
    assert_eq!(bench.talk.next_deadline(None), None);
}

#[test]
fn a_process_that_never_reads_times_out_all_the_same() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true}\n");
    bench.gives(Request(1, "p".repeat(1000)));
    bench.sends(1);
    bench.waits(TIMEOUT, None);
    let RequestFailure::TimedOut(seen) = bench.failure(1) else {
        panic!()
    };
    assert!(
        seen.full().contains("has not read the whole request"),
        "{seen}"
    );
}

#[test]
fn with_concurrency_other_requests_keep_their_time_and_a_late_reply_is_dropped() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":2}\n");
    bench.give(1);
    bench.now += 500 * MS;
    bench.give(2);
    bench.waits(500 * MS, None);
    assert!(matches!(bench.failure(1), RequestFailure::TimedOut(_)));
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::TimedOut));
    bench.says("{\"id\":1,\"result\":\"late\"}\n{\"id\":2,\"result\":2}\n");
    assert_eq!((bench.result(2), bench.answers.len()), ("2", 2));
    assert!(bench.is_condemned());
}

#[test]
fn a_slow_start_is_spared_as_long_as_starts_took_before() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.waits(TIMEOUT, None);
    let RequestFailure::TimedOut(seen) = bench.failure(1) else {
        panic!()
    };
    assert!(seen.full().contains("--wait-ready"), "{seen}");
    assert_eq!((bench.fault(), bench.free_capacity()), (None, 0));
    bench.waits(58 * TIMEOUT, None);
    assert_eq!(bench.fault(), None);
    // Its late reply is dropped, and it has come up.
    bench.says("{\"result\":\"late\"}\n").is_silent();
    assert_eq!((bench.answers.len(), bench.free_capacity()), (1, 1));
    assert!(bench.ups.contains(&Some(59 * TIMEOUT)));
}

#[test]
fn a_slow_start_is_not_spared_for_longer_than_others_took() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.waits(TIMEOUT, Some(3 * TIMEOUT));
    assert_eq!(bench.fault(), None);
    bench.waits(2 * TIMEOUT, Some(3 * TIMEOUT));
    assert_eq!(bench.fault(), Some(Fault::TooSlowToStart));
    let mut other = Bench::new();
    other.give(1);
    other.waits(TIMEOUT, Some(TIMEOUT));
    assert_eq!(other.fault(), Some(Fault::TimedOut));
}

#[test]
fn with_wait_ready_no_request_is_given_before_the_ready_line_which_has_a_limit() {
    let mut bench = Bench::with(|limits| limits.wait_ready = true);
    assert!(!bench.give(1));
    bench.waits(20 * TIMEOUT, None);
    assert!(bench.ups.is_empty());
    bench.says("{\"ready\":true}\n");
    assert_eq!(bench.ups, [Some(20 * TIMEOUT)]);
    assert!(bench.give(1));
    let mut late = Bench::with(|limits| limits.wait_ready = true);
    late.waits(60 * TIMEOUT, None);
    assert_eq!(late.fault(), Some(Fault::TooSlowToStart));
}

#[test]
fn ten_seconds_of_life_count_as_up() {
    let mut bench = Bench::new();
    assert_eq!(bench.talk.next_deadline(None), Some(bench.now + UP_AFTER));
    bench.waits(UP_AFTER, None);
    assert_eq!(bench.ups, [None]);
    assert_eq!(bench.talk.next_deadline(None), None);
}

#[test]
fn requests_that_were_never_read_never_started() {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":4}\n");
    for number in 1..=3 {
        bench.give(number);
    }
    // The third line lies wholly in the unread bytes, the second does not.
    let line = "{\"id\":1,\"payload\":\"p\"}\n".len();
    let ended = bench.end(line + 6, PipeHolders::Gone);
    let untouched: Vec<(u64, bool)> = ended.into_iter().map(|(r, u)| (r.0, u)).collect();
    assert_eq!(untouched, [(1, false), (2, false), (3, true)]);
}

#[test]
fn closed_pipes_leave_the_open_requests_to_the_end() {
    let close_input = |talk: &mut Conversation<Request>| talk.input_closed(5);
    for (close, fault) in [
        (
            close_input as fn(&mut Conversation<Request>),
            Fault::InputClosed,
        ),
        (Conversation::output_closed, Fault::OutputClosed),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        close(&mut bench.talk);
        assert_eq!(bench.fault(), Some(fault));
        assert!(bench.is_condemned() && bench.talk.is_awaited());
        assert_eq!(bench.end(0, PipeHolders::Gone).len(), 1);
    }
}

#[test]
fn a_process_that_has_read_its_request_may_close_its_stdin_and_answer() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.talk.input_closed(0);
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::InputClosed));
    bench.says("{\"result\":1}\n");
    assert_eq!(bench.result(1), "1");
    assert!(bench.is_condemned());
}

#[test]
fn the_detail_of_a_timeout_names_the_likely_cause() {
    for (said, hint) in [
        ("", "flush"),
        (
            "debug\n",
            "wrote 1 line to stdout that did not answer, the last: debug",
        ),
        ("{\"id\":2,\"result\":1}", "newline is missing"),
        ("{\"result\":NaN}\n", "not valid JSON"),
        ("debug{\"id\":2,\"result\":1}\n", "glued"),
        // It is the request that was printed.
        (
            "debug{\"id\":2,\"payload\":\"x\"}\n",
            "did not answer, the last",
        ),
        (
            "{\n  \"id\": 2,\n  \"result\": {\n  }\n}\n",
            "a reply is one line",
        ),
        ("", "mawk"),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        bench.says("{\"id\":1,\"result\":1}\n");
        bench.give(2);
        bench.says(said);
        bench.waits(TIMEOUT, None);
        let RequestFailure::TimedOut(seen) = bench.failure(2) else {
            panic!()
        };
        assert!(seen.full().contains(hint), "{said}: {seen}");
    }
}

#[test]
fn the_detail_of_a_timeout_says_nothing_of_a_slow_start_after_an_attempt_at_a_reply() {
    for (said, is_attempt) in [
        ("", false),
        ("debug\n", false),
        ("{'id': 1, 'result': 1}\n", true),
        ("\u{feff}{'result': 1}\n", true),
        ("{id: 1, result: 1}", true),
        ("got {\"id\":1,\"result\":1}\n", true),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        bench.says(said);
        bench.waits(TIMEOUT, None);
        let RequestFailure::TimedOut(seen) = bench.failure(1) else {
            panic!()
        };
        assert_eq!(
            !seen.full().contains("slow to start"),
            is_attempt,
            "{said}: {seen}"
        );
    }
}

/// One that promised order and has answered so fast that it is given four at a time.
fn ordered() -> Bench {
    let mut bench = Bench::new();
    bench.says("{\"ready\":true,\"concurrency\":1}\n");
    for number in 1..=2 {
        assert_eq!(bench.free_capacity(), 1, "nothing is known yet");
        bench.give(number);
        bench.says(&format!("{{\"id\":{number},\"result\":{number}}}\n"));
    }
    bench.answers.clear();
    assert_eq!(bench.free_capacity(), 4);
    bench
}

/// The same, with requests 3 to `last`.
fn ahead(last: u64) -> Bench {
    let mut bench = ordered();
    for number in 3..=last {
        assert!(bench.give(number));
    }
    bench
}

/// Whether each open request never started.
fn ended(bench: &mut Bench, unread: usize) -> Vec<(u64, bool)> {
    let ended = bench.end(unread, PipeHolders::Gone);
    ended
        .into_iter()
        .map(|(r, untouched)| (r.0, untouched))
        .collect()
}

/// Somebody who left the group may have read them, and be working on them still.
#[test]
fn while_a_descendant_holds_the_pipes_a_promise_of_order_gives_nothing_back() {
    for (holders, handed_back) in [(PipeHolders::Gone, 2), (PipeHolders::Possible, 0)] {
        let mut bench = ahead(5);
        let ended = bench.end(0, holders);
        let untouched = ended.iter().filter(|(_, is_untouched)| *is_untouched);
        assert_eq!(untouched.count(), handed_back, "{holders:?}");
    }
    // What was taken back out of the pipe, nobody has read.
    let mut bench = ahead(5);
    let line = bench.talk.flights.back().unwrap().line.clone();
    let unread = usize::try_from(line.end - line.start).unwrap();
    let ended = bench.end(unread, PipeHolders::Possible);
    let untouched = ended.iter().map(|(_, is_untouched)| *is_untouched);
    assert!(untouched.eq([false, false, true]));
}

/// A background thread that prints dots must not keep a process from being replaced.
#[test]
fn a_half_line_that_only_grows_has_its_time_once() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"result\":1}\n.");
    for _ in 0..4 {
        bench.waits(HALF_LINE_TIMEOUT / 4, None);
        bench.says(".");
    }
    assert_eq!(bench.fault(), Some(Fault::PartialLine));
}

#[test]
fn only_a_promise_of_order_and_a_reply_open_the_window() {
    for ready in ["{\"ready\":true}\n", "{\"ready\":true,\"concurrency\":2}\n"] {
        let mut bench = Bench::with(|limits| limits.max_concurrency = 1);
        bench.says(ready);
        for number in 1..=9 {
            assert_eq!(bench.free_capacity(), 1);
            bench.give(number);
            assert_eq!(bench.free_capacity(), 0);
            bench.says(&format!("{{\"id\":{number},\"result\":1}}\n"));
        }
    }
    let mut off = Bench::with(|limits| limits.read_ahead = 1);
    off.says("{\"ready\":true,\"concurrency\":1}\n");
    for number in 1..=9 {
        assert!(off.give(number) && off.free_capacity() == 0);
        off.says(&format!("{{\"id\":{number},\"result\":1}}\n"));
    }
}

#[test]
fn unanswered_requests_are_bounded_in_bytes() {
    let mut bench = ordered();
    assert_eq!(bench.talk.next_position(), Position::AtOnce);
    bench.gives(Request(3, "p".repeat(60_000)));
    let Position::Behind { room_bytes } = bench.talk.next_position() else {
        panic!("it is busy");
    };
    assert!((5000..5536).contains(&room_bytes), "{room_bytes}");
    bench.gives(Request(4, "p".repeat(6000)));
    assert_eq!(bench.free_capacity(), 0, "though the window is open");
}

#[test]
fn the_time_of_a_request_begins_when_the_one_before_it_is_answered() {
    let mut bench = ahead(4);
    bench.waits(900 * MS, None);
    bench.says("{\"id\":3,\"result\":3}\n");
    bench.waits(999 * MS, None);
    assert_eq!((bench.answers.len(), bench.fault()), (1, None));
    bench.waits(MS, None);
    assert!(matches!(bench.failure(4), RequestFailure::TimedOut(_)));
    assert_eq!(bench.fault(), Some(Fault::TimedOut));
}

#[test]
fn behind_another_request_no_time_passes() {
    let mut bench = ahead(5);
    bench.waits(900 * MS, None);
    bench.says("{\"id\":3,\"result\":3}\n");
    // The last was written a whole timeout ago, and the one before it has a while left.
    bench.waits(500 * MS, None);
    assert_eq!((bench.answers.len(), bench.fault()), (1, None));
    bench.says("{\"id\":4,\"result\":4}\n{\"id\":5,\"result\":5}\n");
    assert_eq!((bench.result(4), bench.result(5)), ("4", "5"));
}

#[test]
fn at_a_timeout_only_the_request_at_work_fails() {
    let mut bench = ahead(6);
    bench.waits(TIMEOUT, None);
    assert_eq!(bench.answers.len(), 1);
    assert!(
        bench.is_condemned() && bench.talk.is_awaited(),
        "to be killed at once"
    );
    assert_eq!(ended(&mut bench, 0), [(4, true), (5, true), (6, true)]);
}

#[test]
fn a_caller_s_budget_that_ends_behind_another_request_costs_no_process() {
    let mut bench = ahead(3);
    let deadline = Some(bench.now + 10 * MS);
    bench.gives(Request(4, "p".to_owned()));
    bench.talk.flights[1].callers_deadline = deadline;
    bench.give(5);
    assert!(bench.talk.next_deadline(None) <= deadline);
    bench.waits(10 * MS, None);
    let RequestFailure::TimedOut(seen) = bench.failure(4) else {
        panic!()
    };
    assert!(seen.full().contains("behind another request"), "{seen}");
    assert_eq!((bench.answers.len(), bench.fault()), (1, None));
    // It is run all the same, in its own time, and its result dropped.
    bench.says("{\"id\":3,\"result\":3}\n");
    bench.waits(900 * MS, None);
    assert_eq!(bench.fault(), None);
    bench.says("{\"id\":4,\"result\":4}\n{\"id\":5,\"result\":5}\n");
    assert_eq!((bench.result(3), bench.result(5)), ("3", "5"));
    assert_eq!((bench.answers.len(), bench.fault()), (3, None));
}

#[test]
fn a_request_without_a_caller_has_its_time_and_no_more() {
    let mut bench = ahead(4);
    bench.talk.flights[1].callers_deadline = Some(bench.now + MS);
    bench.waits(MS, None);
    bench.says("{\"id\":3,\"result\":3}\n");
    bench.waits(999 * MS, Some(MS));
    assert_eq!(bench.fault(), None);
    bench.waits(MS, Some(MS));
    assert_eq!(bench.fault(), Some(Fault::TimedOut));
}

#[test]
fn after_a_broken_order_nothing_is_handed_back_by_promise() {
    let mut bench = ahead(6);
    bench.says("{\"id\":4,\"result\":4}\n");
    assert_eq!(bench.result(4), "4");
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::OutOfOrder));
    // What it never read is known all the same.
    let line = "{\"id\":1,\"payload\":\"p\"}\n".len();
    assert_eq!(ended(&mut bench, line), [(3, false), (5, false), (6, true)]);
}

#[test]
fn after_a_broken_order_each_has_a_time_of_its_own() {
    let mut bench = ahead(5);
    bench.waits(500 * MS, None);
    bench.says("{\"id\":4,\"result\":4}\n");
    bench.waits(500 * MS, None);
    assert!(matches!(bench.failure(3), RequestFailure::TimedOut(_)));
    bench.says("{\"id\":5,\"result\":5}\n");
    assert_eq!(bench.result(5), "5");
    assert!(bench.is_condemned());
}

#[test]
fn lines_that_may_be_meant_as_replies_count_as_started_requests() {
    for (said, started) in [
        ("print\n", 1),
        ("value is 5{\"id\":3,\"result\":3}\n", 2),
        ("{\"result\":NaN}\n", 2),
        ("{\n\"id\":3}\n", 3),
        // Replies may lack their line ends.
        ("{\"id\":3,\"result\":3}", 2),
        ("{\"id\":3,\"result\":3}\0", 2),
        ("{\"id\":3,\"result\":\"}{\\\"{\"}", 2),
        ("{\"id\":3,\"result\":{}}{\"id\":4,\"result\":[{}]}", 3),
        ("x{\"id\":3,\"result\":3}{\"id\":4,\"result\":4}\n", 3),
        ("42", 1),
    ] {
        let mut bench = ahead(6);
        bench.says(said);
        assert_eq!((bench.answers.len(), bench.fault()), (0, None), "{said}");
        let untouched = ended(&mut bench, 0);
        let expected: Vec<_> = (3..=6)
            .map(|number| (number, number >= 3 + started))
            .collect();
        assert_eq!(untouched, expected, "{said}");
        // An answer in order clears it up.
        let mut bench = ahead(6);
        if !said.ends_with('\n') {
            continue;
        }
        bench.says(said).says("{\"id\":3,\"result\":3}\n");
        assert_eq!(
            ended(&mut bench, 0),
            [(4, false), (5, true), (6, true)],
            "{said}"
        );
    }
}

#[test]
fn a_broken_reply_may_have_further_replies_behind_it() {
    let mut bench = ahead(6);
    bench.says("{\"id\":3,\"result\":3}{\"id\":4,\"result\":4}\n");
    assert!(matches!(bench.failure(3), RequestFailure::Protocol(_)));
    let untouched = ended(&mut bench, 0);
    assert_eq!(untouched, [(4, false), (5, false), (6, true)]);
}

#[test]
fn in_doubt_requests_that_have_not_started_are_taken_away() {
    for (said, open) in [
        // The reply of the first, by its order.
        (
            "{\"id\":99,\"result\":1}\n",
            &[(4, false), (5, true), (6, true)][..],
        ),
        ("{\"result\":1}\n", &[(4, false), (5, true), (6, true)]),
        // Perhaps the reply of the first.
        (
            "{\"id\":1,\"result\":1}\n",
            &[(3, false), (4, false), (5, true), (6, true)],
        ),
    ] {
        let mut bench = ahead(6);
        bench.says(said);
        assert!(bench.is_condemned() && bench.talk.is_awaited(), "{said}");
        assert_eq!(ended(&mut bench, 0), open, "{said}");
        let mut bench = ahead(6);
        bench.says(&format!("{{\"id\":3,\"result\":\"{}", "x".repeat(9000)));
        assert_eq!(*bench.failure(3), RequestFailure::ReplyTooLarge(64));
        assert!(bench.is_condemned());
        assert_eq!(ended(&mut bench, 0), [(4, false), (5, true), (6, true)]);
    }
}

#[test]
fn in_doubt_requests_that_have_started_may_be_finished() {
    let mut bench = ahead(4);
    bench.says("{\"id\":99,\"result\":1}\n");
    assert!(matches!(bench.failure(3), RequestFailure::Protocol(_)));
    assert_eq!(*bench.talk.trust(), Trust::Finishing(Fault::WrongId));
    bench.says("{\"id\":4,\"result\":4}\n");
    assert_eq!(bench.result(4), "4");
    assert!(bench.is_condemned());
}

#[test]
fn a_second_reply_answers_its_own_request_when_half_a_line_took_the_first() {
    let mut bench = ahead(5);
    bench.says("{\"id\":3,\"result\":\"one\"}\n{\"id\":");
    bench.says("{\"id\":4,\"result\":\"first of two\"}\n{\"id\":4,\"result\":\"second of two\"}\n");
    bench.says("{\"id\":5,\"result\":\"three\"}\n");
    let answers: Vec<_> = bench
        .answers
        .iter()
        .map(|(number, outcome)| (*number, outcome.as_deref().unwrap_or("failed")))
        .collect();
    assert_eq!(
        answers,
        [(3, "\"one\""), (4, "\"second of two\""), (5, "\"three\"")]
    );
    assert_eq!(bench.strays, 1);
}

#[test]
fn a_slow_reply_closes_the_window_while_it_is_awaited() {
    let mut bench = ordered();
    bench.give(3);
    assert_eq!(bench.free_capacity(), 3);
    assert_eq!(bench.talk.next_deadline(None), Some(bench.now + MS));
    bench.now += MS;
    assert!(bench.talk.must_check_activity(bench.now));
    bench.talk.record_activity(bench.now, Activity::Asleep);
    assert_eq!(bench.free_capacity(), 0);
    assert_eq!(
        bench.talk.next_deadline(None),
        Some(bench.now - MS + TIMEOUT)
    );
    bench.says("{\"id\":3,\"result\":3}\n");
    assert_eq!(bench.free_capacity(), 1);
}

/// A process that promised order and keeps it, whatever else it does, byte by byte.
#[derive(Debug, Default)]
struct Honest {
    read: usize,
    /// Where the line of each request ends, in all that was written.
    ends: Vec<usize>,
    started: usize,
    replied: usize,
}

#[derive(Debug, Clone)]
enum HonestStep {
    Give,
    Send(usize),
    Read(usize),
    Start,
    /// What it writes when it is done with a request; `$` stands for its id.
    Reply(&'static str),
    Prints,
}

fn honest_step() -> impl Strategy<Value = HonestStep> {
    prop_oneof![
        6 => Just(HonestStep::Give),
        5 => (1usize..120).prop_map(HonestStep::Send),
        5 => (1usize..120).prop_map(HonestStep::Read),
        8 => Just(HonestStep::Start),
        6 => Just(HonestStep::Reply("{\"id\":$,\"result\":1}\n")),
        1 => Just(HonestStep::Reply("{\"id\":$,\"result\":NaN}\n")),
        1 => Just(HonestStep::Reply("{\"id\":1,\"result\":1}\n")),
        1 => Just(HonestStep::Reply("{\"id\":\"$\",\"result\":1}\n")),
        1 => Just(HonestStep::Reply("{\"result\":1}\n")),
        1 => Just(HonestStep::Reply("x{\"id\":$,\"result\":1}\n")),
        2 => Just(HonestStep::Prints),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn requests_that_an_orderly_process_started_are_never_handed_back(
        steps in proptest::collection::vec(honest_step(), 0..80),
    ) {
        let mut bench = ordered();
        let mut process = Honest::default();
        let before = bench.talk.outgoing.total_sent() as usize;
        let mut given = 2;
        for step in steps {
            match step {
                HonestStep::Give => {
                    if bench.free_capacity() > 0 {
                        given += 1;
                        bench.gives(Request(given, "p".to_owned()));
                        process.ends.push(bench.talk.outgoing.end() as usize - before);
                    }
                }
                HonestStep::Send(bytes) => {
                    let bytes = bytes.min(bench.talk.outgoing().len());
                    bench.sends(bytes);
                }
                HonestStep::Read(bytes) => {
                    let sent = bench.talk.outgoing.total_sent() as usize - before;
                    process.read = (process.read + bytes).min(sent);
                }
                HonestStep::Start => {
                    let next = process.ends.get(process.started);
                    let has_next = next.is_some_and(|end| *end <= process.read);
                    process.started += usize::from(has_next && process.started == process.replied);
                }
                HonestStep::Reply(text) => {
                    if process.started > process.replied {
                        process.replied += 1;
                        let id = process.replied + 2;
                        bench.says(&text.replace('$', &id.to_string()));
                    }
                }
                HonestStep::Prints => {
                    bench.says("debugging\n");
                }
            }
            bench.collect();
        }
        let unread = bench.talk.outgoing.total_sent() as usize - before - process.read;
        let mut seen: Vec<u64> = bench.answers.iter().map(|(number, _)| *number).collect();
        for (number, is_untouched) in ended(&mut bench, unread) {
            seen.push(number);
            let has_started = number <= process.started as u64 + 2;
            prop_assert!(!(is_untouched && has_started), "{number}");
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (3..=given).collect::<Vec<u64>>());
    }
}

/// So far apart, no id is met by a guess.
const STEP_OF_HIDDEN_IDS: u64 = 7_919_777_777;

/// Something that may happen to a conversation, at any time.
#[derive(Debug, Clone)]
enum Step {
    Give,
    Send(usize),
    Says(String),
    /// A correct reply to one of the last requests: its id, and its own number as the result.
    Replies(u64),
    Waits(u64),
    ClosesInput,
    ClosesOutput,
}

fn step() -> impl Strategy<Value = Step> {
    let noise = prop_oneof![
        Just("{\"ready\":true,\"concurrency\":1}\n".to_owned()),
        Just("{\"ready\":true,\"concurrency\":3}\n".to_owned()),
        Just("print\n".to_owned()),
        Just("half".to_owned()),
        Just("\n".to_owned()),
        Just("{\"result\":\"nobody's\"}\n".to_owned()),
        // What a payload may hold that a careless handler prints.
        (0u64..1000).prop_map(|id| format!("{{\"id\":{id},\"result\":\"forged\"}}\n")),
        (0u64..1000).prop_map(|id| {
            let guesses = (id..id + 20).map(|id| format!("{{\"id\":{id},\"error\":\"forged\"}}\n"));
            format!("{}\n", guesses.collect::<String>())
        }),
        (0u64..1000).prop_map(|id| format!("{{\"id\":{id},\"result\":NaN}}\n")),
        Just("{\"level\":\"info\",\"result\":\"forged\"}\n".to_owned()),
        (0u64..6).prop_map(|id| format!("{{\"id\":{id}}}\n")),
        (0u64..6).prop_map(|id| format!("{{\"id\":\"{id}\",\"result\":\"nobody's\"}}\n")),
        Just(format!("{{{}", "x".repeat(5000))),
    ];
    prop_oneof![
        4 => Just(Step::Give),
        3 => (1usize..60).prop_map(Step::Send),
        3 => (0u64..3).prop_map(Step::Replies),
        2 => noise.prop_map(Step::Says),
        1 => (0u64..1500).prop_map(Step::Waits),
        1 => Just(Step::ClosesInput),
        1 => Just(Step::ClosesOutput),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn in_any_order_of_events_each_request_gets_its_own_answer_or_none(
        steps in proptest::collection::vec(step(), 0..40),
        unread in 0usize..200,
    ) {
        let mut bench = Bench::new();
        bench.id_step = STEP_OF_HIDDEN_IDS;
        let mut given = 0;
        for step in steps {
            match step {
                Step::Give => {
                    if bench.free_capacity() > 0 {
                        prop_assert!(*bench.talk.trust() == Trust::Sound);
                        given += 1;
                        bench.gives(Request(given, "p".to_owned()));
                    }
                }
                Step::Send(bytes) => {
                    let bytes = bytes.min(bench.talk.outgoing().len());
                    bench.sends(bytes);
                }
                Step::Says(text) => {
                    bench.says(&text);
                }
                Step::Replies(back) => {
                    let number = given.saturating_sub(back);
                    let id = number * STEP_OF_HIDDEN_IDS;
                    bench.says(&format!("{{\"id\":{id},\"result\":{number}}}\n"));
                }
                Step::Waits(millis) => bench.waits(millis as u32 * MS, Some(MS)),
                Step::ClosesInput => bench.talk.input_closed(unread as u64),
                Step::ClosesOutput => bench.talk.output_closed(),
            }
            bench.collect();
        }
        let mut seen: Vec<u64> = bench.answers.iter().map(|(number, _)| *number).collect();
        seen.extend(bench.end(unread, PipeHolders::Gone).into_iter().map(|(request, _)| request.0));
        seen.sort_unstable();
        prop_assert_eq!(seen, (1..=given).collect::<Vec<u64>>());
        // A line without id may be taken for the answer only by one that never saw ids.
        for (number, answer) in &bench.answers {
            match answer {
                Ok(text) => prop_assert!(*text == number.to_string() || text == "\"nobody's\""),
                Err(failure) => {
                    let is_forged = matches!(failure, RequestFailure::Handler { .. });
                    prop_assert!(!is_forged, "{}", number);
                }
            }
        }
    }
}

#[test]
fn a_caller_s_budget_that_ran_in_the_queue_ends_before_the_process_s_time() {
    use crate::process::call::{Call, Job, RequestExtras};
    let now = Instant::now();
    let limits = Bench::new().talk.limits;
    let mut talk = Conversation::new(limits, now);
    talk.received(now, b"{\"ready\":true}\n");
    let (call, _answered) = Call::new(Job {
        payload: "p".into(),
        extras: RequestExtras::default(),
        timeout: TIMEOUT,
        deadline: Some(now + MS),
        reservation: crate::budget::MemoryBudget::new(1 << 20).reservation(),
    });
    talk.give(now, 1, call);
    talk.sent(now, talk.outgoing().len());
    assert_eq!(talk.next_deadline(None), Some(now + MS));
}

#[test]
fn room_for_the_next_events_is_kept_when_there_are_none() {
    let Bench { mut talk, now, .. } = Bench::new();
    talk.received(now, b"a\nb\n");
    assert_eq!(talk.take_events().len(), 2);
    assert!(talk.take_events().is_empty());
    assert!(talk.events.capacity() >= 2);
}

#[test]
fn a_caller_s_budget_ends_its_wait_and_no_process() {
    for ready in [
        "",
        "{\"ready\":true}\n",
        "{\"ready\":true,\"concurrency\":2}\n",
    ] {
        let mut bench = Bench::new();
        bench.says(ready);
        bench.give(1);
        bench.talk.flights[0].callers_deadline = Some(bench.now + 10 * MS);
        assert_eq!(bench.talk.next_deadline(None), Some(bench.now + 10 * MS));
        let free = bench.free_capacity();
        bench.waits(10 * MS, Some(Duration::ZERO));
        let RequestFailure::TimedOut(seen) = bench.failure(1) else {
            panic!()
        };
        assert!(
            seen.full().contains("the 10ms that x-faas-timeout-ms left"),
            "{seen}"
        );
        // One at a time is given no other meanwhile, and its late reply is nobody's.
        assert_eq!((bench.fault(), bench.free_capacity()), (None, free));
        bench.waits(900 * MS, Some(Duration::ZERO));
        assert_eq!(bench.fault(), None, "{ready}");
        bench.says("{\"id\":1,\"result\":\"late\"}\n");
        assert_eq!((bench.fault(), bench.answers.len()), (None, 1));
        assert!(bench.give(2));
        bench.says("{\"id\":2,\"result\":2}\n");
        assert_eq!(bench.result(2), "2");
    }
}

#[test]
fn a_process_has_its_timeout_and_no_more_after_its_caller_has_left() {
    for ready in ["{\"ready\":true}\n", "{\"ready\":true,\"concurrency\":2}\n"] {
        let mut bench = Bench::new();
        bench.says(ready);
        bench.give(1);
        bench.talk.flights[0].callers_deadline = Some(bench.now + 10 * MS);
        bench.give(2);
        bench.waits(10 * MS, None);
        assert_eq!(bench.talk.next_deadline(None), Some(bench.now + 990 * MS));
        bench.waits(989 * MS, None);
        assert_eq!(bench.fault(), None);
        bench.waits(MS, None);
        assert_eq!(bench.fault(), Some(Fault::TimedOut), "{ready}");
        // The other one was given at the same time.
        assert!(bench.is_condemned(), "{ready}");
    }
}

#[test]
fn a_line_is_made_again_as_it_was_to_be_compared() {
    use crate::process::call::{Call, Job, RequestExtras};
    let now = Instant::now();
    let limits = Bench::new().talk.limits;
    let mut talk = Conversation::new(limits, now);
    let give = |talk: &mut Conversation<Call>, id| {
        let (call, answered) = Call::new(Job {
            payload: "p".into(),
            extras: RequestExtras::default(),
            timeout: TIMEOUT,
            deadline: Some(now + TIMEOUT / 2),
            reservation: crate::budget::MemoryBudget::new(1024).reservation(),
        });
        talk.give(now + id as u32 * MS, id, call);
        answered
    };
    let _answered = give(&mut talk, 1);
    // From here on lines hold what is left of the time, which is less whenever it is looked at.
    talk.received(
        now,
        b"{\"ready\":true,\"concurrency\":2,\"context\":[\"timeout_ms\"]}\n",
    );
    let _answered = give(&mut talk, 2);
    let written = talk.outgoing().to_vec();
    assert!(written.ends_with(b"\"timeout_ms\":498}\n"));
    talk.sent(now, written.len());
    let ended = told_apart(talk.end(&written, PipeHolders::Possible));
    assert!(ended.iter().all(|(_, is_untouched)| *is_untouched));
    assert_eq!(ended.len(), 2);
}

#[test]
fn lines_that_come_back_changed_give_no_request_back() {
    for (at, is_handed_back) in [(None, true), (Some(7), false), (Some(30), false)] {
        let mut bench = Bench::new();
        bench.says("{\"ready\":true,\"concurrency\":4}\n");
        bench.give(1);
        bench.give(2);
        let mut unread = bench.written.clone();
        if let Some(at) = at {
            unread[at] ^= 1;
        }
        let ended = told_apart(bench.talk.end(&unread, PipeHolders::Possible));
        let untouched = ended.iter().map(|(_, is_untouched)| *is_untouched);
        assert!(untouched.eq([is_handed_back, is_handed_back]), "{at:?}");
    }
}

#[test]
fn progress_with_a_request_is_told_at_the_end() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.says("{\"id\":1,\"result\":\"cut");
    let left = bench.talk.progress_at_end();
    assert!(
        left.contains("after 21 bytes of a reply without its end"),
        "{left}"
    );
    let mut bench = Bench::new();
    bench.gives(Request(1, "p".repeat(100_000)));
    let left = bench.talk.progress_at_end();
    assert!(
        left.contains("with a request line of 100022 bytes"),
        "{left}"
    );
    let mut bench = Bench::new();
    bench.give(1);
    assert_eq!(bench.talk.progress_at_end(), "");
}

#[test]
fn a_wrong_id_is_told_with_its_type() {
    for (id, kind) in [
        ("\"1\"", "it is a string"),
        ("[1]", "it is an array"),
        ("null", "it is null"),
        ("1.0", "it is no integer"),
        ("77", "that no request has (77)"),
    ] {
        let mut bench = Bench::new();
        bench.give(1);
        bench.says(&format!("{{\"id\":{id},\"result\":1}}\n"));
        let RequestFailure::Protocol(how) = bench.failure(1) else {
            panic!()
        };
        assert!(how.full().contains(kind), "{how:?}");
        assert!(how.full().contains(&format!("({id})")), "{how:?}");
        assert!(!how.general().contains(&format!("({id})")), "{how:?}");
    }
}

#[test]
fn output_is_kept_from_other_callers_and_half_a_reply_from_the_log() {
    for (said, is_logged) in [("secret\n", true), ("{\"id\":1,\"result\":\"secret", false)] {
        let mut bench = Bench::new();
        bench.says("{\"ready\":true}\n");
        bench.give(1);
        bench.says(said);
        bench.waits(TIMEOUT, None);
        let RequestFailure::TimedOut(seen) = bench.failure(1) else {
            panic!()
        };
        assert!(seen.full().contains("secret") && !seen.general().contains("secret"));
        assert_eq!(seen.logged().contains("secret"), is_logged);
    }
}

#[test]
fn a_process_that_is_stopped_is_said_to_be() {
    let mut bench = Bench::new();
    bench.give(1);
    bench.talk.record_suspended(true);
    bench.waits(TIMEOUT, None);
    let RequestFailure::TimedOut(seen) = bench.failure(1) else {
        panic!()
    };
    assert!(seen.general().contains("state T"), "{seen}");
}
