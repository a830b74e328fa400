//! Writes events as log lines to stderr, in text for people or JSON for collectors (`names`).
//!
//! A thread of the log writes the lines from a bounded buffer (`writer`). While the log has no
//! reader, lines are lost and counted, and no request waits.

mod json;
mod names;
pub mod object;
mod text;
pub(crate) mod throttle;
pub mod timestamp;
mod writer;

use crate::config::LogFormat;
use json::JsonFormat;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::sync::OnceLock;
use std::time::Duration;
pub(crate) use text::Printable;
use text::{Colours, TextFormat};
use timestamp::Timestamp;
use tracing::{Level, error};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use writer::Buffer;
pub use writer::{LastLines, lost_lines, replace_bar};

/// The buffer of the log, once it is started.
static BUFFER: OnceLock<Buffer> = OnceLock::new();

/// Starts the log; dropping the guard writes the last lines. `format` defaults to text on a
/// terminal and JSON elsewhere. Fails where the system grants no thread.
pub fn start(format: Option<LogFormat>, level: Level) -> io::Result<LastLines> {
    let is_terminal = std::io::stderr().is_terminal();
    let by_default = if is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let (buffer, last_lines) = writer::start(std::io::stderr())?;
    // The first log stays, as the subscriber does.
    drop(BUFFER.set(buffer.clone()));
    // The library's own errors are off: the library would print them to stderr, and panic on a full
    // one.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || buffer.clone())
        .with_ansi(false)
        .log_internal_errors(false);
    match format.unwrap_or(by_default) {
        LogFormat::Text => {
            let colours = Colours::wanted(is_terminal);
            subscriber.event_format(TextFormat { colours }).init();
        }
        LogFormat::Json => subscriber.event_format(JsonFormat::plain()).init(),
        LogFormat::Gcp => {
            let project = std::env::var("GOOGLE_CLOUD_PROJECT").ok();
            subscriber.event_format(JsonFormat::gcp(project)).init();
        }
        LogFormat::Ecs => subscriber.event_format(JsonFormat::ecs()).init(),
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(last_lines)
}

/// Writes whole lines of a handler to the log as they are. As with events, lines without room in
/// the buffer are lost and counted.
pub fn write_as_they_are(lines: &[u8]) {
    if let Some(buffer) = BUFFER.get() {
        // The buffer takes a line, or loses it, and never fails.
        drop(buffer.clone().write_all(lines));
    }
}

/// A duration in milliseconds, to the microsecond, for fields of events whose name ends in `_ms`: a
/// number that collectors can sum and compare.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A duration in whole microseconds, for fields of events whose name ends in `_us`.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Several values as one field of an event: a text with commas.
pub fn listed<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut list = String::new();
    for value in values {
        let separator = if list.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(list, "{separator}{value}");
    }
    list
}

/// Logs a panic in the log's own format, where a collector finds it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let why = panic.payload_as_str().unwrap_or("no reason was given");
    let thread = std::thread::current();
    let thread = thread.name();
    error!(
        at,
        why, thread, "a part of the worker has panicked, which is a bug of it"
    );
}

/// The time of a line: `2026-11-23T12:00:00.123456Z`.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}Z", Timestamp::now())
    }
}

/// Whether a character can make a line look like another, or change a terminal: controls, the two
/// separators of lines and paragraphs, and marks that change the direction of writing.
fn can_disguise(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' |
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use tracing_subscriber::fmt::FormatEvent;
    use tracing_subscriber::fmt::format::DefaultFields;

    /// One character of each kind that can disguise, and the harmless neighbours of their ranges.
    pub(super) const DISGUISES: &str = "\u{0}\u{1b}\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\
                             \u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\r\n";
    pub(super) const HARMLESS: &str =
        "a\té\u{a0}\u{61b}\u{200d}\u{2010}\u{2027}\u{202f}\u{2065}\u{206a}日🦀";

    #[test]
    fn control_characters_are_written_as_escapes() {
        let text = "a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e\tf";
        assert_eq!(
            Printable(text).to_string(),
            "a\\u{1b}[31mb\\r\\nc\\u{9b}d\\u{202e}e\tf"
        );
        assert!(Printable(DISGUISES).to_string().is_ascii());
        assert_eq!(Printable(HARMLESS).to_string(), HARMLESS);
    }

    /// The log of this thread, from its making to its drop.
    pub(crate) struct KeptLog {
        lines: Kept,
        _kept: tracing::subscriber::DefaultGuard,
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl KeptLog {
        /// Keeps the log in JSON.
        pub(crate) fn in_json() -> KeptLog {
            KeptLog::of(JsonFormat::plain())
        }

        fn of<E>(format: E) -> KeptLog
        where
            E: FormatEvent<tracing_subscriber::Registry, DefaultFields> + Send + Sync + 'static,
        {
            use tracing_subscriber::layer::SubscriberExt;
            let lines = Kept::default();
            let writer = lines.clone();
            let layer = tracing_subscriber::fmt::layer()
                .event_format(format)
                .with_writer(move || writer.clone());
            let subscriber = tracing_subscriber::registry().with(layer);
            let _kept = tracing::subscriber::set_default(subscriber);
            KeptLog { lines, _kept }
        }

        /// All of it so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// The line of one event in this format.
    pub(super) fn written<E>(format: E, event: impl FnOnce()) -> String
    where
        E: FormatEvent<tracing_subscriber::Registry, DefaultFields> + Send + Sync + 'static,
    {
        let log = KeptLog::of(format);
        event();
        log.text()
    }

    /// The lines of one event in each format, with the name of the format.
    pub(crate) fn in_each_format(event: impl Fn()) -> [(&'static str, String); 4] {
        let colours = Colours::Off;
        let gcp = JsonFormat::gcp(Some("acme-1".to_owned()));
        [
            ("text", written(TextFormat { colours }, &event)),
            ("json", written(JsonFormat::plain(), &event)),
            ("gcp", written(gcp, &event)),
            ("ecs", written(JsonFormat::ecs(), &event)),
        ]
    }

    /// Whether a character may not stand in a line of the log.
    pub(crate) fn is_disguise(c: char) -> bool {
        c != '\t' && can_disguise(c)
    }

    #[test]
    fn durations_are_numbers_and_lists_are_words() {
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567_890)), 1234.567);
        assert_eq!(milliseconds(Duration::from_micros(760)), 0.76);
        assert_eq!(listed(["a b", "c"]), "a b, c");
        assert_eq!(listed::<&str>([]), "");
    }

    #[test]
    fn text_is_coloured_only_where_it_is_wanted() {
        let event = || tracing::warn!(process = 3, text = "one\ntwo", "it \u{1b}[1m went");
        let plain = written(
            TextFormat {
                colours: Colours::Off,
            },
            event,
        );
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(
            plain.ends_with("  WARN it \\u{1b}[1m went process=3\n    | one\n    | two\n"),
            "{plain}"
        );
        let coloured = written(
            TextFormat {
                colours: Colours::On,
            },
            event,
        );
        assert!(coloured.starts_with("\u{1b}[2m20"), "{coloured:?}");
        assert!(
            coloured.contains("\u{1b}[33m WARN\u{1b}[0m"),
            "{coloured:?}"
        );
        let mut without = coloured;
        for style in ["2", "33", "0"] {
            without = without.replace(&format!("\u{1b}[{style}m"), "");
        }
        // But for the time.
        assert_eq!(
            without.split_once('Z').unwrap().1,
            plain.split_once('Z').unwrap().1
        );
    }
}
