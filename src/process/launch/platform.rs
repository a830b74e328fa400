//! Checks at the start for the system calls and files without which no process can be started.

use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, parent_process_death_signal, pidfd_open};
use std::path::Path;

/// Fails if this system lacks what every start of a process needs; says what, and where it is
/// there.
pub fn check_platform() -> Result<(), String> {
    let own = std::fs::read_link("/proc/self");
    check_proc(own.as_deref().ok(), getpid().as_raw_pid())?;
    std::fs::metadata("/proc/self/exe")
        .map_err(|error| format!("the program's own file, /proc/self/exe: {error}"))?;
    // The end of a process is seen by it, and a signal never sent to another.
    refused(
        "pidfd_open",
        "Linux 5.3; Docker 20.10 is the first whose seccomp profile allows it",
        pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
    )?;
    // Processes end with the worker, and get no rights by what they execute.
    refused(
        "prctl",
        "every Linux; a seccomp profile must allow it",
        parent_process_death_signal().map(drop),
    )
}

/// `own` is what `/proc/self` means: the number of this process where `/proc` is its own.
fn check_proc(own: Option<&Path>, pid: i32) -> Result<(), String> {
    let mount = "in a container or chroot: mount -t proc proc /proc";
    let Some(own) = own else {
        return Err(format!("/proc is not mounted ({mount})"));
    };
    if own == Path::new(&pid.to_string()) {
        return Ok(());
    }
    Err(format!(
        "/proc is that of another process namespace, where this process is {} instead of {pid} \
         ({mount}, or unshare --mount-proc)",
        own.display()
    ))
}

/// A lack that passes, such as that of descriptors, is no lack of the platform.
fn refused(call: &str, there: &str, outcome: rustix::io::Result<()>) -> Result<(), String> {
    match outcome {
        Err(errno) if is_lasting(errno) => Err(format!(
            "the system call {call} is not there or not allowed: {errno} (there from: {there})"
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// True for errors that the system will repeat for as long as the worker runs.
pub(super) fn is_lasting(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::NOENT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_call_is_named_with_systems_that_have_it() {
        for errno in [Errno::NOSYS, Errno::PERM] {
            let why = refused("pidfd_open", "Linux 5.3", Err(errno)).unwrap_err();
            assert!(
                why.contains("pidfd_open") && why.contains("Linux 5.3"),
                "{why}"
            );
        }
        assert_eq!(refused("pidfd_open", "", Err(Errno::MFILE)), Ok(()));
        assert_eq!(refused("pidfd_open", "", Ok(())), Ok(()));
    }

    #[test]
    fn proc_must_be_that_of_the_own_namespace() {
        assert_eq!(check_proc(Some("7".as_ref()), 7), Ok(()));
        let other = check_proc(Some("4711".as_ref()), 7).unwrap_err();
        assert!(other.contains("another process namespace"), "{other}");
        let none = check_proc(None, 7).unwrap_err();
        assert!(none.contains("not mounted"), "{none}");
        assert_eq!(check_platform(), Ok(()));
    }
}
