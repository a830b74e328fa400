//! The threads that serve: one single-threaded runtime each.
//!
//! Each connection and each slot of the pool belongs to one thread for its whole life, so a pipe or
//! a socket is read and written by one thread only. Requests and answers cross from thread to
//! thread in the [`mailbox`] of the thread that they go to.
//!
//! With one thread no mailbox is read, and nothing crosses.

pub mod mailbox;

use mailbox::{Mailbox, Mailboxes, ThreadNumber};
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// Most threads of each runtime for blocking work. The worker gives them none: large bodies, files
/// and the log have threads of their own. Without the limit, a library that blocks could start 512,
/// tokio's default.
const BLOCKING_THREADS: usize = 2;

/// The runtimes of all threads. The first one runs on the thread that calls [`Runtimes::block_on`].
///
/// Dropping it ends the other threads, and drops all tasks that they have.
#[derive(Debug)]
pub struct Runtimes {
    first: Runtime,
    threads: Threads,
    others: Vec<JoinHandle<()>>,
    end: CancellationToken,
}

impl Runtimes {
    /// Makes the runtimes, and starts the threads of all but the first.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or a descriptor.
    pub fn start(count: NonZeroUsize) -> io::Result<Runtimes> {
        let mailboxes = Mailboxes::new(count);
        let has_mail = count.get() > 1;
        let runtimes = mailboxes.iter().map(|mailbox| {
            let mailbox = has_mail.then(|| Arc::clone(mailbox));
            runtime(mailbox.as_ref())
        });
        let mut runtimes = runtimes.collect::<io::Result<Vec<_>>>()?;
        let threads = runtimes.iter().map(|runtime| Thread {
            runtime: runtime.handle().clone(),
            connections: AtomicUsize::new(0),
        });
        let threads = Threads {
            threads: threads.collect(),
            mailboxes,
        };
        let mut started = Runtimes {
            others: Vec::new(),
            end: CancellationToken::new(),
            threads,
            first: runtimes.remove(0),
        };
        if has_mail {
            mailbox::receive_here(ThreadNumber::FIRST, started.mailbox(ThreadNumber::FIRST));
        }
        for (index, runtime) in runtimes.into_iter().enumerate() {
            let number = ThreadNumber::new(index + 1);
            let (mailbox, end) = (started.mailbox(number), started.end.clone());
            let thread = std::thread::Builder::new().name(format!("serve-{}", index + 2));
            let thread = thread.spawn(move || {
                mailbox::receive_here(number, mailbox);
                runtime.block_on(end.cancelled());
            })?;
            // Dropped on an error, `started` ends the threads that have been started.
            started.others.push(thread);
        }
        Ok(started)
    }

    /// Runs a future on the calling thread, which must be the thread of [`Runtimes::start`], and
    /// with it the tasks of the first runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.first.block_on(future)
    }

    /// The threads, to give tasks to.
    pub fn threads(&self) -> Threads {
        self.threads.clone()
    }

    fn mailbox(&self, number: ThreadNumber) -> Arc<Mailbox> {
        Arc::clone(self.threads.mailboxes.of(number))
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.others.drain(..) {
            // A panic in a task stays in its task; a thread that has panicked all the same is over.
            drop(thread.join());
        }
    }
}

/// A runtime of one thread. With a mailbox, the thread empties it before it sleeps, and says so.
fn runtime(mailbox: Option<&Arc<Mailbox>>) -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_THREADS);
    if let Some(mailbox) = mailbox {
        let (parking, unparking) = (Arc::clone(mailbox), Arc::clone(mailbox));
        builder
            .on_thread_park(move || parking.before_sleep())
            .on_thread_unpark(move || unparking.after_sleep());
    }
    let runtime = builder.build()?;
    if let Some(mailbox) = mailbox {
        runtime.spawn(Arc::clone(mailbox).answer_bell());
    }
    Ok(runtime)
}

/// One thread, to give tasks to.
#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Open connections that were assigned to the thread.
    connections: AtomicUsize,
}

/// The threads of a worker, to give tasks to. Clones share them.
#[derive(Debug, Clone)]
pub struct Threads {
    threads: Arc<[Thread]>,
    mailboxes: Mailboxes,
}

impl Threads {
    /// The thread of the runtime that this is called in, alone.
    pub fn this_one() -> Threads {
        let thread = Thread {
            runtime: Handle::current(),
            connections: AtomicUsize::new(0),
        };
        Threads {
            threads: Arc::new([thread]),
            mailboxes: Mailboxes::new(NonZeroUsize::MIN),
        }
    }

    /// The runtime of the thread for a slot: slots are dealt out in turn.
    pub fn for_slot(&self, number: usize) -> &Handle {
        &self.threads[number % self.threads.len()].runtime
    }

    /// The thread with the fewest open connections, of several the first, with one connection more.
    pub fn for_connection(&self) -> ConnectionThread {
        let counts = self.threads.iter();
        let counts = counts.map(|thread| thread.connections.load(Ordering::Relaxed));
        let index = counts.enumerate().min_by_key(|(_, count)| *count);
        let index = index.map_or(0, |(index, _)| index);
        self.threads[index]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        ConnectionThread {
            threads: Arc::clone(&self.threads),
            index,
        }
    }

    /// The mailboxes of all threads.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Open connections, on all threads.
    pub fn connections(&self) -> usize {
        let threads = self.threads.iter();
        threads
            .map(|thread| thread.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Tasks that have not ended, on all threads.
    pub fn tasks(&self) -> usize {
        let threads = self.threads.iter();
        threads
            .map(|thread| thread.runtime.metrics().num_alive_tasks())
            .sum()
    }
}

/// The thread of one connection; counts the connection until this is dropped.
#[derive(Debug)]
pub struct ConnectionThread {
    threads: Arc<[Thread]>,
    index: usize,
}

impl ConnectionThread {
    /// The runtime of the thread; `None` if it is the runtime of the caller.
    pub fn elsewhere(&self) -> Option<&Handle> {
        let runtime = &self.threads[self.index].runtime;
        (self.index != mailbox::this_thread().index()).then_some(runtime)
    }
}

impl Drop for ConnectionThread {
    fn drop(&mut self) {
        self.threads[self.index]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(count: usize) -> Runtimes {
        Runtimes::start(NonZeroUsize::new(count).unwrap()).unwrap()
    }

    #[test]
    fn connections_go_to_the_thread_with_the_fewest() {
        let runtimes = start(3);
        let threads = runtimes.threads();
        let mut places: Vec<ConnectionThread> = (0..6).map(|_| threads.for_connection()).collect();
        let indexes: Vec<usize> = places.iter().map(|place| place.index).collect();
        assert_eq!(indexes, [0, 1, 2, 0, 1, 2]);
        places.remove(4);
        places.remove(1);
        assert_eq!(threads.for_connection().index, 1);
    }

    #[test]
    fn slots_are_dealt_out_in_turn_and_each_task_runs_on_its_thread() {
        let runtimes = start(2);
        let threads = runtimes.threads();
        let numbers = runtimes.block_on(async {
            let mut numbers = Vec::new();
            for slot in 0..4 {
                let task = threads
                    .for_slot(slot)
                    .spawn(async { mailbox::this_thread() });
                numbers.push(task.await.unwrap().index());
            }
            numbers
        });
        assert_eq!(numbers, [0, 1, 0, 1]);
    }

    #[test]
    fn the_end_drops_tasks_of_all_threads() {
        let runtimes = start(2);
        let token = CancellationToken::new();
        for slot in 0..2 {
            let guard = token.clone().drop_guard();
            let forever = async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            };
            runtimes.threads().for_slot(slot).spawn(forever);
        }
        assert!(!token.is_cancelled());
        drop(runtimes);
        assert!(token.is_cancelled());
    }
}
