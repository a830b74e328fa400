//! The record of one request: from its head to its response, or to the moment its client left.

use compact_str::CompactString;
use hyper::{Method, Request, StatusCode};
use std::time::Instant;
use tracing::{Level, debug};

use crate::logging::milliseconds;
use crate::pool::CallTimes;

/// The record of one request. The debug log has each once: with its status, or, when the record is
/// dropped before that, as a request whose client has left.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) arrived: Instant,
    /// The request id.
    pub(super) id: CompactString,
    /// Whether the end of the request's head is known for sure.
    pub(super) is_sound: bool,
    /// The times of the call, if a process had it.
    pub(super) times: Option<CallTimes>,
    /// Method and path, as long as the log is still to tell of the request.
    unlogged: Option<(Method, String)>,
}

impl Exchange {
    /// The record of a request that arrives now.
    pub(super) fn new<B>(request: &Request<B>, id: CompactString, is_sound: bool) -> Exchange {
        let is_logged = tracing::enabled!(Level::DEBUG);
        Exchange {
            arrived: Instant::now(),
            id,
            is_sound,
            times: None,
            unlogged: is_logged.then(|| {
                let path = request.uri().path().to_owned();
                (request.method().clone(), path)
            }),
        }
    }

    /// The request is answered with this status.
    pub(super) fn answered(mut self, status: StatusCode) {
        if let Some((method, path)) = self.unlogged.take() {
            debug!(
                request_id = %self.id,
                %method,
                path,
                status = status.as_u16(),
                took_ms = milliseconds(self.arrived.elapsed()),
                "answered"
            );
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((method, path)) = self.unlogged.take() {
            debug!(
                request_id = %self.id,
                %method,
                path,
                took_ms = milliseconds(self.arrived.elapsed()),
                "client gone before its answer"
            );
        }
    }
}
