//! Takes requests from their source, and writes them to stdin.

use super::reading::ReadTurn;
use super::{Load, Owner, ProcessObserver, RequestSource};
use crate::process::conversation::Trust;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;
use tracing::warn;

impl<S: RequestSource + ProcessObserver> Owner<S> {
    /// Takes requests while the process may be given more; else passes its wake-up on.
    pub(super) fn take_requests(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let free_capacity = self.conversation.free_capacity(now);
        if !self.takes_no_more && free_capacity > 1 && self.source.waits_for_more(cx, free_capacity)
        {
            return;
        }
        while !self.takes_no_more && self.conversation.free_capacity(now) > 0 {
            if self.conversation.must_read_before_giving()
                && self.read_until_empty() == ReadTurn::Unfinished
            {
                // The rest of the output is read first, in a turn of its own.
                cx.waker().wake_by_ref();
                break;
            }
            let free_capacity = self.conversation.free_capacity(now);
            if free_capacity == 0 {
                break;
            }
            let Some(id) = self.draw_id() else { break };
            let load = Load {
                in_flight: self.conversation.in_flight(),
                free_capacity,
                immediate_capacity: self.conversation.immediate_capacity(now),
                has_replied: self.conversation.has_replied(),
                last_replied: self.conversation.last_replied(),
                position: self.conversation.next_position(),
            };
            let Poll::Ready(call) = self.source.poll_take(cx, load) else {
                return;
            };
            self.next_id = None;
            self.conversation.give(now, id, call);
            self.source.gave_id(id);
        }
        if *self.conversation.trust() == Trust::Sound {
            self.source.pass_on_wake_up();
        } else {
            self.source.leave();
        }
    }

    /// The id of the next request. Without random bytes there is none, and requests go to other
    /// processes or wait: an id that can be guessed would be worse.
    fn draw_id(&mut self) -> Option<u64> {
        while self.next_id.is_none() {
            match self.ids.next_id() {
                Ok(id) => self.next_id = Some(id).filter(|id| self.conversation.is_free(*id)),
                Err(error) => {
                    let process = self.process;
                    warn!(process, %error, "the system gives no random bytes for ids");
                    return None;
                }
            }
        }
        self.next_id
    }

    /// Writes as much as stdin accepts.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) {
        while !self.conversation.outgoing().is_empty() {
            let Some(stdin) = &self.stdin else { return };
            if stdin.poll_write_ready(cx).is_pending() {
                return;
            }
            match stdin.try_write(self.conversation.outgoing()) {
                Ok(written) => self.conversation.sent(Instant::now(), written),
                // The runtime then forgets that the pipe was ready, so the next pass of this loop
                // waits for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.conversation.input_closed(0),
            }
        }
    }

    pub(super) fn close_stdin_when_written(&mut self) {
        if self.takes_no_more && self.conversation.outgoing().is_empty() {
            self.stdin = None;
        }
    }
}
