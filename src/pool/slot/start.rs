//! The start of a process: back-off, permit, launch.

use super::live::LiveProcess;
use super::member::Role;
use crate::config::ProcessConfig;
use crate::pool::dispatch::Dispatcher;
use crate::pool::status::SlotFacts;
use crate::process::launch::{LaunchError, Launcher};
use crate::process::output_log::LogAllowance;
use crate::shutdown::Stage;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What a slot needs to start a process.
#[derive(Debug, Clone)]
pub(super) struct Starter {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) launcher: Launcher,
    pub(super) config: ProcessConfig,
    /// How much the processes of this slot may log.
    pub(super) allowance: LogAllowance,
    /// The slot, as the status of the next process tells it.
    pub(super) facts: SlotFacts,
}

/// The result of a start; `None` if it was abandoned before a process was launched.
pub(super) type Started = Result<Option<Box<LiveProcess>>, LaunchError>;

/// A start that is under way.
///
/// Must be abandoned rather than dropped: the process may be running already.
pub(super) struct PendingStart {
    running: Pin<Box<dyn Future<Output = Started> + Send>>,
    given_up: CancellationToken,
}

impl Starter {
    /// Starts a process after a delay, once a permit to start is free. Abandoned by itself if the
    /// pool stops before that.
    pub(super) fn start(&self, delay: Duration) -> PendingStart {
        let given_up = self.dispatcher.shutdown.child_token(Stage::Stopping);
        let running = self.clone().wait_and_launch(delay, given_up.clone());
        PendingStart {
            running: Box::pin(running),
            given_up,
        }
    }

    async fn wait_and_launch(self, delay: Duration, given_up: CancellationToken) -> Started {
        let starts = Arc::clone(&self.dispatcher.starts);
        let permit = async {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            starts.acquire_owned().await.ok()
        };
        let Some(permit) = given_up.run_until_cancelled(permit).await else {
            return Ok(None);
        };
        // Not abandoned from here on: a launched process must be stopped and reaped.
        let launched = self.launcher.launch().await?;
        let Starter {
            dispatcher,
            config,
            allowance,
            facts,
            ..
        } = self;
        let running = LiveProcess::new(
            launched,
            &config,
            dispatcher,
            Role::Serving,
            permit,
            allowance,
            facts,
        )?;
        Ok(Some(Box::new(running)))
    }
}

impl PendingStart {
    /// Abandons the start; returns the process if it has been launched all the same.
    pub(super) async fn abandon(self) -> Option<Box<LiveProcess>> {
        self.given_up.cancel();
        self.running.await.ok().flatten()
    }
}

impl Future for PendingStart {
    type Output = Started;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.running.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingStart")
    }
}
