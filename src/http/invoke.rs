//! `POST /`: from the body to the call and back.

use super::request::find_payload;
use super::respond::{self, Answer};
use crate::buffered::{Buffered, Held};
use crate::config::HttpConfig;
use crate::error::Failure;
use crate::pool::{Extras, Pool};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-faas-timeout-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A body of a response from this size on counts as held until it has been written, in bytes. Smaller ones
/// are covered by the limit of connections.
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

/// Answers a payload with what a handler makes of it.
pub(super) async fn invoke(
    means: Means<'_>,
    request: Request<Incoming>,
    request_id: &Bytes,
    arrived: Instant,
) -> Result<Answer, Failure> {
    let Means {
        config,
        pool,
        buffered,
        refuse,
    } = means;
    let (head, body) = request.into_parts();
    let budget = budget(&head.headers)?;
    let mut held = buffered.start();
    let timeout = budget.map_or(config.body_timeout, |budget| {
        budget.min(config.body_timeout)
    });
    let body = read_body(config.max_body_bytes, timeout, refuse, body, &mut held).await?;
    let (payload, mut held) = payload_of(head.headers.get(CONTENT_TYPE), body, held).await?;
    let timeout = budget.map_or(config.timeout, |budget| budget.min(config.timeout));
    let latest = budget.map(|budget| arrived + budget);
    let extras = extras(config, &head.headers, request_id);
    // It keeps the buffer that it was read into, for which hyper would get another one.
    drop(head);
    if payload.len() >= COUNTED_FROM {
        // The line that is written for it is a second copy; newcomers wait for it.
        held.add(payload.len() as u64);
    }
    let call = pool.call(payload, extras, timeout, latest, held)?;
    let result = call.await?;
    let body = respond::result_body(&result).into();
    Ok(respond::json(StatusCode::OK, counted(body, buffered)))
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

/// The payload in a body. A large body is looked at on another thread: the error that repeats a
/// hostile one takes up to a second for 8 MiB, and no other request may wait for that. It counts
/// as held until then, also when its client does not wait.
async fn payload_of(
    content_type: Option<&HeaderValue>,
    body: Bytes,
    held: Held,
) -> Result<(Bytes, Held), Failure> {
    if body.len() < LARGE_BODY {
        let mut payload = find_payload(content_type.map(HeaderValue::as_bytes), &body)?;
        if payload.len() < SMALL_PAYLOAD {
            payload = Bytes::copy_from_slice(&payload);
        }
        return Ok((payload, held));
    }
    let content_type = content_type.cloned();
    let found = tokio::task::spawn_blocking(move || {
        let payload = find_payload(content_type.as_ref().map(HeaderValue::as_bytes), &body)?;
        Ok((payload, held))
    });
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
fn budget(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(TIMEOUT_MS) else {
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

fn extras(config: &HttpConfig, headers: &HeaderMap, request_id: &Bytes) -> Extras {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let passed = config.pass_headers.iter().filter_map(|name| {
        let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
        (!values.is_empty()).then(|| (name.clone(), values.join(", ")))
    });
    Extras {
        headers: passed.collect(),
        request_id: request_id.clone(),
        traceparent: headers.get(TRACEPARENT).map(text),
    }
}

/// Reads the whole body within its limits.
async fn read_body(
    limit: u64,
    timeout: Duration,
    refuse: &CancellationToken,
    body: Incoming,
    held: &mut Held,
) -> Result<Bytes, Failure> {
    // Told before anything is read, and before the client is asked to continue.
    if body.size_hint().lower() > limit {
        return Err(Failure::BodyTooLarge(limit));
    }
    hold(held, body.size_hint().lower())?;
    let mut collecting = pin!(collect(body, limit, held));
    if let Some(collected) = look_twice(collecting.as_mut()).await {
        return collected;
    }
    let in_time = tokio::time::timeout(timeout, collecting);
    match refuse.run_until_cancelled(in_time).await {
        Some(Ok(collected)) => collected,
        Some(Err(_)) => Err(Failure::BodyTimeout(timeout)),
        None => Err(Failure::Draining),
    }
}

/// What is there at once, or at the next turn of this task. A body mostly comes with its head, and
/// hyper hands it over in the turn after it was first asked for: no timer is needed for that.
async fn look_twice<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut has_looked = false;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if has_looked => Poll::Ready(None),
        Poll::Pending => {
            has_looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

async fn collect(mut body: Incoming, limit: u64, held: &mut Held) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Failure::bad_request("the body ended early or is malformed"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = first.len() + rest.len() + data.len();
        if length as u64 > limit {
            return Err(Failure::BodyTooLarge(limit));
        }
        hold(held, length as u64)?;
        // Mostly there is one piece only, and nothing is copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(length.max(usize::try_from(body.size_hint().lower()).unwrap_or(0)));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

fn hold(held: &mut Held, bytes: u64) -> Result<(), Failure> {
    if held.grow_to(bytes) {
        return Ok(());
    }
    let why = "too many bytes of bodies and replies are held already".to_owned();
    Err(Failure::Overloaded {
        why,
        retry_after: Duration::from_secs(1),
    })
}
