//! How far the shutdown of a worker has come: one stage, shared by all parts that act on it.
//!
//! Stages are passed in order and never left again; to skip some is to pass them at the same
//! time. Each part acts on the stage that concerns it, and none tells another.
//!
//! | stage | begins | from then on |
//! |---|---|---|
//! | [`Stage::Draining`] | with the signal | `/ready` says no; a connection closes after its response |
//! | [`Stage::Closed`] | after `--drain-delay` | no connection is accepted; 1 s later idle ones close |
//! | [`Stage::IdleStopped`] | 1 s after `Closed` | processes without work are stopped |
//! | [`Stage::Stopping`] | when all is answered, or after `--drain-timeout` | no request is taken on; every process is asked to end |
//! | [`Stage::Terminating`] | after `--drain-timeout` | processes that stop are asked by SIGTERM |
//! | [`Stage::Killing`] | `--grace` later, at most 1.75 s, or with a second signal | processes get SIGKILL |
//! | [`Stage::Aborting`] | when the last responses are written and the last spans are sent, or their time is over; immediately after a second signal | callers' connections are dropped |
//! | [`Stage::Ended`] | 0.5 s later at most | connections to the address of `--admin` are dropped |

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio_util::sync::CancellationToken;

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// The worker serves; no shutdown has begun.
    Serving,
    /// The worker still serves, and says that it will end.
    Draining,
    /// No connection is accepted any more.
    Closed,
    /// Processes that have nothing to do are stopped.
    IdleStopped,
    /// No request is taken on or waits any more, and every process is asked to end.
    Stopping,
    /// Processes that stop are asked by SIGTERM.
    Terminating,
    /// Processes are killed.
    Killing,
    /// Connections are dropped.
    Aborting,
    /// Connections to the address for operators are dropped.
    Ended,
}

/// The stages that can be waited for.
const STAGES: usize = Stage::Ended as usize;

/// The stage of a shutdown. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<ShutdownState>,
}

#[derive(Debug, Default)]
struct ShutdownState {
    /// Beside the tokens, because each request reads it, and reading a token takes a lock.
    stage: AtomicU8,
    /// For each stage behind [`Stage::Serving`], in order, a token that is cancelled when it
    /// begins.
    begun: [CancellationToken; STAGES],
}

impl Shutdown {
    /// Begins a stage, and all before it that have not begun. Of no effect if it has begun already.
    pub fn advance(&self, stage: Stage) {
        self.shared.stage.fetch_max(stage as u8, Ordering::AcqRel);
        // In order, so that a task that waits for several sees the first one first.
        for begun in &self.shared.begun[..stage as usize] {
            begun.cancel();
        }
    }

    /// Whether this stage has begun.
    pub fn is_at_least(&self, stage: Stage) -> bool {
        self.shared.stage.load(Ordering::Acquire) >= stage as u8
    }

    /// Waits until this stage has begun. [`Stage::Serving`] is waited for in vain.
    // Cancel-safe: a stage that has begun stays so.
    pub async fn reached(&self, stage: Stage) {
        match self.token(stage) {
            Some(begun) => begun.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Runs the future to its end, or until this stage begins; gives `None` then.
    // As cancel-safe as the future.
    pub async fn run_until<F: Future>(&self, stage: Stage, future: F) -> Option<F::Output> {
        match self.token(stage) {
            Some(begun) => begun.run_until_cancelled(future).await,
            None => Some(future.await),
        }
    }

    /// A token that is cancelled when this stage begins, and may be cancelled alone before that.
    pub fn child_token(&self, stage: Stage) -> CancellationToken {
        self.token(stage)
            .map_or_else(CancellationToken::new, CancellationToken::child_token)
    }

    fn token(&self, stage: Stage) -> Option<&CancellationToken> {
        self.shared.begun.get((stage as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Stage; STAGES + 1] = [
        Stage::Serving,
        Stage::Draining,
        Stage::Closed,
        Stage::IdleStopped,
        Stage::Stopping,
        Stage::Terminating,
        Stage::Killing,
        Stage::Aborting,
        Stage::Ended,
    ];

    #[test]
    fn a_stage_begins_with_all_before_it_and_none_behind_it() {
        for begun in ALL {
            let shutdown = Shutdown::default();
            shutdown.advance(begun);
            // Never back.
            shutdown.advance(Stage::Serving);
            for stage in ALL {
                assert_eq!(shutdown.is_at_least(stage), stage <= begun);
                let is_reached = stage <= begun && stage != Stage::Serving;
                assert_eq!(shutdown.child_token(stage).is_cancelled(), is_reached);
            }
        }
    }

    #[tokio::test]
    async fn clones_share_the_stage_and_wait_for_it() {
        let shutdown = Shutdown::default();
        let other = shutdown.clone();
        let waits = tokio::spawn(async move { other.reached(Stage::Stopping).await });
        shutdown.advance(Stage::Killing);
        waits.await.unwrap();
        let never = std::future::pending::<()>();
        assert_eq!(shutdown.run_until(Stage::Closed, never).await, None);
        let at_once = std::future::ready(1);
        assert_eq!(shutdown.run_until(Stage::Aborting, at_once).await, Some(1));
    }
}
