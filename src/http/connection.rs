//! One connection, from its first byte to its close.
//!
//! hyper speaks HTTP. Around it: the stream leaves stamps in the connection's [`State`] for the
//! sweep, orders of the registry are followed, and after a response that refused a request the
//! rest of that request is read, so that the client sees the response and not a reset.
//!
//! The request is dropped when its client closes its side (hyper without `half_close`): a closed
//! connection and one of which only the sending side is closed look the same from here, and work
//! for clients that have left must not be done. A client has to keep its side open until it has
//! its answer.
//!
//! Two facts about hyper 1.12 are used, and held by tests. It reads whenever it is polled between
//! requests, so waking the task is enough to make it ask for bytes. It ends the connection after a
//! response that says `connection: close`; its own graceful shutdown is not used, because that
//! drops a head of which a part has come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::registry::Ticket;
use super::state::{Limit, Orders, Phase, State, is_slow_head};

/// The largest head, and the largest read of a body. A larger head is answered with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most that is read and thrown away after a response that refused a request. Well above the
/// usual limit of a body, because simple clients send all of a body before they look for an
/// answer; the time for it is limited as well.
const MAX_LINGER_BYTES: usize = 32 * 1024 * 1024;

/// Serves one connection until it ends.
pub(super) async fn serve<A, F>(stream: TcpStream, ticket: Ticket, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let state = ticket.state();
    let service_state = Arc::clone(state);
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&service_state);
        state.enter(Phase::Busy);
        let has_body = !request.body().is_end_stream();
        HandingOver {
            answering: answer(request),
            state,
            has_body,
        }
    });
    let stream = TokioIo::new(Stamped {
        stream,
        state: Arc::clone(state),
        is_ended: false,
    });
    let mut connection = builder().serve_connection(stream, service);
    let end = poll_fn(|context| {
        state.remember(context.waker());
        // Read before hyper runs: an order that comes while it does wakes this task again.
        let orders = state.orders();
        if orders.has_abort() {
            return Poll::Ready(End::Ordered);
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(End::Spoken(result));
        }
        if !orders.is_empty() && is_to_close(&ticket, orders) {
            return Poll::Ready(End::Ordered);
        }
        Poll::Pending
    });
    match end.await {
        End::Ordered => (),
        End::Spoken(result) => {
            if let Err(error) = result {
                debug!(%error, "connection ended");
            }
            let (stamped, has_unread) = {
                let parts = connection.into_parts();
                (parts.io.into_inner(), !parts.read_buf.is_empty())
            };
            linger(stamped, has_unread).await;
        }
    }
}

/// How the speaking of HTTP ended.
enum End {
    /// By an order, or at a limit: nothing is owed to the client.
    Ordered,
    /// By what was said.
    Spoken(hyper::Result<()>),
}

/// Without hyper's own header timeout, which runs on idle connections as well; without
/// `pipeline_flush`, which keeps responses back for as long as a part of a further request has
/// come, without a limit; with hyper's usual 100 headers, which need no allocation.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        // What is read at once may go beyond the buffer's limit; this one is exact.
        .max_header_size(MAX_HEAD_BYTES);
    builder
}

/// Follows the orders, after hyper has read and written what it could: whether to close now.
fn is_to_close(ticket: &Ticket, orders: Orders) -> bool {
    let state = ticket.state();
    let now_ms = state.now_ms();
    let standing = state.standing();
    // The last read found nothing, asking the kernel itself (an order was there), so no request
    // has come that hyper has not seen.
    let is_free = standing.phase == Phase::Idle
        && standing.stalled_since_ms.is_none()
        && state.is_read_blocked();
    state.obeyed(orders);
    if orders.has_drain() && is_free {
        return true;
    }
    if orders.has_make_room() {
        if is_free || is_slow_head(standing, now_ms) {
            return true;
        }
        ticket.registry().note_refusal();
    }
    if !orders.has_check() {
        return false;
    }
    match ticket.registry().limits().exceeded(standing, now_ms) {
        Some(limit @ (Limit::Header | Limit::Write | Limit::Linger)) => {
            debug!(?limit, "connection closed");
            true
        }
        Some(Limit::KeepAlive) => is_free,
        None => false,
    }
}

pin_project! {
    /// Answers a request. By hand, because an async block around the future would hold it twice.
    struct HandingOver<F> {
        #[pin]
        answering: F,
        state: Arc<State>,
        has_body: bool,
    }
}

impl<F: Future<Output = Response<Full<Bytes>>>> Future for HandingOver<F> {
    type Output = Result<Response<Handed>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answering.poll(context));
        let state = Arc::clone(this.state);
        Poll::Ready(Ok(hand_over(response, state, *this.has_body)))
    }
}

/// Gives a response to hyper, which closes the connection after it when the worker is closing.
fn hand_over(
    mut response: Response<Full<Bytes>>,
    state: Arc<State>,
    has_body: bool,
) -> Response<Handed> {
    if state.orders().has_drain() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    let status = response.status();
    state.note_refused_body(has_body && (status.is_client_error() || status.is_server_error()));
    response.map(|body| Handed {
        body,
        state,
        has_body,
    })
}

/// A response's body; the request is over when hyper drops it, having taken all of it.
struct Handed {
    body: Full<Bytes>,
    state: Arc<State>,
    has_body: bool,
}

impl Body for Handed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // While a request without a body is worked on, hyper reads on to see its client leave.
        // If that last read found bytes, they belong to the next request. With a body it cannot be
        // told: they may be the end of that body.
        let has_next = !self.has_body && !self.state.is_read_blocked();
        self.state
            .enter(if has_next { Phase::Head } else { Phase::Idle });
    }
}

/// Reads on after the last response where the client may still be sending: closing a socket that
/// holds unread bytes resets the connection, and the client may lose the response.
async fn linger(mut stamped: Stamped, has_unread: bool) {
    let state = Arc::clone(&stamped.state);
    if stamped.is_ended {
        return;
    }
    let is_refused = state.phase() == Phase::Head || state.has_refused_body();
    let mut scratch = vec![0_u8; 16 * 1024];
    if !is_refused && !has_unread {
        match rustix::net::recv(&stamped.stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => (),
            Ok(_) | Err(_) => return,
        }
    }
    state.enter(Phase::Linger);
    let mut count = 0;
    poll_fn(|context| {
        // hyper has shut the writing side down unless it failed; this is a repetition then.
        let _ = ready!(Pin::new(&mut stamped.stream).poll_shutdown(context));
        loop {
            if !state.orders().is_empty() && !is_lingering_on(&state) {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut stamped.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => count += buffer.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
            if count > MAX_LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

/// Of all orders, only that to drain leaves a client the time to read its last response.
fn is_lingering_on(state: &State) -> bool {
    let orders = state.orders();
    !(orders.has_abort() || orders.has_check() || orders.has_make_room())
}

/// A stream that stamps what passes.
///
/// While there is an order, a read or write that seems blocked asks the kernel itself. What tokio
/// knows may be older: it has not looked since the order came, and it calls a stream writable only
/// when a third of the send buffer is free, which a slow client may not reach within the limit.
struct Stamped {
    stream: TcpStream,
    state: Arc<State>,
    /// The client has closed its side, or the connection is broken.
    is_ended: bool,
}

impl Stamped {
    fn read_now(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.orders().is_empty() {
            return Poll::Pending;
        }
        let unfilled = buffer.initialize_unfilled();
        match rustix::net::recv(&self.stream, unfilled, RecvFlags::DONTWAIT) {
            Ok((_, count)) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            // An error shows again at the next read.
            Err(_) => Poll::Pending,
        }
    }

    fn write_now(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.state.orders().has_check() {
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
            Poll::Pending => self.state.note_write_blocked(),
            Poll::Ready(Ok(_)) => self.state.note_written(),
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
            Poll::Pending => self.state.note_read_blocked(),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.state.note_read(),
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

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
