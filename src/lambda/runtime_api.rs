//! The requests to Lambda's runtime API, over one kept connection.

use super::deadline::latest;
use crate::error::RequestFailure;
use crate::version::version;
use bytes::Bytes;
use compact_str::CompactString;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");

/// Longest time for a request other than the questions that Lambda answers when it likes.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of the answer to anything but the question for an event.
const LONGEST_ANSWER: usize = 64 * 1024;

/// One event.
#[derive(Debug)]
pub(super) struct Event {
    /// The id of the request.
    pub(super) id: CompactString,
    /// When Lambda gives it up.
    pub(super) latest: Option<Instant>,
    /// The event's text, or why it was not read.
    pub(super) body: Result<Bytes, RequestFailure>,
    /// The headers that came with it.
    pub(super) headers: HeaderMap,
}

/// Why the runtime API did not do what was asked.
#[derive(Debug)]
pub(super) enum ApiError {
    /// No connection, or a broken one.
    Connection(std::io::Error),
    /// A request or an answer that is no HTTP.
    Http(hyper::Error),
    /// An answer longer than any that is expected.
    TooLong,
    /// Another status than that of success.
    Status(StatusCode),
    /// An event without a request id that can be used.
    RequestId,
    /// No answer in time.
    Time,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Connection(error) => write!(f, "cannot connect: {error}"),
            ApiError::Http(error) => write!(f, "{error}"),
            ApiError::TooLong => f.write_str("the answer is too long"),
            ApiError::Status(status) => write!(f, "status {status}"),
            ApiError::RequestId => write!(f, "an event without a valid {REQUEST_ID}"),
            ApiError::Time => f.write_str("no answer in time"),
        }
    }
}

/// The client of one loop.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    address: SocketAddr,
    longest_event: u64,
    connection: Option<Connection>,
}

/// The future that moves the bytes of a connection.
type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

/// A connection, and the future that moves its bytes.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when the connection has ended: hyper tells the sender so by the drop of its other
    /// half.
    driver: Option<Driver>,
}

impl RuntimeApi {
    /// A client for this address that reads events up to a length, in bytes.
    pub(super) fn new(address: SocketAddr, longest_event: u64) -> RuntimeApi {
        RuntimeApi {
            address,
            longest_event,
            connection: None,
        }
    }

    /// The next event. Has no time limit: Lambda may freeze the worker meanwhile.
    pub(super) async fn next(&mut self) -> Result<Event, ApiError> {
        let limit = usize::try_from(self.longest_event).unwrap_or(usize::MAX);
        let answer = self.get("invocation/next", limit).await?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(ApiError::Status(head.status));
        }
        let id = head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes);
        let id = id.and_then(path_segment).ok_or(ApiError::RequestId)?;
        let deadline = head.headers.get(DEADLINE);
        Ok(Event {
            id,
            latest: deadline.and_then(|value| latest(value.to_str().ok()?)),
            body: body.ok_or(RequestFailure::BodyTooLarge(self.longest_event)),
            headers: head.headers,
        })
    }

    /// Gives Lambda the result of an event.
    pub(super) async fn post_response(
        &mut self,
        event: &Event,
        result: Bytes,
    ) -> Result<(), ApiError> {
        let id = event.headers.get(INVOCATION_ID);
        let path = format!("invocation/{}/response", event.id);
        self.post(&path, &[(INVOCATION_ID, id)], result).await
    }

    /// Gives Lambda the error of an event.
    pub(super) async fn post_error(
        &mut self,
        event: &Event,
        kind: &str,
        document: Bytes,
    ) -> Result<(), ApiError> {
        let id = event.headers.get(INVOCATION_ID);
        let kind = HeaderValue::from_str(kind).ok();
        let headers = [(INVOCATION_ID, id), (ERROR_TYPE, kind.as_ref())];
        let path = format!("invocation/{}/error", event.id);
        self.post(&path, &headers, document).await
    }

    /// Tells Lambda that the worker cannot start.
    pub(super) async fn post_init_error(
        &mut self,
        kind: &str,
        document: Bytes,
    ) -> Result<(), ApiError> {
        let kind = HeaderValue::from_str(kind).ok();
        let headers = [(ERROR_TYPE, kind.as_ref())];
        self.post("init/error", &headers, document).await
    }

    /// Waits until the worker has been restored from the snapshot that Lambda makes of it.
    pub(super) async fn restored(&mut self) -> Result<(), ApiError> {
        let answer = self.get("restore/next", LONGEST_ANSWER).await;
        // The other end of the connection was not restored.
        self.connection = None;
        succeeded(&answer?)
    }

    /// Tells Lambda that the worker cannot go on after it was restored.
    pub(super) async fn post_restore_error(&mut self, document: Bytes) -> Result<(), ApiError> {
        let kind = HeaderValue::from_static("Runtime.AfterRestoreError");
        self.post("restore/error", &[(ERROR_TYPE, Some(&kind))], document)
            .await
    }

    async fn get(&mut self, path: &str, limit: usize) -> Result<Response<Option<Bytes>>, ApiError> {
        let builder = self.request(path).method("GET");
        self.ask(&builder_with(builder, &[]), &Bytes::new(), limit)
            .await
    }

    async fn post(
        &mut self,
        path: &str,
        headers: &[(HeaderName, Option<&HeaderValue>)],
        body: Bytes,
    ) -> Result<(), ApiError> {
        let builder = self.request(path).method("POST");
        let builder = builder.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = builder_with(builder, headers);
        // Cancel-safe: the connection of an answer that is late is not used again.
        let answered = timeout(POST_TIMEOUT, self.ask(&request, &body, LONGEST_ANSWER)).await;
        match answered {
            Ok(answer) => succeeded(&answer?),
            Err(_) => Err(ApiError::Time),
        }
    }

    fn request(&self, path: &str) -> Builder {
        Request::builder()
            .uri(format!("/2018-06-01/runtime/{path}"))
            .header(HOST, self.address.to_string())
            .header(USER_AGENT, format!("faas-worker/{}", version()))
    }

    /// Sends a request, and gives the answer, without its body if that is longer than `limit`. A
    /// kept connection that turns out to be closed is replaced once.
    // Not cancel-safe in itself: dropped before its end, it drops the connection too, and so the
    // next request is not answered by the answer to this one.
    async fn ask(
        &mut self,
        request: &Result<Request<()>, hyper::http::Error>,
        body: &Bytes,
        limit: usize,
    ) -> Result<Response<Option<Bytes>>, ApiError> {
        let Ok(request) = request else {
            return Err(ApiError::RequestId);
        };
        let send = |body: &Bytes| request.clone().map(|()| Full::new(body.clone()));
        if let Some(kept) = self.connection.take() {
            match self.ask_on(kept, send(body), limit).await {
                Err(ApiError::Http(error)) if !error.is_parse() => {}
                answered => return answered,
            }
        }
        let connection = Connection::open(self.address).await?;
        self.ask_on(connection, send(body), limit).await
    }

    /// Sends a request on this connection, and keeps the connection if it can be used again.
    async fn ask_on(
        &mut self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Response<Option<Bytes>>, ApiError> {
        let (answer, is_whole) = connection.exchange(request, limit).await?;
        if is_whole && connection.driver.is_some() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Connection, ApiError> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(ApiError::Connection)?;
        stream.set_nodelay(true).map_err(ApiError::Connection)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ApiError::Http)?;
        Ok(Connection {
            sender,
            driver: Some(Box::pin(driver)),
        })
    }

    /// One request and its answer, and whether all of the answer was read.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(Response<Option<Bytes>>, bool), ApiError> {
        let (sender, driver) = (&mut self.sender, &mut self.driver);
        let answered = async {
            sender.ready().await.map_err(ApiError::Http)?;
            let answer = sender.send_request(request).await.map_err(ApiError::Http)?;
            let (head, body) = answer.into_parts();
            match Limited::new(body, limit).collect().await {
                Ok(body) => {
                    let body = Some(body.to_bytes());
                    Ok((Response::from_parts(head, body), true))
                }
                Err(error) if error.is::<LengthLimitError>() => {
                    Ok((Response::from_parts(head, None), false))
                }
                Err(error) => match error.downcast::<hyper::Error>() {
                    Ok(error) => Err(ApiError::Http(*error)),
                    Err(_) => Err(ApiError::TooLong),
                },
            }
        };
        let driven = async {
            if let Some(driver) = driver {
                // An error of the connection is also that of the request on it.
                let _ = driver.await;
            }
            *driver = None;
            std::future::pending().await
        };
        // Cancel-safe: bytes that the connection has read stay in a channel to `answered`.
        tokio::select! {
            answered = answered => answered,
            never = driven => never,
        }
    }
}

/// A request with these headers, as far as they have values.
fn builder_with(
    builder: Builder,
    headers: &[(HeaderName, Option<&HeaderValue>)],
) -> Result<Request<()>, hyper::http::Error> {
    let with = |builder: Builder, (name, value): &(HeaderName, Option<&HeaderValue>)| match value {
        Some(value) => builder.header(name, *value),
        None => builder,
    };
    headers.iter().fold(builder, with).body(())
}

fn succeeded(answer: &Response<Option<Bytes>>) -> Result<(), ApiError> {
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(ApiError::Status(answer.status())),
    }
}

/// A request id that can stand in a path and in the log.
fn path_segment(id: &[u8]) -> Option<CompactString> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let is_segment = (1..=128).contains(&id.len()) && id.iter().all(is_plain);
    let id = std::str::from_utf8(id).ok()?;
    is_segment.then(|| CompactString::new(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn a_request_id_is_taken_where_it_changes_no_path() {
        for (id, is_taken) in [
            ("8476a536-e9f4-11e8-9739-2dfe598c3fcd", true),
            ("a_b.c", true),
            ("", false),
            ("a/b", false),
            ("a?b", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(path_segment(id.as_bytes()).is_some(), is_taken, "{id:?}");
        }
        assert_eq!(path_segment(&[b'a'; 129]), None);
    }

    /// The answer with an event.
    const EVENT: &str =
        "HTTP/1.1 200 S\r\nlambda-runtime-aws-request-id: a\r\ncontent-length: 5\r\n\r\nevent";

    const DONE: &str = "HTTP/1.1 200 S\r\ncontent-length: 0\r\n\r\n";

    /// A runtime API that gives these answers, one for each request, and then none; and for each request
    /// the number of its connection.
    struct Server {
        api: RuntimeApi,
        connections: Arc<Mutex<Vec<usize>>>,
    }

    impl Server {
        async fn start(answers: &[&'static str]) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connections = Arc::<Mutex<Vec<usize>>>::default();
            let answers = Arc::new(Mutex::new(VecDeque::from(answers.to_vec())));
            let asked = Arc::clone(&connections);
            tokio::spawn(async move {
                for number in 0.. {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                    tokio::spawn(async move {
                        while has_asked(&mut stream).await {
                            asked.lock().unwrap().push(number);
                            let answer = answers.lock().unwrap().pop_front();
                            let Some(answer) = answer else {
                                std::future::pending().await
                            };
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    });
                }
            });
            let api = RuntimeApi::new(address, 5);
            Server { api, connections }
        }

        fn connections(&self) -> Vec<usize> {
            self.connections.lock().unwrap().clone()
        }
    }

    /// True with the head of a request, false at the end of the connection.
    async fn has_asked(stream: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return false,
            }
        }
        true
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_question() {
        let mut server = Server::start(&[EVENT, EVENT]).await;
        for _ in 0..2 {
            let event = server.api.next().await.unwrap();
            assert_eq!((&*event.id, &*event.body.unwrap()), ("a", &b"event"[..]));
        }
        assert_eq!(server.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn an_event_that_is_too_long_is_told_and_not_read() {
        let mut server = Server::start(&[EVENT, EVENT]).await;
        server.api.longest_event = 4;
        for _ in 0..2 {
            let event = server.api.next().await.unwrap();
            assert!(matches!(event.body, Err(RequestFailure::BodyTooLarge(4))));
        }
    }

    #[tokio::test]
    async fn another_status_than_that_of_success_gives_no_event() {
        const REFUSED: &str =
            "HTTP/1.1 500 S\r\nlambda-runtime-aws-request-id: a\r\ncontent-length: 0\r\n\r\n";
        let mut server = Server::start(&[REFUSED]).await;
        let answered = server.api.next().await;
        assert!(matches!(answered, Err(ApiError::Status(status)) if status == 500));
    }

    #[tokio::test]
    async fn a_request_with_an_answer_that_is_no_http_is_not_sent_again() {
        let mut server = Server::start(&[EVENT, "nonsense\r\n\r\n", EVENT]).await;
        server.api.next().await.unwrap();
        let answered = server.api.next().await;
        assert!(matches!(answered, Err(ApiError::Http(_))), "{answered:?}");
        assert_eq!(server.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn a_restored_worker_opens_another_connection() {
        let mut server = Server::start(&[DONE, EVENT]).await;
        server.api.restored().await.unwrap();
        server.api.next().await.unwrap();
        assert_eq!(server.connections(), [0, 1]);
    }

    /// Lambda may freeze the worker between events, and never while a result is posted.
    #[tokio::test(start_paused = true)]
    async fn a_post_has_a_time_limit_and_the_question_for_an_event_has_none() {
        let mut server = Server::start(&[]).await;
        let event = Event {
            id: "a".into(),
            latest: None,
            body: Ok(Bytes::new()),
            headers: HeaderMap::new(),
        };
        let posted = server.api.post_response(&event, Bytes::new());
        let posted = timeout(2 * POST_TIMEOUT, posted).await;
        assert!(matches!(posted, Ok(Err(ApiError::Time))), "{posted:?}");
        let year = Duration::from_secs(366 * 24 * 3600);
        assert!(timeout(year, server.api.next()).await.is_err());
    }
}
