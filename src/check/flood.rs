//! Whether a process answers when it gets many requests at once: then a buffer held its replies.

use crate::process::ids::IdDigits;
use crate::process::launch::{LaunchError, Launched, Launcher};
use crate::process::line::{RequestContext, encode_request};
use crate::procfs::is_tree_runnable;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::sleep;

/// Requests that are written at once: their replies are longer together than the buffers of usual
/// languages.
const REQUESTS: u64 = 2000;

/// Output of this length, in bytes, is no banner.
const ENOUGH: usize = 1000;

/// A process that neither writes nor runs for this long will not answer.
const SILENCE: Duration = Duration::from_millis(500);

/// True when a process writes more than a banner after it was sent many requests and before its
/// stdin ends.
pub(super) async fn overflows(
    launcher: &Launcher,
    payload: &str,
    limit: Duration,
) -> Result<bool, LaunchError> {
    let Launched {
        mut process,
        stdin,
        stdout,
        stderr,
    } = launcher.launch().await?;
    let failed = |error| LaunchError::System(format!("cannot watch the process: {error}"));
    let exit = process.watch_exit().map_err(failed)?;
    let mut stdin = Sender::from_owned_fd(stdin).map_err(failed)?;
    let mut stdout = Receiver::from_owned_fd(stdout).map_err(failed)?;
    let mut stderr = Receiver::from_owned_fd(stderr).map_err(failed)?;
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
    let overflows = tokio::select! {
        biased;
        overflows = read => overflows,
        () = write => false,
        () = drain => false,
        () = exit.ended() => false,
    };
    process.signal_group(Signal::KILL);
    exit.ended().await;
    // How it ended is known: it was killed.
    let _ = process.reap();
    Ok(overflows)
}

/// True when enough output comes before the limit, or before a silence.
async fn answers(stdout: &mut Receiver, pid: u32, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let (mut block, mut found) = ([0; 4096], 0);
    let mut silent_since = Instant::now();
    while found < ENOUGH && Instant::now() < end && silent_since.elapsed() < SILENCE {
        // Cancel-safe: a read that is dropped has read nothing.
        tokio::select! {
            read = stdout.read(&mut block) => match read {
                Ok(length @ 1..) => found += length,
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
    found >= ENOUGH
}

fn lines(payload: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(payload).to_string();
    let inside = &quoted.as_bytes()[1..quoted.len() - 1];
    let mut lines = Vec::new();
    for number in 1..=REQUESTS {
        // As long as the ids of the worker are.
        let id = IdDigits::new(4_403_177_621_000_000 + number);
        encode_request(&mut lines, &id, inside, &RequestContext::default());
    }
    lines
}
