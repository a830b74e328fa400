//! Events of the kernel about a set of folders: hints that a file may have changed.
//!
//! The next snapshot finds the change. The events come from `notify`, on a thread of `notify`, with
//! one watch for each folder of a snapshot: recursive watches have no limit.

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Most files that are open for a write, or closed and not yet reported; further ones are
/// forgotten.
const MAX_WRITTEN_FILES: usize = 1024;

/// The kernel's events for a set of folders.
#[derive(Debug)]
pub(super) struct Events {
    watcher: RecommendedWatcher,
    /// The watched folders, with the device and inode that each had when its watch was set.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    hints: Receiver<()>,
    closed: Receiver<PathBuf>,
}

/// The events of one wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hint {
    /// Whether any event came.
    pub(super) is_there: bool,
    /// Files that were closed after a write.
    pub(super) closed: Vec<PathBuf>,
}

/// Receives the events on the thread of `notify`; never waits.
struct Handler {
    /// Files that were written to and are not closed yet.
    written: BTreeSet<PathBuf>,
    hints: SyncSender<()>,
    closed: SyncSender<PathBuf>,
}

impl Events {
    /// `None` if the system grants no thread; an error for any other reason.
    pub(super) fn new() -> notify::Result<Option<Events>> {
        // One hint says as much as many.
        let (hint, hints) = sync_channel(1);
        let (close, closed) = sync_channel(MAX_WRITTEN_FILES);
        let mut handler = Handler {
            written: BTreeSet::new(),
            hints: hint,
            closed: close,
        };
        let watcher = notify::recommended_watcher(move |event| handler.handle(event))?;
        if hints.try_recv() == Err(TryRecvError::Disconnected) {
            // Without room for its thread `notify` drops the handler, returns no error, and panics
            // when the watcher is used or dropped.
            std::mem::forget(watcher);
            return Ok(None);
        }
        Ok(Some(Events {
            watcher,
            folders: BTreeMap::new(),
            hints,
            closed,
        }))
    }

    /// Watches exactly these folders from now on; true if a folder among them had no watch before.
    /// Fails at the limit of watches for one user.
    pub(super) fn follow(&mut self, folders: &BTreeSet<PathBuf>) -> notify::Result<bool> {
        let wanted = folders.iter().filter_map(|folder| {
            // A folder that has gone is not watched.
            Some((folder.clone(), identity(folder)?))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        for (folder, before) in &self.folders {
            if wanted.get(folder) != Some(before) {
                // The watch of a folder that was removed has ended by itself.
                let _ = self.watcher.unwatch(folder);
            }
        }
        let mut is_any_new = false;
        let before = std::mem::take(&mut self.folders);
        for (folder, identity) in wanted {
            // Also a folder with a watch: it may have been removed, and made again with the same
            // inode.
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    is_any_new |= before.get(&folder) != Some(&identity);
                    self.folders.insert(folder, identity);
                }
                Err(error) if is_exhaustion(&error) => return Err(error),
                // The folder has gone, or its permissions forbid a watch.
                Err(_) => {}
            }
        }
        Ok(is_any_new)
    }

    /// Waits for events until the limit, and takes all events that have come.
    pub(super) fn wait(&mut self, limit: Duration) -> Hint {
        let is_there = match self.hints.recv_timeout(limit) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            // The thread of `notify` lives as long as the watcher.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(limit);
                false
            }
        };
        Hint {
            is_there,
            closed: self.closed.try_iter().collect(),
        }
    }
}

impl Handler {
    fn handle(&mut self, event: notify::Result<Event>) {
        // An error, or an overflow of the kernel's queue, may hide any change.
        let Event { kind, paths, .. } = event.unwrap_or_default();
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                for file in paths.into_iter().filter(|file| self.written.remove(file)) {
                    // A close without a write before it, of a lock file for example, changes
                    // nothing.
                    let _ = self.closed.try_send(file);
                }
            }
            // The snapshots themselves open the folders.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) if self.written.len() < MAX_WRITTEN_FILES => {
                self.written.extend(paths);
            }
            _ => {}
        }
        let _ = self.hints.try_send(());
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_exhaustion(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => Errno::from_io_error(error) == Some(Errno::NOMEM),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    const SOON: Duration = Duration::from_millis(10);

    /// Longest wait for an event that must come.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("faas-means-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_close_of_a_write_is_told_and_that_of_no_write_is_not() {
        let folder = folder();
        let path = folder.join("handler");
        std::fs::write(&path, "0").unwrap();
        let mut events = Events::new().unwrap().unwrap();
        let watched = BTreeSet::from([folder.clone()]);
        assert!(events.follow(&watched).unwrap());
        assert!(!events.follow(&watched).unwrap());
        assert_eq!(events.wait(SOON), Hint::default());
        let open = || File::options().append(true).open(&path).unwrap();
        drop(open());
        let hint = events.wait(PATIENCE);
        assert!(hint.is_there && hint.closed.is_empty(), "{hint:?}");
        let mut file = open();
        file.write_all(b"1").unwrap();
        let hint = events.wait(PATIENCE);
        assert!(hint.is_there && hint.closed.is_empty(), "{hint:?}");
        drop(file);
        let closed = events.wait(PATIENCE).closed;
        assert_eq!(closed, std::slice::from_ref(&path));
        // A snapshot brings no hint: each would cause the next.
        std::fs::read(&path).unwrap();
        std::fs::read_dir(&folder).unwrap().for_each(drop);
        assert_eq!(events.wait(SOON), Hint::default());
        events.follow(&BTreeSet::new()).unwrap();
        let _ = events.wait(SOON);
        drop(open());
        assert!(!events.wait(SOON).is_there);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_takes_the_name_of_another_is_watched_in_its_place() {
        let folder = folder();
        let (place, aside) = (folder.join("place"), folder.join("aside"));
        let watched = BTreeSet::from([place.clone()]);
        std::fs::create_dir(&place).unwrap();
        let mut events = Events::new().unwrap().unwrap();
        events.follow(&watched).unwrap();
        std::fs::rename(&place, &aside).unwrap();
        std::fs::create_dir(&place).unwrap();
        assert!(events.wait(PATIENCE).is_there);
        assert!(events.follow(&watched).unwrap());
        let _ = events.wait(SOON);
        File::create(aside.join("file")).unwrap();
        assert!(!events.wait(SOON).is_there, "no watch is left behind");
        File::create(place.join("file")).unwrap();
        assert!(events.wait(PATIENCE).is_there);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn handler() -> (Handler, Receiver<()>) {
        let ((hints, hint), (closed, _)) = (sync_channel(1), sync_channel(1));
        let handler = Handler {
            written: BTreeSet::new(),
            hints,
            closed,
        };
        (handler, hint)
    }

    /// When its queue is full, the kernel drops events and tells only that.
    #[test]
    fn events_that_were_lost_are_a_hint() {
        let (mut handler, hint) = handler();
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        for event in [Ok(overflow), Err(notify::Error::generic("lost"))] {
            let shown = format!("{event:?}");
            handler.handle(event);
            assert_eq!(hint.try_recv(), Ok(()), "{shown}");
        }
    }

    #[test]
    fn files_that_are_open_for_a_write_are_bounded_in_number() {
        let (mut handler, _hint) = handler();
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for number in 0..2 * MAX_WRITTEN_FILES {
            let event = Event::new(written).add_path(number.to_string().into());
            handler.handle(Ok(event));
        }
        assert_eq!(handler.written.len(), MAX_WRITTEN_FILES);
    }

    #[test]
    fn a_limit_of_the_system_ends_the_watches_and_a_folder_that_has_gone_does_not() {
        let io = |errno: Errno| notify::Error::io(errno.into());
        for (error, is_limit) in [
            (notify::Error::new(notify::ErrorKind::MaxFilesWatch), true),
            (io(Errno::NOMEM), true),
            (io(Errno::ACCESS), false),
            (notify::Error::path_not_found(), false),
        ] {
            assert_eq!(is_exhaustion(&error), is_limit, "{error:?}");
        }
    }
}
