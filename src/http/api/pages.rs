//! `GET /docs`, the page to read and try the API, and `GET /openapi.json`, what it shows.
//!
//! All of it comes from the binary, and none of it is secret or depends on a request: it is the
//! same for every worker of one version, so neither `Host` nor `Origin` is looked at here.

mod answers;
mod document;
mod failures;
mod schemas;

use super::respond::{self, ApiResponse};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

const PAGE: &str = include_str!("pages/page.html");

/// The files that the page asks for; the library has more.
const FILES: [&str; 6] = [
    "favicon-32x32.png",
    "index.css",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// Nothing but what this worker serves is loaded or called, whatever a document or an answer says,
/// and no page of another site shows this one in a frame. (The style sheet holds its icons.)
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The document never changes while a worker runs, and most workers are never asked for it.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = document::document().to_json();
    text.expect("a document has text for keys only").into()
});

/// The answer to a GET of this path, if it is one of these.
pub(super) fn find(path: &str) -> Option<ApiResponse> {
    match path {
        "/openapi.json" => Some(document_with(DOCUMENT.clone())),
        "/docs" => Some(page()),
        "/docs/" => Some(to_page()),
        _ => file(path.strip_prefix("/docs/")?),
    }
}

fn document_with(body: Bytes) -> ApiResponse {
    let mut answer = respond::json(StatusCode::OK, body);
    protect(&mut answer, Kept::No);
    answer
}

fn page() -> ApiResponse {
    let mut answer = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    protect(&mut answer, Kept::No);
    answer
}

/// The page's links are relative to `/docs`, and the Python worker sent its readers there too.
fn to_page() -> ApiResponse {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let page = HeaderValue::from_static("../docs");
    answer.headers_mut().insert(LOCATION, page);
    protect(&mut answer, Kept::No);
    answer
}

fn file(name: &str) -> Option<ApiResponse> {
    if !FILES.contains(&name) {
        return None;
    }
    let file = utoipa_swagger_ui::serve(name, Arc::new(swagger_ui())).ok()??;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let charset = if file.content_type.starts_with("text/") {
        "; charset=utf-8"
    } else {
        ""
    };
    let kind = HeaderValue::try_from(format!("{}{charset}", file.content_type)).ok()?;
    let mut answer = Response::new(Full::new(bytes));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    if file.gzpipped {
        // Also for a client that did not ask: no other form is held, and browsers all ask.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    protect(&mut answer, Kept::ForAnHour);
    Some(answer)
}

/// What the page shows, and how.
fn swagger_ui() -> Config<'static> {
    // Relative to the page, like its other links.
    Config::from("openapi.json")
        .use_base_layout()
        .doc_expansion("list")
        // No list of schemas below: each is shown where it is used.
        .default_models_expand_depth(-1)
        .default_model_expand_depth(3)
        .display_request_duration(true)
        .try_it_out_enabled(true)
        // Else the page sends the document to a server on the internet for a badge.
        .validator_url("none")
}

/// How long a browser may use its copy without asking.
#[derive(Clone, Copy)]
enum Kept {
    No,
    ForAnHour,
}

fn protect(answer: &mut ApiResponse, kept: Kept) {
    let kept = match kept {
        Kept::No => "no-cache",
        Kept::ForAnHour => "max-age=3600",
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
