//! The body of a request, which records in its connection's status how far it has come; and the
//! type of all responses.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::flags::RequestFlags;
use super::status::ConnectionStatus;
use crate::error::RequestFailure;

/// The body of a response.
pub(super) type ResponseBody = Full<Bytes>;

/// A response that the server sends.
pub type HttpResponse = Response<ResponseBody>;

/// Bytes read at most of a body that the response does not need, so that its connection stays open.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;

/// The body of a request, as it comes.
///
/// Dropped before its end, it reads the bytes that have come; if the end is not among them, the
/// connection closes after the response.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    status: Arc<ConnectionStatus>,
    /// Reading has failed, so that the end of the body cannot be found.
    is_broken: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, status: Arc<ConnectionStatus>) -> RequestBody {
        RequestBody {
            body,
            status,
            is_broken: false,
        }
    }

    /// The address of the client, where it is wanted.
    pub(in crate::http) fn peer(&self) -> Option<SocketAddr> {
        self.status.peer()
    }

    /// Reads and throws away the bytes that have come, so that the connection stays open if the end
    /// of the body is among them.
    pub(in crate::http) async fn discard(mut self) {
        let mut left = MAX_DISCARDED_BYTES;
        let mut has_waited = false;
        poll_fn(|context| {
            while let Some(Ok(frame)) = match Pin::new(&mut self).poll_frame(context) {
                Poll::Ready(frame) => frame,
                // hyper passes on one piece at a time, and is polled again between two.
                Poll::Pending if !has_waited => {
                    has_waited = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => None,
            } {
                has_waited = false;
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestFailure>>> {
        if self.status.request_flags().has(RequestFlags::BODY_TOO_SLOW) {
            return Poll::Ready(Some(Err(RequestFailure::BodyTooSlow)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        Poll::Ready(match polled {
            Poll::Pending => {
                self.status.record_body_awaited();
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                if !self.is_broken {
                    self.status.record_body_complete();
                }
                None
            }
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    self.status.set_flags(RequestFlags::TRAILERS);
                }
                Some(Ok(frame))
            }
            Poll::Ready(Some(Err(_))) => {
                self.is_broken = true;
                let why = "the body ended early or is malformed";
                Some(Err(RequestFailure::bad_request(why)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.is_broken || !self.status.request_flags().has(RequestFlags::BODY_UNREAD) {
            return;
        }
        // A small body mostly comes with its head, so that an unread one costs no connection.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut self.body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) if !frame.is_trailers() => {
                    if self.body.is_end_stream() {
                        return self.status.record_body_complete();
                    }
                }
                Poll::Ready(None) => return self.status.record_body_complete(),
                Poll::Ready(Some(Ok(_) | Err(_))) | Poll::Pending => return,
            }
        }
    }
}
