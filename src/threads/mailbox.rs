//! The mailboxes in which wake-ups and answers cross from thread to thread.
//!
//! tokio wakes a task of another thread by a write to an event descriptor, each time, whether that
//! thread sleeps or not. Here a thread that is awake is sent no signal: it empties its mailbox at each
//! turn of a connection or a process, and before it sleeps. A thread that sleeps is rung once for all
//! letters that come until it wakes.

use crate::answer::Answer;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::Notify;

use sync::{AtomicBool, Mutex, Ordering};

/// The primitives whose interleavings the model of the hand-over goes through.
mod sync {
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

/// The number of a thread that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadNumber(u16);

impl ThreadNumber {
    /// The thread that accepts connections.
    pub const FIRST: ThreadNumber = ThreadNumber(0);

    /// The thread with this index.
    ///
    /// # Panics
    ///
    /// When the index does not fit; the flag `--threads` has a far smaller bound.
    pub fn new(index: usize) -> ThreadNumber {
        ThreadNumber(u16::try_from(index).expect("threads are few, by the bound of --threads"))
    }

    /// The index of the thread.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

thread_local! {
    static HERE: Cell<ThreadNumber> = const { Cell::new(ThreadNumber::FIRST) };
    /// The mailbox of this thread, where there are several threads.
    static OWN: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}

/// The number of the calling thread; the first one's for threads that do not serve.
pub fn here() -> ThreadNumber {
    HERE.get()
}

/// Makes the calling thread the one with this number, which empties this mailbox.
pub(super) fn receive_here(number: ThreadNumber, mailbox: Arc<Mailbox>) {
    HERE.set(number);
    OWN.set(Some(mailbox));
}

/// Delivers the letters of the calling thread. Each turn of a connection and of a process begins with
/// it, so that a thread which finds no time to sleep leaves no letter lying.
pub fn deliver_here() {
    OWN.with_borrow(|own| {
        if let Some(mailbox) = own
            && mailbox.has_mail.load(Ordering::Relaxed)
        {
            mailbox.deliver();
        }
    });
}

/// What crosses from one thread to another.
#[derive(Debug)]
enum Letter {
    /// Wakes a task.
    Wake(Waker),
    /// Answers a call.
    Answer(Answer),
}

impl Letter {
    fn deliver(self) {
        match self {
            Letter::Wake(waker) => waker.wake(),
            Letter::Answer(answer) => answer.deliver(),
        }
    }
}

/// The letters for one thread.
#[derive(Debug)]
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    /// A hint for the thread itself. Set under the lock of `letters`.
    has_mail: AtomicBool,
    /// The thread sleeps, or is about to look into the mailbox for the last time before it does.
    /// Written before the thread takes the lock of `letters`, and read after a sender has held it: a
    /// letter is either seen by the thread, or its sender sees that the thread sleeps.
    is_asleep: AtomicBool,
    /// Wakes the thread.
    bell: Notify,
}

impl Mailbox {
    fn new() -> Mailbox {
        Mailbox {
            letters: Mutex::new(Vec::new()),
            has_mail: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            bell: Notify::new(),
        }
    }

    /// Puts letters in; wakes the thread if it sleeps.
    fn put(&self, letters: impl IntoIterator<Item = Letter>) {
        let mut held = self.lock();
        held.extend(letters);
        self.has_mail.store(true, Ordering::Relaxed);
        drop(held);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// Delivers all letters; says whether there were any.
    fn deliver(&self) -> bool {
        let mut held = self.lock();
        let letters = std::mem::take(&mut *held);
        self.has_mail.store(false, Ordering::Relaxed);
        drop(held);
        let is_some = !letters.is_empty();
        letters.into_iter().for_each(Letter::deliver);
        is_some
    }

    /// Called by the thread before it sleeps. A letter that it delivers keeps it awake.
    pub(super) fn before_sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        if self.deliver() {
            self.after_sleep();
        }
    }

    /// Called by the thread when it is awake again.
    pub(super) fn after_sleep(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Delivers the letters each time that the bell rings; never ends.
    pub(super) async fn answer_bell(self: Arc<Mailbox>) -> Infallible {
        loop {
            self.bell.notified().await;
            self.deliver();
        }
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Vec<Letter>> {
        // A panic under the lock is a defect, but no reason to lose every later letter.
        self.letters
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The mailboxes of all threads of a worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Mailboxes(Arc<[Arc<Mailbox>]>);

impl Mailboxes {
    /// Mailboxes for this many threads.
    pub fn new(count: NonZeroUsize) -> Mailboxes {
        let mailboxes = (0..count.get()).map(|_| Arc::new(Mailbox::new()));
        Mailboxes(mailboxes.collect())
    }

    /// Wakes a task of this thread.
    pub fn wake(&self, thread: ThreadNumber, waker: Waker) {
        if thread == here() {
            waker.wake();
        } else {
            self.of(thread).put([Letter::Wake(waker)]);
        }
    }

    /// Delivers answers on their threads, all answers for one thread together, and leaves their buffer
    /// empty.
    pub fn deliver(&self, answers: &mut Vec<(ThreadNumber, Answer)>) {
        let here = here();
        for (_, answer) in answers.extract_if(.., |(thread, _)| *thread == here) {
            answer.deliver();
        }
        while let Some((thread, _)) = answers.last() {
            let thread = *thread;
            let for_it = answers.extract_if(.., |(to, _)| *to == thread);
            let letters = for_it.map(|(_, answer)| Letter::Answer(answer));
            self.of(thread).put(letters);
        }
    }

    pub(super) fn of(&self, thread: ThreadNumber) -> &Arc<Mailbox> {
        &self.0[thread.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.0.iter()
    }
}
