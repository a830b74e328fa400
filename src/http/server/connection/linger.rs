//! What happens to a connection after its last response.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stamped::Stamped;
use crate::http::server::orders::Marks;
use crate::http::server::status::{ConnectionStatus, Phase};

/// The most that is read and thrown away after a response that refused a request. Well above the
/// usual limit of a body, because simple clients send all of a body before they look for an
/// answer; the time for it is limited as well.
const MAX_LINGER_BYTES: usize = 32 * 1024 * 1024;

/// What a client of HTTP/2 sends first, however little it knows of the server.
const PREFACE_OF_HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper ends such a connection without a byte. As bare as its other answers to what is no request.
const ANSWER_TO_HTTP_2: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

/// Tells a client of HTTP/2 why it is not understood.
pub(super) fn answer_http_2(stamped: &Stamped, unread: &[u8]) {
    if unread.starts_with(PREFACE_OF_HTTP_2) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // Nothing was written before, so there is room for it.
        let _ = rustix::net::send(&stamped.stream, ANSWER_TO_HTTP_2, flags);
    }
}

/// Reads on after the last response where the client may still be sending: closing a socket that
/// holds unread bytes resets the connection, and the client may lose the response.
pub(super) async fn linger(mut stamped: Stamped, has_unread: bool) {
    let status = Arc::clone(&stamped.status);
    if stamped.is_ended || status.is_guest() {
        return;
    }
    let marks = status.marks();
    if marks.has(Marks::IN_THE_WAY) {
        return;
    }
    let is_refused = status.phase() == Phase::Head || marks.has(Marks::UNREAD | Marks::TRAILERS);
    let mut scratch = vec![0_u8; 16 * 1024];
    if !is_refused && !has_unread {
        match rustix::net::recv(&stamped.stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => (),
            Ok(_) | Err(_) => return,
        }
    }
    status.enter(Phase::Linger);
    let mut count = 0;
    poll_fn(|context| {
        // hyper has shut the writing side down unless it failed; this is a repetition then.
        let _ = ready!(Pin::new(&mut stamped.stream).poll_shutdown(context));
        loop {
            if !status.orders().is_empty() && !is_lingering_on(&status) {
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
fn is_lingering_on(status: &ConnectionStatus) -> bool {
    let orders = status.orders();
    !(orders.has_abort() || orders.has_check() || orders.has_make_room())
}
