//! A small blocking HTTP/1.1 client, which can also send broken requests.

use super::PATIENCE;
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection, kept alive.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header that is there at most once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        first
    }

    /// All headers, names in lower case.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message of an error, which is text in all errors but 422.
    #[track_caller]
    pub(crate) fn detail(&self) -> String {
        let body = self.json();
        body["detail"]
            .as_str()
            .unwrap_or_else(|| panic!("no detail in {body}"))
            .to_owned()
    }
}

/// The body of a request with this payload.
pub(crate) fn body_of(payload: &str) -> Vec<u8> {
    json!({ "payload": payload }).to_string().into_bytes()
}

/// The bytes of a request; `Host` comes first and is right unless `headers` has one.
pub(crate) fn request_bytes(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let has = |wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if !has("host") {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body
        && !has("content-length")
        && !has("transfer-encoding")
    {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    bytes.extend(body.unwrap_or_default());
    bytes
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream,
            address,
            buffer: Vec::new(),
        })
    }

    /// Has the kernel hold little of what comes, however slowly it is read: then a few megabytes
    /// are more than all buffers on the way hold.
    pub(crate) fn holding_little(self) -> Connection {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, 16 * 1024).unwrap();
        self
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends `POST /` without waiting for the answer.
    pub(crate) fn send_payload(&mut self, payload: &str) -> Result<()> {
        let bytes = request_bytes(self.address, "POST", "/", &[], Some(&body_of(payload)));
        self.send(&bytes)
    }

    pub(crate) fn post(&mut self, payload: &str) -> Result<Response> {
        self.send_payload(payload)?;
        self.receive()
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response> {
        self.send(&request_bytes(self.address, method, path, headers, body))?;
        self.receive_to(method)
    }

    /// Waits until the worker has accepted the connection, by a question for its health.
    #[track_caller]
    pub(crate) fn wait_until_accepted(&mut self) {
        let response = self.request("GET", "/health", &[], None).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Reads one answer to a request that is not HEAD.
    pub(crate) fn receive(&mut self) -> Result<Response> {
        self.receive_to("POST")
    }

    /// Reads one answer, after any interim (1xx) answers.
    pub(crate) fn receive_to(&mut self, method: &str) -> Result<Response> {
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                    break at;
                }
                self.fill()?;
            };
            let head = String::from_utf8(self.buffer[..end].to_vec())
                .map_err(|_| Error::other("head is not UTF-8"))?;
            self.buffer.drain(..end + 4);
            let mut lines = head.split("\r\n");
            let status = lines
                .next()
                .and_then(|line| {
                    // To a request in HTTP/1.0 hyper answers in HTTP/1.0.
                    let new = line.strip_prefix("HTTP/1.1 ");
                    new.or_else(|| line.strip_prefix("HTTP/1.0 "))
                })
                .and_then(|line| line.get(..3)?.parse::<u16>().ok())
                .ok_or_else(|| Error::other(format!("not a status line: {head}")))?;
            let headers: Vec<(String, String)> = lines
                .map(|line| {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    (name.to_ascii_lowercase(), value.trim().to_owned())
                })
                .collect();
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Response {
                status,
                headers,
                body: Vec::new(),
            };
            if method != "HEAD" {
                response.body = self.receive_body(&response)?;
            }
            return Ok(response);
        }
    }

    fn receive_body(&mut self, response: &Response) -> Result<Vec<u8>> {
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(Error::other)?;
            return self.take(length);
        }
        if response.header("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.take_line()?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(Error::other)?;
                body.extend(self.take(size)?);
                self.take_line()?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        // Neither: to the end of the connection.
        while self.fill().is_ok() {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn take_line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut block = [0; 65536];
        loop {
            // A read with a time limit is not taken up again by the kernel when a signal comes,
            // even one without a handler: the SIGCHLD of a child of another test, say.
            match self.stream.read(&mut block) {
                Ok(0) => {
                    let seen = String::from_utf8_lossy(&self.buffer);
                    let what = format!("the connection ended after {seen:?}");
                    return Err(Error::new(ErrorKind::UnexpectedEof, what));
                }
                Ok(count) => {
                    self.buffer.extend(&block[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something has come, or the end of the connection; does not wait.
    pub(crate) fn has_answer(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits until the worker closes the connection.
    pub(crate) fn is_closed_by_worker(&mut self) -> bool {
        matches!(self.fill(), Err(error) if error.kind() != ErrorKind::WouldBlock)
    }

    /// Hangs up with a reset, which leaves no TIME_WAIT on this side.
    pub(crate) fn reset(self) {
        let linger = Some(std::time::Duration::ZERO);
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, linger);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Fails unless the answer has everything that the contract says of an error made by the worker.
#[track_caller]
pub(crate) fn assert_error(response: &Response, status: u16, code: &str, executed: &str) {
    let seen = (
        response.status,
        response.header("x-faas-error").unwrap_or("-"),
        response.header("x-faas-executed").unwrap_or("-"),
    );
    assert_eq!(seen, (status, code, executed), "body: {}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(
        response.header("x-request-id").is_some(),
        "no request id: {response:?}"
    );
    let body = response.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["detail"], "{body}");
    if status == 429 || status == 503 {
        let after = response.header("retry-after").map(str::parse::<u32>);
        assert!(matches!(after, Some(Ok(1..))), "retry-after: {after:?}");
    }
}

/// Fails unless the answer is 200 with exactly this result.
#[track_caller]
pub(crate) fn assert_result(response: &Response, result: impl Into<Value>) {
    assert_eq!(response.status, 200, "body: {}", response.text());
    assert_eq!(response.header("x-faas-error"), None);
    assert!(
        response.header("x-request-id").is_some(),
        "no request id: {response:?}"
    );
    assert_eq!(response.json(), json!({ "result": result.into() }));
}
