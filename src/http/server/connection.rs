//! One connection, from its first byte to its close.
//!
//! hyper speaks HTTP. Around it: the stream leaves stamps in the connection's [`ConnectionStatus`] for the
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

mod linger;
mod stamped;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tracing::debug;

use super::body::RequestBody;
use super::orders::{Marks, Orders};
use super::registry::Registration;
use super::status::{ConnectionStatus, Limit, Phase, Snapshot, is_slow_head};
use linger::{answer_http_2, linger};
use stamped::Stamped;

/// The largest head, and the most that is read of a body or buffered of a response at once: so
/// much a connection may take twice. A larger head is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Serves one connection until it ends.
pub(super) async fn serve<A, F>(stream: TcpStream, registration: Registration, answer: A)
where
    A: Fn(Request<RequestBody>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let status = registration.status();
    let service_state = Arc::clone(status);
    let service = service_fn(move |request: Request<Incoming>| {
        let status = Arc::clone(&service_state);
        let has_body = !request.body().is_end_stream();
        status.begin_request(has_body);
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&status)));
        HandingOver {
            answering: answer(request),
            status,
            has_body,
        }
    });
    let stream = TokioIo::new(Stamped::new(stream, Arc::clone(status)));
    let mut connection = builder().serve_connection(stream, service);
    let end = poll_fn(|context| {
        status.remember(context.waker());
        status.begin_turn();
        // Read before hyper runs: an order that comes while it does wakes this task again.
        let orders = status.orders();
        if orders.has_abort() {
            return Poll::Ready(End::Ordered);
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(End::Spoken(result));
        }
        if status.marks().has(Marks::GONE) {
            debug!("client gone, connection closed");
            return Poll::Ready(End::Ordered);
        }
        if !orders.is_empty() {
            return follow(&registration, orders);
        }
        Poll::Pending
    });
    let end = end.await;
    let parts = connection.into_parts();
    let stamped = parts.io.into_inner();
    match end {
        End::Ordered => {}
        // Else the kernel would keep for minutes what the client does not take.
        End::CutShort => drop(set_socket_linger(&stamped.stream, Some(Duration::ZERO))),
        End::Spoken(result) => {
            if let Err(error) = result {
                debug!(%error, "connection ended");
                answer_http_2(&stamped, &parts.read_buf);
            }
            linger(stamped, !parts.read_buf.is_empty()).await;
        }
    }
}

/// How the speaking of HTTP ended.
enum End {
    /// By an order, or at a limit: nothing is owed to the client.
    Ordered,
    /// The client was too slow to take a response.
    CutShort,
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

/// Follows the orders, after hyper has read and written what it could.
fn follow(registration: &Registration, orders: Orders) -> Poll<End> {
    let status = registration.status();
    let now_ms = status.now_ms();
    let snapshot = status.snapshot();
    // The last read found nothing, asking the kernel itself (an order was there), so no request
    // has come that hyper has not seen.
    let is_free =
        snapshot.phase == Phase::Idle && snapshot.transfer.is_none() && status.is_read_blocked();
    status.obeyed(orders);
    if orders.has_leave() && is_free {
        return Poll::Ready(End::Ordered);
    }
    if orders.has_make_room() {
        if is_free || is_slow_head(snapshot, now_ms) {
            return Poll::Ready(End::Ordered);
        }
        if snapshot.transfer.is_some_and(|it| it.is_slow(now_ms)) {
            debug!("slow connection closed, its room is needed");
            return end_transfer(status, snapshot, Marks::TOO_SLOW | Marks::IN_THE_WAY);
        }
        registration.registry().note_refusal();
    }
    if !orders.has_check() {
        return Poll::Pending;
    }
    match registration.registry().limits().exceeded(snapshot, now_ms) {
        Some(limit @ (Limit::Header | Limit::Linger)) => {
            debug!(?limit, "connection closed");
            Poll::Ready(End::Ordered)
        }
        Some(Limit::Write) => {
            debug!("connection closed, its client takes nothing");
            Poll::Ready(End::CutShort)
        }
        // A body that was not read is not its client's to answer for.
        Some(Limit::LeastRate) if snapshot.phase == Phase::Body && !status.is_read_blocked() => {
            status.begin_window(now_ms, 0);
            Poll::Pending
        }
        Some(Limit::LeastRate) => {
            debug!("connection below the least rate");
            end_transfer(status, snapshot, Marks::TOO_SLOW)
        }
        Some(Limit::KeepAlive) if is_free => Poll::Ready(End::Ordered),
        Some(Limit::KeepAlive) | None => Poll::Pending,
    }
}

/// Ends what moves too slowly: a response is cut short, a body is answered.
fn end_transfer(status: &ConnectionStatus, snapshot: Snapshot, marks: u8) -> Poll<End> {
    if snapshot.phase != Phase::Body {
        return Poll::Ready(End::CutShort);
    }
    // The answer is made by what waits for the body, in this task.
    status.mark(marks);
    status.begin_window(status.now_ms(), 0);
    status.wake();
    Poll::Pending
}

pin_project! {
    /// Answers a request. By hand, because an async block around the future would hold it twice.
    struct HandingOver<F> {
        #[pin]
        answering: F,
        status: Arc<ConnectionStatus>,
        has_body: bool,
    }
}

impl<F: Future<Output = Response<Full<Bytes>>>> Future for HandingOver<F> {
    type Output = Result<Response<Handed>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.status.is_turn_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let response = ready!(this.answering.poll(context));
        let status = Arc::clone(this.status);
        Poll::Ready(Ok(hand_over(response, status, *this.has_body)))
    }
}

/// Gives a response to hyper, which closes the connection after it when the worker is closing.
fn hand_over(
    mut response: Response<Full<Bytes>>,
    status: Arc<ConnectionStatus>,
    has_body: bool,
) -> Response<Handed> {
    let marks = status.marks();
    // What closes says so. A body that was not read to its end closes. So does one with trailers:
    // hyper 1.12.0 takes the end of trailers for a CR LF CR LF and then ends them at any empty
    // line, so that the head of the next request may be lost in them, and its body be taken for a
    // request. No version is known that is mended; what comes behind trailers is never looked at.
    if status.orders().has_drain()
        || marks.has(Marks::UNREAD | Marks::TRAILERS)
        || status.is_guest()
    {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response.map(|body| Handed {
        body,
        status,
        has_body,
    })
}

/// A response's body; the request is over when hyper drops it, having taken all of it.
struct Handed {
    body: Full<Bytes>,
    status: Arc<ConnectionStatus>,
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
        let has_next = !self.has_body && !self.status.is_read_blocked();
        self.status
            .enter(if has_next { Phase::Head } else { Phase::Idle });
    }
}
