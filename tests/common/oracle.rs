//! Encodes records and adds them up in the plainest way.

use ringest::internals::{ShownText, TextEncoding};
use serde_json::Value;
use std::collections::BTreeMap;

pub const RECORD_BYTES: usize = 267;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub a: u32,
    pub b: u16,
    pub c: f32,
    pub d: i8,
    pub e: Vec<u8>,
    pub padding: u8,
}

pub fn record(a: u32, b: u16, c: f32, d: i8, e: &[u8]) -> Record {
    Record { a, b, c, d, e: e.to_vec(), padding: b' ' }
}

impl Record {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.a.to_be_bytes().to_vec();
        bytes.extend(self.b.to_be_bytes());
        bytes.extend(self.c.to_be_bytes());
        bytes.extend(self.d.to_be_bytes());
        bytes.extend(&self.e);
        bytes.resize(RECORD_BYTES, self.padding);
        bytes
    }
}

/// Some records of a few groups, the same for the same seed.
pub fn records(count: usize, seed: u64) -> Vec<Record> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|_| Record {
            a: random.u32(1..4),
            b: random.u16(..),
            c: random.f32() * 3.4e38,
            d: random.i8(..),
            e: format!("pump {}", random.u8(..4)).into_bytes(),
            padding: if random.bool() { 0 } else { b' ' },
        })
        .collect()
}

pub fn packet(records: &[Vec<u8>]) -> Vec<u8> {
    let length = 4 + records.len() * RECORD_BYTES;
    [&(length as u32).to_be_bytes()[..], &records.concat()].concat()
}

pub fn end_record() -> Vec<u8> {
    vec![0; RECORD_BYTES]
}

/// Packets of `per_packet` records without an end.
pub fn packets(records: &[Record], per_packet: usize) -> Vec<u8> {
    records
        .chunks(per_packet)
        .flat_map(|chunk| packet(&chunk.iter().map(Record::bytes).collect::<Vec<_>>()))
        .collect()
}

/// A whole stream: packets, then a packet with the end record alone.
pub fn stream(records: &[Record], per_packet: usize) -> Vec<u8> {
    [packets(records, per_packet), packet(&[end_record()])].concat()
}

fn shown(text: &[u8]) -> String {
    let text = &text[..text.iter().rposition(|b| !matches!(b, 0 | 32)).map_or(0, |last| last + 1)];
    ShownText(text, TextEncoding::Utf8).to_string()
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
        None => value.as_f64().expect("a number"),
    }
}

fn near(left: f64, right: f64) -> bool {
    left == right
        || left.is_nan() && right.is_nan()
        || (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
}

/// Fails unless the result has exactly the groups of `records`, and says so in its counts.
pub fn assert_result(result: &Value, records: &[Record]) {
    let mut groups: BTreeMap<(u32, Vec<u8>), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let end = record.e.iter().rposition(|b| !matches!(b, 0 | 32)).map_or(0, |last| last + 1);
        groups.entry((record.a, record.e[..end].to_vec())).or_default().push(record);
    }
    assert_eq!(result["records"], records.len(), "{result}");
    let reported = result["groups"].as_array().expect("groups");
    assert_eq!(reported.len(), groups.len(), "{result}");
    for (group, ((a, e), members)) in reported.iter().zip(&groups) {
        assert_eq!((&group["A"], &group["E"]), (&Value::from(*a), &Value::from(shown(e))));
        assert_eq!(group["count"], members.len(), "{group}");
        assert_eq!(group["D_min"], members.iter().map(|record| record.d).min().unwrap());
        let b_sum: u64 = members.iter().map(|record| u64::from(record.b)).sum();
        assert!(near(number(&group["B_mean"]), b_sum as f64 / members.len() as f64), "{group}");
        let c_sum: f64 = members.iter().map(|record| f64::from(record.c)).sum();
        assert!(near(number(&group["C_sum"]), c_sum), "{group}, {c_sum} expected");
    }
}
