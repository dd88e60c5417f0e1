//! The text of the metrics, read by a naive checker; promtool reads it in `.ci/metrics.sh`. Does
//! not test who counts.

use super::*;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriters};
use crate::engine::observe::snapshot::{CLIENT_TYPES, Facts, Rates};
use crate::engine::stream::received::Reason;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn text_of(counters: &Counters) -> String {
    let facts = Facts {
        state: EngineState::Ready,
        uptime: Duration::from_secs(10),
        started: Duration::from_secs(1_700_000_000),
        resident_bytes: Some(123_456_789),
        cores: &[0, 5],
    };
    exposition(Snapshot::take(counters, &facts, &Rates::default())).unwrap()
}

/// Counters of an engine where everything has happened.
fn busy() -> (Arc<Counters>, TallyWriters) {
    let (counters, writers) = Counters::with_memory(2, MemoryAccount::new(1000, 700));
    let worker = &writers.workers[1];
    worker.add(|tally| &tally.opened[Protocol::Messages as usize], 12_345_678_901);
    worker.add(|tally| &tally.bytes_received[Protocol::Records as usize], 1 << 60);
    CLIENT_TYPES.iter().for_each(|&(kind, _)| worker.add(|tally| &tally.messages[kind.index()], 3));
    Fault::ALL.iter().for_each(|&fault| worker.count_fault(fault));
    Reason::ALL.iter().for_each(|&reason| writers.reporter.count_stream(Some(reason)));
    worker.set(|tally| &tally.cpu_ns, 1_234_567_891);
    let mut latency = Latency::default();
    for (microseconds, messages) in [(1, 5), (30, 100), (2_000, 20), (20_000_000, 1)] {
        latency.record(Duration::from_micros(microseconds), messages);
    }
    worker.merge_message_latency(&mut latency);
    latency.record(Duration::from_micros(400), 7);
    worker.merge_packet_latency(&mut latency);
    (counters, writers)
}

/// Parses samples by name with labels. Panics if the text breaks a rule of the format or of naming.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut helped, mut family) = (String::new(), (String::new(), String::new()));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("help of a name");
            assert!(words.ends_with('.') && words.len() > 10, "{line}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("type of a name");
            assert_eq!(helped, name, "HELP comes before TYPE");
            assert!(families.insert(name.to_owned()), "{name} appears twice");
            assert!(name.starts_with("ringest_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
            family = (name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value after each name");
            let name = series.split('{').next().unwrap();
            let of_family = match family.1.as_str() {
                "histogram" => ["_sum", "_count", "_bucket"].map(|end| family.0.clone() + end),
                "counter" | "gauge" => [(); 3].map(|()| family.0.clone()),
                kind => panic!("{kind} is not a type of the classic format"),
            };
            assert!(of_family.iter().any(|of| of == name), "{line} is listed under {family:?}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} appears twice");
        }
    }
    assert_eq!(helped, family.0, "a family without a type");
    samples
}

#[test]
fn the_text_follows_the_format() {
    for (counters, _) in [Counters::new(2), busy()] {
        let samples = samples(&text_of(&counters));
        assert!(samples.len() > 80, "{samples:?}");
        assert!(samples.values().all(|value| value.is_finite() && *value >= 0.0), "{samples:?}");
    }
}

#[test]
fn every_error_starts_at_zero() {
    let samples = samples(&text_of(&Counters::new(2).0));
    let series = |listener, reason| {
        format!("ringest_errors_total{{listener=\"{listener}\",reason=\"{reason}\"}}")
    };
    for reason in Reason::ALL {
        assert_eq!(samples[&series("records", reason.as_str())], 0.0);
    }
    for fault in Fault::ALL {
        assert_eq!(samples[&series("messages", fault.as_str())], 0.0);
    }
    let errors = samples.keys().filter(|series| series.starts_with("ringest_errors_total")).count();
    assert_eq!(errors, Reason::ALL.len() + Fault::ALL.len());
}

#[test]
fn counts_have_the_right_names() {
    let (counters, writers) = busy();
    writers.workers[0].add(|tally| &tally.messages[FrameType::Pong.index()], 1);
    let samples = samples(&text_of(&counters));
    assert_eq!(samples["ringest_connections_total{listener=\"messages\"}"], 12_345_678_901.0);
    assert_eq!(samples["ringest_connections_active{listener=\"records\"}"], 0.0);
    assert_eq!(samples["ringest_core_connections_active{core=\"5\"}"], 12_345_678_901.0);
    assert_eq!(samples["ringest_core_cpu_seconds_total{core=\"5\"}"], 1.234567891);
    assert_eq!(samples["ringest_messages_total{type=\"broadcast\"}"], 3.0);
    assert!(samples.keys().all(|series| !series.contains("pong")), "only a server sends PONG");
    assert_eq!(samples["ringest_process_resident_memory_bytes"], 123_456_789.0);
    assert_eq!(samples["ringest_memory_counted_bytes"], 700.0);
    assert_eq!(samples["ringest_memory_limit_bytes"], 1000.0);
    assert_eq!(samples["ringest_ready"], 1.0);
    // Integers stay integers, however large.
    let text = text_of(&counters);
    assert!(text.contains(&format!("{{listener=\"records\"}} {}\n", 1_u64 << 60)), "{text}");
}

#[test]
fn buckets_are_cumulative_up_to_the_count() {
    let samples = samples(&text_of(&busy().0));
    let bucket = "ringest_message_latency_seconds_bucket{le=\"";
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(series, &count)| {
            let bound = series.strip_prefix(bucket)?.strip_suffix("\"}")?;
            Some((bound.parse().unwrap(), count))
        })
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(buckets.len(), LATENCY_BOUNDS_NS.len() + 1);
    assert!(buckets.is_sorted_by_key(|&(_, count)| count), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 126.0)));
    assert_eq!(samples["ringest_message_latency_seconds_count"], 126.0);
    let within = |bound: f64| buckets.iter().find(|bucket| bucket.0 == bound).unwrap().1;
    assert_eq!(
        (within(5e-6), within(5e-5), within(1e-2), within(10.0)),
        (5.0, 105.0, 125.0, 125.0)
    );
    let sum = samples["ringest_message_latency_seconds_sum"];
    assert!((sum - 20.043_005).abs() < 1e-9, "{sum}");
    let of_packets = |rest: &str| samples[&format!("ringest_packet_latency_seconds_{rest}")];
    assert_eq!(
        (of_packets("bucket{le=\"0.00025\"}"), of_packets("bucket{le=\"0.0005\"}")),
        (0.0, 7.0)
    );
    assert_eq!((of_packets("count"), of_packets("sum")), (7.0, 0.0028));
}
