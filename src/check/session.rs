//! One check from its first process to its last: which rules are tried, in which order, and with
//! which process.

use super::checked_process::{CheckedProcess, Delivery};
use super::desk::Record;
use super::finding::{Finding, Verdict};
use super::language::Language;
use super::mend::{Mend, mend_text};
use super::payloads::USUAL;
use super::reply::{Reply, Standing};
use super::rule::{Level, Rule};
use super::{CheckConfig, rules};
use crate::process::launch::{Directory, LaunchError, Launcher};
use std::time::{Duration, Instant};

/// Time that most starts of programs take.
const USUAL_START: Duration = Duration::from_secs(1);

/// One check, with the facts that it has found so far.
pub(super) struct Session<'a> {
    pub(super) config: &'a CheckConfig,
    pub(super) launcher: &'a Launcher,
    pub(super) language: Language,
    /// The process that rules share, while it is sound.
    process: Option<CheckedProcess>,
    /// A process whose stdin comes in pieces, for the rules `large` and `sigterm`.
    relayed: Option<CheckedProcess>,
    pub(super) facts: Facts,
    report: &'a mut dyn FnMut(&Finding),
}

/// Facts that earlier rules have found.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Why rules that need answers are not tried.
    pub(super) lacks: Option<&'static str>,
    /// The first process was still starting, or slow, when its time was over.
    pub(super) is_slow: bool,
    /// The process ends behind a reply.
    pub(super) ends_after_reply: Option<String>,
    /// The record of the first process, after its first exchange.
    pub(super) first: Record,
    /// Errors that were answered to payloads, with their payloads.
    pub(super) errors: Vec<(String, String)>,
    /// Stray lines of all processes.
    pub(super) strays: u64,
    pub(super) stray_lines: Vec<Vec<u8>>,
    /// The wrong id of a reply.
    pub(super) wrong_id: Option<String>,
    /// The rule `order` has failed.
    pub(super) is_order_broken: bool,
    /// The rule `unicode` has failed.
    pub(super) is_text_broken: bool,
    /// How a process ended with its stdin.
    pub(super) end_of_input: Option<EndOfInput>,
}

/// How a process ended with its stdin.
#[derive(Debug, Clone)]
pub(super) struct EndOfInput {
    /// Whether its last request was answered; `None`: it was not asked.
    pub(super) is_answered: Option<bool>,
    /// How it ended; `None`: it did not.
    pub(super) ended: Option<String>,
    /// Processes that it left behind.
    pub(super) left: Vec<String>,
    pub(super) took: Duration,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        config: &'a CheckConfig,
        launcher: &'a Launcher,
        report: &'a mut dyn FnMut(&Finding),
    ) -> Session<'a> {
        let directory = Directory::find(None);
        Session {
            config,
            launcher,
            language: Language::of(&config.command, directory.path()),
            process: None,
            relayed: None,
            facts: Facts::default(),
            report,
        }
    }

    /// Tries all rules that are asked for.
    pub(super) async fn run(&mut self) {
        let begun = Instant::now();
        match CheckedProcess::start(self.launcher, Delivery::Plain).await {
            Ok(process) => self.process = Some(process),
            Err(error) => return self.could_not_start(&error, begun),
        }
        let launched = begun.elapsed();
        let answers = self.timed(Rule::Answers).await;
        let start = rules::told::start(self, launched);
        self.tell(start);
        // A rule that others need is reported with them when it is broken.
        if answers.verdict == Verdict::Fail && !self.config.rules.contains(&Rule::Answers) {
            (self.report)(&answers);
        }
        self.tell(answers);
        for rule in Rule::ALL.iter().copied().skip(2) {
            let is_needed = matches!(rule, Rule::Ids | Rule::OneEach);
            if !self.config.rules.contains(&rule) && !is_needed {
                continue;
            }
            let finding = self.timed(rule).await;
            self.tell(finding);
        }
        self.end_process().await;
        if let Some(mut relayed) = self.relayed.take() {
            relayed.kill_and_reap().await;
        }
    }

    async fn timed(&mut self, rule: Rule) -> Finding {
        let begun = Instant::now();
        let finding = match self.facts.lacks {
            Some(why) if needs_answers(rule) => Finding::skip(rule, why),
            // A process that is still starting reads no end of its stdin.
            Some(_) if self.facts.is_slow && matches!(rule, Rule::Eof | Rule::Children) => {
                Finding::skip(rule, "needs a process that has started in time")
            }
            Some(_) | None => match self.attempt(rule).await {
                Ok(finding) => finding,
                Err(error) => Finding::broken(rule, Level::Must, "another process did not start")
                    .because(error.to_string()),
            },
        };
        self.facts.is_order_broken |= rule == Rule::Order && finding.verdict == Verdict::Fail;
        self.facts.is_text_broken |= rule == Rule::Unicode && finding.verdict == Verdict::Fail;
        Finding {
            took: begun.elapsed(),
            ..finding
        }
    }

    async fn attempt(&mut self, rule: Rule) -> Result<Finding, LaunchError> {
        match rule {
            Rule::Start => Ok(rules::told::start(self, Duration::ZERO)),
            Rule::Answers => rules::answers::answers(self).await,
            Rule::Ids => Ok(rules::replies::ids(self)),
            Rule::OneEach => rules::replies::one_each(self).await,
            Rule::Order => rules::together::order(self).await,
            Rule::Concurrency => rules::together::concurrency(self).await,
            Rule::Error => rules::texts::error(self).await,
            Rule::Unicode => rules::texts::unicode(self).await,
            Rule::Large => rules::texts::large(self).await,
            Rule::Many => rules::many::many(self).await,
            Rule::Stray => {
                self.count_strays();
                Ok(rules::told::stray(self))
            }
            Rule::Eof => rules::end::eof(self).await,
            Rule::Sigterm => rules::end::sigterm(self).await,
            Rule::Ready => Ok(rules::told::ready(self)),
            Rule::Children => rules::end::children(self).await,
        }
    }

    /// Reports a finding, if its rule is asked for.
    fn tell(&mut self, finding: Finding) {
        if self.config.rules.contains(&finding.rule) {
            (self.report)(&finding);
        }
    }

    fn could_not_start(&mut self, error: &LaunchError, begun: Instant) {
        let start = Finding {
            took: begun.elapsed(),
            ..Finding::broken(Rule::Start, Level::Must, "the command cannot be executed")
                .because(error.to_string())
        };
        (self.report)(&start);
        for rule in Rule::ALL.iter().copied().skip(1) {
            self.tell(Finding::skip(rule, "needs a start"));
        }
    }

    // ---- Processes ------------------------------------------------------------------------------

    /// The process that rules share: a new one, where the last is not sound any more.
    pub(super) async fn sound(&mut self) -> Result<&mut CheckedProcess, LaunchError> {
        let is_sound = |process: &CheckedProcess| *process.standing() == Standing::Sound;
        let ends_after_reply = self.facts.ends_after_reply.is_some();
        if ends_after_reply || !self.process.as_ref().is_some_and(is_sound) {
            self.end_process().await;
            let process = CheckedProcess::start(self.launcher, Delivery::Plain).await?;
            self.process = Some(process);
        }
        Ok(self.process.as_mut().expect("a process was put there"))
    }

    /// The process that was used last, sound or not.
    pub(super) fn process(&mut self) -> &mut CheckedProcess {
        self.process
            .as_mut()
            .expect("the first rule has put one there")
    }

    /// Takes the process that rules share, or a new one.
    pub(super) async fn take_sound(&mut self) -> Result<CheckedProcess, LaunchError> {
        self.sound().await?;
        self.count_strays();
        Ok(self.process.take().expect("a process was put there"))
    }

    /// A process whose stdin comes in pieces.
    pub(super) async fn take_relayed(&mut self) -> Result<CheckedProcess, LaunchError> {
        let ends_after_reply = self.facts.ends_after_reply.is_some();
        match self.relayed.take().filter(|_| !ends_after_reply) {
            Some(relayed) if *relayed.standing() == Standing::Sound => Ok(relayed),
            Some(_) | None => CheckedProcess::start(self.launcher, Delivery::Pieces).await,
        }
    }

    /// Keeps a process for [`Session::take_relayed`].
    pub(super) fn keep_relayed(&mut self, process: CheckedProcess) {
        self.relayed = Some(process);
    }

    /// Time that a start of the process may take, by the time of the first one.
    pub(super) fn time_to_start(&self) -> Duration {
        let first = self.facts.first.up_after;
        2 * first.unwrap_or(self.config.timeout.min(USUAL_START))
    }

    /// Ends the process that rules share.
    pub(super) async fn end_process(&mut self) {
        self.count_strays();
        if let Some(mut process) = self.process.take() {
            process.kill_and_reap().await;
        }
    }

    /// Takes over the stray lines of the process that rules share.
    pub(super) fn count_strays(&mut self) {
        if let Some(process) = &mut self.process {
            let (count, lines) = process.take_strays();
            self.add_strays(count, lines);
        }
    }

    pub(super) fn add_strays(&mut self, count: u64, lines: Vec<Vec<u8>>) {
        self.facts.strays += count;
        self.facts.stray_lines.extend(lines);
    }

    // ---- Payloads -------------------------------------------------------------------------------

    /// The first payload that the handler should answer.
    pub(super) fn payload(&self) -> &'a str {
        let first = self.config.payloads.first();
        first.map_or(USUAL, String::as_str)
    }

    /// A mend in the words of the handler's language.
    pub(super) fn mend(&self, mend: Mend) -> Vec<String> {
        mend_text(mend, self.language)
    }

    /// The finding that the process that was asked last has not answered.
    pub(super) fn unanswered(
        &mut self,
        rule: Rule,
        reply: &Reply,
        what: &str,
        mend: Mend,
    ) -> Finding {
        let mend = self.mend(mend);
        rules::unanswered(self.process(), rule, reply, what).mended(mend)
    }

    /// Asks the process that rules share, or a new one.
    pub(super) async fn ask(&mut self, payload: &str) -> Result<Reply, LaunchError> {
        let (limit, start) = (self.config.timeout, self.time_to_start());
        let is_up = self.facts.first.up_after.is_some();
        let process = self.sound().await?;
        // A process that has written nothing yet may still be starting, and gets the time for that
        // too.
        let limit = match process.record().output_bytes {
            0 if is_up => limit + start,
            _ => limit,
        };
        Ok(process.ask(payload, limit).await)
    }
}

/// True for rules that say nothing of a process which does not answer.
fn needs_answers(rule: Rule) -> bool {
    match rule {
        Rule::OneEach
        | Rule::Order
        | Rule::Concurrency
        | Rule::Error
        | Rule::Unicode
        | Rule::Large
        | Rule::Many
        | Rule::Stray
        | Rule::Ids => true,
        Rule::Start | Rule::Answers | Rule::Eof | Rule::Sigterm | Rule::Ready | Rule::Children => {
            false
        }
    }
}
