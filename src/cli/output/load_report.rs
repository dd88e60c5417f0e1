//! The result of `ringest load`, as a table or as JSON.

use super::lines::{LatencyLine, Percentiles};
use crate::client::load::tally::LoadTally;
use crate::client::load::{LoadOutcome, Settings, Traffic};
use crate::engine::stream::latency::{LatencySummary, summary};
use crate::wire::text::{counted, time_text};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

fn name(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::Ping => "ping",
        Traffic::Echo => "echo",
        Traffic::Data => "data",
        Traffic::Broadcast => "broadcast",
    }
}

/// Bytes of each message's payload; that of a PING is fixed.
fn payload_bytes(settings: &Settings) -> usize {
    if settings.traffic == Traffic::Ping { 8 } else { settings.payload_bytes }
}

// ---- table ----

/// Writes the result for people.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_table(
    settings: &Settings,
    outcome: &LoadOutcome,
    out: &mut impl Write,
) -> io::Result<()> {
    let tally = &outcome.tally;
    write_settings(settings, outcome, out)?;
    let row = |out: &mut _, name, amount: u64| {
        let rate = outcome.per_second(amount);
        write_row(out, name, format_args!("{amount:>12} {rate:>12.0}/s"))
    };
    row(out, "sent", tally.sent)?;
    let answers = if settings.traffic == Traffic::Broadcast { "deliveries" } else { "answers" };
    row(out, answers, tally.answers)?;
    let megabytes = |bytes| outcome.per_second(bytes) / 1e6;
    let (sent, received) = (megabytes(tally.bytes_sent), megabytes(tally.bytes_received));
    write_row(out, "bytes", format_args!("{sent:.1} MB/s sent, {received:.1} MB/s received"))?;
    write_latency(out, "latency", &summary(&tally.latency))?;
    if settings.rate.is_some() {
        write_latency(out, "sent late", &summary(&tally.lateness))?;
        let held_back = tally.held_back;
        write_row(
            out,
            "held back",
            format_args!("{}, since too many were unanswered", counted(held_back, "message")),
        )?;
    }
    write_problems(tally, out)
}

fn write_settings(
    settings: &Settings,
    outcome: &LoadOutcome,
    out: &mut impl Write,
) -> io::Result<()> {
    let Settings { address, connections, threads, warm_up, .. } = settings;
    match settings.rate {
        Some(rate) => write!(out, "open loop, {rate} messages/s: ")?,
        None => write!(out, "closed loop, pipeline {}: ", settings.pipeline)?,
    }
    let (kind, bytes) = (name(settings.traffic), payload_bytes(settings));
    let (bytes, connections) = (counted(bytes, "byte"), counted(connections, "connection"));
    write!(out, "{kind} of {bytes}, {connections}")?;
    if settings.traffic == Traffic::Broadcast {
        write!(out, " of which {} send", settings.senders)?;
    }
    let tls = if settings.tls.is_some() { ", TLS" } else { "" };
    let seconds = outcome.measured.as_secs_f64();
    writeln!(
        out,
        " to {address}{tls}, threads {threads}; {seconds:.3} s after {} of warm-up",
        time_text(*warm_up)
    )
}

fn write_row(out: &mut impl Write, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "{name:<11} {value}")
}

fn write_latency(out: &mut impl Write, name: &str, latency: &LatencySummary) -> io::Result<()> {
    match latency.count {
        0 => write_row(out, name, Percentiles(latency)),
        count => write_row(out, name, format_args!("{}, of {count}", Percentiles(latency))),
    }
}

fn write_problems(tally: &LoadTally, out: &mut impl Write) -> io::Result<()> {
    let kinds = [
        ("wrong content", tally.mismatches),
        ("not answered", tally.unanswered),
        ("not sent", tally.unsent),
        ("connections failed", tally.failed),
        ("connections lost", tally.lost),
        ("connections with invalid data", tally.invalid),
    ];
    let errors = tally.errors_by_name();
    let kinds = kinds.into_iter().map(|(name, count)| (name.to_owned(), count));
    let found: Vec<String> = errors
        .chain(kinds)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    write_row(out, "errors", found)?;
    if tally.warm_up_errors > 0 {
        let count = tally.warm_up_errors;
        write_row(out, "", format_args!("{count} more in the warm-up, not counted"))?;
    }
    match &tally.first_problem {
        Some(problem) => write_row(out, "first", problem),
        None => Ok(()),
    }
}

// ---- JSON ----

/// The result. Key names and their order are part of the interface.
#[derive(Serialize)]
struct Object<'a> {
    r#loop: &'static str,
    r#type: &'static str,
    address: String,
    tls: bool,
    connections: usize,
    connected: u64,
    threads: usize,
    pipeline: Option<usize>,
    rate: Option<u64>,
    payload_bytes: usize,
    senders: Option<usize>,
    warm_up_seconds: f64,
    seconds: f64,
    sent: u64,
    sent_per_second: f64,
    answers: u64,
    answers_per_second: f64,
    sent_bytes_per_second: f64,
    received_bytes_per_second: f64,
    latency_us: LatencyLine,
    lateness_us: Option<LatencyLine>,
    held_back: u64,
    errors: BTreeMap<String, u64>,
    warm_up_errors: u64,
    mismatches: u64,
    unanswered: u64,
    unsent: u64,
    connections_failed: u64,
    connections_lost: u64,
    connections_invalid: u64,
    first_problem: Option<&'a str>,
    clean: bool,
}

/// Writes the result for programs, as one line.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_json(
    settings: &Settings,
    outcome: &LoadOutcome,
    out: &mut impl Write,
) -> io::Result<()> {
    let tally = &outcome.tally;
    let open = settings.rate.is_some();
    let object = Object {
        r#loop: if open { "open" } else { "closed" },
        r#type: name(settings.traffic),
        address: settings.address.to_string(),
        tls: settings.tls.is_some(),
        connections: settings.connections,
        connected: outcome.connected,
        threads: settings.threads,
        pipeline: (!open).then_some(settings.pipeline),
        rate: settings.rate,
        payload_bytes: payload_bytes(settings),
        senders: (settings.traffic == Traffic::Broadcast).then_some(settings.senders),
        warm_up_seconds: settings.warm_up.as_secs_f64(),
        seconds: outcome.measured.as_secs_f64(),
        sent: tally.sent,
        sent_per_second: outcome.per_second(tally.sent),
        answers: tally.answers,
        answers_per_second: outcome.per_second(tally.answers),
        sent_bytes_per_second: outcome.per_second(tally.bytes_sent),
        received_bytes_per_second: outcome.per_second(tally.bytes_received),
        latency_us: summary(&tally.latency).into(),
        lateness_us: open.then(|| summary(&tally.lateness).into()),
        held_back: tally.held_back,
        errors: tally.errors_by_name().collect(),
        warm_up_errors: tally.warm_up_errors,
        mismatches: tally.mismatches,
        unanswered: tally.unanswered,
        unsent: tally.unsent,
        connections_failed: tally.failed,
        connections_lost: tally.lost,
        connections_invalid: tally.invalid,
        first_problem: tally.first_problem.as_deref(),
        clean: tally.is_clean(),
    };
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::load::tally::MeasuredTime;
    use std::time::Duration;

    fn settings() -> Settings {
        let address = "127.0.0.1:5000".parse().unwrap();
        Settings { connections: 10, pipeline: 32, ..Settings::new(address) }
    }

    fn outcome() -> LoadOutcome {
        let mut tally =
            LoadTally { sent: 2000, answers: 1000, bytes_sent: 40_000, ..LoadTally::default() };
        tally.latency.record_n(10_000, 1000).unwrap();
        tally.lateness.record_n(2_000, 10).unwrap();
        LoadOutcome { measured: Duration::from_secs(2), connected: 10, tally }
    }

    fn table(settings: &Settings, outcome: &LoadOutcome) -> String {
        let mut out = Vec::new();
        write_table(settings, outcome, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_says_what_was_done_and_what_came_of_it() {
        let expected = "\
closed loop, pipeline 32: ping of 8 bytes, 10 connections to 127.0.0.1:5000, threads 1; \
2.000 s after 1s of warm-up
sent                2000         1000/s
answers             1000          500/s
bytes       0.0 MB/s sent, 0.0 MB/s received
latency     p50 10.0 µs, p90 10.0 µs, p99 10.0 µs, p99.9 10.0 µs, max 10.0 µs, of 1000
errors      none
";
        assert_eq!(table(&settings(), &outcome()), expected);
    }

    /// A percentile of nothing would look like a very fast server.
    #[test]
    fn without_samples_there_are_no_percentiles() {
        let nothing =
            LoadOutcome { measured: Duration::ZERO, connected: 1, tally: LoadTally::default() };
        let table = table(&settings(), &nothing);
        assert!(table.contains("\nlatency     none measured\n"), "{table}");
    }

    #[test]
    fn a_table_of_an_open_loop_with_errors() {
        let settings = Settings { rate: Some(1000), traffic: Traffic::Broadcast, ..settings() };
        let mut outcome = outcome();
        let window = MeasuredTime { begin: 10, end: 20 };
        for now in [9, 15] {
            outcome.tally.error(7, now, window);
        }
        outcome.tally.lost = 2;
        outcome.tally.held_back = 3;
        outcome.tally.first_problem = Some("closed by the server".to_owned());
        let table = table(&settings, &outcome);
        for line in [
            "open loop, 1000 messages/s: broadcast of 64 bytes, 10 connections of which 1 send to ",
            "\ndeliveries          1000          500/s\n",
            "\nsent late   p50 2.0 µs, ",
            "\nheld back   3 messages, since too many were unanswered\n",
            "\nerrors      RATE_LIMIT_EXCEEDED 1, connections lost 2\n",
            "\n            1 more in the warm-up, not counted\n",
            "\nfirst       closed by the server\n",
        ] {
            assert!(table.contains(line), "{line} in {table}");
        }
    }

    #[test]
    fn an_object_has_its_keys_in_order() {
        let json = |settings: &Settings| {
            let mut out = Vec::new();
            write_json(settings, &outcome(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let closed = json(&settings());
        let expected = r#"{"loop":"closed","type":"ping","address":"127.0.0.1:5000","tls":false,"#;
        assert!(closed.starts_with(expected), "{closed}");
        let keys = [
            "connections",
            "connected",
            "threads",
            "pipeline",
            "rate",
            "payload_bytes",
            "senders",
            "warm_up_seconds",
            "seconds",
            "sent",
            "sent_per_second",
            "answers",
            "answers_per_second",
            "sent_bytes_per_second",
            "received_bytes_per_second",
            "latency_us",
            "lateness_us",
            "held_back",
            "errors",
            "warm_up_errors",
            "mismatches",
            "unanswered",
            "unsent",
            "connections_failed",
            "connections_lost",
            "connections_invalid",
            "first_problem",
            "clean",
        ];
        let places: Vec<usize> =
            keys.iter().map(|key| closed.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{closed}");
        assert!(closed.contains(r#""pipeline":32,"rate":null"#) && closed.ends_with("}\n"));
        assert!(closed.contains(r#""lateness_us":null"#) && closed.contains(r#""errors":{}"#));
        let open = json(&Settings { rate: Some(5), ..settings() });
        assert!(open.contains(r#""pipeline":null,"rate":5"#), "{open}");
    }
}
