//! Handlers in Rust: give [`serve`] a function, and the program is a handler.
//!
//! This module owns the handler's side of the line protocol: it reads request lines from stdin,
//! calls the function once for each, strictly in order, and writes every reply out before it
//! looks at the next request. It has no threads and no timeouts; more requests at a time means
//! more processes, which is the worker's business.
//!
//! ```no_run
//! use faas_worker::handler::{self, Failure};
//!
//! fn celsius(payload: &str) -> Result<f64, Failure> {
//!     let fahrenheit: f64 = payload.parse().map_err(|_| "not a temperature")?;
//!     if fahrenheit < -459.67 {
//!         return Err(Failure::with_status::<422>("colder than can be"));
//!     }
//!     Ok((fahrenheit - 32.0) / 1.8)
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     handler::serve(celsius)
//! }
//! ```
//!
//! Rules for the function:
//!
//! * The pipes to the worker are the library's alone from the call of [`serve`] on. What the
//!   function and the programs that it starts print on stdout goes to stderr, and so into the
//!   worker's log; their stdin is empty; and no program inherits a descriptor of the pipes.
//! * Before the call of [`serve`], stdout still is the worker's pipe: a line printed there comes
//!   before the ready line, which then counts for nothing, and half a line that is flushed there
//!   spoils it. Print such text to stderr (`eprintln!`), or call [`serve`] first.
//! * A panic ends the process. The worker answers that request with 502, logs the message, and
//!   starts another process. The library does not catch it: the function may be half done.

mod pipes;

use pipes::take_pipes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of request lines taken from stdin in one system call, at most.
const READ_BLOCK_BYTES: usize = 64 * 1024;

/// The promise that lets the worker write requests ahead of time.
const READY_LINE: &[u8] = b"{\"ready\":true,\"concurrency\":1}\n";

/// The same, and what [`Context`] is made of.
const READY_LINE_WITH_CONTEXT: &[u8] =
    b"{\"ready\":true,\"concurrency\":1,\"context\":[\"headers\",\
    \"timeout_ms\",\"request_id\",\"traceparent\",\"tracestate\"]}\n";

/// Answers requests from stdin with `function` until stdin ends.
///
/// Fails only when stdin cannot be read or stdout cannot be written, which means that the worker
/// has gone. See the [module](self) for what the function may do.
pub fn serve<F>(mut function: F) -> io::Result<()>
where
    F: for<'a> Function<'a>,
{
    let (requests, replies) = take_pipes()?;
    let requests = BufReader::with_capacity(READ_BLOCK_BYTES, requests);
    answer_all(requests, replies, READY_LINE, |line, reply| {
        answer(line, reply, &mut function)
    })
}

/// Like [`serve`], for a function that is also given the [`Context`] of each request.
///
/// ```no_run
/// use faas_worker::handler::{self, Context};
///
/// fn greet(payload: &str, context: &Context) -> Result<String, String> {
///     let tenant = context.headers.get("x-tenant").ok_or("no tenant")?;
///     eprintln!("{}: asked by {tenant}", context.request_id);
///     Ok(format!("{tenant}: {payload}"))
/// }
///
/// fn main() -> std::io::Result<()> {
///     handler::serve_with_context(greet)
/// }
/// ```
pub fn serve_with_context<F, T, E>(mut function: F) -> io::Result<()>
where
    F: FnMut(&str, &Context) -> Result<T, E>,
    T: Serialize,
    E: Into<Failure>,
{
    let (requests, replies) = take_pipes()?;
    let requests = BufReader::with_capacity(READ_BLOCK_BYTES, requests);
    answer_all(requests, replies, READY_LINE_WITH_CONTEXT, |line, reply| {
        answer_with_context(line, reply, &mut function)
    })
}

/// What is known of a request beside its payload.
#[derive(Debug, Clone)]
pub struct Context {
    /// The headers that `faas-worker --pass-header` names, in lower case.
    pub headers: BTreeMap<String, String>,
    /// The id that the response carries in `x-request-id`.
    pub request_id: String,
    /// When the caller no longer waits.
    pub deadline: Instant,
    /// The caller's W3C trace context; `None` without a valid one.
    pub traceparent: Option<String>,
    /// What belongs to it; `None` without it.
    pub tracestate: Option<String>,
}

/// What [`serve`] takes: `fn(&str) -> Result<T, E>`, where `T` can be serialized and `E` becomes a
/// [`Failure`].
///
/// Implemented for every such function and closure; there is no need to name this trait. The
/// result may borrow from the payload if `function` is a `fn`; a closure needs its parameter's
/// type written (`|payload: &str| …`) and returns something owned.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler function",
    label = "expected `fn(&str) -> Result<T, E>`",
    note = "T implements serde::Serialize; E is handler::Failure, String, &str or Box<dyn Error>",
    note = "a closure needs the type of its parameter: |payload: &str|"
)]
pub trait Function<'a> {
    /// What the function returns when all is well.
    type Output: Serialize;

    /// Answers one payload.
    fn call(&mut self, payload: &'a str) -> Result<Self::Output, Failure>;
}

impl<'a, F, T, E> Function<'a> for F
where
    F: FnMut(&'a str) -> Result<T, E>,
    T: Serialize,
    E: Into<Failure>,
{
    type Output = T;

    fn call(&mut self, payload: &'a str) -> Result<T, Failure> {
        self(payload).map_err(Into::into)
    }
}

/// Why a payload was refused: a message for the caller, and the HTTP status if it is not 400.
///
/// Strings turn into one, and so does `Box<dyn Error>`, so that a function which returns
/// `Result<T, Box<dyn Error>>` can use `?` on any error. A `Failure` in such a box keeps its
/// status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    status: Option<u16>,
}

impl Failure {
    /// Answered with status 400, and `message` as the detail.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: None,
        }
    }

    /// Answered with status `STATUS`, and `message` as the detail.
    ///
    /// 400 to 499, or 500: the worker keeps the other codes for itself, and any of them is
    /// refused by the compiler.
    ///
    /// ```
    /// # use faas_worker::handler::Failure;
    /// let failure = Failure::with_status::<404>("no such device");
    /// ```
    /// ```compile_fail
    /// # use faas_worker::handler::Failure;
    /// let failure = Failure::with_status::<503>("not mine to give");
    /// ```
    pub fn with_status<const STATUS: u16>(message: impl Into<String>) -> Self {
        const {
            assert!(
                (STATUS >= 400 && STATUS <= 499) || STATUS == 500,
                "the status of a failure is 400 to 499, or 500"
            );
        }
        Self {
            message: message.into(),
            status: Some(STATUS),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Failure {}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<Box<dyn Error>> for Failure {
    fn from(error: Box<dyn Error>) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => *failure,
            Err(error) => Self::new(error.to_string()),
        }
    }
}

impl From<Box<dyn Error + Send + Sync>> for Failure {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        let error: Box<dyn Error> = error;
        error.into()
    }
}

/// The members of a request line that every process gets; others are ignored.
#[derive(Deserialize)]
struct Request<'a> {
    id: u64,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

/// The members of a request line for a function with context.
#[derive(Deserialize)]
struct RequestWithContext<'a> {
    id: u64,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    timeout_ms: u64,
    #[serde(default)]
    request_id: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

/// The `error` member of a reply.
#[derive(Serialize)]
#[serde(untagged)]
enum ErrorMember<'a> {
    Message(&'a str),
    WithStatus { message: &'a str, status: u16 },
}

/// Reads lines to their end; `answer` makes a reply of each, or says why it is no request.
fn answer_all(
    mut requests: impl BufRead,
    mut replies: impl Write,
    ready_line: &[u8],
    mut answer: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), String>,
) -> io::Result<()> {
    replies.write_all(ready_line)?;
    replies.flush()?;
    let mut line = Vec::new();
    let mut reply = Vec::new();
    loop {
        line.clear();
        if requests.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match answer(&line, &mut reply) {
            Ok(()) => {
                replies.write_all(&reply)?;
                replies.flush()?;
            }
            Err(reason) => complain(&reason),
        }
    }
}

fn answer<F>(line: &[u8], reply: &mut Vec<u8>, function: &mut F) -> Result<(), String>
where
    F: for<'a> Function<'a>,
{
    let request: Request<'_> = parse(line)?;
    encode_reply(reply, request.id, function.call(&request.payload));
    Ok(())
}

fn answer_with_context<T, E>(
    line: &[u8],
    reply: &mut Vec<u8>,
    function: &mut impl FnMut(&str, &Context) -> Result<T, E>,
) -> Result<(), String>
where
    T: Serialize,
    E: Into<Failure>,
{
    let request: RequestWithContext<'_> = parse(line)?;
    let context = Context {
        headers: request.headers,
        request_id: request.request_id,
        deadline: Instant::now() + Duration::from_millis(request.timeout_ms),
        traceparent: request.traceparent,
        tracestate: request.tracestate,
    };
    let outcome = function(&request.payload, &context).map_err(Into::into);
    encode_reply(reply, request.id, outcome);
    Ok(())
}

fn parse<'a, R: Deserialize<'a>>(line: &'a [u8]) -> Result<R, String> {
    // Without its newline a line may be cut short.
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err("it does not end in a newline".to_owned());
    };
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// Reports a line without a usable id on stderr: a reply needs the id.
fn complain(reason: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr(), "unusable request line: {reason}");
}

fn encode_reply(reply: &mut Vec<u8>, id: u64, outcome: Result<impl Serialize, Failure>) {
    let encoded = match outcome {
        Ok(result) => encode_member(reply, id, "result", &result).map_err(|error| {
            Failure::with_status::<500>(format!("cannot write the result as JSON: {error}"))
        }),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = encoded {
        let message = failure.message.as_str();
        let error = match failure.status {
            None => ErrorMember::Message(message),
            Some(status) => ErrorMember::WithStatus { message, status },
        };
        encode_member(reply, id, "error", &error).expect("strings and integers are always JSON");
    }
}

fn encode_member(
    reply: &mut Vec<u8>,
    id: u64,
    name: &str,
    value: &impl Serialize,
) -> serde_json::Result<()> {
    reply.clear();
    write!(reply, "{{\"id\":{id},\"{name}\":").map_err(serde_json::Error::io)?;
    serde_json::to_writer(&mut *reply, value)?;
    // A RawValue is written as it was read. A raw newline in valid JSON can only be white space
    // between two tokens, and there a space means the same.
    for byte in reply.iter_mut().filter(|byte| **byte == b'\n') {
        *byte = b' ';
    }
    reply.extend_from_slice(b"}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io::Read;
    use std::rc::Rc;

    use serde_json::value::RawValue;

    /// What [`serve`] does with lines.
    fn serve_lines<F>(
        requests: impl BufRead,
        replies: impl Write,
        mut function: F,
    ) -> io::Result<()>
    where
        F: for<'a> Function<'a>,
    {
        answer_all(requests, replies, READY_LINE, |line, reply| {
            answer(line, reply, &mut function)
        })
    }

    #[test]
    fn a_function_that_takes_it_gets_the_context() {
        let line =
            b"{\"id\":7,\"payload\":\"p\",\"headers\":{\"x-tenant\":\"a\"},\"timeout_ms\":4998,\
                     \"request_id\":\"r-1\",\"traceparent\":\"00-1\",\"tracestate\":\"v=1\"}\n\
                     {\"id\":8,\"payload\":\"q\"}\n";
        let mut written = Vec::new();
        let mut seen = Vec::new();
        let mut function = |payload: &str, context: &Context| {
            seen.push(context.clone());
            Ok::<_, Failure>(format!("{payload} {}", context.request_id))
        };
        answer_all(
            &line[..],
            &mut written,
            READY_LINE_WITH_CONTEXT,
            |line, reply| answer_with_context(line, reply, &mut function),
        )
        .unwrap();
        let written = String::from_utf8(written).unwrap();
        let mut lines = written.lines();
        let ready: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(ready["context"].as_array().map(Vec::len), Some(5));
        assert_eq!(lines.next(), Some("{\"id\":7,\"result\":\"p r-1\"}"));
        assert_eq!(lines.next(), Some("{\"id\":8,\"result\":\"q \"}"));
        assert_eq!(seen[0].headers["x-tenant"], "a");
        assert_eq!(seen[0].traceparent.as_deref(), Some("00-1"));
        assert_eq!(seen[0].tracestate.as_deref(), Some("v=1"));
        let left = seen[0].deadline.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(4));
        assert!(seen[1].headers.is_empty() && seen[1].traceparent.is_none());
    }

    /// Runs the loop over `requests` and returns the lines that it wrote after the ready line.
    fn replies_to<F>(requests: &[u8], function: F) -> String
    where
        F: for<'a> Function<'a>,
    {
        let mut written = Vec::new();
        serve_lines(requests, &mut written, function).unwrap();
        let written = String::from_utf8(written).unwrap();
        let ready = str::from_utf8(READY_LINE).unwrap();
        written.strip_prefix(ready).unwrap().to_owned()
    }

    fn echo(payload: &str) -> Result<&str, Failure> {
        Ok(payload)
    }

    #[test]
    fn every_request_is_answered_in_order_under_its_own_id() {
        let requests =
            b"{\"id\":7,\"payload\":\"a\"}\n{\"id\":18446744073709551615,\"payload\":\"\"}\n";
        assert_eq!(
            replies_to(requests, echo),
            "{\"id\":7,\"result\":\"a\"}\n{\"id\":18446744073709551615,\"result\":\"\"}\n"
        );
    }

    #[test]
    fn every_code_point_comes_back() {
        let payload: String = ('\0'..=char::MAX).collect();
        let mut request =
            serde_json::to_vec(&serde_json::json!({"id": 1, "payload": payload})).unwrap();
        request.push(b'\n');
        let replies = replies_to(&request, echo);
        let reply: serde_json::Value = serde_json::from_str(&replies).unwrap();
        assert_eq!(reply["result"], payload.as_str());
        assert_eq!(replies.matches('\n').count(), 1);
    }

    #[test]
    fn a_payload_without_escapes_is_borrowed() {
        let request: Request<'_> = parse(b"{\"id\":1,\"payload\":\"\xc3\xa9\"}\n").unwrap();
        assert!(matches!(request.payload, Cow::Borrowed("é")));
    }

    #[test]
    fn unknown_members_are_ignored() {
        let requests = b"{\"id\":1,\"payload\":\"a\",\"headers\":{\"x\":[1]},\"timeout_ms\":5}\n";
        assert_eq!(replies_to(requests, echo), "{\"id\":1,\"result\":\"a\"}\n");
    }

    #[test]
    fn a_failure_carries_its_message_and_status() {
        let fail = |payload: &str| -> Result<(), Failure> {
            match payload {
                "404" => Err(Failure::with_status::<404>("no\nsuch \"device\"")),
                other => Err(format!("bad reading: {other}").into()),
            }
        };
        let requests = b"{\"id\":1,\"payload\":\"17\"}\n{\"id\":2,\"payload\":\"404\"}\n";
        assert_eq!(
            replies_to(requests, fail),
            "{\"id\":1,\"error\":\"bad reading: 17\"}\n\
             {\"id\":2,\"error\":{\"message\":\"no\\nsuch \\\"device\\\"\",\"status\":404}}\n"
        );
    }

    #[test]
    fn a_boxed_error_keeps_its_message_and_a_boxed_failure_its_status() {
        let parse = |payload: &str| -> Result<u8, Box<dyn Error>> {
            if payload.is_empty() {
                return Err(Failure::with_status::<422>("empty").into());
            }
            Ok(payload.parse()?)
        };
        let requests = b"{\"id\":1,\"payload\":\"x\"}\n{\"id\":2,\"payload\":\"\"}\n";
        assert_eq!(
            replies_to(requests, parse),
            "{\"id\":1,\"error\":\"invalid digit found in string\"}\n\
             {\"id\":2,\"error\":{\"message\":\"empty\",\"status\":422}}\n"
        );
    }

    #[test]
    fn a_result_that_is_not_json_is_an_error_reply_and_leaves_no_trace() {
        let keys = |payload: &str| -> Result<BTreeMap<Vec<u8>, u8>, Failure> {
            Ok(BTreeMap::from([(payload.as_bytes().to_vec(), 1)]))
        };
        let requests = b"{\"id\":1,\"payload\":\"x\"}\n";
        assert_eq!(
            replies_to(requests, keys),
            "{\"id\":1,\"error\":{\"message\":\"cannot write the result as JSON: \
             key must be a string\",\"status\":500}}\n"
        );
    }

    #[test]
    fn a_raw_value_with_line_breaks_stays_on_one_line() {
        fn raw(payload: &str) -> Result<&RawValue, Failure> {
            serde_json::from_str(payload).map_err(|error| Failure::new(error.to_string()))
        }
        let requests = b"{\"id\":1,\"payload\":\"{\\n \\\"a\\\\n\\\":\\n1e400}\"}\n";
        assert_eq!(
            replies_to(requests, raw),
            "{\"id\":1,\"result\":{  \"a\\n\": 1e400}}\n"
        );
    }

    #[test]
    fn an_unusable_line_gets_no_reply_and_harms_no_other() {
        for unusable in [
            "",
            "x",
            "[]",
            "{}",
            "{\"id\":1}",
            "{\"payload\":\"a\"}",
            "{\"id\":\"1\",\"payload\":\"a\"}",
            "{\"id\":1.0,\"payload\":\"a\"}",
            "{\"id\":1,\"payload\":1}",
            "{\"id\":1,\"payload\":\"a\"}}",
        ] {
            let requests = format!("{unusable}\n{{\"id\":2,\"payload\":\"b\"}}\n");
            assert_eq!(
                replies_to(requests.as_bytes(), echo),
                "{\"id\":2,\"result\":\"b\"}\n",
                "{unusable}"
            );
        }
        assert_eq!(replies_to(b"{\"id\":1,\"payload\":\"\xff\"}\n", echo), "");
    }

    #[test]
    fn a_request_cut_short_by_the_end_of_stdin_is_not_run() {
        assert_eq!(replies_to(b"{\"id\":1,\"payload\":\"a\"}", echo), "");
    }

    /// Hands out one byte a read.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = into.len().min(1);
            self.0.read(&mut into[..length])
        }
    }

    #[test]
    fn framing_does_not_depend_on_reads() {
        let requests = b"{\"id\":1,\"payload\":\"\xc3\xa9\"}\n{\"id\":2,\"payload\":\"b\"}\n";
        let mut written = Vec::new();
        serve_lines(BufReader::new(Dribble(requests)), &mut written, echo).unwrap();
        let expected = "{\"id\":1,\"result\":\"é\"}\n{\"id\":2,\"result\":\"b\"}\n";
        assert!(written.ends_with(expected.as_bytes()));
    }

    #[derive(Debug, PartialEq)]
    enum Event {
        Called,
        Wrote(String),
        Flushed,
    }

    /// Records writes and flushes, among the calls of the function.
    struct Journal(Rc<RefCell<Vec<Event>>>);

    impl Write for Journal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let line = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.borrow_mut().push(Event::Wrote(line));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.borrow_mut().push(Event::Flushed);
            Ok(())
        }
    }

    #[test]
    fn each_reply_is_one_write_flushed_before_the_next_request_is_touched() {
        let journal = Rc::new(RefCell::new(Vec::new()));
        let calls = Rc::clone(&journal);
        let function = move |_: &str| -> Result<u8, Failure> {
            calls.borrow_mut().push(Event::Called);
            Ok(1)
        };
        let requests = b"{\"id\":1,\"payload\":\"a\"}\n{\"id\":2,\"payload\":\"b\"}\n";
        serve_lines(&requests[..], Journal(Rc::clone(&journal)), function).unwrap();
        let wrote = |line: &str| Event::Wrote(format!("{line}\n"));
        assert_eq!(
            journal.take(),
            [
                wrote("{\"ready\":true,\"concurrency\":1}"),
                Event::Flushed,
                Event::Called,
                wrote("{\"id\":1,\"result\":1}"),
                Event::Flushed,
                Event::Called,
                wrote("{\"id\":2,\"result\":1}"),
                Event::Flushed,
            ]
        );
    }
}
