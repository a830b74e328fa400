//! Which requests are sampled: `OTEL_TRACES_SAMPLER` and its argument.
//!
//! Pure.

use crate::trace_context::TraceContext;
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

/// The rule by which requests are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampling {
    name: &'static str,
    /// Whether the caller's decision holds where there is one.
    follows_caller: bool,
    rule: SamplingRule,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum SamplingRule {
    All,
    None,
    /// This share of all traces, told by their ids.
    Share(f64),
}

/// The decision about a request before its trace has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is sampled.
    Yes,
    /// It is not.
    No,
    /// The id of its trace decides.
    ByTraceId,
}

/// The samplers of the specification that need no server to ask, and the default one first.
const SAMPLERS: [(&str, bool, SamplingRule); 6] = [
    ("parentbased_always_on", true, SamplingRule::All),
    ("parentbased_always_off", true, SamplingRule::None),
    ("parentbased_traceidratio", true, SamplingRule::Share(1.0)),
    ("always_on", false, SamplingRule::All),
    ("always_off", false, SamplingRule::None),
    ("traceidratio", false, SamplingRule::Share(1.0)),
];

impl Sampling {
    /// The sampler of this name and argument; the default in the place of an unknown one, with a
    /// complaint, as the specification asks for.
    pub(super) fn of(name: Option<&str>, argument: Option<&str>) -> (Sampling, Option<String>) {
        let found = SAMPLERS.iter().find(|(known, ..)| Some(*known) == name);
        let unknown = name.filter(|_| found.is_none());
        let mut complaint = unknown.map(|name| {
            let known: Vec<&str> = SAMPLERS.iter().map(|(known, ..)| *known).collect();
            let (default, known) = (known[0], known.join(", "));
            format!("OTEL_TRACES_SAMPLER: {default} is used, for this is none of {known}: {name:?}")
        });
        let (name, follows_caller, mut rule) = *found.unwrap_or(&SAMPLERS[0]);
        if let (SamplingRule::Share(default), Some(argument)) = (rule, argument) {
            let share = argument.parse().ok();
            let share = share.filter(|share: &f64| (0.0..=1.0).contains(share));
            if share.is_none() {
                complaint = Some(format!(
                    "OTEL_TRACES_SAMPLER_ARG: {default} is used, for this is no number from 0 to 1: \
                     {argument:?}"
                ));
            }
            rule = SamplingRule::Share(share.unwrap_or(default));
        }
        let sampling = Sampling {
            name,
            follows_caller,
            rule,
        };
        (sampling, complaint)
    }

    /// The name by which the specification calls it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a request is sampled that has this caller's context.
    pub(super) fn before_ids(&self, caller: Option<&TraceContext>) -> Decision {
        match (caller, self.rule) {
            (Some(caller), _) if self.follows_caller => match caller.is_sampled() {
                true => Decision::Yes,
                false => Decision::No,
            },
            (_, SamplingRule::All) => Decision::Yes,
            (_, SamplingRule::None) => Decision::No,
            (_, SamplingRule::Share(_)) => Decision::ByTraceId,
        }
    }

    /// Whether a request of this trace is sampled, as far as no caller has decided. A share is
    /// found as by every other program that has the same library.
    pub(super) fn of_trace(&self, trace: u128) -> bool {
        let share = match self.rule {
            SamplingRule::All => return true,
            SamplingRule::None => return false,
            SamplingRule::Share(share) => share,
        };
        let trace = TraceId::from(trace);
        let found = Sampler::TraceIdRatioBased(share).should_sample(
            None,
            trace,
            "",
            &SpanKind::Server,
            &[],
            &[],
        );
        found.decision == SamplingDecision::RecordAndSample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_those_of_the_specification() {
        for (name, argument, rule, follows_caller) in [
            (None, None, SamplingRule::All, true),
            (Some("parentbased_always_on"), None, SamplingRule::All, true),
            (
                Some("parentbased_always_off"),
                None,
                SamplingRule::None,
                true,
            ),
            (Some("always_on"), None, SamplingRule::All, false),
            (Some("always_off"), Some("0.5"), SamplingRule::None, false),
            (Some("traceidratio"), None, SamplingRule::Share(1.0), false),
            (
                Some("traceidratio"),
                Some("0.25"),
                SamplingRule::Share(0.25),
                false,
            ),
            (
                Some("parentbased_traceidratio"),
                Some("0"),
                SamplingRule::Share(0.0),
                true,
            ),
        ] {
            let (sampling, complaint) = Sampling::of(name, argument);
            let found = (sampling.rule, sampling.follows_caller, complaint);
            assert_eq!(found, (rule, follows_caller, None), "{name:?} {argument:?}");
            assert_eq!(sampling.name(), name.unwrap_or("parentbased_always_on"));
        }
    }

    #[test]
    fn a_sampler_that_there_is_not_is_told_and_the_default_is_used() {
        for (name, argument, named) in [
            ("xray", None, "OTEL_TRACES_SAMPLER: "),
            ("ALWAYS_ON", None, "OTEL_TRACES_SAMPLER: "),
            ("traceidratio", Some("1.5"), "OTEL_TRACES_SAMPLER_ARG: "),
            ("traceidratio", Some("-1"), "OTEL_TRACES_SAMPLER_ARG: "),
            ("traceidratio", Some("NaN"), "OTEL_TRACES_SAMPLER_ARG: "),
            ("traceidratio", Some("half"), "OTEL_TRACES_SAMPLER_ARG: "),
        ] {
            let (sampling, complaint) = Sampling::of(Some(name), argument);
            assert!(complaint.unwrap().starts_with(named), "{name} {argument:?}");
            assert!(sampling.of_trace(1 << 40), "{name} {argument:?}");
        }
    }

    #[test]
    fn a_share_of_traces_is_sampled() {
        let (sampling, _) = Sampling::of(Some("traceidratio"), Some("0.25"));
        let traces = (0..1000_u128).map(|number| number * (u128::from(u64::MAX) / 1000));
        let sampled = traces.filter(|trace| sampling.of_trace(*trace)).count();
        assert!((240..=260).contains(&sampled), "{sampled}");
    }
}
