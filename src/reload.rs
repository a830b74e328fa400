//! Watches the handler's files, for development.
//!
//! Owns the watching thread. Events of the kernel, where the file system sends them, only say that
//! something may have changed; the change itself is found by comparing two snapshots of the files
//! (`snapshot`), so that moved links, temporary files of editors and lost events need no rules. The
//! caller decides what a change leads to.

mod means;
mod snapshot;

use crate::config::Command;
use crate::error::StartError;
use crate::process::launch::Directory;
use means::Events;
use snapshot::{Scope, Snapshot};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

/// Files are quiet when nothing has changed for this long: editors and compilers write in several
/// steps.
const QUIET_TIME: Duration = Duration::from_millis(30);

/// Longest wait until the files are quiet, while writes go on. Within the 300 ms after which an
/// edit must be noticed.
const MAX_QUIET_WAIT: Duration = Duration::from_millis(150);

/// How often a snapshot is taken where the kernel sends no events.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Least pause after a snapshot, in multiples of its duration: that of a large folder must not
/// take a whole processor.
const PAUSE_FACTOR: u32 = 9;

/// Longest pause after a snapshot: a change must be noticed while its author still waits for it.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// How often the thread checks whether the [`Watch`] was dropped.
const ASK_PERIOD: Duration = Duration::from_secs(1);

/// Longest wait of the start for the first snapshot; a change before that goes unnoticed.
const FIRST_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Changes that may wait in the channel; further ones would add nothing.
const MAX_PENDING_CHANGES: usize = 64;

/// File systems of another machine, or of the host of a virtual one: changes made there bring no
/// events here. The numbers are from statfs(2) and linux/magic.h.
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
pub(crate) struct Watch {
    changes: mpsc::Receiver<PathBuf>,
}

/// The wait before the next snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    /// For an event, and then until the files are quiet.
    Change,
    /// Only until the files are quiet: a change may have been missed.
    Quiet,
}

/// How changes are noticed.
#[derive(Debug)]
enum Means {
    Events(Events),
    Polling,
}

impl Watch {
    /// Watches all below `root`, and the files that the command names when it is started in
    /// `directory`.
    pub(crate) async fn start(
        root: &Path,
        directory: &Directory,
        command: Option<&Command>,
    ) -> Result<Watch, StartError> {
        let failed = |source: std::io::Error| StartError::Watch {
            path: root.to_owned(),
            source: source.into(),
        };
        let scope = scope(root, directory, command).map_err(failed)?;
        let no_thread = |source| StartError::Runtime {
            what: "the threads that watch files",
            source,
        };
        let means = Means::for_scope(&scope).map_err(no_thread)?;
        Watch::by(means, scope).await.map_err(no_thread)
    }

    async fn by(means: Means, scope: Scope) -> std::io::Result<Watch> {
        let (sender, changes) = mpsc::channel(MAX_PENDING_CHANGES);
        let (ready, has_snapshot) = oneshot::channel();
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || watch(means, &scope, &sender, ready))?;
        // Cancel-safe: the wait only observes the end of the first snapshot.
        let _ = timeout(FIRST_SNAPSHOT_TIMEOUT, has_snapshot).await;
        Ok(Watch { changes })
    }

    /// Waits for a change, and until the files are quiet; returns the changed file.
    // Cancel-safe: a received change is returned immediately.
    pub(crate) async fn changed(&mut self) -> PathBuf {
        let Some(first) = self.changes.recv().await else {
            return std::future::pending().await;
        };
        while self.changes.try_recv().is_ok() {}
        first
    }
}

fn scope(root: &Path, directory: &Directory, command: Option<&Command>) -> std::io::Result<Scope> {
    // The default root, `.`, is the folder in which processes start.
    let root = match root == Path::new(".") {
        true => directory.path().to_owned(),
        false => directory.absolute(root),
    };
    let words = command.into_iter().flat_map(|command| {
        let program = Path::new(&command.program);
        // A program without a slash is looked up in PATH, and is not a file of the handler's.
        let program = (program.components().count() > 1).then_some(program);
        let arguments = command.arguments.iter().map(Path::new);
        program.into_iter().chain(arguments)
    });
    // The log shows `./handler` as `handler`.
    let named = words.map(|word| {
        directory
            .path()
            .join(word.strip_prefix("./").unwrap_or(word))
    });
    let named = named.filter(|file| file.is_file()).collect();
    let file_system = rustix::fs::statfs(&root)?;
    #[expect(
        clippy::cast_sign_loss,
        reason = "a magic number, which the kernel compares by its bits"
    )]
    let kind = file_system.f_type as u64;
    Ok(Scope {
        is_remote: is_remote(kind),
        root,
        named,
    })
}

/// True for a file system, by its magic number, that others than this kernel may change.
fn is_remote(kind: u64) -> bool {
    WITHOUT_EVENTS.contains(&kind)
}

impl Means {
    /// Events where the file system sends them, else polling. Fails when the system grants no
    /// thread for the events.
    fn for_scope(scope: &Scope) -> std::io::Result<Means> {
        if scope.is_remote {
            return Ok(Means::Polling);
        }
        match Events::new() {
            Ok(Some(events)) => Ok(Means::Events(events)),
            Ok(None) => Err(rustix::io::Errno::AGAIN.into()),
            Err(error) => Ok(Means::without_events(&error)),
        }
    }

    fn without_events(error: &notify::Error) -> Means {
        // Mostly because of the limit of watches for one user.
        warn!(%error, "no events for changes of files, they are polled instead");
        Means::Polling
    }

    /// Watches the folders of a snapshot. A change in a folder that had no watch until now may have
    /// been missed.
    fn follow(&mut self, snapshot: &Snapshot) -> WaitFor {
        let Means::Events(events) = self else {
            return WaitFor::Change;
        };
        match events.follow(&snapshot.folders) {
            Ok(true) => WaitFor::Quiet,
            Ok(false) => WaitFor::Change,
            Err(error) => {
                *self = Means::without_events(&error);
                WaitFor::Change
            }
        }
    }

    /// Waits for a change, or until the files are quiet, while `is_watched`. Returns the files
    /// whose write has ended.
    fn wait(&mut self, wait_for: WaitFor, is_watched: impl Fn() -> bool) -> Vec<PathBuf> {
        let Means::Events(events) = self else {
            std::thread::sleep(POLL_PERIOD);
            return Vec::new();
        };
        let mut closed = Vec::new();
        let mut begun = (wait_for == WaitFor::Quiet).then(Instant::now);
        while is_watched() {
            let limit = begun.map_or(ASK_PERIOD, |_| QUIET_TIME);
            let hint = events.wait(limit);
            closed.extend(hint.closed);
            if !hint.is_there && begun.is_none() {
                continue;
            }
            if !hint.is_there || begun.get_or_insert_with(Instant::now).elapsed() >= MAX_QUIET_WAIT
            {
                break;
            }
        }
        closed
    }
}

/// Looks at the files and sends each change, until the receiver is dropped.
fn watch(
    mut means: Means,
    scope: &Scope,
    changes: &mpsc::Sender<PathBuf>,
    ready: oneshot::Sender<()>,
) {
    let mut last = scope.snapshot(&Snapshot::default());
    let mut wait_for = means.follow(&last);
    let by = match means {
        Means::Events(_) => "events",
        Means::Polling => "polling",
    };
    info!(path = %scope.root.display(), by, "watching for changes of the handler's files");
    if last.is_cut {
        warn!(path = %scope.root.display(), "not all files are watched, there are too many");
    }
    let _ = ready.send(());
    while !changes.is_closed() {
        let closed = means.wait(wait_for, || !changes.is_closed());
        let begun = Instant::now();
        let mut now = scope.snapshot(&last);
        let mut changed = now.change_since(&last).map(Path::to_owned);
        if changed.is_some() && matches!(means, Means::Polling) {
            now = snapshot_when_quiet(scope, now);
            changed = now.change_since(&last).map(Path::to_owned);
        }
        // A file that was open for a write during the last snapshot may be executed only now.
        let was_open = closed.iter().find_map(|path| now.file_at(path));
        if let Some(path) = changed.as_deref().or(was_open) {
            // With a full channel, earlier changes are still to be received.
            let _ = changes.try_send(path.to_owned());
        }
        wait_for = means.follow(&now);
        last = now;
        std::thread::sleep(pause_after(begun.elapsed()));
    }
}

/// The pause after a snapshot that took this long: none where the wait for a change is as long.
fn pause_after(took: Duration) -> Duration {
    match took.saturating_mul(PAUSE_FACTOR) {
        pause if pause > POLL_PERIOD => pause.min(MAX_PAUSE),
        _ => Duration::ZERO,
    }
}

fn snapshot_when_quiet(scope: &Scope, mut now: Snapshot) -> Snapshot {
    let begun = Instant::now();
    while begun.elapsed() < MAX_QUIET_WAIT {
        std::thread::sleep(QUIET_TIME);
        let next = scope.snapshot(&now);
        let is_quiet = next.change_since(&now).is_none();
        now = next;
        if is_quiet {
            break;
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn scope_of(root: &Path) -> Scope {
        Scope {
            root: root.to_owned(),
            named: Vec::new(),
            is_remote: false,
        }
    }

    fn events() -> Means {
        Means::Events(Events::new().unwrap().unwrap())
    }

    fn both_means() -> [Means; 2] {
        [events(), Means::Polling]
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_again_and_again_is_noticed_each_time() {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.canonicalize().unwrap().join("handler.py");
        std::fs::write(&file, "0").unwrap();
        for means in both_means() {
            let name = format!("{means:?}");
            let mut watch = Watch::by(means, scope_of(&file)).await.unwrap();
            for round in 1..=3 {
                let new = folder.join("handler.new");
                std::fs::write(&new, format!("{name} {round}")).unwrap();
                std::fs::rename(&new, &file).unwrap();
                let changed = timeout(Duration::from_secs(10), watch.changed()).await;
                assert_eq!(changed.unwrap(), file, "{name} {round}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    async fn noticed(means: Means) -> Duration {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.canonicalize().unwrap().join("handler.py");
        std::fs::write(&file, "1").unwrap();
        let mut watch = Watch::by(means, scope_of(&folder)).await.unwrap();
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
        for kind in 0..2 {
            // The fastest of five: a busy machine delays the others.
            let mut fastest = Duration::MAX;
            for _ in 0..5 {
                let means = both_means().into_iter().nth(kind).unwrap();
                fastest = fastest.min(noticed(means).await);
            }
            assert!(fastest < Duration::from_millis(300), "{kind}: {fastest:?}");
        }
    }

    /// The time from the first of many writes, which go on, to the notice.
    async fn noticed_while_written(means: Means) -> Duration {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.canonicalize().unwrap().join("handler.py");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::by(means, scope_of(&folder)).await.unwrap();
        let is_noticed = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let writer = std::thread::spawn({
            let (file, is_noticed) = (file.clone(), Arc::clone(&is_noticed));
            move || {
                while !is_noticed.load(Ordering::Relaxed) {
                    std::fs::write(&file, fastrand::u64(..).to_string()).unwrap();
                }
            }
        });
        let changed = timeout(Duration::from_secs(10), watch.changed()).await;
        let took = begun.elapsed();
        is_noticed.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(changed.unwrap(), file);
        took
    }

    /// A compiler writes for some time, and a log in the watched folder is written for ever.
    #[tokio::test]
    async fn writes_that_go_on_delay_the_notice_and_do_not_prevent_it() {
        for kind in 0..2 {
            // The slowest of five: a busy machine may hold up the writes, which then look quiet.
            let mut slowest = Duration::ZERO;
            for _ in 0..5 {
                let means = both_means().into_iter().nth(kind).unwrap();
                slowest = slowest.max(noticed_while_written(means).await);
            }
            assert!(slowest >= MAX_QUIET_WAIT, "{kind}: {slowest:?}");
        }
    }

    #[test]
    fn file_systems_that_others_change_are_polled() {
        for (kind, is_polled) in [
            (libc::FUSE_SUPER_MAGIC, true),
            (libc::NFS_SUPER_MAGIC, true),
            (0x0102_1997, true), // 9p
            (libc::EXT4_SUPER_MAGIC, false),
            (libc::OVERLAYFS_SUPER_MAGIC, false),
            (libc::TMPFS_MAGIC, false),
        ] {
            let kind = u64::try_from(kind).unwrap();
            assert_eq!(is_remote(kind), is_polled, "{kind:x}");
            let scope = Scope {
                is_remote: is_polled,
                ..scope_of(Path::new("."))
            };
            let means = Means::for_scope(&scope).unwrap();
            assert_eq!(matches!(means, Means::Polling), is_polled);
        }
    }

    #[test]
    fn the_pause_after_a_snapshot_grows_with_its_duration() {
        for (took, pause) in [(1, 0), (11, 0), (100, 900), (1000, 9000), (60_000, 10_000)] {
            let pause = Duration::from_millis(pause);
            assert_eq!(pause_after(Duration::from_millis(took)), pause, "{took} ms");
        }
        assert_eq!(pause_after(Duration::MAX), MAX_PAUSE);
    }

    /// One save of an editor may be several changes.
    #[tokio::test]
    async fn changes_that_wait_are_one_change() {
        let (sender, changes) = mpsc::channel(MAX_PENDING_CHANGES);
        let mut watch = Watch { changes };
        for name in ["first", "second"] {
            sender.try_send(PathBuf::from(name)).unwrap();
        }
        assert_eq!(watch.changed().await, Path::new("first"));
        assert!(watch.changes.is_empty());
    }

    /// A file that was written into a new folder before the watch was set has brought no event.
    #[test]
    fn the_files_are_compared_again_when_a_folder_had_no_watch() {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let snapshot = scope_of(&folder).snapshot(&Snapshot::default());
        let mut means = events();
        assert_eq!(means.follow(&snapshot), WaitFor::Quiet);
        let asked = Cell::new(0);
        means.wait(WaitFor::Quiet, || asked.replace(asked.get() + 1) == 0);
        assert_eq!(asked.get(), 1, "the wait ends without an event");
        assert_eq!(means.follow(&snapshot), WaitFor::Change);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_that_the_command_names_are_watched_and_no_namesake_of_the_interpreter() {
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(folder.join("root")).unwrap();
        for name in ["sh", "handler.sh"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let directory = Directory::find(Some(&folder));
        for (program, argument, named) in [
            ("sh", "handler.sh", &["handler.sh"][..]),
            ("sh", "./handler.sh", &["handler.sh"]),
            ("./sh", "--", &["sh"]),
            ("./handler.sh", "root", &["handler.sh"]),
        ] {
            let command = Command {
                program: program.into(),
                arguments: vec![argument.into()],
            };
            let scope = scope(&folder.join("root"), &directory, Some(&command)).unwrap();
            let named: Vec<PathBuf> = named.iter().map(|name| folder.join(name)).collect();
            assert_eq!(scope.named, named, "{program} {argument}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// The last write is not the end of the change: a file that is open for a write cannot be
    /// executed.
    #[tokio::test]
    async fn the_close_of_a_write_long_after_it_is_a_change() {
        use std::io::Write;
        let folder = std::env::temp_dir().join(format!("faas-watch-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.canonicalize().unwrap().join("handler");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut watch = Watch::by(events(), scope_of(&folder)).await.unwrap();
        file.write_all(b"all of it").unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(timeout(patience, watch.changed()).await.unwrap(), path);
        // Without a close, there is no change.
        assert!(timeout(4 * MAX_QUIET_WAIT, watch.changed()).await.is_err());
        drop(file);
        assert_eq!(timeout(patience, watch.changed()).await.unwrap(), path);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
