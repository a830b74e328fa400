//! The one thread that starts processes, and reaps those that are nobody's.
//!
//! It never ends: the kernel ties the signal that a process gets at its parent's death to the
//! thread that started it. And no stall of a start reaches the runtime. Starting and reaping are
//! done by the same thread, so that no child is reaped between its start and its being known.

use super::{LaunchError, LaunchSpec, Launched, Refusal, family, start};
use crate::process::memory;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

type Started = Result<Launched, Refusal>;

enum Work {
    Start(Arc<LaunchSpec>, oneshot::Sender<Started>),
    Reap(oneshot::Sender<()>),
    /// Measure the memory of this process and all below it.
    Measure(u32, Arc<AtomicU64>),
}

/// The way to the thread, once there is one.
static THREAD: Mutex<Option<mpsc::Sender<Work>>> = Mutex::new(None);

/// Starts the thread if there is none yet.
pub(super) fn prepare() -> io::Result<()> {
    thread().map(drop)
}

fn thread() -> io::Result<mpsc::Sender<Work>> {
    let mut known = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*known {
        return Ok(known.clone());
    }
    let (work, received) = mpsc::channel();
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(move || received.into_iter().for_each(do_work))?;
    // Kept here for good, so that the channel and with it the thread never end.
    Ok(known.insert(work).clone())
}

fn do_work(work: Work) {
    match work {
        Work::Start(_, reply) if reply.is_closed() => {}
        // A start that nobody waits for any more ends with the drop of what it gave.
        Work::Start(order, reply) => drop(reply.send(start(&order))),
        Work::Measure(pid, bytes) => {
            bytes.store(memory::resident_bytes(pid), Ordering::Relaxed);
        }
        Work::Reap(reply) => {
            family::reap_now();
            // Nobody may wait for it any more.
            let _ = reply.send(());
        }
    }
}

/// Starts one process.
pub(super) async fn launch(order: Arc<LaunchSpec>) -> Started {
    ask(|reply| Work::Start(order, reply))
        .await
        .unwrap_or_else(|error| Err(LaunchError::System(error.to_string()).into()))
}

/// Has the memory of a process and all below it measured. What `/proc` holds of a process that
/// forks without end takes long to read, so it is read here.
pub(super) fn measure(pid: u32, bytes: &Arc<AtomicU64>) {
    // Without the thread nothing was started.
    drop(thread().map(|thread| thread.send(Work::Measure(pid, Arc::clone(bytes)))));
}

/// Reaps every child that has ended and belongs to no slot.
pub(super) async fn reap() {
    // Without the thread nothing was started, and nothing is left behind.
    drop(ask(Work::Reap).await);
}

async fn ask<T>(work: impl FnOnce(oneshot::Sender<T>) -> Work) -> io::Result<T> {
    let gone = || io::Error::other("the launcher thread has ended");
    let (reply, done) = oneshot::channel();
    thread()?.send(work(reply)).map_err(|_| gone())?;
    done.await.map_err(|_| gone())
}
