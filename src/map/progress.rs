//! The progress of a run: the last line, and the bar on a terminal.

use crate::config::map::ShowProgress;
use crate::logging::replace_bar;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// How often the bar is drawn.
const DRAW_PERIOD: Duration = Duration::from_millis(200);

/// How often progress is told in a line of its own, without a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// Items that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) well: u64,
    pub(super) failed: u64,
    /// Items that failed in the runs before, and are not done again.
    pub(super) failed_before: u64,
}

impl Tally {
    pub(super) fn ended(self) -> u64 {
        self.well + self.failed
    }

    /// The last line of a run.
    pub(super) fn last_line(self, took: Duration) -> String {
        let Tally {
            well,
            failed,
            failed_before,
        } = self;
        let (items, seconds) = (self.ended(), took.as_secs_f64());
        let rate = items as f64 / seconds.max(0.001);
        let before = match failed_before {
            0 => String::new(),
            count => format!("; {count} failed in earlier runs, --resume-failed does them again"),
        };
        format!(
            "map: {}, {well} ok, {failed} failed, {seconds:.1} s, {rate:.0}/s{before}",
            counted(items)
        )
    }
}

/// A number of items in words.
pub(super) fn counted(items: u64) -> String {
    match items {
        1 => "1 item".to_owned(),
        _ => format!("{items} items"),
    }
}

/// The bar, if there is one.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    size: Option<u64>,
}

impl Progress {
    pub(super) fn new(show: ShowProgress, size: Option<u64>) -> Progress {
        let is_shown = match show {
            ShowProgress::Auto => std::io::stderr().is_terminal(),
            ShowProgress::Always => true,
            ShowProgress::Never => false,
        };
        let bar = is_shown.then(|| {
            let target = match std::io::stderr().is_terminal() {
                true => ProgressDrawTarget::stderr(),
                // Without a terminal nothing is redrawn: each look is a line.
                false => ProgressDrawTarget::hidden(),
            };
            let form = match size {
                Some(_) => "▕{bar:20}▏ {percent:>3}% {msg}",
                None => "{spinner} {msg}",
            };
            let style = ProgressStyle::with_template(form)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("█▉▊▋▌▍▎▏ ");
            let bar = ProgressBar::with_draw_target(size, target).with_style(style);
            replace_bar(!bar.is_hidden());
            bar
        });
        Progress { bar, size }
    }

    /// How often to draw: lines that stay, as in the log of a batch system, come more rarely.
    pub(super) fn period(&self) -> Duration {
        match self.bar.as_ref().is_some_and(ProgressBar::is_hidden) {
            true => LINE_PERIOD,
            false => DRAW_PERIOD,
        }
    }

    /// Whether there is something to draw.
    pub(super) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Draws the bar.
    pub(super) fn draw(&self, tally: Tally, position: u64, took: Duration) {
        let Some(bar) = &self.bar else { return };
        let text = text(tally, position, self.size, took);
        if bar.is_hidden() {
            let percent = self.size.map_or_else(String::new, |size| {
                format!("{}% ", position * 100 / size.max(1))
            });
            super::tell(&format!("map: {percent}{text}"));
            return;
        }
        bar.set_position(position);
        bar.set_message(text);
        bar.tick();
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            replace_bar(false);
        }
    }

    /// Writes a line to standard error, above the bar.
    pub(super) fn tell_above(&self, line: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(line),
            Some(_) | None => super::tell(line),
        }
    }
}

/// The words beside the bar: `412k 41.2k/s 0:22 left, 3 failed`.
fn text(tally: Tally, position: u64, size: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = tally.ended() as f64 / seconds;
    let mut text = format!("{} {}/s", short(tally.ended() as f64), short(rate));
    if let Some(size) = size
        && position > 0
    {
        let left = seconds * size.saturating_sub(position) as f64 / position as f64;
        let left = Duration::from_secs_f64(left).as_secs();
        text.push_str(&format!(" {}:{:02} left", left / 60, left % 60));
    }
    if tally.failed > 0 {
        text.push_str(&format!(", {} failed", tally.failed));
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
        let tally = Tally {
            failed_before: 0,
            well: 411_997,
            failed: 3,
        };
        let ten = Duration::from_secs(10);
        assert_eq!(
            text(tally, 31, Some(100), ten),
            "412k 41.2k/s 0:22 left, 3 failed"
        );
        assert_eq!(text(tally, 31, None, ten), "412k 41.2k/s, 3 failed");
        let line = "map: 412000 items, 411997 ok, 3 failed, 10.0 s, 41200/s";
        assert_eq!(tally.last_line(ten), line);
        let resumed = Tally {
            failed_before: 2,
            ..tally
        };
        let before = "; 2 failed in earlier runs, --resume-failed does them again";
        assert_eq!(resumed.last_line(ten), format!("{line}{before}"));
    }
}
