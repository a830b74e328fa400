//! The rules `ids` and `one-each`: which request a reply is for, and how many there are.

use crate::check::finding::{Finding, quoted};
use crate::check::lines::{cut_line, is_reply, last_reply, split};
use crate::check::mend::Mend;
use crate::check::reply::Standing;
use crate::check::rule::{Level, Rule};
use crate::check::session::Session;
use crate::process::launch::LaunchError;
use crate::process::line::{Id, Parsed, parse};

/// Each reply repeats the id of its request.
pub(in crate::check) fn ids(session: &mut Session<'_>) -> Finding {
    let first = &session.facts.first;
    let line = last_reply(&first.output).unwrap_or_default().to_vec();
    let sent = first.last_id.unwrap_or(0);
    if let Some(id) = session.facts.wrong_id.clone() {
        session.facts.lacks = Some("needs the id in the reply");
        let kind = match id.as_bytes().first() {
            Some(b'"') => "is text",
            Some(b'[') => "is an array",
            Some(b'{') => "is an object",
            Some(b'n') => "is null",
            Some(b't' | b'f') => "is a boolean",
            _ if id.contains(['.', 'e', 'E']) => "is a rounded number",
            _ => "is another number",
        };
        let summary = format!("the id {} {kind}, {sent} was sent", quoted(id.as_bytes()));
        return Finding::broken(Rule::Ids, Level::Must, summary)
            .because("The worker finds no request for this reply: its caller gets 502.")
            .mended(session.mend(Mend::RepeatId))
            .seeing("stdout", line);
    }
    match has_id(&first.output, sent) {
        Some(true) => Finding::ok(Rule::Ids, "repeated, as an integer"),
        None => Finding::skip(Rule::Ids, "the reply is too long to be looked at"),
        Some(false) => Finding::broken(Rule::Ids, Level::Should, "the reply has no id")
            .because(
                "The worker gives this process one request at a time, waits for silence on its stdout \
                 in between, and cannot tell a late second reply from the next one.",
            )
            .mended(session.mend(Mend::RepeatId))
            .seeing("stdout", line),
    }
}

/// Whether the reply that was accepted names the request with this id; `None` where the record has
/// cut the reply before that shows.
fn has_id(output: &[u8], sent: u64) -> Option<bool> {
    let whole = last_reply(output).map(parse);
    match (whole, cut_line(output).map(parse)) {
        (Some(Parsed::Reply(Id::Integer(_), _)), _) => Some(true),
        (None, Some(Parsed::Malformed(id, _))) if id == sent => Some(true),
        (None, Some(_)) => None,
        _ => Some(false),
    }
}

/// One reply to each request.
pub(in crate::check) async fn one_each(session: &mut Session<'_>) -> Result<Finding, LaunchError> {
    for round in 1..=2 {
        if round > 1 {
            let payload = session.payload();
            session.ask(payload).await?;
        }
        session.process().wait_for_silence().await;
        let output = session.process().record().output.clone();
        let (lines, rest) = split(&output);
        let replies = lines.iter().chain([&rest]);
        let replies: Vec<&[u8]> = replies.copied().filter(|line| is_reply(line)).collect();
        if replies.len() > 1 {
            session.facts.lacks = Some("needs one reply to each request");
            let summary = format!("{} replies to one request", replies.len());
            let cause = match replies[0] == replies[1] {
                true => "The same reply was written twice.",
                false => "The second may be taken for the reply to the next request.",
            };
            return Ok(Finding::broken(Rule::OneEach, Level::Must, summary)
                .because(cause)
                .mended(session.mend(Mend::OneReply))
                .seeing("first", replies[0])
                .seeing("second", replies[1]));
        }
        match session.process().standing().clone() {
            Standing::Sound => {}
            Standing::Ended(status) => {
                session.facts.ends_after_reply = Some(status);
                return Ok(Finding::ok(
                    Rule::OneEach,
                    "one reply, and the process ended behind it",
                ));
            }
            Standing::Faulty(fault) => {
                session.facts.lacks = Some("needs a process that keeps one-each");
                return Ok(
                    Finding::broken(Rule::OneEach, Level::Must, fault.to_string())
                        .mended(session.mend(Mend::OneReply))
                        .seeing("stdout", output),
                );
            }
        }
    }
    Ok(Finding::ok(Rule::OneEach, "one reply to each request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::desk::RECORDED_BYTES;

    #[test]
    fn the_id_is_looked_for_in_a_reply_that_the_record_has_cut() {
        for (output, whole, cut) in [
            ("{\"id\":7,\"result\":\"x\"}\n", Some(true), Some(true)),
            ("{\"result\":\"x\"}\n", Some(false), Some(false)),
            ("{\"id\":7,\"result\":\"x", Some(false), Some(true)),
            ("{\"id\": 7, \"result\": \"x", Some(false), Some(true)),
            ("{\"result\":\"x", Some(false), None),
            ("log\n{\"result\":\"x", Some(false), None),
        ] {
            let mut bytes = output.as_bytes().to_vec();
            assert_eq!(has_id(&bytes, 7), whole, "{output}");
            bytes.resize(RECORDED_BYTES, b'x');
            assert_eq!(has_id(&bytes, 7), cut, "{output} and more");
        }
    }
}
