//! The stream of a connection, which leaves stamps of what passes.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::http::server::orders::Marks;
use crate::http::server::status::{ConnectionStatus, Phase};

/// A stream that stamps what passes.
///
/// While there is an order, a read or write that seems blocked asks the kernel itself. What tokio
/// knows may be older: it has not looked since the order came, and it calls a stream writable only
/// when a third of the send buffer is free, which a slow client may not reach within the limit.
pub(super) struct Stamped {
    pub(super) stream: TcpStream,
    pub(super) status: Arc<ConnectionStatus>,
    /// The client has closed its side, or the connection is broken.
    pub(super) is_ended: bool,
    /// tokio was told that nothing can be read, though bytes are there.
    has_hidden: bool,
}

impl Stamped {
    pub(super) fn new(stream: TcpStream, status: Arc<ConnectionStatus>) -> Stamped {
        Stamped {
            stream,
            status,
            is_ended: false,
            has_hidden: false,
        }
    }

    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.has_hidden && self.status.orders().is_empty() {
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
                self.has_hidden = false;
                Poll::Pending
            }
        }
    }

    /// Marks the request if its client has closed its side, and else has the task woken when it
    /// does. hyper asks for that only while nothing stands behind the request in its buffer, for
    /// it learns of the end by reading. The kernel tells it beside what can be read.
    fn look_for_end(&mut self, context: &mut Context<'_>) {
        loop {
            if self.stream.poll_read_ready(context).is_pending() {
                return;
            }
            let ready = pin!(self.stream.ready(Interest::READABLE)).poll(context);
            match ready {
                Poll::Ready(Ok(ready)) if !ready.is_read_closed() => {
                    // What is there stays there; the next news is waited for.
                    let blocked = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
                    let _ = self.stream.try_io(Interest::READABLE, blocked);
                    self.has_hidden = true;
                }
                Poll::Ready(Ok(_) | Err(_)) => return self.status.mark(Marks::GONE),
                Poll::Pending => {}
            }
        }
    }

    fn write_now(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let orders = self.status.orders();
        if !orders.has_check() && !orders.has_make_room() {
            return Poll::Pending;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.stream, bytes, flags) {
            Ok(count) => Poll::Ready(Ok(count)),
            // An error shows again at the next write.
            Err(_) => Poll::Pending,
        }
    }

    fn note_write(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.status.note_write_blocked(),
            Poll::Ready(Ok(count)) => self.status.note_written(*count),
            Poll::Ready(Err(_)) => self.is_ended = true,
        }
    }
}

impl AsyncRead for Stamped {
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
            Poll::Pending => self.status.note_read_blocked(),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.status.note_read(buffer.filled().len() - before);
            }
            Poll::Ready(Ok(()) | Err(_)) => self.is_ended = true,
        }
        read
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_pending() {
            written = self.write_now(bytes);
        }
        self.note_write(&written);
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
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper comes here whenever it is polled and nothing waits to be written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.status.note_flushed();
        if self.status.phase() == Phase::Busy && !self.status.is_read_blocked() {
            self.look_for_end(context);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
