//! The only place that starts, signals and reaps processes.
//!
//! Handlers are started from one thread that never ends: no stall of a start reaches the runtime.
//! Each is the leader of a process group of its own, so that what it starts ends with it, and a
//! Ctrl-C in the worker's terminal does not reach it.

use crate::config::Command;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::{fmt, io, thread};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

mod diagnosis;

pub use diagnosis::shell_syntax;

/// Starts processes of one command.
#[derive(Debug, Clone)]
pub struct Launcher {
    requests: mpsc::Sender<oneshot::Sender<Result<Launched, LaunchError>>>,
}

/// Why a process could not be started.
#[derive(Debug, Clone)]
pub enum LaunchError {
    /// The command cannot be executed, and will not be until somebody mends it.
    Command(String),
    /// The system has no room for a process now.
    System(String),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Command(why) | LaunchError::System(why) => f.write_str(why),
        }
    }
}

/// A process that was just started, and our ends of its pipes.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub process: Process,
    /// The write end of its stdin.
    pub stdin: OwnedFd,
    /// The read end of its stdout.
    pub stdout: OwnedFd,
    /// The read end of its stderr.
    pub stderr: OwnedFd,
}

impl Launcher {
    /// Starts the thread that starts processes. They get `descriptor_limit` back if it is given:
    /// the soft limit that the worker had before it raised its own.
    pub fn new(command: Command, descriptor_limit: Option<Rlimit>) -> io::Result<Launcher> {
        // All descriptors of ours close on exec already; some that we were given may not.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let (requests, received) = mpsc::channel::<oneshot::Sender<_>>();
        thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                for reply in received {
                    if oneshot::Sender::is_closed(&reply) {
                        continue;
                    }
                    // A start that nobody waits for any more ends with the drop of what it gave.
                    drop(reply.send(launch(&command, descriptor_limit)));
                }
            })?;
        Ok(Launcher { requests })
    }

    /// Starts one process.
    pub async fn launch(&self) -> Result<Launched, LaunchError> {
        let (reply, launched) = oneshot::channel();
        let gone = || LaunchError::System("the launcher thread has ended".to_owned());
        self.requests.send(reply).map_err(|_| gone())?;
        launched.await.map_err(|_| gone())?
    }
}

fn launch(command: &Command, limit: Option<Rlimit>) -> Result<Launched, LaunchError> {
    let mut child = prepare(command)
        .spawn()
        .map_err(|error| diagnosis::explain(command, &error))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process::new(child, limit);
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(LaunchError::System("a pipe is missing".to_owned()));
    };
    let launched = process.map(|process| {
        let (stdin, stdout, stderr) = (stdin.into(), stdout.into(), stderr.into());
        Launched {
            process,
            stdin,
            stdout,
            stderr,
        }
    });
    launched.map_err(|error| LaunchError::System(format!("cannot watch the process: {error}")))
}

fn prepare(command: &Command) -> std::process::Command {
    let mut prepared = std::process::Command::new(&command.program);
    prepared
        .args(&command.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // The worker's settings and secrets are none of the handler's business.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"FAAS_") {
            prepared.env_remove(name);
        }
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        prepared.env("PYTHONUNBUFFERED", "1");
    }
    prepared
}

/// A running process, leader of its group.
///
/// Dropping it before [`Process::reap`] kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    is_reaped: bool,
}

impl Process {
    fn new(mut child: Child, limit: Option<Rlimit>) -> io::Result<Process> {
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
        // From outside, because std has no safe way to do it between fork and exec. Failing means
        // that the process is gone already, or that it may not be limited: neither is fatal.
        let no_core = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = rustix::process::prlimit(Some(pid), Resource::Core, no_core);
        if let Some(limit) = limit {
            let _ = rustix::process::prlimit(Some(pid), Resource::Nofile, limit);
        }
        Ok(Process {
            child,
            pid,
            pidfd,
            is_reaped: false,
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
    pub fn signal_group(&self, signal: Signal) {
        if self.is_reaped {
            return;
        }
        // An error means that nobody is left in it.
        let _ = rustix::process::kill_process_group(self.pid, signal);
        // A process may have left its group; nothing escapes this one.
        if signal == Signal::KILL {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Kills what is left of the group, then reaps the process, which must have ended: the group's
    /// number may be given to others as soon as its leader is reaped.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal_group(Signal::KILL);
        self.is_reaped = true;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal_group(Signal::KILL);
            // Not waited for: this may be the runtime's thread, and the process unkillable.
            let _ = self.child.try_wait();
        }
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
            // Only when the runtime shuts down, and then nothing is awaited any more.
            std::future::pending::<()>().await;
        }
    }
}

/// How a process ended, in words: `exit status: 3`, `signal: 9 (SIGKILL)`.
pub fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its status is unknown: {error}"),
    }
}
