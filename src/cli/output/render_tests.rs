//! Both formats of a result, byte by byte.

use super::*;
use crate::config::{Config, FileFormat};
use crate::engine::aggregate::{GroupAggregate, of_every_type};
use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use crate::engine::stream::intake::RecordIntake;
use crate::engine::stream::received::{CaptureLack, Reason, Received};
use crate::wire::schema::Schema;
use std::time::Instant;

/// Three groups: a text that needs escaping, a sum that is not a number, an infinite sum.
fn report() -> Report {
    let rows = [(7, &b"a\\\x1b"[..], 1.5), (3, b"", f32::NAN), (7, b"long text", f32::INFINITY)];
    let mut stream = Vec::new();
    for (a, text, c) in rows {
        stream.extend(271_u32.to_be_bytes());
        let record = stream.len();
        stream.extend(u32::to_be_bytes(a));
        stream.extend(5_u16.to_be_bytes());
        stream.extend(f32::to_be_bytes(c));
        stream.extend((-128_i8).to_be_bytes());
        stream.extend(text);
        stream.resize(record + 267, b' ');
    }
    let plan = Plan::new(Schema::built_in());
    let mut intake =
        RecordIntake::new(&plan, &Config::default(), stream.len() + 271, Instant::now());
    let mut set = ColumnSet::with_rows(&plan, 10);
    intake.handle_read(stream.len(), Instant::now());
    intake.poll_rows(&stream, &mut set).unwrap();
    let mut aggregate = GroupAggregate::new(&plan);
    aggregate.add(&mut set).unwrap();
    let now = Instant::now();
    let mut received = Received::nothing(4, "[::1]:9".parse().unwrap(), now);
    received.counts.records = 3;
    received.counts.bytes_after_end = 2;
    received.reason = Some(Reason::ClosedInHeader);
    received.detail = Some("closed by the peer".to_owned());
    let grouped = aggregate.finish(&intake.into_texts()).unwrap().grouped;
    Report { received, grouped, aggregated: now }
}

fn written(format: Format) -> String {
    let mut out = Vec::new();
    write_report(format, &report(), &StreamFiles::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_table_shows_everything_in_columns() {
    let table = written(Format::Table);
    let expected = "\
connection 4 from [::1]:9: incomplete, closed_in_header (closed by the peer)
shape: (3, 6)
┌─────┬───────────┬────────┬───────┬───────┬───────┐
│   A │ E         │ B_mean │ C_sum │ D_min │ count │
│ u32 │ text      │    f64 │   f64 │    i8 │   u64 │
├─────┼───────────┼────────┼───────┼───────┼───────┤
│   3 │           │    5.0 │   NaN │  -128 │     1 │
│   7 │ a\\\\\\x1b   │    5.0 │   1.5 │  -128 │     1 │
│   7 │ long text │    5.0 │   inf │  -128 │     1 │
└─────┴───────────┴────────┴───────┴───────┴───────┘
3 records, 0 packets, 0 bytes, 3 groups; window: none
2 bytes came after the end record and were not aggregated
";
    assert!(table.starts_with(expected), "{table}");
    let rest: Vec<&str> = table[expected.len()..].lines().collect();
    assert!(rest[0].contains(" s: receive ") && rest[1].ends_with(" MB/s"), "{table}");
    assert!(rest[2].starts_with("latency of 0 packets: none measured"), "{table}");
}

#[test]
fn a_line_has_its_keys_in_order_and_words_for_nan_and_infinity() {
    let line = written(Format::Ndjson);
    assert_eq!(line.matches('\n').count(), 1);
    let keys = [
        "connection",
        "peer",
        "status",
        "reason",
        "records",
        "packets",
        "bytes",
        "bytes_after_end",
        "buffer",
        "seconds",
        "receive_seconds",
        "aggregate_seconds",
        "records_per_second",
        "latency_us",
        "coalesced_reads",
        "coalesce_wait_us_p50",
        "coalesce_wait_us_p99",
        "coalesce_wait_us_max",
        "groups",
    ];
    let places: Vec<usize> =
        keys.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{line}");
    let groups = r#""groups":[{"A":3,"E":"","B_mean":5.0,"C_sum":"NaN","D_min":-128,"count":1},{"#;
    assert!(line.contains(groups), "{line}");
    assert!(line.contains(r#""E":"a\\\\\\x1b""#) && line.contains(r#""C_sum":"inf""#), "{line}");
}

/// What both formats say about files.
fn said(result: Option<ResultFile>, capture: Option<Captured>) -> [String; 2] {
    let mut report = report();
    report.received.capture = capture;
    let files = StreamFiles { result, captures: true, partials: false };
    [Format::Table, Format::Ndjson].map(|format| {
        let mut out = Vec::new();
        write_report(format, &report, &files, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    })
}

#[test]
fn a_result_says_where_its_files_are() {
    let captured = Captured { path: Some("c/x.capture".into()), bytes: 271, lack: None };
    let [table, line] = said(Some(Some(Ok("o/x.parquet".into()))), Some(captured.clone()));
    assert!(
        table.ends_with("measured\nfile: o/x.parquet\ncapture: c/x.capture, 271 bytes\n\n"),
        "{table}"
    );
    let keys = concat!(
        r#""file":"o/x.parquet","file_error":null,"#,
        r#""capture":"c/x.capture","capture_bytes":271,"capture_error":null,"groups":[{"#
    );
    assert!(line.contains(keys), "{line}");

    let cut = Captured { lack: Some(CaptureLack::Limit(271)), ..captured };
    let [table, line] = said(None, Some(cut));
    let lack = "cut: all captures together have 271 bytes (--capture-bytes-limit)";
    assert!(table.ends_with(&format!("\ncapture: c/x.capture, 271 bytes, {lack}\n\n")), "{table}");
    assert!(line.contains(&format!(r#""capture_bytes":271,"capture_error":"{lack}","#)), "{line}");
    assert!(!line.contains("\"file\""), "{line}");
}

#[test]
fn a_result_says_which_files_are_missing() {
    let failed = CaptureLack::Failed("disk on fire".to_owned());
    let captured = Captured { lack: Some(failed), ..Captured::default() };
    let [table, line] = said(Some(Some(Err("disk full".to_owned()))), Some(captured));
    assert!(
        table.ends_with("\nfile: NOT WRITTEN: disk full\ncapture: NOT WRITTEN: disk on fire\n\n")
    );
    let keys = concat!(
        r#""file":null,"file_error":"disk full","#,
        r#""capture":null,"capture_bytes":0,"capture_error":"disk on fire","groups":["#
    );
    assert!(line.contains(keys), "{line}");
    // A connection without a slot has neither.
    let [table, line] = said(Some(None), None);
    assert!(table.ends_with("measured\n\n"), "{table}");
    let keys = concat!(
        r#""file":null,"file_error":null,"#,
        r#""capture":null,"capture_bytes":0,"capture_error":null,"groups":["#
    );
    assert!(line.contains(keys), "{line}");
}

#[test]
fn a_result_says_how_many_batches_of_its_partials_are_missing() {
    let mut report = report();
    let written = |report: &Report, format| {
        let mut out = Vec::new();
        let files = StreamFiles { partials: true, ..StreamFiles::default() };
        write_report(format, report, &files, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let whole = written(&report, Format::Ndjson);
    assert!(whole.contains(r#","partials_failed":0,"partials_error":null,"groups":["#), "{whole}");
    assert!(!written(&report, Format::Table).contains("partials"));
    for cause in ["the disk is full", "something else"] {
        report.received.partials.add(cause.to_owned());
    }
    let line = written(&report, Format::Ndjson);
    let keys = r#","partials_failed":2,"partials_error":"the disk is full","groups":["#;
    assert!(line.contains(keys), "{line}");
    let table = written(&report, Format::Table);
    assert!(table.contains("\npartials: 2 batches NOT WRITTEN: the disk is full\n"), "{table}");
}

/// Bytes as text, numbers right-aligned, 32-bit fractions short in the table and exact in JSON.
#[test]
fn columns_of_every_type_and_missing_cells() {
    let grouped = of_every_type();
    let mut table = Vec::new();
    write_groups(&grouped, &mut table).unwrap();
    let expected = "\
shape: (3, 9)
┌────────┬────────┬───────┬──────────────────────┬───────┬─────────┬───────┬───────┬───────┐
│ T      │ R      │     O │                U_sum │ I_min │ F_first │ F_var │ P_max │ count │
│ text   │ bytes  │  bool │                  u64 │    i8 │     f32 │   f64 │   u16 │   u64 │
├────────┼────────┼───────┼──────────────────────┼───────┼─────────┼───────┼───────┼───────┤
│        │ 0001ff │ false │ 18446744073709551615 │  -128 │     0.1 │  null │     0 │     1 │
│ a,\"b\\\\ │ 616263 │  true │                 null │     0 │     NaN │   inf │     7 │     2 │
│ x\\x1b  │ 202020 │  true │                    0 │   127 │    -0.0 │  -inf │ 65535 │     3 │
└────────┴────────┴───────┴──────────────────────┴───────┴─────────┴───────┴───────┴───────┘
";
    assert_eq!(String::from_utf8(table).unwrap(), expected);
    let report = Report { grouped, ..report() };
    let mut line = Vec::new();
    write_report(Format::Ndjson, &report, &StreamFiles::default(), &mut line).unwrap();
    let mut groups = Vec::new();
    report.grouped.write_to(FileFormat::Ndjson, &mut groups, &[]).unwrap();
    // A file has the same objects, one per line.
    let groups = String::from_utf8(groups).unwrap().trim_end().replace('\n', ",");
    let line = String::from_utf8(line).unwrap();
    assert!(line.ends_with(&format!(r#""groups":[{groups}]}}{}"#, '\n')), "{line}");
    assert!(line.contains(r#""R":"0001ff","O":false,"U_sum":18446744073709551615,"I_min":-128,"#));
}

/// Such as that of a connection without a slot.
#[test]
fn a_result_without_a_group_shows_its_columns() {
    let mut table = Vec::new();
    write_groups(&Grouped::empty(Schema::built_in()), &mut table).unwrap();
    let expected = "\
shape: (0, 6)
┌─────┬──────┬────────┬───────┬───────┬───────┐
│   A │ E    │ B_mean │ C_sum │ D_min │ count │
│ u32 │ text │    f64 │   f64 │    i8 │   u64 │
├─────┼──────┼────────┼───────┼───────┼───────┤
└─────┴──────┴────────┴───────┴───────┴───────┘
";
    assert_eq!(String::from_utf8(table).unwrap(), expected);
}
