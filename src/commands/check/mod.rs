//! `faas-worker check`: runs a check and writes its findings in the form that was asked for.

mod explain;
mod json;
mod junit;
mod tap;
mod text;

use crate::check::{CheckConfig, Finding, ReportForm, Rule, Verdict, check};
use crate::threads::Runtimes;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

pub use explain::{explain, list};

/// Exit status when the command could not be started at all.
const NOT_STARTED: u8 = 3;

/// Writes findings as they come, and a summary behind the last.
trait ReportWriter {
    fn begin(&mut self, out: &mut dyn Write) -> io::Result<()>;
    fn finding(&mut self, out: &mut dyn Write, finding: &Finding) -> io::Result<()>;
    fn end(&mut self, out: &mut dyn Write, all: &Totals) -> io::Result<()>;
}

/// The findings of a check together.
#[derive(Debug, Default)]
struct Totals {
    findings: Vec<Finding>,
}

impl Totals {
    fn count(&self, verdict: Verdict) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.verdict == verdict)
            .count()
    }

    fn exit_status(&self) -> u8 {
        let is_not_started = self
            .findings
            .iter()
            .any(|finding| finding.rule == Rule::Start && finding.verdict == Verdict::Fail);
        match (is_not_started, self.count(Verdict::Fail)) {
            (true, _) => NOT_STARTED,
            (false, 1..) => 1,
            (false, 0) => 0,
        }
    }
}

/// Checks a handler, prints the findings, and gives the exit status: 0 if all rules of the level
/// `must` are kept, with `is_strict` also those of the level `should`; 1 if not; 3 if the command
/// could not be started.
pub fn run(config: &CheckConfig, form: ReportForm, is_strict: bool) -> ExitCode {
    let runtimes = match Runtimes::start(NonZeroUsize::MIN) {
        Ok(runtimes) => runtimes,
        Err(error) => return fail(&format!("cannot set up the runtime: {error}")),
    };
    let mut writer: Box<dyn ReportWriter> = match form {
        ReportForm::Text => Box::new(text::TextReport::for_stdout()),
        ReportForm::Tap => Box::new(tap::TapReport::default()),
        ReportForm::Json => Box::new(json::JsonReport),
        ReportForm::Junit => Box::new(junit::JunitReport),
    };
    let mut totals = Totals::default();
    let mut out = io::stdout().lock();
    // A reader that has closed its end wants no more of it.
    drop(writer.begin(&mut out));
    let checked = runtimes.block_on(check(config, &mut |finding| {
        let finding = match is_strict {
            true => finding.clone().strict(),
            false => finding.clone(),
        };
        drop(
            writer
                .finding(&mut out, &finding)
                .and_then(|()| out.flush()),
        );
        totals.findings.push(finding);
    }));
    if let Err(error) = checked {
        return fail(&error.to_string());
    }
    drop(writer.end(&mut out, &totals).and_then(|()| out.flush()));
    ExitCode::from(totals.exit_status())
}

fn fail(why: &str) -> ExitCode {
    drop(writeln!(io::stderr(), "{why}"));
    ExitCode::from(NOT_STARTED)
}
