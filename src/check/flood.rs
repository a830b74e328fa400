//! Whether a process answers when it gets many requests at the same time: then a buffer held its
//! replies.

use super::payloads::in_string;
use crate::process::ids::IdDigits;
use crate::process::launch::{LaunchError, Launcher, Watched};
use crate::process::line::{RequestContext, encode_request};
use crate::procfs::is_tree_runnable;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::time::sleep;

/// Requests that are written together: their replies are longer together than the buffers of usual
/// languages.
const REQUESTS: u64 = 2000;

/// So many lines in braces are no banner.
const ENOUGH: u64 = 10;

/// A process that neither writes nor runs for this long will not answer.
const SILENCE: Duration = Duration::from_millis(500);

/// True when a process answers, rather than writes a banner or other text, after it was sent many
/// requests and before its stdin ends.
pub(super) async fn answers_when_flooded(
    launcher: &Launcher,
    payload: &str,
    limit: Duration,
) -> Result<bool, LaunchError> {
    let Watched {
        mut process,
        exit,
        mut stdin,
        mut stdout,
        mut stderr,
    } = launcher.launch().await?.watched()?;
    let write = async {
        // An error means that the process reads no more.
        let _ = stdin.write_all(&lines(payload)).await;
        std::future::pending::<()>().await;
    };
    let drain = async {
        let mut block = [0; 4096];
        while let Ok(1..) = stderr.read(&mut block).await {}
        std::future::pending::<()>().await;
    };
    let read = answers(&mut stdout, process.id(), limit);
    // Cancel-safe: the process is killed behind it.
    let answers_when_flooded = tokio::select! {
        biased;
        answers_when_flooded = read => answers_when_flooded,
        () = write => false,
        () = drain => false,
        () = exit.ended() => false,
    };
    process.signal_group(Signal::KILL);
    exit.ended().await;
    // How it ended is known: it was killed.
    let _ = process.reap();
    Ok(answers_when_flooded)
}

/// True when enough replies come before the limit, or before a silence.
async fn answers(stdout: &mut Receiver, pid: u32, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let (mut block, mut replies) = ([0; 4096], Replies::default());
    let mut silent_since = Instant::now();
    while replies.count < ENOUGH && Instant::now() < end && silent_since.elapsed() < SILENCE {
        // Cancel-safe: a read that is dropped has read nothing.
        tokio::select! {
            read = stdout.read(&mut block) => match read {
                Ok(length @ 1..) => replies.feed(&block[..length]),
                Ok(0) | Err(_) => break,
            },
            () = sleep(SILENCE / 10) => {
                if !is_tree_runnable(pid) {
                    continue;
                }
            }
        }
        silent_since = Instant::now();
    }
    replies.count >= ENOUGH
}

/// Count of the lines in braces in an output: replies, right or wrong, that may lack their
/// newlines.
#[derive(Debug, Default)]
struct Replies {
    count: u64,
    /// The first character of the line that has not ended.
    first: Option<u8>,
    /// Its last character so far.
    last: Option<u8>,
}

impl Replies {
    /// Counts on, in the next part of the output.
    fn feed(&mut self, output: &[u8]) {
        for byte in output {
            let is_next = *byte == b'{' && self.last == Some(b'}');
            if *byte == b'\n' || is_next {
                self.count += u64::from((self.first, self.last) == (Some(b'{'), Some(b'}')));
                (self.first, self.last) = (None, None);
            }
            if !byte.is_ascii_whitespace() {
                self.first.get_or_insert(*byte);
                self.last = Some(*byte);
            }
        }
    }
}

fn lines(payload: &str) -> Vec<u8> {
    let inside = in_string(payload);
    let mut lines = Vec::new();
    for number in 1..=REQUESTS {
        // As long as the ids of the worker are.
        let id = IdDigits::new(4_403_177_621_000_000 + number);
        encode_request(&mut lines, &id, &inside, &RequestContext::default());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Longer than any script here runs.
    const LIMIT: Duration = Duration::from_secs(30);

    /// Whether a script writes replies.
    async fn shell_answers(script: &str) -> bool {
        #[expect(clippy::disallowed_methods, reason = "any process will do")]
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", script]).stdin(Stdio::null());
        let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stdout = Receiver::from_owned_fd(stdout.into()).unwrap();
        let found = answers(&mut stdout, child.id(), LIMIT).await;
        child.kill().unwrap();
        child.wait().unwrap();
        found
    }

    #[tokio::test]
    async fn a_process_that_computes_before_it_answers_does_not_hang() {
        let computes = "timeout 1 sh -c 'while :; do :; done'";
        let replies = "for id in 1 2 3 4 5 6 7 8 9 10; do echo '{\"id\":1}'; done";
        assert!(shell_answers(&format!("{computes}; {replies}; exec sleep 60")).await);
        let begun = Instant::now();
        assert!(!shell_answers("exec sleep 60").await);
        assert!(
            begun.elapsed() < LIMIT,
            "a process that does not run is not waited for"
        );
    }

    #[test]
    fn replies_are_counted_and_other_output_is_not() {
        for (output, count) in [
            ("", 0),
            (&"x".repeat(5000), 0),
            (&"x\n".repeat(5000), 0),
            (&"{".repeat(5000), 0),
            ("{\"a\":1}\n{\"a\":2}\n", 2),
            ("{\"a\":1}\r\n {\"a\":2} \n\n", 2),
            ("banner\n{\"a\":1}\n{\"a\":2", 1),
            ("{\"a\":1}{\"a\":2}{\"a\":3}", 2),
            ("got {\"a\":1}\n", 0),
        ] {
            for size in [1, 7, 4096] {
                let mut replies = Replies::default();
                output
                    .as_bytes()
                    .chunks(size)
                    .for_each(|part| replies.feed(part));
                assert_eq!(replies.count, count, "{output:?} by {size}");
            }
        }
    }
}
