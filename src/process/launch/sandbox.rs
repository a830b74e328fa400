//! The sandbox: which files a process may read and write, whatever their permissions say.
//!
//! Kept by the kernel (Landlock), for the process and all that it starts. Needs no superuser.

use crate::config::SandboxPaths;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::path::{Path, PathBuf};

/// The least that a kernel must know for the sandbox to be what it says: before Linux 6.2 it
/// cannot keep a process from truncating files that it may not write.
const NEEDED: ABI = ABI::V3;

/// What is restricted where the kernel knows of it: device controls (Linux 6.10), and signals to
/// processes outside (Linux 6.12).
const WANTED: ABI = ABI::V6;

/// What programs need in order to run at all: themselves, libraries, interpreters, certificates,
/// name service, what the system says of itself.
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

/// Devices that hold nothing.
const HARMLESS: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// Whether this kernel can keep a sandbox; then in which version, else why not.
pub fn supported() -> Result<String, String> {
    let known = |abi: ABI| {
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
        if abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::Signal)?;
        }
        ruleset.create().map(drop)
    };
    // In order of what each brought that is used here.
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

/// Restricts this process, and what it executes and starts, to `paths`, `programs` and what every
/// program needs. Fails rather than restrict less than [`NEEDED`].
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
    // What does not exist cannot be allowed, and need not be: what may be asked for was looked at
    // when the worker started, and may have gone since.
    let Ok(file) = PathFd::new(path) else {
        return Ok(rules);
    };
    let access = match path.is_dir() {
        true => access,
        false => access & AccessFs::from_file(WANTED),
    };
    rules.add_rule(PathBeneath::new(file, access))
}
