//! The service manager (systemd): the sockets that it opened, and what it is told of the worker.
//!
//! Without one, there are no sockets and nobody is told. With `Type=notify` a start is over when a
//! process of the handler is up, as `/ready` says; a watchdog is answered by the thread that accepts
//! connections, so that a thread that hangs is noticed.

use crate::shutdown::{Shutdown, Stage};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Time between two questions whether a process is up, until one is.
const READY_PERIOD: Duration = Duration::from_millis(20);

/// Variables by which a service manager speaks to the program that it starts. They are not for the
/// processes of the handler: a word from one of them would count as the worker's.
pub const VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// Listening sockets that the service manager opened and passed on (socket activation).
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<TcpListener>);

impl InheritedSockets {
    /// Takes the sockets that `LISTEN_FDS` and `LISTEN_PID` announce for this process. Must be called
    /// before the program has a second thread, because it takes the variables out of the environment.
    ///
    /// # Errors
    ///
    /// When a descriptor is no listening TCP socket.
    pub fn take() -> Result<InheritedSockets, String> {
        let mut announced = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..announced.len() {
            let socket = announced.take_tcp_listener(index);
            let socket = socket.map_err(|error| {
                format!("LISTEN_FDS: socket {index} is no TCP socket that listens: {error}")
            })?;
            sockets.extend(socket);
        }
        Ok(InheritedSockets(sockets))
    }

    /// The sockets for callers, and those for operators: the ones on the port of `--admin`.
    pub fn split(self, admin: Option<SocketAddr>) -> (Vec<TcpListener>, Vec<TcpListener>) {
        let admin_port = admin.map(|address| address.port());
        self.0.into_iter().partition(|socket| {
            let port = socket.local_addr().map(|address| address.port());
            admin_port.is_none() || port.ok() != admin_port
        })
    }
}

/// Tells the service manager when the worker is ready and when it stops, and answers its watchdog;
/// never ends.
pub async fn keep_told(is_ready: impl Fn() -> bool, shutdown: &Shutdown) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let watchdog = async {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        debug!(limit_ms = limit.as_millis(), "answering a watchdog");
        loop {
            tell([NotifyState::Watchdog]).await;
            // Half of the time: one answer may be late.
            sleep(limit / 2).await;
        }
    };
    let stages = async {
        while !is_ready() && !shutdown.is_at_least(Stage::Draining) {
            sleep(READY_PERIOD).await;
        }
        if !shutdown.is_at_least(Stage::Draining) {
            tell([NotifyState::Ready, NotifyState::Status("ready")]).await;
        }
        shutdown.reached(Stage::Draining).await;
        tell([
            NotifyState::Stopping,
            NotifyState::Status("finishing requests"),
        ])
        .await;
        std::future::pending::<()>().await;
    };
    let (never, ()) = tokio::join!(watchdog, stages);
    never
}

/// Sends states to the service manager, beside the threads that serve: its socket may be full.
async fn tell<const N: usize>(states: [NotifyState<'static>; N]) {
    let told = spawn_blocking(move || sd_notify::notify(&states)).await;
    if let Err(error) = told.unwrap_or_else(|error| Err(io::Error::other(error))) {
        warn!(%error, "the service manager cannot be told of the worker");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_on_the_port_of_operators_are_theirs() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (callers, operators) = (bind(), bind());
        let admin = operators.local_addr().unwrap();
        let port = callers.local_addr().unwrap().port();
        let sockets = InheritedSockets(vec![operators, callers]);
        let (callers, operators) = sockets.split(Some(admin));
        assert_eq!(callers[0].local_addr().unwrap().port(), port);
        assert_eq!(operators[0].local_addr().unwrap(), admin);
        assert_eq!((callers.len(), operators.len()), (1, 1));
        let (callers, operators) = InheritedSockets(callers).split(None);
        assert_eq!((callers.len(), operators.len()), (1, 0));
    }
}
