//! The way of a response to hyper.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use pin_project_lite::pin_project;

use crate::http::server::body::{HttpResponse, ResponseBody};
use crate::http::server::flags::RequestFlags;
use crate::http::server::snapshot::Phase;
use crate::http::server::status::ConnectionStatus;

pin_project! {
    /// Resolves to the response to a request, once it is the connection's turn.
    ///
    /// Written by hand, because an async block around the future would hold it twice.
    pub(super) struct ResponseFuture<F> {
        #[pin]
        future: F,
        status: Arc<ConnectionStatus>,
        has_body: bool,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(
        future: F,
        status: Arc<ConnectionStatus>,
        has_body: bool,
    ) -> ResponseFuture<F> {
        ResponseFuture {
            future,
            status,
            has_body,
        }
    }
}

impl<F: Future<Output = HttpResponse>> Future for ResponseFuture<F> {
    type Output = Result<Response<TrackedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.status.is_turn_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let response = ready!(this.future.poll(context));
        let status = Arc::clone(this.status);
        Poll::Ready(Ok(tracked(response, status, *this.has_body)))
    }
}

/// Adds `connection: close` where the connection closes after the response, and has the end of the
/// response recorded.
fn tracked(
    mut response: HttpResponse,
    status: Arc<ConnectionStatus>,
    has_body: bool,
) -> Response<TrackedBody> {
    let flags = status.request_flags();
    // A connection closes after a body that was not read to its end, and after trailers: hyper
    // 1.12.0 takes the end of trailers for a CR LF CR LF and then ends them at any empty line, so
    // that the head of the next request may be lost in them, and its body be taken for a request.
    // No version is known that is mended; bytes behind trailers are never read.
    if status.orders().has_announce_close()
        || flags.has(RequestFlags::BODY_UNREAD | RequestFlags::TRAILERS)
        || status.is_for_health_check()
    {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response.map(|body| TrackedBody {
        body,
        status,
        has_body,
    })
}

/// A response's body, whose drop ends the request: hyper drops it once it has taken all of it.
pub(super) struct TrackedBody {
    body: ResponseBody,
    status: Arc<ConnectionStatus>,
    /// Whether the request had a body.
    has_body: bool,
}

impl Body for TrackedBody {
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

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // While a request without a body is worked on, hyper reads on to see its client leave.
        // If that last read found bytes, they belong to the next request. With a body the two
        // cannot be told apart: the bytes may be the end of that body.
        let has_next = !self.has_body && !self.status.is_read_blocked();
        self.status
            .enter(if has_next { Phase::Head } else { Phase::Idle });
    }
}
