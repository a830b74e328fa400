//! The version of this build.

use std::sync::LazyLock;

/// The version of the crate, and behind it the commit where the build was told of it by the
/// variable `FAAS_REVISION`: `0.1.0 (9b1df33)`.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| described(env!("CARGO_PKG_VERSION"), option_env!("FAAS_REVISION")));
    &VERSION
}

fn described(version: &str, revision: Option<&str>) -> String {
    match revision.map(str::trim).filter(|name| !name.is_empty()) {
        Some(revision) => format!("{version} ({revision})"),
        None => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_stands_behind_the_version_if_it_is_known() {
        assert_eq!(described("1.2.3", Some("9b1df33\n")), "1.2.3 (9b1df33)");
        assert_eq!(described("1.2.3", Some("")), "1.2.3");
        assert_eq!(described("1.2.3", None), "1.2.3");
    }
}
