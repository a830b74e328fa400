//! Answers as the document shows them, made from real responses.

use super::failures::Case;
use super::schemas;
use crate::error::RequestFailure;
use crate::http::api::REQUEST_ID;
use crate::http::api::respond::{self, ApiResponse};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{
    Content, ContentBuilder, HeaderBuilder, RefOr, Response, ResponseBuilder, Schema,
};

/// Whether an answer has a body: an answer to HEAD has none.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Sent,
    LeftOut,
}

/// The status that a failure is answered with.
pub(super) fn status_of(failure: &RequestFailure) -> u16 {
    respond::failure(failure, respond::Reader::Operator)
        .status()
        .as_u16()
}

/// One response for each status that these failures have.
pub(super) fn of_failures(cases: Vec<Case>, body: Body) -> BTreeMap<String, Response> {
    let mut by_status: BTreeMap<u16, Vec<Case>> = BTreeMap::new();
    for case in cases {
        by_status
            .entry(status_of(&case.failure))
            .or_default()
            .push(case);
    }
    by_status
        .into_iter()
        .map(|(status, cases)| (status.to_string(), of_status(status, &cases, body)))
        .collect()
}

fn of_status(status: u16, cases: &[Case], body: Body) -> Response {
    let answers: Vec<_> = cases
        .iter()
        .map(|case| respond::failure(&case.failure, respond::Reader::Operator))
        .collect();
    let reasons: Vec<String> = cases
        .iter()
        .zip(&answers)
        .map(|(case, answer)| format!("* `{}`: {}", code_of(answer), case.when))
        .collect();
    let response = ResponseBuilder::new().description(reasons.join("\n"));
    let response = with_headers(response, answers.iter().map(|answer| answer.headers()));
    let Body::Sent = body else {
        return response.build();
    };
    let schema = match status {
        422 => schemas::error_or_invalid().into(),
        _ => schemas::named("Error"),
    };
    let examples = cases.iter().zip(&answers).map(|(case, answer)| {
        let body = serde_json::from_slice(&respond::failure_body(
            &case.failure,
            respond::Reader::Operator,
        ));
        let summary = format!("{}: {}", code_of(answer), case.when.replace('`', ""));
        (case.name, summary, body.unwrap_or(Value::Null))
    });
    response
        .content("application/json", content(schema, examples))
        .build()
}

fn code_of(answer: &ApiResponse) -> &str {
    let code = answer.headers().get("x-faas-error");
    code.and_then(|code| code.to_str().ok()).unwrap_or_default()
}

/// A response with the headers of a real one.
pub(super) fn plain(answer: &ApiResponse, description: &str) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(description);
    with_headers(response, [answer.headers()])
}

/// Adds the headers of these responses, and the request id, which all responses have.
pub(super) fn with_headers<'a>(
    response: ResponseBuilder,
    answers: impl IntoIterator<Item = &'a HeaderMap>,
) -> ResponseBuilder {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    values.insert(REQUEST_ID.to_string(), Vec::new());
    for headers in answers {
        for (name, value) in headers {
            // `content-type` is described under `content`; `connection` is not part of the API.
            if *name == CONTENT_TYPE || *name == CONNECTION {
                continue;
            }
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let known = values.entry(name.to_string()).or_default();
            if !known.contains(&value) {
                known.push(value);
            }
        }
    }
    values
        .into_iter()
        .fold(response, |response, (name, values)| {
            let (description, schema) = schemas::header(&name, &values);
            let header = HeaderBuilder::new()
                .schema(Some(schema))
                .description(Some(description));
            response.header(name, header.build())
        })
}

/// Adds a JSON body of this shape, if the answer has one.
pub(super) fn with_json(
    response: ResponseBuilder,
    body: Body,
    schema: &str,
    example: Value,
) -> ResponseBuilder {
    match body {
        Body::Sent => {
            let content = ContentBuilder::new()
                .schema(Some(schemas::named(schema)))
                .example(Some(example));
            response.content("application/json", content.build())
        }
        Body::LeftOut => response,
    }
}

/// Adds a body of this kind, if the answer has one.
pub(super) fn with_text(response: ResponseBuilder, body: Body, kind: &str) -> ResponseBuilder {
    match body {
        Body::Sent => response.content(kind, ContentBuilder::new().build()),
        Body::LeftOut => response,
    }
}

/// A JSON body, with examples: name, summary and value of each.
pub(super) fn content<'a>(
    schema: RefOr<Schema>,
    examples: impl IntoIterator<Item = (&'a str, impl Into<String>, Value)>,
) -> Content {
    let examples = examples.into_iter().map(|(name, summary, value)| {
        let example = ExampleBuilder::new().summary(summary).value(Some(value));
        (name, example)
    });
    ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build()
}
