//! A server's listener: binds its addresses, serves their connections, and ends them.
//!
//! Owned here: the listening sockets and the tasks of all connections. Never here: the meaning of a
//! request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acceptor::{Acceptor, WARNING_PAUSE};
use super::body::{HttpResponse, RequestBody};
use super::registry::Registry;
use super::sockets::{bind_all, limit_receive_buffers, take_over};
use super::waiting_room::WaitingRoom;
use crate::budget::MemoryBudget;
use crate::config::HttpConfig;
use crate::error::StartError;
use crate::logging::throttle::Throttle;
use crate::threads::Threads;

/// How long idle connections stay open after the close has begun: a client that sends a request at
/// that moment loses nothing, and is told that the connection closes. Longer than a round trip and
/// the time between two requests of a busy client.
pub(crate) const IDLE_CLOSE_DELAY: Duration = Duration::from_secs(1);

/// The time between two connections that are closed because memory is short.
const RELIEF_PAUSE: Duration = Duration::from_millis(10);

/// Sockets that listen, not yet served.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// The budget on whose shortage the slowest connections are closed.
    budget: Option<MemoryBudget>,
}

impl Listener {
    /// Listens on all addresses; must be called inside a runtime.
    ///
    /// Addresses with port 0 get the same port. An address that this machine does not have (`::1`
    /// where there is no IPv6) is left out as long as another address is there.
    ///
    /// # Errors
    ///
    /// When an address that this machine has cannot be listened on, or no address is left.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Listener, StartError> {
        Ok(Listener {
            sockets: bind_all(addresses)?,
            budget: None,
        })
    }

    /// Takes over sockets that listen already; must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses one of the options that the sockets are to have.
    pub fn take_over(sockets: Vec<std::net::TcpListener>) -> Result<Listener, StartError> {
        let sockets: Result<Vec<TcpListener>, StartError> =
            sockets.into_iter().map(take_over).collect();
        Ok(Listener {
            sockets: sockets?,
            budget: None,
        })
    }

    /// Closes the slowest connections while this budget is short.
    #[must_use]
    pub fn with_memory_budget(self, budget: MemoryBudget) -> Listener {
        Listener {
            budget: Some(budget),
            ..self
        }
    }

    /// Limits the kernel's receive buffer of each connection, for a worker under a memory limit.
    #[must_use]
    pub fn with_small_receive_buffers(self) -> Listener {
        limit_receive_buffers(&self.sockets);
        self
    }

    /// The addresses listened on, with the ports that were picked.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Serves on these threads until `close` is cancelled and no connection is left, or `abort` is
    /// cancelled.
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
        threads: Threads,
    ) where
        A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
        F: Future<Output = HttpResponse> + Send + 'static,
    {
        self.serve_in(Registry::new(config), answer, close, abort, threads)
            .await;
    }

    async fn serve_in<A, F>(
        self,
        registry: Arc<Registry>,
        answer: A,
        close: CancellationToken,
        abort: CancellationToken,
        threads: Threads,
    ) where
        A: Fn(Request<RequestBody>) -> F + Clone + Send + 'static,
        F: Future<Output = HttpResponse> + Send + 'static,
    {
        let _guard = AbortOnDrop(Arc::clone(&registry));
        let tracker = TaskTracker::new();
        let waiting_room = Arc::<WaitingRoom>::default();
        let mut acceptors = JoinSet::new();
        for socket in self.sockets {
            let acceptor = Acceptor {
                socket,
                registry: Arc::clone(&registry),
                waiting_room: Arc::clone(&waiting_room),
                tracker: tracker.clone(),
                answer: answer.clone(),
                threads: threads.clone(),
                throttle: Throttle::once_in(WARNING_PAUSE),
            };
            acceptors.spawn(acceptor.run(close.clone()));
        }
        let until_closed = async {
            close.cancelled().await;
            registry.announce_close();
            while acceptors.join_next().await.is_some() {}
            tracker.close();
            // Cancel-safe: it only waits for tasks, and takes nothing from them.
            let _ = timeout(IDLE_CLOSE_DELAY, tracker.wait()).await;
            registry.close_idle();
            tracker.wait().await;
        };
        // Cancel-safe: the steps below end all that an unfinished close has left.
        tokio::select! {
            () = until_closed => return,
            () = abort.cancelled() => (),
            never = registry.sweep() => match never {},
            never = relieve_memory(&registry, self.budget.as_ref()) => match never {},
        }
        acceptors.shutdown().await;
        registry.abort();
        tracker.close();
        tracker.wait().await;
    }
}

/// Closes the slowest connection, time after time, while memory is short.
async fn relieve_memory(registry: &Registry, budget: Option<&MemoryBudget>) -> Infallible {
    let Some(budget) = budget else {
        return std::future::pending().await;
    };
    loop {
        budget.shortage().await;
        registry.ask_slowest_to_close();
        // The connection's own task gives back the memory that it held.
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

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
