//! A file that is there while the worker takes requests, for platforms that look for one.

use crate::regular_file;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// The file; removed on drop.
#[derive(Debug)]
pub(super) struct LockFile(PathBuf);

impl LockFile {
    /// Makes the file. Without it the worker serves all the same.
    pub(super) fn create(path: &Path) -> Option<LockFile> {
        match regular_file::create(path) {
            Ok(_) => {
                info!(path = %path.display(), "lock file written");
                Some(LockFile(path.to_owned()))
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "lock file not written");
                None
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(path = %self.0.display(), %error, "lock file not removed");
        }
    }
}
