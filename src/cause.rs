//! The words of a failure, with the part of them that each reader may see.

use std::fmt;

/// The words of a failure.
///
/// Operators see all of them. Callers see the words without quotations of a handler's output and
/// without paths of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    general: String,
    /// All words, where they are more than `general`.
    full: Option<String>,
    is_logged: bool,
    /// The rule of `faas-worker check` that a handler broke.
    rule: Option<&'static str>,
}

impl Cause {
    /// A cause with a quotation in `full`; `general` is the same without the quotation.
    pub fn quoting(general: impl Into<String>, full: impl Into<String>) -> Cause {
        let (general, full) = (general.into(), full.into());
        Cause {
            full: (full != general).then_some(full),
            general,
            is_logged: true,
            rule: None,
        }
    }

    /// A cause with a quotation of a reply. The log gets `general`: results never stand in the log.
    pub fn quoting_reply(general: impl Into<String>, full: impl Into<String>) -> Cause {
        Cause {
            is_logged: false,
            ..Cause::quoting(general, full)
        }
    }

    /// With the rule of `faas-worker check` that a handler broke.
    #[must_use]
    pub fn of_rule(self, rule: &'static str) -> Cause {
        let rule = Some(rule);
        Cause { rule, ..self }
    }

    /// The rule of `faas-worker check` that a handler broke, if it broke one.
    pub fn rule(&self) -> Option<&'static str> {
        self.rule
    }

    /// The words for callers.
    pub fn general(&self) -> &str {
        &self.general
    }

    /// The words for operators.
    pub fn full(&self) -> &str {
        self.full.as_deref().unwrap_or(&self.general)
    }

    /// The words for the log.
    pub fn logged(&self) -> &str {
        match self.is_logged {
            true => self.full(),
            false => &self.general,
        }
    }

    /// True when operators may see more than callers.
    pub fn is_more_than_general(&self) -> bool {
        self.full.is_some()
    }

    /// True without any word.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty()
    }

    /// The same cause with each text put into other words by `around`.
    #[must_use]
    pub fn map(self, around: impl Fn(&str) -> String) -> Cause {
        Cause {
            general: around(&self.general),
            full: self.full.map(|full| around(&full)),
            is_logged: self.is_logged,
            rule: self.rule,
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause {
            general: text,
            full: None,
            is_logged: true,
            rule: None,
        }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Cause {
        Cause::from(text.to_owned())
    }
}

/// The words for the log.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.logged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_gets_what_is_meant_for_it() {
        for (cause, general, full, logged) in [
            (Cause::from("a"), "a", "a", "a"),
            (Cause::quoting("a", "a: x"), "a", "a: x", "a: x"),
            (Cause::quoting_reply("a", "a: x"), "a", "a: x", "a"),
            (Cause::quoting("a", "a"), "a", "a", "a"),
        ] {
            assert_eq!((cause.general(), cause.full()), (general, full));
            assert_eq!(cause.to_string(), logged);
            assert_eq!(cause.is_more_than_general(), general != full);
            let around = cause.map(|text| format!("[{text}]"));
            assert_eq!(around.full(), format!("[{full}]"));
            let ruled = around.of_rule("ids").map(str::to_owned);
            assert_eq!(ruled.rule(), Some("ids"));
        }
    }
}
