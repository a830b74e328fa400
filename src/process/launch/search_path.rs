//! The folders in which a command without a slash is looked for.

use std::ffi::OsString;

/// The folders where `PATH` is not set, or empty, as in what PySpark starts: where the system's and
/// the administrator's programs are.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whether the environment has a `PATH`.
pub fn has_path() -> bool {
    std::env::var_os("PATH").is_some_and(|path| !path.is_empty())
}

/// `PATH`, or [`DEFAULT_PATH`] without it.
pub(super) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    path.unwrap_or_else(|| DEFAULT_PATH.into())
}
