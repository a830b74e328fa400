//! Measures the memory of a process and of its descendants beside the runtime.

use super::launcher_thread;
use crate::procfs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Has the resident memory of a process and its descendants measured; `bytes` is set then. On
/// another thread than the runtime's, because `/proc` takes long to read for a process that forks
/// without end.
pub fn measure_memory(pid: u32, bytes: &Arc<AtomicU64>) {
    let bytes = Arc::clone(bytes);
    launcher_thread::send(move || {
        bytes.store(procfs::tree_resident_bytes(pid), Ordering::Relaxed);
    });
}
