//! Each way in which a request may fail, once, as the document shows it.
//!
//! A case holds the failure alone: status, code, headers and body of its example are made by
//! `respond`, as in a real answer.

use crate::error::{Code, RequestFailure};
use bytes::Bytes;
use std::time::Duration;

/// One way to fail.
pub(super) struct Case {
    /// Differs between the cases of a status.
    pub(super) name: &'static str,
    /// When it happens, as a sentence.
    pub(super) when: &'static str,
    pub(super) failure: RequestFailure,
}

fn case(name: &'static str, when: &'static str, failure: RequestFailure) -> Case {
    Case {
        name,
        when,
        failure,
    }
}

/// Failures of requests for any path.
pub(super) fn of_any_path() -> Vec<Case> {
    vec![case(
        "host",
        "The request has no `Host`, several, or one that is none.",
        RequestFailure::bad_request("exactly one Host header is required"),
    )]
}

/// Failures of requests for a path that is not served.
pub(super) fn of_other_paths() -> Vec<Case> {
    vec![case(
        "not_found",
        "There is nothing at this path.",
        RequestFailure::NotFound,
    )]
}

/// Failures of requests with a method that the path does not have; `allow` lists its methods.
pub(super) fn of_other_methods(allow: &'static str) -> Vec<Case> {
    vec![case(
        "method_not_allowed",
        "The path has other methods, see `allow`.",
        RequestFailure::MethodNotAllowed { allow },
    )]
}

/// Failures of `/ready`.
pub(super) fn of_ready() -> Vec<Case> {
    vec![
        case(
            "no_process",
            "No process is up.",
            RequestFailure::Unavailable {
                why: "no process is up: none has sent its ready line or a reply, or lived \
                      for 10 s"
                    .into(),
                retry_after: Duration::from_secs(1),
            },
        ),
        draining(),
    ]
}

/// Failures of `POST /`.
pub(super) fn of_function() -> Vec<Case> {
    let mut cases = of_request();
    cases.extend(of_pool());
    cases.extend(of_process());
    cases
}

/// The handler's own error, with the status that it chose.
pub(super) fn of_handler(status: u16) -> Case {
    case(
        "the_handlers_own",
        "The handler answered with an error; `detail` is its message.",
        RequestFailure::Handler {
            message: Bytes::from_static(b"\"no such device\""),
            status,
        },
    )
}

/// Faults of the request itself.
fn of_request() -> Vec<Case> {
    vec![
        case(
            "body",
            "The body is not UTF-8, or it ended early.",
            RequestFailure::bad_request("There was an error parsing the body"),
        ),
        case(
            "timeout",
            "`x-faas-timeout-ms` is not a whole number of milliseconds from 1 up.",
            RequestFailure::bad_request(
                "x-faas-timeout-ms must be a whole number of milliseconds from 1 up, got \"0\"",
            ),
        ),
        case(
            "coded_body",
            "The body has a content-encoding, and none is understood.",
            RequestFailure::coded_body("gzip"),
        ),
        case(
            "payload_missing",
            "The body is not an object with a string `payload`.",
            unprocessable(
                br#"[{"type":"missing","loc":["body","payload"],"msg":"Field required","input":{}}]"#,
            ),
        ),
        case(
            "not_json",
            "The body is not JSON. (One whose content-type says that it is something else is \
             read as text, and no object.)",
            unprocessable(
                br#"[{"type":"json_invalid","loc":["body",12],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting value"}}]"#,
            ),
        ),
        case(
            "unauthorized",
            "The worker has `--auth-token-file`, and the request has none of its tokens.",
            RequestFailure::Unauthorized,
        ),
        case(
            "forbidden",
            "A page of another site sent the request, or its `Host` is not a name of this worker.",
            RequestFailure::Forbidden(
                "the host \"worker.example\" is not a name of this worker; --allow-host accepts it"
                    .to_owned(),
            ),
        ),
        case(
            "body_timeout",
            "The body took too long (`--body-timeout`).",
            RequestFailure::BodyTimeout(Duration::from_secs(30)),
        ),
        case(
            "body_too_slow",
            "The body came below the least rate (`--least-rate`), or slowly while other \
             connections needed its room.",
            RequestFailure::BodyTooSlow,
        ),
        case(
            "body_too_large",
            "The body is larger than `--max-body`.",
            RequestFailure::BodyTooLarge(8 * 1024 * 1024),
        ),
    ]
}

fn unprocessable(detail: &'static [u8]) -> RequestFailure {
    RequestFailure::Invalid {
        status: 422,
        detail: Bytes::from_static(detail),
    }
}

/// Faults of a worker that cannot take a request on: no handler has seen it.
fn of_pool() -> Vec<Case> {
    vec![
        case(
            "overloaded",
            "The queue is full, the request waited there too long, too many bytes are held, or \
             too many connections are open, all of them in use.",
            RequestFailure::Overloaded {
                why: "the queue is full".into(),
                retry_after: Duration::from_secs(2),
            },
        ),
        case(
            "handler_not_loaded",
            "There is no command, it cannot be run, or no process of it ever came up.",
            RequestFailure::NotLoaded("command not found: \"no-such\" (PATH=/usr/bin:/bin)".into()),
        ),
        case(
            "handler_unavailable",
            "Processes came up once, and now keep failing.",
            RequestFailure::Unavailable {
                why: "exit status: 1".into(),
                retry_after: Duration::from_secs(4),
            },
        ),
        draining(),
    ]
}

fn draining() -> Case {
    let when = "The worker is shutting down.";
    case("draining", when, RequestFailure::Draining)
}

/// Faults of the process that had the request: it may have run.
fn of_process() -> Vec<Case> {
    vec![
        case(
            "handler_exited",
            "The process died while it had the request.",
            RequestFailure::Exited("signal: 9 (SIGKILL)".into()),
        ),
        case(
            "handler_protocol",
            "The process broke the line protocol.",
            RequestFailure::Protocol("the reply has neither result nor error".into()),
        ),
        case(
            "reply_too_large",
            "The result is larger than `--max-reply`.",
            RequestFailure::ReplyTooLarge(8 * 1024 * 1024),
        ),
        case(
            "handler_timeout",
            "No reply came in time (`--timeout`, or `x-faas-timeout-ms`).",
            RequestFailure::TimedOut("the process wrote nothing; does it flush its output?".into()),
        ),
    ]
}

#[test]
fn every_code_has_a_case() {
    let mut cases = of_function();
    cases.extend(of_other_paths());
    cases.extend(of_other_methods("POST"));
    cases.push(of_handler(400));
    for code in Code::ALL {
        let has_case = cases.iter().any(|case| case.failure.code() == *code);
        assert!(has_case, "{code:?}");
    }
}
