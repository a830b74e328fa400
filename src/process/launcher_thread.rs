//! The thread that starts processes, reaps orphans, and does what would stall the runtime.
//!
//! The thread never ends: the kernel ties the signal that a process gets at its parent's death to
//! the thread that started the process. The same thread reaps orphans, so that no child is taken
//! for an orphan between its start and its entry in the list of the pool's processes.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

type Closure = Box<dyn FnOnce() + Send>;

/// The channel to the thread, once the thread runs.
static THREAD: Mutex<Option<mpsc::Sender<Closure>>> = Mutex::new(None);

/// Starts the thread if it does not run yet.
pub(super) fn prepare() -> io::Result<()> {
    thread().map(drop)
}

fn thread() -> io::Result<mpsc::Sender<Closure>> {
    let mut known = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*known {
        return Ok(known.clone());
    }
    let (sender, received) = mpsc::channel::<Closure>();
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(move || received.into_iter().for_each(|work| work()))?;
    // Kept here for good, so that the channel and with it the thread never end.
    Ok(known.insert(sender).clone())
}

/// Has the thread do something, and does not wait for it.
pub(super) fn send(work: impl FnOnce() + Send + 'static) {
    // Without the thread no process was started, and there is nothing to do.
    drop(thread().map(|thread| thread.send(Box::new(work))));
}

/// Has the thread do something, and returns its result. Work that has not begun when the future is
/// dropped is left out; the result of work that has begun is dropped.
pub(super) async fn run<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let gone = || io::Error::other("the launcher thread has ended");
    let (reply, done) = oneshot::channel();
    let work = move || {
        if !reply.is_closed() {
            drop(reply.send(work()));
        }
    };
    thread()?.send(Box::new(work)).map_err(|_| gone())?;
    done.await.map_err(|_| gone())
}
