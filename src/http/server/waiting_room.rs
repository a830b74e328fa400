//! Connections for which there is no place yet.
//!
//! They wait in a task each, in the order in which they came, and nothing of them is read: what
//! the first bytes are is only looked at. A question of health is answered at once, on a place
//! beyond the limit: such a connection gets one answer and is closed, so it holds that place for
//! less than a millisecond. All others wait for a regular place, up to a limit in number and time.

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

use super::registry::{Need, Registration, Registry};

/// Connections that wait at one time.
pub(super) const MOST_WAITING: usize = 128;

/// A connection that has sent nothing pushes nobody out in this time: most send at once, and what
/// they send may need no room.
const SILENCE: Duration = Duration::from_millis(20);

/// How often a connection of which a part of a head has come is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The longest head of a question of health, in bytes.
const LONGEST_QUESTION: usize = 2048;

/// What is answered on places beyond the limit.
const QUESTIONS: [&str; 4] = ["/health", "/ready", "/_/health", "/_/ready"];

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    waiting: Mutex<VecDeque<Arc<Waiter>>>,
}

/// One who waits.
#[derive(Debug, Default)]
struct Waiter {
    has_sent: AtomicBool,
    turned_away: Notify,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// A part of a head, which may become a question of health.
    Part,
    Question,
    Other,
    /// The client has left.
    Gone,
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Comes in; somebody has to go if too many wait: the first that has sent nothing, else the
    /// first.
    pub(super) fn come_in(self: &Arc<Self>) -> Waiting {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = self.lock();
        if waiting.len() >= MOST_WAITING {
            let is_silent = |waiter: &Arc<Waiter>| !waiter.has_sent.load(Ordering::Relaxed);
            let first = waiting.iter().position(is_silent).unwrap_or(0);
            if let Some(waiter) = waiting.remove(first) {
                waiter.turned_away.notify_one();
            }
        }
        waiting.push_back(Arc::clone(&waiter));
        Waiting {
            room: Arc::clone(self),
            waiter,
        }
    }
}

/// A connection that waits; dropping it leaves the room.
pub(super) struct Waiting {
    room: Arc<WaitingRoom>,
    waiter: Arc<Waiter>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room
            .lock()
            .retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
    }
}

impl Waiting {
    /// Waits for a place, for as long as may be; tells the client if there is none.
    pub(super) async fn for_place(
        self,
        stream: &TcpStream,
        registry: &Arc<Registry>,
        limit: Duration,
    ) -> Option<Registration> {
        let begun = Instant::now();
        loop {
            let seen = look(stream);
            let need = match seen {
                Seen::Gone => return None,
                Seen::Question => match registry.enter_as_guest() {
                    Some(registration) => return Some(registration),
                    None => Need::Request,
                },
                Seen::Nothing => Need::Silent,
                Seen::Part | Seen::Other => Need::Request,
            };
            self.waiter
                .has_sent
                .store(seen != Seen::Nothing, Ordering::Relaxed);
            if registry.is_aborted() {
                return None;
            }
            if let Some(registration) = registry.enter() {
                return Some(registration);
            }
            let is_new = need == Need::Silent && begun.elapsed() < SILENCE;
            // Cancel-safe: all are only waited for, and the next turn looks at everything.
            tokio::select! {
                biased;
                () = self.waiter.turned_away.notified() => break,
                () = news(stream, seen) => {}
                () = sleep(SILENCE), if is_new => {}
                () = registry.make_room_and_wait(need), if !is_new => {}
            }
            if begun.elapsed() >= limit {
                break;
            }
        }
        // Turned away as one that was silent, it may have asked since, or be about to.
        if look(stream) == Seen::Nothing {
            let _ = tokio::time::timeout(SILENCE, stream.readable()).await;
        }
        if look(stream) == Seen::Question
            && let Some(registration) = registry.enter_as_guest()
        {
            return Some(registration);
        }
        refuse(stream);
        None
    }
}

/// Waits until more may have come that would change how a connection is looked at.
async fn news(stream: &TcpStream, seen: Seen) {
    match seen {
        Seen::Nothing => drop(stream.readable().await),
        // It stays readable.
        Seen::Part | Seen::Question => sleep(LOOK_PAUSE).await,
        Seen::Other | Seen::Gone => std::future::pending().await,
    }
}

/// Looks at the first bytes, and leaves them where they are.
fn look(stream: &TcpStream) -> Seen {
    let mut bytes = [0; LONGEST_QUESTION];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // Through tokio, which has to know when nothing is there: it is waited for with it.
    let seen = stream.try_io(Interest::READABLE, || {
        Ok(rustix::net::recv(stream, &mut bytes, flags)?.1)
    });
    match seen {
        Ok(0) => Seen::Gone,
        Ok(count) => judge(&bytes[..count]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Seen::Nothing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Seen::Nothing,
        Err(_) => Seen::Gone,
    }
}

/// What the first bytes of a connection ask for.
fn judge(bytes: &[u8]) -> Seen {
    // Empty lines before a request are allowed (RFC 9112, section 2.2).
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte));
    let bytes = start.map_or(&[][..], |start| &bytes[start..]);
    let could_be = QUESTIONS.iter().any(|path| {
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
        (true, true) => Seen::Question,
        (true, false) if bytes.len() < LONGEST_QUESTION => Seen::Part,
        (true | false, _) => Seen::Other,
    }
}

/// Tells a client that has sent something that there is no place.
fn refuse(stream: &TcpStream) {
    let mut scratch = [0; 16 * 1024];
    // Unread bytes would have the client's kernel throw the answer away.
    let mut has_sent = false;
    for _ in 0..8 {
        match rustix::net::recv(stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => has_sent = true,
            Ok(_) | Err(_) => break,
        }
    }
    if has_sent {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // Nothing was written before, so there is room for it.
        let _ = rustix::net::send(stream, refusal().as_bytes(), flags);
    }
}

/// What a connection is told that waited in vain, as `respond` would say it.
fn refusal() -> String {
    let body = r#"{"detail":"Overloaded: too many connections are open, all of them in use"}"#;
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n\
         x-faas-error: overloaded\r\nx-faas-executed: no\r\nx-request-id: {:016x}\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        fastrand::u64(..),
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_health_are_known_by_their_first_bytes() {
        for (bytes, seen) in [
            ("GET /health HTTP/1.1\r\nhost: a\r\n\r\n", Seen::Question),
            ("\r\nHEAD /_/ready?x HTTP/1.0\r\n\r\n", Seen::Question),
            ("GET /ready HTTP/1.1\nhost: a\n\n", Seen::Question),
            ("GET /health HTTP/1.1\r\nhost: a\r\n", Seen::Part),
            ("GET /hea", Seen::Part),
            ("G", Seen::Part),
            ("\r\n", Seen::Part),
            ("GET /healthy HTTP/1.1\r\n\r\n", Seen::Other),
            ("GET /docs HTTP/1.1\r\n\r\n", Seen::Other),
            ("POST /health HTTP/1.1\r\n\r\n", Seen::Other),
            ("POST / HTTP/1.1\r\n", Seen::Other),
            ("get /health HTTP/1.1\r\n\r\n", Seen::Other),
        ] {
            assert_eq!(judge(bytes.as_bytes()), seen, "{bytes:?}");
        }
        let long = format!(
            "GET /health HTTP/1.1\r\nx: {}",
            "y".repeat(LONGEST_QUESTION)
        );
        assert_eq!(judge(long.as_bytes()), Seen::Other);
    }

    #[tokio::test]
    async fn a_question_that_came_as_its_client_was_turned_away_is_answered() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let registry = Registry::of_tests(1);
        let _regular = registry.enter().unwrap();
        let room = Arc::new(WaitingRoom::default());
        let waiting = room.come_in();
        let mut place = Box::pin(waiting.for_place(&stream, &registry, Duration::from_secs(60)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(place.as_mut().poll(&mut context).is_pending(), "silent");
        let _others: Vec<_> = (0..MOST_WAITING).map(|_| room.come_in()).collect();
        assert!(
            place.as_mut().poll(&mut context).is_pending(),
            "turned away"
        );
        client.writable().await.unwrap();
        client.try_write(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        assert!(place.await.is_some());
    }

    #[test]
    fn when_too_many_wait_the_first_that_is_silent_goes() {
        let room = Arc::new(WaitingRoom::default());
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| room.come_in()).collect();
        let is_turned_away = |waiting: &Waiting| {
            let mut notified = std::pin::pin!(waiting.waiter.turned_away.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            notified.as_mut().poll(&mut context).is_ready()
        };
        for waiting in &waiting[..2] {
            waiting.waiter.has_sent.store(true, Ordering::Relaxed);
        }
        waiting.push(room.come_in());
        assert_eq!(room.lock().len(), MOST_WAITING);
        let turned_away: Vec<_> = (0..waiting.len())
            .filter(|index| is_turned_away(&waiting[*index]))
            .collect();
        assert_eq!(turned_away, [2]);
        for waiting in &waiting {
            waiting.waiter.has_sent.store(true, Ordering::Relaxed);
        }
        waiting.push(room.come_in());
        assert!(is_turned_away(&waiting[0]), "all have sent: the first goes");
        drop(waiting);
        assert!(room.is_empty());
    }
}
