//! The start of a process, from the wait before it to the moment it runs.

use crate::config::ProcessConfig;
use crate::pool::Shared;
use crate::pool::member::Part;
use crate::pool::running::Running;
use crate::process::handler_log::LogAllowance;
use crate::process::launch::{LaunchError, Launcher};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What a start needs.
#[derive(Debug, Clone)]
pub(super) struct Starter {
    pub(super) shared: Arc<Shared>,
    pub(super) launcher: Launcher,
    pub(super) config: ProcessConfig,
    /// Of all processes of the slot.
    pub(super) allowance: LogAllowance,
}

/// What came of a start.
pub(super) type Started = Result<Option<Box<Running>>, LaunchError>;

/// A start under way: `None` if it was given up before anything was started.
///
/// Must not be dropped before its end, but abandoned: the process may be running already.
pub(super) struct Start {
    running: Pin<Box<dyn Future<Output = Started> + Send>>,
    given_up: CancellationToken,
}

impl Starter {
    /// Starts a process after a delay, and when few enough others are starting. Given up while it
    /// waits when `stop` is cancelled.
    pub(super) fn start(&self, delay: Duration, stop: &CancellationToken) -> Start {
        let given_up = stop.child_token();
        let running = self.clone().wait_and_launch(delay, given_up.clone());
        Start {
            running: Box::pin(running),
            given_up,
        }
    }

    async fn wait_and_launch(self, delay: Duration, given_up: CancellationToken) -> Started {
        let starts = Arc::clone(&self.shared.starts);
        let turn = async {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            starts.acquire_owned().await.ok()
        };
        let Some(permit) = given_up.run_until_cancelled(turn).await else {
            return Ok(None);
        };
        // Not given up from here on: what was started must be seen to its end.
        let launched = self.launcher.launch().await?;
        let Starter {
            shared,
            config,
            allowance,
            ..
        } = self;
        let running = Running::new(launched, &config, shared, Part::Serving, permit, allowance)?;
        Ok(Some(Box::new(running)))
    }
}

impl Start {
    /// Gives the start up; gives the process if it runs all the same.
    pub(super) async fn abandon(self) -> Option<Box<Running>> {
        self.given_up.cancel();
        self.running.await.ok().flatten()
    }
}

impl Future for Start {
    type Output = Started;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.running.as_mut().poll(cx)
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Start")
    }
}
