//! The end of a process: its last answers, and the requests that it never started.

use super::reading::READ_BYTES;
use super::reading::ReadTurn;
use super::{Owner, ProcessObserver, RequestSource};
use crate::answer::Work;
use crate::cause::Cause;
use crate::error::RequestFailure;
use crate::process::conversation::{OpenRequest, PipeHolders};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tokio::time::timeout;

/// Most bytes that are read of a dead process's stdout. A pipe holds 64 KiB by default and 1 MiB at
/// most, unless root has raised `/proc/sys/fs/pipe-max-size`.
const MAX_REST_BYTES: u64 = 4 * 1024 * 1024;

/// Most bytes that are read back of a dead process's stdin. A pipe holds an eighth of it by
/// default, but the process may have made it larger.
pub(super) const MAX_UNREAD_BYTES: usize = 512 * 1024;

/// Longest wait for the end of stdout after its holders were killed. Only a descendant that has
/// left the group, and lives on, takes all of it.
const STDOUT_END_TIMEOUT: Duration = Duration::from_millis(20);

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// The process has been reaped. Delivers the answers that are still in its stdout, fails the
    /// requests that it may have started with `cause`, and returns the requests that it never
    /// started, to be handed back to the queue.
    // Not cancel-safe: requests that were taken back are lost with the future.
    pub async fn settle(&mut self, cause: &Cause) -> Vec<S::Request> {
        self.source.leave();
        // First, before a descendant that has left the group reads more of it.
        let unread = self.take_back_unread();
        self.read_rest().await;
        if self.conversation.is_ahead() {
            self.wait_for_end_of_stdout().await;
        }
        let left = self.conversation.progress_at_end();
        let cause = &cause.clone().map(|cause| format!("{cause}{left}"));
        let holders = match &self.stdout {
            Some(_) => PipeHolders::Possible,
            None => PipeHolders::Gone,
        };
        let mut never_started = Vec::new();
        let (process, ended) = (self.process, Instant::now());
        for open in self.conversation.end(&unread, holders) {
            match open {
                OpenRequest::NeverStarted(request) => never_started.push(request),
                OpenRequest::MayHaveStarted { ticket, since } => {
                    let failure = RequestFailure::Exited(cause.clone());
                    let work = Work {
                        process,
                        began: since,
                        ended,
                        is_first: !std::mem::replace(&mut self.has_answered, true),
                    };
                    ticket
                        .into()
                        .into_answer(Err(failure), Some(work))
                        .deliver();
                }
            }
        }
        never_started
    }

    /// Reads stdout to its end, a turn at a time. At most [`MAX_REST_BYTES`], because a descendant
    /// may go on writing.
    async fn read_rest(&mut self) {
        let most = self.taken_in + MAX_REST_BYTES;
        while self.read_a_turn() == ReadTurn::Unfinished && self.taken_in < most {
            yield_now().await;
        }
    }

    /// Waits until no process holds the pipe any more: the descendants in the group were killed
    /// just now, and end within a moment.
    async fn wait_for_end_of_stdout(&mut self) {
        let ended = poll_fn(|cx| {
            if self.poll_read(cx) == ReadTurn::Unfinished {
                cx.waker().wake_by_ref();
            }
            match &self.stdout {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            }
        });
        // Cancel-safe: all progress lives in self. A process that holds the pipe longer counts as
        // working.
        let _ = timeout(STDOUT_END_TIMEOUT, ended).await;
        self.handle_events();
        self.source.send_answers();
    }

    /// Takes the bytes back that the process has not read. Reads them rather than count them
    /// (FIONREAD), so that no descendant that still holds the pipe can read them later. A pipe that
    /// never gets empty is filled by another process, and says nothing.
    fn take_back_unread(&mut self) -> Vec<u8> {
        let mut unread = Vec::new();
        let Some(stdin) = self.stdin.take() else {
            return unread;
        };
        let path = format!("/proc/self/fd/{}", stdin.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(reader) = rustix::fs::open(path, flags, Mode::empty()) else {
            return unread;
        };
        while unread.len() <= MAX_UNREAD_BYTES {
            let length = unread.len();
            unread.resize(length + READ_BYTES, 0);
            let read = rustix::io::read(&reader, &mut unread[length..]);
            unread.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(1..) | Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return unread,
            }
        }
        Vec::new()
    }
}
