//! The sandbox: limits the files that a process may read and write, beside their permissions.
//!
//! Kept by the kernel (Landlock), for the process and all that it starts. Needs no superuser.

use crate::config::SandboxPaths;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::path::{Path, PathBuf};

/// Oldest version of Landlock that keeps the sandbox's promise: before Linux 6.2 the kernel cannot
/// keep a process from truncating files that it may not write.
const NEEDED: ABI = ABI::V3;

/// Newest version of Landlock that is used where the kernel has it: device controls (Linux 6.10),
/// and signals to processes outside (Linux 6.12).
const WANTED: ABI = ABI::V6;

/// Paths that programs need in order to run at all: programs, libraries, interpreters,
/// certificates, name service, facts about the system.
const SYSTEM: [&str; 12] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr",
    "/opt",
    "/nix/store",
    "/etc",
    "/proc",
    "/sys",
];

/// Devices that store nothing.
const HARMLESS: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// The version of the kernel's sandbox, or why it has none.
pub fn supported() -> Result<String, String> {
    let known = |abi: ABI| {
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
        if abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::Signal)?;
        }
        ruleset.create().map(drop)
    };
    // Each version with the feature that is used here.
    let levels = [
        (ABI::V6, "6 or later: files, device controls and signals"),
        (ABI::V5, "5: files and device controls"),
        (ABI::V3, "3 or 4: files"),
    ];
    for (abi, meaning) in levels {
        if known(abi).is_ok() {
            return Ok(meaning.to_owned());
        }
    }
    match known(ABI::V1) {
        Ok(()) => Err("the kernel's Landlock is older than ABI 3 (Linux 6.2)".to_owned()),
        Err(_) => Err("the kernel has no Landlock, or has it turned off".to_owned()),
    }
}

/// Restricts this process, and all that it executes and starts, to `paths`, `programs` and the
/// paths that every program needs. Fails rather than restrict less than [`NEEDED`].
pub(super) fn enter(paths: &SandboxPaths, programs: &[PathBuf]) -> Result<(), RulesetError> {
    let read = AccessFs::from_read(NEEDED);
    let all = AccessFs::from_all(WANTED);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::Signal)?
        .create()?;
    for path in SYSTEM.map(Path::new) {
        rules = allow(rules, path, read)?;
    }
    for path in HARMLESS.map(Path::new) {
        rules = allow(rules, path, AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for path in programs.iter().chain(&paths.read) {
        rules = allow(rules, path, read)?;
    }
    for path in &paths.write {
        rules = allow(rules, path, all)?;
    }
    rules.restrict_self().map(drop)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // A missing file cannot be allowed, and need not be: the paths of the settings existed when the
    // worker started, and may be gone by now.
    let Ok(file) = PathFd::new(path) else {
        return Ok(rules);
    };
    let access = match path.is_dir() {
        true => access,
        false => access & AccessFs::from_file(WANTED),
    };
    rules.add_rule(PathBeneath::new(file, access))
}
