//! The only place that starts, signals and reaps processes.
//!
//! A process is started in two steps: this program is executed once more, makes itself what a
//! handler may be (`step`), and executes the handler's command. So the start of a process needs
//! no code between fork and exec, and costs no copy of the worker's memory map.
//!
//! Each is the leader of a session and process group of its own, so that what it starts ends with
//! it, and the worker's terminal can neither interrupt nor stop it.

use crate::config::{Command, IsolationConfig};
use plan::{Plan, Report, SetUpFailure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Rlimit;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};
use tracing::info;

mod diagnosis;
mod directory;
mod family;
mod oom;
mod plan;
mod platform;
mod process;
mod sandbox;
mod spawner;
mod step;

pub use diagnosis::shell_syntax;
pub use directory::Directory;
pub use family::{end_orphans, reap_in_time, take_in_orphans};
pub use platform::check_platform;
pub use process::{Death, ExitWatch, Process, describe};
pub use sandbox::supported as sandbox_supported;
pub use step::launch_if_asked;

/// This program, whatever has become of its file since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Most that a start may take until the command is executed; files may lie far away.
const EXECUTION_TAKES: Duration = Duration::from_secs(60);

/// How long the file of a command that is being written is waited for, and how often it is tried.
const BUSY_FILE_TAKES: Duration = Duration::from_secs(2);
const BUSY_FILE_IS_TRIED_EVERY: Duration = Duration::from_millis(25);

/// Most that the step reports.
const REPORT_BYTES: usize = 4096;

/// Starts processes of one command. Clones share what it knows.
#[derive(Debug, Clone)]
pub struct Launcher {
    order: Arc<LaunchSpec>,
}

/// What is to be started.
#[derive(Debug)]
struct LaunchSpec {
    command: Command,
    isolation: IsolationConfig,
    directory: Directory,
    /// Where the last process started, links resolved.
    last_start: Mutex<Option<PathBuf>>,
    /// The soft limit of descriptors that the worker had before it raised its own.
    soft_files: Option<u64>,
    oom: Arc<oom::OomWatch>,
}

/// Why a process could not be started.
#[derive(Debug, Clone)]
pub enum LaunchError {
    /// The command cannot be executed, and will not be until somebody mends it or the system.
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

/// Why one start came to nothing.
#[derive(Debug)]
struct Refusal {
    error: LaunchError,
    /// Whether the command's file is being written, which is over soon.
    is_busy: bool,
}

impl From<LaunchError> for Refusal {
    fn from(error: LaunchError) -> Refusal {
        let is_busy = false;
        Refusal { error, is_busy }
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
    /// Prepares to start processes. They get `descriptor_limit` back if it is given: the limit
    /// that the worker had before it raised its own.
    pub fn new(
        command: Command,
        mut isolation: IsolationConfig,
        directory: Directory,
        descriptor_limit: Option<Rlimit>,
    ) -> io::Result<Launcher> {
        spawner::prepare()?;
        if let Some(paths) = &mut isolation.sandbox {
            for path in paths.read.iter_mut().chain(&mut paths.write) {
                *path = directory.absolute(path);
            }
        }
        Ok(Launcher {
            order: Arc::new(LaunchSpec {
                command,
                isolation,
                directory,
                last_start: Mutex::new(None),
                soft_files: descriptor_limit.and_then(|limit| limit.current),
                oom: Arc::new(oom::OomWatch::start()),
            }),
        })
    }

    /// Most private memory that a process may write to, if that is limited.
    pub fn memory_limit(&self) -> Option<u64> {
        self.order.isolation.memory_bytes
    }

    /// Starts one process, and returns when the command was executed in it. A file that is being
    /// written is waited for, for a short while.
    pub async fn launch(&self) -> Result<Launched, LaunchError> {
        let begun = Instant::now();
        loop {
            match spawner::launch(Arc::clone(&self.order)).await {
                Ok(launched) => return Ok(launched),
                Err(refusal) if refusal.is_busy && begun.elapsed() < BUSY_FILE_TAKES => {
                    tokio::time::sleep(BUSY_FILE_IS_TRIED_EVERY).await;
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
    }
}

/// Has the memory of a process and all below it measured, beside the runtime; `bytes` is set then.
pub fn measure_memory(pid: u32, bytes: &Arc<AtomicU64>) {
    spawner::measure(pid, bytes);
}

impl LaunchSpec {
    /// Says where processes start, at the first and whenever a link on the way was moved.
    fn tell_where(&self) {
        let Ok(now) = self.directory.start().canonicalize() else {
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

/// Why the system would not start a process.
fn cannot(error: &io::Error) -> LaunchError {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    if errno.is_some_and(platform::is_lasting) {
        let why = format!("the system does not let the worker start a process: {error}");
        return LaunchError::Command(why);
    }
    LaunchError::System(format!("the system cannot start a process now: {error}"))
}

/// Starts a process, on the thread that does.
fn start(order: &LaunchSpec) -> Result<Launched, Refusal> {
    order.oom.look();
    order.tell_where();
    let (report, status) = status_pipe().map_err(|error| cannot(&error.into()))?;
    let mut child = prepare(order, &status).spawn().map_err(|error| {
        // The words of the command are what may be too long.
        match error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) {
            true => diagnosis::explain(&order.command, order.directory.start(), &error),
            false => cannot(&error),
        }
    })?;
    // The other copy is the child's alone now, so that its end is seen.
    drop(status);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process::new(child, Arc::clone(&order.oom)).map_err(|error| cannot(&error))?;
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
    let report = read_report(&report).map_err(|error| cannot(&error.into()))?;
    let is_busy = report == Report::NotExecuted(Errno::TXTBSY.raw_os_error());
    if let Err(error) = judge(report, &order.command, &order.directory) {
        // It has said its last word, so this is short.
        let _ = launched.process.reap();
        return Err(Refusal { error, is_busy });
    }
    Ok(launched)
}

/// Whether the process is the handler now. One that never was is no handler that has exited.
fn judge(report: Report, command: &Command, directory: &Directory) -> Result<(), LaunchError> {
    match report {
        Report::Executed => Ok(()),
        Report::NotExecuted(number) => {
            let error = io::Error::from_raw_os_error(number);
            Err(diagnosis::explain(command, directory.start(), &error))
        }
        Report::NotEntered(number) => {
            let error = io::Error::from_raw_os_error(number);
            let path = directory.start().display();
            let why = format!("the directory to start in cannot be entered: \"{path}\": {error}");
            Err(LaunchError::Command(why))
        }
        Report::NotSetUp(SetUpFailure { why, is_lasting }) => {
            let why = format!("a process cannot be set up: {why}");
            Err(match is_lasting {
                true => LaunchError::Command(why),
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
    // Only this thread starts processes, so no other than the next one gets it.
    rustix::io::fcntl_setfd(&status, FdFlags::empty())?;
    Ok((report, status))
}

fn prepare(order: &LaunchSpec, status: &OwnedFd) -> std::process::Command {
    let isolation = &order.isolation;
    let plan = Plan {
        status: status.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_pid(),
        directory: order.directory.to_enter().map(ToOwned::to_owned),
        soft_files: order.soft_files,
        files: isolation.files,
        memory_bytes: isolation.memory_bytes,
        cpu_seconds: isolation.cpu_seconds,
        sandbox: isolation.sandbox.clone(),
        program: order.command.program.clone(),
        arguments: order.command.arguments.clone(),
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
    // The worker's settings and secrets are none of the handler's business.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"FAAS_") {
            prepared.env_remove(name);
        }
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        prepared.env("PYTHONUNBUFFERED", "1");
    }
    if let Some(path) = order.directory.variable() {
        prepared.env("PWD", path);
    }
    // Lines are UTF-8, and many runtimes destroy what is not ASCII where no locale is set.
    if !has_locale(|name| std::env::var_os(name)) {
        prepared.env("LC_CTYPE", "C.UTF-8");
    }
    prepared
}

/// Whether a locale is chosen for characters; an empty variable is one that is not set.
fn has_locale(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// Reads until the step's end of the pipe is closed: by the execution, or by its death.
fn read_report(report: &OwnedFd) -> rustix::io::Result<Report> {
    let end = Instant::now() + EXECUTION_TAKES;
    let mut bytes = Vec::new();
    let mut block = [0; 256];
    while bytes.len() < REPORT_BYTES {
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
            matches!(&not_entered, Err(LaunchError::Command(why)) if why.contains("/no/such/folder")),
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
    fn a_refusal_that_will_be_repeated_is_told_from_a_lack_of_room() {
        for (errno, is_for_good) in [
            (Errno::NOSYS, true),
            (Errno::PERM, true),
            (Errno::NOENT, true),
            (Errno::AGAIN, false),
            (Errno::NOMEM, false),
            (Errno::MFILE, false),
        ] {
            let error = cannot(&io::Error::from_raw_os_error(errno.raw_os_error()));
            let told = matches!(error, LaunchError::Command(_));
            assert_eq!(told, is_for_good, "{error}");
        }
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
