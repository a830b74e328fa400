//! The thread that makes spans of finished requests and hands them to the exporter.
//!
//! The exporter repeats a batch that the receiver refuses with 429, 502, 503 or 504, or that does
//! not reach it, three times within `OTEL_EXPORTER_OTLP_TIMEOUT`; other answers are final.

use super::client::{Client, receiver};
use super::record::{RequestRecord, scope};
use super::settings::TraceSettings;
use super::waiting::Waiting;
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Exporter};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Sender {
    /// Cancelled when all that waits is to be sent immediately.
    ending: CancellationToken,
    /// Cancelled when that is done.
    ended: CancellationToken,
}

impl Sender {
    /// Starts the thread. The reason, if it cannot do what the settings say.
    pub(super) fn start(settings: &TraceSettings, waiting: Arc<Waiting>) -> Result<Sender, String> {
        let exporter = exporter(settings)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime for their thread: {error}"))?;
        let sender = Sender::idle();
        let worker = Worker {
            exporter,
            waiting,
            scope: scope(),
            delay: settings.delay,
            batch: settings.batch,
            ending: sender.ending.clone(),
            is_failing: false,
        };
        let ended = sender.ended.clone();
        let run = move || {
            // Also if it panics.
            let _ended = ended.drop_guard();
            runtime.block_on(worker.run());
        };
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(run)
            .map_err(|error| format!("their thread cannot be started: {error}"))?;
        Ok(sender)
    }

    /// A sender without a thread.
    pub(super) fn idle() -> Sender {
        Sender {
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Has the waiting spans sent, until this moment at the latest.
    pub(super) async fn finish(&self, until: Instant) {
        self.ending.cancel();
        // Cancel-safe: it is only asked whether the thread has ended. A thread that has not is
        // given up, and ends with this process.
        let _ = timeout_at(until.into(), self.ended.cancelled()).await;
    }
}

/// The exporter of these settings.
fn exporter(settings: &TraceSettings) -> Result<SpanExporter, String> {
    let endpoint = &settings.endpoint;
    let (variable, shown) = (endpoint.variable, endpoint.shown());
    let wrong = |why: &dyn std::fmt::Display| format!("{variable}: {why}: {shown:?}");
    let uri = endpoint.url.parse().map_err(|error| wrong(&error))?;
    receiver(&uri).map_err(|error| wrong(&error))?;
    if let Some(protocol) = settings.protocol.as_deref()
        && protocol != "http/protobuf"
    {
        return Err(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf: {protocol:?}"
        ));
    }
    let timeout = settings.timeout;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.url.clone())
        .with_timeout(timeout)
        .with_http_client(Client { timeout })
        .build()
        .map_err(|error| error.to_string())?;
    exporter.set_resource(&settings.resource);
    Ok(exporter)
}

/// The state of the thread.
struct Worker<E> {
    exporter: E,
    waiting: Arc<Waiting>,
    scope: InstrumentationScope,
    delay: Duration,
    batch: NonZeroUsize,
    ending: CancellationToken,
    /// Whether the last spans did not reach the receiver.
    is_failing: bool,
}

impl<E: Exporter> Worker<E> {
    /// Sends batches until it is told to end and nothing waits.
    async fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            let (waiting, ending) = (Arc::clone(&self.waiting), self.ending.clone());
            // Cancel-safe: all are only asked whether something has happened.
            tokio::select! {
                () = sleep(self.delay) => {}
                () = waiting.batch_is_there() => {}
                () = ending.cancelled() => {}
            }
            let is_last = self.ending.is_cancelled();
            self.waiting.take(&mut taken);
            if is_last && taken.is_empty() {
                return;
            }
            self.send(&mut taken).await;
        }
    }

    /// Sends the spans of these requests, in batches.
    async fn send(&mut self, taken: &mut Vec<RequestRecord>) {
        let mut spans: Vec<SpanData> = Vec::new();
        for record in taken.drain(..) {
            if spans.len() + record.spans() > self.batch.get() && !spans.is_empty() {
                self.send_batch(std::mem::take(&mut spans)).await;
            }
            record.append_to(&mut spans, &self.scope);
        }
        if !spans.is_empty() {
            self.send_batch(spans).await;
        }
    }

    async fn send_batch(&mut self, spans: Vec<SpanData>) {
        let count = spans.len();
        match self.exporter.export(spans).await {
            Ok(()) => {
                self.waiting.sent(count);
                if std::mem::take(&mut self.is_failing) {
                    let lost = self.waiting.lost();
                    info!(lost, "the receiver of traces takes spans again");
                }
            }
            // Once, however many batches it takes.
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                warn!(%error, "spans are lost, because the receiver of traces does not take them");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
    use std::sync::Mutex;

    /// Takes spans, but for these batches.
    #[derive(Debug)]
    struct Taking {
        batches: Arc<Mutex<Vec<usize>>>,
        refused: &'static [usize],
    }

    impl Exporter for Taking {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let mut batches = self.batches.lock().unwrap();
            batches.push(batch.len());
            match self.refused.contains(&batches.len()) {
                true => Err(OTelSdkError::InternalFailure("no".to_owned())),
                false => Ok(()),
            }
        }
    }

    async fn sent(requests: usize, batch: usize, refused: &'static [usize]) -> (Vec<usize>, u64) {
        let batches = Arc::default();
        let [limit, batch] = [1000, batch].map(|number| NonZeroUsize::new(number).unwrap());
        let worker = Worker {
            exporter: Taking {
                batches: Arc::clone(&batches),
                refused,
            },
            waiting: Arc::new(Waiting::new(limit, batch)),
            scope: scope(),
            delay: Duration::from_secs(5),
            batch,
            ending: CancellationToken::new(),
            is_failing: false,
        };
        let waiting = Arc::clone(&worker.waiting);
        (0..requests).for_each(|_| waiting.push(RequestRecord::example()));
        worker.ending.cancel();
        worker.run().await;
        let batches = batches.lock().unwrap().clone();
        (batches, waiting.lost())
    }

    #[tokio::test]
    async fn all_that_waits_is_sent_at_the_end_in_batches() {
        assert_eq!(sent(5, 4, &[]).await, (vec![4, 4, 2], 0));
        assert_eq!(sent(2, 512, &[]).await, (vec![4], 0));
        assert_eq!(sent(0, 512, &[]).await, (vec![], 0));
        // Two spans of a request stay together.
        assert_eq!(sent(3, 3, &[]).await, (vec![2, 2, 2], 0));
        assert_eq!(sent(2, 1, &[]).await, (vec![2, 2], 0));
    }

    #[tokio::test]
    async fn spans_that_the_receiver_refuses_are_lost_and_counted() {
        assert_eq!(sent(5, 4, &[2]).await, (vec![4, 4, 2], 4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_no_receiver_beyond_its_moment() {
        // Its thread, which would send, never ends.
        let sender = Sender::idle();
        let begun = tokio::time::Instant::now();
        let until = begun + Duration::from_secs(2);
        let finished = timeout_at(
            until + Duration::from_secs(1),
            sender.finish(until.into_std()),
        );
        assert_eq!(finished.await, Ok(()));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(sender.ending.is_cancelled());
    }

    #[test]
    fn settings_that_nothing_can_be_sent_by_are_told() {
        for (name, value, told) in [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "https://me:secret@collector:4318",
                "OTEL_EXPORTER_OTLP_ENDPOINT: TLS is the matter of a proxy, expected http://: \
                 \"https://collector:4318/v1/traces\"",
            ),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "grpc",
                "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf: \"grpc\"",
            ),
        ] {
            let settings = TraceSettings::of(|asked| (asked == name).then(|| value.to_owned()));
            assert_eq!(exporter(&settings).err().as_deref(), Some(told));
        }
    }
}
