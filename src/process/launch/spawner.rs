//! Starts one process: this program once more as the step, with pipes, environment and plan.

use super::diagnosis::{self, LaunchError, start_error};
use super::directory::Directory;
use super::plan::{Plan, Report, SetUpFailure};
use super::search_path::{DEFAULT_PATH, has_path};
use crate::config::{Command, IsolationConfig};
use crate::process::launcher_thread;
use crate::process::reaping::{ExitWatch, OomWatch, Process};
use crate::service_manager;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe::{Receiver, Sender};
use tracing::info;

/// This program, whatever has become of its file since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Longest time until the command is executed; its files may lie on a slow disk or network.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes that the step reports.
const MAX_REPORT_BYTES: usize = 4096;

/// The command of a launcher, with its surroundings.
#[derive(Debug)]
pub(super) struct LaunchSpec {
    pub(super) command: Command,
    pub(super) isolation: IsolationConfig,
    pub(super) directory: Directory,
    /// The directory in which the last process started, links resolved.
    pub(super) last_start: Mutex<Option<PathBuf>>,
    /// The soft limit of descriptors that the worker had before it raised its own.
    pub(super) soft_files: Option<u64>,
    pub(super) oom: Arc<OomWatch>,
}

impl LaunchSpec {
    /// Logs where processes start, at the first start and whenever a link on the way was moved.
    fn tell_where(&self) {
        let Ok(now) = self.directory.path().canonicalize() else {
            return;
        };
        let mut last = self
            .last_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&now) {
            info!(directory = %now.display(), "processes start in this directory");
            *last = Some(now);
        }
    }
}

/// A process that was just started, and our ends of its pipes.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    process: Process,
    /// The write end of its stdin.
    stdin: OwnedFd,
    /// The read end of its stdout.
    stdout: OwnedFd,
    /// The read end of its stderr.
    stderr: OwnedFd,
}

/// A started process with its end and its pipes, as tasks wait for them.
#[derive(Debug)]
pub struct Watched {
    /// The process.
    pub process: Process,
    /// The end of the process.
    pub exit: ExitWatch,
    /// The write end of its stdin.
    pub stdin: Sender,
    /// The read end of its stdout.
    pub stdout: Receiver,
    /// The read end of its stderr.
    pub stderr: Receiver,
}

impl Launched {
    /// Has the runtime watch the end and the pipes; must be called within one.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch one of them.
    pub fn watched(self) -> Result<Watched, LaunchError> {
        let watched = || -> io::Result<Watched> {
            Ok(Watched {
                exit: self.process.watch_exit()?,
                stdin: Sender::from_owned_fd(self.stdin)?,
                stdout: Receiver::from_owned_fd(self.stdout)?,
                stderr: Receiver::from_owned_fd(self.stderr)?,
                process: self.process,
            })
        };
        watched().map_err(LaunchError::unwatched)
    }
}

/// Why one start failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: LaunchError,
    /// Whether the command's file is being written, which is over soon.
    pub(super) is_busy: bool,
}

impl From<LaunchError> for Refusal {
    fn from(error: LaunchError) -> Refusal {
        let is_busy = false;
        Refusal { error, is_busy }
    }
}

/// Starts one process, and returns when the command was executed in it.
pub(super) async fn launch(spec: Arc<LaunchSpec>) -> Result<Launched, Refusal> {
    // A process whose start is awaited no more is killed as it is dropped.
    launcher_thread::run(move || start(&spec))
        .await
        .unwrap_or_else(|error| Err(LaunchError::System(error.to_string()).into()))
}

/// Starts a process; runs on the launcher thread.
fn start(spec: &LaunchSpec) -> Result<Launched, Refusal> {
    spec.oom.note_earlier_kills();
    spec.tell_where();
    let (report, status) = status_pipe().map_err(|error| start_error(&error.into()))?;
    let mut child = prepare(spec, &status).spawn().map_err(|error| {
        // The words of the command may be too long.
        match error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) {
            true => diagnosis::explain(&spec.command, spec.directory.path(), &error),
            false => start_error(&error),
        }
    })?;
    // Only the child has the write end now, so that its end is seen.
    drop(status);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process =
        Process::new(child, Arc::clone(&spec.oom)).map_err(|error| start_error(&error))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(LaunchError::System("a pipe is missing".to_owned()).into());
    };
    let (stdin, stdout, stderr) = (stdin.into(), stdout.into(), stderr.into());
    let mut launched = Launched {
        process,
        stdin,
        stdout,
        stderr,
    };
    let report = read_report(&report).map_err(|error| start_error(&error.into()))?;
    let is_busy = report == Report::NotExecuted(Errno::TXTBSY.raw_os_error());
    if let Err(error) = judge(report, &spec.command, &spec.directory) {
        // The step ends after its report, so this is short.
        let _ = launched.process.reap();
        return Err(Refusal { error, is_busy });
    }
    Ok(launched)
}

/// Whether the process is the handler now. The end of a step before that is no exit of a handler.
fn judge(report: Report, command: &Command, directory: &Directory) -> Result<(), LaunchError> {
    match report {
        Report::Executed => Ok(()),
        Report::NotExecuted(number) => {
            let error = io::Error::from_raw_os_error(number);
            Err(diagnosis::explain(command, directory.path(), &error))
        }
        Report::NotEntered(number) => {
            let error = io::Error::from_raw_os_error(number);
            let path = directory.path().display();
            let why = format!("the directory to start in cannot be entered: \"{path}\": {error}");
            Err(LaunchError::Command(why.into()))
        }
        Report::NotSetUp(SetUpFailure { why, is_lasting }) => {
            let why = format!("a process cannot be set up: {why}");
            Err(match is_lasting {
                true => LaunchError::Command(why.into()),
                false => LaunchError::System(why),
            })
        }
        Report::Died => {
            let why = "a process ended before the command was executed";
            Err(LaunchError::System(why.to_owned()))
        }
    }
}

/// The pipe over which the step reports; the write end is inherited.
fn status_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (report, status) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Only this thread starts processes, so that no process but the next inherits the write end.
    rustix::io::fcntl_setfd(&status, FdFlags::empty())?;
    Ok((report, status))
}

fn prepare(spec: &LaunchSpec, status: &OwnedFd) -> std::process::Command {
    let isolation = &spec.isolation;
    let plan = Plan {
        report_to: status.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_pid(),
        directory: spec.directory.to_enter().map(ToOwned::to_owned),
        soft_files: spec.soft_files,
        files: isolation.files,
        memory_bytes: isolation.memory_bytes,
        cpu_seconds: isolation.cpu_seconds,
        sandbox: isolation.sandbox.clone(),
        program: spec.command.program.clone(),
        arguments: spec.command.arguments.clone(),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where processes are started"
    )]
    let mut prepared = std::process::Command::new(OWN_PROGRAM);
    prepared
        .arg0("faas-worker")
        .args(plan.to_words())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The worker's settings and secrets are not for handlers, nor is its word to the service
    // manager.
    for (name, _) in std::env::vars_os() {
        let is_service_managers = service_manager::VARIABLES.iter().any(|its| name == *its);
        if is_service_managers || name.as_encoded_bytes().starts_with(b"FAAS_") {
            prepared.env_remove(name);
        }
    }
    // Interpreters that a first line names, as in `#!/usr/bin/env python3`, are looked for as well.
    if !has_path() {
        prepared.env("PATH", DEFAULT_PATH);
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        prepared.env("PYTHONUNBUFFERED", "1");
    }
    if let Some(path) = spec.directory.pwd_value() {
        prepared.env("PWD", path);
    }
    // Lines are UTF-8, and many runtimes destroy characters beyond ASCII where no locale is set.
    if !has_locale(|name| std::env::var_os(name)) {
        prepared.env("LC_CTYPE", "C.UTF-8");
    }
    prepared
}

/// Whether a locale is chosen for characters; an empty variable counts as not set.
fn has_locale(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// Reads until the step's end of the pipe is closed: by the execution, or by its death.
fn read_report(report: &OwnedFd) -> rustix::io::Result<Report> {
    let end = Instant::now() + EXECUTION_TIMEOUT;
    let mut bytes = Vec::new();
    let mut block = [0; 256];
    while bytes.len() < MAX_REPORT_BYTES {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut polled = [PollFd::from_borrowed_fd(report.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        match rustix::io::read(report, &mut block) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&block[..length]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Report::read(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_not_executed_is_no_handler() {
        let command = Command {
            program: "/no/such/file".into(),
            arguments: Vec::new(),
        };
        let directory = Directory::find(Some("/no/such/folder".as_ref()));
        let judged = |report| judge(report, &command, &directory);
        assert!(judged(Report::Executed).is_ok());
        let failure = |is_lasting| {
            let why = "no room".to_owned();
            Report::NotSetUp(SetUpFailure { why, is_lasting })
        };
        for report in [Report::Died, failure(false)] {
            let judged = judged(report);
            assert!(matches!(judged, Err(LaunchError::System(_))), "{judged:?}");
        }
        let lasting = judged(failure(true));
        assert!(
            matches!(lasting, Err(LaunchError::Command(_))),
            "{lasting:?}"
        );
        let not_entered = judged(Report::NotEntered(Errno::NOENT.raw_os_error()));
        assert!(
            matches!(&not_entered, Err(LaunchError::Command(why)) if why.full().contains("/no/such/folder")),
            "{not_entered:?}"
        );
        let missing = judged(Report::NotExecuted(Errno::NOENT.raw_os_error()));
        assert!(
            matches!(missing, Err(LaunchError::Command(_))),
            "{missing:?}"
        );
        let no_room = judged(Report::NotExecuted(Errno::AGAIN.raw_os_error()));
        assert!(
            matches!(no_room, Err(LaunchError::System(_))),
            "{no_room:?}"
        );
    }

    #[test]
    fn an_empty_locale_is_none() {
        let with = |set: &'static [(&str, &str)]| {
            has_locale(|name| {
                let found = set.iter().find(|(known, _)| *known == name)?;
                Some(found.1.into())
            })
        };
        assert!(!with(&[]));
        assert!(!with(&[("LANG", ""), ("LC_ALL", "")]));
        assert!(!with(&[("LC_TIME", "de_DE.UTF-8")]));
        assert!(with(&[("LANG", "C")]));
        assert!(with(&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8")]));
    }
}
