//! Log lines for collectors: one JSON object for each event.

use super::{Utc, can_disguise};
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as one line with one object.
pub(super) struct Json(Format<format::Json, Utc>);

/// The format, with the fields of an event beside its message.
pub(super) fn json() -> Json {
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
        // Characters that can disguise stand only within strings of the object, where an escape
        // means the same character.
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
