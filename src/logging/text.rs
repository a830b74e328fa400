//! Log lines for people: one line for each event, with colours on a terminal.

use super::object::shown;
use super::{Utc, can_disguise};
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The colours of the text on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    On,
    Off,
}

impl Colours {
    /// On for a terminal, unless `NO_COLOR` or `TERM` refuses them: <https://no-color.org>.
    pub(super) fn wanted(is_terminal: bool) -> Colours {
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

/// Formats an event as one line. A block of a handler's output follows in lines of its own, each
/// with a mark in front, so that no text of a handler can pass for a line of the worker.
pub(super) struct TextFormat {
    pub(super) colours: Colours,
}

impl<S, N> FormatEvent<S, N> for TextFormat
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
            "object" => self.block = shown(&value),
            name => {
                let name = self.colours.paint(DIM, format_args!("{name}=")).to_string();
                self.others
                    .push_str(&format!(" {name}{}", TextValue(&value)));
            }
        }
    }
}

/// The value of a field, in quotes where it is more than one word.
pub(super) struct TextValue<'a>(pub(super) &'a str);

impl fmt::Display for TextValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains([' ', '"']) {
            let value = self.0.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "\"{}\"", Printable(&value))
        } else {
            Printable(self.0).fmt(f)
        }
    }
}

/// Text with an escape in place of each character that can disguise: no forged line, no terminal
/// tricks.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

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
