//! The launcher step: this program in a new process, which sets limits, sandbox and directory, and
//! then executes the handler's command in its place.
//!
//! Runs before anything else of the program, on its one thread: no runtime, no log, no settings.
//! It reports to the worker over a pipe that no handler ever sees.

use super::plan::{Plan, Report, STEP_WORD, SetUpFailure};
use super::platform::is_lasting;
use super::sandbox;
use super::search_path::search_path;
use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Added to the worker's own out-of-memory score (1000 at most): the kernel judges a handler's
/// process as if it held nine tenths of the memory on top of its own. So it kills a handler before
/// the worker, also in a small group whose memory is nearly all the worker's.
const OOM_SCORE_MORE: i32 = 900;

/// Does the launcher step if the command line asks for it, and returns only if that failed.
#[expect(clippy::print_stderr, reason = "the launcher step has no log")]
pub fn launch_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != STEP_WORD {
        return None;
    }
    let Some(plan) = Plan::from_words(words) else {
        eprintln!("{STEP_WORD}: used by the worker only; a command is given after --");
        return Some(ExitCode::from(2));
    };
    // Opened by its path, because only std's own three descriptors can be had by number without
    // unsafe code. Without it no report is possible, and the worker takes silence for a failure.
    let path = format!("/proc/self/fd/{}", plan.report_to);
    if let Ok(status) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        become_handler(&plan, &status);
    }
    Some(ExitCode::from(127))
}

/// Returns only if the command could not be executed, after the report of why.
fn become_handler(plan: &Plan, status: &OwnedFd) {
    let entered = plan
        .directory
        .as_deref()
        .map_or(Ok(()), rustix::process::chdir);
    let report = match entered.map(|()| set_up(plan)) {
        Err(errno) => Report::no_folder(errno.raw_os_error()),
        Ok(Err(failure)) => Report::failure(&failure),
        Ok(Ok(())) => {
            let _ = rustix::io::write(status, Report::READY);
            Report::errno(execute(&plan.program, &plan.arguments) as i32)
        }
    };
    // One write of a few bytes: a pipe takes it whole. Without a reader the worker is gone.
    let _ = rustix::io::write(status, &report);
}

fn set_up(plan: &Plan) -> Result<(), SetUpFailure> {
    // The worker's own descriptors close on exec already; one that it inherited may not.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let dies_with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    dies_with_parent.map_err(failed("the signal at the worker's death"))?;
    // No signal tells of a death before that call.
    if rustix::process::getppid().map(|pid| pid.as_raw_pid()) != Some(plan.parent) {
        return Err(SetUpFailure {
            why: "the worker has ended".to_owned(),
            is_lasting: false,
        });
    }
    // A group of its own, which is signalled as a whole; and no terminal, so that no terminal can
    // stop it by SIGTTIN or SIGTTOU, nor interrupt it.
    rustix::process::setsid().map_err(failed("a session of its own"))?;
    raise_oom_score();
    limit(Resource::Core, 0).map_err(failed("the limit of core files"))?;
    forgo_reading_others();
    // From now on executing a file gives no rights that this process has not.
    rustix::thread::set_no_new_privs(true).map_err(failed("no new privileges"))?;
    if let Some(paths) = &plan.sandbox {
        let programs = candidates(&plan.program, &search_path());
        sandbox::enter(paths, &programs).map_err(|error| SetUpFailure {
            why: format!("the sandbox: {error}"),
            is_lasting: false,
        })?;
    }
    set_limits(plan).map_err(failed("the limits"))?;
    // Rust's start-up code ignores SIGPIPE, and an ignored signal stays ignored after an execution.
    sigpipe::reset();
    Ok(())
}

fn failed(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> SetUpFailure {
    move |errno| SetUpFailure {
        why: format!("{what}: {errno}"),
        is_lasting: is_lasting(errno),
    }
}

fn raise_oom_score() {
    let file = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(file).ok();
    let own = own.and_then(|text| text.trim().parse::<i32>().ok());
    let raised = own.unwrap_or(0).saturating_add(OOM_SCORE_MORE).min(1000);
    // Where the score cannot be raised, the kernel's own choice stands.
    drop(std::fs::write(file, raised.to_string()));
}

/// The rights by which a superuser's processes may read the memory, the environment and the
/// descriptors of any other: with them, those of the worker, settings and secrets included. The
/// last two count as the right to measure a process, and that reads its environment (seen with
/// Linux 6.18).
const RIGHTS_TO_READ_OTHERS: [CapabilitySet; 3] = [
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::PERFMON,
    CapabilitySet::SYS_ADMIN,
];

/// Gives up those rights. Users other than the superuser have none to begin with, and a
/// container's superuser mostly none of these.
fn forgo_reading_others() {
    let Ok(mut sets) = rustix::thread::capabilities(None) else {
        return;
    };
    for right in RIGHTS_TO_READ_OTHERS {
        // Dropped from the bounding set, so that no executed file brings it back. Fails for a
        // process that may not change its rights, and where this kernel does not know the right.
        let _ = rustix::thread::remove_capability_from_bounding_set(right);
        sets.effective.remove(right);
        sets.permitted.remove(right);
        sets.inheritable.remove(right);
    }
    let _ = rustix::thread::set_capabilities(None, sets);
}

fn set_limits(plan: &Plan) -> rustix::io::Result<()> {
    if let Some(soft) = plan.soft_files {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(soft);
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    if let Some(files) = plan.files {
        limit(Resource::Nofile, files)?;
    }
    if let Some(seconds) = plan.cpu_seconds {
        // The hard limit a second later, so that the process ends by SIGXCPU, which names the
        // cause, and not by SIGKILL.
        limit(Resource::Cpu, seconds.saturating_add(1))?;
        let maximum = getrlimit(Resource::Cpu).maximum;
        let current = Some(maximum.map_or(seconds, |maximum| maximum.min(seconds)));
        setrlimit(Resource::Cpu, Rlimit { current, maximum })?;
    }
    if let Some(bytes) = plan.memory_bytes {
        limit(Resource::Data, bytes)?;
    }
    Ok(())
}

/// Sets the soft and the hard limit, and raises neither.
fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let before = getrlimit(resource);
    let at_most = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let limits = Rlimit {
        current: at_most(before.current),
        maximum: at_most(before.maximum),
    };
    setrlimit(resource, limits)
}

/// Executes the command; returns only if that failed, with the reason.
fn execute(program: &OsStr, arguments: &[OsString]) -> Errno {
    let words = std::iter::once(program).chain(arguments.iter().map(OsString::as_os_str));
    let words: Result<Vec<CString>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    // Words come from a command line, where none can hold a zero byte.
    let Ok(words) = words else {
        return Errno::EINVAL;
    };
    let mut worst = Errno::ENOENT;
    for file in candidates(program, &search_path()) {
        let Ok(file) = CString::new(file.into_os_string().into_vec()) else {
            continue;
        };
        let Err(errno) = nix::unistd::execv(&file, &words);
        // As execvp(3): the search goes on past files that are missing or may not be executed, and
        // the latter is the better reason.
        match errno {
            Errno::EACCES => worst = errno,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ESTALE | Errno::ETIMEDOUT => {}
            other => return other,
        }
    }
    worst
}

/// The files that a command's first word may mean, in the order in which they are tried.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    std::env::split_paths(path)
        .map(|folder| match folder.as_os_str().is_empty() {
            // An empty entry is the working directory.
            true => Path::new(".").join(program),
            false => folder.join(program),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_looked_up_as_the_system_does() {
        let table: [(&str, &str, &[&str]); 5] = [
            ("sh", "/bin:/usr/bin", &["/bin/sh", "/usr/bin/sh"]),
            ("sh", "/bin::b", &["/bin/sh", "./sh", "b/sh"]),
            ("./sh", "/bin", &["./sh"]),
            ("a/b", "", &["a/b"]),
            ("", "/bin", &[]),
        ];
        for (program, path, files) in table {
            let found = candidates(OsStr::new(program), OsStr::new(path));
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            assert_eq!(found, files, "{program} in {path}");
        }
    }

    #[test]
    fn a_failed_execution_says_why() {
        let reason = |program: &str| execute(OsStr::new(program), &[]);
        assert_eq!(reason("/no/such/file"), Errno::ENOENT);
        assert_eq!(reason("no-such-command-anywhere"), Errno::ENOENT);
        assert_eq!(reason(""), Errno::ENOENT);
        assert_eq!(reason("/etc/passwd"), Errno::EACCES);
        assert_eq!(reason("/etc/passwd/x"), Errno::ENOENT);
        assert_eq!(reason("a\0b"), Errno::EINVAL);
    }
}
