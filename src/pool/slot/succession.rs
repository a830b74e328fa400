//! How a successor takes the place of the current process: it is asked for, started, tried, and
//! then installed or given up.

use super::departure::{Replacement, StopReason};
use super::member::Role;
use super::start::Started;
use super::{Slot, Successor};
use crate::logging::milliseconds;
use crate::metrics::StartReason;
use crate::process::launch::LaunchError;
use std::time::Duration;
use tracing::{debug, warn};

impl Slot {
    /// Asks for a successor; the current process goes on until that one is up.
    pub(super) fn supersede(&mut self) {
        if let Some(current) = &mut self.current {
            current.member_mut().set_role(Role::Superseded);
        }
        self.successor = Successor::Wanted(Duration::ZERO);
    }

    pub(super) fn forget_renewal(&mut self) {
        self.renewal = None;
        if self.current.is_some() {
            self.keep_current();
        }
    }

    /// Gives up the successor; the current process serves on.
    pub(super) fn keep_current(&mut self) {
        self.abandon_successor();
        if let Some(current) = &mut self.current {
            current.member_mut().set_role(Role::Serving);
        }
    }

    pub(super) fn abandon_successor(&mut self) {
        match std::mem::replace(&mut self.successor, Successor::Nothing) {
            Successor::Nothing | Successor::NotNeeded | Successor::Wanted(_) => {}
            Successor::Starting(start) => {
                // The process may be running by now, and must be stopped and reaped.
                let abandoned = start.abandon();
                let policy = self.policy();
                self.leaving.spawn(async move {
                    if let Some(running) = abandoned.await {
                        running
                            .stop(StopReason::Replaced(Replacement::Reload), policy)
                            .await;
                    }
                });
            }
            Successor::ComingUp(running) => {
                self.stop_aside(running, StopReason::Replaced(Replacement::Reload))
            }
        }
    }

    pub(super) fn started(&mut self, started: Started) {
        self.successor = Successor::Nothing;
        if matches!(started, Ok(Some(_))) {
            let metrics = &self.starter.dispatcher.metrics;
            metrics.processes.started(self.start_reason);
            self.start_reason = StartReason::Replace;
            self.starter.facts.restarts += 1;
        }
        let error = match started {
            Ok(Some(mut running)) if self.current.is_some() => {
                running.member_mut().set_role(Role::Candidate);
                self.successor = Successor::ComingUp(running);
                return;
            }
            Ok(Some(running)) => {
                self.install(running);
                return;
            }
            Ok(None) => return,
            Err(error) => error,
        };
        let delay = self.backoff.next(fastrand::f64());
        match error {
            LaunchError::Command(why) => {
                if self.current.is_none() {
                    let note = why.clone();
                    let dispatcher = &self.starter.dispatcher;
                    dispatcher.record(|health| health.cannot_execute(note, delay));
                }
                self.successor_failed(why.full().to_owned(), delay);
            }
            LaunchError::System(why) => {
                warn!(%why, retry_in_ms = milliseconds(delay), "process not started");
                let note = why.clone().into();
                let dispatcher = &self.starter.dispatcher;
                dispatcher.record(|health| health.start_refused(note, delay));
                self.successor_failed(why, delay);
            }
        }
    }

    /// The successor failed. If a reload asked for it, the reload is told and the current process
    /// stays; otherwise the start is tried again after `delay`.
    pub(super) fn successor_failed(&mut self, why: String, delay: Duration) {
        let was_asked_for = self.renewal.is_some();
        self.report(Err(why));
        if was_asked_for && self.current.is_some() {
            self.keep_current();
        } else {
            self.successor = Successor::Wanted(delay);
        }
    }

    pub(super) fn begin_trial(&mut self) {
        if let Successor::ComingUp(running) = &mut self.successor {
            running.member_mut().set_role(Role::OnTrial);
        }
    }

    pub(super) fn successor_left(&mut self, reason: StopReason) {
        let Successor::ComingUp(running) =
            std::mem::replace(&mut self.successor, Successor::Nothing)
        else {
            return;
        };
        let delay = self.backoff.next(fastrand::f64());
        let why = self.note_end(running, reason);
        self.successor_failed(why.to_string(), delay);
    }

    /// The successor is up: installs it, and stops the process that it replaces.
    pub(super) fn take_over(&mut self) {
        let Successor::ComingUp(running) =
            std::mem::replace(&mut self.successor, Successor::Nothing)
        else {
            return;
        };
        if let Some(replaced) = self.install(running) {
            debug!(
                process = replaced.number(),
                "successor is up, the old process is stopped"
            );
            let why = match self.renewal {
                Some(_) => Replacement::Reload,
                None => Replacement::Recycled,
            };
            self.stop_aside(replaced, StopReason::Replaced(why));
        }
    }
}
