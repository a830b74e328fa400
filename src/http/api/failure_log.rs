//! Log lines about requests that failed or were refused, at most one a second for each code.
//!
//! A line has the cause, and nothing of what the request or the handler said.

use super::exchange::Exchange;
use crate::cause::Cause;
use crate::error::{Code, RequestFailure};
use crate::logging::throttle::ThrottleByCode;
use crate::trace_context::TraceContext;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::{Level, info, warn};

/// The shortest time between two lines with the same code.
const PAUSE: Duration = Duration::from_secs(1);

const FAILED: &str = "request failed, its answer has the cause";
const REFUSED: &str = "request refused, its answer has the cause";

/// The log of failed requests.
#[derive(Debug)]
pub(super) struct FailureLog {
    throttle: Mutex<ThrottleByCode>,
}

impl FailureLog {
    pub(super) fn new() -> FailureLog {
        FailureLog {
            throttle: Mutex::new(ThrottleByCode::once_in(PAUSE)),
        }
    }

    /// Logs a failure, unless a line with its code was written just before.
    pub(super) fn record(&self, failure: &RequestFailure, exchange: &Exchange) {
        let code = failure.code();
        let Some((level, message)) = level_and_text(code) else {
            return;
        };
        let code = code.as_str();
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = throttle.admit(code);
        drop(throttle);
        let Some(withheld) = admitted else { return };
        let request_id = exchange.id.as_str();
        let trace = exchange.trace.as_ref();
        let trace_id = trace.map(TraceContext::trace_id);
        let span_id = trace.map(TraceContext::span_id);
        let trace_flags = trace.map(TraceContext::flags);
        if level == Level::WARN {
            let check = failure.cause().and_then(Cause::rule);
            let cause = failure.cause().map(tracing::field::display);
            warn!(
                request_id,
                trace_id, span_id, trace_flags, code, withheld, cause, check, "{message}"
            );
        } else {
            info!(
                request_id,
                trace_id, span_id, trace_flags, code, withheld, "{message}"
            );
        }
    }
}

/// Level and text of the line about a failure; `None` if it is not logged.
fn level_and_text(code: Code) -> Option<(Level, &'static str)> {
    match code {
        Code::HandlerExited
        | Code::HandlerProtocol
        | Code::ReplyTooLarge
        | Code::HandlerTimeout => Some((Level::WARN, FAILED)),
        Code::HandlerError => Some((Level::INFO, FAILED)),
        Code::Overloaded | Code::HandlerNotLoaded | Code::HandlerUnavailable => {
            Some((Level::WARN, REFUSED))
        }
        Code::InvalidRequest
        | Code::BodyTimeout
        | Code::BodyTooLarge
        | Code::Unauthorized
        | Code::Forbidden
        | Code::Draining => Some((Level::INFO, REFUSED)),
        // The request was not meant for the handler.
        Code::NotFound | Code::MethodNotAllowed => None,
    }
}
