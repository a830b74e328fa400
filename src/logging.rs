//! How events become log lines on stderr.
//!
//! Lines are written by a thread of their own from a bounded buffer: when nobody reads the log,
//! lines are lost and counted, and no request waits.

use crate::config::LogFormat;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines that may wait to be written.
const BUFFERED_LINES: usize = 8192;

/// And how long they may be together, in bytes: a block of what a handler printed is one line, and
/// JSON may take six bytes for one of its own.
const BUFFERED_BYTES: usize = 8 * 1024 * 1024;

/// Starts the log; the guard writes what is left when it is dropped. `format` defaults to text on
/// a terminal and JSON elsewhere.
pub fn start(format: Option<LogFormat>, level: Level) -> WorkerGuard {
    let by_default = if std::io::stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let waiting = Arc::new(Waiting::default());
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name("log")
        .finish(Drained {
            to: std::io::stderr(),
            waiting: Arc::clone(&waiting),
        });
    // Not its own errors: it would print them to stderr, and panic when that is full.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || Bounded {
            to: writer.clone(),
            waiting: Arc::clone(&waiting),
        })
        .with_ansi(false)
        .log_internal_errors(false);
    match format.unwrap_or(by_default) {
        LogFormat::Text => subscriber.event_format(Text).init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(Utc)
            .init(),
    }
    guard
}

/// What is in the buffer.
#[derive(Default)]
struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Counts a line of this length, if there is room for it.
    fn add(&self, length: usize) -> bool {
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = lines < BUFFERED_LINES && bytes + length <= BUFFERED_BYTES;
        if !has_room {
            self.remove(length);
        }
        has_room
    }

    fn remove(&self, length: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(length, Ordering::Relaxed);
    }
}

/// The near end of the buffer: loses a line for which there is no room. The buffer itself loses
/// none then.
struct Bounded<W> {
    to: W,
    waiting: Arc<Waiting>,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.add(line.len()) {
            self.to.write(line)
        } else {
            Ok(line.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The far end of the buffer, on the thread that writes.
struct Drained<W> {
    to: W,
    waiting: Arc<Waiting>,
}

impl<W: Write> Write for Drained<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.to.write_all(line);
        // Written or not, it waits no more.
        self.waiting.remove(line.len());
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// `2026-11-23T12:00:00.123456Z`
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = OffsetDateTime::now_utc();
        let (year, month, day) = now.to_calendar_date();
        let (hour, minute, second, micro) = now.to_hms_micro();
        let month = u8::from(month);
        write!(
            writer,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z"
        )
    }
}

/// One line an event, for people; only a block of a handler's own output takes more, each of them
/// marked, so that nothing a handler prints can pass for a line of ours.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        Utc.format_time(&mut writer)?;
        write!(
            writer,
            " {:>5} {}{}",
            event.metadata().level(),
            fields.message,
            fields.others
        )?;
        for line in fields
            .block
            .split('\n')
            .filter(|_| !fields.block.is_empty())
        {
            write!(writer, "\n    | {}", Printable(line))?;
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    block: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = Printable(&value).to_string(),
            "text" => self.block = value,
            name if value.contains([' ', '"']) => {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                self.others
                    .push_str(&format!(" {name}=\"{}\"", Printable(&value)));
            }
            name => self
                .others
                .push_str(&format!(" {name}={}", Printable(&value))),
        }
    }
}

/// Text without control characters: no forged line, no terminal tricks.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Directions and the two separators can disguise a line as well as controls can.
            let is_disguise = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' |
                '\u{2028}' | '\u{2029}');
            if c == '\t' {
                f.write_str("\t")?;
            } else if c.is_control() || is_disguise {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_wait_are_bounded_in_bytes_and_in_number() {
        let waiting = Arc::new(Waiting::default());
        let mut near = Bounded {
            to: Vec::new(),
            waiting: Arc::clone(&waiting),
        };
        let line = vec![b'x'; BUFFERED_BYTES / 4];
        for _ in 0..10 {
            near.write_all(&line).unwrap();
        }
        assert_eq!(near.to.len(), BUFFERED_BYTES);
        let mut far = Drained {
            to: Vec::new(),
            waiting,
        };
        far.write_all(&line).unwrap();
        near.write_all(&line).unwrap();
        near.write_all(&line).unwrap();
        assert_eq!(near.to.len(), BUFFERED_BYTES + line.len());
        let waiting = Waiting::default();
        assert!((0..BUFFERED_LINES).all(|_| waiting.add(10)));
        assert!(!waiting.add(10));
        waiting.remove(10);
        assert!(waiting.add(10));
    }

    #[test]
    fn control_characters_are_written_as_escapes() {
        let text = "a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e\tf";
        assert_eq!(
            Printable(text).to_string(),
            "a\\u{1b}[31mb\\r\\nc\\u{9b}d\\u{202e}e\tf"
        );
    }
}
