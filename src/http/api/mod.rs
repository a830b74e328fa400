//! The HTTP API: from a request's head to its response.
//!
//! Knows the pool by its calls and its figures. `respond` turns failures into responses, and
//! `routes` has the paths and methods.

mod exchange;
mod failure_log;
mod figures;
mod guard;
pub mod headers;
mod invoke;
pub mod large_body;
mod pages;
pub mod payload;
pub mod respond;
mod routes;
pub mod token;

use crate::budget::MemoryBudget;
use crate::config::HttpConfig;
use crate::error::{RETRY_SOON, RequestFailure};
use crate::http::server::RequestBody;
use crate::logging::timestamp::Timestamp;
use crate::metrics::{Metrics, OutcomeLabel};
use crate::pool::Pool;
use crate::shutdown::{Shutdown, Stage};
use crate::traces::Traces;
use bytes::Bytes;
use compact_str::CompactString;
use exchange::{Exchange, InProgress};
use failure_log::FailureLog;
pub use figures::Figures;
use guard::Guard;
use headers::{Headers, RareHeader};
use hyper::body::Body;
use hyper::header::{ACCEPT, CONNECTION, EXPECT, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use invoke::Invocation;
use large_body::LargeBodies;
use respond::{ApiResponse, Reader};
use routes::Target;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use token::Tokens;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The address at which a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The address that callers know.
    Public,
    /// The address of `--admin`.
    Admin,
}

/// Answers every request of a worker.
#[derive(Debug)]
pub struct Api {
    config: HttpConfig,
    pool: Arc<Pool>,
    guard: Guard,
    /// Whether errors may quote a handler's output and paths of the machine.
    has_verbose_errors: bool,
    /// `None` without `--auth-token-file`: every caller is accepted.
    tokens: Option<Tokens>,
    budget: MemoryBudget,
    large_bodies: LargeBodies,
    shutdown: Shutdown,
    /// The beginning of the request ids of this run.
    id_prefix: String,
    ids_made: AtomicU64,
    failures: FailureLog,
    metrics: Arc<Metrics>,
    figures: Figures,
    traces: Traces,
}

impl Api {
    /// The API of this pool, on these addresses, for callers with one of the tokens.
    pub fn new(
        config: HttpConfig,
        pool: Arc<Pool>,
        addresses: &[IpAddr],
        tokens: Option<Tokens>,
        budget: MemoryBudget,
        large_bodies: LargeBodies,
        figures: Figures,
    ) -> Api {
        let is_loopback_only = addresses.iter().all(IpAddr::is_loopback);
        let addresses = addresses.iter().copied();
        let (hosts, origins) = (config.allowed_hosts.clone(), config.allowed_origins.clone());
        Api {
            guard: Guard::new(addresses, hosts, origins),
            has_verbose_errors: config.verbose_errors.unwrap_or(is_loopback_only),
            tokens,
            budget,
            large_bodies,
            config,
            pool,
            shutdown: figures.shutdown().clone(),
            metrics: Arc::clone(figures.metrics()),
            figures,
            traces: Traces::none(),
            id_prefix: format!("{:08x}-", fastrand::u32(..)),
            ids_made: AtomicU64::new(0),
            failures: FailureLog::new(),
        }
    }

    /// The same, with spans of its requests.
    pub fn with_traces(self, traces: Traces) -> Api {
        Api { traces, ..self }
    }

    /// The figures of the worker.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Reads the file of tokens again, if there is one; if that fails, the old tokens stay.
    pub fn reread_tokens(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.reread();
        }
    }

    /// Answers one request. No `async fn`: its future would hold the head of the request, and a
    /// large future is slow to move.
    pub fn answer(
        self: Arc<Api>,
        request: Request<RequestBody>,
        surface: Surface,
    ) -> impl Future<Output = ApiResponse> {
        let head = Headers::of(request.headers());
        let checked = Guard::check_head(request.version(), &head)
            .and_then(|()| Guard::check_target(request.uri()));
        let id = self.request_id(&head);
        let mut exchange = Exchange::new(&request, &head, id, checked.is_ok(), &self.config);
        let route = checked.and_then(|()| self.route(&request, &head, surface, &mut exchange));
        // A client that waits for 100 (Continue) is not made to send a body that is not read.
        let is_sent_anyway =
            !request.body().is_end_stream() && !request.headers().contains_key(EXPECT);
        let unread = match is_sent_anyway {
            true => UnreadBody::Discard,
            false => UnreadBody::Leave,
        };
        let body = request.into_body();
        let mut open = InProgress::new(exchange, self);
        async move {
            let answered = match route {
                Ok(Route::Handler(invocation)) => {
                    let api = &open.api;
                    let invoker = invoke::Invoker {
                        config: &api.config,
                        pool: &api.pool,
                        budget: &api.budget,
                        large_bodies: &api.large_bodies,
                        shutdown: &api.shutdown,
                    };
                    invoke::invoke(invoker, invocation, body, &mut open.exchange).await
                }
                Ok(Route::Answer(page)) => {
                    let_go(body, unread).await;
                    Ok(page)
                }
                Err(failure) => {
                    let_go(body, unread).await;
                    Err(failure)
                }
            };
            Api::finish(&mut open, answered)
        }
    }

    /// Completes the response by the headers of every response.
    fn finish(open: &mut InProgress, answered: Result<ApiResponse, RequestFailure>) -> ApiResponse {
        let failure = answered.as_ref().err().map(RequestFailure::code);
        let (mut response, outcome) = match answered {
            Ok(response) => (response, OutcomeLabel::Ok),
            Err(failure) => {
                let (api, exchange) = (&open.api, &open.exchange);
                api.failures.record(&failure, exchange);
                let reader = api.reader(&exchange.id);
                let body = api.budget.count(respond::failure_body(&failure, reader));
                let outcome = OutcomeLabel::Failed(failure.code());
                (respond::failure_response(&failure, body), outcome)
            }
        };
        open.end(outcome, Some(response.status()));
        let headers = response.headers_mut();
        // Never left out: `request_id` consists of graphic ASCII.
        if let Ok(id) = HeaderValue::from_str(&open.exchange.id) {
            headers.insert(REQUEST_ID, id);
        }
        // After a head that can be read in two ways, the beginning of the next one is unknown.
        let is_draining = open.api.shutdown.is_at_least(Stage::Draining);
        if !open.exchange.is_framed || is_draining {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        open.exchange.log_answer(&response, failure);
        response
    }

    /// The reader of the response to this request.
    fn reader<'a>(&self, id: &'a str) -> Reader<'a> {
        match self.has_verbose_errors {
            true => Reader::Operator,
            false => Reader::Caller(Some(id)),
        }
    }

    /// Finds the target of a request, and checks whether the caller may have it.
    fn route(
        &self,
        request: &Request<RequestBody>,
        head: &Headers<'_>,
        surface: Surface,
        exchange: &mut Exchange,
    ) -> Result<Route, RequestFailure> {
        let (uri, method) = (request.uri(), request.method());
        let has_admin = self.config.admin.is_some();
        let target = routes::find(uri.path(), &self.config.function_paths)
            .filter(|target| target.is_served_at(surface, has_admin))
            .ok_or(RequestFailure::NotFound)?;
        if !target.accepts(method) {
            let allow = target.allow();
            return Err(RequestFailure::MethodNotAllowed { allow });
        }
        let page = match target {
            Target::Function => {
                exchange.begin_for_function(&self.traces);
                self.guard.check_host(uri, head)?;
                self.guard.check_origin(uri, head)?;
                if let Some(tokens) = &self.tokens {
                    tokens.check(head.all())?;
                }
                check_coding(head)?;
                let invocation = Invocation::of(head, &self.config, exchange)?;
                return Ok(Route::Handler(invocation));
            }
            Target::Health => health(),
            Target::Ready => self.ready(),
            Target::Metrics => self.figures.text(head.all().get(ACCEPT)),
            Target::Stats => self.figures.stats(),
            Target::Processes => self.figures.processes(),
            Target::Document => pages::document(),
            Target::Page => pages::page(),
            Target::PageMoved => pages::page_moved(),
            Target::PageFile(name) => pages::file(name).ok_or(RequestFailure::NotFound)?,
        };
        Ok(Route::Answer(page))
    }

    fn ready(&self) -> ApiResponse {
        if self.shutdown.is_at_least(Stage::Draining) {
            return respond::failure(&RequestFailure::Draining, Reader::Caller(None));
        }
        match self.pool.why_not_ready() {
            None => respond::json(
                StatusCode::OK,
                Bytes::from_static(b"{\"status\":\"ready\"}"),
            ),
            Some(why) => {
                let retry_after = RETRY_SOON;
                let reader = match self.has_verbose_errors {
                    true => Reader::Operator,
                    false => Reader::Caller(None),
                };
                respond::failure(&RequestFailure::Unavailable { why, retry_after }, reader)
            }
        }
    }

    /// The caller's request id, if it can be written anywhere, else one of the worker's.
    fn request_id(&self, head: &Headers<'_>) -> CompactString {
        let sane = |id: &HeaderValue| {
            let id = id.to_str().ok()?;
            let is_graphic = id.bytes().all(|byte| byte.is_ascii_graphic());
            let is_sane = (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && is_graphic;
            is_sane.then(|| CompactString::new(id))
        };
        head.get(RareHeader::RequestId)
            .and_then(sane)
            // The name of a call in OpenFaaS.
            .or_else(|| head.get(RareHeader::CallId).and_then(sane))
            .unwrap_or_else(|| {
                let number = self.ids_made.fetch_add(1, Ordering::Relaxed);
                let mut id = CompactString::new(&self.id_prefix);
                id.push_str(itoa::Buffer::new().format(number));
                id
            })
    }
}

/// What becomes of a body that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnreadBody {
    /// The bytes that have come are read and thrown away, so that the connection can go on.
    Discard,
    /// No byte is read.
    Leave,
}

/// Drops a body that is not read.
async fn let_go(body: RequestBody, unread: UnreadBody) {
    if unread == UnreadBody::Discard {
        Box::pin(body.discard()).await;
    }
}

/// How a request is answered that has passed all checks.
enum Route {
    /// The answer is there already.
    Answer(ApiResponse),
    /// The handler is asked.
    Handler(Invocation),
}

/// Refuses a body that is compressed, or coded in any other way: it would be read as it is.
fn check_coding(head: &Headers<'_>) -> Result<(), RequestFailure> {
    for value in head.get_all(RareHeader::ContentEncoding) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let mut codings = text.split(',').map(str::trim);
        let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
        if let Some(coding) = codings.find(|coding| !is_none(coding)) {
            return Err(RequestFailure::coded_body(coding));
        }
    }
    Ok(())
}

fn health() -> ApiResponse {
    let now = Timestamp::now();
    let body = format!("{{\"status\":\"ok\",\"timestamp\":\"{now}+00:00\"}}");
    respond::json(StatusCode::OK, body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<R>(_: impl Fn(Arc<Api>, Request<RequestBody>, Surface) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn the_future_that_answers_a_request_is_small() {
        // It is moved twice for each request, and each connection has room for one.
        let bytes = size_of_future(Api::answer);
        assert!(bytes <= 1024, "{bytes}");
    }
}
