//! The front door: sockets that listen, and what happens to all connections at the end.
//!
//! Owned here: the listening sockets, the accept loops (which cannot fail) and the tasks of all
//! connections. Never here: what a request means.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::body::RequestBody;
use super::connection;
use super::registry::{Need, Registry};
use super::waiting_room::WaitingRoom;
use crate::budget::MemoryBudget;
use crate::config::HttpConfig;
use crate::error::StartError;
use crate::logging::throttle::Throttle;

/// Connections that may wait to be accepted; the kernel cuts this to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// The shortest time between two log lines about accepting.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(5);

/// How long idle connections live after the close has begun: a client that sends a request just
/// then loses nothing, and is told that the connection closes. Longer than a round trip and the
/// time between two requests of a busy client.
pub(crate) const LAST_REQUESTS_COME_WITHIN: Duration = Duration::from_secs(1);

/// From letting one connection go for want of memory to letting the next one go.
const RELIEF_PAUSE: Duration = Duration::from_millis(10);

/// How often to look for one port that is free on all addresses.
const PORT_ATTEMPTS: usize = 16;

/// Sockets that listen, not yet served.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// Where it is told that memory is short.
    budget: Option<MemoryBudget>,
}

impl Listener {
    /// Listens on all configured addresses; must be called inside a runtime.
    ///
    /// Addresses with port 0 get the same port. An address that this machine does not have (`::1`
    /// where there is no IPv6) is left out as long as another one is there.
    ///
    /// # Errors
    ///
    /// When one of the others cannot be listened on, or none is left.
    pub fn bind(config: &HttpConfig) -> Result<Listener, StartError> {
        Listener::bind_to(&config.listen)
    }

    /// The same for these addresses.
    ///
    /// # Errors
    ///
    /// As for [`Listener::bind`].
    pub fn bind_to(addresses: &[SocketAddr]) -> Result<Listener, StartError> {
        let mut attempt = 1;
        loop {
            match bind_all(addresses) {
                // The port that was free on the first address was not on another one.
                Err(Refusal {
                    is_picked: true, ..
                }) if attempt < PORT_ATTEMPTS => attempt += 1,
                Err(refusal) => return Err(refusal.error),
                Ok(sockets) => {
                    return Ok(Listener {
                        sockets,
                        budget: None,
                    });
                }
            }
        }
    }

    /// Lets the slowest connections go while this budget is short.
    #[must_use]
    pub fn giving_way(self, budget: MemoryBudget) -> Listener {
        Listener {
            budget: Some(budget),
            ..self
        }
    }

    /// Has the kernel hold little of what comes on each connection, however fast it was read before:
    /// by itself it goes up to megabytes, which the memory limit of a control group counts.
    #[must_use]
    pub fn holding_little(self) -> Listener {
        for socket in &self.sockets {
            if let Err(error) = set_socket_recv_buffer_size(socket, RECEIVE_BYTES) {
                warn!(%error, "the receive buffers of connections cannot be limited");
            }
        }
        self
    }

    /// The addresses listened on, with the ports that were picked.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Serves until `close` is cancelled and no connection is left, or `abort` is cancelled.
    ///
    /// On `close` it stops listening once the connections that wait in the backlog are accepted.
    /// Requests that have come, in part or whole, or that come within a second, are answered with
    /// `connection: close`; after that second idle connections are closed. On `abort` all
    /// connections are dropped. Dropping this future is like `abort`.
    pub async fn serve<A, F>(
        self,
        config: &HttpConfig,
        answer: A,
        close: CancellationToken,
        abort: CancellationToken,
    ) where
        A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        self.serve_in(Registry::new(config), answer, close, abort)
            .await;
    }

    async fn serve_in<A, F>(
        self,
        registry: Arc<Registry>,
        answer: A,
        close: CancellationToken,
        abort: CancellationToken,
    ) where
        A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let _guard = AbortOnDrop(Arc::clone(&registry));
        let tracker = TaskTracker::new();
        let waiting_room = Arc::<WaitingRoom>::default();
        let mut doors = JoinSet::new();
        for socket in self.sockets {
            let door = Door {
                socket,
                registry: Arc::clone(&registry),
                waiting_room: Arc::clone(&waiting_room),
                tracker: tracker.clone(),
                answer: answer.clone(),
                throttle: Throttle::once_in(COMPLAINT_PAUSE),
            };
            doors.spawn(door.keep(close.clone()));
        }
        let life = async {
            close.cancelled().await;
            registry.drain();
            while doors.join_next().await.is_some() {}
            tracker.close();
            // Cancel-safe: it is only asked whether all have gone.
            let _ = timeout(LAST_REQUESTS_COME_WITHIN, tracker.wait()).await;
            registry.close_idle();
            tracker.wait().await;
        };
        // Cancel-safe: what is left of a life that is cut short is done below.
        tokio::select! {
            () = life => return,
            () = abort.cancelled() => (),
            never = registry.sweep() => match never {},
            never = give_way(&registry, self.budget.as_ref()) => match never {},
        }
        doors.shutdown().await;
        registry.abort();
        tracker.close();
        tracker.wait().await;
    }
}

/// Lets the slowest connections go, one after the other, while memory is short.
async fn give_way(registry: &Registry, budget: Option<&MemoryBudget>) -> Infallible {
    let Some(budget) = budget else {
        return std::future::pending().await;
    };
    loop {
        budget.shortage().await;
        registry.let_the_slowest_go();
        // What it held is given back in its own task.
        sleep(RELIEF_PAUSE).await;
    }
}

/// Drops all connections when the service is dropped, so that none outlives it.
struct AbortOnDrop(Arc<Registry>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the addresses could not be listened on.
struct Refusal {
    error: StartError,
    /// The port was one that we had picked, so another one may do.
    is_picked: bool,
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Refusal> {
    let mut sockets: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for wanted in addresses {
        let mut address = *wanted;
        let picked = sockets.first().and_then(|socket| socket.local_addr().ok());
        if let (0, Some(picked)) = (wanted.port(), picked) {
            address.set_port(picked.port());
        }
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(source) => {
                let is_missing = is_missing_address(&source);
                // The kernel may pick the same port for two that are bound at the same moment, and
                // tell the second one only when it listens.
                let is_picked = source.kind() == io::ErrorKind::AddrInUse && wanted.port() == 0;
                let error = StartError::Listen {
                    address: address.to_string(),
                    source,
                };
                if !is_missing {
                    return Err(Refusal { error, is_picked });
                }
                warn!(%address, "this machine does not have the address");
                missing = Some(Refusal { error, is_picked });
            }
        }
    }
    match missing {
        Some(refusal) if sockets.is_empty() => Err(refusal),
        Some(_) | None => Ok(sockets),
    }
}

/// What the kernel takes of a response ahead of its client, in bytes. By itself it takes megabytes
/// a connection, and a container's limit counts them: 500 clients that pipeline requests for the
/// documents and read nothing would hold 1.5 GiB.
const UNSENT_BYTES: u32 = 64 * 1024;

/// The kernel's receive buffer of a connection under a memory limit, in bytes; it adds as much again
/// for itself. Two of the largest segments on loopback.
const RECEIVE_BYTES: usize = 128 * 1024;

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    // Nonblocking and close-on-exec from the start.
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // Linux hands it on to the accepted sockets: one call instead of one a connection.
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_missing_address(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// One listening socket and what its connections need.
struct Door<A> {
    socket: TcpListener,
    registry: Arc<Registry>,
    waiting_room: Arc<WaitingRoom>,
    tracker: TaskTracker,
    answer: A,
    throttle: Throttle,
}

impl<A, F> Door<A>
where
    A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    /// Accepts until `close`, then takes in what the backlog holds.
    async fn keep(mut self, close: CancellationToken) {
        loop {
            // Cancel-safe: a connection leaves the backlog in the same poll that returns it.
            let accepted = tokio::select! {
                biased;
                () = close.cancelled() => break,
                accepted = self.socket.accept() => accepted.map(|(stream, _)| stream),
            };
            self.take(accepted).await;
        }
        // Closing the socket would reset the connections that are in the backlog, whose clients
        // may have sent a request already. tokio may not have heard of them yet.
        for _ in 0..BACKLOG {
            let accepted = accept_now(&self.socket);
            if let Err(error) = &accepted
                && error.kind() == io::ErrorKind::WouldBlock
            {
                break;
            }
            self.take(accepted).await;
        }
    }

    /// Starts on a connection, or waits a moment if the system has nothing left for one.
    async fn take(&mut self, accepted: io::Result<TcpStream>) {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_of_one_connection(&error) => return,
            Err(error) => {
                if let Some(withheld) = self.throttle.admit() {
                    warn!(%error, withheld, "cannot accept connections, trying again");
                }
                // Most likely there are no descriptors left: one that nobody uses helps. Each try
                // either follows a connection that has left or comes after a pause.
                self.registry.make_room_and_wait(Need::Request).await;
                return;
            }
        };
        // Those who wait already come first.
        let registration = match self.waiting_room.is_empty() {
            true => self.registry.enter(),
            false => None,
        };
        if let Some(registration) = registration {
            let service = connection::serve(stream, registration, self.answer.clone());
            self.tracker.spawn(service);
            return;
        }
        let waiting = self.waiting_room.come_in();
        let (registry, answer) = (Arc::clone(&self.registry), self.answer.clone());
        let limit = self.registry.limits().longest_wait();
        self.tracker.spawn(async move {
            if let Some(registration) = waiting.for_place(&stream, &registry, limit).await {
                connection::serve(stream, registration, answer).await;
            }
        });
    }
}

/// Accepts what is there, asking the kernel itself.
fn accept_now(socket: &TcpListener) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let accepted = rustix::net::accept_with(socket, flags)?;
    TcpStream::from_std(std::net::TcpStream::from(accepted))
}

/// Whether the error took a connection out of the backlog, so that the next one can be accepted at
/// once. accept(2) passes on network errors of the new connection; a packet filter says EPERM.
fn is_of_one_connection(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| {
        matches!(
            errno,
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
                | Errno::PERM
        )
    })
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
