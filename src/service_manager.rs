//! The service manager (systemd): the sockets that it opened, and what it is told of the worker.
//!
//! Without one, there are no sockets and no messages. With `Type=notify` a start is over when a
//! process of the handler is up, as `/ready` says; a watchdog is answered by the thread that
//! accepts connections, so that a thread that hangs is noticed.

use crate::logging::throttle::Throttle;
use crate::shutdown::{Shutdown, Stage};
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{Resource, getrlimit};
use sd_notify::NotifyState;
use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Time between two tries to tell the service manager.
const RETRY_PERIOD: Duration = Duration::from_millis(20);

/// Least time between two answers to a watchdog.
const MIN_WATCHDOG_PERIOD: Duration = Duration::from_millis(10);

/// Least time between two warnings that the service manager cannot be told.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

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
    /// Takes the sockets that `LISTEN_FDS` and `LISTEN_PID` announce for this process. Must be
    /// called before the program has a second thread, because it takes the variables out of the
    /// environment.
    ///
    /// # Errors
    ///
    /// When a descriptor is no listening TCP socket.
    pub fn take() -> Result<InheritedSockets, String> {
        check_count()?;
        let mut announced = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..announced.len() {
            let refused = |why: &dyn Display| {
                format!("LISTEN_FDS: descriptor {index} is no TCP socket that listens: {why}")
            };
            let socket = announced.take_tcp_listener(index);
            let Some(socket) = socket.map_err(|error| refused(&error))? else {
                continue;
            };
            match socket_acceptconn(&socket) {
                Ok(true) => sockets.push(socket),
                Ok(false) => return Err(refused(&"it accepts no connections")),
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(InheritedSockets(sockets))
    }

    /// The sockets for callers, and those for operators: the ones on the port of `--admin`.
    pub fn split(
        self,
        admin: Option<std::net::SocketAddr>,
    ) -> (Vec<TcpListener>, Vec<TcpListener>) {
        let admin_port = admin.map(|address| address.port());
        self.0.into_iter().partition(|socket| {
            let port = socket.local_addr().map(|address| address.port());
            admin_port.is_none() || port.ok() != admin_port
        })
    }
}

/// Refuses a number of sockets that no program can have; so much memory would be asked for.
fn check_count() -> Result<(), String> {
    let count = std::env::var("LISTEN_FDS").unwrap_or_default();
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let is_too_large = count.parse().is_ok_and(|count: u64| count > most);
    match is_too_large {
        true => Err(format!(
            "LISTEN_FDS: more than this program may have open, which is {most}: {count:?}"
        )),
        false => Ok(()),
    }
}

/// Tells the service manager when the worker is ready and when it stops, and answers its watchdog;
/// never ends.
pub async fn keep_told(ready: impl Future<Output = ()>, shutdown: &Shutdown) -> Infallible {
    let Some(manager) = Manager::at(std::env::var_os("NOTIFY_SOCKET")) else {
        return std::future::pending().await;
    };
    let watchdog = async {
        let Some(period) = watchdog_period(sd_notify::watchdog_enabled()) else {
            return std::future::pending().await;
        };
        debug!(period_ms = period.as_millis(), "answering a watchdog");
        loop {
            manager.tell(&[NotifyState::Watchdog]);
            sleep(period).await;
        }
    };
    let stages = async {
        let started = async {
            ready.await;
            let ready = [NotifyState::Ready, NotifyState::Status("ready")];
            manager.tell_at_last(&ready).await;
        };
        // Cancel-safe: a state is sent whole or not at all.
        shutdown.run_until(Stage::Draining, started).await;
        shutdown.reached(Stage::Draining).await;
        let stopping = [
            NotifyState::Stopping,
            NotifyState::Status("finishing requests"),
        ];
        manager.tell_at_last(&stopping).await;
        std::future::pending::<()>().await;
    };
    let (never, ()) = tokio::join!(watchdog, stages);
    never
}

/// Time between two answers to a watchdog with this limit; `None` where there is none to answer.
fn watchdog_period(limit: Option<Duration>) -> Option<Duration> {
    // No answer comes within 0: whoever sets that wants no watchdog.
    let limit = limit.filter(|limit| !limit.is_zero())?;
    // Half of the time: one answer may be late.
    Some((limit / 2).max(MIN_WATCHDOG_PERIOD))
}

/// The service manager's end of the notification socket.
struct Manager {
    address: OsString,
    throttle: RefCell<Throttle>,
}

impl Manager {
    /// The manager with this socket; `None` without a service manager.
    fn at(socket: Option<OsString>) -> Option<Manager> {
        // `NOTIFY_SOCKET= faas-worker`: whoever sets it to nothing wants nobody to be told.
        let address = socket.filter(|address| !address.is_empty())?;
        let throttle = RefCell::new(Throttle::once_in(WARNING_PAUSE));
        Some(Manager { address, throttle })
    }

    /// Sends states, now or never; true if they were sent.
    fn tell(&self, states: &[NotifyState<'_>]) -> bool {
        match self.send(states) {
            Ok(()) => true,
            Err(error) => {
                let admitted = self.throttle.borrow_mut().admit();
                if let Some(withheld) = admitted {
                    warn!(%error, withheld, "the service manager cannot be told of the worker");
                }
                false
            }
        }
    }

    /// Sends states, again until the service manager takes them.
    // Cancel-safe: states are sent whole or not at all.
    async fn tell_at_last(&self, states: &[NotifyState<'_>]) {
        while !self.tell(states) {
            sleep(RETRY_PERIOD).await;
        }
    }

    /// Never waits: a service manager that reads nothing must not hold up the worker.
    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        match self.address.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => socket.connect(&self.address)?,
        }
        socket.send(lines.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_answered_in_half_of_its_time_and_not_without_pause() {
        for (limit_us, period_us) in [
            (Some(2_000_000), Some(1_000_000)),
            (Some(20_002), Some(10_001)),
            (Some(20_000), Some(10_000)),
            (Some(1), Some(10_000)),
            (Some(0), None),
            (None, None),
        ] {
            let period = watchdog_period(limit_us.map(Duration::from_micros));
            assert_eq!(period, period_us.map(Duration::from_micros), "{limit_us:?}");
        }
    }

    #[test]
    fn an_empty_address_is_no_service_manager() {
        for (address, is_there) in [(None, false), (Some(""), false), (Some("@manager"), true)] {
            let manager = Manager::at(address.map(OsString::from));
            assert_eq!(manager.is_some(), is_there, "{address:?}");
        }
    }

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
