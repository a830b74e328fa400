//! Reload: replaces all processes by new ones, first one, and if that one comes up, the others.
//!
//! Decides the order only. Each slot replaces its own process and answers its [`Renewal`] once;
//! dropping the other side of the channel calls the renewal off.

use crate::logging::timestamp::seconds_since_1970;
use crate::metrics::{Metrics, Reload};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{error, info};

/// Asks a slot to replace its process by a new one of the same command.
#[derive(Debug)]
pub(super) struct Renewal(oneshot::Sender<RenewalOutcome>);

/// The result of a renewal, or why the old process stays.
pub(super) type RenewalOutcome = Result<Renewed, String>;

/// A successful renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The new process is up.
    Process,
    /// The slot was empty; its next process will be of the new kind anyway.
    Nothing,
}

impl Renewal {
    /// Reports the result.
    pub(super) fn report(self, outcome: RenewalOutcome) {
        drop(self.0.send(outcome));
    }

    /// Waits until the renewal is called off.
    // Cancel-safe: a closed channel stays closed.
    pub(super) async fn gone(&mut self) {
        self.0.closed().await;
    }
}

/// One sender of renewals for each slot.
pub(super) type Slots = Vec<mpsc::Sender<Renewal>>;

/// Renews the processes of these slots on every notification; never ends. A notification before the
/// end starts over, because processes started meanwhile may be out of date.
pub(super) async fn roll_out(slots: Slots, asked: Arc<Notify>, metrics: Arc<Metrics>) {
    loop {
        asked.notified().await;
        loop {
            let begun = Instant::now();
            info!(processes = slots.len(), "reload begun");
            // Cancel-safe: dropping a renewal calls it off.
            tokio::select! {
                biased;
                () = asked.notified() => info!("reload asked for again, starting over"),
                outcome = renew_all(&slots) => {
                    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    metrics.processes.reloaded(Reload {
                        is_successful: outcome.is_ok(),
                        at: seconds_since_1970(),
                    });
                    match outcome {
                        Ok(()) => info!(took_ms, "reload done, the new processes serve"),
                        Err(why) => {
                            error!(%why, took_ms, "reload failed, what served before goes on");
                        }
                    }
                    break;
                }
            }
        }
    }
}

async fn renew_all(slots: &Slots) -> Result<(), String> {
    let mut slots = slots.iter();
    // One by one until a process has shown that the command still starts.
    for slot in slots.by_ref() {
        match renew(slot.clone()).await? {
            Renewed::Process => break,
            Renewed::Nothing => {}
        }
    }
    let mut renewals = JoinSet::new();
    for slot in slots {
        renewals.spawn(renew(slot.clone()));
    }
    let mut outcome = Ok(());
    while let Some(renewed) = renewals.join_next().await {
        let renewed = renewed.unwrap_or_else(|error| Err(error.to_string()));
        outcome = outcome.and(renewed.map(|_| ()));
    }
    outcome
}

// Cancel-safe: dropped, its renewal is called off.
async fn renew(slot: mpsc::Sender<Renewal>) -> RenewalOutcome {
    let (report, outcome) = oneshot::channel();
    let stopped = || "the worker is shutting down".to_owned();
    slot.send(Renewal(report)).await.map_err(|_| stopped())?;
    outcome.await.unwrap_or_else(|_| Err(stopped()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use tokio::task::yield_now;

    /// What is told of a reload in which the slots report these outcomes.
    async fn reloaded(outcomes: [RenewalOutcome; 2]) -> bool {
        let metrics = Arc::new(Metrics::new(NonZeroUsize::MIN));
        let asked = Arc::new(Notify::new());
        asked.notify_one();
        let [(first, mut ask_first), (second, mut ask_second)] = [(); 2].map(|()| mpsc::channel(1));
        let rolling = roll_out(vec![first, second], asked, Arc::clone(&metrics));
        let [of_first, of_second] = outcomes;
        let slots = async {
            let renewal: Renewal = ask_first.recv().await.unwrap();
            renewal.report(of_first);
            if let Some(renewal) = ask_second.recv().await {
                renewal.report(of_second);
            }
        };
        let told = async {
            loop {
                if let Some(reload) = metrics.processes.last_reload() {
                    return reload.is_successful;
                }
                yield_now().await;
            }
        };
        // Cancel-safe: nothing is used after the first end.
        tokio::select! {
            is_successful = told => is_successful,
            never = async { tokio::join!(rolling, slots) } => panic!("{never:?}"),
        }
    }

    #[tokio::test]
    async fn a_reload_is_successful_where_every_slot_has_its_new_process() {
        let failed = || Err("exit status: 3".to_owned());
        let (process, nothing) = (Ok(Renewed::Process), Ok(Renewed::Nothing));
        for (outcomes, is_successful) in [
            ([process.clone(), process.clone()], true),
            ([process.clone(), nothing], true),
            ([process, failed()], false),
            ([failed(), failed()], false),
        ] {
            let told = format!("{outcomes:?}");
            assert_eq!(reloaded(outcomes).await, is_successful, "{told}");
        }
    }
}
