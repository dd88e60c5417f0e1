//! Reads the engine's ndjson results: judges none of them.

use super::expected::ReportedGroup;
use serde::Deserialize;

/// One line of results, as far as a sender needs it.
#[derive(Debug, PartialEq)]
pub struct ResultLine {
    /// The sender's address as the engine saw it.
    pub peer: String,
    /// `complete`, `incomplete` or `rejected`.
    pub status: String,
    /// Records received.
    pub records: u64,
    /// The groups.
    pub groups: Vec<ReportedGroup>,
}

#[derive(Deserialize)]
struct RawLine {
    peer: String,
    status: String,
    records: u64,
    groups: Vec<RawGroup>,
}

#[derive(Deserialize)]
struct RawGroup {
    #[serde(rename = "A")]
    a: u32,
    #[serde(rename = "E")]
    e: String,
    #[serde(rename = "B_mean")]
    b_mean: Number,
    #[serde(rename = "C_sum")]
    c_sum: Number,
    #[serde(rename = "D_min")]
    d_min: i8,
    count: u64,
}

/// A number, or one of the words for what JSON has no number for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f64),
    Word(NonFinite),
}

#[derive(Deserialize)]
enum NonFinite {
    #[serde(rename = "NaN")]
    NaN,
    #[serde(rename = "inf")]
    Infinity,
    #[serde(rename = "-inf")]
    NegativeInfinity,
}

impl From<Number> for f64 {
    fn from(number: Number) -> f64 {
        match number {
            Number::Finite(value) => value,
            Number::Word(NonFinite::NaN) => f64::NAN,
            Number::Word(NonFinite::Infinity) => f64::INFINITY,
            Number::Word(NonFinite::NegativeInfinity) => f64::NEG_INFINITY,
        }
    }
}

/// Reads one line.
///
/// # Errors
/// Where it is not a result of the engine.
pub fn parse_line(line: &[u8]) -> serde_json::Result<ResultLine> {
    let RawLine { peer, status, records, groups } = serde_json::from_slice(line)?;
    let groups = groups
        .into_iter()
        .map(|RawGroup { a, e, b_mean, c_sum, d_min, count }| ReportedGroup {
            a,
            e,
            b_mean: b_mean.into(),
            c_sum: c_sum.into(),
            d_min,
            count,
        })
        .collect();
    Ok(ResultLine { peer, status, records, groups })
}

/// The finished lines of `bytes`, and how many bytes they take with their line ends; what follows
/// is a line that is still being written.
pub fn finished_lines(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, usize) {
    let end = memchr::memrchr(b'\n', bytes).map_or(0, |last| last + 1);
    let mut start = 0;
    let lines = memchr::memchr_iter(b'\n', &bytes[..end]).map(move |line_end| {
        let line = &bytes[start..line_end];
        start = line_end + 1;
        line
    });
    (lines, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_words_for_numbers() {
        let line = br#"{"connection":1,"peer":"127.0.0.1:5","status":"complete","records":2,
            "groups":[{"A":1,"E":"a\\x00b","B_mean":1.5,"C_sum":"-inf","D_min":-128,"count":2}]}"#;
        let line = parse_line(line).unwrap();
        assert_eq!((line.peer.as_str(), line.records), ("127.0.0.1:5", 2));
        assert_eq!(line.groups[0].e, r"a\x00b");
        assert_eq!((line.groups[0].c_sum, line.groups[0].d_min), (f64::NEG_INFINITY, -128));
        assert!(parse_line(b"{}").is_err());
        let word = br#"{"peer":"x","status":"complete","records":1,
            "groups":[{"A":1,"E":"","B_mean":"many","C_sum":1,"D_min":1,"count":1}]}"#;
        assert!(parse_line(word).is_err());
    }

    #[test]
    fn an_unfinished_line_is_left() {
        let (lines, bytes) = finished_lines(b"one\n\ntwo\nthr");
        assert_eq!(lines.collect::<Vec<_>>(), [&b"one"[..], b"", b"two"]);
        assert_eq!(bytes, 9);
        assert_eq!(finished_lines(b"thr").1, 0);
    }
}
