//! Captures as `ringest schema check --sample` shows them, and payloads of DATA: both find packets
//! in bytes of any content.

use super::any_schema;
use super::input::FuzzInput;
use super::reading::{Reading, ReadingLimits};
use crate::cli::output::record_sample::RecordSample;
use crate::config::Config;
use crate::wire::records::packets::{RecordForm, begins_with_packet, check_whole_packets};
use crate::wire::schema::{End, Framing, Length, Schema};

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let schema = any_schema::schema(&mut input);
    let more = u64::from(input.byte());
    let bytes = input.rest();
    let limits = ReadingLimits {
        packet_bytes: Config::default().packet_bytes_limit,
        groups: None,
        rows: usize::MAX,
        texts: usize::MAX,
        text_bytes: usize::MAX,
    };
    let reading = Reading::of(&schema, bytes, &limits);
    let sample = RecordSample::of(&schema, bytes, bytes.len() as u64 + more);
    let other_size = reading.ended && reading.cut.is_some();
    // The end of what was looked at is not the end of the file, and a stream without an end record
    // is a note.
    let whole = more == 0 && reading.cut.is_some() && !ends_open(&schema, &reading);
    let wrong = reading.refused.is_some() || other_size || whole;
    assert_eq!(sample.fits(), !wrong, "{reading:?}");
    let shown = sample.to_string();
    assert!(shown.lines().count() <= schema.fields().len() + 16, "{shown}");
    let is_shown = |c: char| c == '\n' || !c.is_control();
    assert!(shown.chars().all(is_shown), "{}", shown.escape_debug());
    check_payload(&schema, bytes, &limits);
}

/// Whether only the end record is missing.
fn ends_open(schema: &Schema, reading: &Reading<'_>) -> bool {
    use crate::wire::records::packets::StreamCut::BetweenPackets;
    schema.framing().end == End::ZeroRecord && reading.cut == Some(BetweenPackets)
}

/// DATA must be whole packets, wherever an end record is.
fn check_payload(schema: &Schema, bytes: &[u8], limits: &ReadingLimits) {
    let form = RecordForm::of(schema);
    let framing = Framing { end: End::Close, ..schema.framing() };
    let fields = schema.fields().iter().map(|field| (field.name.clone(), field.kind)).collect();
    let is_key = |i: &usize| schema.keys().any(|key| key.offset == schema.fields()[*i].offset);
    let keys = (0..schema.fields().len()).filter(is_key).collect();
    let name = schema.name().to_owned();
    let closed = Schema::new(name, schema.endian(), framing, fields, keys, Vec::new());
    let closed = closed.expect("the same but for its end");
    let reading = Reading::of(&closed, bytes, limits);
    let whole = reading.refused.is_none() && (reading.cut.is_none() || bytes.is_empty());
    let limit = limits.packet_bytes;
    assert_eq!(check_whole_packets(&form, bytes, limit).is_ok(), whole, "{reading:?}");
    if whole && !bytes.is_empty() {
        assert!(begins_with_packet(&form, bytes, limit));
    }
    if framing.length == Length::None {
        assert_eq!(begins_with_packet(&form, bytes, limit), whole && !bytes.is_empty());
    }
}
