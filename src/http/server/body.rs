//! The body of a request as it comes, which tells its connection how far it is.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::orders::Marks;
use super::status::ConnectionStatus;
use crate::error::Failure;

/// The most that is read of a body that nobody wants for the sake of its connection, in bytes.
const MOST_DISCARDED: usize = 64 * 1024;

/// A body that is on its way.
///
/// Dropped before its end, it takes what is there already; if that is not all of it, the
/// connection closes after the response.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    status: Arc<ConnectionStatus>,
    /// Where its end is, nobody knows.
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

    /// Takes what is there of a body that nobody wants, so that its connection can go on if that
    /// is all of it.
    pub(in crate::http) async fn discard(mut self) {
        let mut left = MOST_DISCARDED;
        let mut has_waited = false;
        poll_fn(|context| {
            while let Some(Ok(frame)) = match Pin::new(&mut self).poll_frame(context) {
                Poll::Ready(frame) => frame,
                // hyper passes on one piece at a time, and comes here after each.
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
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.status.marks().has(Marks::TOO_SLOW) {
            return Poll::Ready(Some(Err(Failure::BodyTooSlow)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        Poll::Ready(match polled {
            Poll::Pending => {
                self.status.note_body_awaited();
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                if !self.is_broken {
                    self.status.note_body_whole();
                }
                None
            }
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    self.status.mark(Marks::TRAILERS);
                }
                Some(Ok(frame))
            }
            Poll::Ready(Some(Err(_))) => {
                self.is_broken = true;
                let why = "the body ended early or is malformed";
                Some(Err(Failure::bad_request(why)))
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
        if self.is_broken || !self.status.marks().has(Marks::UNREAD) {
            return;
        }
        // A body mostly comes with its head, so a small one that nobody wants costs no connection.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut self.body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) if !frame.is_trailers() => {
                    if self.body.is_end_stream() {
                        return self.status.note_body_whole();
                    }
                }
                Poll::Ready(None) => return self.status.note_body_whole(),
                Poll::Ready(Some(Ok(_) | Err(_))) | Poll::Pending => return,
            }
        }
    }
}
