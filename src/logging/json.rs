//! Log lines for collectors: one JSON object for each event.

use super::names::{ECS, GCP, GCP_WITH_PROJECT, JSON, LeadingMember, Names, ValueForm};
use super::object::push_object;
use super::{Utc, can_disguise};
use crate::json_string::push_char;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as one line with one object, in the names of a collector.
#[derive(Debug)]
pub(super) struct JsonFormat {
    names: &'static Names,
    /// The project that traces belong to.
    project: String,
}

static PLAIN: JsonFormat = JsonFormat::plain();

impl JsonFormat {
    /// The worker's own names.
    pub(super) const fn plain() -> JsonFormat {
        JsonFormat::named(&JSON)
    }

    /// The names of Google Cloud Logging; traces are named with their project, if it is known.
    pub(super) fn gcp(project: Option<String>) -> JsonFormat {
        match project.filter(|project| !project.is_empty()) {
            None => JsonFormat::named(&GCP),
            Some(project) => JsonFormat {
                names: &GCP_WITH_PROJECT,
                project,
            },
        }
    }

    /// The names of the Elastic Common Schema.
    pub(super) fn ecs() -> JsonFormat {
        JsonFormat::named(&ECS)
    }

    const fn named(names: &'static Names) -> JsonFormat {
        let project = String::new();
        JsonFormat { names, project }
    }

    /// The line of an event. An object that a handler wrote is a line of its own, with the fields
    /// of the event as one member.
    fn line(&self, time: &str, event: &Event<'_>) -> Vec<u8> {
        let has_object = event.metadata().fields().field("object").is_some();
        let format = match has_object {
            true => &PLAIN,
            false => self,
        };
        let mut fields = JsonFields {
            format,
            message: String::new(),
            object: String::new(),
            members: Vec::new(),
        };
        event.record(&mut fields);
        if has_object {
            return fields.into_line_of_object();
        }
        let mut line = Vec::with_capacity(fields.members.len() + fields.message.len() + 128);
        for head in self.names.leading_members {
            line.push(if line.is_empty() { b'{' } else { b',' });
            let (name, value) = match *head {
                LeadingMember::Time(name) => (name, time),
                LeadingMember::Level(name) => (name, self.names.level(*event.metadata().level())),
                LeadingMember::Message(name) => (name, &*fields.message),
                LeadingMember::Fixed(name, value) => (name, value),
            };
            push_text(&mut line, name);
            line.push(b':');
            push_text(&mut line, value);
        }
        line.extend_from_slice(&fields.members);
        line.extend_from_slice(b"}\n");
        line
    }
}

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        Utc.format_time(&mut Writer::new(&mut time))?;
        let line = self.line(&time, event);
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// Appends a JSON string. Characters that can disguise are written as escapes, which mean the same
/// characters.
fn push_text(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    for c in text.chars() {
        push_char(line, c, can_disguise);
    }
    line.push(b'"');
}

/// The fields of an event as members, each with a comma in front.
struct JsonFields<'a> {
    format: &'a JsonFormat,
    message: String,
    object: String,
    members: Vec<u8>,
}

impl JsonFields<'_> {
    /// The object of the event, with the other fields as its member.
    fn into_line_of_object(self) -> Vec<u8> {
        let mut ours = self.members;
        // The comma in front of the first field.
        if let Some(first) = ours.first_mut() {
            *first = b'{';
        }
        ours.push(b'}');
        let mut line = Vec::with_capacity(self.object.len() + ours.len() + 16);
        push_object(&mut line, &self.object, &ours);
        line.push(b'\n');
        line
    }

    fn name(&mut self, prefix: &str, name: &str) {
        self.members.push(b',');
        push_text(&mut self.members, &format!("{prefix}{name}"));
        self.members.push(b':');
    }

    fn text(&mut self, field: &str, value: &str) {
        let names = self.format.names;
        let (form, prefix, name) = match names.field(field, false) {
            Some((form, name)) => (form, "", name),
            None => (ValueForm::Text, names.prefix, field),
        };
        self.name(prefix, name);
        match form {
            ValueForm::Text | ValueForm::Number => push_text(&mut self.members, value),
            ValueForm::TraceOfProject => {
                let project = &self.format.project;
                let trace = format!("projects/{project}/traces/{value}");
                push_text(&mut self.members, &trace);
            }
            ValueForm::IsSampled => {
                let flags = u8::from_str_radix(value, 16).unwrap_or(0);
                let is_sampled = flags & 1 == 1;
                self.members
                    .extend_from_slice(is_sampled.to_string().as_bytes());
            }
        }
    }

    /// A value that is written as it is shown.
    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        let names = self.format.names;
        let (prefix, name) = match names.field(field.name(), true) {
            Some((_, name)) => ("", name),
            None => (names.prefix, field.name()),
        };
        self.name(prefix, name);
        self.members.extend_from_slice(value.to_string().as_bytes());
    }
}

impl Visit for JsonFields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.number(field, number),
            None => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "object" => value.clone_into(&mut self.object),
            name => self.text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DISGUISES, HARMLESS, written};
    use super::*;
    use tracing::{error, info, trace, warn};

    /// The formats, each with the member that has the time.
    fn formats() -> [(JsonFormat, &'static str); 4] {
        [
            (JsonFormat::plain(), "timestamp"),
            (JsonFormat::gcp(None), "time"),
            (JsonFormat::gcp(Some("acme-1".to_owned())), "time"),
            (JsonFormat::ecs(), "@timestamp"),
        ]
    }

    /// The line of one event in each format, its time replaced by `now`.
    fn lines(event: impl Fn()) -> Vec<String> {
        let line = |(format, time): (JsonFormat, &str)| {
            let line = written(format, &event);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            line.replace(value[time].as_str().unwrap(), "now")
        };
        formats().map(line).to_vec()
    }

    #[test]
    fn each_format_has_the_names_of_its_collector() {
        let event = || {
            warn!(
                process = 3_u64,
                took_ms = 0.76,
                is_up = true,
                error = "no",
                "it \"went\""
            )
        };
        let json = r#"{"timestamp":"now","level":"WARN","message":"it \"went\"","process":3,"took_ms":0.76,"is_up":true,"error":"no"}"#;
        let gcp = r#"{"severity":"WARNING","time":"now","message":"it \"went\"","process":3,"took_ms":0.76,"is_up":true,"error":"no"}"#;
        let ecs = r#"{"@timestamp":"now","log.level":"warn","message":"it \"went\"","ecs.version":"8.11.0","faas_worker.process":3,"faas_worker.took_ms":0.76,"faas_worker.is_up":true,"error.message":"no"}"#;
        let expected = [json, gcp, gcp, ecs].map(|line| format!("{line}\n"));
        assert_eq!(lines(event), expected);
    }

    #[test]
    fn each_format_has_a_trace_where_its_collector_looks_for_it() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let event = || {
                info!(
                    request_id = "r-1",
                    trace_id = trace,
                    span_id = span,
                    trace_flags = flags,
                    "m"
                )
            };
            let plain = format!(
                r#""message":"m","request_id":"r-1","trace_id":"{trace}","span_id":"{span}","trace_flags":"{flags}"}}"#
            );
            let project = format!(
                r#""message":"m","request_id":"r-1","logging.googleapis.com/trace":"projects/acme-1/traces/{trace}","logging.googleapis.com/spanId":"{span}","logging.googleapis.com/trace_sampled":{is_sampled}}}"#
            );
            let ecs = format!(
                r#""message":"m","ecs.version":"8.11.0","http.request.id":"r-1","trace.id":"{trace}","span.id":"{span}","faas_worker.trace_flags":"{flags}"}}"#
            );
            let expected = [
                format!("{{\"timestamp\":\"now\",\"level\":\"INFO\",{plain}\n"),
                format!("{{\"severity\":\"INFO\",\"time\":\"now\",{plain}\n"),
                format!("{{\"severity\":\"INFO\",\"time\":\"now\",{project}\n"),
                format!("{{\"@timestamp\":\"now\",\"log.level\":\"info\",{ecs}\n"),
            ];
            assert_eq!(lines(event), expected);
        }
    }

    #[test]
    fn levels_have_the_names_of_the_collector() {
        let level = |event: fn()| {
            let [json, gcp, _, ecs] = lines(event).try_into().unwrap();
            let level = |line: String, name: &str| {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                line[name].as_str().unwrap().to_owned()
            };
            [
                level(json, "level"),
                level(gcp, "severity"),
                level(ecs, "log.level"),
            ]
        };
        assert_eq!(level(|| error!("m")), ["ERROR", "ERROR", "error"]);
        assert_eq!(level(|| info!("m")), ["INFO", "INFO", "info"]);
        assert_eq!(level(|| tracing::debug!("m")), ["DEBUG", "DEBUG", "debug"]);
        assert_eq!(level(|| trace!("m")), ["TRACE", "DEBUG", "trace"]);
    }

    #[test]
    fn a_status_is_that_of_a_response_only_as_a_number() {
        let ecs = |event: fn()| lines(event).remove(3);
        let line = ecs(|| info!(status = 404_u64, "m"));
        assert!(
            line.ends_with("\"http.response.status_code\":404}\n"),
            "{line}"
        );
        let line = ecs(|| info!(status = "killed", "m"));
        assert!(
            line.ends_with("\"faas_worker.status\":\"killed\"}\n"),
            "{line}"
        );
    }

    #[test]
    fn a_number_that_json_cannot_write_is_a_text() {
        let line = lines(|| info!(ratio = f64::NAN, less = -1, "m")).remove(0);
        assert!(line.ends_with("\"ratio\":\"NaN\",\"less\":-1}\n"), "{line}");
    }

    #[test]
    fn no_byte_of_an_event_can_disguise_and_none_is_lost() {
        let all = format!("{DISGUISES}{HARMLESS}\"\\");
        for line in lines(|| info!(text = %all, "said {all}")) {
            let (event, end) = line.split_at(line.len() - 1);
            assert_eq!(end, "\n");
            assert!(!event.contains(can_disguise), "{event:?}");
            let value: serde_json::Value = serde_json::from_str(event).unwrap();
            let text = value.get("text").or_else(|| value.get("faas_worker.text"));
            assert_eq!(text.unwrap(), all.as_str());
            assert_eq!(value["message"], format!("said {all}"));
        }
    }
}
