//! The mailboxes in which wake-ups and answers cross from thread to thread.
//!
//! tokio wakes a task of another thread by a write to an event descriptor, each time, whether that
//! thread sleeps or not. Here a thread that is awake is sent no signal: it empties its mailbox at
//! each turn of a connection or a process, and before it sleeps. A thread that sleeps is rung once
//! for all letters that come until it wakes.

use crate::answer::Answer;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::Notify;

#[cfg(all(test, faas_model))]
use loom::{
    sync::Mutex,
    sync::atomic::{AtomicBool, Ordering},
    thread_local,
};
#[cfg(not(all(test, faas_model)))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

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

#[cfg(not(all(test, faas_model)))]
thread_local! {
    static HERE: Cell<ThreadNumber> = const { Cell::new(ThreadNumber::FIRST) };
    /// The mailbox of this thread, where there are several threads.
    static OWN: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}
// The model's threads are no threads of the system.
#[cfg(all(test, faas_model))]
thread_local! {
    static HERE: Cell<ThreadNumber> = Cell::new(ThreadNumber::FIRST);
    static OWN: RefCell<Option<Arc<Mailbox>>> = RefCell::new(None);
}

/// The number of the calling thread; the first one's for threads that do not serve.
pub fn this_thread() -> ThreadNumber {
    HERE.with(Cell::get)
}

/// Makes the calling thread the one with this number, which empties this mailbox.
pub(crate) fn receive_here(number: ThreadNumber, mailbox: Arc<Mailbox>) {
    HERE.with(|here| here.set(number));
    OWN.with(|own| own.replace(Some(mailbox)));
}

/// Delivers the letters of the calling thread. Each turn of a connection and of a process begins
/// with it, so that a thread which finds no time to sleep leaves no letter lying.
pub fn deliver_here() {
    OWN.with(|own| {
        if let Some(mailbox) = &*own.borrow()
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
    /// The thread sleeps, or is about to empty the mailbox for the last time before it does.
    /// Written before the thread takes the lock of `letters`, and read after a sender has held it:
    /// a letter is either seen by the thread, or its sender sees that the thread sleeps.
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
    pub(crate) fn before_sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        if self.deliver() {
            self.after_sleep();
        }
    }

    /// Called by the thread when it is awake again.
    pub(crate) fn after_sleep(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Delivers the letters each time that the bell rings; never ends.
    pub(crate) async fn answer_bell(self: Arc<Mailbox>) -> Infallible {
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

/// A count that each thread keeps for itself, so that threads do not wait for each other's memory.
#[derive(Debug)]
pub struct PerThreadCount(Box<[ThreadCount]>);

/// Alone in its cache lines: processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadCount(std::sync::atomic::AtomicUsize);

impl PerThreadCount {
    /// Adds one on the calling thread.
    pub fn add_here(&self) -> ThreadNumber {
        let here = this_thread();
        self.0[here.index()].0.fetch_add(1, Ordering::Relaxed);
        here
    }

    /// Takes away one that was added on the given thread.
    pub fn take_away(&self, thread: ThreadNumber) {
        self.0[thread.index()].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The sum over all threads.
    pub fn sum(&self) -> usize {
        let counts = self.0.iter();
        counts.map(|count| count.0.load(Ordering::Relaxed)).sum()
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

    /// The number of threads.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A count of 0 for as many threads.
    pub fn new_count(&self) -> PerThreadCount {
        PerThreadCount(self.0.iter().map(|_| ThreadCount::default()).collect())
    }

    /// Wakes a task of the given thread.
    pub fn wake(&self, thread: ThreadNumber, waker: Waker) {
        if thread == this_thread() {
            waker.wake();
        } else {
            self.of(thread).put([Letter::Wake(waker)]);
        }
    }

    /// Delivers answers on their threads, all answers for one thread together, and leaves their
    /// buffer empty.
    pub fn deliver(&self, answers: &mut Vec<(ThreadNumber, Answer)>) {
        let here = this_thread();
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

    pub(crate) fn of(&self, thread: ThreadNumber) -> &Arc<Mailbox> {
        &self.0[thread.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.0.iter()
    }
}

#[cfg(test)]
#[cfg(not(faas_model))]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Wake};
    use tokio::sync::oneshot;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn letter(woken: &Arc<Woken>) -> [Letter; 1] {
        [Letter::Wake(Arc::clone(woken).into())]
    }

    #[test]
    fn a_thread_is_rung_once_and_only_while_it_sleeps() {
        let mailbox = Arc::new(Mailbox::new());
        let [bell, task] = [(); 2].map(|()| Arc::<Woken>::default());
        let bell_waker = Arc::clone(&bell).into();
        let mut context = Context::from_waker(&bell_waker);
        let mut answering = pin!(Arc::clone(&mailbox).answer_bell());
        assert!(answering.as_mut().poll(&mut context).is_pending());
        mailbox.put(letter(&task));
        assert_eq!((bell.count(), task.count()), (0, 0), "it is awake");
        mailbox.before_sleep();
        assert_eq!(task.count(), 1);
        // The letter has kept it awake.
        mailbox.put(letter(&task));
        assert_eq!(bell.count(), 0);
        mailbox.before_sleep();
        mailbox.before_sleep();
        mailbox.put(letter(&task));
        mailbox.put(letter(&task));
        assert_eq!((bell.count(), task.count()), (1, 2));
        mailbox.after_sleep();
        assert!(answering.as_mut().poll(&mut context).is_pending());
        assert_eq!(task.count(), 4);
    }

    #[test]
    fn answers_reach_their_callers_on_each_thread() {
        let mailboxes = Mailboxes::new(NonZeroUsize::new(3).unwrap());
        let mut receivers = Vec::new();
        let mut answers = Vec::new();
        for index in [0, 2, 1, 2, 0] {
            let (sender, receiver) = oneshot::channel();
            let text = format!("{}", receivers.len());
            answers.push((
                ThreadNumber::new(index),
                Answer::new(sender, (Ok(text.into()), None)),
            ));
            receivers.push((index, receiver));
        }
        mailboxes.deliver(&mut answers);
        assert!(answers.is_empty());
        for (index, receiver) in &mut receivers {
            assert_eq!(receiver.try_recv().is_ok(), *index == 0);
        }
        for number in [1, 2] {
            mailboxes.of(ThreadNumber::new(number)).deliver();
        }
        for (at, (index, receiver)) in receivers.iter_mut().enumerate() {
            if *index > 0 {
                assert_eq!(receiver.try_recv().unwrap().0, Ok(at.to_string().into()));
            }
        }
    }

    #[test]
    fn a_turn_on_a_thread_delivers_what_lies_there() {
        let mailboxes = Mailboxes::new(NonZeroUsize::new(2).unwrap());
        let number = ThreadNumber::new(1);
        let task = Arc::<Woken>::default();
        mailboxes.wake(number, Arc::clone(&task).into());
        assert_eq!(task.count(), 0);
        deliver_here();
        assert_eq!(task.count(), 0, "this is another thread");
        receive_here(number, Arc::clone(mailboxes.of(number)));
        deliver_here();
        assert_eq!(task.count(), 1);
        // Its own tasks are woken immediately.
        mailboxes.wake(number, Arc::clone(&task).into());
        assert_eq!(task.count(), 2);
    }
}
