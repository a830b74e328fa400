//! The directory in which processes start: a path that is resolved anew at each start.
//!
//! A release is mostly put in place by moving a link, and a process of the kernel keeps the folder
//! that the link meant when it was entered. So the worker remembers the path, not the folder.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory in which processes start, and to which relative paths of settings are relative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The path by which the working directory was entered; `None` if the environment does not tell
    /// it, which means the working directory itself.
    working: Option<PathBuf>,
    /// From `--chdir`.
    chosen: Option<PathBuf>,
}

impl Directory {
    /// The folder of `--chdir`, else the path in `PWD`, if it leads to the working directory now.
    pub fn find(chosen: Option<&Path>) -> Directory {
        let working = std::env::var_os("PWD").filter(names_working_directory);
        let working = working.map(PathBuf::from);
        let chosen = chosen.map(|path| match &working {
            Some(working) => working.join(path),
            None => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        });
        Directory { working, chosen }
    }

    /// The path to enter before a command is executed, if it is not the working directory.
    pub(super) fn to_enter(&self) -> Option<&Path> {
        self.chosen.as_deref().or(self.working.as_deref())
    }

    /// The directory as a path for this process: relative commands are looked up from there.
    pub fn path(&self) -> &Path {
        self.to_enter().unwrap_or(Path::new("."))
    }

    /// The absolute path for a path of the settings, which may be relative to where the worker was
    /// started.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.working
            .as_deref()
            .map_or_else(|| path.to_owned(), |working| working.join(path))
    }

    /// The value that processes get as `PWD`, if the worker's own would be wrong.
    pub(super) fn pwd_value(&self) -> Option<&Path> {
        self.chosen.as_deref()
    }
}

fn names_working_directory(path: &OsString) -> bool {
    let path = Path::new(path);
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    path.is_absolute() && identity(path).is_some_and(|named| Some(named) == identity(".".as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_means_another_folder_is_not_the_working_directory() {
        let here = std::env::current_dir().unwrap();
        assert!(names_working_directory(&here.clone().into_os_string()));
        for other in ["/", "", ".", "/no/such/folder", "src"] {
            assert!(!names_working_directory(&other.into()), "{other}");
        }
    }

    #[test]
    fn paths_are_relative_to_where_the_worker_was_started_and_commands_to_where_they_start() {
        let chosen = Directory {
            working: Some("/home/releases/current".into()),
            chosen: Some("/srv/function".into()),
        };
        assert_eq!(chosen.path(), Path::new("/srv/function"));
        assert_eq!(
            chosen.absolute("data".as_ref()),
            Path::new("/home/releases/current/data")
        );
        assert_eq!(chosen.absolute("/data".as_ref()), Path::new("/data"));
        let unknown = Directory {
            working: None,
            chosen: None,
        };
        assert_eq!(unknown.to_enter(), None);
        assert_eq!(unknown.absolute("data".as_ref()), Path::new("data"));
    }
}
