//! Connections over real sockets, from the first byte to the last.

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::sync::Mutex;

use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::snapshot::Phase;
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const HOLD: &[u8] = b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n";
const BIG: usize = 64 << 20;

fn config() -> HttpConfig {
    HttpConfig {
        function_paths: Vec::new(),
        takes_x_timeout: false,
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        max_body_bytes: 8 << 20,
        max_buffered_bytes: 256 << 20,
        max_connections: NonZeroUsize::new(100).unwrap(),
        header_timeout: Duration::from_secs(30),
        body_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        least_rate: 1024,
        keep_alive: Duration::from_secs(30),
        max_connection_age: None,
        admin: None,
        auth_token_file: None,
        verbose_errors: Some(false),
        access_log: crate::config::AccessLog::Off,
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        pass_headers: Vec::new(),
    }
}

/// The requests of a test's server, as its answers record them.
struct Requests {
    /// The paths of all requests with a plain answer.
    paths: Mutex<Vec<String>>,
    hold_begun: Notify,
    hold_ended: Notify,
    /// Each permit lets one request to `/hold` be answered.
    gate: Semaphore,
}

struct Server {
    address: SocketAddr,
    registry: Arc<Registry>,
    requests: Arc<Requests>,
    close: CancellationToken,
    abort: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn start(config: &HttpConfig) -> Server {
        let listener = Listener::bind(&config.listen).unwrap();
        let address = listener.addresses()[0];
        let registry = Registry::new(config);
        let requests = Arc::new(Requests {
            paths: Mutex::default(),
            hold_begun: Notify::new(),
            hold_ended: Notify::new(),
            gate: Semaphore::new(0),
        });
        let (close, abort) = (CancellationToken::new(), CancellationToken::new());
        let answer = {
            let requests = Arc::clone(&requests);
            move |request| answer(request, Arc::clone(&requests))
        };
        let service = listener.serve_in(
            Arc::clone(&registry),
            answer,
            close.clone(),
            abort.clone(),
            Threads::this_one(),
        );
        let task = tokio::spawn(service);
        Server {
            address,
            registry,
            requests,
            close,
            abort,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects, and waits until the connection is registered.
    async fn connect_and_register(&self) -> TcpStream {
        let before = self.registry.snapshots().len();
        let stream = self.connect().await;
        self.until(|phases| phases.len() > before).await;
        stream
    }

    /// Waits until the phases of all connections are as wanted.
    async fn until(&self, is_wanted: impl Fn(&[Phase]) -> bool) {
        let look = async {
            loop {
                let snapshots = self.registry.snapshots();
                let phases: Vec<_> = snapshots.iter().map(|snapshot| snapshot.phase).collect();
                if is_wanted(&phases) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(look).await;
    }

    async fn ended(mut self) {
        soon(&mut self.task).await.unwrap();
    }
}

async fn answer(request: Request<RequestBody>, requests: Arc<Requests>) -> HttpResponse {
    struct Held(Arc<Requests>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.hold_ended.notify_one();
        }
    }
    match request.uri().path() {
        "/hold" => {
            requests.hold_begun.notify_one();
            let held = Held(requests);
            held.0.gate.acquire().await.unwrap().forget();
            Response::new(Full::from("held"))
        }
        "/big" => Response::new(Full::from(vec![b'b'; BIG])),
        "/panic" => panic!("as asked"),
        "/refuse" => {
            let mut response = Response::new(Full::from("too large"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
        path => {
            let path = path.to_owned();
            requests.paths.lock().unwrap().push(path.clone());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Full::from([path.as_bytes(), &body].concat()))
        }
    }
}

/// Waits for a future, which in these tests never takes long unless they fail.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("takes too long")
}

/// Reads one response: its head in lower case, and its body.
async fn response(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match soon(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.unwrap();
    response(stream).await.0.starts_with("http/1.1 200")
}

/// Waits for the end; anything that comes before it is an error.
async fn closed(stream: &mut TcpStream) {
    match soon(stream.read_u8()).await {
        Ok(byte) => panic!("a byte came: {byte}"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
    }
}

#[tokio::test]
async fn a_client_that_pipelines_lets_others_have_their_turn() {
    let server = Server::start(&config());
    let many = server.connect_and_register().await;
    let mut one = server.connect_and_register().await;
    // Immediately: the server cannot run in between.
    let pipelined = b"GET /many HTTP/1.1\r\nhost: x\r\n\r\n".repeat(16);
    many.try_write(&pipelined).unwrap();
    one.try_write(GET).unwrap();
    response(&mut one).await;
    let paths = server.requests.paths.lock().unwrap().clone();
    let before = paths.iter().position(|path| path == "/").unwrap();
    assert!(before <= 4, "{before} were answered before it");
}

#[tokio::test]
async fn a_slow_head_is_closed_sooner_than_an_idle_connection() {
    let (header_timeout, keep_alive) = (Duration::from_millis(200), Duration::from_secs(1));
    let server = Server::start(&HttpConfig {
        header_timeout,
        keep_alive,
        ..config()
    });
    let begun = Instant::now();
    let mut idle = server.connect().await;
    let mut used = server.connect().await;
    assert!(is_answered(&mut used).await);
    let mut slow = server.connect().await;
    // Further bytes do not prolong the time.
    let trickle = async {
        for byte in GET
            .iter()
            .cycle()
            .filter(|byte| **byte != b'\r' && **byte != b'\n')
        {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            let pause = Duration::from_millis(20);
            match tokio::time::timeout(pause, slow.read_u8()).await {
                Err(_) => (),
                Ok(read) => return assert!(read.is_err()),
            }
        }
    };
    soon(trickle).await;
    let slow_time = begun.elapsed();
    assert!(slow_time >= header_timeout);
    assert_eq!(
        server.registry.snapshots().len(),
        2,
        "idle ones are still open"
    );
    closed(&mut idle).await;
    closed(&mut used).await;
    assert!(begun.elapsed() >= keep_alive);
}

#[tokio::test]
async fn a_part_of_a_further_head_holds_no_response_back_and_has_the_time_of_a_head() {
    let header_timeout = Duration::from_millis(200);
    let server = Server::start(&HttpConfig {
        header_timeout,
        ..config()
    });
    let mut stream = server.connect().await;
    stream
        .write_all(&[GET, b"GET /next"].concat())
        .await
        .unwrap();
    assert_eq!(response(&mut stream).await.1, "/");
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = Server::start(&config());
    let (mut reader, mut writer) = server.connect().await.into_split();
    let write = async move {
        for index in 0..1_000 {
            let body = index.to_string();
            let head = format!(
                "POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            writer.write_all((head + &body).as_bytes()).await.unwrap();
        }
        writer
    };
    let read = async {
        let (mut text, mut buffer) = (String::new(), vec![0; 65536]);
        while !text.ends_with("/p999") {
            let count = reader.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "closed early");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        text
    };
    let (_writer, text) = soon(async { tokio::join!(write, read) }).await;
    let bodies: Vec<_> = text.split("\r\n\r\n/p").skip(1).collect();
    assert_eq!(bodies.len(), 1_000);
    for (index, body) in bodies.iter().enumerate() {
        assert_eq!(body.split("HTTP/").next().unwrap(), index.to_string());
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_while_others_go_on() {
    let write_timeout = Duration::from_millis(300);
    let server = Server::start(&HttpConfig {
        write_timeout,
        ..config()
    });
    let mut slow = server.connect().await;
    slow.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    slow.readable().await.unwrap();
    let begun = Instant::now();
    let mut other = server.connect().await;
    while server.registry.snapshots().len() != 1 || begun.elapsed() < write_timeout {
        assert!(is_answered(&mut other).await);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let mut taken = Vec::new();
    let _ = soon(slow.read_to_end(&mut taken)).await;
    assert!(taken.len() < BIG);
}

#[tokio::test]
async fn a_client_that_takes_little_is_not_closed() {
    let write_timeout = Duration::from_secs(1);
    let server = Server::start(&HttpConfig {
        write_timeout,
        ..config()
    });
    // The kernel tells the server of room only when a good part of the receive buffer is free. With
    // the usual size, the server could write only once in three of the reads below.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut slow = socket.connect(server.address).await.unwrap();
    slow.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    slow.readable().await.unwrap();
    let (begun, mut buffer, mut taken) = (Instant::now(), vec![0; 128 << 10], 0);
    while begun.elapsed() < 3 * write_timeout {
        taken += soon(slow.read_exact(&mut buffer)).await.unwrap();
        // The pace of a slow client.
        tokio::time::sleep(write_timeout / 10).await;
    }
    assert!(taken < BIG / 4, "the test would not show anything");
    while taken < BIG {
        let count = soon(slow.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0, "closed after {taken} bytes");
        taken += count;
    }
}

#[tokio::test]
async fn at_the_limit_the_longest_idle_connection_makes_room() {
    let max_connections = NonZeroUsize::new(3).unwrap();
    let server = Server::start(&HttpConfig {
        max_connections,
        ..config()
    });
    let mut first = server.connect_and_register().await;
    let mut second = server.connect_and_register().await;
    let mut third = server.connect_and_register().await;
    // Times are kept in milliseconds: the second must have been idle for longer than the others.
    let use_others = async {
        loop {
            assert!(is_answered(&mut first).await);
            assert!(is_answered(&mut third).await);
            let snapshots = server.registry.snapshots();
            let mut since_ms: Vec<_> = snapshots.iter().map(|it| it.since_ms).collect();
            since_ms.sort_unstable();
            if since_ms[0] < since_ms[1] {
                return;
            }
        }
    };
    soon(use_others).await;
    let mut fourth = server.connect().await;
    assert!(is_answered(&mut fourth).await);
    closed(&mut second).await;
    assert!(is_answered(&mut first).await);
    assert!(is_answered(&mut third).await);
    assert_eq!(server.registry.snapshots().len(), 3);
}

#[tokio::test]
async fn a_thousand_connections_pass_through_a_place_for_two() {
    let max_connections = NonZeroUsize::new(2).unwrap();
    let server = Server::start(&HttpConfig {
        max_connections,
        ..config()
    });
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let mut stream = server.connect().await;
        assert!(is_answered(&mut stream).await);
        open.push(stream);
    }
    assert!(server.registry.snapshots().len() <= 2);
}

#[tokio::test]
async fn with_all_connections_busy_a_new_one_waits_for_room() {
    let max_connections = NonZeroUsize::new(1).unwrap();
    let server = Server::start(&HttpConfig {
        max_connections,
        ..config()
    });
    let mut busy = server.connect().await;
    busy.write_all(HOLD).await.unwrap();
    soon(server.requests.hold_begun.notified()).await;
    let mut new = server.connect().await;
    new.write_all(GET).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), new.readable());
    assert!(early.await.is_err());
    server.requests.gate.add_permits(1);
    assert_eq!(response(&mut busy).await.1, "held");
    assert_eq!(response(&mut new).await.1, "/");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    stream.write_all(HOLD).await.unwrap();
    soon(server.requests.hold_begun.notified()).await;
    drop(stream);
    soon(server.requests.hold_ended.notified()).await;
    server.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_panic_ends_only_its_connection() {
    let server = Server::start(&config());
    let mut other = server.connect().await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    closed(&mut stream).await;
    assert!(is_answered(&mut other).await);
    assert!(is_answered(&mut server.connect().await).await);
    assert_eq!(server.registry.snapshots().len(), 2);
}

#[tokio::test]
async fn a_refusal_can_be_read_by_a_client_that_sends_its_body_first() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    let body = vec![b'x'; 16 << 20];
    let head = format!(
        "POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    soon(stream.write_all(&body)).await.unwrap();
    let (head, body) = response(&mut stream).await;
    assert!(head.starts_with("http/1.1 413"));
    assert_eq!(body, "too large");
    server.until(|phases| phases == [Phase::Linger]).await;
    drop(stream);
    server.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_refused_client_is_not_read_for_ever() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    let head = "POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let flood = async {
        let mut sent = 0;
        while let Ok(count) = stream.write(&[b'x'; 65536]).await {
            sent += count;
        }
        sent
    };
    assert!(soon(flood).await < 100 << 20);
    server.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_head_that_cannot_be_parsed_or_is_too_large_is_answered() {
    let server = Server::start(&config());
    let mut broken = server.connect().await;
    broken.write_all(b"this is not HTTP\r\n\r\n").await.unwrap();
    assert!(response(&mut broken).await.0.starts_with("http/1.1 400"));
    let mut large = server.connect().await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n",
        "x".repeat(256 << 10)
    );
    soon(large.write_all(head.as_bytes())).await.unwrap();
    assert!(response(&mut large).await.0.starts_with("http/1.1 431"));
}

#[tokio::test]
async fn close_ends_idle_connections_after_a_moment() {
    let server = Server::start(&config());
    let mut new = server.connect_and_register().await;
    let mut used = server.connect_and_register().await;
    assert!(is_answered(&mut used).await);
    server.close.cancel();
    closed(&mut new).await;
    closed(&mut used).await;
    let address = server.address;
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn close_lets_a_request_in_flight_finish() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    stream.write_all(HOLD).await.unwrap();
    soon(server.requests.hold_begun.notified()).await;
    server.close.cancel();
    server.requests.gate.add_permits(1);
    let (head, body) = response(&mut stream).await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(body, "held");
    closed(&mut stream).await;
    server.ended().await;
}

#[tokio::test]
async fn close_lets_a_response_on_its_way_finish() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    stream.readable().await.unwrap();
    server.close.cancel();
    assert_eq!(response(&mut stream).await.1.len(), BIG);
    closed(&mut stream).await;
    server.ended().await;
}

#[tokio::test]
async fn close_lets_a_head_of_which_a_part_has_come_finish() {
    let server = Server::start(&config());
    let mut new = server.connect().await;
    let mut used = server.connect().await;
    assert!(is_answered(&mut used).await);
    for stream in [&mut new, &mut used] {
        stream.write_all(&GET[..20]).await.unwrap();
    }
    server
        .until(|phases| phases == [Phase::Head, Phase::Head])
        .await;
    server.close.cancel();
    tokio::task::yield_now().await;
    for stream in [&mut new, &mut used] {
        stream.write_all(&GET[20..]).await.unwrap();
        let (head, body) = response(stream).await;
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(body, "/");
        closed(stream).await;
    }
    server.ended().await;
}

#[tokio::test]
async fn close_lets_unread_requests_finish() {
    let server = Server::start(&config());
    let connect = || std::net::TcpStream::connect(server.address).unwrap();
    // No await from the first byte to the close: the server sees both at the same time.
    let mut known = server.connect_and_register().await.into_std().unwrap();
    let mut in_backlog: Vec<_> = (0..10).map(|_| connect()).collect();
    known.write_all(GET).unwrap();
    for stream in &mut in_backlog {
        stream.write_all(GET).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    server.close.cancel();
    for stream in in_backlog.into_iter().chain([known]) {
        let mut stream = TcpStream::from_std(stream).unwrap();
        let (head, body) = response(&mut stream).await;
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(body, "/");
        closed(&mut stream).await;
    }
    server.ended().await;
}

#[tokio::test]
async fn abort_drops_what_is_left() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    stream.write_all(HOLD).await.unwrap();
    soon(server.requests.hold_begun.notified()).await;
    server.close.cancel();
    server.abort.cancel();
    soon(server.requests.hold_ended.notified()).await;
    closed(&mut stream).await;
    server.ended().await;
}

#[tokio::test]
async fn dropping_the_service_drops_its_connections() {
    let server = Server::start(&config());
    let mut stream = server.connect().await;
    stream.write_all(HOLD).await.unwrap();
    soon(server.requests.hold_begun.notified()).await;
    server.task.abort();
    closed(&mut stream).await;
    assert!(server.registry.snapshots().is_empty());
}
