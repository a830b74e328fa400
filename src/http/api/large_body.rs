//! The thread that searches large bodies for their payload, so that no other request waits for one.
//!
//! The thread is started with the worker and kept: if the system has no thread to give later, large
//! bodies are still searched. The thread also gives freed memory back to the system, which takes a
//! moment as well.

use super::payload::find_payload;
use crate::allocator;
use crate::budget::Reservation;
use crate::error::{RETRY_SOON, RequestFailure};
use bytes::Bytes;
use std::io;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

type FoundPayload = Result<(Bytes, Reservation), RequestFailure>;

enum Errand {
    Find {
        is_json: bool,
        body: Bytes,
        reservation: Reservation,
        reply: oneshot::Sender<FoundPayload>,
    },
    Trim,
}

/// The handle of the thread; clones share it, and the thread ends with the last of them.
#[derive(Debug, Clone)]
pub struct LargeBodies {
    errands: mpsc::Sender<Errand>,
}

impl LargeBodies {
    /// Starts the thread.
    pub fn start() -> io::Result<LargeBodies> {
        let (errands, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("bodies".to_owned())
            .spawn(move || received.into_iter().for_each(do_errand))?;
        Ok(LargeBodies { errands })
    }

    /// The payload of a body. The body counts as held until it was searched, also when its client
    /// has left; bodies are searched one after the other. Fails with [`RequestFailure::Overloaded`]
    /// when that takes longer than `limit`.
    pub(super) async fn find_payload(
        &self,
        is_json: bool,
        body: Bytes,
        reservation: Reservation,
        limit: Duration,
    ) -> FoundPayload {
        let (reply, found) = oneshot::channel();
        let errand = Errand::Find {
            is_json,
            body,
            reservation,
            reply,
        };
        let overloaded = || RequestFailure::Overloaded {
            why: "too many large bodies are being looked at".into(),
            retry_after: RETRY_SOON,
        };
        self.errands.send(errand).map_err(|_| overloaded())?;
        // Cancel-safe: the thread drops a body whose receiver is gone.
        match tokio::time::timeout(limit, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }

    /// Gives freed memory back to the system.
    pub fn trim(&self) {
        // Without the thread nothing is left to be given back.
        drop(self.errands.send(Errand::Trim));
    }
}

fn do_errand(errand: Errand) {
    match errand {
        Errand::Find { reply, .. } if reply.is_closed() => {}
        Errand::Find {
            is_json,
            body,
            reservation,
            reply,
        } => {
            let found = find_payload(is_json, &body).map(|payload| (payload, reservation));
            drop(body);
            // The client may have left meanwhile.
            drop(reply.send(found));
        }
        Errand::Trim => allocator::give_back(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;
    use std::task::{Context, Waker};
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    fn body_of(numbers: usize) -> Bytes {
        Bytes::from(format!("[{}1]", "1,".repeat(numbers)))
    }

    #[tokio::test]
    async fn a_body_counts_as_held_until_it_was_looked_at_caller_or_no_caller() {
        let body = Bytes::from(format!("{{\"payload\":\"{}\"}}", "x".repeat(100_000)));
        let length = body.len();
        let budget = MemoryBudget::new(length as u64 * 2);
        let reserved = || {
            let mut reservation = budget.reservation();
            assert!(reservation.grow_to(length));
            reservation
        };
        let bodies = LargeBodies::start().unwrap();
        // The payload goes on counting.
        let found = bodies.find_payload(true, body.clone(), reserved(), LONG);
        let found = found.await.unwrap();
        assert_eq!(budget.held(), length as u64);
        drop(found);
        assert_eq!(budget.held(), 0);

        let mut looking = Box::pin(bodies.find_payload(true, body, reserved(), LONG));
        let mut context = Context::from_waker(Waker::noop());
        // The other thread may have found it already.
        let _ = looking.as_mut().poll(&mut context);
        drop(looking);
        let end = Instant::now() + LONG;
        while budget.held() > 0 {
            assert!(Instant::now() < end, "it was never given back");
            std::thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_its_turn_no_longer_than_it_may() {
        let (errands, received) = mpsc::channel();
        let bodies = LargeBodies { errands };
        let budget = MemoryBudget::new(1 << 20);
        let found = bodies.find_payload(true, body_of(10), budget.reservation(), LONG);
        let refused = found.await.unwrap_err();
        assert!(
            matches!(refused, RequestFailure::Overloaded { .. }),
            "{refused:?}"
        );
        drop(received);
        let found = bodies.find_payload(true, body_of(10), budget.reservation(), LONG);
        assert!(matches!(
            found.await,
            Err(RequestFailure::Overloaded { .. })
        ));
    }
}
