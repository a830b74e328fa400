//! Figures as text for Prometheus.

use super::scrape::Scrape;
use super::{
    ExitReason, HandlerStream, HistogramTotals, INIT_SCALE, Metrics, OutcomeLabel, StartReason,
};
use crate::version::version;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, LabelSetEncoder, MetricEncoder,
    NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;

/// A format of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format 0.0.4, which every reader knows.
    Prometheus,
    /// OpenMetrics 1.0.0, for readers that ask for it.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for. Readers of 0.0.4 do not know all types of
    /// OpenMetrics, so that is for readers alone that name it.
    pub fn accepted(accept: Option<&str>) -> Format {
        let mut types = accept.unwrap_or_default().split(',').map(|one| {
            let (name, rest) = one.split_once(';').unwrap_or((one, ""));
            let is_refused = rest.split(';').any(|parameter| {
                let quality = parameter.trim().strip_prefix("q=");
                quality.is_some_and(|quality| quality.parse() == Ok(0.0))
            });
            (name.trim().to_ascii_lowercase(), is_refused)
        });
        match types.any(|(name, is_refused)| name == "application/openmetrics-text" && !is_refused)
        {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All figures as text.
pub fn encode(
    metrics: &Arc<Metrics>,
    scrape: Scrape,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricsCollector {
        metrics: Arc::clone(metrics),
        scrape,
    }));
    let mut written = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// All figures of one scrape.
#[derive(Debug)]
struct MetricsCollector {
    metrics: Arc<Metrics>,
    scrape: Scrape,
}

impl Collector for MetricsCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = FamilyWriter(encoder);
        self.requests(&mut writer)?;
        self.queue_and_processes(&mut writer)?;
        self.process_history(&mut writer)?;
        self.output(&mut writer)?;
        self.limits(&mut writer)?;
        self.reload(&mut writer)?;
        self.worker(&mut writer)
    }
}

impl MetricsCollector {
    fn requests(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let totals = self.metrics.requests.totals();
        let help = "Time from the head of a request to its response";
        let seconds = Some(&Unit::Seconds);
        let mut family = writer.begin(
            "http_server_request_duration",
            help,
            seconds,
            MetricType::Histogram,
        )?;
        for ((status, outcome), times) in &totals.durations {
            let labels = RequestLabels {
                status: *status,
                error: (*outcome != OutcomeLabel::Ok).then_some(outcome.as_str()),
            };
            histogram(family.encode_family(&labels)?, times, 1)?;
        }
        let help = "Time from a request's acceptance until a process could start on it";
        writer.histogram("faas_queue_duration", help, &totals.queue, 1)?;
        let help = "Time from when a process could start on a request until its reply was read";
        writer.histogram("faas_invoke_duration", help, &totals.invoke, 1)?;
        let help = "Requests for the function that are over, by what became of them";
        let mut family = writer.begin("faas_requests", help, None, MetricType::Counter)?;
        for (outcome, count) in &totals.outcomes {
            counter(
                family.encode_family(&[("outcome", outcome.as_str())])?,
                *count,
            )?;
        }
        Ok(())
    }

    fn queue_and_processes(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let (queue, processes) = (&self.scrape.queue, &self.scrape.processes);
        let help = "Requests that were written to processes and are unanswered";
        writer.gauge("faas_requests_active", help, None, processes.active as f64)?;
        writer.gauge(
            "faas_queue_length",
            "Requests that wait",
            None,
            queue.length as f64,
        )?;
        let help = "Most requests that may wait";
        writer.gauge("faas_queue_limit", help, None, queue.limit as f64)?;
        let help = "How long the first request in the queue has waited";
        let oldest = queue.oldest.as_secs_f64();
        writer.gauge("faas_queue_oldest", help, Some(&Unit::Seconds), oldest)?;
        let help = "Requests that the processes which are up can work on at once";
        writer.gauge("faas_capacity", help, None, processes.capacity as f64)?;
        let mut family = writer.begin(
            "faas_processes",
            "Processes of the handler, by state",
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in [
            ("starting", processes.starting),
            ("idle", processes.idle),
            ("busy", processes.busy),
            ("stopping", processes.stopping),
        ] {
            let labels = [("state", state)];
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_gauge(&(count as f64))?;
        }
        let help = "Most processes that there may be";
        writer.gauge("faas_processes_limit", help, None, processes.limit as f64)?;
        let help = "Resident memory of all processes and their descendants";
        let resident = processes.resident_bytes as f64;
        writer.gauge("faas_process_resident", help, Some(&Unit::Bytes), resident)
    }

    fn process_history(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let history = &self.metrics.processes;
        let help = "Time with a request, of all processes together";
        let busy = (history.busy_ns() + self.scrape.processes.busy_ns) as f64 / 1e9;
        writer.counter("faas_process_busy", help, Some(&Unit::Seconds), busy)?;
        let help = "Starts of processes, by reason";
        let mut family = writer.begin("faas_process_starts", help, None, MetricType::Counter)?;
        for reason in StartReason::ALL {
            let labels = [("reason", reason.as_str())];
            counter(family.encode_family(&labels)?, history.starts(*reason))?;
        }
        let help = "Ends of processes, by reason";
        let mut family = writer.begin("faas_process_exits", help, None, MetricType::Counter)?;
        for reason in ExitReason::ALL {
            let labels = [("reason", reason.as_str())];
            counter(family.encode_family(&labels)?, history.exits(*reason))?;
        }
        let help = "Time from the start of a process to its ready line; without that line, the time of its first reply";
        writer.histogram("faas_init_duration", help, &history.init(), INIT_SCALE)
    }

    fn output(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let log = |stream: &HandlerStream| self.metrics.processes.log(*stream);
        let help = "Blocks of lines that processes printed and the log has";
        let mut family = writer.begin("faas_handler_log_lines", help, None, MetricType::Counter)?;
        for stream in HandlerStream::ALL {
            let labels = [("stream", stream.as_str())];
            counter(family.encode_family(&labels)?, log(stream).0)?;
        }
        let help = "Output of processes that came too fast, and that the log does not have";
        let bytes = Some(&Unit::Bytes);
        let mut family =
            writer.begin("faas_handler_log_dropped", help, bytes, MetricType::Counter)?;
        for stream in HandlerStream::ALL {
            let labels = [("stream", stream.as_str())];
            counter(family.encode_family(&labels)?, log(stream).1)?;
        }
        let help =
            "Lines of the worker's log that were lost: its reader was too slow, or it was full";
        writer.counter("faas_log_dropped", help, None, self.scrape.log_lost as f64)
    }

    fn limits(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let scrape = &self.scrape;
        let bytes = Some(&Unit::Bytes);
        let help = "Bytes of bodies and replies that are held";
        writer.gauge("faas_buffered", help, bytes, scrape.buffered_bytes as f64)?;
        let help = "Most bytes of bodies and replies that may be held";
        let limit = scrape.buffered_limit_bytes as f64;
        writer.gauge("faas_buffered_limit", help, bytes, limit)?;
        let open = scrape.connections as f64;
        writer.gauge("faas_connections", "Open connections", None, open)?;
        let help = "Most connections that may be open";
        let limit = scrape.connections_limit as f64;
        writer.gauge("faas_connections_limit", help, None, limit)?;
        let help = "1 while the worker can serve, as /ready says";
        writer.gauge(
            "faas_ready",
            help,
            None,
            f64::from(u8::from(scrape.is_ready)),
        )?;
        let help = "The version of the worker";
        let mut info = writer.begin("faas_build", help, None, MetricType::Info)?;
        info.encode_info(&[("version", version())])
    }

    fn reload(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let Some(reload) = self.metrics.processes.last_reload() else {
            return Ok(());
        };
        let help = "1 if the last reload was successful";
        let successful = f64::from(u8::from(reload.is_successful));
        writer.gauge("faas_reload_successful", help, None, successful)?;
        let help = "When the last reload was over, in seconds since 1970";
        writer.gauge(
            "faas_reload_timestamp",
            help,
            Some(&Unit::Seconds),
            reload.at,
        )
    }

    /// The worker's own process, by the names that all of Prometheus's clients use.
    fn worker(&self, writer: &mut FamilyWriter<'_>) -> fmt::Result {
        let worker = &self.scrape.worker;
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        if let Some(cpu) = worker.cpu_seconds {
            let help = "Processor time of the worker, without its processes";
            writer.counter("process_cpu", help, seconds, cpu)?;
        }
        if let Some(open) = worker.open_fds {
            let help = "Open file descriptors of the worker";
            writer.gauge("process_open_fds", help, None, open as f64)?;
        }
        if let Some(most) = worker.max_fds {
            let help = "Most file descriptors that the worker may have open";
            writer.gauge("process_max_fds", help, None, most as f64)?;
        }
        if let Some(resident) = worker.resident_bytes {
            let help = "Resident memory of the worker, without its processes";
            writer.gauge("process_resident_memory", help, bytes, resident as f64)?;
        }
        if let Some(threads) = worker.threads {
            writer.gauge(
                "process_threads",
                "Threads of the worker",
                None,
                threads as f64,
            )?;
        }
        let help = "When the worker was started, in seconds since 1970";
        writer.gauge("process_start_time", help, seconds, worker.start_time)
    }
}

/// Writes families of figures.
struct FamilyWriter<'a>(DescriptorEncoder<'a>);

impl FamilyWriter<'_> {
    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        let mut encoder = self.begin(name, help, unit, MetricType::Gauge)?;
        encoder.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let mut encoder = self.begin(name, help, unit, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        times: &HistogramTotals,
        scale: u32,
    ) -> fmt::Result {
        let encoder = self.begin(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram(encoder, times, scale)
    }
}

fn counter(mut encoder: MetricEncoder<'_>, count: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

fn histogram(mut encoder: MetricEncoder<'_>, times: &HistogramTotals, scale: u32) -> fmt::Result {
    let sum = times.sum_seconds() * f64::from(scale);
    encoder.encode_histogram::<NoLabelSet>(sum, times.count(), &times.buckets(scale), None)
}

/// The labels of a response's time.
#[derive(Debug)]
struct RequestLabels {
    status: u16,
    /// The code of the failure; absent where there is none.
    error: Option<&'static str>,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let status = self.status.to_string();
        [
            ("http_request_method", "POST"),
            ("http_route", "/"),
            ("http_response_status_code", &status),
        ]
        .encode(encoder)?;
        match self.error {
            Some(error) => [("error_type", error)].encode(encoder),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    fn text(format: Format) -> String {
        let metrics = Arc::new(Metrics::new(NonZeroUsize::MIN));
        let millisecond = Duration::from_millis(1);
        let times = Some((millisecond, 3 * millisecond));
        metrics
            .requests
            .record(OutcomeLabel::Ok, Some(200), 4 * millisecond, times);
        metrics.requests.record(
            OutcomeLabel::Failed(Code::HandlerError),
            Some(422),
            millisecond,
            None,
        );
        metrics.processes.started(StartReason::Initial);
        metrics.processes.came_up(Duration::from_millis(20));
        encode(&metrics, Scrape::default(), format).unwrap()
    }

    #[test]
    fn figures_have_their_names_units_and_labels() {
        let text = text(Format::Prometheus);
        for line in [
            "# TYPE http_server_request_duration_seconds histogram",
            "http_server_request_duration_seconds_bucket{http_request_method=\"POST\",\
             http_route=\"/\",http_response_status_code=\"200\",le=\"0.005\"} 1",
            "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_route=\"/\",\
             http_response_status_code=\"422\",error_type=\"handler_error\"} 1",
            "faas_queue_duration_seconds_sum 0.001",
            "faas_invoke_duration_seconds_sum 0.003",
            "faas_init_duration_seconds_sum 0.02",
            "faas_requests_total{outcome=\"ok\"} 1",
            "faas_requests_total{outcome=\"client_gone\"} 0",
            "faas_process_starts_total{reason=\"initial\"} 1",
            "faas_processes{state=\"busy\"} 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }

    /// A counter that fell when a process ends would look like a restart of the worker.
    #[test]
    fn busy_time_is_that_of_processes_which_have_ended_and_of_those_which_have_not() {
        let metrics = Arc::new(Metrics::new(NonZeroUsize::MIN));
        metrics.processes.add_busy(2_000_000_000);
        let mut scrape = Scrape::default();
        scrape.processes.busy_ns = 1_000_000_000;
        let text = encode(&metrics, scrape, Format::Prometheus).unwrap();
        let found = text
            .lines()
            .any(|line| line == "faas_process_busy_seconds_total 3.0");
        assert!(found, "{text}");
    }

    #[test]
    fn openmetrics_has_its_end() {
        let text = text(Format::OpenMetrics);
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("# UNIT faas_queue_duration_seconds seconds"));
    }

    #[test]
    fn openmetrics_is_for_readers_that_name_it() {
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/plain;version=0.0.4"), Format::Prometheus),
            (
                Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }
}
