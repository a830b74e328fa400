//! Why something failed, in words, and who may read which of them.

use std::fmt;

/// Why something failed, in words.
///
/// Some of it quotes what a handler printed, or shows paths of the machine: that is for operators.
/// What is left without it is for every caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    general: String,
    /// All of it, where that is more.
    full: Option<String>,
    is_logged: bool,
}

impl Cause {
    /// A cause that quotes something; `general` is the same without that.
    pub fn quoting(general: impl Into<String>, full: impl Into<String>) -> Cause {
        let (general, full) = (general.into(), full.into());
        Cause {
            full: (full != general).then_some(full),
            general,
            is_logged: true,
        }
    }

    /// A cause that quotes a part of a reply. The log never has what a function returns.
    pub fn quoting_reply(general: impl Into<String>, full: impl Into<String>) -> Cause {
        Cause {
            is_logged: false,
            ..Cause::quoting(general, full)
        }
    }

    /// What every caller may know.
    pub fn general(&self) -> &str {
        &self.general
    }

    /// What operators may know.
    pub fn full(&self) -> &str {
        self.full.as_deref().unwrap_or(&self.general)
    }

    /// What the log may have.
    pub fn logged(&self) -> &str {
        match self.is_logged {
            true => self.full(),
            false => &self.general,
        }
    }

    /// True when there is more than every caller may know.
    pub fn is_more_than_general(&self) -> bool {
        self.full.is_some()
    }

    /// True when it says nothing.
    pub fn is_empty(&self) -> bool {
        self.general.is_empty()
    }

    /// The same with other words around it.
    #[must_use]
    pub fn map(self, around: impl Fn(&str) -> String) -> Cause {
        Cause {
            general: around(&self.general),
            full: self.full.map(|full| around(&full)),
            is_logged: self.is_logged,
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause {
            general: text,
            full: None,
            is_logged: true,
        }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Cause {
        Cause::from(text.to_owned())
    }
}

/// What the log may have.
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
        }
    }
}
