//! The shapes of bodies and headers, as the document names them.

use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Schema,
    SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Components, ComponentsBuilder, Ref, RefOr};

/// All shapes that bodies have.
pub(super) fn bodies() -> Components {
    ComponentsBuilder::new()
        .schema("Invocation", invocation())
        .schema("Result", result())
        .schema("Error", error())
        .schema("Invalid", invalid())
        .schema("Health", health())
        .schema("Ready", ready())
        .build()
}

/// A reference to one of [`bodies`].
pub(super) fn named(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// Any of the two shapes that a 422 has: a list by the worker, a message by the handler.
pub(super) fn error_or_invalid() -> Schema {
    let one_of = OneOfBuilder::new()
        .item(Ref::from_schema_name("Invalid"))
        .item(Ref::from_schema_name("Error"));
    one_of.build().into()
}

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn anything(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(description))
}

/// An object with exactly these members, all of them always there.
fn closed(members: Vec<(&str, RefOr<Schema>)>) -> ObjectBuilder {
    let start = typed(Type::Object)
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    members.into_iter().fold(start, |object, (name, schema)| {
        object.property(name, schema).required(name)
    })
}

fn invocation() -> ObjectBuilder {
    let payload = typed(Type::String).description(Some("What the handler is given, as it is."));
    typed(Type::Object)
        .property("payload", payload)
        .required("payload")
        .description(Some("Members other than `payload` are ignored."))
}

fn result() -> ObjectBuilder {
    let value = anything("Any JSON value, as the handler wrote it.");
    closed(vec![("result", value.into())])
}

fn error() -> ObjectBuilder {
    let detail = typed(Type::String).description(Some("What went wrong, in words."));
    closed(vec![("detail", detail.into())])
}

fn invalid() -> ObjectBuilder {
    let place =
        ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Integer]));
    let location = ArrayBuilder::new().items(place);
    let flaw = typed(Type::Object)
        .property("type", typed(Type::String))
        .property("loc", location)
        .property("msg", typed(Type::String))
        .property("input", anything("What was there instead."))
        .property("ctx", typed(Type::Object));
    let flaw = ["type", "loc", "msg", "input"]
        .into_iter()
        .fold(flaw, ObjectBuilder::required);
    let flaws = ArrayBuilder::new()
        .items(flaw)
        .description(Some("What is wrong with the body."));
    closed(vec![("detail", flaws.into())])
}

fn health() -> ObjectBuilder {
    let timestamp = typed(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("The worker's time, UTC."));
    closed(vec![
        ("status", one_of(["ok"]).into()),
        ("timestamp", timestamp.into()),
    ])
}

fn ready() -> ObjectBuilder {
    closed(vec![("status", one_of(["ready"]).into())])
}

/// One of these texts.
pub(super) fn one_of<'a>(values: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    typed(Type::String).enum_values(Some(values))
}

/// The description and the schema of a header; `values` are its known values.
pub(super) fn header(name: &str, values: &[String]) -> (&'static str, Object) {
    let values = || one_of(values.iter().map(String::as_str)).build();
    let text = |example: &str| typed(Type::String).examples([json!(example)]).build();
    match name {
        "allow" => ("The methods that the path has.", values()),
        "cache-control" => ("How long a copy may be used.", values()),
        "content-encoding" => ("How the file is held; always so.", values()),
        "content-security-policy" => ("Nothing from elsewhere is loaded or called.", values()),
        "www-authenticate" => ("How a token is shown.", values()),
        "location" => ("Where the page is, relative to this path.", values()),
        "retry-after" => (
            "Seconds until a retry has a chance.",
            whole_number(json!(2)).build(),
        ),
        "x-content-type-options" => ("The content-type is to be believed.", values()),
        "x-faas-error" => ("The code of the error.", values()),
        "x-faas-executed" => (
            "Whether the handler may have run. For `no` a retry is safe once the cause has gone, \
             for `maybe` if running twice does no harm.",
            values(),
        ),
        "x-request-id" => (
            "The caller's, if it sent up to 128 visible ASCII characters, else the worker's own.",
            text("5f3a9c01-7"),
        ),
        _ => ("", text("")),
    }
}

/// A whole number from 1 up.
pub(super) fn whole_number(example: Value) -> ObjectBuilder {
    typed(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(u32::MAX))
        .examples([example])
}

/// A text without bounds.
pub(super) fn text(example: &str) -> ObjectBuilder {
    typed(Type::String).examples([json!(example)])
}

/// An object of any shape.
pub(super) fn any_object() -> ObjectBuilder {
    typed(Type::Object)
}
