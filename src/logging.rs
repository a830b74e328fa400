//! How events become log lines on stderr.
//!
//! Lines are written by a thread of their own from a bounded buffer (`writer`): when nobody reads
//! the log, lines are lost and counted, and no request waits.

pub(crate) mod throttle;
mod writer;

use crate::config::LogFormat;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::time::Duration;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::fmt::format::{self, Format, JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
pub use writer::LastLines;

/// Starts the log; what is left is written when the guard is dropped. `format` defaults to text on
/// a terminal and JSON elsewhere. Fails where the system grants no thread.
pub fn start(format: Option<LogFormat>, level: Level) -> io::Result<LastLines> {
    let is_terminal = std::io::stderr().is_terminal();
    let by_default = if is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let (buffer, last_lines) = writer::start(std::io::stderr())?;
    // Not its own errors: it would print them to stderr, and panic when that is full.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || buffer.clone())
        .with_ansi(false)
        .log_internal_errors(false);
    match format.unwrap_or(by_default) {
        LogFormat::Text => {
            let colours = Colours::wanted(is_terminal);
            subscriber.event_format(Text { colours }).init();
        }
        LogFormat::Json => {
            let fields = JsonFields::new();
            subscriber.fmt_fields(fields).event_format(json()).init();
        }
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(last_lines)
}

/// A duration as events have it, in fields whose name ends in `_ms`: a number to sum and compare,
/// to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Several values as events have them: one text, with commas.
pub fn listed<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut list = String::new();
    for value in values {
        let separator = if list.is_empty() { "" } else { ", " };
        // To a string, nothing fails to be written.
        let _ = write!(list, "{separator}{value}");
    }
    list
}

/// A bug of ours in the log's own format, where a collector finds it.
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

/// One object an event and line, for collectors.
struct Json(Format<format::Json, Utc>);

fn json() -> Json {
    let format = format::format()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false);
    Json(format.with_timer(Utc))
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        // What JSON need not escape stands within a string of it, where an escape means the same.
        for c in line.strip_suffix('\n').unwrap_or(&line).chars() {
            if can_disguise(c) {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            } else {
                writer.write_char(c)?;
            }
        }
        writer.write_char('\n')
    }
}

/// The colours of the text on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

impl Colours {
    /// On where somebody looks who has not said no: <https://no-color.org>.
    fn wanted(is_terminal: bool) -> Colours {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let is_refused = !variable("NO_COLOR").is_empty() || variable("TERM") == "dumb";
        if is_terminal && !is_refused {
            Colours::On
        } else {
            Colours::Off
        }
    }

    /// A text in the style with this number: ECMA-48, section 8.3.117.
    fn paint(self, style: &'static str, text: impl fmt::Display) -> Painted<impl fmt::Display> {
        let style = (self == Colours::On).then_some(style);
        Painted { style, text }
    }
}

struct Painted<T> {
    style: Option<&'static str>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.style {
            Some(style) => write!(f, "\u{1b}[{style}m{}\u{1b}[0m", self.text),
            None => write!(f, "{}", self.text),
        }
    }
}

const DIM: &str = "2";

fn style_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

/// One line an event, for people; only a block of a handler's own output takes more, each of them
/// marked, so that nothing a handler prints can pass for a line of ours.
struct Text {
    colours: Colours,
}

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
        let mut fields = Fields::new(self.colours);
        event.record(&mut fields);
        let mut time = String::new();
        Utc.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        write!(
            writer,
            "{} {} {}{}",
            self.colours.paint(DIM, time),
            self.colours
                .paint(style_of(level), format_args!("{level:>5}")),
            fields.message,
            fields.others
        )?;
        for line in fields
            .block
            .split('\n')
            .filter(|_| !fields.block.is_empty())
        {
            let mark = self.colours.paint(DIM, '|');
            write!(writer, "\n    {mark} {}", Printable(line))?;
        }
        writeln!(writer)
    }
}

struct Fields {
    colours: Colours,
    message: String,
    others: String,
    block: String,
}

impl Fields {
    fn new(colours: Colours) -> Fields {
        Fields {
            colours,
            message: String::new(),
            others: String::new(),
            block: String::new(),
        }
    }
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
            name => {
                let name = self.colours.paint(DIM, format_args!("{name}=")).to_string();
                let value = if value.contains([' ', '"']) {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("\"{}\"", Printable(&value))
                } else {
                    Printable(&value).to_string()
                };
                self.others.push_str(&format!(" {name}{value}"));
            }
        }
    }
}

/// Whether a character can make a line look like another, or play with a terminal: controls, the
/// two separators, and what changes the direction of writing.
fn can_disguise(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' |
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text without what can disguise: no forged line, no terminal tricks.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if can_disguise(c) && c != '\t' {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    /// Each kind of character that can disguise, and what stands beside them and cannot.
    const DISGUISES: &str = "\u{0}\u{1b}\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\
                             \u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\r\n";
    const HARMLESS: &str = "a\té\u{a0}\u{61b}\u{200d}\u{2010}\u{2027}\u{202f}\u{2065}\u{206a}日🦀";

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

    /// What is written of one event in this format.
    fn written<E>(format: E, event: impl FnOnce()) -> String
    where
        E: FormatEvent<tracing_subscriber::Registry, JsonFields> + Send + Sync + 'static,
    {
        use tracing_subscriber::layer::SubscriberExt;
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
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(format)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, event);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_byte_of_an_event_in_json_can_disguise_and_none_is_lost() {
        let all = format!("{DISGUISES}{HARMLESS}\"\\");
        let line = written(json(), || tracing::info!(text = %all, "said {all}"));
        let (event, end) = line.split_at(line.len() - 1);
        assert_eq!(end, "\n");
        assert!(!event.contains(can_disguise), "{event:?}");
        let value: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(value["text"], all.as_str());
        assert_eq!(value["message"], format!("said {all}"));
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
            Text {
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
            Text {
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
