//! The accept loop of one listening socket, which cannot fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::body::{HttpResponse, RequestBody};
use super::connection;
use super::registry::{Newcomer, Registry};
use super::sockets::BACKLOG;
use super::waiting_room::WaitingRoom;
use crate::logging::throttle::Throttle;
use crate::threads::Threads;

/// The shortest time between two warnings about accepting.
pub(super) const WARNING_PAUSE: Duration = Duration::from_secs(5);

/// One listening socket, and all that its connections need.
pub(super) struct Acceptor<A> {
    pub(super) socket: TcpListener,
    pub(super) registry: Arc<Registry>,
    pub(super) waiting_room: Arc<WaitingRoom>,
    pub(super) tracker: TaskTracker,
    pub(super) answer: A,
    pub(super) threads: Threads,
    pub(super) throttle: Throttle,
}

impl<A, F> Acceptor<A>
where
    A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
    F: Future<Output = HttpResponse> + Send + 'static,
{
    /// Accepts connections until `close`, then the connections that the backlog holds.
    pub(super) async fn run(mut self, close: CancellationToken) {
        loop {
            // Cancel-safe: a connection leaves the backlog in the same poll that returns it.
            let accepted = tokio::select! {
                biased;
                () = close.cancelled() => break,
                accepted = self.socket.accept() => accepted.map(|(stream, _)| stream),
            };
            self.start_connection(accepted).await;
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
            self.start_connection(accepted).await;
        }
    }

    /// Serves an accepted connection in a task of its own; pauses if the system has no descriptor
    /// or memory left for one.
    async fn start_connection(&mut self, accepted: io::Result<TcpStream>) {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_of_one_connection(&error) => return,
            Err(error) => {
                if let Some(withheld) = self.throttle.admit() {
                    warn!(%error, withheld, "cannot accept connections, trying again");
                }
                // Most likely there are no descriptors left: closing an idle connection helps. Each
                // try either follows a closed connection or comes after a pause.
                let newcomer = Newcomer::WithRequest;
                self.registry.close_one_and_wait(newcomer).await;
                return;
            }
        };
        // Connections that wait already come first.
        let registration = match self.waiting_room.is_empty() {
            true => self.registry.register(),
            false => None,
        };
        let answer = self.answer.clone();
        if let Some(registration) = registration {
            self.spawn(stream, async move |stream| {
                connection::serve(stream, registration, answer).await;
            });
            return;
        }
        let waiting = self.waiting_room.join();
        let registry = Arc::clone(&self.registry);
        let limit = self.registry.limits().longest_wait();
        self.spawn(stream, async move |stream| {
            if let Some(registration) = waiting.wait_for_place(&stream, &registry, limit).await {
                connection::serve(stream, registration, answer).await;
            }
        });
    }

    /// Runs the task of a connection on the thread with the fewest connections.
    fn spawn<T: Future<Output = ()> + Send + 'static>(
        &self,
        stream: TcpStream,
        task: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) {
        let thread = self.threads.for_connection();
        let Some(runtime) = thread.elsewhere() else {
            let task = task(stream);
            self.tracker.spawn(async move {
                task.await;
                drop(thread);
            });
            return;
        };
        // The runtime of this thread forgets the socket, and the other thread's gets to know it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let runtime = runtime.clone();
        self.tracker.spawn_on(
            async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => task(stream).await,
                    Err(error) => debug!(%error, "connection lost on its way to its thread"),
                }
                drop(thread);
            },
            &runtime,
        );
    }
}

/// Accepts a connection that is in the backlog, asking the kernel itself.
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
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_one_connection_are_tried_again_at_once() {
        let is_of_one = |errno: Errno| is_of_one_connection(&errno.into());
        assert!(
            [Errno::CONNABORTED, Errno::PERM, Errno::INTR]
                .into_iter()
                .all(is_of_one)
        );
        let lasting = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::INVAL,
        ];
        assert!(!lasting.into_iter().any(is_of_one));
    }
}
