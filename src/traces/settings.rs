//! The settings of the exporter: the variables of OpenTelemetry's specification, as far as they
//! have a meaning here. An unset and an empty variable are the same.
//!
//! Pure: variables come in from outside. `OTEL_EXPORTER_OTLP_HEADERS` and
//! `OTEL_EXPORTER_OTLP_COMPRESSION` are read by the exporter itself.

use super::sampling::Sampling;
use crate::version::version;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use percent_encoding::percent_decode_str;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Longest time for a batch of spans: `OTEL_EXPORTER_OTLP_TIMEOUT`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that spans wait for others: `OTEL_BSP_SCHEDULE_DELAY`.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// Most spans that may wait: `OTEL_BSP_MAX_QUEUE_SIZE`.
const DEFAULT_QUEUE: NonZeroUsize = NonZeroUsize::new(2048).expect("it is not 0");

/// Most spans that are sent together: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
const DEFAULT_BATCH: NonZeroUsize = NonZeroUsize::new(512).expect("it is not 0");

/// The values of the variables, or their defaults.
#[derive(Debug)]
pub(super) struct TraceSettings {
    pub(super) is_disabled: bool,
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Option<String>,
    pub(super) sampling: Sampling,
    /// Whose spans they are.
    pub(super) resource: Resource,
    pub(super) timeout: Duration,
    pub(super) delay: Duration,
    pub(super) queue: NonZeroUsize,
    pub(super) batch: NonZeroUsize,
    /// Faults of variables whose defaults are used instead.
    pub(super) complaints: Vec<String>,
}

/// The address of the receiver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    /// The variable that it is from.
    pub(super) variable: &'static str,
}

impl Endpoint {
    /// The address without a name and a password that stand in it.
    pub(super) fn shown(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let host = authority.rsplit('@').next().unwrap_or_default();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }
}

impl TraceSettings {
    /// Reads the variables.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> TraceSettings {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name: &str, value: &str| {
            set(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value))
        };
        let sampler = set("OTEL_TRACES_SAMPLER");
        let argument = set("OTEL_TRACES_SAMPLER_ARG");
        let (sampling, complaint) = Sampling::of(sampler.as_deref(), argument.as_deref());
        let mut numbers = Numbers {
            set: &set,
            complaints: complaint.into_iter().collect(),
        };
        let timeout = numbers
            .milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| numbers.milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let delay = numbers.milliseconds("OTEL_BSP_SCHEDULE_DELAY");
        let queue = numbers
            .count("OTEL_BSP_MAX_QUEUE_SIZE")
            .unwrap_or(DEFAULT_QUEUE);
        let batch = numbers.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
        TraceSettings {
            is_disabled: is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none"),
            endpoint: endpoint(&set),
            protocol: set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                .or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL")),
            sampling,
            resource: resource(&set),
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            delay: delay.unwrap_or(DEFAULT_DELAY),
            queue,
            batch: batch.unwrap_or(DEFAULT_BATCH).min(queue),
            complaints: numbers.complaints,
        }
    }
}

/// Reads variables that are numbers; any other text becomes a complaint, and counts as unset.
struct Numbers<'a, F> {
    set: &'a F,
    complaints: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Numbers<'_, F> {
    fn count(&mut self, name: &str) -> Option<NonZeroUsize> {
        let value = (self.set)(name)?;
        let number = value.trim().parse().ok();
        if number.is_none() {
            self.complaints.push(format!(
                "{name}: the default is used, for this is no whole number from 1 up: {value:?}"
            ));
        }
        number
    }

    fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        let number = self.count(name)?.get();
        Some(Duration::from_millis(
            u64::try_from(number).unwrap_or(u64::MAX),
        ))
    }
}

/// The receiver's URL. The variable for traces alone has all of it; the general one lacks its path.
fn endpoint(set: &impl Fn(&str) -> Option<String>) -> Endpoint {
    let [own, general] = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    if let Some(url) = set(own) {
        let url = url.trim().to_owned();
        return Endpoint { url, variable: own };
    }
    let base = set(general).unwrap_or_else(|| "http://localhost:4318".to_owned());
    let url = format!("{}/v1/traces", base.trim().trim_end_matches('/'));
    let variable = general;
    Endpoint { url, variable }
}

/// The resource. Not as the library reads it: there `service.name` among the attributes wins over
/// `OTEL_SERVICE_NAME`, and values stay percent-encoded.
fn resource(set: &impl Fn(&str) -> Option<String>) -> Resource {
    let named = set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named = named.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some(KeyValue::new(key.trim().to_owned(), value.into_owned()))
    });
    let defaults = [
        KeyValue::new("service.name", "unknown_service:faas-worker"),
        KeyValue::new("service.version", version()),
    ];
    let name = set("OTEL_SERVICE_NAME").map(|name| KeyValue::new("service.name", name));
    let library = TelemetryResourceDetector.detect();
    let library = library
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes(library.collect::<Vec<_>>())
        .with_attributes(defaults)
        .with_attributes(named.collect::<Vec<_>>())
        .with_attributes(name)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Key;

    fn settings(variables: &[(&str, &str)]) -> TraceSettings {
        TraceSettings::of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_the_defaults_of_the_specification_hold() {
        for variables in [&[][..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]] {
            let settings = settings(variables);
            assert_eq!(settings.endpoint.url, "http://localhost:4318/v1/traces");
            assert_eq!(settings.sampling.name(), "parentbased_always_on");
            assert_eq!(
                (settings.timeout, settings.delay),
                (DEFAULT_TIMEOUT, DEFAULT_DELAY)
            );
            assert_eq!((settings.queue.get(), settings.batch.get()), (2048, 512));
            assert!(!settings.is_disabled && settings.complaints.is_empty());
        }
    }

    #[test]
    fn the_receiver_is_found_by_its_url() {
        let [own, general] = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ];
        for (variables, url) in [
            (
                &[(general, "http://collector:4318")][..],
                "http://collector:4318/v1/traces",
            ),
            (
                &[(general, "http://collector:4318/")],
                "http://collector:4318/v1/traces",
            ),
            (
                &[(general, "http://collector/otlp")],
                "http://collector/otlp/v1/traces",
            ),
            (&[(own, "http://collector/mine")], "http://collector/mine"),
            (
                &[(general, "http://other"), (own, "http://collector/mine")],
                "http://collector/mine",
            ),
        ] {
            assert_eq!(settings(variables).endpoint.url, url);
        }
    }

    #[test]
    fn the_log_names_the_receiver_without_its_password() {
        for (url, shown) in [
            ("http://a:4318/v1/traces", "http://a:4318/v1/traces"),
            ("http://me:secret@a:4318/v1", "http://a:4318/v1"),
            ("http://me:se@cret@a/v1?key=secret", "http://a/v1"),
            ("http://[::1]:4318/v1#secret", "http://[::1]:4318/v1"),
            ("http://a?key=secret", "http://a"),
        ] {
            let url = url.to_owned();
            let variable = "";
            assert_eq!(Endpoint { url, variable }.shown(), shown);
        }
    }

    #[test]
    fn traces_are_off_when_a_variable_says_so() {
        for (name, value, is_disabled) in [
            ("OTEL_SDK_DISABLED", "true", true),
            ("OTEL_SDK_DISABLED", "TRUE", true),
            ("OTEL_SDK_DISABLED", "1", false),
            ("OTEL_SDK_DISABLED", "false", false),
            ("OTEL_TRACES_EXPORTER", "none", true),
            ("OTEL_TRACES_EXPORTER", "otlp", false),
        ] {
            let found = settings(&[(name, value)]).is_disabled;
            assert_eq!(found, is_disabled, "{name}={value}");
        }
    }

    #[test]
    fn the_service_has_its_name_from_the_first_variable_that_gives_one() {
        let [name, attributes] = ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"];
        for (variables, expected) in [
            (&[][..], "unknown_service:faas-worker"),
            (&[(name, "decode")], "decode"),
            (&[(attributes, "service.name=other,a=b")], "other"),
            (
                &[(attributes, "service.name=other"), (name, "decode")],
                "decode",
            ),
        ] {
            let found = settings(variables).resource.get(&Key::new("service.name"));
            assert_eq!(found, Some(expected.into()), "{variables:?}");
        }
    }

    #[test]
    fn attributes_of_the_resource_are_percent_decoded() {
        let list = "team = iot%2Cedge ,broken,place=M%C3%BCnchen,bad=%FF, service.version=7";
        let resource = settings(&[("OTEL_RESOURCE_ATTRIBUTES", list)]).resource;
        for (key, value) in [
            ("team", Some("iot,edge")),
            ("place", Some("München")),
            ("bad", None),
            ("broken", None),
            ("service.version", Some("7")),
            ("telemetry.sdk.language", Some("rust")),
        ] {
            let found = resource.get(&Key::new(key));
            assert_eq!(found, value.map(Into::into), "{key}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_told_and_left_out() {
        let settings = settings(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
        ]);
        assert_eq!(settings.complaints.len(), 2, "{:?}", settings.complaints);
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        assert_eq!(
            (settings.delay, settings.queue),
            (DEFAULT_DELAY, DEFAULT_QUEUE)
        );
        assert_eq!(settings.batch, DEFAULT_QUEUE);
    }
}
