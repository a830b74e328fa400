//! Renewing all processes: one first, and if that one comes up, the others.
//!
//! Decides the order only. How a process is replaced is up to its slot, which answers each
//! [`Renewal`] once; dropping the other side of it calls the renewal off.

use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{error, info};

/// A slot is to replace its process by a new one of the same command.
#[derive(Debug)]
pub(super) struct Renewal(oneshot::Sender<RenewalOutcome>);

/// What came of a renewal: what was renewed, or why it was not.
pub(super) type RenewalOutcome = Result<Renewed, String>;

/// What was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The new process is up.
    Process,
    /// The slot was empty, and will have a new process whenever it has one.
    Nothing,
}

impl Renewal {
    /// Tells what came of it.
    pub(super) fn report(self, outcome: RenewalOutcome) {
        drop(self.0.send(outcome));
    }

    /// Waits until nobody wants it any more.
    // Cancel-safe: a closed channel stays closed.
    pub(super) async fn gone(&mut self) {
        self.0.closed().await;
    }
}

/// Where a slot is told of renewals.
pub(super) type Slots = Vec<mpsc::Sender<Renewal>>;

/// Renews the processes of these slots each time that it is asked to; never ends. Asked again
/// before it is done, it starts over: what was started meanwhile may be out of date.
pub(super) async fn roll_out(slots: Slots, asked: Arc<Notify>) {
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
                    let took_ms = begun.elapsed().as_millis() as u64;
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
    // One by one until one has shown that the command still starts.
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
