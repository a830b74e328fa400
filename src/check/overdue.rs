//! Why a process that was asked has not answered in time: decided from its output and its state.

use super::lines::{Mistake, last_reply, mistake_in};
use super::mend::Mend;

/// Output and state of a process that has not answered in time.
#[derive(Debug, Clone, Default)]
pub(super) struct OverdueProcess {
    /// The time that it had, in words.
    pub(super) limit: String,
    /// A longer time, as `--timeout` takes it.
    pub(super) longer: String,
    /// Bytes on stdout until then.
    pub(super) output: Vec<u8>,
    /// Bytes in its stdin that it had not read.
    pub(super) unread_bytes: u64,
    /// It was blocked in a read of its stdin; `None` where the system does not say.
    pub(super) waits_for_input: Option<bool>,
    /// It ran, or would have with a processor.
    pub(super) is_running: bool,
    /// Bytes on stdout behind the end of its stdin.
    pub(super) output_at_end: Vec<u8>,
    /// How it ended by the end of its stdin; `None`: it did not.
    pub(super) ended: Option<String>,
    /// The command is mawk, which reads in blocks.
    pub(super) is_mawk: bool,
    /// Another process wrote replies when it had many requests at the same time.
    pub(super) answers_when_flooded: bool,
}

/// Why a process has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) summary: String,
    pub(super) cause: String,
    pub(super) mends: Vec<Mend>,
}

/// Explains the silence of a process.
pub(super) fn explain(overdue: &OverdueProcess) -> Explanation {
    let (limit, longer) = (&overdue.limit, &overdue.longer);
    let explanation = |summary: String, cause: &str, mends| Explanation {
        summary,
        cause: cause.to_owned(),
        mends,
    };
    if let Some(Mistake { summary, mend }) = mistake_in(&overdue.output) {
        let summary = format!("no reply within {limit}: {summary}");
        return explanation(summary, "", vec![mend]);
    }
    let is_slow = overdue.unread_bytes > 0 || (overdue.is_running && !overdue.answers_when_flooded);
    if last_reply(&overdue.output_at_end).is_some() && is_slow {
        let cause = match overdue.unread_bytes {
            0 => "The process was still working on the request then",
            _ => "The process had not read the request then",
        };
        let cause = format!("{cause}. If it only starts slowly: --timeout {longer}");
        return explanation(
            format!("no reply within {limit}; it came later"),
            &cause,
            Vec::new(),
        );
    }
    if last_reply(&overdue.output_at_end).is_some() {
        return answered_at_the_end(overdue);
    }
    if let Some(Mistake { summary, mend }) = mistake_in(&overdue.output_at_end) {
        let summary = format!("no reply within {limit}; when stdin was closed: {summary}");
        return match overdue.answers_when_flooded {
            true => explanation(
                summary,
                "The process does not flush its output either.",
                vec![mend, Mend::Flush],
            ),
            false => explanation(summary, "", vec![mend]),
        };
    }
    if overdue.answers_when_flooded {
        return explanation(
            format!("no reply within {limit}, but many requests at once were answered"),
            "The process writes its replies into a buffer and does not flush it.",
            vec![Mend::Flush],
        );
    }
    without_output(overdue)
}

/// Explains a process that answered when its stdin was closed, and was not slow.
fn answered_at_the_end(overdue: &OverdueProcess) -> Explanation {
    let (cause, mend) = match (overdue.is_mawk, overdue.answers_when_flooded) {
        (true, _) => ("", Mend::Mawk),
        (false, true) => (
            "The process wrote its reply into a buffer and did not flush it: with many requests \
             at once, replies came when the buffer was full.",
            Mend::Flush,
        ),
        (false, false) => (
            "The process reads its stdin to the end, or in large blocks, before it works: not \
             even 2,000 requests at once made it answer while its stdin was open.",
            Mend::ReadLines,
        ),
    };
    let limit = &overdue.limit;
    Explanation {
        summary: format!("no reply within {limit}, but it came when stdin was closed"),
        cause: cause.to_owned(),
        mends: vec![mend],
    }
}

/// Explains a process that wrote nothing that helps.
fn without_output(overdue: &OverdueProcess) -> Explanation {
    let (limit, longer) = (&overdue.limit, &overdue.longer);
    let wrote = match overdue.output.is_empty() {
        true => "it wrote nothing",
        false => "nothing that it wrote is a reply",
    };
    let (cause, mend) = if overdue.unread_bytes > 0 {
        let does = match overdue.is_running {
            true => "computes",
            false => "waits for something else than its stdin",
        };
        (
            format!(
                "The process has not read the request, and {does}. If it only starts slowly: \
                 --timeout {longer}"
            ),
            Some(Mend::ReadLines),
        )
    } else if overdue.is_running {
        (
            format!(
                "The process has read the request and is running: it is in a loop without end, or \
                 slow. If it only starts slowly: --timeout {longer}"
            ),
            None,
        )
    } else if let Some(status) = &overdue.ended {
        (
            format!(
                "The process has read the request, wrote no reply, and ended with its stdin ({status}): \
                 does it read all of stdin before it works, and then fail?"
            ),
            Some(Mend::ReadLines),
        )
    } else if overdue.waits_for_input == Some(true) {
        (
            "The process has read the request and waits for more input: it reads its stdin to the \
             end or in blocks, or writes no reply."
                .to_owned(),
            Some(Mend::ReadLines),
        )
    } else {
        (
            "The process has read the request and waits for something: a lock, a connection, a \
             file, a child."
                .to_owned(),
            None,
        )
    };
    Explanation {
        summary: format!("no reply within {limit}: {wrote}"),
        cause,
        mends: mend.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_reply_is_explained_by_what_was_seen() {
        let overdue = || OverdueProcess {
            limit: "5 s".to_owned(),
            longer: "30s".to_owned(),
            ..OverdueProcess::default()
        };
        // The reply came when stdin was closed.
        let late = || OverdueProcess {
            output_at_end: b"{\"id\":7,\"result\":1}\n".to_vec(),
            ..overdue()
        };
        let cases = [
            (
                OverdueProcess {
                    answers_when_flooded: true,
                    ..late()
                },
                Some(Mend::Flush),
                "did not flush",
            ),
            (late(), Some(Mend::ReadLines), "to the end"),
            (
                OverdueProcess {
                    unread_bytes: 40,
                    ..late()
                },
                None,
                "starts slowly: --timeout 30s",
            ),
            (
                OverdueProcess {
                    is_running: true,
                    ..late()
                },
                None,
                "starts slowly: --timeout 30s",
            ),
            (
                OverdueProcess {
                    is_running: true,
                    answers_when_flooded: true,
                    ..late()
                },
                Some(Mend::Flush),
                "did not flush",
            ),
            (
                OverdueProcess {
                    output: b"{\"id\":7,\"result\":1}".to_vec(),
                    ..overdue()
                },
                Some(Mend::Newline),
                "no newline",
            ),
            (
                OverdueProcess {
                    answers_when_flooded: true,
                    ..overdue()
                },
                Some(Mend::Flush),
                "does not flush",
            ),
            (
                OverdueProcess {
                    is_mawk: true,
                    answers_when_flooded: true,
                    ..late()
                },
                Some(Mend::Mawk),
                "when stdin was closed",
            ),
            (
                OverdueProcess {
                    output_at_end: b"{\"answer\":1}\n".to_vec(),
                    ..overdue()
                },
                Some(Mend::ResultOrError),
                "neither result nor error",
            ),
            (
                OverdueProcess {
                    unread_bytes: 40,
                    ..overdue()
                },
                Some(Mend::ReadLines),
                "has not read",
            ),
            (
                OverdueProcess {
                    is_running: true,
                    ..overdue()
                },
                None,
                "loop without end",
            ),
            (
                OverdueProcess {
                    waits_for_input: Some(true),
                    ..overdue()
                },
                Some(Mend::ReadLines),
                "waits for more input",
            ),
            (
                OverdueProcess {
                    ended: Some("exit status: 1".to_owned()),
                    ..overdue()
                },
                Some(Mend::ReadLines),
                "exit status: 1",
            ),
            (overdue(), None, "waits for something"),
        ];
        for (overdue, mend, words) in cases {
            let explained = explain(&overdue);
            assert_eq!(explained.mends.first().copied(), mend, "{explained:?}");
            let text = format!("{} {}", explained.summary, explained.cause);
            assert!(text.contains(words), "{text}");
        }
    }
}
