//! Snapshots of the handler's files, and the changes between two of them.
//!
//! Every path is resolved anew at each snapshot, so a link that was moved, by a deployment or by
//! the kubelet, shows as a change of the file behind it. Reads the content of small and recent
//! files only, and never opens a pipe or a device.

use crate::regular_file;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Folders whose content is made from other files, or is not the handler's own.
const IGNORED_FOLDERS: [&str; 4] = ["__pycache__", "node_modules", "target", "venv"];

/// Ends of names of files that interpreters and editors write beside the handler's files.
const IGNORED_ENDS: [&str; 6] = [".pyc", "~", ".swp", ".swx", ".tmp", ".bak"];

/// Most folders and files of a snapshot; a handler has far fewer.
const MAX_FOLDERS: usize = 4096;
const MAX_FILES: usize = 20_000;

/// Links that one path may lead over, as for the kernel.
const MAX_LINKS: usize = 40;

/// How long after a change the content of a short file is compared too: a second write may fall
/// into the same step of the file system's clock, which is two seconds at most.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// The length up to which the content of a file is compared, in bytes.
const SHORT_FILE_BYTES: u64 = 64 * 1024;

/// The files to watch, by paths that are not resolved yet.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// A file, or a folder with all below it.
    pub(super) root: PathBuf,
    /// Paths in the command, inside the root or outside; may be no files.
    pub(super) named: Vec<PathBuf>,
    /// Whether the file system makes up inode numbers and change times, which then change without a
    /// write.
    pub(super) is_remote: bool,
}

/// A snapshot of the files at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<PathBuf, Fingerprint>,
    named: BTreeSet<PathBuf>,
    /// The folders in which an entry changes if a file, or a link on the way to a file, changes.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Whether there were more files or folders than a snapshot holds.
    pub(super) is_cut: bool,
    /// Device and inode of the files that the worker itself writes, which do not count: with the
    /// log in a watched folder, each line of the log would be a change.
    own_outputs: Vec<(u64, u64)>,
}

/// Facts of a file that show a change when they differ.
#[derive(Debug)]
struct Fingerprint {
    /// The file at the end of a link.
    target: Option<PathBuf>,
    device: u64,
    inode: u64,
    length: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
    /// When these facts were first seen.
    since: Instant,
    content: Option<u64>,
}

impl Snapshot {
    fn is_own_output(&self, entry: &fs::DirEntry) -> bool {
        let is_file = |metadata: &fs::Metadata| {
            let number = (metadata.dev(), metadata.ino());
            self.own_outputs.contains(&number)
        };
        !self.own_outputs.is_empty() && fs::metadata(entry.path()).is_ok_and(|file| is_file(&file))
    }
}

/// Device and inode of the worker's stdout and stderr, if they are regular files.
fn own_outputs() -> Vec<(u64, u64)> {
    let outputs = [
        rustix::fs::fstat(io::stdout()),
        rustix::fs::fstat(io::stderr()),
    ];
    let files = outputs.into_iter().flatten().filter(|output| {
        rustix::fs::FileType::from_raw_mode(output.st_mode) == rustix::fs::FileType::RegularFile
    });
    files.map(|file| (file.st_dev, file.st_ino)).collect()
}

impl Scope {
    /// Takes a snapshot of all files; `before` is the last one. Blocks, for long in a large folder:
    /// not for the runtime's thread.
    pub(super) fn snapshot(&self, before: &Snapshot) -> Snapshot {
        let mut snapshot = Snapshot {
            own_outputs: own_outputs(),
            ..Snapshot::default()
        };
        snapshot.folders.extend(folders_on_the_way(&self.root));
        if let Ok(root) = self.root.canonicalize()
            && root.is_dir()
        {
            self.walk(root, before, &mut snapshot);
        }
        // A root that is a file counts by its name too: most editors save into a new file, and give
        // the new file the name of the old one.
        for file in self.named.iter().chain([&self.root]) {
            if file.is_file() {
                self.add(file, before, &mut snapshot);
                snapshot.named.insert(file.clone());
            } else if !file.exists() && snapshot.folders.len() < MAX_FOLDERS {
                // The file may be about to come back.
                snapshot
                    .folders
                    .extend(folders_on_the_way(file).filter(|folder| folder.is_dir()));
            }
        }
        snapshot
    }

    fn walk(&self, root: PathBuf, before: &Snapshot, snapshot: &mut Snapshot) {
        let mut folders = VecDeque::from([root]);
        while let Some(folder) = folders.pop_front() {
            if snapshot.folders.len() >= MAX_FOLDERS {
                snapshot.is_cut = true;
                return;
            }
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            snapshot.folders.insert(folder);
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if is_ignored(&entry.file_name()) {
                    continue;
                }
                if kind.is_dir() {
                    folders.push_back(entry.path());
                } else if snapshot.files.len() >= MAX_FILES {
                    snapshot.is_cut = true;
                    return;
                } else if !snapshot.is_own_output(&entry) {
                    // A link to a folder may lead anywhere and is not followed; only its target
                    // counts.
                    self.add(&entry.path(), before, snapshot);
                }
            }
        }
    }

    fn add(&self, file: &Path, before: &Snapshot, snapshot: &mut Snapshot) {
        let Ok(fingerprint) = self.fingerprint(file, before.files.get(file)) else {
            return;
        };
        if fingerprint.target.is_some() && snapshot.folders.len() < MAX_FOLDERS {
            snapshot.folders.extend(folders_on_the_way(file));
        }
        snapshot.files.insert(file.to_owned(), fingerprint);
    }

    fn fingerprint(&self, file: &Path, before: Option<&Fingerprint>) -> io::Result<Fingerprint> {
        let metadata = fs::metadata(file)?;
        let target = file.canonicalize()?;
        let stable = |number: u64| if self.is_remote { 0 } else { number };
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        // The times of a folder change with its entries, which count by themselves.
        let times = metadata.is_file();
        let mut fingerprint = Fingerprint {
            target: (target != file).then_some(target),
            device: stable(metadata.dev()),
            inode: stable(metadata.ino()),
            length: if times { metadata.len() } else { 0 },
            mode: metadata.mode(),
            modified: match times {
                true => (metadata.mtime(), metadata.mtime_nsec()),
                false => (0, 0),
            },
            changed: match times && !self.is_remote {
                true => changed,
                false => (0, 0),
            },
            since: Instant::now(),
            content: None,
        };
        if let Some(before) = before.filter(|before| fingerprint.is_same(before)) {
            fingerprint.since = before.since;
        }
        if times
            && fingerprint.length <= SHORT_FILE_BYTES
            && fingerprint.since.elapsed() < CLOCK_STEP
        {
            fingerprint.content = Some(content(file)?);
        }
        Ok(fingerprint)
    }
}

impl Snapshot {
    /// The file that has changed since `before`, if any. Of several files it is the first in this
    /// order: named by the command, there before and now, new, gone.
    pub(super) fn change_since<'a>(&'a self, before: &'a Snapshot) -> Option<&'a Path> {
        let changed = self.files.iter().filter_map(|(file, fingerprint)| {
            let old = before.files.get(file);
            let rank = match old {
                Some(old) if old.is_same(fingerprint) => return None,
                _ if self.named.contains(file) => 0,
                Some(_) => 1,
                None => 2,
            };
            Some((rank, file))
        });
        let gone = before
            .files
            .keys()
            .filter(|file| !self.files.contains_key(*file));
        let gone = gone.map(|file| (if before.named.contains(file) { 0 } else { 3 }, file));
        changed.chain(gone).min().map(|(_, file)| file.as_path())
    }

    /// The watched file at this path, with links resolved.
    pub(super) fn file_at(&self, path: &Path) -> Option<&Path> {
        let is_it = |file: &Path, fingerprint: &Fingerprint| {
            file == path || fingerprint.target.as_deref() == Some(path)
        };
        let named = self
            .files
            .iter()
            .filter(|(file, _)| self.named.contains(*file));
        let mut all = named.chain(&self.files);
        all.find(|(file, fingerprint)| is_it(file, fingerprint))
            .map(|(file, _)| file.as_path())
    }
}

impl Fingerprint {
    fn is_same(&self, other: &Fingerprint) -> bool {
        // The content of a file is unknown once the last change is no longer recent.
        let content = match (self.content, other.content) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        content
            && (
                &self.target,
                self.device,
                self.inode,
                self.length,
                self.mode,
            ) == (
                &other.target,
                other.device,
                other.inode,
                other.length,
                other.mode,
            )
            && (self.modified, self.changed) == (other.modified, other.changed)
    }
}

fn content(file: &Path) -> io::Result<u64> {
    let mut bytes = Vec::new();
    regular_file::open(file)?
        .take(SHORT_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(hasher.finish())
}

fn is_ignored(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.')
        || IGNORED_FOLDERS.contains(&name.as_ref())
        || IGNORED_ENDS.iter().any(|end| name.ends_with(end))
}

/// The folders in which an entry decides where a path leads: the folder of each link on the way,
/// and the folder of the file at the end, or the last existing folder.
fn folders_on_the_way(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut found = BTreeSet::new();
    let mut here = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    let mut names: VecDeque<OsString> = components(path).collect();
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        let next = here.join(&name);
        match fs::symlink_metadata(&next) {
            Err(_) => break,
            Ok(metadata) if metadata.is_symlink() && links < MAX_LINKS => {
                links += 1;
                found.insert(here.clone());
                let Ok(target) = fs::read_link(&next) else {
                    break;
                };
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(name);
                }
            }
            Ok(metadata) if metadata.is_dir() => here = next,
            Ok(_) => break,
        }
    }
    found.insert(here);
    found.into_iter()
}

fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder that is removed after the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("faas-snapshot-{}", fastrand::u64(..)));
            fs::create_dir_all(&path).unwrap();
            Folder(path.canonicalize().unwrap())
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let file = self.0.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
            file
        }

        fn link(&self, target: &str, name: &str) {
            let new = self.0.join("link.tmp");
            symlink(target, &new).unwrap();
            fs::rename(new, self.0.join(name)).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scope(root: &Path, named: &[&Path]) -> Scope {
        Scope {
            root: root.to_owned(),
            named: named.iter().map(|file| (*file).to_owned()).collect(),
            is_remote: false,
        }
    }

    #[test]
    fn what_is_made_from_other_files_does_not_count_unless_the_command_names_it() {
        let folder = Folder::new();
        let handler = folder.file("target/release/handler", "0");
        let scope = scope(&folder.0, &[&handler]);
        let mut before = scope.snapshot(&Snapshot::default());
        for (name, counts) in [
            ("handler.py", true),
            ("function/handler.py", true),
            ("function/__pycache__/handler.pyc", false),
            (".git/index", false),
            (".handler.py.swp", false),
            ("handler.py~", false),
            ("target/release/other", false),
            ("node_modules/a/index.js", false),
            ("target/release/handler", true),
        ] {
            let file = folder.file(name, "1");
            let now = scope.snapshot(&Snapshot::default());
            let expected = counts.then_some(file.as_path());
            assert_eq!(now.change_since(&before), expected, "{name}");
            before = now;
        }
        let watched = |name: &str| before.folders.contains(&folder.0.join(name));
        assert!(watched("function") && !watched("node_modules") && !watched(".git"));
    }

    #[test]
    fn the_file_that_says_most_is_named() {
        let folder = Folder::new();
        let handler = folder.file("handler.py", "0");
        folder.file("old.py", "0");
        let scope = scope(&folder.0, &[&handler]);
        let before = scope.snapshot(&Snapshot::default());
        // As editors save: into a file of another name, which then takes the place of the first.
        folder.file("a-sedfv6MJm", "1");
        assert_eq!(
            scope.snapshot(&Snapshot::default()).change_since(&before),
            Some(folder.0.join("a-sedfv6MJm").as_path())
        );
        folder.file("old.py", "1");
        assert_eq!(
            scope.snapshot(&Snapshot::default()).change_since(&before),
            Some(folder.0.join("old.py").as_path())
        );
        folder.file("handler.py", "1");
        assert_eq!(
            scope.snapshot(&Snapshot::default()).change_since(&before),
            Some(handler.as_path())
        );
    }

    #[test]
    fn a_link_that_is_moved_changes_what_is_behind_it() {
        let folder = Folder::new();
        folder.file("releases/1/handler.py", "same");
        folder.file("releases/2/handler.py", "same");
        folder.link("releases/1", "current");
        let root = folder.0.join("current");
        let handler = root.join("handler.py");
        for scope in [
            scope(&root, &[]),
            scope(&folder.0.join("empty"), &[&handler]),
        ] {
            folder.link("releases/1", "current");
            let before = scope.snapshot(&Snapshot::default());
            assert!(
                scope
                    .snapshot(&Snapshot::default())
                    .change_since(&before)
                    .is_none()
            );
            assert!(before.folders.contains(&folder.0), "{:?}", before.folders);
            folder.link("releases/2", "current");
            assert!(
                scope
                    .snapshot(&Snapshot::default())
                    .change_since(&before)
                    .is_some()
            );
        }
    }

    /// As the kubelet mounts a ConfigMap: the handler is a link through a hidden one.
    #[test]
    fn a_hidden_link_that_is_moved_changes_the_files_behind_it() {
        let folder = Folder::new();
        folder.file("..2026_1/handler.py", "1");
        folder.file("..2026_2/handler.py", "2");
        folder.link("..2026_1", "..data");
        folder.link("..data/handler.py", "handler.py");
        let scope = scope(&folder.0, &[]);
        let before = scope.snapshot(&Snapshot::default());
        folder.link("..2026_2", "..data");
        let handler = folder.0.join("handler.py");
        assert_eq!(
            scope.snapshot(&Snapshot::default()).change_since(&before),
            Some(handler.as_path())
        );
    }

    #[test]
    fn links_to_folders_are_not_followed() {
        let folder = Folder::new();
        folder.file("handler.py", "1");
        folder.link("/usr", "usr");
        folder.link(".", "loop");
        folder.link("/dev/zero", "zero");
        folder.link("/no/such", "broken");
        let snapshot = scope(&folder.0, &[]).snapshot(&Snapshot::default());
        assert!(snapshot.folders.len() < 10, "{:?}", snapshot.folders);
        assert!(!snapshot.is_cut);
    }

    #[test]
    fn a_file_of_the_same_length_within_the_step_of_the_clock_is_another() {
        let folder = Folder::new();
        let file = folder.file("handler.py", "1");
        let scope = scope(&folder.0, &[]);
        let fingerprint = || scope.fingerprint(&file, None).unwrap();
        let (mut old, mut new) = (fingerprint(), fingerprint());
        assert!(old.is_same(&new));
        new.content = Some(0);
        assert!(!old.is_same(&new));
        // Later, neither is read any more.
        old.content = None;
        assert!(old.is_same(&new) && new.is_same(&old));
    }

    /// NFS and FUSE give a file another inode number, and other change times, when they like.
    #[test]
    fn on_a_remote_file_system_inode_numbers_and_change_times_are_no_change() {
        for is_remote in [false, true] {
            let folder = Folder::new();
            let file = folder.file("handler.py", "1");
            let scope = Scope {
                is_remote,
                ..scope(&folder.0, &[])
            };
            let before = scope.snapshot(&Snapshot::default());
            let modified = fs::metadata(&file).unwrap().modified().unwrap();
            // A copy with the name, the content and the time of the file.
            let copy = folder.file("copy.tmp", "1");
            let written = fs::File::options().write(true).open(&copy).unwrap();
            written.set_modified(modified).unwrap();
            fs::rename(&copy, &file).unwrap();
            let now = scope.snapshot(&before);
            let changed = (!is_remote).then_some(file.as_path());
            assert_eq!(now.change_since(&before), changed, "{is_remote}");
        }
    }

    #[test]
    fn the_content_is_compared_for_some_seconds_and_of_short_files() {
        let folder = Folder::new();
        let (short, long) = (folder.file("short", "1"), folder.file("long", ""));
        let file = fs::File::options().write(true).open(&long).unwrap();
        file.set_len(SHORT_FILE_BYTES + 1).unwrap();
        let scope = scope(&folder.0, &[]);
        let fingerprint = |path, before: Option<&_>| scope.fingerprint(path, before).unwrap();
        let mut first = fingerprint(&short, None);
        assert!(first.content.is_some());
        assert!(fingerprint(&short, Some(&first)).content.is_some());
        first.since -= CLOCK_STEP;
        assert_eq!(fingerprint(&short, Some(&first)).content, None);
        assert_eq!(fingerprint(&long, None).content, None);
    }

    #[test]
    fn a_snapshot_holds_a_bounded_number_of_folders_and_files() {
        let folder = Folder::new();
        folder.file("handler.py", "1");
        folder.file("more/handler.py", "1");
        folder.link("more/handler.py", "link.py");
        let scope = scope(&folder.0, &[]);
        let empty = Snapshot::default();
        let paths = |number| (0..number).map(|path: usize| PathBuf::from(path.to_string()));
        let fingerprint = || Fingerprint {
            target: None,
            device: 0,
            inode: 0,
            length: 0,
            mode: 0,
            modified: (0, 0),
            changed: (0, 0),
            since: Instant::now(),
            content: None,
        };
        for (folders, files, is_cut) in [
            (MAX_FOLDERS - 3, MAX_FILES - 3, false),
            (MAX_FOLDERS - 1, 0, true),
            (0, MAX_FILES - 2, true),
        ] {
            let fingerprint = |path| (path, fingerprint());
            let mut full = Snapshot {
                folders: paths(folders).collect(),
                files: paths(files).map(fingerprint).collect(),
                ..Snapshot::default()
            };
            scope.walk(folder.0.clone(), &empty, &mut full);
            assert_eq!(full.is_cut, is_cut, "{folders} {files}");
            assert!(full.folders.len() <= MAX_FOLDERS && full.files.len() <= MAX_FILES);
        }
    }

    #[test]
    fn a_path_is_watched_as_far_as_it_is_there() {
        let folder = Folder::new();
        folder.file("a/file", "");
        let way = |path: &str| folders_on_the_way(&folder.0.join(path)).collect::<Vec<_>>();
        assert_eq!(way("a/b/c"), [folder.0.join("a")]);
        assert_eq!(way("a/file"), [folder.0.join("a")]);
        assert_eq!(way("a"), [folder.0.join("a")]);
        folder.link("loop", "loop");
        assert_eq!(way("loop/x"), std::slice::from_ref(&folder.0));
    }
}
