//! The control group of the worker: its files, its memory limit, and its quota of processors.
//!
//! Reads versions 1 and 2. In a container the group may have its name on the host, while the file
//! system shows only the container's part, so each file is searched in both places.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The least number that means no limit: version 1 writes the largest whole number of pages that
/// fits 63 bits.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The limit on the memory of the worker and all its processes together, in bytes: the least that
/// its control group, or a group above it, has. `None` where there is no limit.
pub fn memory_limit() -> Option<u64> {
    let files = files("memory.max", "memory.limit_in_bytes");
    let limits = files.iter().flat_map(with_groups_above);
    limits
        .filter_map(|file| limit_in(&fs::read_to_string(file).ok()?))
        .min()
}

/// The processor time of the worker and all its processes together, in processors, rounded up: the
/// least quota that its control group, or a group above it, has. `None` where there is no quota.
pub fn processor_quota() -> Option<usize> {
    let groups = own_groups();
    let unified = files_of(&groups, "cpu.max", None);
    let old = files_of(&groups, "", Some(("cpu", "cpu.cfs_quota_us")));
    let unified = unified.iter().flat_map(with_groups_above);
    let unified = unified.filter_map(|file| quota_in(&fs::read_to_string(file).ok()?));
    let old = old.iter().flat_map(with_groups_above).filter_map(|file| {
        let quota = fs::read_to_string(&file).ok()?;
        let period = fs::read_to_string(file.with_file_name("cpu.cfs_period_us")).ok()?;
        quota_in(&format!("{} {}", quota.trim(), period.trim()))
    });
    unified.chain(old).min()
}

/// A file of a group, and the same file of all groups above it.
fn with_groups_above(file: impl AsRef<Path>) -> Vec<PathBuf> {
    let file = file.as_ref();
    let name = file.file_name().map(ToOwned::to_owned).unwrap_or_default();
    let folders = file.parent().into_iter().flat_map(Path::ancestors);
    folders.map(|folder| folder.join(&name)).collect()
}

/// Paths at which a file of the worker's control group may be, best first: `unified` is its name in
/// version 2, `memory` its name below the memory controller of version 1.
pub fn files(unified: &str, memory: &str) -> Vec<PathBuf> {
    files_of(&own_groups(), unified, Some(("memory", memory)))
}

/// The worker's groups: the lines of `/proc/self/cgroup`.
fn own_groups() -> String {
    let groups = fs::read("/proc/self/cgroup").unwrap_or_default();
    // A name may be any bytes, and lies on a line of its own.
    String::from_utf8_lossy(&groups).into_owned()
}

/// The paths of a file, from the lines of `/proc/self/cgroup`. The file is called `unified` in
/// version 2; `old` is a controller of version 1, and the name of the file below it.
fn files_of(groups: &str, unified: &str, old: Option<(&str, &str)>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let group = group.trim_start_matches('/');
        let (roots, name) = match (controllers, old) {
            ("", _) => (
                vec![
                    "/sys/fs/cgroup".to_owned(),
                    "/sys/fs/cgroup/unified".to_owned(),
                ],
                unified,
            ),
            (_, Some((controller, name)))
                if controllers.split(',').any(|one| one == controller) =>
            {
                // Controllers that share a hierarchy share its folder; mostly each has a link to
                // it.
                let folders = [controller, controllers];
                let roots = folders.map(|folder| format!("/sys/fs/cgroup/{folder}"));
                (roots.to_vec(), name)
            }
            _ => continue,
        };
        for root in roots.iter().filter(|_| !name.is_empty()) {
            found.push(Path::new(root).join(group).join(name));
            found.push(Path::new(root).join(name));
        }
    }
    found
}

/// The number in `memory.max` or `memory.limit_in_bytes`; `None` for no limit.
fn limit_in(text: &str) -> Option<u64> {
    let limit = text.trim().parse().ok()?;
    (limit < UNLIMITED_FROM).then_some(limit)
}

/// The processors, rounded up, in `cpu.max`, or in the quota and the period of version 1; `None`
/// for no quota.
fn quota_in(text: &str) -> Option<usize> {
    let mut numbers = text.split_whitespace().map(str::parse::<NonZeroUsize>);
    let quota = numbers.next()?.ok()?;
    let period = numbers.next()?.ok()?;
    Some(quota.get().div_ceil(period.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_for_where_each_version_has_it() {
        let unified = files_of(
            "0::/system.slice/worker.service\n",
            "memory.max",
            Some(("memory", "x")),
        );
        let first = "/sys/fs/cgroup/system.slice/worker.service/memory.max";
        assert_eq!(unified.first(), Some(&PathBuf::from(first)));
        assert!(unified.contains(&PathBuf::from("/sys/fs/cgroup/memory.max")));
        let old = files_of(
            "3:cpuset:/x\n4:memory:/docker/ab:c\nno line\n",
            "x",
            Some(("memory", "y")),
        );
        let first = "/sys/fs/cgroup/memory/docker/ab:c/y";
        assert_eq!(old.first(), Some(&PathBuf::from(first)));
        assert_eq!(old.len(), 4);
        let shared = files_of("5:cpu,cpuacct:/x\n", "", Some(("cpu", "cpu.cfs_quota_us")));
        let of_both = "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us";
        assert!(shared.contains(&PathBuf::from("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us")));
        assert!(shared.contains(&PathBuf::from(of_both)));
        assert_eq!(
            files_of("0::/x\n", "", Some(("cpu", "y"))),
            Vec::<PathBuf>::new()
        );
    }

    #[test]
    fn a_quota_is_told_in_processors() {
        for (text, quota) in [
            ("50000 100000\n", Some(1)),
            ("100000 100000\n", Some(1)),
            ("150000 100000\n", Some(2)),
            ("400000 100000", Some(4)),
            ("max 100000\n", None),
            ("-1 100000", None),
            ("50000", None),
            ("", None),
        ] {
            assert_eq!(quota_in(text), quota, "{text:?}");
        }
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
