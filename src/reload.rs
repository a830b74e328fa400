//! Watching the handler's files, for development.
//!
//! Owns the watchers, which have threads of their own. Says that something has changed, once the
//! files have come to rest; what is done about it is up to others.

use crate::config::Command;
use crate::error::StartError;
use notify::{Event, EventKind, PollWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

/// Files have come to rest when nothing has changed for this long: editors and compilers write in
/// several steps.
const QUIET: Duration = Duration::from_millis(30);

/// Not waited for longer than this, however much is written. Within the 300 ms after which an
/// edit must be noticed.
const LONGEST_WAIT: Duration = Duration::from_millis(150);

/// How often files are looked at where the kernel sends no events.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Changes that may wait to be looked at; more add nothing to them.
const PENDING_CHANGES: usize = 64;

/// Folders whose content is made from other files, or is not the handler's own.
const IGNORED_FOLDERS: [&str; 4] = ["__pycache__", "node_modules", "target", "venv"];

/// Ends of names of files that interpreters and editors write beside the ones that count.
const IGNORED_ENDS: [&str; 6] = [".pyc", "~", ".swp", ".swx", ".tmp", ".bak"];

/// File systems that pass on what another machine, or the host of a virtual one, has: changes made
/// there bring no events here. The numbers are those of statfs(2) and linux/magic.h.
const WITHOUT_EVENTS: [u64; 7] = [
    0x6573_5546, // FUSE: the mounts of desktop Docker, virtiofs, sshfs
    0x0102_1997, // 9p
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x786f_4256, // VirtualBox shared folders
    0x7c7c_6673, // Parallels shared folders
];

/// A watch over the handler's files; ends when dropped.
pub struct Watch {
    _watcher: Box<dyn Watcher + Send>,
    changes: mpsc::Receiver<PathBuf>,
}

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Events,
    Polling,
}

/// Which files count.
#[derive(Debug, Clone)]
struct Scope {
    root: PathBuf,
    /// The files that the command names, wherever they are.
    named: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches all below `root`, and the files that the command names.
    pub fn start(root: &Path, command: Option<&Command>) -> Result<Watch, StartError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Watch {
            path: root.to_owned(),
            source,
        };
        let scope = Scope::new(root, command).map_err(|error| failed(error.into()))?;
        let is_remote = rustix::fs::statfs(&scope.root)
            .is_ok_and(|file_system| WITHOUT_EVENTS.contains(&(file_system.f_type as u64)));
        let watch = if is_remote {
            Watch::by(Means::Polling, &scope)
        } else {
            Watch::by(Means::Events, &scope).or_else(|error| {
                // Mostly the limit of watches that one user may have.
                warn!(%error, "no events for changes of files, they are polled instead");
                Watch::by(Means::Polling, &scope)
            })
        };
        watch.map_err(|error| failed(error.into()))
    }

    fn by(means: Means, scope: &Scope) -> notify::Result<Watch> {
        let (sender, changes) = mpsc::channel(PENDING_CHANGES);
        let filter = scope.clone();
        let handle = move |event: notify::Result<Event>| match event {
            Ok(event) => {
                if let Some(path) = filter.change_in(&event) {
                    // With a full channel, a change is about to be told anyway.
                    let _ = sender.try_send(path);
                }
            }
            Err(error) => warn!(%error, "changes of the handler's files may go unnoticed"),
        };
        let mut watcher: Box<dyn Watcher + Send> = match means {
            Means::Events => Box::new(notify::recommended_watcher(handle)?),
            Means::Polling => {
                // By content: the watcher's clock for changes has seconds only.
                let config = notify::Config::default()
                    .with_poll_interval(POLL_PERIOD)
                    .with_compare_contents(true);
                Box::new(PollWatcher::new(handle, config)?)
            }
        };
        if scope.root.is_dir() {
            watcher.watch(&scope.root, RecursiveMode::Recursive)?;
        }
        for folder in scope.folders_elsewhere() {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        let by = match means {
            Means::Events => "events",
            Means::Polling => "polling",
        };
        info!(path = %scope.root.display(), by, "watching for changes of the handler's files");
        Ok(Watch {
            _watcher: watcher,
            changes,
        })
    }

    /// Waits for a change, and until the files have come to rest; gives the first file changed.
    // Cancel-safe up to the first change; after it, at most the rest is waited for anew.
    pub async fn changed(&mut self) -> PathBuf {
        let Some(first) = self.changes.recv().await else {
            return std::future::pending().await;
        };
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_WAIT {
            if timeout(QUIET, self.changes.recv()).await.is_err() {
                break;
            }
        }
        while self.changes.try_recv().is_ok() {}
        first
    }
}

impl Scope {
    fn new(root: &Path, command: Option<&Command>) -> std::io::Result<Scope> {
        let words = command.into_iter().flat_map(|command| {
            let program = Path::new(&command.program);
            // A program without a slash is looked up in PATH, and is not a file of the handler's.
            let program = (program.components().count() > 1).then_some(program);
            program
                .into_iter()
                .chain(command.arguments.iter().map(Path::new))
        });
        // A root that is a file is one by its name too: most editors save into a new file, and
        // give it the name of the old one.
        let named = words
            .chain([root])
            .filter(|word| word.is_file())
            .filter_map(|word| word.canonicalize().ok());
        Ok(Scope {
            root: root.canonicalize()?,
            named: named.collect(),
        })
    }

    /// The folders of named files that are not watched with the root.
    fn folders_elsewhere(&self) -> BTreeSet<PathBuf> {
        let folders = self.named.iter().filter_map(|file| file.parent());
        folders
            .filter(|folder| !folder.starts_with(&self.root))
            .map(Path::to_owned)
            .collect()
    }

    /// The file that was changed, if it counts.
    fn change_in(&self, event: &Event) -> Option<PathBuf> {
        if event.need_rescan() {
            return Some(self.root.clone());
        }
        match event.kind {
            // Reading changes nothing; the end of a write comes as a change before.
            EventKind::Access(_) => None,
            EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Any
            | EventKind::Other => event.paths.iter().find(|path| self.holds(path)).cloned(),
        }
    }

    fn holds(&self, path: &Path) -> bool {
        if self.named.contains(path) {
            return true;
        }
        let Ok(below) = path.strip_prefix(&self.root) else {
            return false;
        };
        let mut names = below.components().map(Component::as_os_str);
        let is_ignored = names.any(|name| {
            let name = name.to_string_lossy();
            name.starts_with('.')
                || IGNORED_FOLDERS.contains(&name.as_ref())
                || IGNORED_ENDS.iter().any(|end| name.ends_with(end))
        });
        !is_ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_from_other_files_does_not_count_unless_the_command_names_it() {
        let scope = Scope {
            root: "/app".into(),
            named: BTreeSet::from(["/app/target/release/handler".into(), "/opt/run.sh".into()]),
        };
        let table = [
            ("/app", true),
            ("/app/handler.py", true),
            ("/app/function/handler.py", true),
            ("/app/function/__pycache__/handler.pyc", false),
            ("/app/.git/index", false),
            ("/app/.handler.py.swp", false),
            ("/app/handler.py~", false),
            ("/app/target/release/other", false),
            ("/app/target/release/handler", true),
            ("/opt/run.sh", true),
            ("/opt/other.sh", false),
        ];
        for (path, counts) in table {
            assert_eq!(scope.holds(Path::new(path)), counts, "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_again_and_again_is_noticed_each_time() {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.canonicalize().unwrap().join("handler.py");
        std::fs::write(&file, "0").unwrap();
        let scope = Scope::new(&file, None).unwrap();
        for means in [Means::Events, Means::Polling] {
            let mut watch = Watch::by(means, &scope).unwrap();
            for round in 1..=3 {
                let new = folder.join("handler.new");
                std::fs::write(&new, format!("{means:?} {round}")).unwrap();
                std::fs::rename(&new, &file).unwrap();
                let changed = timeout(Duration::from_secs(10), watch.changed()).await;
                assert_eq!(changed.unwrap(), file, "{means:?} {round}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    async fn noticed(means: Means) -> Duration {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.canonicalize().unwrap().join("handler.py");
        std::fs::write(&file, "1").unwrap();
        let scope = Scope::new(&folder, None).unwrap();
        let mut watch = Watch::by(means, &scope).unwrap();
        let edited = Instant::now();
        // Within the second of the write before, and as long: only the content differs.
        std::fs::write(&file, "2").unwrap();
        let changed = timeout(Duration::from_secs(10), watch.changed()).await;
        let took = edited.elapsed();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(changed.unwrap(), file);
        took
    }

    #[tokio::test]
    async fn an_edit_is_noticed_by_events_and_by_polling() {
        for means in [Means::Events, Means::Polling] {
            // The fastest of a few: a busy machine is no fault of the watch.
            let mut fastest = Duration::MAX;
            for _ in 0..5 {
                fastest = fastest.min(noticed(means).await);
            }
            assert!(
                fastest < Duration::from_millis(300),
                "{means:?}: {fastest:?}"
            );
        }
    }
}
