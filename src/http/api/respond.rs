//! Turns a failure into a response: its status, its headers, and the sentence around its cause.
//!
//! The cause was put into words where it was found; a failure that the handler or the body's shape
//! decided brings its status along. Two responses are made elsewhere, without a request: the 429 of
//! the server's waiting room, and the 505 for HTTP/2.

use crate::cause::Cause;
use crate::error::{RETRY_SOON, RequestFailure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use std::time::Duration;

/// A response whose body is complete.
pub type ApiResponse = crate::http::server::HttpResponse;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-faas-error");
const EXECUTED: HeaderName = HeaderName::from_static("x-faas-executed");

/// A response with a JSON body.
pub fn json(status: StatusCode, body: Bytes) -> ApiResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The reader of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// May read a handler's output and paths of the machine.
    Operator,
    /// May not; where the request id is known, `detail` names it, because the log has the rest
    /// under it.
    Caller(Option<&'a str>),
}

/// The response to a failure.
pub fn failure(failure: &RequestFailure, reader: Reader<'_>) -> ApiResponse {
    failure_response(failure, failure_body(failure, reader))
}

/// The response to a failure, with its [`failure_body`].
pub fn failure_response(failure: &RequestFailure, body: Bytes) -> ApiResponse {
    let code = failure.code();
    let mut response = json(status(failure), body);
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(code.as_str()));
    let executed = code.executed().as_str();
    headers.insert(EXECUTED, HeaderValue::from_static(executed));
    match failure {
        RequestFailure::MethodNotAllowed { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        RequestFailure::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        RequestFailure::Overloaded { retry_after, .. }
        | RequestFailure::Unavailable { retry_after, .. } => {
            headers.insert(RETRY_AFTER, whole_seconds(*retry_after));
        }
        RequestFailure::Draining => {
            headers.insert(RETRY_AFTER, whole_seconds(RETRY_SOON));
        }
        // The rest of the body is not read.
        RequestFailure::BodyTimeout(_)
        | RequestFailure::BodyTooSlow
        | RequestFailure::BodyTooLarge(_) => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        RequestFailure::Handler { .. }
        | RequestFailure::Invalid { .. }
        | RequestFailure::Forbidden(_)
        | RequestFailure::NotFound
        | RequestFailure::NotLoaded(_)
        | RequestFailure::Exited(_)
        | RequestFailure::Protocol(_)
        | RequestFailure::ReplyTooLarge(_)
        | RequestFailure::TimedOut(_) => {}
    }
    response
}

/// `{"detail":…}` of a failure.
pub fn failure_body(failure: &RequestFailure, reader: Reader<'_>) -> Bytes {
    let detail = detail(failure, reader);
    let mut body = Vec::with_capacity(detail.len() + 11);
    body.extend_from_slice(b"{\"detail\":");
    body.extend_from_slice(&detail);
    body.push(b'}');
    body.into()
}

/// The status of a failure, and the JSON value of `detail` for operators.
pub fn status_and_detail(failure: &RequestFailure) -> (u16, Bytes) {
    let detail = detail(failure, Reader::Operator);
    (status(failure).as_u16(), detail)
}

/// The status of a failure.
fn status(failure: &RequestFailure) -> StatusCode {
    match failure {
        RequestFailure::Handler { status, .. } | RequestFailure::Invalid { status, .. } => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST)
        }
        RequestFailure::BodyTimeout(_) | RequestFailure::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        RequestFailure::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        RequestFailure::Unauthorized => StatusCode::UNAUTHORIZED,
        RequestFailure::Forbidden(_) => StatusCode::FORBIDDEN,
        RequestFailure::NotFound => StatusCode::NOT_FOUND,
        RequestFailure::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        RequestFailure::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        RequestFailure::NotLoaded(_) => StatusCode::INTERNAL_SERVER_ERROR,
        RequestFailure::Unavailable { .. } | RequestFailure::Draining => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        RequestFailure::Exited(_)
        | RequestFailure::Protocol(_)
        | RequestFailure::ReplyTooLarge(_) => StatusCode::BAD_GATEWAY,
        RequestFailure::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The words of a cause for this reader.
fn words(cause: &Cause, reader: Reader<'_>) -> String {
    match reader {
        Reader::Operator => match cause.rule() {
            Some(rule) => format!("{} (faas-worker check --explain {rule})", cause.full()),
            None => cause.full().to_owned(),
        },
        Reader::Caller(Some(id)) if cause.is_more_than_general() => {
            let general = cause.general();
            format!("{general}; the log has more under the request id {id}")
        }
        Reader::Caller(_) => cause.general().to_owned(),
    }
}

/// The JSON value of `detail`.
pub fn detail(failure: &RequestFailure, reader: Reader<'_>) -> Bytes {
    let words = |cause: &Cause| words(cause, reader);
    let text = match failure {
        RequestFailure::Handler { message, .. } => return message.clone(),
        RequestFailure::Invalid { detail, .. } => return detail.clone(),
        RequestFailure::BodyTimeout(limit) => {
            format!(
                "The body did not arrive within {}",
                humantime::format_duration(*limit)
            )
        }
        RequestFailure::BodyTooSlow => "The body came too slowly".to_owned(),
        RequestFailure::BodyTooLarge(limit) => format!("The body is larger than {limit} bytes"),
        RequestFailure::Unauthorized => {
            "Unauthorized: this worker asks for Authorization: Bearer and its token".to_owned()
        }
        RequestFailure::Forbidden(why) => format!("Forbidden: {why}"),
        RequestFailure::NotFound => "Not Found".to_owned(),
        RequestFailure::MethodNotAllowed { .. } => "Method Not Allowed".to_owned(),
        RequestFailure::Overloaded { why, .. } => format!("Overloaded: {}", words(why)),
        RequestFailure::NotLoaded(why) => format!("Handler function not loaded: {}", words(why)),
        RequestFailure::Unavailable { why, .. } => format!("Handler unavailable: {}", words(why)),
        RequestFailure::Draining => "The worker is shutting down".to_owned(),
        RequestFailure::Exited(cause) => {
            format!("The process that had the request is gone: {}", words(cause))
        }
        RequestFailure::Protocol(how) => {
            format!("The handler broke the line protocol: {}", words(how))
        }
        RequestFailure::ReplyTooLarge(limit) => format!("The result is larger than {limit} bytes"),
        RequestFailure::TimedOut(what) => format!("Handler timed out: {}", words(what)),
    };
    serde_json::Value::String(text).to_string().into()
}

/// Rounded up: a retry that comes too early is refused again.
fn whole_seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, seconds) in [(0, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn what_a_handler_printed_is_for_operators() {
        let quoting = Cause::quoting("it wrote a line", "it wrote a line: secret");
        let failures = [
            RequestFailure::NotLoaded(quoting.clone()),
            RequestFailure::Exited(quoting.clone()),
            RequestFailure::Protocol(quoting.clone()),
            RequestFailure::TimedOut(quoting),
        ];
        for failure in &failures {
            for (reader, has_all, names_log) in [
                (Reader::Operator, true, false),
                (Reader::Caller(None), false, false),
                (Reader::Caller(Some("r-17")), false, true),
            ] {
                let body = failure_body(failure, reader);
                let body = String::from_utf8_lossy(&body);
                assert!(body.contains("it wrote a line"), "{body}");
                assert_eq!(body.contains("secret"), has_all, "{body}");
                assert_eq!(body.contains("request id r-17"), names_log, "{body}");
            }
        }
        // The command that explains it is for operators as well.
        let ruled = RequestFailure::TimedOut(Cause::from("silence").of_rule("answers"));
        for (reader, detail) in [
            (
                Reader::Operator,
                "{\"detail\":\"Handler timed out: silence (faas-worker check --explain answers)\"}",
            ),
            (
                Reader::Caller(None),
                "{\"detail\":\"Handler timed out: silence\"}",
            ),
        ] {
            assert_eq!(failure_body(&ruled, reader), detail);
        }
        // The handler's own word is for the caller.
        let message = Bytes::from_static(b"\"my secret\"");
        let failure = RequestFailure::Handler {
            message,
            status: 400,
        };
        assert_eq!(
            failure_body(&failure, Reader::Caller(None)),
            "{\"detail\":\"my secret\"}"
        );
    }

    #[test]
    fn what_no_handler_has_seen_is_told_from_what_one_may_have() {
        let second = Duration::from_secs(1);
        let why = || Cause::from("");
        let overloaded = RequestFailure::Overloaded {
            why: why(),
            retry_after: second,
        };
        let unavailable = RequestFailure::Unavailable {
            why: why(),
            retry_after: second,
        };
        let table = [
            (
                RequestFailure::NotLoaded(why()),
                500,
                "handler_not_loaded",
                "no",
            ),
            (overloaded, 429, "overloaded", "no"),
            (unavailable, 503, "handler_unavailable", "no"),
            (RequestFailure::Draining, 503, "draining", "no"),
            (
                RequestFailure::Exited(why()),
                502,
                "handler_exited",
                "maybe",
            ),
            (
                RequestFailure::Protocol(why()),
                502,
                "handler_protocol",
                "maybe",
            ),
            (
                RequestFailure::ReplyTooLarge(1),
                502,
                "reply_too_large",
                "maybe",
            ),
            (
                RequestFailure::TimedOut(why()),
                504,
                "handler_timeout",
                "maybe",
            ),
            (
                RequestFailure::BodyTimeout(second),
                408,
                "body_timeout",
                "no",
            ),
            (RequestFailure::BodyTooSlow, 408, "body_timeout", "no"),
            (RequestFailure::BodyTooLarge(1), 413, "body_too_large", "no"),
            (
                RequestFailure::Handler {
                    message: "\"m\"".into(),
                    status: 404,
                },
                404,
                "handler_error",
                "yes",
            ),
        ];
        for (cause, status, code, executed) in table {
            let response = failure(&cause, Reader::Caller(None));
            assert_eq!(response.status(), status, "{cause:?}");
            assert_eq!(response.headers()["x-faas-error"], code);
            assert_eq!(response.headers()["x-faas-executed"], executed);
            let has_retry_after = response.headers().contains_key("retry-after");
            assert_eq!(has_retry_after, status == 429 || status == 503);
        }
    }
}
