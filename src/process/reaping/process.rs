//! One running process: its exit watch, its signals, its reaping.
//!
//! Never reads or writes the pipes of the process, and decides nothing: the slot does.

use super::family::family;
use super::oom::OomWatch;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// A process that has closed a pipe has this long to exit by itself, so that its exit status can be
/// told.
pub(crate) const EXIT_AFTER_CLOSE_TIME: Duration = Duration::from_millis(20);

/// A running process, leader of its group.
///
/// Dropping it before [`Process::reap`] kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    state: ProcessState,
    oom: Arc<OomWatch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessState {
    Running,
    /// The worker has sent SIGKILL.
    Killed,
    Reaped,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    status: ExitStatus,
    cause: EndCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndCause {
    /// The cause is in the status.
    Status,
    /// The kernel's out-of-memory killer.
    OutOfMemory,
}

impl Process {
    /// Takes over a process that was just started. Must be called on the launcher thread.
    pub(in crate::process) fn new(mut child: Child, oom: Arc<OomWatch>) -> io::Result<Process> {
        let found = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = found
            .ok_or_else(|| io::Error::other("no process id"))
            .and_then(|pid| Ok((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty())?)));
        let (pid, pidfd) = match pidfd {
            Ok(pidfd) => pidfd,
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                return Err(error);
            }
        };
        family().add_to_slot(pid);
        Ok(Process {
            child,
            pid,
            pidfd,
            state: ProcessState::Running,
            oom,
        })
    }

    /// The process id; stays taken until [`Process::reap`].
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Something that becomes ready when the process has ended. Must be called within a runtime.
    pub fn watch_exit(&self) -> io::Result<ExitWatch> {
        // Used for its readiness only: a pidfd can be waited for like a pipe, and not be read.
        Ok(ExitWatch(Receiver::from_owned_fd_unchecked(
            self.pidfd.try_clone()?,
        )?))
    }

    /// Sends a signal to the process and all of its group.
    pub fn signal_group(&mut self, signal: Signal) {
        match self.state {
            ProcessState::Reaped => return,
            ProcessState::Running if signal == Signal::KILL => self.state = ProcessState::Killed,
            ProcessState::Running | ProcessState::Killed => {}
        }
        self.send(signal);
    }

    fn send(&self, signal: Signal) {
        // An error means that the group is empty.
        let _ = rustix::process::kill_process_group(self.pid, signal);
        // The process may have left its group, but keeps its number.
        if signal == Signal::KILL {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Kills what is left of the group, then reaps the process, which must have ended: the group's
    /// number may be given to other processes as soon as its leader is reaped.
    pub fn reap(&mut self) -> io::Result<Death> {
        if self.state != ProcessState::Reaped {
            self.send(Signal::KILL);
        }
        let was_killed_by_us = self.state == ProcessState::Killed;
        self.state = ProcessState::Reaped;
        let status = self.child.wait();
        family().remove_from_slot(self.pid);
        let status = status?;
        let is_unexplained = status.signal() == Some(Signal::KILL.as_raw()) && !was_killed_by_us;
        let cause = match is_unexplained && self.oom.explains_a_kill() {
            true => EndCause::OutOfMemory,
            false => EndCause::Status,
        };
        Ok(Death { status, cause })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.state != ProcessState::Reaped {
            self.send(Signal::KILL);
            // Not waited for: this may be the runtime's thread, and the process may take long to
            // die. A process that is not dead yet is reaped as an orphan.
            let _ = self.child.try_wait();
            family().remove_from_slot(self.pid);
        }
    }
}

impl Death {
    /// The status that the process exited with, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether the kernel's out-of-memory killer ended it.
    pub fn is_out_of_memory(&self) -> bool {
        self.cause == EndCause::OutOfMemory
    }
}

/// Becomes ready when a process has ended.
#[derive(Debug)]
pub struct ExitWatch(Receiver);

impl ExitWatch {
    /// Waits for the end of the process.
    // Cancel-safe: a pidfd stays readable once its process has ended.
    pub async fn ended(&self) {
        if self.0.readable().await.is_err() {
            // Happens only while the runtime shuts down, when no task runs any more.
            std::future::pending::<()>().await;
        }
    }
}

/// How a process ended, in words: `exit status: 3`, `signal: 9 (SIGKILL)`.
pub fn describe(death: &io::Result<Death>) -> String {
    match death {
        Ok(Death {
            status,
            cause: EndCause::Status,
        }) => status.to_string(),
        Ok(Death {
            status,
            cause: EndCause::OutOfMemory,
        }) => format!("killed, out of memory ({status})"),
        Err(error) => format!("its status is unknown: {error}"),
    }
}
