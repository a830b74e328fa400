//! The command line of the storm.

use crate::faults::Mode;
use std::time::Duration;

/// One of the storms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A handler that misbehaves by chance.
    Faults(Mode),
    /// Handlers that print their payloads.
    Forge,
}

const NAMES: [(&str, What); 5] = [
    ("without-ids", What::Faults(Mode::WithoutIds)),
    ("with-ids", What::Faults(Mode::WithIds)),
    ("in-order", What::Faults(Mode::InOrder)),
    ("concurrent", What::Faults(Mode::Concurrent)),
    ("forge", What::Forge),
];

#[derive(Debug)]
pub(crate) struct Options {
    /// Requests of all storms together.
    pub(crate) requests: u64,
    /// The time for all storms together.
    pub(crate) limit: Duration,
    pub(crate) seed: u64,
    pub(crate) modes: Vec<What>,
}

impl Options {
    /// Nothing if something else than this test is asked for.
    pub(crate) fn from_arguments(
        mut words: impl Iterator<Item = String>,
    ) -> Result<Option<Options>, String> {
        let mut options = Options {
            requests: 30_000,
            limit: Duration::from_secs(150),
            seed: 1,
            modes: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--requests" => options.requests = number(&value()?)?,
                "--minutes" => options.limit = Duration::from_secs(60 * number(&value()?)?),
                "--seed" => options.seed = number(&value()?)?,
                "--mode" => options.modes.push(mode(&value()?)?),
                // What cargo's test runners ask a test binary for.
                "--list" => return Ok(None),
                "--nocapture" | "--exact" | "--quiet" | "-q" | "--include-ignored" => {}
                "--test-threads" => drop(value()?),
                // The name of a test: this is another one.
                name if !name.starts_with('-') && !"storm".contains(name) => return Ok(None),
                name if !name.starts_with('-') => {}
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        if options.modes.is_empty() {
            options.modes = NAMES.iter().map(|(_, what)| *what).collect();
        }
        Ok(Some(options))
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number"))
}

fn mode(word: &str) -> Result<What, String> {
    let known = NAMES.iter().find(|(name, _)| *name == word);
    known.map(|(_, what)| *what).ok_or_else(|| {
        let names = NAMES.map(|(name, _)| name).join(", ");
        format!("no mode {word:?}: there are {names}")
    })
}
