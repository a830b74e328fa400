//! The end of a connection after its last response.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::TrackedStream;
use crate::http::server::flags::RequestFlags;
use crate::http::server::snapshot::Phase;
use crate::http::server::status::ConnectionStatus;

/// Bytes read and thrown away at most after a response that refused a request. Well above the
/// usual limit of a body, because simple clients send all of a body before they look for an
/// answer; the time for it is limited as well.
const MAX_LINGER_BYTES: usize = 32 * 1024 * 1024;

/// The first bytes of every HTTP/2 client (RFC 9113, section 3.4).
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The response to an HTTP/2 client; hyper would close the connection without a byte. As bare as
/// hyper's own responses to malformed requests.
const HTTP_2_RESPONSE: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

/// Tells an HTTP/2 client that its version is not supported.
pub(super) fn answer_http_2(stream: &TrackedStream, unread: &[u8]) {
    if unread.starts_with(HTTP_2_PREFACE) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // No byte was written before, so the kernel has room for these.
        let _ = rustix::net::send(&stream.stream, HTTP_2_RESPONSE, flags);
    }
}

/// Reads on after the last response where the client may still be sending: closing a socket that
/// holds unread bytes resets the connection, and the client may lose the response.
pub(super) async fn linger(mut stream: TrackedStream, has_unread: bool) {
    let status = Arc::clone(&stream.status);
    if stream.is_ended || status.is_for_health_check() {
        return;
    }
    let flags = status.request_flags();
    if flags.has(RequestFlags::MUST_GIVE_WAY) {
        return;
    }
    let is_request_unread = status.phase() == Phase::Head
        || flags.has(RequestFlags::BODY_UNREAD | RequestFlags::TRAILERS);
    let mut scratch = vec![0_u8; 16 * 1024];
    if !is_request_unread && !has_unread {
        match rustix::net::recv(&stream.stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => (),
            Ok(_) | Err(_) => return,
        }
    }
    status.enter(Phase::Linger);
    let mut count = 0;
    poll_fn(|context| {
        // hyper has shut the writing side down unless it failed; a second call has no effect.
        let _ = ready!(Pin::new(&mut stream.stream).poll_shutdown(context));
        loop {
            if !status.orders().is_empty() && !may_linger(&status) {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut stream.stream).poll_read(context, &mut buffer)) {
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

/// Whether the orders leave a client the time to read its last response.
fn may_linger(status: &ConnectionStatus) -> bool {
    let orders = status.orders();
    !(orders.has_abort() || orders.has_check_limits() || orders.has_give_way())
}
