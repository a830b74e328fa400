//! The thread that writes replies and the job log.

use super::stderr::Teller;
use crate::shutdown::{Shutdown, Stage};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// Batches that wait to be written.
const BATCHES: usize = 2;

/// How often replies and job log are forced to the disk.
pub(super) const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// How long replies, and lines for standard error, are still written after a second signal. The log
/// may take another second.
const WRITES_AFTER_KILLING: Duration = Duration::from_millis(500);

/// Whole lines to be written.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Reply lines.
    pub(super) replies: Vec<u8>,
    /// Lines of the job log.
    pub(super) log: Vec<u8>,
    /// Lines for standard error.
    pub(super) told: Vec<u8>,
}

impl Lines {
    /// Bytes of all lines.
    pub(super) fn length(&self) -> usize {
        self.replies.len() + self.log.len() + self.told.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length() == 0
    }
}

/// A file that is written, with its name in messages.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) name: String,
    pub(super) file: File,
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.check_length()?;
        let written = self.file.write_all(lines);
        written.map_err(|error| self.named(&error))
    }

    /// Refuses a regular file that has become shorter than what was written: what another program
    /// has cut off would be zeros.
    fn check_length(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        let (written, length) = (self.file.stream_position()?, metadata.len());
        match length < written {
            true => Err(io::Error::other(format!(
                "{}: has {length} of the {written} bytes that were written: another program has cut it",
                self.name
            ))),
            false => Ok(()),
        }
    }

    /// Forces a regular file to the disk.
    fn sync(&self) -> io::Result<()> {
        if !self.file.metadata()?.is_file() {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| self.named(&error))
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.name))
    }
}

/// Whether standard output was closed when the program started: Rust's runtime then opens
/// `/dev/null`, for reading too, which `>/dev/null` of a shell does not.
pub(super) fn was_closed(stdout: impl AsFd) -> bool {
    let flags = rustix::fs::fcntl_getfl(&stdout);
    let is_read = flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
    let null = rustix::fs::makedev(1, 3);
    is_read && rustix::fs::fstat(&stdout).is_ok_and(|stat| stat.st_rdev == null)
}

/// The files of a run.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) output: Sink,
    pub(super) job_log: Option<Sink>,
}

/// The thread that writes, and the way to it.
#[derive(Debug)]
pub(super) struct Output {
    /// Closed when nothing can be written any more.
    pub(super) lines: mpsc::Sender<Lines>,
    written: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts the thread.
    pub(super) fn start(files: Files, teller: Teller) -> io::Result<Output> {
        let (lines, received) = mpsc::channel(BATCHES);
        let (ended, written) = oneshot::channel();
        let thread = std::thread::Builder::new().name("map-output".to_owned());
        // The receiver may have gone, after a second signal.
        thread.spawn(move || drop(ended.send(write_all(files, received, &teller))))?;
        Ok(Output { lines, written })
    }

    /// Waits until all is written; after [`Stage::Killing`] not for long, because a reader that
    /// takes nothing must not hold up the end.
    ///
    /// # Errors
    ///
    /// When something could not be written.
    pub(super) async fn finish(self, shutdown: &Shutdown) -> io::Result<()> {
        drop(self.lines);
        // Cancel-safe: the program ends.
        tokio::select! {
            written = self.written => written
                .unwrap_or_else(|_| Err(io::Error::other("the thread that writes has panicked"))),
            () = is_too_late(shutdown) => {
                Err(io::Error::other("replies were not taken before the end"))
            }
        }
    }
}

/// Waits until replies that are not written yet are given up.
pub(super) async fn is_too_late(shutdown: &Shutdown) {
    shutdown.reached(Stage::Killing).await;
    sleep(WRITES_AFTER_KILLING).await;
}

/// Writes replies before their lines of the job log, so that no item is logged without its reply.
fn write_all(
    mut files: Files,
    mut received: mpsc::Receiver<Lines>,
    teller: &Teller,
) -> io::Result<()> {
    let mut synced = Instant::now();
    while let Some(lines) = received.blocking_recv() {
        files.output.write(&lines.replies)?;
        if !lines.told.is_empty() {
            teller.tell_in_time(&lines.told);
        }
        if let Some(log) = &mut files.job_log {
            log.write(&lines.log)?;
        }
        // Without lines, the message asks to force the files to the disk.
        let is_asked = lines.is_empty();
        if is_asked || synced.elapsed() >= SYNC_PERIOD {
            sync(&files)?;
            synced = Instant::now();
        }
    }
    files.output.check_length()?;
    if let Some(log) = &mut files.job_log {
        log.check_length()?;
    }
    sync(&files)
}

/// Forces the files to the disk, if there is a job log.
fn sync(files: &Files) -> io::Result<()> {
    let Some(log) = &files.job_log else {
        return Ok(());
    };
    files.output.sync()?;
    log.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_standard_output_is_no_other_device_or_file() {
        let mut options = File::options();
        let to_read_too = options.read(true).write(true).to_owned();
        let to_write = File::options().write(true).to_owned();
        for (path, options, expected) in [
            ("/dev/null", &to_read_too, true),
            ("/dev/null", &to_write, false),
            ("/dev/zero", &to_read_too, false),
        ] {
            assert_eq!(was_closed(options.open(path).unwrap()), expected, "{path}");
        }
    }
}
