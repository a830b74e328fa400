//! Fixtures of all tests: the worker, a client, the ledger of a handler, and a look at `/proc`.
// Two test programs share this, and neither uses all of it.
#![allow(dead_code)]

pub(crate) mod client;
pub(crate) mod load;
pub(crate) mod processes;
pub(crate) mod runtime_api;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use client::{Connection, Response, assert_error, assert_result};
pub(crate) use worker::{Builder, Worker, misbehave, program, rust_example, sh, without_settings};

/// Long enough for anything that happens at all, on a machine with much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `condition` until it gives a value; fails the test at the deadline, [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// Polls `condition` until it gives a value; fails the test after `limit`.
#[track_caller]
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails unless less than `limit` has passed since `start`.
#[track_caller]
pub(crate) fn assert_within(limit: Duration, start: Instant) {
    let took = start.elapsed();
    assert!(took < limit, "{took:?}, and {limit:?} at most");
}

/// Waits until a handler has made this file.
#[track_caller]
pub(crate) fn wait_for_file(path: &str) {
    eventually(&format!("{path} is there"), || {
        Path::new(path).exists().then_some(())
    });
}

/// Small pseudo-random numbers that a failed run can be repeated with (xorshift64*).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn seeded(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A directory that is gone with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("faas-worker-it-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A pipe that everyone may execute, and that has no other end.
    pub(crate) fn pipe(&self, name: &str) -> String {
        let path = self.path(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        path
    }

    /// A file with this content and mode, in place at once.
    pub(crate) fn file(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> String {
        use std::os::unix::fs::PermissionsExt;
        let (path, unfinished) = (self.path(name), self.path("unfinished"));
        std::fs::write(&unfinished, content).unwrap();
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(unfinished, &path).unwrap();
        path
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The ledger of the misbehaving handler: one entry for each request that it started.
pub(crate) struct Ledger {
    scratch: Scratch,
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        let scratch = Scratch::new();
        std::fs::write(scratch.path("ledger"), "").unwrap();
        Ledger { scratch }
    }

    pub(crate) fn path(&self) -> String {
        self.scratch.path("ledger")
    }

    /// The misbehaving handler with these options and this ledger.
    pub(crate) fn misbehave(&self, options: &[&str]) -> Builder {
        misbehave(&[options, &["--ledger", &self.path()]].concat())
    }

    /// The payloads started, in order.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.entries()
            .iter()
            .map(|entry| entry["payload"].as_str().unwrap().to_owned())
            .collect()
    }

    /// All that was noted, in order.
    pub(crate) fn entries(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path()).unwrap();
        // An entry is one write, but a SIGKILL may cut a write that crosses a page. The process had
        // noted the request then, and got no further.
        text.lines()
            .filter(|line| !line.is_empty())
            .filter_map(|line| match serde_json::from_str(line) {
                Ok(entry) => Some(entry),
                Err(error) if error.is_eof() => None,
                Err(error) => panic!("{error} in the ledger's {line:?}"),
            })
            .collect()
    }

    pub(crate) fn count(&self, payload: &str) -> usize {
        self.payloads()
            .iter()
            .filter(|entry| *entry == payload)
            .count()
    }

    /// Waits until a process has started on this payload.
    #[track_caller]
    pub(crate) fn wait_for_start(&self, payload: &str) {
        self.wait_for_starts(payload, 1);
    }

    /// Waits until processes have started on this payload `count` times.
    #[track_caller]
    pub(crate) fn wait_for_starts(&self, payload: &str, count: usize) {
        eventually(&format!("{payload:?} was started {count} times"), || {
            (self.count(payload) >= count).then_some(())
        });
    }

    /// Waits until processes have started on `count` requests.
    #[track_caller]
    pub(crate) fn wait_for_entries(&self, count: usize) {
        eventually(&format!("{count} requests were started"), || {
            (self.entries().len() >= count).then_some(())
        });
    }

    /// Fails if any payload was started twice; the payloads of the test must differ.
    #[track_caller]
    pub(crate) fn assert_none_twice(&self) {
        let mut payloads = self.payloads();
        payloads.sort();
        for pair in payloads.windows(2) {
            assert_ne!(pair[0], pair[1], "this request was run twice");
        }
    }
}

/// The interpreter's path if there is one. Without it a test is skipped, but never in CI.
pub(crate) fn interpreter(name: &str) -> Option<String> {
    let ask = match name {
        "python3" => ["-c", "import sys; print(sys.executable)"],
        "node" => ["-p", "process.execPath"],
        other => panic!("no way to ask {other} for its path"),
    };
    let output = std::process::Command::new(name).args(ask).output();
    match output {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        }
        _ if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("{name} is required in CI")
        }
        _ => {
            eprintln!("skipped: {name} is not on this machine");
            None
        }
    }
}
