//! Opens files that operators name, and refuses what is no file: the open of a pipe would wait for
//! its other end.

use rustix::fs::OFlags;
use std::fs::{File, FileType, OpenOptions, metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file to read.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Makes an empty file, or empties the regular file that is there.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    open_with(options.write(true).create(true).truncate(true), path)
}

fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // The open of a device alone can start something.
    if let Ok(metadata) = metadata(path) {
        refuse_others(metadata.file_type())?;
    }
    // The path may name a pipe by now.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    refuse_others(file.metadata()?.file_type())?;
    Ok(file)
}

fn refuse_others(kind: FileType) -> io::Result<()> {
    match other_kind(kind) {
        Some(kind) => Err(io::Error::other(format!("not a regular file: {kind}"))),
        None => Ok(()),
    }
}

/// The kind of a file that is not regular, in words.
pub fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = std::env::temp_dir().join(format!("faas-kinds-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let path = |name| folder.join(name);
        mkfifoat(CWD, path("pipe"), Mode::from_raw_mode(0o777)).unwrap();
        let _listener = UnixListener::bind(path("socket")).unwrap();
        for (file, kind) in [
            (path("pipe"), "not a regular file: a pipe"),
            (path("socket"), "not a regular file: a socket"),
            ("/dev/null".into(), "not a regular file: a device"),
            (folder.clone(), "not a regular file: a directory"),
        ] {
            assert_eq!(open(&file).unwrap_err().to_string(), kind);
            assert_eq!(create(&file).unwrap_err().to_string(), kind);
        }
        create(&path("file")).unwrap();
        open(&path("file")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
