//! The items in hand, and the order in which they end.

use super::payload::InputLine;
use super::retry::{Next, Patience, judge};
use crate::answer::Outcome;
use crate::budget::MemoryBudget;
use crate::error::RequestFailure;
use crate::pool::{CallTimes, Job, PendingAnswer, Pool, RequestExtras};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::{Sleep, sleep};

/// An item that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) line: InputLine,
    pub(super) outcome: Outcome,
    /// When it was given to the pool for the last time.
    pub(super) called: Instant,
    pub(super) times: Option<CallTimes>,
}

impl Done {
    /// Whether the process of the item ended by a signal that asks a program to end.
    pub(super) fn was_told_to_end(&self) -> bool {
        let Err(RequestFailure::Exited(why)) = &self.outcome else {
            return false;
        };
        let why = why.full();
        ["SIGTERM", "SIGINT", "SIGHUP"]
            .iter()
            .any(|signal| why.contains(signal))
    }
}

/// The items in hand.
#[derive(Debug)]
pub(super) struct Window<'a> {
    pool: &'a Pool,
    budget: &'a MemoryBudget,
    items: VecDeque<Item<'a>>,
    bytes: usize,
    unordered: bool,
    patience: Patience,
}

#[derive(Debug)]
struct Item<'a> {
    line: InputLine,
    attempts: usize,
    called: Instant,
    state: State<'a>,
}

#[derive(Debug)]
enum State<'a> {
    /// The pool has the item.
    Called(PendingAnswer<'a>),
    /// The item has no payload, or the pool has not taken it.
    Refused(RequestFailure),
    /// The item is given to the pool again after this time.
    Pausing(Pin<Box<Sleep>>),
}

impl<'a> Window<'a> {
    pub(super) fn new(
        pool: &'a Pool,
        budget: &'a MemoryBudget,
        unordered: bool,
        patience: Patience,
    ) -> Window<'a> {
        Window {
            pool,
            budget,
            items: VecDeque::new(),
            bytes: 0,
            unordered,
            patience,
        }
    }

    /// Items in hand.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes of their lines, and of the replies that wait for an earlier one.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64 + self.budget.held()
    }

    /// Gives an item to the pool.
    pub(super) fn push(&mut self, line: InputLine) {
        self.bytes += line.text.len();
        let called = Instant::now();
        let state = self.call(&line);
        self.items.push_back(Item {
            line,
            attempts: 1,
            called,
            state,
        });
    }

    /// Gives up the items that no process has had: in input order, the last ones up to an item that
    /// may have been run. Returns how many.
    pub(super) fn withdraw_unstarted(&mut self) -> usize {
        let before = self.items.len();
        if self.unordered {
            self.items.retain_mut(|item| !item.withdraw());
        } else {
            while self.items.back_mut().is_some_and(Item::withdraw) {
                self.items.pop_back();
            }
        }
        self.bytes = self.items.iter().map(|item| item.line.text.len()).sum();
        before - self.items.len()
    }

    /// Appends items that have ended, as many as are found together: in input order, or all that
    /// there are.
    ///
    /// # Errors
    ///
    /// When the handler cannot be started, or keeps dying; says why.
    pub(super) fn poll_done(
        &mut self,
        cx: &mut Context<'_>,
        done: &mut Vec<Done>,
    ) -> Poll<Result<(), String>> {
        let mut index = 0;
        while index < self.items.len() {
            match self.poll_item(cx, index) {
                Poll::Ready(Ok(item)) => done.push(item),
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Pending if self.unordered => index += 1,
                Poll::Pending => break,
            }
        }
        if done.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Polls one item; an item that has ended is taken out.
    fn poll_item(&mut self, cx: &mut Context<'_>, index: usize) -> Poll<Result<Done, String>> {
        loop {
            let item = &mut self.items[index];
            let outcome = match &mut item.state {
                State::Called(answer) => std::task::ready!(Pin::new(answer).poll(cx)),
                State::Refused(failure) => Err(failure.clone()),
                State::Pausing(sleep) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    self.call_again(index);
                    continue;
                }
            };
            match judge(&outcome, item.attempts, Instant::now(), &mut self.patience) {
                Next::End => {
                    let Some(item) = self.items.remove(index) else {
                        return Poll::Pending;
                    };
                    self.bytes -= item.line.text.len();
                    let times = match &item.state {
                        State::Called(answer) => answer.times(),
                        State::Refused(_) | State::Pausing(_) => None,
                    };
                    return Poll::Ready(Ok(Done {
                        line: item.line,
                        outcome,
                        called: item.called,
                        times,
                    }));
                }
                Next::Again(after) => {
                    item.attempts -= usize::from(!has_counted(&outcome));
                    item.state = State::Pausing(Box::pin(sleep(after)));
                }
                Next::GiveUp(why) => return Poll::Ready(Err(why)),
            }
        }
    }

    fn call_again(&mut self, index: usize) {
        let called = Instant::now();
        let state = self.call(&self.items[index].line);
        let item = &mut self.items[index];
        item.attempts += 1;
        item.called = called;
        item.state = state;
    }

    fn call(&self, line: &InputLine) -> State<'a> {
        let payload = match &line.payload {
            Ok(payload) => payload.clone(),
            Err(failure) => return State::Refused(failure.clone()),
        };
        let mut reservation = self.budget.reservation();
        // The bytes are in memory already; the budget only counts.
        let _ = reservation.grow_to(payload.len());
        let job = Job {
            payload,
            extras: RequestExtras::default(),
            timeout: self.pool.timeout(),
            deadline: None,
            reservation,
        };
        match self.pool.call(job) {
            Ok(answer) => State::Called(answer),
            Err(failure) => State::Refused(failure),
        }
    }
}

impl Item<'_> {
    /// Whether no process has seen the item, and none will.
    fn withdraw(&mut self) -> bool {
        match &mut self.state {
            State::Called(answer) => self.attempts == 1 && answer.withdraw(),
            State::Pausing(_) => self.attempts == 0,
            State::Refused(_) => false,
        }
    }
}

/// Whether the attempt counts: a handler may have seen the item.
fn has_counted(outcome: &Outcome) -> bool {
    match outcome {
        Ok(_) => true,
        Err(failure) => failure.code().executed() != crate::error::Executed::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::map::InputForm;
    use crate::map::lines::RawLine;
    use crate::pool::tests::pool_for;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    #[tokio::test]
    async fn an_item_is_given_up_only_if_no_process_can_have_had_it() {
        let (pool, budget) = (pool_for(10), MemoryBudget::new(u64::MAX));
        let pausing = || State::Pausing(Box::pin(sleep(Duration::from_secs(1))));
        let refused = || State::Refused(RequestFailure::bad_request("no"));
        for (state, attempts, is_given_up) in [
            (None, 1, true),
            // The first attempt may have run it.
            (None, 2, false),
            (Some(pausing()), 0, true),
            (Some(pausing()), 1, false),
            (Some(refused()), 1, false),
        ] {
            let patience = Patience::new(NonZeroUsize::MIN);
            let mut window = Window::new(&pool, &budget, false, patience);
            let text = RawLine::Whole("x".into());
            window.push(InputLine::new(1, text, &InputForm::Text, 10));
            let item = &mut window.items[0];
            item.attempts = attempts;
            let told = format!("{state:?} {attempts}");
            if let Some(state) = state {
                item.state = state;
            }
            let withdrawn = window.withdraw_unstarted();
            assert_eq!(withdrawn, usize::from(is_given_up), "{told}");
        }
    }
}
