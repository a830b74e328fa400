//! The thread that writes to standard error: last lines, failed items of `--raw`, and the bar. A
//! reader that takes nothing holds up this thread, and no signal.

use super::output::is_too_late;
use super::progress::Bar;
use crate::shutdown::Shutdown;
use std::io::{self, Write};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait to be written.
const MESSAGES: usize = 64;

/// A message to the thread.
#[derive(Debug)]
enum StderrMessage {
    /// Whole lines, to stand above the bar.
    Lines(String),
    /// A look at the progress.
    Draw(Look),
    /// The bar goes, these lines are the last ones, and the thread ends.
    End(String),
}

/// The progress at one time.
#[derive(Debug)]
pub(super) struct Look {
    /// Bytes of the input whose items have ended.
    pub(super) position: u64,
    /// Bytes of the input, if its size is known.
    pub(super) size: Option<u64>,
    /// The words beside the bar.
    pub(super) text: String,
    /// Whether a bar is drawn, or a line is written.
    pub(super) is_bar: bool,
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Teller(mpsc::Sender<StderrMessage>);

impl Teller {
    /// Has lines written; waits for room, which only a thread of its own may do.
    pub(super) fn tell_in_time(&self, lines: &[u8]) {
        let lines = String::from_utf8_lossy(lines).into_owned();
        // The thread ends with the run.
        drop(self.0.blocking_send(StderrMessage::Lines(lines)));
    }

    /// Has a line written, unless many wait already.
    pub(super) fn tell(&self, line: &str) {
        drop(self.0.try_send(StderrMessage::Lines(format!("{line}\n"))));
    }

    /// Has the progress shown; a later look makes up for a lost one.
    pub(super) fn draw(&self, look: Look) {
        drop(self.0.try_send(StderrMessage::Draw(look)));
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Stderr {
    messages: mpsc::Sender<StderrMessage>,
    ended: oneshot::Receiver<()>,
}

impl Stderr {
    /// Starts the thread. Fails where the system grants no thread.
    pub(super) fn start() -> io::Result<Stderr> {
        let (messages, received) = mpsc::channel(MESSAGES);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("map-stderr".to_owned());
        thread.spawn(move || {
            write_all(received);
            drop(end);
        })?;
        Ok(Stderr { messages, ended })
    }

    /// A way to the thread.
    pub(super) fn teller(&self) -> Teller {
        Teller(self.messages.clone())
    }

    /// Writes the last lines; after a second signal they are not waited for.
    pub(super) async fn finish(self, lines: &[String], shutdown: &Shutdown) {
        let lines = lines.iter().map(|line| format!("{line}\n")).collect();
        let written = async {
            drop(self.messages.send(StderrMessage::End(lines)).await);
            drop(self.ended.await);
        };
        // Cancel-safe: the program ends.
        tokio::select! {
            biased;
            () = written => {}
            () = is_too_late(shutdown) => {}
        }
    }
}

fn write_all(mut received: mpsc::Receiver<StderrMessage>) {
    let mut bar: Option<Bar> = None;
    let write = |lines: &str| {
        // A closed standard error leaves no place for the lines.
        drop(io::stderr().write_all(lines.as_bytes()));
    };
    while let Some(message) = received.blocking_recv() {
        match message {
            StderrMessage::Lines(lines) => match &bar {
                Some(bar) => bar.hide_while(|| write(&lines)),
                None => write(&lines),
            },
            StderrMessage::Draw(look) if look.is_bar => {
                bar.get_or_insert_with(|| Bar::new(look.size)).draw(&look);
            }
            StderrMessage::Draw(look) => {
                let percent = look.size.map_or_else(String::new, |size| {
                    format!("{}% ", look.position * 100 / size.max(1))
                });
                write(&format!("map: {percent}{}\n", look.text));
            }
            StderrMessage::End(lines) => {
                if let Some(bar) = bar.take() {
                    bar.clear();
                }
                return write(&lines);
            }
        }
    }
}
