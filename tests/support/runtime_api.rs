//! AWS Lambda's runtime API, as a server for tests: it gives events to a client, and records the
//! answers.
//!
//! By the rules of <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. AWS's own
//! clients pass the same tests against it: `scripts/check/lambda.sh`.

use super::{PATIENCE, within};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest response that Lambda takes, in bytes.
pub(crate) const LONGEST_RESPONSE: usize = 6 * 1024 * 1024 + 100;

/// The time for an event of which a test says nothing else.
const EVENT_TIME: Duration = Duration::from_secs(60);

/// The answer to an event, or an error of the start.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The last part of the path: `response` or `error`.
    pub(crate) kind: String,
    /// The status that the client got for it.
    pub(crate) taken: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The result of the event.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert_eq!(
            (self.kind.as_str(), self.taken),
            ("response", 202),
            "{self:?}"
        );
        self.json()
    }

    /// Type and message of the error, which stand in the body and its type in a header.
    #[track_caller]
    pub(crate) fn error(&self) -> (String, String) {
        assert_eq!((self.kind.as_str(), self.taken), ("error", 202), "{self:?}");
        let body = self.json();
        let member = |name: &str| {
            let value = body[name].as_str();
            value
                .unwrap_or_else(|| panic!("no {name} in {body}"))
                .to_owned()
        };
        assert!(
            body["stackTrace"].is_array() || body["stackTrace"].is_null(),
            "{body}"
        );
        (member("errorType"), member("errorMessage"))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

struct Event {
    id: String,
    body: Vec<u8>,
    time: Duration,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Events that a client has, and has not answered.
    open: Vec<String>,
    answers: HashMap<String, Answer>,
    start_error: Option<(String, Answer)>,
    /// Paths of all requests, in order.
    asked: Vec<String>,
    /// Clients that wait for an event.
    waiting: usize,
    most_waiting: usize,
    /// Statuses for the next requests, in place of what they ask for.
    refusals: VecDeque<u16>,
    may_restore: bool,
    closes_connections: bool,
    count: usize,
}

/// The server. Ends with the test program.
#[derive(Clone)]
pub(crate) struct RuntimeApi {
    pub(crate) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl RuntimeApi {
    pub(crate) fn start() -> RuntimeApi {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = RuntimeApi {
            address: listener.local_addr().unwrap(),
            shared: Arc::default(),
        };
        let server = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                // A client that leaves ends its connection's thread.
                std::thread::spawn(move || drop(server.serve(&stream)));
            }
        });
        api
    }

    /// Has an event wait for a client; gives its id.
    pub(crate) fn push(&self, event: &Value) -> String {
        self.push_text(event.to_string().into_bytes(), EVENT_TIME)
    }

    /// The same, with the text of the event and the time until its deadline.
    pub(crate) fn push_text(&self, body: impl Into<Vec<u8>>, time: Duration) -> String {
        let mut state = self.state();
        state.count += 1;
        let id = format!("8476a536-e9f4-11e8-9739-{:012}", state.count);
        let body = body.into();
        let event = Event {
            id: id.clone(),
            body,
            time,
        };
        state.events.push_back(event);
        self.shared.1.notify_all();
        id
    }

    /// An event, and the answer to it.
    #[track_caller]
    pub(crate) fn call(&self, event: &Value) -> Answer {
        let id = self.push(event);
        self.answer(&id)
    }

    /// The answer to the event with the payload.
    #[track_caller]
    pub(crate) fn call_payload(&self, payload: &str) -> Answer {
        self.call(&json!({ "payload": payload }))
    }

    /// Waits for the answer to an event.
    #[track_caller]
    pub(crate) fn answer(&self, id: &str) -> Answer {
        self.wait(&format!("{id} is answered"), |state| {
            state.answers.get(id).cloned()
        })
    }

    /// Waits for an error of the start; gives the path to which it was posted.
    #[track_caller]
    pub(crate) fn start_error(&self) -> (String, Answer) {
        self.wait("the start has failed", |state| state.start_error.clone())
    }

    /// Waits until this many clients, or loops of one, wait for an event.
    #[track_caller]
    pub(crate) fn wait_for_clients(&self, count: usize) {
        self.wait(&format!("{count} wait"), |state| {
            (state.waiting == count).then_some(())
        });
    }

    /// Waits until this many events are being worked on.
    #[track_caller]
    pub(crate) fn wait_for_open(&self, count: usize) {
        self.wait(&format!("{count} are open"), |state| {
            (state.open.len() == count).then_some(())
        });
    }

    /// Waits until a request with this path came.
    #[track_caller]
    pub(crate) fn wait_for_request(&self, path: &str) {
        self.wait(path, |state| {
            state.asked.iter().any(|asked| asked == path).then_some(())
        });
    }

    /// Paths of all requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    pub(crate) fn most_waiting(&self) -> usize {
        self.state().most_waiting
    }

    /// Answers the next requests with these statuses.
    pub(crate) fn refuse(&self, statuses: &[u16]) {
        self.state().refusals.extend(statuses);
    }

    /// Closes each connection after the answer on it, without saying so.
    pub(crate) fn close_connections(&self) {
        self.state().closes_connections = true;
    }

    /// Restores the client from its snapshot.
    pub(crate) fn restore(&self) {
        self.state().may_restore = true;
        self.shared.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, condition: impl Fn(&State) -> Option<T>) -> T {
        within(PATIENCE, what, || condition(&self.state()))
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let headers = read_headers(&mut reader)?;
            let length = headers
                .get("content-length")
                .map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            if headers.contains_key("transfer-encoding") {
                body = read_chunks(&mut reader)?;
            }
            let mut words = first.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let path = path
                .strip_prefix("/2018-06-01/runtime/")
                .unwrap_or(path)
                .to_owned();
            let Some(response) = self.respond(method, &path, headers, body, stream) else {
                return Ok(());
            };
            let mut stream = stream;
            stream.write_all(&response)?;
            if self.state().closes_connections {
                return stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    /// The response to a request; none when the client has left.
    fn respond(
        &self,
        method: &str,
        path: &str,
        headers: HashMap<String, String>,
        body: Vec<u8>,
        stream: &TcpStream,
    ) -> Option<Vec<u8>> {
        let refusal = {
            let mut state = self.state();
            state.asked.push(path.to_owned());
            state.refusals.pop_front()
        };
        if let Some(status) = refusal {
            return Some(failure(status, "Runtime.Refused"));
        }
        let parts: Vec<&str> = path.split('/').collect();
        match (method, &parts[..]) {
            ("GET", ["invocation", "next"]) => self.next(stream),
            ("GET", ["restore", "next"]) => {
                self.wait_here(stream, |state| state.may_restore.then_some(()))?;
                Some(http(200, "", b""))
            }
            ("POST", ["init" | "restore", "error"]) => {
                let answer = Answer {
                    kind: "error".to_owned(),
                    taken: 202,
                    headers,
                    body,
                };
                self.state().start_error = Some((path.to_owned(), answer));
                Some(http(202, "", br#"{"status":"OK"}"#))
            }
            ("POST", ["invocation", id, kind @ ("response" | "error")]) => {
                Some(self.take(id, kind, headers, body))
            }
            _ => Some(failure(404, "NotFound")),
        }
    }

    fn next(&self, stream: &TcpStream) -> Option<Vec<u8>> {
        {
            let mut state = self.state();
            state.waiting += 1;
            state.most_waiting = state.most_waiting.max(state.waiting);
        }
        let event = self.wait_here(stream, |state| {
            let event = state.events.pop_front()?;
            state.open.push(event.id.clone());
            Some(event)
        });
        self.state().waiting -= 1;
        let Event { id, body, time } = event?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let deadline = (now + time).as_millis();
        let head = format!(
            "Lambda-Runtime-Aws-Request-Id: {id}\r\n\
             Lambda-Runtime-Invocation-Id: invocation-of-{id}\r\n\
             Lambda-Runtime-Deadline-Ms: {deadline}\r\n\
             Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:f\r\n\
             Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1\r\n"
        );
        Some(http(200, &head, &body))
    }

    /// Takes the answer to an event: once, of an event that is open, and up to the greatest length.
    fn take(
        &self,
        id: &str,
        kind: &str,
        headers: HashMap<String, String>,
        body: Vec<u8>,
    ) -> Vec<u8> {
        let mut state = self.state();
        let Some(at) = state.open.iter().position(|open| open == id) else {
            let is_known = state.answers.contains_key(id);
            return match is_known {
                true => failure(403, "InvalidStateTransition"),
                false => failure(400, "InvalidRequestID"),
            };
        };
        state.open.remove(at);
        let invocation = headers.get("lambda-runtime-invocation-id");
        let expected = format!("invocation-of-{id}");
        let is_right = invocation.is_none_or(|invocation| *invocation == expected);
        let taken = match (is_right, body.len() <= LONGEST_RESPONSE) {
            (false, _) => 400,
            (true, true) => 202,
            (true, false) => 413,
        };
        let answer = Answer {
            kind: kind.to_owned(),
            taken,
            headers,
            body,
        };
        state.answers.insert(id.to_owned(), answer);
        match taken {
            202 => http(202, "", br#"{"status":"OK"}"#),
            status => failure(status, "RequestEntityTooLarge"),
        }
    }

    /// Waits for a client until there is something for it, for as long as it stays.
    fn wait_here<T>(
        &self,
        stream: &TcpStream,
        condition: impl Fn(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        loop {
            // An event is not given to a client that has left.
            stream.set_nonblocking(true).unwrap();
            let has_left = matches!(stream.peek(&mut [0]), Ok(0));
            stream.set_nonblocking(false).unwrap();
            if has_left {
                return None;
            }
            if let Some(found) = condition(&mut state) {
                return Some(found);
            }
            let look = Duration::from_millis(20);
            state = self.shared.1.wait_timeout(state, look).unwrap().0;
        }
    }
}

fn http(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} S\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn failure(status: u16, kind: &str) -> Vec<u8> {
    let body = json!({"errorMessage": "refused", "errorType": kind});
    http(status, "", body.to_string().as_bytes())
}

/// The headers of a request, names in lower case.
fn read_headers(reader: &mut impl BufRead) -> std::io::Result<HashMap<String, String>> {
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            None => return Ok(headers),
        }
    }
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk)?;
        if length == 0 {
            return Ok(body);
        }
        body.extend(&chunk[..length]);
    }
}
