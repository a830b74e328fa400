//! `POST /`: from the body to the call and back.

use super::head::{Head, Rare};
use super::request::{find_payload, is_json};
use super::respond::{self, Answer};
use crate::buffered::{Buffered, Held};
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::pool::{Extras, Pool};
use bytes::{Bytes, BytesMut};
use compact_str::CompactString;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A body of a response from this size on, in bytes, counts as held until it has been written.
/// Smaller ones are covered by the limit of connections.
const COUNTED_FROM: usize = 16 * 1024;

/// A payload below this size is copied, in bytes: one that is a part of the buffer that was read
/// into keeps all of that buffer, and makes hyper get another one.
const SMALL_PAYLOAD: usize = 4 * 1024;

/// A body from this size on is looked at on another thread, in bytes.
const LARGE_BODY: usize = 256 * 1024;

/// What answering a payload takes.
pub(super) struct Means<'a> {
    pub(super) config: &'a HttpConfig,
    pub(super) pool: &'a Pool,
    pub(super) buffered: &'a Buffered,
    /// Cancelled when bodies that are still on their way come too late.
    pub(super) refuse: &'a CancellationToken,
}

/// What the head of a request for the handler says.
pub(super) struct Terms {
    is_json: bool,
    extras: Extras,
    /// The caller's whole budget.
    budget: Option<Duration>,
    arrived: Instant,
}

impl Terms {
    pub(super) fn of(
        head: &Head<'_>,
        config: &HttpConfig,
        request_id: CompactString,
        arrived: Instant,
    ) -> Result<Terms, Failure> {
        Ok(Terms {
            budget: budget(head)?,
            is_json: is_json(head.content_type().map(HeaderValue::as_bytes)),
            extras: extras(config, head, request_id),
            arrived,
        })
    }
}

/// Answers a request with what a handler makes of its body.
///
/// Kept small, because it is moved about with the future that answers the request: what is needed
/// only where a body comes late or is large is made when that is so.
pub(super) async fn invoke(
    means: Means<'_>,
    terms: Terms,
    body: Incoming,
) -> Result<Answer, Failure> {
    let Means {
        config,
        pool,
        buffered,
        refuse,
    } = means;
    let Terms {
        is_json,
        extras,
        budget,
        arrived,
    } = terms;
    // Refuses a body that is too large before the client is asked to send it.
    let mut body = Collecting::new(body, config.max_body_bytes, buffered.start())?;
    // A body mostly comes with its head.
    let (body, held) = match body.at_hand() {
        Some(collected) => (collected?, body.held),
        None => {
            let timeout = shorter(budget, config.body_timeout);
            Box::pin(body.within(timeout, refuse)).await?
        }
    };
    // The body itself is gone before there is anything to wait for.
    let (payload, mut held) = if body.len() < LARGE_BODY {
        (find_in_small(is_json, body)?, held)
    } else {
        Box::pin(find_in_large(is_json, body, held)).await?
    };
    if payload.len() >= COUNTED_FROM {
        // The line that is written for it is a second copy; newcomers wait for it.
        held.add(payload.len() as u64);
    }
    let timeout = shorter(budget, config.timeout);
    let latest = budget.map(|budget| arrived + budget);
    let call = pool.call(payload, extras, timeout, latest, held)?;
    let body = call.await?;
    Ok(respond::json(StatusCode::OK, counted(body, buffered)))
}

/// Time that a request may take for something: the caller's budget may be less.
fn shorter(budget: Option<Duration>, limit: Duration) -> Duration {
    budget.map_or(limit, |budget| budget.min(limit))
}

/// The body of a response, which counts as held until it has been written.
pub(super) fn counted(body: Bytes, buffered: &Buffered) -> Bytes {
    if body.len() < COUNTED_FROM {
        return body;
    }
    let mut held = buffered.start();
    held.add(body.len() as u64);
    Bytes::from_owner(Counted { body, _held: held })
}

/// The payload in a body that is not large.
fn find_in_small(is_json: bool, body: Bytes) -> Result<Bytes, Failure> {
    let payload = find_payload(is_json, &body)?;
    Ok(if payload.len() < SMALL_PAYLOAD {
        Bytes::copy_from_slice(&payload)
    } else {
        payload
    })
}

/// The payload in a large body, looked at on another thread: the error that repeats a hostile one
/// takes up to a second for 8 MiB, and no other request may wait for that. It counts as held until
/// then, also when its client does not wait.
async fn find_in_large(is_json: bool, body: Bytes, held: Held) -> Result<(Bytes, Held), Failure> {
    let found = tokio::task::spawn_blocking(move || Ok((find_payload(is_json, &body)?, held)));
    found
        .await
        .unwrap_or_else(|_| Err(Failure::bad_request("the body cannot be read")))
}

/// A body that counts as held until it has been written.
struct Counted {
    body: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The caller's whole budget, from `x-faas-timeout-ms`.
fn budget(head: &Head<'_>) -> Result<Option<Duration>, Failure> {
    let Some(value) = head.get(Rare::TimeoutMs) else {
        return Ok(None);
    };
    let millis = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<u32>().ok());
    match millis {
        Some(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis.into()))),
        Some(_) | None => Err(Failure::bad_request(&format!(
            "x-faas-timeout-ms must be a whole number of milliseconds from 1 up, got {value:?}"
        ))),
    }
}

fn extras(config: &HttpConfig, head: &Head<'_>, request_id: CompactString) -> Extras {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let passed = config.pass_headers.iter().filter_map(|name| {
        let values: Vec<String> = head.all().get_all(name).iter().map(text).collect();
        (!values.is_empty()).then(|| (name.clone(), values.join(", ")))
    });
    Extras {
        headers: passed.collect(),
        request_id,
        traceparent: head.get(Rare::Traceparent).map(text),
    }
}

/// A body on its way.
struct Collecting {
    body: Incoming,
    limit: u64,
    held: Held,
    /// Mostly there is one piece only, and nothing is copied.
    first: Bytes,
    rest: BytesMut,
}

impl Collecting {
    fn new(body: Incoming, limit: u64, held: Held) -> Result<Collecting, Failure> {
        let announced = body.size_hint().lower();
        if announced > limit {
            return Err(Failure::BodyTooLarge(limit));
        }
        let mut collecting = Collecting {
            body,
            limit,
            held,
            first: Bytes::new(),
            rest: BytesMut::new(),
        };
        collecting.hold(announced)?;
        Ok(collecting)
    }

    /// The whole body, within its limits; not to be asked again after that.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Failure>> {
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            let frame =
                frame.map_err(|_| Failure::bad_request("the body ended early or is malformed"))?;
            if let Ok(data) = frame.into_data() {
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

    /// The whole body, if all of it is there. Nobody is woken for the rest: [`Self::within`] asks
    /// again.
    fn at_hand(&mut self) -> Option<Result<Bytes, Failure>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(collected) => Some(collected),
            Poll::Pending => None,
        }
    }

    async fn within(
        mut self,
        timeout: Duration,
        refuse: &CancellationToken,
    ) -> Result<(Bytes, Held), Failure> {
        // Cancel-safe: a body that is not awaited to its end is answered with a failure, and read no
        // more.
        let in_time = tokio::time::timeout(timeout, poll_fn(|cx| self.poll(cx)));
        match refuse.run_until_cancelled(in_time).await {
            Some(Ok(collected)) => Ok((collected?, self.held)),
            Some(Err(_)) => Err(Failure::BodyTimeout(timeout)),
            None => Err(Failure::Draining),
        }
    }

    fn append(&mut self, data: Bytes) -> Result<(), Failure> {
        let length = self.first.len() + self.rest.len() + data.len();
        if length as u64 > self.limit {
            return Err(Failure::BodyTooLarge(self.limit));
        }
        self.hold(length as u64)?;
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = data;
            return Ok(());
        }
        if self.rest.is_empty() {
            let still_to_come = usize::try_from(self.body.size_hint().lower()).unwrap_or(0);
            self.rest.reserve(length + still_to_come);
            self.rest
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    fn hold(&mut self, bytes: u64) -> Result<(), Failure> {
        if self.held.grow_to(bytes) {
            return Ok(());
        }
        let why = "too many bytes of bodies and replies are held already".to_owned();
        Err(Failure::Overloaded {
            why,
            retry_after: Duration::from_secs(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_body_counts_as_held_until_it_was_looked_at_caller_or_no_caller() {
        let body = Bytes::from(format!("[{}1]", "1,".repeat(LARGE_BODY)));
        let buffered = Buffered::new(body.len() as u64);
        let mut held = buffered.start();
        assert!(held.grow_to(body.len() as u64));
        let mut looking = Box::pin(find_in_large(true, body, held));
        let mut context = Context::from_waker(Waker::noop());
        assert!(looking.as_mut().poll(&mut context).is_pending());
        drop(looking);
        assert!(!buffered.start().grow_to(1), "it is being looked at");
        let end = Instant::now() + Duration::from_secs(60);
        while !buffered.start().grow_to(1) {
            assert!(Instant::now() < end, "it was never given back");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
