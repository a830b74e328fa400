//! A timer of a task that checks its deadlines by itself when woken.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A timer that is set anew only when it must ring earlier. With a later deadline it rings too
/// early, which costs one comparison.
#[derive(Debug)]
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set_to: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Alarm {
        Alarm {
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            set_to: None,
        }
    }

    /// Has the task woken at the deadline.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) {
        loop {
            if self.set_to.is_none_or(|set_to| deadline < set_to) {
                self.sleep.as_mut().reset(deadline.into());
                self.set_to = Some(deadline);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.set_to = None;
            if deadline <= Instant::now() {
                cx.waker().wake_by_ref();
                return;
            }
        }
    }
}
