//! The thread that reads input lines and finds their payloads.

use super::job_log::Logged;
use super::lines::{RawLine, Splitter};
use super::payload::InputLine;
use crate::config::map::{InputForm, MapConfig};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Bytes of one read.
const CHUNK: usize = 64 * 1024;

/// A chunk with fewer bytes is copied, so that it does not hold the whole buffer.
const COPIED_BELOW: usize = CHUNK / 4;

/// Batches of lines that wait to be taken.
const BATCHES: usize = 2;

/// Lines of a batch at most: of short lines, a chunk has many, and each takes more memory than its
/// text.
const BATCH_LINES: usize = 1024;

/// Lines that were read together, or why there are no more.
pub(super) type Batch = Result<Vec<InputLine>, String>;

/// The lines of the input, and its size.
#[derive(Debug)]
pub(super) struct Input {
    /// Closed at the end of the input.
    pub(super) batches: mpsc::Receiver<Batch>,
    /// Bytes of all files, if all are files.
    pub(super) size: Option<u64>,
}

/// Opens the files.
pub(super) fn open(config: &MapConfig) -> Result<Vec<Source>, String> {
    let paths = match config.inputs.as_slice() {
        [] => &[PathBuf::from("-")][..],
        paths => paths,
    };
    paths.iter().map(|path| Source::open(path)).collect()
}

/// Starts the thread that reads the files.
pub(super) fn start(
    config: &MapConfig,
    sources: Vec<Source>,
    logged: Logged,
) -> Result<Input, String> {
    let size = sources.iter().map(Source::size).sum();
    let (sender, batches) = mpsc::channel(BATCHES);
    let reader = InputReader {
        form: config.form.clone(),
        longest: config.longest_line,
        number: 0,
        position: 0,
        logged,
        sender,
    };
    let thread = std::thread::Builder::new().name("map-input".to_owned());
    thread
        .spawn(move || reader.read_all(sources))
        .map_err(|error| format!("cannot start the thread that reads the input: {error}"))?;
    Ok(Input { batches, size })
}

/// One file of the input.
#[derive(Debug)]
pub(super) struct Source {
    /// The name in messages.
    pub(super) name: String,
    pub(super) file: File,
}

impl Source {
    fn open(path: &Path) -> Result<Source, String> {
        let (name, opened) = match path == Path::new("-") {
            true => (
                "standard input".to_owned(),
                rustix::io::dup(io::stdin()).map_err(io::Error::from),
            ),
            false => (
                format!("-i {}", path.display()),
                File::open(path).map(Into::into),
            ),
        };
        let file = opened.map_err(|error| format!("{name}: {error}"))?;
        let file = File::from(file);
        let is_folder = file.metadata().is_ok_and(|metadata| metadata.is_dir());
        match is_folder {
            true => Err(format!("{name}: is a directory, expected a file of lines")),
            false => Ok(Source { name, file }),
        }
    }

    /// Whether lines are typed.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    fn size(&self) -> Option<u64> {
        let metadata = self.file.metadata().ok()?;
        metadata.is_file().then_some(metadata.len())
    }
}

struct InputReader {
    form: InputForm,
    longest: usize,
    /// The number of the last line.
    number: u64,
    /// Bytes up to the end of that line.
    position: u64,
    logged: Logged,
    sender: mpsc::Sender<Batch>,
}

impl InputReader {
    /// Reads all files. Ends early when the lines are not wanted any more.
    fn read_all(mut self, sources: Vec<Source>) {
        for mut source in sources {
            let result = self.read_one(&mut source.file);
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return self.fail(format!("{}: cannot be read: {error}", source.name));
                }
            }
        }
        if self.number < self.logged.len() {
            let (number, logged) = (self.number, self.logged.len());
            self.fail(format!(
                "--resume: the input ends at line {number}, and the job log has line {logged}: the \
                 input must be the one that was logged"
            ));
        }
    }

    /// Reads one file; false when the lines are not wanted any more.
    fn read_one(&mut self, file: &mut File) -> io::Result<bool> {
        let mut splitter = Splitter::new(self.longest);
        let mut raw = Vec::new();
        loop {
            let mut buffer = vec![0; CHUNK];
            let length = match file.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            buffer.truncate(length);
            let chunk = match length {
                0..COPIED_BELOW => Bytes::copy_from_slice(&buffer),
                _ => Bytes::from(buffer),
            };
            if length == 0 {
                splitter.finish(&mut raw);
            } else {
                splitter.split(chunk, &mut raw);
            }
            if !self.send(&mut raw) {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }

    /// Sends the lines that are to be done; false when they are not wanted any more.
    fn send(&mut self, raw: &mut Vec<RawLine>) -> bool {
        let mut lines = Vec::with_capacity(raw.len().min(BATCH_LINES));
        for raw in raw.drain(..) {
            self.number += 1;
            self.position += raw.length() as u64 + 1;
            let mut line = InputLine::new(self.number, raw, &self.form, self.longest);
            line.position = self.position;
            match self.logged.is_done(line.number, line.hash) {
                Ok(true) => {}
                Ok(false) => lines.push(line),
                Err(why) => {
                    self.fail(why);
                    return false;
                }
            }
            if lines.len() == BATCH_LINES && !self.send_batch(&mut lines) {
                return false;
            }
        }
        lines.is_empty() || self.send_batch(&mut lines)
    }

    fn send_batch(&self, lines: &mut Vec<InputLine>) -> bool {
        self.sender.blocking_send(Ok(std::mem::take(lines))).is_ok()
    }

    fn fail(&self, why: String) {
        // The receiver may have gone already.
        drop(self.sender.blocking_send(Err(why)));
    }
}
