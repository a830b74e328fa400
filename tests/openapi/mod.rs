//! The OpenAPI document: every path, and its possible answers.
//!
//! Statuses, headers and bodies are not written here again: `answers` takes them from responses
//! that `respond` and the parts that serve each path make.

mod answers;
mod failures;
mod schemas;

use super::super::{health, respond, routes};
use answers::{Body, content, of_failures, plain, status_of, with_headers, with_json, with_text};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::openapi::path::{
    OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathItemBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, License, OpenApi, OpenApiBuilder, PathsBuilder, RefOr,
    Required, Response, ResponseBuilder,
};

const FUNCTION: &str = "function";
const STATE: &str = "state";
const DOCUMENTATION: &str = "documentation";
const HEAD: &str = "HEAD";
/// The name of the way to show a token.
const TOKEN: &str = "token";

/// The description of the API, in front of its paths.
const ABOUT: &str = "\
Runs a command as a function: one payload in, one result out.\n\n\
Every error is `{\"detail\":…}`. Its code is in `x-faas-error`, and `x-faas-executed` says whether \
the handler may have run: after `no` a retry is safe once the cause has gone, after `maybe` if \
running twice does no harm. 429 (unless its code is `handler_error`) and 503 mean that no handler \
has seen the request. A path that is not here is answered 404, `not_found`; a method that is not \
here 405, `method_not_allowed`, and `allow` has those that are. What is no HTTP, or has a head \
that is too large, gets a bare 400 or 431, without body, code or id.";

/// The whole document.
pub(super) fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("faas-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(License::new("Apache-2.0")));
    let mut paths = PathsBuilder::new().path("/", function());
    for path in ["/health", "/_/health"] {
        paths = paths.path(
            path,
            state(path, "Whether the worker answers at all", of_health),
        );
    }
    for path in ["/ready", "/_/ready"] {
        paths = paths.path(path, state(path, "Whether a process is up", of_ready));
    }
    for (path, item) in documentation() {
        paths = paths.path(path, item);
    }
    let mut components = schemas::bodies();
    for (name, cases) in [
        ("NotFound", failures::of_other_paths()),
        ("OnlyPost", failures::of_other_methods("POST")),
        ("OnlyGet", failures::of_other_methods("GET")),
        ("OnlyGetOrHead", failures::of_other_methods("GET, HEAD")),
    ] {
        let responses = of_failures(cases, Body::Sent);
        let one = responses.into_values().next().map(RefOr::T);
        components
            .responses
            .extend(one.map(|one| (name.to_owned(), one)));
    }
    components.add_security_scheme(
        TOKEN,
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    let tag = |name: &str, about: &str| {
        TagBuilder::new()
            .name(name)
            .description(Some(about))
            .build()
    };
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .tags(Some([
            tag(FUNCTION, "Call the handler"),
            tag(STATE, "For probes and load balancers"),
            tag(DOCUMENTATION, "This page and what it needs"),
            tag(HEAD, "What GET answers, without the body"),
        ]))
        .build()
}

/// `POST /`.
fn function() -> PathItem {
    let operation = OperationBuilder::new()
        .tag(FUNCTION)
        .operation_id(Some("invoke"))
        .summary(Some("Give the handler a payload"))
        .parameter(in_header(
            "x-faas-timeout-ms",
            "All the time that the caller has, in milliseconds. More than `--timeout` has no effect.",
            schemas::whole_number(json!(5000)),
        ))
        .parameter(request_id())
        .parameter(in_header(
            "traceparent",
            "W3C trace context, for handlers that ask for it.",
            schemas::text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ))
        .parameter(in_header(
            "tracestate",
            "Goes with `traceparent`.",
            schemas::text("vendor=00f067aa0ba902b7"),
        ))
        // Asked for only where the worker has tokens.
        .securities(Some([
            SecurityRequirement::default(),
            SecurityRequirement::new(TOKEN, Vec::<String>::new()),
        ]))
        .request_body(Some(invocation()));
    PathItem::new(HttpMethod::Post, with_responses(operation, of_function()))
}

fn invocation() -> RequestBody {
    let reading = "dev-1,42,1678886400";
    let inner = r#"{"device":"dev-1","value":42}"#;
    let examples = [
        ("a_reading", "A reading of a device", reading),
        ("empty", "Nothing", ""),
        ("json", "JSON, as a string", inner),
    ];
    let examples =
        examples.map(|(name, about, payload)| (name, about, json!({"payload": payload})));
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(
            "application/json",
            content(schemas::named("Invocation"), examples),
        )
        .build()
}

fn of_function() -> BTreeMap<String, Response> {
    let mut cases = failures::of_function();
    cases.extend(failures::of_any_path());
    // A handler may choose any of these too.
    let mut statuses: Vec<u16> = cases.iter().map(|case| status_of(&case.failure)).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses.retain(|status| (400..500).contains(status) || *status == 500);
    cases.extend(statuses.into_iter().map(failures::of_handler));
    let mut responses = of_failures(cases, Body::Sent);
    let chosen = of_failures(vec![failures::of_handler(404)], Body::Sent);
    responses.extend(chosen.into_values().map(|one| ("4XX".to_owned(), one)));
    let reading = json!({"device_id": "dev-1", "metric_value": 42.0, "timestamp": 1_678_886_400});
    let examples = [
        ("a_reading", "A reading of a device", reading),
        ("null", "Nothing", json!(null)),
        ("text", "A text", json!("DEV-1")),
    ];
    let examples = examples.map(|(name, about, result)| (name, about, json!({"result": result})));
    let ok = respond::json(StatusCode::OK, Bytes::new());
    let ok = plain(&ok, "What the handler returned.").content(
        "application/json",
        content(schemas::named("Result"), examples),
    );
    responses.insert("200".to_owned(), ok.build());
    responses
}

fn with_responses(
    operation: OperationBuilder,
    responses: BTreeMap<String, Response>,
) -> OperationBuilder {
    responses
        .into_iter()
        .fold(operation, |operation, (status, one)| {
            operation.response(status, one)
        })
}

/// A path with GET and HEAD; `ok` gives what each answers if all is well, and the rest.
fn of_get(
    tag: &str,
    name: &str,
    summary: &str,
    ok: impl Fn(Body) -> BTreeMap<String, Response>,
) -> PathItem {
    let operation = |method: &str, tag: &str, body: Body| {
        let mut responses = of_failures(failures::of_any_path(), body);
        responses.extend(ok(body));
        let start = OperationBuilder::new()
            .tag(tag)
            .operation_id(Some(format!("{method}_{name}")))
            .parameter(request_id());
        with_responses(start, responses)
    };
    PathItemBuilder::new()
        .operation(
            HttpMethod::Get,
            operation("get", tag, Body::Sent).summary(Some(summary)),
        )
        .operation(
            HttpMethod::Head,
            operation("head", HEAD, Body::LeftOut).summary(Some(summary)),
        )
        .build()
}

fn state(path: &str, summary: &str, ok: fn(Body) -> BTreeMap<String, Response>) -> PathItem {
    let name = match path.strip_prefix("/_/") {
        Some(name) => format!("{name}_underscore"),
        None => path.trim_start_matches('/').to_owned(),
    };
    of_get(STATE, &name, summary, ok)
}

fn of_health(body: Body) -> BTreeMap<String, Response> {
    let example = json!({"status": "ok", "timestamp": "2026-11-24T01:31:09.062848+00:00"});
    let ok = plain(&health(), "The worker answers.");
    let ok = with_json(ok, body, "Health", example);
    BTreeMap::from([("200".to_owned(), ok.build())])
}

fn of_ready(body: Body) -> BTreeMap<String, Response> {
    let mut responses = of_failures(failures::of_ready(), body);
    let ok = respond::json(StatusCode::OK, Bytes::new());
    let ok = plain(
        &ok,
        "At least one process is up, busy or not, and no shutdown has begun.",
    );
    let ok = with_json(ok, body, "Ready", json!({"status": "ready"}));
    responses.insert("200".to_owned(), ok.build());
    responses
}

/// The page, its files and this document.
fn documentation() -> Vec<(&'static str, PathItem)> {
    let page = of_get(
        DOCUMENTATION,
        "docs",
        "A page to read and try the API",
        |body| {
            let ok = with_text(plain(&super::page(), "The page."), body, "text/html");
            BTreeMap::from([("200".to_owned(), ok.build())])
        },
    );
    let slash = of_get(DOCUMENTATION, "docs_slash", "The way to the page", |_| {
        let moved = plain(&super::page_moved(), "The page has no slash at its end.");
        BTreeMap::from([("307".to_owned(), moved.build())])
    });
    let file = of_get(DOCUMENTATION, "docs_file", "A file of the page", of_file);
    let document = of_get(DOCUMENTATION, "openapi", "This document", |body| {
        let ok = plain(&super::document(), "OpenAPI 3.1.");
        let any = schemas::any_object();
        let ok = match body {
            Body::Sent => ok.content(
                "application/json",
                ContentBuilder::new().schema(Some(any)).build(),
            ),
            Body::LeftOut => ok,
        };
        BTreeMap::from([("200".to_owned(), ok.build())])
    });
    vec![
        ("/docs", page),
        ("/docs/", slash),
        ("/docs/{file}", with_file_name(file)),
        ("/openapi.json", document),
    ]
}

fn with_file_name(mut item: PathItem) -> PathItem {
    let name = ParameterBuilder::new()
        .name("file")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(schemas::one_of(super::PAGE_FILES)))
        .build();
    item.parameters = Some(vec![name.into()]);
    item
}

fn of_file(body: Body) -> BTreeMap<String, Response> {
    let mut responses = of_failures(failures::of_other_paths(), body);
    let files: Vec<_> = super::PAGE_FILES
        .iter()
        .filter_map(|name| super::file(name))
        .collect();
    let headers = files.iter().map(|file| file.headers());
    let mut ok = with_headers(ResponseBuilder::new().description("The file."), headers);
    for file in &files {
        if let Some(kind) = file
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
        {
            let kind = kind.split(';').next().unwrap_or(kind);
            ok = with_text(ok, body, kind);
        }
    }
    responses.insert("200".to_owned(), ok.build());
    responses
}

fn in_header(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn request_id() -> Parameter {
    in_header(
        "x-request-id",
        "Names the request in the log and in the answer.",
        schemas::text("order-4711"),
    )
}

#[test]
fn every_path_that_is_served_is_in_the_document_and_no_other() {
    let document = document();
    let shown: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
    assert_eq!(shown, routes::documented_paths().collect());
}

#[test]
fn the_file_is_what_the_code_answers() {
    let made = document().to_json().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/http/api/pages/openapi.json"
        );
        std::fs::write(file, &made).unwrap();
    } else {
        assert!(
            super::DOCUMENT == made,
            "src/http/api/pages/openapi.json differs from what the code answers; renew it with: \
             UPDATE=1 cargo test --lib openapi"
        );
    }
}
