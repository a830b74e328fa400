//! The stream of a connection, which records the bytes that pass.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::http::server::flags::RequestFlags;
use crate::http::server::snapshot::Phase;
use crate::http::server::status::ConnectionStatus;

/// A TCP stream that records in its connection's status when bytes pass.
///
/// While there is an order, a read or write that tokio calls blocked asks the kernel itself.
/// tokio's knowledge may be older than the order, and it calls a stream writable only when a third
/// of the send buffer is free, which a slow client may not reach within the limit.
pub(super) struct TrackedStream {
    pub(super) stream: TcpStream,
    pub(super) status: Arc<ConnectionStatus>,
    /// The client has closed its side, or the connection is broken.
    pub(super) is_ended: bool,
    /// tokio was told that no bytes can be read, though some are there.
    has_hidden_bytes: bool,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, status: Arc<ConnectionStatus>) -> TrackedStream {
        TrackedStream {
            stream,
            status,
            is_ended: false,
            has_hidden_bytes: false,
        }
    }

    /// Reads from the kernel itself, if tokio may not know of bytes that are there.
    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.has_hidden_bytes && self.status.orders().is_empty() {
            return Poll::Pending;
        }
        let unfilled = buffer.initialize_unfilled();
        match rustix::net::recv(&self.stream, unfilled, RecvFlags::DONTWAIT) {
            Ok((_, count)) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            // An error shows again at the next read.
            Err(_) => {
                self.has_hidden_bytes = false;
                Poll::Pending
            }
        }
    }

    /// Flags the request if its client has closed its side, and else has the task woken when it
    /// does. hyper itself learns of the end by reading, and reads only while no bytes stand behind
    /// the request in its buffer. The kernel reports the end also while there are bytes to read.
    fn check_client_left(&mut self, context: &mut Context<'_>) {
        loop {
            if self.stream.poll_read_ready(context).is_pending() {
                return;
            }
            let ready = pin!(self.stream.ready(Interest::READABLE)).poll(context);
            match ready {
                Poll::Ready(Ok(ready)) if !ready.is_read_closed() => {
                    // The bytes stay in the kernel; the task is woken when more come or the client
                    // leaves.
                    let blocked = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
                    let _ = self.stream.try_io(Interest::READABLE, blocked);
                    self.has_hidden_bytes = true;
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    return self.status.set_flags(RequestFlags::CLIENT_LEFT);
                }
                Poll::Pending => {}
            }
        }
    }

    /// Writes to the kernel itself, if the connection is about to be closed for its client's
    /// slowness.
    fn write_now(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let orders = self.status.orders();
        if !orders.has_check_limits() && !orders.has_give_way() {
            return Poll::Pending;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.stream, bytes, flags) {
            Ok(count) => Poll::Ready(Ok(count)),
            // An error shows again at the next write.
            Err(_) => Poll::Pending,
        }
    }

    fn record_write(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.status.record_write_blocked(),
            Poll::Ready(Ok(count)) => self.status.record_written(*count),
            Poll::Ready(Err(_)) => self.is_ended = true,
        }
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            read = self.read_now(buffer);
        }
        match &read {
            Poll::Pending => self.status.record_read_blocked(),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.status.record_read(buffer.filled().len() - before);
            }
            Poll::Ready(Ok(()) | Err(_)) => self.is_ended = true,
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_pending() {
            written = self.write_now(bytes);
        }
        self.record_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if written.is_pending()
            && let Some(first) = slices.iter().find(|slice| !slice.is_empty())
        {
            written = self.write_now(first);
        }
        self.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this whenever it is polled and no bytes wait to be written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.status.record_flushed();
        if self.status.phase() == Phase::Busy && !self.status.is_read_blocked() {
            self.check_client_left(context);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
