//! The names that collectors of logs look for: one table for each format.

use tracing::Level;

/// The members of a line, as one collector calls them.
#[derive(Debug)]
pub(super) struct Names {
    /// The members in front of an event's own fields, in their order.
    pub(super) leading_members: &'static [LeadingMember],
    /// The five levels, from error to trace.
    levels: [&'static str; 5],
    /// Fields of events that the collector has a name for.
    fields: &'static [(&'static str, ValueForm, &'static str)],
    /// Written in front of the name of every other field.
    pub(super) prefix: &'static str,
}

/// A member in front of an event's own fields, with its name.
#[derive(Debug)]
pub(super) enum LeadingMember {
    Time(&'static str),
    Level(&'static str),
    Message(&'static str),
    /// The same text on each line.
    Fixed(&'static str, &'static str),
}

/// The form of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueForm {
    /// A text.
    Text,
    /// A number, or true or false.
    Number,
    /// A trace id, behind the name of its project.
    TraceOfProject,
    /// The flags of a trace, of which true or false is written for the flag of a sampled one.
    IsSampled,
}

impl Names {
    /// The name of a level.
    pub(super) fn level(&self, level: Level) -> &'static str {
        let index = match level {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            Level::DEBUG => 3,
            Level::TRACE => 4,
        };
        self.levels[index]
    }

    /// The collector's name for a field with a value of this kind, and the form that it wants.
    pub(super) fn field(&self, field: &str, is_number: bool) -> Option<(ValueForm, &'static str)> {
        let is_meant = |form: ValueForm| is_number == (form == ValueForm::Number);
        let mut named = self.fields.iter();
        let found = named.find(|(name, form, _)| *name == field && is_meant(*form));
        found.map(|(_, form, name)| (*form, *name))
    }
}

const UPPER_CASE: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// The worker's own names. `trace_id`, `span_id` and `trace_flags` are those of OpenTelemetry for
/// logs in other formats than its own.
pub(super) const JSON: Names = Names {
    leading_members: &[
        LeadingMember::Time("timestamp"),
        LeadingMember::Level("level"),
        LeadingMember::Message("message"),
    ],
    levels: UPPER_CASE,
    fields: &[],
    prefix: "",
};

const GCP_LEADING_MEMBERS: &[LeadingMember] = &[
    LeadingMember::Level("severity"),
    LeadingMember::Time("time"),
    LeadingMember::Message("message"),
];

const GCP_LEVELS: [&str; 5] = ["ERROR", "WARNING", "INFO", "DEBUG", "DEBUG"];

/// Google Cloud Logging, where the project is not known.
pub(super) const GCP: Names = Names {
    leading_members: GCP_LEADING_MEMBERS,
    levels: GCP_LEVELS,
    fields: &[],
    prefix: "",
};

/// Google Cloud Logging, which finds a trace by the name of its project.
pub(super) const GCP_WITH_PROJECT: Names = Names {
    leading_members: GCP_LEADING_MEMBERS,
    levels: GCP_LEVELS,
    fields: &[
        (
            "trace_id",
            ValueForm::TraceOfProject,
            "logging.googleapis.com/trace",
        ),
        ("span_id", ValueForm::Text, "logging.googleapis.com/spanId"),
        (
            "trace_flags",
            ValueForm::IsSampled,
            "logging.googleapis.com/trace_sampled",
        ),
    ],
    prefix: "",
};

/// The Elastic Common Schema. The fields that it does not have get a prefix: Elasticsearch refuses
/// a line whose `process` or `error` is no object, as they are objects in the schema.
pub(super) const ECS: Names = Names {
    leading_members: &[
        LeadingMember::Time("@timestamp"),
        LeadingMember::Level("log.level"),
        LeadingMember::Message("message"),
        LeadingMember::Fixed("ecs.version", "8.11.0"),
    ],
    levels: ["error", "warn", "info", "debug", "trace"],
    fields: &[
        ("trace_id", ValueForm::Text, "trace.id"),
        ("span_id", ValueForm::Text, "span.id"),
        ("request_id", ValueForm::Text, "http.request.id"),
        ("method", ValueForm::Text, "http.request.method"),
        ("status", ValueForm::Number, "http.response.status_code"),
        ("bytes_in", ValueForm::Number, "http.request.body.bytes"),
        ("bytes_out", ValueForm::Number, "http.response.body.bytes"),
        ("error", ValueForm::Text, "error.message"),
    ],
    prefix: "faas_worker.",
};
