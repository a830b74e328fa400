//! Why a request failed, and why a worker cannot start.
//!
//! A variant names what happened. Its code, and whether the handler may have run, are facts of the
//! contract and stand here; status, headers and words of a response are HTTP's, and stand in
//! `http::api::respond`.

use crate::cause::Cause;
use bytes::Bytes;
use std::path::PathBuf;
use std::time::Duration;

/// Why a request was not answered with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestFailure {
    /// The handler answered with an error.
    Handler {
        /// The message as the JSON string that the handler wrote, quotes included.
        message: Bytes,
        /// The status that the handler chose: 400–499, or 500.
        status: u16,
    },
    /// The request's head or body breaks the contract.
    Invalid {
        /// 400, 415 or 422.
        status: u16,
        /// The JSON value of `detail`.
        detail: Bytes,
    },
    /// The body did not arrive within the body timeout.
    BodyTimeout(Duration),
    /// The body came below the least rate, or slowly while its room was needed.
    BodyTooSlow,
    /// The body is larger than the limit, in bytes.
    BodyTooLarge(u64),
    /// A token is asked for, and the request carries none that is accepted.
    Unauthorized,
    /// A page of another site sent this request, or its `Host` is not ours.
    Forbidden(String),
    /// There is nothing at this path.
    NotFound,
    /// The path exists, but not for this method.
    MethodNotAllowed {
        /// The value of the `allow` header.
        allow: &'static str,
    },
    /// The worker has as much to do as it may take on.
    Overloaded {
        /// What was full, or what took too long.
        why: Cause,
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// No command was given, or no process of it ever came up.
    NotLoaded(Cause),
    /// Processes came up once, and now keep failing.
    Unavailable {
        /// How the last one ended.
        why: Cause,
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// The worker is shutting down, and no handler has seen the request.
    Draining,
    /// The process died while it had the request.
    Exited(Cause),
    /// The process broke the line protocol.
    Protocol(Cause),
    /// The reply is larger than the limit, in bytes.
    ReplyTooLarge(usize),
    /// No reply came in time; says what was seen and the likely cause.
    TimedOut(Cause),
}

/// When a caller may try again, where nothing tells of a longer time.
pub const RETRY_SOON: Duration = Duration::from_secs(1);

/// Whether the handler may have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// No handler has seen the request: a retry is safe.
    No,
    /// A handler may have worked on the request, and may have finished.
    Maybe,
    /// The handler has answered.
    Yes,
}

impl Executed {
    /// As callers are told it.
    pub fn as_str(self) -> &'static str {
        match self {
            Executed::No => "no",
            Executed::Maybe => "maybe",
            Executed::Yes => "yes",
        }
    }
}

/// Makes the table of codes: variant, text for callers, whether the handler may have run.
macro_rules! codes {
    ($($code:ident $text:literal $executed:ident,)*) => {
        /// The code of a failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the variants of RequestFailure say what each means")]
        pub enum Code { $($code),* }

        impl Code {
            /// All codes there are.
            pub const ALL: &[Code] = &[$(Code::$code),*];

            /// As callers are told it.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => $text),* }
            }

            /// Whether the handler may have run.
            pub fn executed(self) -> Executed {
                match self { $(Code::$code => Executed::$executed),* }
            }
        }
    };
}

codes! {
    HandlerError "handler_error" Yes,
    InvalidRequest "invalid_request" No,
    BodyTimeout "body_timeout" No,
    BodyTooLarge "body_too_large" No,
    Unauthorized "unauthorized" No,
    Forbidden "forbidden" No,
    NotFound "not_found" No,
    MethodNotAllowed "method_not_allowed" No,
    Overloaded "overloaded" No,
    HandlerNotLoaded "handler_not_loaded" No,
    HandlerUnavailable "handler_unavailable" No,
    Draining "draining" No,
    HandlerExited "handler_exited" Maybe,
    HandlerProtocol "handler_protocol" Maybe,
    ReplyTooLarge "reply_too_large" Maybe,
    HandlerTimeout "handler_timeout" Maybe,
}

impl RequestFailure {
    /// The code by which callers and logs know the failure.
    pub fn code(&self) -> Code {
        match self {
            RequestFailure::Handler { .. } => Code::HandlerError,
            RequestFailure::Invalid { .. } => Code::InvalidRequest,
            RequestFailure::BodyTimeout(_) | RequestFailure::BodyTooSlow => Code::BodyTimeout,
            RequestFailure::BodyTooLarge(_) => Code::BodyTooLarge,
            RequestFailure::Unauthorized => Code::Unauthorized,
            RequestFailure::Forbidden(_) => Code::Forbidden,
            RequestFailure::NotFound => Code::NotFound,
            RequestFailure::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            RequestFailure::Overloaded { .. } => Code::Overloaded,
            RequestFailure::NotLoaded(_) => Code::HandlerNotLoaded,
            RequestFailure::Unavailable { .. } => Code::HandlerUnavailable,
            RequestFailure::Draining => Code::Draining,
            RequestFailure::Exited(_) => Code::HandlerExited,
            RequestFailure::Protocol(_) => Code::HandlerProtocol,
            RequestFailure::ReplyTooLarge(_) => Code::ReplyTooLarge,
            RequestFailure::TimedOut(_) => Code::HandlerTimeout,
        }
    }

    /// The cause in words; `None` where the variant says all that is known.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            RequestFailure::Overloaded { why, .. }
            | RequestFailure::NotLoaded(why)
            | RequestFailure::Unavailable { why, .. }
            | RequestFailure::Exited(why)
            | RequestFailure::Protocol(why)
            | RequestFailure::TimedOut(why) => Some(why),
            RequestFailure::Handler { .. }
            | RequestFailure::Invalid { .. }
            | RequestFailure::BodyTimeout(_)
            | RequestFailure::BodyTooSlow
            | RequestFailure::BodyTooLarge(_)
            | RequestFailure::Unauthorized
            | RequestFailure::Forbidden(_)
            | RequestFailure::NotFound
            | RequestFailure::MethodNotAllowed { .. }
            | RequestFailure::Draining
            | RequestFailure::ReplyTooLarge(_) => None,
        }
    }

    /// A request that breaks the contract in a way for which the contract has no other words.
    pub fn bad_request(detail: &str) -> RequestFailure {
        let detail = serde_json::Value::from(detail).to_string().into();
        RequestFailure::Invalid {
            status: 400,
            detail,
        }
    }

    /// A request whose body is compressed, or coded in another way.
    pub fn coded_body(coding: &str) -> RequestFailure {
        let detail = format!(
            "a body with the content-encoding {coding:?} is not understood: send it without one"
        );
        RequestFailure::Invalid {
            status: 415,
            detail: serde_json::Value::from(detail).to_string().into(),
        }
    }
}

/// Why the worker cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be listened on.
    Listen {
        /// `host:port` as configured.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system lacks what no process can be started without; says what.
    Platform(String),
    /// No process ever came up, and the worker was to end then; says why.
    NeverUp(String),
    /// The worker was not started to the end, and AWS Lambda was told so; says why.
    Lambda(String),
    /// The sandbox that was asked for cannot be had here; says why.
    Sandbox(String),
    /// The runtime, the signal handlers or a thread cannot be set up.
    Runtime {
        /// What was being set up.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of `--auth-token-file` cannot be read, or holds no tokens.
    Tokens {
        /// The path as configured.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The path of `--reload` cannot be watched.
    Watch {
        /// The path as configured.
        path: PathBuf,
        /// What the watcher said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// The exit status of the program: 2 for a bad setting, as everywhere.
    pub fn exit_status(&self) -> u8 {
        match self {
            StartError::Tokens { .. } => 2,
            StartError::NeverUp(_) | StartError::Lambda(_) => 3,
            StartError::Listen { .. }
            | StartError::Runtime { .. }
            | StartError::Platform(_)
            | StartError::Sandbox(_)
            | StartError::Watch { .. } => 1,
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Listen { address, source } => {
                write!(f, "cannot listen on {address}{}", listen_advice(source))
            }
            StartError::Platform(why) => {
                write!(f, "this system lacks what the worker needs: {why}")
            }
            StartError::NeverUp(why) => write!(
                f,
                "--exit-on-failure (FAAS_EXIT_ON_FAILURE): no process ever came up: {why}"
            ),
            StartError::Lambda(why) => write!(f, "the start failed, and AWS Lambda knows: {why}"),
            StartError::Sandbox(why) => {
                write!(f, "--sandbox (FAAS_SANDBOX) cannot be kept here: {why}")
            }
            StartError::Runtime { what, .. } => write!(f, "cannot set up {what}"),
            StartError::Tokens { path, .. } => write!(
                f,
                "--auth-token-file (FAAS_AUTH_TOKEN_FILE): cannot use {path:?}"
            ),
            StartError::Watch { path, .. } => {
                write!(f, "--reload (FAAS_RELOAD): cannot watch {}", path.display())
            }
        }
    }
}

/// What lets the worker listen after this error, in brackets; empty where the error says enough.
fn listen_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            " (another program has this port: --port (PORT) or --admin (FAAS_ADMIN) sets another)"
        }
        std::io::ErrorKind::PermissionDenied => {
            " (a port below 1024 is kept for root: --port (PORT) or --admin (FAAS_ADMIN) sets another)"
        }
        _ => "",
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen { source, .. }
            | StartError::Runtime { source, .. }
            | StartError::Tokens { source, .. } => Some(source),
            StartError::Watch { source, .. } => Some(source.as_ref()),
            StartError::Platform(_)
            | StartError::NeverUp(_)
            | StartError::Lambda(_)
            | StartError::Sandbox(_) => None,
        }
    }
}
