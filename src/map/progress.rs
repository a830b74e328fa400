//! The progress of a run: the last line, and the bar on a terminal.

use super::stderr::{Look, Teller};
use crate::config::map::ShowProgress;
use crate::logging::replace_bar;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::time::Duration;

/// How often the bar is drawn.
const DRAW_PERIOD: Duration = Duration::from_millis(200);

/// Columns right of the bar, in which a terminal writes `^C`.
const FREE_COLUMNS: u16 = 4;

/// How often progress is told in a line of its own, without a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// Items that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ItemCounts {
    pub(super) well: u64,
    pub(super) failed: u64,
    /// Items that the runs before have done, and this one skips.
    pub(super) done_before: u64,
    /// Items of these that failed.
    pub(super) failed_before: u64,
}

impl ItemCounts {
    pub(super) fn ended(self) -> u64 {
        self.well + self.failed
    }

    /// The last line of a run.
    pub(super) fn last_line(self, took: Duration) -> String {
        let (items, seconds) = (self.ended(), took.as_secs_f64());
        let rate = items as f64 / seconds.max(0.001);
        let ItemCounts { well, failed, .. } = self;
        let before = self.before();
        format!(
            "map: {}, {well} ok, {failed} failed, {seconds:.1} s, {rate:.0}/s{before}",
            counted(items)
        )
    }

    /// The part of the last line about the runs before.
    fn before(self) -> String {
        match (self.done_before, self.failed_before) {
            (0, _) => String::new(),
            (done, 0) => format!("; {done} done before"),
            (done, failed) => format!(
                "; {done} done before, {failed} of them failed, --resume-failed does them again"
            ),
        }
    }
}

/// A number of items in words.
pub(super) fn counted(items: u64) -> String {
    match items {
        1 => "1 item".to_owned(),
        _ => format!("{items} items"),
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgressForm {
    Bar,
    /// Without a terminal nothing is redrawn: each look is a line.
    Lines,
}

/// What is shown of the progress, and how.
#[derive(Debug)]
pub(super) struct Progress {
    form: Option<ProgressForm>,
    size: Option<u64>,
    teller: Teller,
}

impl Progress {
    pub(super) fn new(
        show: ShowProgress,
        is_in_the_way: bool,
        size: Option<u64>,
        teller: Teller,
    ) -> Progress {
        let form = match (show, std::io::stderr().is_terminal()) {
            (ShowProgress::Never, _) | (ShowProgress::Auto, false) => None,
            (ShowProgress::Auto, true) if is_in_the_way => None,
            (ShowProgress::Auto | ShowProgress::Always, true) => Some(ProgressForm::Bar),
            (ShowProgress::Always, false) => Some(ProgressForm::Lines),
        };
        Progress { form, size, teller }
    }

    /// How often to draw: lines that stay, as in the log of a batch system, come more rarely.
    pub(super) fn period(&self) -> Duration {
        match self.form {
            Some(ProgressForm::Lines) => LINE_PERIOD,
            Some(ProgressForm::Bar) | None => DRAW_PERIOD,
        }
    }

    /// Whether there is something to draw.
    pub(super) fn is_shown(&self) -> bool {
        self.form.is_some()
    }

    /// Draws the bar.
    pub(super) fn draw(&self, counts: ItemCounts, positions: Range<u64>, took: Duration) {
        self.teller.draw(Look {
            position: positions.end,
            size: self.size,
            text: text(counts, positions, self.size, took),
            is_bar: self.form == Some(ProgressForm::Bar),
        });
    }
}

/// A terminal whose cursor stays behind the bar. The library fills the line up with blanks, so that
/// the `^C` of a terminal would begin a line, and that line would be cleared in place of the bar.
#[derive(Debug)]
struct BarTerminal;

impl BarTerminal {
    fn write(text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }

    /// Moves the cursor, if at all.
    fn step(count: usize, direction: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            _ => BarTerminal::write(&format!("\x1b[{count}{direction}")),
        }
    }
}

impl TermLike for BarTerminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        let columns = size.map_or(0, |size| size.ws_col);
        let columns = if columns == 0 { 80 } else { columns };
        columns.saturating_sub(FREE_COLUMNS).max(1)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        BarTerminal::step(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        BarTerminal::step(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        BarTerminal::step(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        BarTerminal::step(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        BarTerminal::write(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        BarTerminal::write(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        BarTerminal::write("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The bar on a terminal.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(size: Option<u64>) -> Bar {
        let form = match size {
            Some(_) => "▕{bar:20}▏ {percent:>3}% {msg}",
            None => "{spinner} {msg}",
        };
        let style = ProgressStyle::with_template(form)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("█▉▊▋▌▍▎▏ ");
        let target = ProgressDrawTarget::term_like(Box::new(BarTerminal));
        replace_bar(true);
        Bar(ProgressBar::with_draw_target(size, target).with_style(style))
    }

    pub(super) fn draw(&self, look: &Look) {
        self.0.set_position(look.position);
        self.0.set_message(look.text.clone());
        self.0.tick();
    }

    /// Takes the bar away while lines are written in its place.
    pub(super) fn hide_while(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }

    /// Takes the bar away.
    pub(super) fn clear(self) {
        self.0.finish_and_clear();
        replace_bar(false);
    }
}

/// The words beside the bar: `412k 41.2k/s 0:22 left, 3 failed`. Items count with those of the runs
/// before, as the bar does; rate and time are of this run, which has gone through `positions`.
fn text(counts: ItemCounts, positions: Range<u64>, size: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = counts.ended() as f64 / seconds;
    let items = counts.ended() + counts.done_before;
    let mut text = format!("{} {}/s", short(items as f64), short(rate));
    let done = positions.end.saturating_sub(positions.start);
    if let Some(size) = size
        && done > 0
    {
        let left = seconds * size.saturating_sub(positions.end) as f64 / done as f64;
        let left = Duration::from_secs_f64(left).as_secs();
        text.push_str(&format!(" {}:{:02} left", left / 60, left % 60));
    }
    if counts.failed > 0 {
        text.push_str(&format!(", {} failed", counts.failed));
    }
    text
}

/// A number in three digits or four characters.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        n if n < 1e3 => return format!("{n:.0}"),
        n if n < 1e6 => (n / 1e3, "k"),
        n if n < 1e9 => (n / 1e6, "M"),
        n => (n / 1e9, "G"),
    };
    match number < 99.95 {
        true => format!("{number:.1}{unit}"),
        false => format!("{number:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (999.0, "999"),
            (41_200.0, "41.2k"),
            (412_000.0, "412k"),
            (2_500_000.0, "2.5M"),
        ] {
            assert_eq!(short(number), expected);
        }
        let counts = ItemCounts {
            done_before: 0,
            failed_before: 0,
            well: 411_997,
            failed: 3,
        };
        let ten = Duration::from_secs(10);
        assert_eq!(
            text(counts, 0..31, Some(100), ten),
            "412k 41.2k/s 0:22 left, 3 failed"
        );
        assert_eq!(text(counts, 0..31, None, ten), "412k 41.2k/s, 3 failed");
        let line = "map: 412000 items, 411997 ok, 3 failed, 10.0 s, 41200/s";
        assert_eq!(counts.last_line(ten), line);
        for (done_before, failed_before, before) in [
            (5, 0, "; 5 done before"),
            (
                5,
                2,
                "; 5 done before, 2 of them failed, --resume-failed does them again",
            ),
        ] {
            let resumed = ItemCounts {
                done_before,
                failed_before,
                ..counts
            };
            assert_eq!(resumed.last_line(ten), format!("{line}{before}"));
        }
        let resumed = ItemCounts {
            done_before: 88_000,
            ..counts
        };
        assert_eq!(
            text(resumed, 50..75, Some(100), ten),
            "500k 41.2k/s 0:10 left, 3 failed"
        );
        let one = ItemCounts {
            well: 1,
            ..ItemCounts::default()
        };
        assert!(one.last_line(ten).starts_with("map: 1 item, 1 ok, "));
    }
}
