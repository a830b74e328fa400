//! Starts processes of one command.
//!
//! A process is started in two steps: this program is executed once more, makes itself what a
//! handler may be (`step`), and executes the handler's command. So the start of a process needs
//! no code between fork and exec, and costs no copy of the worker's memory map.
//!
//! Each process leads a session and a process group of its own, so that the processes which it
//! starts end with it, and the worker's terminal can neither interrupt nor stop it.

mod diagnosis;
mod directory;
mod plan;
mod platform;
mod sandbox;
mod search_path;
mod spawner;
mod step;

use super::launcher_thread;
use super::reaping::OomWatch;
use crate::config::{Command, IsolationConfig};
use rustix::process::Rlimit;
use spawner::LaunchSpec;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use diagnosis::{LaunchError, shell_syntax};
pub use directory::Directory;
pub use platform::check_platform;
pub use sandbox::supported as sandbox_supported;
pub use search_path::{DEFAULT_PATH, has_path};
pub use spawner::{Launched, Watched};
pub use step::launch_if_asked;

/// Longest wait for the file of a command that is being written.
const BUSY_FILE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two tries to execute a file that is being written.
const BUSY_FILE_RETRY_PERIOD: Duration = Duration::from_millis(25);

/// Starts processes of one command. Clones share its state.
#[derive(Debug, Clone)]
pub struct Launcher {
    spec: Arc<LaunchSpec>,
}

impl Launcher {
    /// Prepares to start processes. They get `descriptor_limit` back if it is given: the limit
    /// that the worker had before it raised its own.
    pub fn new(
        command: Command,
        mut isolation: IsolationConfig,
        directory: Directory,
        descriptor_limit: Option<Rlimit>,
    ) -> io::Result<Launcher> {
        launcher_thread::prepare()?;
        if let Some(paths) = &mut isolation.sandbox {
            for path in paths.read.iter_mut().chain(&mut paths.write) {
                *path = directory.absolute(path);
            }
        }
        Ok(Launcher {
            spec: Arc::new(LaunchSpec {
                command,
                isolation,
                directory,
                last_start: Mutex::new(None),
                soft_files: descriptor_limit.and_then(|limit| limit.current),
                oom: Arc::new(OomWatch::start()),
            }),
        })
    }

    /// Most private memory that a process may write to, if that is limited.
    pub fn memory_limit(&self) -> Option<u64> {
        self.spec.isolation.memory_bytes
    }

    /// Most open files of a process, if that is limited.
    pub fn files_limit(&self) -> Option<u64> {
        self.spec.isolation.files
    }

    /// Starts one process, and returns when the command was executed in it. A file that is being
    /// written is waited for, for a short while.
    pub async fn launch(&self) -> Result<Launched, LaunchError> {
        let begun = Instant::now();
        loop {
            match spawner::launch(Arc::clone(&self.spec)).await {
                Ok(launched) => return Ok(launched),
                Err(refusal) if refusal.is_busy && begun.elapsed() < BUSY_FILE_TIMEOUT => {
                    tokio::time::sleep(BUSY_FILE_RETRY_PERIOD).await;
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
    }
}
