//! The rules of a check: their ids, levels and texts.

use std::fmt;

/// How much a broken rule matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Callers get wrong answers, or none.
    Must,
    /// The handler works, and pays for it.
    Should,
    /// Nothing is broken: what the handler announced, and measured times.
    Info,
}

impl Level {
    /// As reports name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Must => "must",
            Level::Should => "should",
            Level::Info => "info",
        }
    }
}

/// Makes the table of rules: variant, id, level, expectation, trial with its bounds.
macro_rules! rules {
    ($($rule:ident $id:literal $level:ident $expected:literal $tried:literal,)*) => {
        /// A rule that a handler must or should keep.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the texts of each rule say what it is about")]
        pub enum Rule { $($rule),* }

        impl Rule {
            /// All rules, in the order in which they are reported.
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// The name of the rule on the command line and in reports.
            pub fn id(self) -> &'static str {
                match self { $(Rule::$rule => $id),* }
            }

            /// How much the rule matters.
            pub fn level(self) -> Level {
                match self { $(Rule::$rule => Level::$level),* }
            }

            /// The behaviour of a correct handler.
            pub fn expected(self) -> &'static str {
                match self { $(Rule::$rule => $expected),* }
            }

            /// The trial of the rule, and its bounds.
            pub fn tried(self) -> &'static str {
                match self { $(Rule::$rule => $tried),* }
            }
        }
    };
}

rules! {
    Start "start" Must
        "the command can be executed"
        "The command is executed as the worker executes it, without a shell. If that fails, nothing \
         else is tried and the exit status is 3.",
    Answers "answers" Must
        "one line for each request, with a result or an error, within --timeout"
        "Each --payload, or else the text \"check\", is sent as one request. The reply must come \
         within --timeout (5 s); a process that has neither read it nor sent a ready line is still \
         starting, and has 30 s. Without a reply, stdin is closed, and for 2 s more the check looks at \
         what comes then; another process is sent 2,000 requests at once, for a buffer that \
         overflows writes what it holds.",
    Ids "ids" Should
        "each reply repeats the id of its request, as the same integer"
        "The reply of the rule answers is read. An id that is no integer breaks the rule as a must: \
         no caller gets that reply. A reply without an id is a should: such a process is given one \
         request at a time, and its output must be silent for 20 ms before the next one.",
    OneEach "one-each" Must
        "one reply to each request, and none that no request asked for"
        "After a reply the process is watched until it does not run and has written nothing for \
         30 ms, 600 ms at most. Then one more request is sent, and it is watched again.",
    Order "order" Must
        "after \"concurrency\":1, replies in the order of the requests, each written by itself"
        "Only where \"concurrency\":1 was announced: 200 requests are there at once and are \
         written ahead as the worker does it. The replies must come in order, and the kernel must \
         have counted as many calls of write(2) as replies (/proc/PID/io).",
    Concurrency "concurrency" Must
        "as many requests at once as were announced, each reply with the id of its request"
        "Only where a concurrency of 2 or more was announced: that many requests, 64 at most, are \
         written at once. Each must be answered within --timeout. A handler that takes 5 ms or more \
         for one must take less than three quarters of that time for each of many.",
    Error "error" Info
        "requests that cannot be served are answered with an error and a fitting status"
        "Each --failing payload is sent, and the status and text that a caller would get are \
         shown. Errors that came for other payloads are shown too.",
    Unicode "unicode" Must
        "any text is read and written without change, in UTF-8"
        "One payload with control characters, quotes, backslashes, U+0085, U+2028, U+2029 and the \
         first, the last and some more characters of each of the 17 planes; and one with U+0000, \
         which may be answered with an error. They are put in front of the first --payload. Text \
         that a result repeats is searched for damage: ? or U+FFFD for characters, UTF-8 that was \
         encoded twice, planes that are missing. A function may change its text in other ways.",
    Large "large" Must
        "a line may be long, and may arrive in any pieces"
        "A process gets a line of about 1 KiB byte by byte, each when the byte before it was read \
         (500 ms at most), and then a line of 1 MiB in pieces of 64 KiB. Each must be answered \
         within --timeout, and no character cut.",
    Many "many" Must
        "ten thousand requests to one process, without an end of it or a growth of its memory"
        "10,000 requests to one process, or as many as it answers in 2 s. Resident memory is read \
         before, in the middle and behind. Where it grew by 1 KiB a request and 4 MiB in all, up to \
         two rounds more show whether it goes on, which breaks the rule as a should.",
    Stray "stray" Should
        "nothing on stdout but the ready line and replies"
        "Lines on stdout that are no replies, of all processes of this check, are counted and \
         shown. They are logged and never answers; stderr is the place for them.",
    Eof "eof" Must
        "the end of stdin ends the process, behind the replies that it owes"
        "A request is written and stdin is closed right behind it. The reply must come, and the \
         process must end within 2.5 s, half of the default --grace: then the worker sends SIGTERM.",
    Sigterm "sigterm" Should
        "SIGTERM ends the process"
        "SIGTERM is sent to the process group while stdin is open. A process that has not ended \
         500 ms later may wait for the end of its stdin, which the worker always closes before: it is \
         closed, and SIGTERM sent again. The process must end within 2.5 s, and not by ignoring the \
         signal.",
    Ready "ready" Info
        "what the process announced, and how long its start took"
        "The first line of the process, the time until it came, and the time until the first reply. \
         A ready line that comes behind another line counts as none, which breaks the rule as a \
         should.",
    Children "children" Should
        "no process is left behind at the end"
        "When the process has ended by the end of its stdin, processes that it started may take \
         200 ms to end too. The check names those that are left, and kills them.",
}

impl Rule {
    /// The rule of this name.
    pub fn named(id: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.id() == id)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::conversation::Fault;

    #[test]
    fn each_fault_names_a_rule() {
        for fault in [
            Fault::MissingId,
            Fault::WrongId,
            Fault::StaleId,
            Fault::Unasked,
            Fault::Premature,
            Fault::OutOfOrder,
            Fault::PartialLine,
            Fault::NeverSilent,
            Fault::NotUtf8,
            Fault::LineTooLong,
            Fault::InputClosed,
            Fault::OutputClosed,
            Fault::TimedOut,
            Fault::TooSlowToStart,
            Fault::ReadyTooLate,
        ] {
            assert!(Rule::named(fault.rule()).is_some(), "{fault:?}");
        }
        assert_eq!(Rule::named("anwsers"), None);
    }
}
