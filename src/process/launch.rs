//! The only place that starts, signals and reaps processes.
//!
//! A process is started in two steps: this program is executed once more, makes itself what a
//! handler may be (`step`), and executes the handler's command. So the start of a process needs
//! no code between fork and exec, and costs no copy of the worker's memory map.
//!
//! Each is the leader of a process group of its own, so that what it starts ends with it, and a
//! Ctrl-C in the worker's terminal does not reach it.

use crate::config::{Command, IsolationConfig};
use plan::{Plan, Report};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Rlimit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use std::{fmt, io};

mod diagnosis;
mod family;
mod oom;
mod plan;
mod process;
mod sandbox;
mod spawner;
mod step;

pub use diagnosis::shell_syntax;
pub use family::{end_orphans, reap_in_time, take_in_orphans};
pub use process::{Death, ExitWatch, Process, describe};
pub use sandbox::supported as sandbox_supported;
pub use step::launch_if_asked;

/// This program, whatever has become of its file since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Most that a start may take until the command is executed; files may lie far away.
const EXECUTION_TAKES: Duration = Duration::from_secs(60);

/// Most that the step reports.
const REPORT_BYTES: usize = 4096;

/// Starts processes of one command. Clones share what it knows.
#[derive(Debug, Clone)]
pub struct Launcher {
    order: Arc<Order>,
}

/// What is to be started.
#[derive(Debug)]
struct Order {
    command: Command,
    isolation: IsolationConfig,
    /// The soft limit of descriptors that the worker had before it raised its own.
    soft_files: Option<u64>,
    oom: Arc<oom::OomWatch>,
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
    /// Prepares to start processes. They get `descriptor_limit` back if it is given: the limit
    /// that the worker had before it raised its own.
    pub fn new(
        command: Command,
        isolation: IsolationConfig,
        descriptor_limit: Option<Rlimit>,
    ) -> io::Result<Launcher> {
        spawner::prepare()?;
        Ok(Launcher {
            order: Arc::new(Order {
                command,
                isolation,
                soft_files: descriptor_limit.and_then(|limit| limit.current),
                oom: Arc::new(oom::OomWatch::start()),
            }),
        })
    }

    /// Starts one process, and returns when the command was executed in it.
    pub async fn launch(&self) -> Result<Launched, LaunchError> {
        spawner::launch(Arc::clone(&self.order)).await
    }
}

/// Has the memory of a process and all below it measured, beside the runtime; `bytes` is set then.
pub fn measure_memory(pid: u32, bytes: &Arc<AtomicU64>) {
    spawner::measure(pid, bytes);
}

/// Starts a process, on the thread that does.
fn start(order: &Order) -> Result<Launched, LaunchError> {
    order.oom.look();
    let cannot = |error: &io::Error| {
        LaunchError::System(format!("the system cannot start a process now: {error}"))
    };
    let (report, status) = status_pipe().map_err(|error| cannot(&error.into()))?;
    let mut child = prepare(order, &status).spawn().map_err(|error| {
        // The words of the command are what may be too long.
        match error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) {
            true => diagnosis::explain(&order.command, &error),
            false => cannot(&error),
        }
    })?;
    // The other copy is the child's alone now, so that its end is seen.
    drop(status);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process::new(child, Arc::clone(&order.oom))
        .map_err(|error| LaunchError::System(format!("cannot watch the process: {error}")))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(LaunchError::System("a pipe is missing".to_owned()));
    };
    let (stdin, stdout, stderr) = (stdin.into(), stdout.into(), stderr.into());
    let mut launched = Launched {
        process,
        stdin,
        stdout,
        stderr,
    };
    let report = read_report(&report).map_err(|error| cannot(&error.into()))?;
    if let Err(error) = judge(report, &order.command) {
        // It has said its last word, so this is short.
        let _ = launched.process.reap();
        return Err(error);
    }
    Ok(launched)
}

/// Whether the process is the handler now. One that never was is no handler that has exited.
fn judge(report: Report, command: &Command) -> Result<(), LaunchError> {
    match report {
        Report::Executed => Ok(()),
        Report::NotExecuted(number) => {
            let error = io::Error::from_raw_os_error(number);
            Err(diagnosis::explain(command, &error))
        }
        Report::NotSetUp(why) => {
            let why = format!("a process cannot be set up: {why}");
            Err(LaunchError::System(why))
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

fn prepare(order: &Order, status: &OwnedFd) -> std::process::Command {
    let isolation = &order.isolation;
    let plan = Plan {
        status: status.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_pid(),
        soft_files: order.soft_files,
        files: isolation.files,
        memory_bytes: isolation.memory_bytes,
        cpu_seconds: isolation.cpu_seconds,
        sandbox: isolation.sandbox.clone(),
        program: order.command.program.clone(),
        arguments: order.command.arguments.clone(),
    };
    let mut prepared = std::process::Command::new(OWN_PROGRAM);
    prepared
        .arg0("faas-worker")
        .args(plan.to_words())
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
        let judged = |report| judge(report, &command);
        assert!(judged(Report::Executed).is_ok());
        for report in [Report::Died, Report::NotSetUp("no room".to_owned())] {
            let judged = judged(report);
            assert!(matches!(judged, Err(LaunchError::System(_))), "{judged:?}");
        }
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
}
