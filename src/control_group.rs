//! The control group of the worker: its files, and its memory limit.
//!
//! Reads versions 1 and 2. In a container the group may have its name on the host, while the file
//! system shows only the container's part, so each file is searched in both places.

use std::fs;
use std::path::{Path, PathBuf};

/// A number from here on means no limit: version 1 writes the largest whole number of
/// pages that fits 63 bits.
const NO_LIMIT: u64 = 1 << 60;

/// The limit on the memory of the worker and all its processes together, in bytes: the least that
/// its control group, or a group above it, has. `None` where there is no limit.
pub fn memory_limit() -> Option<u64> {
    let files = files("memory.max", "memory.limit_in_bytes");
    let groups_above = |file: &PathBuf| {
        let name = file.file_name().map(ToOwned::to_owned).unwrap_or_default();
        let folders = file.parent().into_iter().flat_map(Path::ancestors);
        folders.map(|folder| folder.join(&name)).collect::<Vec<_>>()
    };
    let limits = files.iter().flat_map(groups_above);
    limits
        .filter_map(|file| limit_in(&fs::read_to_string(file).ok()?))
        .min()
}

/// Paths at which a file of the worker's control group may be, best first: `unified` is its name in
/// version 2, `memory` its name below the memory controller of version 1.
pub fn files(unified: &str, memory: &str) -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    files_of(&groups, unified, memory)
}

/// The paths of a file, from the lines of `/proc/self/cgroup`.
fn files_of(groups: &str, unified: &str, memory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let group = group.trim_start_matches('/');
        let (roots, name): (&[&str], _) = match controllers {
            "" => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], unified),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (&["/sys/fs/cgroup/memory"], memory)
            }
            _ => continue,
        };
        for root in roots {
            found.push(Path::new(root).join(group).join(name));
            found.push(Path::new(root).join(name));
        }
    }
    found
}

/// The number in `memory.max` or `memory.limit_in_bytes`; `None` for no limit.
fn limit_in(text: &str) -> Option<u64> {
    let limit = text.trim().parse().ok()?;
    (limit < NO_LIMIT).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_for_where_each_version_has_it() {
        let unified = files_of("0::/system.slice/worker.service\n", "memory.max", "x");
        let first = "/sys/fs/cgroup/system.slice/worker.service/memory.max";
        assert_eq!(unified.first(), Some(&PathBuf::from(first)));
        assert!(unified.contains(&PathBuf::from("/sys/fs/cgroup/memory.max")));
        let old = files_of("3:cpuset:/x\n4:memory:/docker/ab:c\nno line\n", "x", "y");
        let first = "/sys/fs/cgroup/memory/docker/ab:c/y";
        assert_eq!(old.first(), Some(&PathBuf::from(first)));
        assert_eq!(old.len(), 2);
    }

    #[test]
    fn no_limit_is_told_from_a_limit_in_both_versions() {
        for (text, limit) in [
            ("134217728\n", Some(128 << 20)),
            ("max\n", None),
            ("9223372036854771712\n", None),
            ("", None),
        ] {
            assert_eq!(limit_in(text), limit, "{text:?}");
        }
    }
}
