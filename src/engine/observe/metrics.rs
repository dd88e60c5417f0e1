//! Formats a snapshot as Prometheus text. Stateless; counting and serving happen elsewhere.
//!
//! The format is the classic one (`text/plain; version=0.0.4`), which every Prometheus server and
//! agent reads. prometheus-client writes OpenMetrics, where the name of a counter's family differs
//! from that of its samples, so this module passes full names and writes counters as plain values.

use super::snapshot::{CoreSnapshot, EngineState, Snapshot};
use crate::engine::stream::latency::Latency;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// The content type of the text, for an HTTP response.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The prefix of every name.
const PREFIX: &str = "ringest";

/// Upper bounds of the latency histograms in nanoseconds: 1, 2.5 and 5 times each power of ten,
/// from 1 µs to 10 s. Longer latencies are counted in `+Inf` only.
const LATENCY_BOUNDS_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The text of all metrics.
///
/// # Errors
/// None in practice, because writing to a string cannot fail.
pub fn exposition(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.encode_process(&mut families)?;
        self.encode_connections(&mut families)?;
        self.encode_messages(&mut families)?;
        self.encode_records(&mut families)?;
        self.encode_errors(&mut families)?;
        self.encode_cores(&mut families)
    }
}

impl Snapshot {
    fn encode_process(&self, families: &mut Families<'_>) -> fmt::Result {
        let help = "Version of the running program; always 1.";
        families.labelled("build_info", help, Gauge, [([("version", self.version)], 1_u64)])?;
        let ready = u64::from(self.state == EngineState::Ready);
        let help = "1 while new connections are wanted, 0 once the engine is stopping.";
        families.single("ready", help, Gauge, ready)?;
        let help = "Start time of the process, in seconds since the Unix epoch.";
        families.single("process_start_time_seconds", help, Gauge, self.start_time_seconds)?;
        let help = "Memory that is counted: the program's, and what peers make it take.";
        families.single("memory_counted_bytes", help, Gauge, self.memory_counted_bytes)?;
        let help = "The most that the counted memory may be.";
        families.single("memory_limit_bytes", help, Gauge, self.memory_limit_bytes)?;
        let Some(bytes) = self.resident_memory_bytes else { return Ok(()) };
        let help = "Resident memory of the process.";
        families.single("process_resident_memory_bytes", help, Gauge, bytes)
    }

    fn encode_connections(&self, families: &mut Families<'_>) -> fmt::Result {
        let help = "Open connections.";
        let counts = by("listener", self.connections_active.iter());
        families.labelled("connections_active", help, Gauge, counts)?;
        let help = "Connections accepted by workers.";
        let counts = by("listener", self.connections_opened.iter());
        families.labelled("connections_total", help, Counter, counts)?;
        let help = "Connections that closed without sending a byte.";
        let counts = by("listener", self.connections_empty.iter());
        families.labelled("connections_empty_total", help, Counter, counts)?;
        let help = "Connections, and record streams in DATA, that waited for a free slot.";
        let counts = by("listener", self.admission_waits.iter());
        families.labelled("admission_waits_total", help, Counter, counts)?;
        let help = "Total time that those waited, including the time in the listen queue.";
        let seconds = by("listener", self.admission_wait_seconds.iter());
        families.labelled("admission_wait_seconds_total", help, Counter, seconds)?;
        let help = "Bytes received from sockets.";
        let counts = by("listener", self.received_bytes.iter());
        families.labelled("received_bytes_total", help, Counter, counts)?;
        let help = "Bytes passed to the kernel for message clients.";
        families.single("sent_bytes_total", help, Counter, self.sent_bytes)?;
        let help = "Bytes queued for message clients.";
        families.single("queued_bytes", help, Gauge, self.queued_bytes)
    }

    fn encode_messages(&self, families: &mut Families<'_>) -> fmt::Result {
        let help = "Messages from clients, including rejected ones.";
        let counts = by("type", self.messages_by_type.iter());
        families.labelled("messages_total", help, Counter, counts)?;
        let help = "Deliveries of broadcasts, counted per receiver.";
        families.single("broadcast_deliveries_total", help, Counter, self.deliveries)?;
        let help = "DATA messages without records.";
        families.single("opaque_data_total", help, Counter, self.opaque_data)?;
        let help = "Messages rejected by a rate limit.";
        families.single("rate_limited_total", help, Counter, self.rate_limited)?;
        let help = "Wrong credentials, and messages that needed authentication.";
        families.single("auth_failures_total", help, Counter, self.auth_failures)?;
        let help = "Message clients cut because they did not read.";
        families.single("slow_consumers_total", help, Counter, self.slow_consumers)?;
        let help = "Time from a complete message until its reply was passed to the kernel.";
        families.latency("message_latency_seconds", help, &self.message_latencies)
    }

    fn encode_records(&self, families: &mut Families<'_>) -> fmt::Result {
        families.single("records_total", "Records that became rows.", Counter, self.records)?;
        families.single("packets_total", "Whole packets of records.", Counter, self.packets)?;
        let help = "Reads of record connections that returned bytes.";
        families.single("record_reads_total", help, Counter, self.record_reads)?;
        let help = "Reads of record connections that waited for more bytes.";
        let coalesced = self.record_coalesced_reads;
        families.single("record_coalesced_reads_total", help, Counter, coalesced)?;
        let help = "Total time that those reads waited; no byte waited longer than its read.";
        let seconds = self.record_coalesce_wait_seconds;
        families.single("record_coalesce_wait_seconds_total", help, Counter, seconds)?;
        let help = "Record streams that ended complete.";
        families.single("streams_complete_total", help, Counter, self.streams_complete)?;
        let help = "Time spent on writing and syncing files of results, over all writers.";
        let seconds = self.result_write_seconds;
        families.single("result_write_seconds_total", help, Counter, seconds)?;
        let help = "Time from each result until it was printed, waiting for its file included.";
        families.single("result_wait_seconds_total", help, Counter, self.result_wait_seconds)?;
        let help = "Results written to a file.";
        families.single("result_files_written_total", help, Counter, self.result_files_written)?;
        let help = "Results that could not be written to a file.";
        families.single("result_files_failed_total", help, Counter, self.result_files_failed)?;
        let help = "Batches of partials that were written.";
        families.single("partials_written_total", help, Counter, self.partials_written)?;
        let help = "Batches of partials that could not be written.";
        families.single("partials_failed_total", help, Counter, self.partials_failed)?;
        let help = "Time spent on writing and syncing batches of partials, over all writers.";
        let seconds = self.partials_write_seconds;
        families.single("partials_write_seconds_total", help, Counter, seconds)?;
        let help = "Time that aggregation waited because too many batches of partials did.";
        families.single(
            "partials_wait_seconds_total",
            help,
            Counter,
            self.partials_wait_seconds,
        )?;
        let help = "Bytes of batches of partials that wait for the disk or are being written.";
        families.single("partials_waiting_bytes", help, Gauge, self.partials_waiting_bytes)?;
        let help = "Raw bytes of record streams in captures.";
        families.single("captured_bytes_total", help, Counter, self.captured_bytes)?;
        let help = "Captures that lack bytes of their stream or are missing.";
        families.single("captures_incomplete_total", help, Counter, self.captures_incomplete)?;
        let help = "Time from a complete packet of records until its rows were decoded.";
        families.latency("packet_latency_seconds", help, &self.packet_latencies)
    }

    fn encode_errors(&self, families: &mut Families<'_>) -> fmt::Result {
        let of = |listener, (reason, count)| ([("listener", listener), ("reason", reason)], count);
        let records = self.streams_by_reason.iter().map(|sample| of("records", sample));
        let messages = self.faults_by_reason.iter().map(|sample| of("messages", sample));
        let help = "Record streams that did not complete, and message connections that failed.";
        families.labelled("errors_total", help, Counter, records.chain(messages))
    }

    fn encode_cores(&self, families: &mut Families<'_>) -> fmt::Result {
        let label = |core: &CoreSnapshot| [("core", core.core.to_string())];
        let help = "Processor time of the worker on this core.";
        let seconds = self.cores.iter().map(|core| (label(core), core.cpu_seconds));
        families.labelled("core_cpu_seconds_total", help, Counter, seconds)?;
        let help = "Open connections of the worker on this core.";
        let active = self.cores.iter().map(|core| (label(core), core.connections_active));
        families.labelled("core_connections_active", help, Gauge, active)
    }
}

/// Samples with one label.
fn by<V>(
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, V)>,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], V)> {
    counts.map(move |(word, count)| ([(label, word)], count))
}

/// Writes families of metrics, each with its help and type before its samples.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn single(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, kind)?.encode_gauge(&value)
    }

    fn labelled<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn latency(&mut self, name: &str, help: &str, latency: &Latency) -> fmt::Result {
        let count = latency.summary().count;
        let buckets = latency_buckets(latency, count);
        let sum = latency.sum().as_secs_f64();
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// The upper bound of each bucket in seconds, and its count, which is not cumulative.
fn latency_buckets(latency: &Latency, count: u64) -> Vec<(f64, u64)> {
    let mut below = 0;
    let bounds = LATENCY_BOUNDS_NS.iter().map(|&bound_ns| {
        let within =
            if count == 0 { 0 } else { latency.count_within(Duration::from_nanos(bound_ns)) };
        (bound_ns as f64 / 1e9, within)
    });
    let buckets = bounds.chain([(f64::INFINITY, count)]).map(|(bound, within)| {
        let between = within.saturating_sub(below);
        below = below.max(within);
        (bound, between)
    });
    buckets.collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
