//! One connection, from its first byte to its close.
//!
//! hyper speaks HTTP. Around it, the stream records in the connection's [`ConnectionStatus`] when
//! bytes pass, orders of the registry are followed, and after a response that refused a request the
//! rest of that request is read, so that the client sees the response and not a reset.
//!
//! The request is dropped when its client closes its side (hyper without `half_close`): a closed
//! connection and a connection of which only the sending side is closed look the same from here,
//! and work for clients that have left must not be done. A client has to keep its side open until
//! it has its answer.
//!
//! Two facts about hyper 1.12 are used, and held by tests. It reads whenever it is polled between
//! requests, so waking the task is enough to make it ask for bytes. It ends the connection after a
//! response that says `connection: close`; its own graceful shutdown is not used, because that
//! drops a head of which a part has come.

mod linger;
mod response;
mod stream;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tracing::debug;

use super::body::{HttpResponse, RequestBody};
use super::flags::{Orders, RequestFlags};
use super::limits::Limit;
use super::registry::Registration;
use super::snapshot::{ConnectionSnapshot, Phase};
use super::status::ConnectionStatus;
use crate::threads::mailbox::deliver_here;
use linger::{answer_http_2, linger};
use response::ResponseFuture;
use stream::TrackedStream;

/// The largest head, and the most that is read of a body or buffered of a response at a time: a
/// connection may take twice as much memory. A larger head is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Serves one connection until it ends.
pub(super) async fn serve<A, F>(stream: TcpStream, registration: Registration, answer: A)
where
    A: Fn(Request<RequestBody>) -> F,
    F: Future<Output = HttpResponse>,
{
    let status = registration.status();
    if registration.registry().keeps_peers()
        && let Ok(peer) = stream.peer_addr()
    {
        status.keep_peer(peer);
    }
    let service_status = Arc::clone(status);
    let service = service_fn(move |request: Request<Incoming>| {
        let status = Arc::clone(&service_status);
        let has_body = !request.body().is_end_stream();
        status.begin_request(has_body);
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&status)));
        ResponseFuture::new(answer(request), status, has_body)
    });
    let stream = TokioIo::new(TrackedStream::new(stream, Arc::clone(status)));
    let mut connection = builder().serve_connection(stream, service);
    let end = poll_fn(|context| {
        deliver_here();
        status.set_waker(context.waker());
        status.begin_turn();
        // Read before hyper runs: an order that comes while it does wakes this task again.
        let orders = status.orders();
        if orders.has_abort() {
            return Poll::Ready(ConnectionEnd::Close);
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(ConnectionEnd::Completed(result));
        }
        if status.request_flags().has(RequestFlags::CLIENT_LEFT) {
            debug!("client gone, connection closed");
            return Poll::Ready(ConnectionEnd::Close);
        }
        if !orders.is_empty() {
            return follow(&registration, orders);
        }
        Poll::Pending
    });
    let end = end.await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match end {
        ConnectionEnd::Close => {}
        // Else the kernel would keep for minutes the bytes that the client does not take.
        ConnectionEnd::Reset => drop(set_socket_linger(&stream.stream, Some(Duration::ZERO))),
        ConnectionEnd::Completed(result) => {
            if let Err(error) = result {
                debug!(%error, "connection ended");
                answer_http_2(&stream, &parts.read_buf);
            }
            linger(stream, !parts.read_buf.is_empty()).await;
        }
    }
}

/// How a connection ends.
enum ConnectionEnd {
    /// Immediately, by an order or at a limit: no response is owed to the client.
    Close,
    /// With a reset, which drops the response that the client was too slow to take.
    Reset,
    /// By HTTP's rules, as hyper says.
    Completed(hyper::Result<()>),
}

/// hyper's settings.
///
/// Without its header timeout, which runs on idle connections as well; without `pipeline_flush`,
/// which keeps responses back for as long as a part of a further request has come, without a
/// limit; with its usual 100 headers, which need no allocation.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        // A single read may go beyond the buffer's limit; this limit is exact.
        .max_header_size(MAX_HEAD_BYTES);
    builder
}

/// Follows the orders, after hyper has read and written as much as it could.
fn follow(registration: &Registration, orders: Orders) -> Poll<ConnectionEnd> {
    let status = registration.status();
    let now_ms = status.now_ms();
    let snapshot = status.snapshot();
    // While an order stands, `TrackedStream` asks the kernel at each read. So if the last read
    // found no bytes, the socket is empty, and no request has come that hyper has not seen.
    let is_free =
        snapshot.phase == Phase::Idle && snapshot.transfer.is_none() && status.is_read_blocked();
    status.acknowledge(orders);
    if orders.has_close_idle() && is_free {
        return Poll::Ready(ConnectionEnd::Close);
    }
    if orders.has_give_way() {
        if is_free || snapshot.is_slow_head(now_ms) {
            return Poll::Ready(ConnectionEnd::Close);
        }
        if snapshot
            .transfer
            .is_some_and(|transfer| transfer.is_slow(now_ms))
        {
            debug!("slow connection closed, its room is needed");
            let flags = RequestFlags::BODY_TOO_SLOW | RequestFlags::MUST_GIVE_WAY;
            return end_transfer(status, snapshot, flags);
        }
        registration.registry().record_stays_open();
    }
    if !orders.has_check_limits() {
        return Poll::Pending;
    }
    match registration.registry().limits().exceeded(snapshot, now_ms) {
        Some(limit @ (Limit::Header | Limit::Linger)) => {
            debug!(?limit, "connection closed");
            Poll::Ready(ConnectionEnd::Close)
        }
        Some(Limit::Write) => {
            debug!("connection closed, its client takes nothing");
            Poll::Ready(ConnectionEnd::Reset)
        }
        // The worker has not read all bytes of the body that are there: its client is not too slow.
        Some(Limit::LeastRate) if snapshot.phase == Phase::Body && !status.is_read_blocked() => {
            status.begin_window(now_ms, 0);
            Poll::Pending
        }
        Some(Limit::LeastRate) => {
            debug!("connection below the least rate");
            end_transfer(status, snapshot, RequestFlags::BODY_TOO_SLOW)
        }
        Some(Limit::KeepAlive) if is_free => Poll::Ready(ConnectionEnd::Close),
        Some(Limit::KeepAlive) | None => Poll::Pending,
    }
}

/// Ends a transfer that is too slow: a response is cut short, a body is answered with 408.
fn end_transfer(
    status: &ConnectionStatus,
    snapshot: ConnectionSnapshot,
    flags: u8,
) -> Poll<ConnectionEnd> {
    if snapshot.phase != Phase::Body {
        return Poll::Ready(ConnectionEnd::Reset);
    }
    // The future that waits for the body, in this task, makes the response.
    status.set_flags(flags);
    status.begin_window(status.now_ms(), 0);
    status.wake();
    Poll::Pending
}
