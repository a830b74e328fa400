use super::reading::PIECE_BYTES;
use super::settling::MAX_UNREAD_BYTES;
use super::*;
use crate::answer::{Answered, Outcome, Work};
use crate::config::HandlerLog;
use crate::error::RequestFailure;
use crate::logging::tests::KeptLog;
use crate::process::call::{Call, Job, RequestExtras};
use crate::process::conversation::ReadAheadWindow;
use crate::process::output_log::LogAllowance;
use crate::process::repeats::FailedOutput;
use crate::trace_context::TraceContext;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::oneshot;

const LONG: Duration = Duration::from_secs(3600);

/// Requests for one process.
#[derive(Debug, Default, Clone)]
struct Waiting {
    calls: Rc<RefCell<VecDeque<Call>>>,
    is_passed_on: Rc<Cell<bool>>,
    more_are_coming: Rc<Cell<bool>>,
}

impl RequestSource for Waiting {
    type Request = Call;

    fn poll_take(&mut self, _: &mut Context<'_>, _: Load) -> Poll<Call> {
        let call = self.calls.borrow_mut().pop_front();
        call.map_or(Poll::Pending, Poll::Ready)
    }
    fn pass_on_wake_up(&mut self) {
        self.is_passed_on.set(true);
    }
    fn waits_for_more(&mut self, _: &mut Context<'_>, _: usize) -> bool {
        self.more_are_coming.get()
    }
    fn leave(&mut self) {}
    fn answer(&mut self, call: Call, outcome: Outcome, _: Work) {
        call.answer(outcome);
    }
    fn send_answers(&mut self) {}
}

impl ProcessObserver for Waiting {
    fn came_up(&mut self, _: Option<Duration>) {}
    fn announced(&mut self, _: usize) {}
    fn went_unanswered(&mut self) {}
    fn wrote_stderr(&mut self, _: Instant) {}
    fn slowest_start(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// An owner, and the process's ends of its pipes in our hands.
///
/// The runtime hears of nothing between two awaits, so what is written here and read without
/// one in between is in the pipe before the runtime knows of it.
struct Bench {
    owner: Owner<Waiting>,
    waiting: Waiting,
    stdin: PipeReader,
    stdout: PipeWriter,
    stderr: PipeWriter,
}

impl Bench {
    /// A bench whose next turn can write immediately.
    async fn new() -> Bench {
        Bench::of_process(std::process::id()).await
    }

    /// The same for another process, as far as `/proc` tells of it.
    async fn of_process(pid: u32) -> Bench {
        let limits = ConversationConfig {
            max_concurrency: 2,
            read_ahead: 32,
            window: ReadAheadWindow::Measured,
            wait_ready: false,
            startup_timeout: LONG,
            max_reply_bytes: 64,
        };
        let (stdin, into) = pipe().unwrap();
        let (out_of, stdout) = pipe().unwrap();
        let into = Sender::from_owned_fd(into.into()).unwrap();
        into.writable().await.unwrap();
        let out_of = Receiver::from_owned_fd(out_of.into()).unwrap();
        let (errors_of, stderr) = pipe().unwrap();
        let errors_of = Receiver::from_owned_fd(errors_of.into()).unwrap();
        let allowance = LogAllowance::new(
            Instant::now(),
            Arc::new(crate::metrics::Metrics::new(std::num::NonZeroUsize::MIN)),
        );
        let (form, failed) = (HandlerLog::Events, FailedOutput::default());
        let log = ProcessLog {
            stderr: ErrorOutput::new(1, errors_of, form, allowance.clone(), failed),
            stdout: StreamLog::new(1, "stdout", allowance),
        };
        let waiting = Waiting::default();
        Bench {
            owner: Owner::new(
                log,
                pid,
                into,
                out_of,
                limits,
                MemoryBudget::new(1 << 20),
                waiting.clone(),
            ),
            waiting,
            stdin,
            stdout,
            stderr,
        }
    }

    /// Is asked, and answers without an id.
    async fn answers_without_id(&mut self) {
        let mut answered = self.ask(LONG);
        assert!(self.turn().is_pending());
        self.says("{\"result\":1}\n");
        while answered.is_empty() {
            tokio::task::yield_now().await;
            assert!(self.turn().is_pending());
        }
        assert_eq!(answered.try_recv().unwrap().0, Ok("{\"result\":1}".into()));
    }

    fn ask(&self, timeout: Duration) -> oneshot::Receiver<Answered> {
        self.ask_as("", timeout)
    }

    /// Asks with this request id, and a trace.
    fn ask_as(&self, request_id: &str, timeout: Duration) -> oneshot::Receiver<Answered> {
        let trace = format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16));
        let (call, answered) = Call::new(Job {
            payload: "p".into(),
            extras: RequestExtras {
                headers: Vec::new(),
                request_id: request_id.into(),
                trace: TraceContext::parse(&trace),
            },
            timeout,
            deadline: None,
            reservation: MemoryBudget::new(1 << 20).reservation(),
        });
        self.waiting.calls.borrow_mut().push_back(call);
        answered
    }

    /// Announces this concurrency.
    async fn announces(&mut self, concurrency: usize) {
        self.says(&format!(
            "{{\"ready\":true,\"concurrency\":{concurrency}}}\n"
        ));
        while self.owner.conversation.must_read_before_giving() {
            assert!(self.turn().is_pending());
            tokio::task::yield_now().await;
        }
    }

    /// Reads a request, and answers it.
    fn answers(&mut self) {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            self.stdin.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        self.says(&format!("{{\"id\":{},\"result\":1}}\n", line["id"]));
    }

    fn says_on_stderr(&mut self, text: &str) {
        self.stderr.write_all(text.as_bytes()).unwrap();
    }

    fn says(&mut self, text: &str) {
        self.stdout.write_all(text.as_bytes()).unwrap();
    }

    /// Has the owner do all that it can do now.
    fn turn(&mut self) -> Poll<Fault> {
        let mut context = Context::from_waker(Waker::noop());
        pin!(self.owner.serve()).poll(&mut context)
    }

    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.stdin).unwrap()
    }
}

#[tokio::test]
async fn an_answer_that_the_runtime_has_not_heard_of_wins_over_the_deadline() {
    let mut bench = Bench::new().await;
    // Over its time as soon as it is written.
    let mut answered = bench.ask(Duration::ZERO);
    assert!(bench.turn().is_pending());
    assert!(bench.unread() > 0, "written in one turn");
    bench.says("{\"result\":\"in time\"}\n");
    assert!(bench.turn().is_pending());
    assert_eq!(
        answered.try_recv().unwrap().0,
        Ok("{\"result\":\"in time\"}".into())
    );
}

#[tokio::test]
async fn without_ids_stdout_is_read_before_the_next_request_is_written() {
    for (rest, standing) in [
        ("{\"result\":2}\n", Poll::Ready(Fault::Unasked)),
        // The end of the line may be on its way.
        ("{\"res", Poll::Pending),
    ] {
        let mut bench = Bench::new().await;
        bench.answers_without_id().await;
        // The silence that is waited for after its first answer.
        while bench.owner.conversation.free_capacity(Instant::now()) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(bench.turn().is_pending());
        }
        let written = bench.unread();
        bench.waiting.is_passed_on.set(false);
        bench.says(rest);
        let next = bench.ask(LONG);
        assert_eq!(bench.turn(), standing, "{rest}");
        assert_eq!(bench.unread(), written, "the next request was written");
        assert!(next.is_empty());
        // To another process, if this one was woken for it.
        let is_held_up = standing.is_pending();
        assert_eq!(bench.waiting.is_passed_on.get(), is_held_up, "{rest}");
    }
}

/// A process that computes until it is dropped.
struct Busy(std::process::Child);

impl Busy {
    fn start() -> Busy {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Busy(child.unwrap())
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end();
    }
}

/// A print that is longer than the pipe goes on when the kernel has a processor for it.
#[tokio::test]
async fn without_ids_a_process_that_waits_for_a_processor_is_not_silent() {
    let mut busy = Busy::start();
    let mut bench = Bench::of_process(busy.0.id()).await;
    bench.answers_without_id().await;
    let free = |bench: &Bench| bench.owner.conversation.free_capacity(Instant::now());
    for _ in 0..10 {
        // Several times as long as the silence that is waited for.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(bench.turn().is_pending());
        assert_eq!(free(&bench), 0);
    }
    busy.end();
    while free(&bench) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(bench.turn().is_pending());
    }
}

/// It may have asked for one before, and been woken for it since.
#[tokio::test]
async fn a_busy_process_without_free_capacity_passes_on_its_wake_up() {
    let mut bench = Bench::new().await;
    let _answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    bench.waiting.is_passed_on.set(false);
    let next = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    assert!(bench.waiting.is_passed_on.get());
    assert!(next.is_empty());
}

#[tokio::test]
async fn a_request_that_is_handed_back_can_no_longer_be_read() {
    let mut bench = Bench::new().await;
    let answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    assert!(bench.unread() > 0, "written in one turn");
    assert_eq!(bench.owner.settle(&"gone".into()).await.len(), 1);
    assert!(answered.is_empty());
    let mut left = Vec::new();
    bench.stdin.read_to_end(&mut left).unwrap();
    assert_eq!(left, b"");
}

#[tokio::test]
async fn a_request_that_was_read_in_part_is_not_handed_back() {
    let mut bench = Bench::new().await;
    let mut answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    bench.stdin.read_exact(&mut [0]).unwrap();
    assert!(bench.owner.settle(&"gone".into()).await.is_empty());
    let failure = RequestFailure::Exited("gone".into());
    assert_eq!(answered.try_recv().unwrap().0, Err(failure));
}

#[tokio::test]
async fn a_reply_that_is_there_when_the_process_is_reaped_counts() {
    let mut bench = Bench::new().await;
    let mut answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    bench.stdin.read_exact(&mut [0]).unwrap();
    bench.says("{\"result\":1}\n");
    assert!(bench.owner.settle(&"gone".into()).await.is_empty());
    assert_eq!(answered.try_recv().unwrap().0, Ok("{\"result\":1}".into()));
}

#[tokio::test]
async fn while_more_are_coming_a_process_that_may_have_several_is_given_none() {
    let mut bench = Bench::new().await;
    bench.says("{\"ready\":true,\"concurrency\":2}\n");
    assert_eq!(bench.owner.read_a_turn(), ReadTurn::Finished);
    bench.waiting.more_are_coming.set(true);
    let _answered = [bench.ask(LONG), bench.ask(LONG)];
    assert!(bench.turn().is_pending());
    assert_eq!(bench.unread(), 0, "left to gather");
    bench.waiting.more_are_coming.set(false);
    assert!(bench.turn().is_pending());
    assert!(bench.unread() > 0 && bench.waiting.calls.borrow().is_empty());
}

#[tokio::test]
async fn a_process_that_may_have_one_is_given_it_though_more_are_coming() {
    let mut bench = Bench::new().await;
    bench.waiting.more_are_coming.set(true);
    let _answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    assert!(bench.unread() > 0);
}

/// Writes into the process's own stdin, as one may that has opened it for that.
fn put_back(bench: &Bench, text: &[u8]) {
    let path = format!("/proc/self/fd/{}", bench.stdin.as_raw_fd());
    let mut stdin = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    stdin.write_all(text).unwrap();
}

#[tokio::test]
async fn bytes_put_in_place_of_read_ones_give_no_request_back() {
    for (is_same, handed_back) in [(true, 1), (false, 0)] {
        let mut bench = Bench::new().await;
        let _answered = bench.ask(LONG);
        assert!(bench.turn().is_pending());
        let mut line = vec![0; usize::try_from(bench.unread()).unwrap()];
        bench.stdin.read_exact(&mut line).unwrap();
        if !is_same {
            line[5] ^= 1;
        }
        put_back(&bench, &line);
        let never_started = bench.owner.settle(&"gone".into()).await;
        assert_eq!(never_started.len(), handed_back, "{is_same}");
    }
}

#[tokio::test]
async fn more_than_was_written_gives_nothing_back() {
    let mut bench = Bench::new().await;
    let mut answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    put_back(&bench, &[b'\n'; 60_000]);
    assert!(bench.owner.settle(&"gone".into()).await.is_empty());
    assert!(answered.try_recv().unwrap().0.is_err());
}

#[tokio::test]
async fn of_a_flood_of_lines_one_turn_takes_in_a_piece() {
    let mut bench = Bench::new().await;
    bench.stdout.write_all(&[b'\n'; 60_000]).unwrap();
    tokio::task::yield_now().await;
    let mut turns = 0;
    while bench.owner.taken_in < 60_000 {
        let before = bench.owner.taken_in;
        assert!(bench.turn().is_pending());
        let taken = bench.owner.taken_in - before;
        assert!(taken <= 2 * PIECE_BYTES as u64, "{taken}");
        turns += 1;
        tokio::task::yield_now().await;
        assert!(turns < 1000, "it is never taken in");
    }
}

#[tokio::test]
async fn a_flood_that_goes_on_does_not_put_a_deadline_off() {
    let mut bench = Bench::new().await;
    let mut answered = bench.ask(Duration::from_millis(1));
    assert!(bench.turn().is_pending());
    rustix::io::ioctl_fionbio(&bench.stdout, true).unwrap();
    let mut turns = 0;
    while answered.is_empty() {
        // The pipe is full again in each turn.
        while bench.stdout.write(&[b'\n'; 4096]).is_ok() {}
        let _ = bench.turn();
        tokio::task::yield_now().await;
        turns += 1;
        assert!(turns < 1000, "the deadline is never acted upon");
    }
    assert!(matches!(
        answered.try_recv().unwrap().0,
        Err(RequestFailure::TimedOut(_))
    ));
}

#[tokio::test]
async fn a_stdin_that_does_not_get_empty_is_not_read_on() {
    let mut bench = Bench::new().await;
    let _answered = bench.ask(LONG);
    assert!(bench.turn().is_pending());
    let size = 1 << 20;
    rustix::pipe::fcntl_setpipe_size(&bench.stdin, size).unwrap();
    put_back(&bench, &vec![0; size - 64 * 1024]);
    assert!(bench.owner.settle(&"gone".into()).await.is_empty());
    // What is left of it nobody writes on, and is dropped with its last reader.
    let left = usize::try_from(bench.unread()).unwrap();
    assert!(left > size - MAX_UNREAD_BYTES - 3 * 64 * 1024, "{left}");
}

/// The lines of handlers in a log, each with the request of its event.
fn lines_of_requests(log: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for event in log.lines() {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        let request = event["request_id"].as_str().unwrap_or("none");
        assert_eq!(event["trace_id"].is_string(), request != "none", "{event}");
        for line in event["text"].as_str().unwrap_or_default().lines() {
            lines.push((line.to_owned(), request.to_owned()));
        }
    }
    lines
}

/// A reply that is read first would end its request, and give what was printed before to the next.
#[tokio::test]
async fn output_of_a_request_is_not_told_of_the_next() {
    let log = KeptLog::in_json();
    let mut bench = Bench::new().await;
    bench.says_on_stderr("start\n");
    bench.announces(1).await;
    let _first = bench.ask_as("r-1", LONG);
    assert!(bench.turn().is_pending());
    for (line, next) in [("one", "r-2"), ("two", "r-3"), ("three", "r-4")] {
        // The runtime has heard of neither when stdout is read.
        bench.says_on_stderr(&format!("{line}\nand more\n"));
        bench.answers();
        bench.owner.read_a_turn();
        let _next = bench.ask_as(next, LONG);
        assert!(bench.turn().is_pending());
    }
    bench.says_on_stderr("last words");
    bench.owner.finish_stderr(StartEnd::NotFailed);
    let expected = [
        ("start", "none"),
        ("one", "r-1"),
        ("and more", "r-1"),
        ("two", "r-2"),
        ("and more", "r-2"),
        ("three", "r-3"),
        ("and more", "r-3"),
        ("last words", "r-4"),
    ];
    let expected = expected.map(|(line, request)| (line.to_owned(), request.to_owned()));
    assert_eq!(lines_of_requests(&log.text()), expected);
}

#[tokio::test]
async fn output_that_may_be_of_several_requests_names_none() {
    let log = KeptLog::in_json();
    let mut bench = Bench::new().await;
    bench.announces(2).await;
    let _answered = ["r-1", "r-2"].map(|request| bench.ask_as(request, LONG));
    assert!(bench.turn().is_pending());
    bench.says_on_stderr("of either\n");
    bench.says("stray\n");
    bench.owner.read_a_turn();
    bench.owner.finish_stderr(StartEnd::NotFailed);
    let expected = [("stray", "none"), ("of either", "none")];
    let expected = expected.map(|(line, request)| (line.to_owned(), request.to_owned()));
    assert_eq!(lines_of_requests(&log.text()), expected);
}

#[tokio::test]
async fn a_stray_line_names_the_request_that_the_process_works_on() {
    let log = KeptLog::in_json();
    let mut bench = Bench::new().await;
    bench.announces(1).await;
    bench.says("idle\n");
    bench.owner.read_a_turn();
    let _answered = bench.ask_as("r-1", LONG);
    assert!(bench.turn().is_pending());
    bench.says("at work\n");
    bench.owner.read_a_turn();
    let expected = [("idle", "none"), ("at work", "r-1")];
    let expected = expected.map(|(line, request)| (line.to_owned(), request.to_owned()));
    assert_eq!(lines_of_requests(&log.text()), expected);
}
