//! `POST /`: from the body to the call and back.

use super::exchange::Exchange;
use super::headers::{Headers, RareHeader, passed};
use super::large_body::LargeBodies;
use super::payload::{find_payload, find_plain_payload, is_json};
use super::respond::{self, ApiResponse};
use crate::budget::{COUNTED_FROM, MemoryBudget, Reservation};
use crate::config::HttpConfig;
use crate::error::{RETRY_SOON, RequestFailure};
use crate::http::server::RequestBody;
use crate::pool::{Job, Pool, RequestExtras};
use crate::shutdown::{Shutdown, Stage};
use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::HeaderValue;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// Largest payload that is copied, in bytes: a payload that is a part of the read buffer keeps all
/// of that buffer, and makes hyper allocate another one.
const SMALL_PAYLOAD_BYTES: usize = COUNTED_FROM;

/// Size from which a body is searched on another thread, in bytes, unless it is a plain one: a
/// hostile body of this size takes half a millisecond.
const LARGE_BODY_BYTES: usize = 32 * 1024;

/// Size from which a plain body is searched on another thread as well, in bytes.
const LARGE_PLAIN_BODY_BYTES: usize = 256 * 1024;

/// The parts of the worker that an invocation uses.
pub(super) struct Invoker<'a> {
    pub(super) config: &'a HttpConfig,
    pub(super) pool: &'a Pool,
    pub(super) budget: &'a MemoryBudget,
    pub(super) large_bodies: &'a LargeBodies,
    pub(super) shutdown: &'a Shutdown,
}

/// The request for the handler, as far as its head tells.
pub(super) struct Invocation {
    is_json: bool,
    extras: RequestExtras,
    /// The caller's time budget.
    time_budget: Option<Duration>,
    arrived: Instant,
}

impl Invocation {
    pub(super) fn of(
        head: &Headers<'_>,
        config: &HttpConfig,
        exchange: &Exchange,
    ) -> Result<Invocation, RequestFailure> {
        Ok(Invocation {
            time_budget: time_budget(head, config.takes_x_timeout)?,
            is_json: is_json(head.content_type().map(HeaderValue::as_bytes)),
            extras: extras(config, head, exchange),
            arrived: exchange.arrived,
        })
    }
}

/// Invokes the handler: collects the body, finds the payload, calls the pool, and puts the times of
/// the call into the request's record.
///
/// The future is kept small, because it is moved about with the future that answers the request:
/// parts for late or large bodies are allocated when they are needed.
pub(super) async fn invoke(
    invoker: Invoker<'_>,
    invocation: Invocation,
    body: RequestBody,
    exchange: &mut Exchange,
) -> Result<ApiResponse, RequestFailure> {
    let Invoker {
        config,
        pool,
        budget,
        large_bodies,
        shutdown,
    } = invoker;
    let Invocation {
        is_json,
        extras,
        time_budget,
        arrived,
    } = invocation;
    // Refuses a body that is too large before the client is asked to send it.
    let mut body = Collecting::new(body, config.max_body_bytes, budget.reservation())?;
    // A body mostly comes with its head.
    let (body, reservation) = match body.at_hand() {
        Some(collected) => (collected?, body.reservation),
        None => {
            let timeout = shorter(time_budget, config.body_timeout);
            Box::pin(body.within(timeout, shutdown)).await?
        }
    };
    exchange.bytes_in = body.len() as u64;
    // The body is dropped before the wait for the answer.
    let (payload, mut reservation) = match find_here(is_json, &body) {
        Some(found) => {
            drop(body);
            (found?, reservation)
        }
        None => {
            let left = time_budget.map(|time| time.saturating_sub(arrived.elapsed()));
            let limit = shorter(left, config.body_timeout);
            let found = large_bodies.find_payload(is_json, body, reservation, limit);
            Box::pin(found).await?
        }
    };
    if extras.bytes() > 0 && !reservation.grow_to(payload.len() + extras.bytes()) {
        return Err(no_memory());
    }
    let deadline = time_budget.map(|time| arrived + time);
    let mut call = pool.call(Job {
        payload,
        extras,
        timeout: pool.timeout(),
        deadline,
        reservation,
    })?;
    let outcome = (&mut call).await;
    exchange.times = call.times();
    Ok(respond::json(StatusCode::OK, outcome?))
}

/// The shorter of a limit and the caller's time budget.
fn shorter(time_budget: Option<Duration>, limit: Duration) -> Duration {
    time_budget.map_or(limit, |time| time.min(limit))
}

/// The payload, if the body can be searched here without making other requests wait.
fn find_here(is_json: bool, body: &Bytes) -> Option<Result<Bytes, RequestFailure>> {
    if body.len() >= LARGE_BODY_BYTES {
        let may_be_plain = is_json && body.len() < LARGE_PLAIN_BODY_BYTES;
        if !may_be_plain {
            return None;
        }
        return find_plain_payload(body).map(Ok);
    }
    let copied = |payload: Bytes| match payload.len() < SMALL_PAYLOAD_BYTES {
        true => Bytes::copy_from_slice(&payload),
        false => payload,
    };
    Some(find_payload(is_json, body).map(copied))
}

/// The caller's time budget, from `x-faas-timeout-ms`, or else from OpenFaaS's `x-timeout` if that
/// counts.
fn time_budget(
    head: &Headers<'_>,
    takes_x_timeout: bool,
) -> Result<Option<Duration>, RequestFailure> {
    let Some(value) = head.get(RareHeader::TimeoutMs) else {
        let value = head.get(RareHeader::Timeout).filter(|_| takes_x_timeout);
        // Not the worker's own header: anything but a duration is no error.
        let parsed = value.and_then(|value| humantime::parse_duration(value.to_str().ok()?).ok());
        return Ok(parsed.filter(|time| !time.is_zero()));
    };
    let millis = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<u32>().ok());
    match millis {
        Some(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis.into()))),
        Some(_) | None => Err(RequestFailure::bad_request(&format!(
            "x-faas-timeout-ms must be a whole number of milliseconds from 1 up, got {value:?}"
        ))),
    }
}

fn extras(config: &HttpConfig, head: &Headers<'_>, exchange: &Exchange) -> RequestExtras {
    RequestExtras {
        headers: passed(head.all(), &config.pass_headers),
        request_id: exchange.id.clone(),
        trace: exchange.trace.clone(),
    }
}

/// Collects a body, up to its limit.
struct Collecting {
    body: RequestBody,
    limit: u64,
    /// Counts the bytes that have come, not the bytes that were announced.
    reservation: Reservation,
    /// Mostly the only piece, which is not copied.
    first: Bytes,
    rest: BytesMut,
}

impl Collecting {
    fn new(
        body: RequestBody,
        limit: u64,
        reservation: Reservation,
    ) -> Result<Collecting, RequestFailure> {
        let announced = body.size_hint().lower();
        if announced > limit {
            return Err(RequestFailure::BodyTooLarge(limit));
        }
        if !reservation.has_room_or_reports() && announced >= COUNTED_FROM as u64 {
            return Err(no_memory());
        }
        Ok(Collecting {
            body,
            limit,
            reservation,
            first: Bytes::new(),
            rest: BytesMut::new(),
        })
    }

    /// Polls for the whole body, within its limits; not to be polled again after it is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, RequestFailure>> {
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            if let Ok(data) = frame?.into_data() {
                self.append(data)?;
            }
        }
        let rest = std::mem::take(&mut self.rest);
        let body = match rest.is_empty() {
            true => std::mem::take(&mut self.first),
            false => rest.freeze(),
        };
        Poll::Ready(Ok(body))
    }

    /// The whole body, if all of it has come. No waker is registered for the rest: [`Self::within`]
    /// polls again.
    fn at_hand(&mut self) -> Option<Result<Bytes, RequestFailure>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(collected) => Some(collected),
            Poll::Pending => None,
        }
    }

    async fn within(
        mut self,
        timeout: Duration,
        shutdown: &Shutdown,
    ) -> Result<(Bytes, Reservation), RequestFailure> {
        // Cancel-safe: a body that is late is answered with a failure, and read no more.
        let in_time = tokio::time::timeout(timeout, poll_fn(|cx| self.poll(cx)));
        match shutdown.run_until(Stage::Stopping, in_time).await {
            Some(Ok(collected)) => Ok((collected?, self.reservation)),
            Some(Err(_)) => Err(RequestFailure::BodyTimeout(timeout)),
            None => Err(RequestFailure::Draining),
        }
    }

    fn append(&mut self, data: Bytes) -> Result<(), RequestFailure> {
        let length = self.first.len() + self.rest.len() + data.len();
        if length as u64 > self.limit {
            return Err(RequestFailure::BodyTooLarge(self.limit));
        }
        if !self.reservation.grow_to(length) {
            return Err(no_memory());
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = data;
            return Ok(());
        }
        if self.rest.capacity() < length {
            // At most as much again as has come, so that announced bytes take no room.
            let announced = length as u64 + self.body.size_hint().lower();
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            let wanted = (2 * length).min(announced.max(length));
            self.rest.reserve(wanted - self.rest.len());
        }
        if self.rest.is_empty() {
            self.rest
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }
}

fn no_memory() -> RequestFailure {
    RequestFailure::Overloaded {
        why: "too many bytes of bodies and replies are held already (--max-buffered)".into(),
        retry_after: RETRY_SOON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_bodies_are_searched_here_when_they_are_large() {
        let plain = |length: usize| {
            let payload = "x".repeat(length - b"{\"payload\":\"\"}".len());
            Bytes::from(format!("{{\"payload\":\"{payload}\"}}"))
        };
        let hostile = |length: usize| Bytes::from(vec![b'['; length]);
        for (is_json, body, is_here) in [
            (true, plain(100), true),
            (true, hostile(LARGE_BODY_BYTES - 1), true),
            (true, hostile(LARGE_BODY_BYTES), false),
            (false, hostile(LARGE_BODY_BYTES), false),
            (true, plain(LARGE_BODY_BYTES), true),
            (true, plain(LARGE_PLAIN_BODY_BYTES - 1), true),
            (true, plain(LARGE_PLAIN_BODY_BYTES), false),
        ] {
            let length = body.len();
            assert_eq!(find_here(is_json, &body).is_some(), is_here, "{length}");
        }
    }
}
