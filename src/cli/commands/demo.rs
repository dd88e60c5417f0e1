//! `ringest demo`: an engine, its senders and a comparison of results in one process, over real
//! TCP. It does nothing that `serve` and `send` cannot do.

use super::serve::{start, to_stdout};
use crate::cli::args::demo::DemoOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK};
use crate::cli::output::demo_summary::{SummaryRow, write_summary};
use crate::cli::output::format::Format;
use crate::cli::terminal::status_line::say;
use crate::client::records::block::PacketBlock;
use crate::client::records::generate::{SentPadding, StreamSpec};
use crate::client::records::sender::{SendSettings, Sent, send_stream};
use crate::client::verify::expected::{self, ReportedGroup};
use crate::config::Config;
use crate::engine::aggregate::Value;
use crate::runtime::results::report::Report;
use crate::runtime::results::reporter::Sink;
use crate::wire::schema::Schema;
use crate::wire::text::counted;
use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Records per packet, as real senders have them. Writes are larger than theirs, to spare a system
/// call per packet; both are the defaults of `send`.
const PACKET_RECORDS: usize = 4;
const WRITE_BYTES: usize = 60 << 10;
/// Groups per connection, as real senders have them.
const GROUPS: u32 = 125;
/// Differences that are listed before the rest is only counted.
const DIFFERENCES_LISTED: usize = 20;

/// What is kept of a report for the comparison and the summary.
struct Kept {
    status: &'static str,
    records: u64,
    groups: Vec<ReportedGroup>,
    summary: SummaryRow,
}

type KeptResults = Arc<Mutex<HashMap<SocketAddr, Kept>>>;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &DemoOptions) -> u8 {
    let results = KeptResults::default();
    let config = Config {
        exit_after: Some(u64::from(options.connections)),
        host: "127.0.0.1".to_owned(),
        records_port: Some(0),
        port: None,
        admin_port: Some(0),
        ..options.resources.config()
    };
    let sink = keeping(&results, to_stdout(options.format));
    let engine = match start(&config, &Schema::built_in(), sink) {
        Ok(engine) => engine,
        Err(code) => return code,
    };
    let address = engine.records_address().expect("a record listener was asked for");
    let stopper = engine.stopper();
    say(format_args!(
        "engine on {address} with {}; sending {} of {}",
        counted(engine.workers(), "worker"),
        counted(options.connections, "connection"),
        counted(options.records, "record"),
    ));
    let (sent, mut differences) = send_all(options, address);
    if !differences.is_empty() {
        // The engine would wait for the connections that failed.
        stopper.stop(Duration::ZERO);
    }
    if let Some(error) = engine.wait().output_error {
        say(format_args!("cannot write results to stdout: {error}; nothing was compared"));
        return EXIT_FAILED;
    }
    if options.format == Format::Table
        && io::stdout().is_terminal()
        && let Err(error) = write_summary(rows(&results), &mut io::stdout().lock())
    {
        say(format_args!("cannot write the summary to stdout: {error}"));
        return EXIT_FAILED;
    }
    differences.extend(compare(&sent, &results));
    conclude(&differences, &sent)
}

/// Sends all streams at once; returns those that were sent and why others were not.
fn send_all(options: &DemoOptions, address: SocketAddr) -> (Vec<Sent>, Vec<String>) {
    let spec = StreamSpec {
        schema: Schema::built_in(),
        records: options.records,
        packet_records: PACKET_RECORDS,
        padding: SentPadding::Mixed,
        seed: 0,
        groups: GROUPS,
    };
    let block = PacketBlock::new(&spec).expect("packets of a few records, of a few groups");
    let send = |number| {
        let block = Arc::clone(&block);
        let settings = SendSettings {
            number,
            write_bytes: WRITE_BYTES,
            pace: None,
            tally: true,
            ..SendSettings::default()
        };
        let send = move || send_stream(address, &block, &settings, &AtomicU64::new(0));
        thread::Builder::new().spawn(send)
    };
    let senders: Vec<_> = (0..options.connections).map(send).collect();
    let (mut sent, mut errors) = (Vec::new(), Vec::new());
    for sender in senders {
        let sender = match sender {
            Ok(sender) => sender,
            Err(error) => {
                errors.push(format!("cannot start a thread: {error}; try fewer --connections"));
                continue;
            }
        };
        match sender.join() {
            Ok(Ok(stream)) => sent.push(stream),
            Ok(Err(error)) => errors.push(error.to_string()),
            Err(_) => errors.push("a sender panicked".to_owned()),
        }
    }
    (sent, errors)
}

/// Passes each report on to `sink` and keeps what the comparison and the summary need.
fn keeping(results: &KeptResults, mut sink: Sink) -> Sink {
    let results = Arc::clone(results);
    Box::new(move |report: &Report, tally| {
        let printed = sink(report, tally);
        let columns = report.grouped.columns();
        let groups = (0..report.grouped.len()).map(|row| {
            let values = columns.iter().map(|column| reported(column.value(row)));
            ReportedGroup::new(report.grouped.schema(), values.collect())
        });
        let received = &report.received;
        let kept = Kept {
            summary: SummaryRow::of(report),
            status: received.status().as_str(),
            records: received.counts.records,
            groups: groups.collect(),
        };
        results.lock().expect("no holder panics").insert(received.peer, kept);
        printed
    })
}

fn rows(results: &KeptResults) -> Vec<SummaryRow> {
    let results = results.lock().expect("no holder panics");
    results.values().map(|kept| kept.summary.clone()).collect()
}

/// A cell in the form that the comparison takes.
fn reported(value: Value<'_>) -> expected::ExpectedValue {
    match value {
        Value::Null => expected::ExpectedValue::Null,
        Value::Unsigned(integer) => expected::ExpectedValue::Integer(integer.into()),
        Value::Signed(integer) => expected::ExpectedValue::Integer(integer.into()),
        Value::Float(float) => expected::ExpectedValue::Float(float),
        Value::Bool(bool) => expected::ExpectedValue::Bool(bool),
        Value::Text(_) | Value::Bytes(_) => expected::ExpectedValue::Text(value.to_string()),
    }
}

fn compare(sent: &[Sent], results: &KeptResults) -> Vec<String> {
    let results = results.lock().expect("no holder panics");
    let mut found = Vec::new();
    for stream in sent {
        let peer = stream.local;
        match (&stream.expected, results.get(&peer)) {
            (Some(expected), Some(kept)) => {
                let differences = expected.differences(kept.status, kept.records, &kept.groups);
                found.extend(differences.into_iter().map(|text| format!("{peer}: {text}")));
            }
            _ => found.push(format!("{peer}: no result")),
        }
    }
    found
}

fn conclude(differences: &[String], sent: &[Sent]) -> u8 {
    if differences.is_empty() {
        let records: u64 = sent.iter().map(|stream| stream.records).sum();
        say(format_args!(
            "{} of {} {} what was sent: counts and minima exactly, means and sums to 1e-9",
            counted(sent.len(), "result"),
            counted(records, "record"),
            if sent.len() == 1 { "matches" } else { "match" }
        ));
        return EXIT_OK;
    }
    for difference in differences.iter().take(DIFFERENCES_LISTED) {
        say(difference);
    }
    say(format_args!(
        "{}; this is a bug, please report it",
        counted(differences.len(), "difference")
    ));
    EXIT_FAILED
}
