//! Listening sockets: their addresses, options and shared port.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

use crate::error::StartError;

/// Connections that may wait to be accepted; the kernel cuts this to `net.core.somaxconn`.
pub(super) const BACKLOG: u32 = 4096;

/// How often to search for one port that is free on all addresses.
const PORT_ATTEMPTS: usize = 16;

/// Bytes of a response that the kernel takes ahead of its client. By itself it takes megabytes a
/// connection, and a container's limit counts them: 500 clients that pipeline requests for the
/// documents and read nothing would hold 1.5 GiB.
const UNSENT_BYTES: u32 = 64 * 1024;

/// The kernel's receive buffer of a connection under a memory limit, in bytes; it adds as much
/// again for itself. Two of the largest segments on loopback.
const RECEIVE_BYTES: usize = 128 * 1024;

/// Listens on all addresses; see [`super::listener::Listener::bind`].
pub(super) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut attempt = 1;
    loop {
        match bind_once(addresses) {
            // The port that was free on the first address was not free on another address.
            Err(BindFailure {
                is_port_picked: true,
                ..
            }) if attempt < PORT_ATTEMPTS => attempt += 1,
            Err(failure) => return Err(failure.error),
            Ok(sockets) => return Ok(sockets),
        }
    }
}

/// The reason why an address could not be listened on.
struct BindFailure {
    error: StartError,
    /// The port was picked and not configured, so another port may do.
    is_port_picked: bool,
}

fn bind_once(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindFailure> {
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
                // The kernel may pick the same port for two sockets that are bound at the same
                // moment, and fail the second socket only when it listens.
                let is_port_picked =
                    source.kind() == io::ErrorKind::AddrInUse && wanted.port() == 0;
                let error = StartError::Listen {
                    address: address.to_string(),
                    source,
                };
                let failure = BindFailure {
                    error,
                    is_port_picked,
                };
                if !is_missing {
                    return Err(failure);
                }
                warn!(%address, "this machine does not have the address");
                missing = Some(failure);
            }
        }
    }
    match missing {
        Some(failure) if sockets.is_empty() => Err(failure),
        Some(_) | None => Ok(sockets),
    }
}

/// Takes over a socket that listens already.
pub(super) fn take_over(socket: std::net::TcpListener) -> Result<TcpListener, StartError> {
    let address = socket.local_addr();
    let taken = || {
        socket.set_nonblocking(true)?;
        set_options(SockRef::from(&socket))?;
        TcpListener::from_std(socket)
    };
    taken().map_err(|source| StartError::Listen {
        address: address.map_or_else(|_| "an inherited socket".to_owned(), |it| it.to_string()),
        source,
    })
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    // Nonblocking and close-on-exec from the start.
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    set_options(SockRef::from(&socket))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Sets the options of connections. Linux passes them on to accepted sockets: one call instead of
/// one a connection.
fn set_options(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

fn is_missing_address(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Gives the connections of these sockets a small receive buffer. By itself the kernel lets the
/// buffer of a connection that is read fast grow to megabytes, which the memory limit of a control
/// group counts.
pub(super) fn limit_receive_buffers(sockets: &[TcpListener]) {
    for socket in sockets {
        if let Err(error) = set_socket_recv_buffer_size(socket, RECEIVE_BYTES) {
            warn!(%error, "the receive buffers of connections cannot be limited");
        }
    }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
