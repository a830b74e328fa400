//! How it is noticed that something may have changed: by events of the kernel, or by looking again
//! and again.
//!
//! Neither says what has changed; the next look does.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Files whose end of a write is waited for; more are forgotten.
const MOST_WRITERS: usize = 1024;

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 16 * 1024;

/// The kernel's events for a set of folders.
#[derive(Debug)]
pub(super) struct Events {
    inotify: OwnedFd,
    folders: BTreeMap<i32, PathBuf>,
    /// Files that were written to and are open for it still.
    written: BTreeSet<PathBuf>,
}

/// What came within some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hint {
    /// Whether anything came at all.
    pub(super) is_there: bool,
    /// Files that were written to, and are closed now.
    pub(super) closed: Vec<PathBuf>,
}

impl Events {
    pub(super) fn new() -> rustix::io::Result<Events> {
        Ok(Events {
            inotify: init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            folders: BTreeMap::new(),
            written: BTreeSet::new(),
        })
    }

    /// Watches these folders from now on, and no others. Fails when the user may watch no more.
    pub(super) fn follow(&mut self, folders: &BTreeSet<PathBuf>) -> rustix::io::Result<()> {
        let wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut followed = BTreeMap::new();
        for folder in folders {
            // Of one that is watched already, the same number comes back; of a new one with an old
            // name, another.
            match add_watch(&self.inotify, folder, wanted) {
                Ok(watch) => drop(followed.insert(watch, folder.clone())),
                Err(error @ (Errno::NOSPC | Errno::NOMEM)) => return Err(error),
                // It has gone, or is closed to us.
                Err(_) => {}
            }
        }
        for watch in self
            .folders
            .keys()
            .filter(|watch| !followed.contains_key(watch))
        {
            // The kernel ends the watch of a folder that was removed by itself.
            let _ = remove_watch(&self.inotify, *watch);
        }
        self.folders = followed;
        Ok(())
    }

    /// Waits for events for so long, and takes all that are there.
    pub(super) fn wait(&mut self, limit: Duration) -> rustix::io::Result<Hint> {
        let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
        let mut polled = [PollFd::new(&self.inotify, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Hint::default()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let mut hint = Hint::default();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(hint),
                Err(error) => return Err(error),
            };
            hint.is_there = true;
            let folder = self.folders.get(&event.wd());
            let (Some(folder), Some(name)) = (folder, event.file_name()) else {
                continue;
            };
            let file = folder.join(OsStr::from_bytes(name.to_bytes()));
            if event.events().contains(ReadFlags::MODIFY) && self.written.len() < MOST_WRITERS {
                self.written.insert(file);
            } else if event.events().contains(ReadFlags::CLOSE_WRITE) && self.written.remove(&file)
            {
                // Without a write before it, the close changes nothing: a lock file's, for example.
                hint.closed.push(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn the_close_of_a_write_is_told_and_that_of_no_write_is_not() {
        let folder = std::env::temp_dir().join(format!("faas-means-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("handler");
        std::fs::write(&path, "0").unwrap();
        let mut events = Events::new().unwrap();
        events.follow(&BTreeSet::from([folder.clone()])).unwrap();
        assert_eq!(events.wait(SOON).unwrap(), Hint::default());
        let open = || File::options().append(true).open(&path).unwrap();
        drop(open());
        let hint = events.wait(SOON).unwrap();
        assert!(hint.is_there && hint.closed.is_empty(), "{hint:?}");
        let mut file = open();
        file.write_all(b"1").unwrap();
        assert!(events.wait(SOON).unwrap().closed.is_empty());
        drop(file);
        assert_eq!(
            events.wait(SOON).unwrap().closed,
            std::slice::from_ref(&path)
        );
        events.follow(&BTreeSet::new()).unwrap();
        let _ = events.wait(SOON);
        drop(open());
        assert!(!events.wait(SOON).unwrap().is_there);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
