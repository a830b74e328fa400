//! Signals to the worker, and the reload or shutdown that each asks for.
//!
//! Handlers start with the default action of each signal here: execve(2) resets caught signals.

use faas_worker::Control;
use faas_worker::error::StartError;
use faas_worker::procfs::own_ignores;
use faas_worker::shutdown::Stage;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// SIGHUP and SIGXFSZ by their numbers.
const SIGHUP: i32 = 1;
const SIGXFSZ: i32 = 25;

/// Looks at the terminal before SIGHUP counts as a request to reload: the kernel and shells send
/// the signal before and after the terminal goes.
const TERMINAL_READS: usize = 5;

/// The time between two readings of the terminal.
const TERMINAL_READ_PAUSE: Duration = Duration::from_millis(20);

/// The signals that are listened for.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// `None` under nohup: a signal that was ignored at the start stays ignored.
    hang_up: Option<Signal>,
    /// SIGXFSZ, sent at a write beyond the greatest length of a file, the log's for example;
    /// caught, so that the write fails instead.
    too_long: Signal,
    user_1: Signal,
    user_2: Signal,
    had_terminal: bool,
    first_stop: FirstStop,
}

/// The signal that asked for the end first, by its number; 0: none did. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstStop(Arc<AtomicI32>);

impl FirstStop {
    fn note(&self, signal: i32) {
        // A later signal changes nothing.
        let _ = self
            .0
            .compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The exit status that tells of the signal, as shells tell of it.
    pub(crate) fn exit_status(&self) -> Option<u8> {
        let signal = self.0.load(Ordering::Relaxed);
        u8::try_from(128 + signal).ok().filter(|_| signal > 0)
    }
}

/// The request that a signal stands for.
enum Wish {
    /// End after the requests that have begun; at the second time, end now.
    Stop(i32),
    HungUp,
    FileTooLong,
    Nothing(&'static str),
}

impl Signals {
    /// Catches the signals for [`Signals::obey`] from now on, and unblocks signals that the parent
    /// had blocked. Must be called within a runtime.
    pub(crate) fn listen() -> Result<Signals, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|source| StartError::Runtime {
                what: "the handlers of signals",
                source,
            })
        };
        let hang_up = match own_ignores(rustix::process::Signal::HUP) {
            true => None,
            false => Some(listen(SignalKind::hangup())?),
        };
        let signals = Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hang_up,
            too_long: listen(SignalKind::from_raw(SIGXFSZ))?,
            user_1: listen(SignalKind::user_defined1())?,
            user_2: listen(SignalKind::user_defined2())?,
            had_terminal: terminal() == TerminalState::There,
            first_stop: FirstStop::default(),
        };
        // Only now: a pending signal would kill the worker without its handler.
        SigSet::empty()
            .thread_set_mask()
            .map_err(|errno| StartError::Runtime {
                what: "the mask of signals",
                source: io::Error::from_raw_os_error(errno as i32),
            })?;
        Ok(signals)
    }

    /// The signal that asks for the end first, from now on.
    pub(crate) fn first_stop(&self) -> FirstStop {
        self.first_stop.clone()
    }

    /// Passes the requests of signals on to the worker; never ends.
    pub(crate) async fn obey(mut self, control: Control) {
        let mut is_too_long = false;
        loop {
            match self.next().await {
                Wish::Stop(_) if control.shutdown.is_at_least(Stage::Draining) => {
                    control.shutdown.advance(Stage::Killing);
                }
                Wish::Stop(signal) => {
                    self.first_stop.note(signal);
                    control.shutdown.advance(Stage::Draining);
                }
                // SIGHUP comes more than once for one terminal, so it never means to end now.
                Wish::HungUp if self.had_terminal && is_gone().await => {
                    info!("the terminal that the worker was started on is gone");
                    self.first_stop.note(SIGHUP);
                    control.shutdown.advance(Stage::Draining);
                }
                Wish::HungUp => control.reload.notify_one(),
                Wish::FileTooLong if is_too_long => {}
                Wish::FileTooLong => {
                    is_too_long = true;
                    warn!("a file that is written to is as long as it may be (RLIMIT_FSIZE)");
                }
                Wish::Nothing(signal) => {
                    info!(
                        signal,
                        "this signal asks for nothing here: SIGHUP reloads, SIGTERM ends"
                    );
                }
            }
        }
    }

    // Cancel-safe: receiving a signal completes in one poll.
    async fn next(&mut self) -> Wish {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: see above.
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => Wish::Stop(SignalKind::interrupt().as_raw_value()),
            _ = self.quit.recv() => Wish::Stop(SignalKind::quit().as_raw_value()),
            _ = hang_up => Wish::HungUp,
            _ = self.too_long.recv() => Wish::FileTooLong,
            _ = self.user_1.recv() => Wish::Nothing("SIGUSR1"),
            _ = self.user_2.recv() => Wish::Nothing("SIGUSR2"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum TerminalState {
    There,
    Gone,
    /// No terminal, or its state is unknown.
    Unknown,
}

/// The terminal that this process is controlled by.
fn terminal() -> TerminalState {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match rustix::fs::open("/dev/tty", flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NXIO | Errno::IO) => return TerminalState::Gone,
        Err(_) => return TerminalState::Unknown,
    };
    let mut polled = [PollFd::new(&opened, PollFlags::OUT)];
    let at_once = Timespec::default();
    match rustix::event::poll(&mut polled, Some(&at_once)) {
        Ok(_) if polled[0].revents().contains(PollFlags::HUP) => TerminalState::Gone,
        _ => TerminalState::There,
    }
}

async fn is_gone() -> bool {
    for _ in 0..TERMINAL_READS {
        if terminal() == TerminalState::Gone {
            return true;
        }
        tokio::time::sleep(TERMINAL_READ_PAUSE).await;
    }
    false
}
