//! Flags of `faas-worker check`.

use super::super::values::limit_of_time;
use super::super::{CheckSettings, Task};
use super::HandlerFlags;
use crate::check::{CheckConfig, ReportForm, Rule};
use clap::Args;
use std::time::Duration;

/// Flags of `faas-worker check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckOptions {
    #[command(flatten)]
    handler: HandlerFlags,
    /// Try these rules only
    #[arg(long, value_name = "ID,…", value_delimiter = ',', value_parser = rule)]
    only: Vec<Rule>,
    /// Print all rules, and end
    #[arg(long)]
    list: bool,
    /// Print what a rule is about and how to keep it, and end
    #[arg(long, value_name = "ID", value_parser = rule)]
    explain: Option<Rule>,
    /// Fail for rules too that should be kept
    #[arg(long)]
    strict: bool,
    /// A payload that the handler should answer; may be given several times [default: check]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    payload: Vec<String>,
    /// A payload that the handler should answer with an error; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    failing: Vec<String>,
    /// Form of the findings: text, tap, json, junit
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = form)]
    format: ReportForm,
    /// Longest time for one reply
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = limit_of_time)]
    timeout: Duration,
}

impl CheckOptions {
    pub(in crate::cli) fn task(self) -> Result<Task, String> {
        if self.list {
            return Ok(Task::ListRules);
        }
        if let Some(rule) = self.explain {
            return Ok(Task::ExplainRule(rule));
        }
        let command = self.handler.command(None)?.ok_or_else(|| {
            "no handler: give its command after --, as in: faas-worker check -- python3 handler.py"
                .to_owned()
        })?;
        let rules = match self.only.is_empty() {
            true => Rule::ALL.to_vec(),
            false => self.only,
        };
        Ok(Task::Check(Box::new(CheckSettings {
            config: CheckConfig {
                command,
                rules,
                payloads: self.payload,
                failing: self.failing,
                timeout: self.timeout,
            },
            form: self.format,
            is_strict: self.strict,
        })))
    }
}

fn rule(id: &str) -> Result<Rule, String> {
    Rule::named(id).ok_or_else(|| {
        let ids: Vec<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        format!("no rule has this name, expected one of {}", ids.join(", "))
    })
}

fn form(name: &str) -> Result<ReportForm, String> {
    match name {
        "text" => Ok(ReportForm::Text),
        "tap" => Ok(ReportForm::Tap),
        "json" => Ok(ReportForm::Json),
        "junit" => Ok(ReportForm::Junit),
        _ => Err("not a form, expected text, tap, json or junit".to_owned()),
    }
}
