//! The thread that writes log lines, and the bounded buffer in front of it.
//!
//! Only this thread and, for a second at the end, the drop of [`LastLines`] wait for the log's
//! reader. Lines without room in the buffer are lost and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tracing::warn;

/// Lines that may wait to be written.
const MAX_WAITING_LINES: usize = 8192;

/// Bytes that may wait to be written: a block of a handler's output is one line, and JSON may take
/// six bytes for one byte of the block.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// How long the end of the program waits for the last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Least time between two lines that report lost lines.
const LOSS_REPORT_PERIOD: Duration = Duration::from_secs(1);

/// Lines of the log that were lost since the start of the program.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Whether the terminal's last line is a progress bar.
static FOLLOWS_BAR: AtomicBool = AtomicBool::new(false);

/// Begins the line anew, and clears it.
const CLEAR_LINE: &[u8] = b"\r\x1b[K";

/// Has each line of the log replace the progress bar that is the terminal's last line, or no more.
pub fn replace_bar(is_there: bool) {
    FOLLOWS_BAR.store(is_there, Ordering::Relaxed);
}

/// Lines of the log that were lost since the start of the program.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

enum LogMessage {
    Line(Vec<u8>),
    End,
}

/// Counts of the lines in the buffer, and of lost lines.
#[derive(Default)]
struct BufferCounts {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl BufferCounts {
    /// Counts a line of this length, if there is room for it.
    fn add(&self, length: usize) -> bool {
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = lines < MAX_WAITING_LINES && bytes + length <= MAX_WAITING_BYTES;
        if !has_room {
            self.remove(length);
            self.lose();
        }
        has_room
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        LOST.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, length: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(length, Ordering::Relaxed);
    }
}

/// The entry of the buffer: takes a line, or loses it without room. Never waits.
#[derive(Clone)]
pub(super) struct Buffer {
    lines: Sender<LogMessage>,
    counts: Arc<BufferCounts>,
}

impl Write for Buffer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.counts.add(line.len()) {
            // The thread ends only with the program.
            drop(self.lines.send(LogMessage::Line(line.to_vec())));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A guard of the log: its drop waits until the last lines are written, for a second at most.
#[must_use]
#[derive(Debug)]
pub struct LastLines {
    lines: Sender<LogMessage>,
    /// Ends with the thread.
    ended: Receiver<()>,
}

impl std::fmt::Debug for LogMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogMessage")
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        drop(self.lines.send(LogMessage::End));
        // A log without a reader must not delay the end.
        let _ = self.ended.recv_timeout(LAST_LINES_TIMEOUT);
    }
}

/// Starts the thread that writes to `log`. Fails where the system grants no thread.
pub(super) fn start(log: impl Write + Send + 'static) -> io::Result<(Buffer, LastLines)> {
    let (lines, to_write) = channel();
    let (end, ended) = channel();
    let counts = Arc::new(BufferCounts::default());
    let buffer = Buffer {
        lines: lines.clone(),
        counts: Arc::clone(&counts),
    };
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            write_lines(log, &to_write, &counts);
            drop(end);
        })?;
    Ok((buffer, LastLines { lines, ended }))
}

fn write_lines(mut log: impl Write, lines: &Receiver<LogMessage>, counts: &BufferCounts) {
    let mut last_loss_report = Instant::now();
    while let Ok(LogMessage::Line(line)) = lines.recv() {
        let written = match FOLLOWS_BAR.load(Ordering::Relaxed) {
            true => log.write_all(&[CLEAR_LINE, &line].concat()),
            false => log.write_all(&line),
        };
        // Written or not, it waits no more.
        counts.remove(line.len());
        if written.is_err() {
            counts.lose();
        } else if last_loss_report.elapsed() >= LOSS_REPORT_PERIOD {
            let lost = counts.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                last_loss_report = Instant::now();
                // This line comes back through the buffer.
                warn!(
                    lines = lost,
                    "lines of this log were lost: its reader was too slow, or it was full"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    #[test]
    fn lines_that_wait_are_bounded_in_bytes_and_in_number() {
        let (lines, to_write) = channel();
        let counts = Arc::new(BufferCounts::default());
        let mut near = Buffer {
            lines,
            counts: Arc::clone(&counts),
        };
        let line = vec![b'x'; MAX_WAITING_BYTES / 4];
        for _ in 0..10 {
            near.write_all(&line).unwrap();
        }
        assert_eq!(to_write.try_iter().count(), 4);
        assert_eq!(counts.lost.load(Ordering::Relaxed), 6);
        counts.remove(line.len());
        near.write_all(&line).unwrap();
        near.write_all(&line).unwrap();
        assert_eq!(to_write.try_iter().count(), 1);
        let counts = BufferCounts::default();
        assert!((0..MAX_WAITING_LINES).all(|_| counts.add(10)));
        assert!(!counts.add(10));
        counts.remove(10);
        assert!(counts.add(10));
    }

    /// A log that fails like a full disk while its flag is set.
    #[derive(Clone, Default)]
    struct Failing(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut log = self.0.lock().unwrap();
            if log.0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            log.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_next_ones_are_written() {
        let log = Failing::default();
        log.0.lock().unwrap().0 = true;
        let (mut near, last_lines) = start(log.clone()).unwrap();
        let counts = Arc::clone(&near.counts);
        near.write_all(b"lost\n").unwrap();
        while counts.lines.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        log.0.lock().unwrap().0 = false;
        near.write_all(b"written\n").unwrap();
        drop(last_lines);
        assert_eq!(log.0.lock().unwrap().1, b"written\n");
        assert_eq!(counts.lost.load(Ordering::Relaxed), 1);
    }

    /// A log whose reader never reads.
    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_no_end() {
        let (reader, blocked) = mpsc::channel();
        let (mut near, last_lines) = start(Blocked(blocked)).unwrap();
        near.write_all(b"line\n").unwrap();
        let begun = Instant::now();
        drop(last_lines);
        assert!(begun.elapsed() < 10 * LAST_LINES_TIMEOUT);
        drop(reader);
    }
}
