//! The live table in a terminal: drawing, keys, signals, and a thread that asks the worker.

use super::picture::{Picture, Reading, Tone};
use super::read_worker;
use nix::sys::signal::{SigSet, Signal};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a key before readings and signals are seen.
const KEY_WAIT: Duration = Duration::from_millis(50);

/// Shows the live table until a key or a signal ends it. The terminal is restored then, and on a
/// panic.
pub(super) fn show(
    first: Reading,
    addresses: Vec<SocketAddr>,
    interval: Duration,
) -> io::Result<ExitCode> {
    let signals = signals()?;
    let readings = readings(addresses, interval)?;
    let mut terminal = ratatui::try_init()?;
    let ended = follow(&mut terminal, Picture::new(first), &readings, &signals);
    if is_hung_up_within(Duration::ZERO)? {
        // A terminal that is gone cannot be restored: dropped, it would complain to itself, and
        // panic.
        std::mem::forget(terminal);
        return Ok(hang_up());
    }
    ratatui::try_restore()?;
    ended
}

/// Receives the signals that ask a program to end. They are blocked in all threads, so that none
/// ends the program before the terminal is restored.
fn signals() -> io::Result<Receiver<Signal>> {
    let set = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]);
    set.thread_block()?;
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = set.wait()
                && sender.send(signal).is_err()
            {
                // The table has ended already.
            }
        })?;
    Ok(receiver)
}

/// Readings of the worker, one after each interval, from a thread of their own: keys are answered
/// while the worker is slow.
fn readings(
    addresses: Vec<SocketAddr>,
    interval: Duration,
) -> io::Result<Receiver<Result<Reading, String>>> {
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("readings".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(interval);
                if sender.send(read_worker(&addresses)).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    mut picture: Picture,
    readings: &Receiver<Result<Reading, String>>,
    signals: &Receiver<Signal>,
) -> io::Result<ExitCode> {
    loop {
        if let Ok(signal) = signals.try_recv() {
            // As a shell tells of an end by a signal.
            return Ok(ExitCode::from(
                u8::try_from(128 + signal as i32).unwrap_or(1),
            ));
        }
        match readings.try_recv() {
            Ok(reading) => picture.take(reading, Instant::now()),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(ExitCode::FAILURE),
        }
        terminal.draw(|frame| draw(frame, &picture, Instant::now()))?;
        if is_hung_up_within(KEY_WAIT)? {
            return Ok(hang_up());
        }
        // Never waits there: without a terminal it would not come back.
        if event::poll(Duration::ZERO)?
            && let Event::Key(key) = event::read()?
            && obey(key, &mut picture)
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Waits for this long, or until the terminal is gone; true in the latter case. A terminal that is
/// closed need not end a program that was started to ignore SIGHUP.
fn is_hung_up_within(step: Duration) -> io::Result<bool> {
    let stdout = rustix::stdio::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let step = Timespec::try_from(step).map_err(io::Error::other)?;
    match rustix::event::poll(&mut polled, Some(&step)) {
        Ok(_) | Err(Errno::INTR) => Ok(!polled[0].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

/// The exit status of a program that SIGHUP has ended.
fn hang_up() -> ExitCode {
    ExitCode::from(u8::try_from(128 + Signal::SIGHUP as i32).unwrap_or(1))
}

/// Obeys a key; returns whether it ends the table.
fn obey(key: KeyEvent, picture: &mut Picture) -> bool {
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('s') => picture.sort = picture.sort.next(),
        KeyCode::Char('p') => picture.paused = !picture.paused,
        _ => {}
    }
    false
}

/// Draws the picture, with a line of keys at the bottom.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture, now: Instant) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let room = height.saturating_sub(1);
    let mut lines = picture.lines(width, room, now);
    lines.truncate(room);
    lines.resize(room, (String::new(), Tone::Usual));
    lines.push(("q ends, s sorts, p pauses".to_owned(), Tone::Usual));
    let lines = lines
        .into_iter()
        .map(|(text, tone)| Line::styled(text, style(tone)));
    frame.render_widget(Text::from_iter(lines), area);
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Usual => Style::new(),
        Tone::Title => Style::new().add_modifier(Modifier::REVERSED),
        Tone::Slow => Style::new().fg(Color::Yellow),
        Tone::Alarm => Style::new().fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_sort_and_pause() {
        let mut picture = Picture::new(super::super::picture::tests::reading_of(1, None));
        let before = picture.sort;
        for (code, modifiers, ends) in [
            (KeyCode::Char('q'), KeyModifiers::NONE, true),
            (KeyCode::Esc, KeyModifiers::NONE, true),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, true),
            (KeyCode::Char('c'), KeyModifiers::NONE, false),
            (KeyCode::Char('s'), KeyModifiers::NONE, false),
            (KeyCode::Char('p'), KeyModifiers::NONE, false),
        ] {
            assert_eq!(
                obey(KeyEvent::new(code, modifiers), &mut picture),
                ends,
                "{code:?}"
            );
        }
        assert_eq!(picture.sort, before.next());
        assert!(picture.paused);
    }
}
