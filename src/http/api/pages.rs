//! `GET /docs`, a page to read and try the API, and `GET /openapi.json`, the document that it
//! shows.
//!
//! Both come from the binary, hold no secret and depend on no request: they are the same for every
//! worker of one version, so neither `Host` nor `Origin` is checked here.

#[cfg(test)]
#[path = "../../../tests/openapi/mod.rs"]
mod openapi;

use super::respond::{self, ApiResponse};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::borrow::Cow;
use std::sync::Arc;
use utoipa_swagger_ui::Config;

const PAGE: &str = include_str!("pages/page.html");

/// The files that the page asks for; the library has more.
const PAGE_FILES: [&str; 6] = [
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

/// The OpenAPI document, made by a test in `tests/openapi`, which says when it is out of date.
const DOCUMENT: &str = include_str!("pages/openapi.json");

/// The answer to a GET of the OpenAPI document.
pub(super) fn document() -> ApiResponse {
    let document = Bytes::from_static(DOCUMENT.as_bytes());
    let mut answer = respond::json(StatusCode::OK, document);
    protect(&mut answer, Cache::Never);
    answer
}

/// The answer to a GET of the page.
pub(super) fn page() -> ApiResponse {
    let mut answer = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    protect(&mut answer, Cache::Never);
    answer
}

/// The answer to a GET of `/docs/`: the page's links are relative to `/docs`, and the Python worker
/// redirected there too.
pub(super) fn page_moved() -> ApiResponse {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let page = HeaderValue::from_static("../docs");
    answer.headers_mut().insert(LOCATION, page);
    protect(&mut answer, Cache::Never);
    answer
}

/// Whether the page has a file of this name.
pub(super) fn has_file(name: &str) -> bool {
    PAGE_FILES.contains(&name)
}

/// The answer to a GET of a file of the page; `None` if the library has lost it.
pub(super) fn file(name: &str) -> Option<ApiResponse> {
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
    protect(&mut answer, Cache::ForAnHour);
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
enum Cache {
    Never,
    ForAnHour,
}

fn protect(answer: &mut ApiResponse, cache: Cache) {
    let directive = match cache {
        Cache::Never => "no-cache",
        Cache::ForAnHour => "max-age=3600",
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(directive));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
