//! Connections that wait for a place, once `--max-connections` are open.
//!
//! Each waits in a task of its own, in the order of arrival. Its first bytes are peeked at and not
//! read. A health check gets a place beyond the limit immediately: its connection gets one response
//! and is closed, so it holds that place for less than a millisecond. All other connections wait
//! for a regular place, up to a limit in number and time.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::registry::{Newcomer, Registration, Registry};
use crate::error::{Code, RETRY_SOON};

/// Connections that wait at one time.
pub(super) const MAX_WAITING: usize = 128;

/// For this time no other connection is closed to make room for a new one that is silent: most
/// clients send at once, and a health check needs no place of its own.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_millis(20);

/// The time between two peeks at a part of a head.
const PEEK_PAUSE: Duration = Duration::from_millis(10);

/// The longest head of a health check, in bytes.
const MAX_HEALTH_CHECK_BYTES: usize = 2048;

/// The paths that are answered on places beyond the limit.
const HEALTH_PATHS: [&str; 4] = ["/health", "/ready", "/_/health", "/_/ready"];

/// The connections that wait for a place, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    waiting: Mutex<VecDeque<Arc<ConnectionEntry>>>,
}

/// The entry of one connection in the waiting room.
#[derive(Debug, Default)]
struct ConnectionEntry {
    has_sent: AtomicBool,
    evicted: Notify,
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<ConnectionEntry>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Adds a connection. If too many wait, it evicts the first that has sent nothing, else the
    /// first.
    pub(super) fn join(self: &Arc<Self>) -> WaitingConnection {
        let entry = Arc::new(ConnectionEntry::default());
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            let is_silent = |entry: &Arc<ConnectionEntry>| !entry.has_sent.load(Ordering::Relaxed);
            let first = waiting.iter().position(is_silent).unwrap_or(0);
            if let Some(entry) = waiting.remove(first) {
                entry.evicted.notify_one();
            }
        }
        waiting.push_back(Arc::clone(&entry));
        WaitingConnection {
            room: Arc::clone(self),
            entry,
        }
    }
}

/// A connection that waits; dropping it leaves the room.
pub(super) struct WaitingConnection {
    room: Arc<WaitingRoom>,
    entry: Arc<ConnectionEntry>,
}

impl Drop for WaitingConnection {
    fn drop(&mut self) {
        self.room
            .lock()
            .retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

impl WaitingConnection {
    /// Waits for a place until `limit`; answers the client with 429 if there is none.
    pub(super) async fn wait_for_place(
        self,
        stream: &TcpStream,
        registry: &Arc<Registry>,
        limit: Duration,
    ) -> Option<Registration> {
        let begun = Instant::now();
        loop {
            let first_bytes = peek(stream);
            let newcomer = match first_bytes {
                FirstBytes::Closed => return None,
                FirstBytes::HealthCheck => match registry.register_health_check() {
                    Some(registration) => return Some(registration),
                    None => Newcomer::WithRequest,
                },
                FirstBytes::Missing => Newcomer::Silent,
                FirstBytes::Partial | FirstBytes::Other => Newcomer::WithRequest,
            };
            self.entry
                .has_sent
                .store(newcomer == Newcomer::WithRequest, Ordering::Relaxed);
            if registry.is_aborted() {
                return None;
            }
            if let Some(registration) = registry.register() {
                return Some(registration);
            }
            let is_new = newcomer == Newcomer::Silent && begun.elapsed() < FIRST_BYTES_TIMEOUT;
            // Cancel-safe: all futures only wait, and the next turn checks everything again.
            tokio::select! {
                biased;
                () = self.entry.evicted.notified() => break,
                () = more_bytes(stream, first_bytes) => {}
                () = sleep(FIRST_BYTES_TIMEOUT), if is_new => {}
                () = registry.close_one_and_wait(newcomer), if !is_new => {}
            }
            if begun.elapsed() >= limit {
                break;
            }
        }
        // A connection that was evicted for its silence may have sent a health check since, or be
        // about to.
        if peek(stream) == FirstBytes::Missing {
            let _ = tokio::time::timeout(FIRST_BYTES_TIMEOUT, stream.readable()).await;
        }
        if peek(stream) == FirstBytes::HealthCheck
            && let Some(registration) = registry.register_health_check()
        {
            return Some(registration);
        }
        send_overloaded(stream);
        None
    }
}

/// The first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstBytes {
    Missing,
    /// A part of a head that may become a health check.
    Partial,
    HealthCheck,
    Other,
    /// None will come: the client has closed its side.
    Closed,
}

/// Waits until more bytes may have come that tell a health check from other requests.
async fn more_bytes(stream: &TcpStream, first_bytes: FirstBytes) {
    match first_bytes {
        FirstBytes::Missing => drop(stream.readable().await),
        // The stream stays readable, so tokio would not wait.
        FirstBytes::Partial | FirstBytes::HealthCheck => sleep(PEEK_PAUSE).await,
        FirstBytes::Other | FirstBytes::Closed => std::future::pending().await,
    }
}

/// Looks at the first bytes, and leaves them in the kernel.
fn peek(stream: &TcpStream) -> FirstBytes {
    let mut bytes = [0; MAX_HEALTH_CHECK_BYTES];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // Through tokio, which must learn that no bytes are there, or `readable` would not wait.
    let peeked = stream.try_io(Interest::READABLE, || {
        Ok(rustix::net::recv(stream, &mut bytes, flags)?.1)
    });
    match peeked {
        Ok(0) => FirstBytes::Closed,
        Ok(count) => classify(&bytes[..count]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => FirstBytes::Missing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => FirstBytes::Missing,
        Err(_) => FirstBytes::Closed,
    }
}

/// Tells a health check from other requests.
fn classify(bytes: &[u8]) -> FirstBytes {
    // Empty lines before a request are allowed (RFC 9112, section 2.2).
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte));
    let bytes = start.map_or(&[][..], |start| &bytes[start..]);
    let could_be = HEALTH_PATHS.iter().any(|path| {
        ["GET ", "HEAD "].iter().any(|method| {
            let line = [method.as_bytes(), path.as_bytes()].concat();
            let length = line.len().min(bytes.len());
            let next = bytes.get(line.len());
            bytes[..length] == line[..length] && next.is_none_or(|next| b" ?".contains(next))
        })
    });
    let has_end = [&b"\r\n\r\n"[..], b"\n\n"]
        .iter()
        .any(|end| bytes.windows(end.len()).any(|window| window == *end));
    match (could_be, has_end) {
        (true, true) => FirstBytes::HealthCheck,
        (true, false) if bytes.len() < MAX_HEALTH_CHECK_BYTES => FirstBytes::Partial,
        (true | false, _) => FirstBytes::Other,
    }
}

/// Answers a client that has sent bytes with 429.
fn send_overloaded(stream: &TcpStream) {
    let mut scratch = [0; 16 * 1024];
    // If bytes were left unread, the client's kernel would throw the response away.
    let mut has_sent = false;
    for _ in 0..8 {
        match rustix::net::recv(stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => has_sent = true,
            Ok(_) | Err(_) => break,
        }
    }
    if has_sent {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // No byte was written before, so the kernel has room for these.
        let _ = rustix::net::send(stream, overloaded().as_bytes(), flags);
    }
}

/// The response to a connection that found no place, in the form of all error responses.
fn overloaded() -> String {
    let body = r#"{"detail":"Overloaded: too many connections are open, all of them in use"}"#;
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
         x-faas-error: {}\r\nx-faas-executed: {}\r\nx-request-id: {:016x}\r\n\
         retry-after: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        Code::Overloaded.as_str(),
        Code::Overloaded.executed().as_str(),
        fastrand::u64(..),
        RETRY_SOON.as_secs(),
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_known_by_their_first_bytes() {
        for (bytes, expected) in [
            (
                "GET /health HTTP/1.1\r\nhost: a\r\n\r\n",
                FirstBytes::HealthCheck,
            ),
            (
                "\r\nHEAD /_/ready?x HTTP/1.0\r\n\r\n",
                FirstBytes::HealthCheck,
            ),
            ("GET /ready HTTP/1.1\nhost: a\n\n", FirstBytes::HealthCheck),
            ("GET /health HTTP/1.1\r\nhost: a\r\n", FirstBytes::Partial),
            ("GET /hea", FirstBytes::Partial),
            ("G", FirstBytes::Partial),
            ("\r\n", FirstBytes::Partial),
            ("GET /healthy HTTP/1.1\r\n\r\n", FirstBytes::Other),
            ("GET /docs HTTP/1.1\r\n\r\n", FirstBytes::Other),
            ("POST /health HTTP/1.1\r\n\r\n", FirstBytes::Other),
            ("POST / HTTP/1.1\r\n", FirstBytes::Other),
            ("get /health HTTP/1.1\r\n\r\n", FirstBytes::Other),
        ] {
            assert_eq!(classify(bytes.as_bytes()), expected, "{bytes:?}");
        }
        let long = format!(
            "GET /health HTTP/1.1\r\nx: {}",
            "y".repeat(MAX_HEALTH_CHECK_BYTES)
        );
        assert_eq!(classify(long.as_bytes()), FirstBytes::Other);
    }

    #[tokio::test]
    async fn a_health_check_that_comes_as_its_client_is_evicted_is_answered() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let registry = Registry::of_tests(1);
        let _regular = registry.register().unwrap();
        let room = Arc::new(WaitingRoom::default());
        let waiting = room.join();
        let mut place =
            Box::pin(waiting.wait_for_place(&stream, &registry, Duration::from_secs(60)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(place.as_mut().poll(&mut context).is_pending(), "silent");
        let _others: Vec<_> = (0..MAX_WAITING).map(|_| room.join()).collect();
        assert!(
            place.as_mut().poll(&mut context).is_pending(),
            "turned away"
        );
        client.writable().await.unwrap();
        client.try_write(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        assert!(place.await.is_some());
    }

    #[test]
    fn when_too_many_wait_the_first_silent_connection_is_evicted() {
        let room = Arc::new(WaitingRoom::default());
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| room.join()).collect();
        let is_evicted = |waiting: &WaitingConnection| {
            let mut notified = std::pin::pin!(waiting.entry.evicted.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            notified.as_mut().poll(&mut context).is_ready()
        };
        for waiting in &waiting[..2] {
            waiting.entry.has_sent.store(true, Ordering::Relaxed);
        }
        waiting.push(room.join());
        assert_eq!(room.lock().len(), MAX_WAITING);
        let evicted: Vec<_> = (0..waiting.len())
            .filter(|index| is_evicted(&waiting[*index]))
            .collect();
        assert_eq!(evicted, [2]);
        for waiting in &waiting {
            waiting.entry.has_sent.store(true, Ordering::Relaxed);
        }
        waiting.push(room.join());
        assert!(is_evicted(&waiting[0]), "all have sent: the first goes");
        drop(waiting);
        assert!(room.is_empty());
    }
}
