//! Deadlines of the conversation, and the timer for them.

use super::reading::ReadTurn;
use super::{Owner, ProcessObserver, RequestSource};
use crate::procfs::{activity, is_suspended, is_tree_runnable};
use std::task::Context;
use std::time::Instant;

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// Acts upon deadlines that have passed, when the bytes that stdout holds are handled.
    pub(super) fn check_deadlines(&mut self, cx: &mut Context<'_>) {
        let slowest_start = self.source.slowest_start();
        let now = Instant::now();
        if self
            .conversation
            .next_deadline(slowest_start)
            .is_none_or(|deadline| deadline > now)
        {
            self.expires_when_taken_in = None;
            return;
        }
        // An answer that is there wins over the deadline, however late this thread comes. Output
        // after that moment does not put the deadline off.
        let there = self.unhandled.len() as u64 + self.bytes_in_stdout();
        let target = *self
            .expires_when_taken_in
            .get_or_insert(self.taken_in + there);
        if self.read_a_turn() == ReadTurn::Unfinished && self.taken_in < target {
            cx.waker().wake_by_ref();
            return;
        }
        self.expires_when_taken_in = None;
        if !self.conversation.must_check_activity(now) {
            self.conversation.record_suspended(is_suspended(self.pid));
        }
        // The process's last print may not be over: the process may have had no processor.
        if self.conversation.must_check_runnable(now) && is_tree_runnable(self.pid) {
            self.conversation.record_runnable(now);
        }
        self.read_at = now;
        self.conversation.expire(now, slowest_start);
        if self.conversation.must_check_activity(now) {
            let activity = activity(self.pid);
            self.conversation.record_activity(now, activity);
        }
        self.handle_events();
    }

    /// Has the task woken at the next deadline.
    pub(super) fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let deadline = self.conversation.next_deadline(self.source.slowest_start());
        let Some(deadline) = deadline else { return };
        self.alarm.poll(cx, deadline);
    }
}
