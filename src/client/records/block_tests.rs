//! Tests blocks of the built-in record by parsing their streams and adding them up record by
//! record. Opens no socket.

use super::*;
use crate::client::records::generate::SentPadding;
use crate::client::verify::expected::{ExpectedValue, ReportedGroup};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PACKET_SIZES: [usize; 5] = [1, 3, 4, 7, 960];
const PADDINGS: [SentPadding; 3] = [SentPadding::Space, SentPadding::Nul, SentPadding::Mixed];

fn spec(records: u64, packet_records: usize) -> StreamSpec {
    let (schema, padding, seed, groups) = (Schema::built_in(), SentPadding::Mixed, 7, 125);
    StreamSpec { schema, records, packet_records, padding, seed, groups }
}

fn block_of(spec: &StreamSpec) -> Arc<PacketBlock> {
    PacketBlock::new(spec).unwrap()
}

/// The writes of a stream, each as its bytes.
fn writes_of(block: &PacketBlock, number: u32, write_bytes: usize) -> Vec<Vec<u8>> {
    let mut writes = block.writes(number, write_bytes);
    let mut found = Vec::new();
    let mut sum = WriteContents::default();
    while let Some((held, pieces)) = writes.next_write() {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(held.bytes, bytes.len() as u64);
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "no empty piece");
        sum.records += held.records;
        sum.packets += held.packets;
        found.push(bytes);
    }
    let spec = block.spec();
    assert_eq!(sum.records, spec.records);
    assert_eq!(sum.packets, spec.records / spec.packet_records as u64 + 1);
    found
}

fn stream_of(block: &PacketBlock, number: u32) -> Vec<u8> {
    writes_of(block, number, 0).concat()
}

/// Splits a stream into packets by their length fields.
fn packets_of(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !stream.is_empty() {
        let length = u32::from_be_bytes(stream[..4].try_into().unwrap()) as usize;
        let (packet, rest) = stream.split_at(length);
        found.push(packet);
        stream = rest;
    }
    found
}

/// The data records of a stream, after checking its packets and its end record.
fn records_of(stream: &[u8], packet_records: usize) -> Vec<&[u8]> {
    let packets = packets_of(stream);
    let (last, full) = packets.split_last().unwrap();
    assert!(full.iter().all(|packet| packet.len() == 4 + packet_records * 267));
    assert!(last.len() <= 4 + packet_records * 267, "the end record fits into the last packet");
    let mut records: Vec<&[u8]> =
        packets.iter().flat_map(|packet| packet[4..].chunks(267)).collect();
    assert_eq!(records.pop().unwrap(), [0; 267]);
    // In data records the text never begins with a 0 byte.
    assert!(records.iter().all(|record| record.len() == 267 && record[11] != 0));
    records
}

#[derive(Default)]
struct NaiveGroup {
    b_sum: u64,
    c_sum: f64,
    d_min: Option<i8>,
    count: u64,
}

/// Groups of records, added up one by one.
fn groups_of(records: &[&[u8]]) -> Vec<ReportedGroup> {
    let mut groups: BTreeMap<(u32, String), NaiveGroup> = BTreeMap::new();
    for record in records {
        let a = u32::from_be_bytes(record[..4].try_into().unwrap());
        let b = u16::from_be_bytes(record[4..6].try_into().unwrap());
        let c = f32::from_be_bytes(record[6..10].try_into().unwrap());
        let d = record[10] as i8;
        let e = std::str::from_utf8(&record[11..]).unwrap().trim_end_matches(['\0', ' ']);
        let group = groups.entry((a, e.to_owned())).or_default();
        group.b_sum += u64::from(b);
        group.c_sum += f64::from(c);
        group.d_min = Some(group.d_min.map_or(d, |min| min.min(d)));
        group.count += 1;
    }
    let reported = |((a, e), group): ((u32, String), NaiveGroup)| {
        let values = vec![
            ExpectedValue::Integer(a.into()),
            ExpectedValue::Text(e),
            ExpectedValue::Float(group.b_sum as f64 / group.count as f64),
            ExpectedValue::Float(group.c_sum),
            ExpectedValue::Integer(group.d_min.unwrap().into()),
            ExpectedValue::Integer(group.count.into()),
        ];
        ReportedGroup::new(&Schema::built_in(), values)
    };
    groups.into_iter().map(reported).collect()
}

fn assert_as_expected(block: &PacketBlock, number: u32) {
    let spec = block.spec();
    let stream = stream_of(block, number);
    let records = records_of(&stream, spec.packet_records);
    let groups = groups_of(&records);
    let differences = block.expected(number).differences("complete", records.len() as u64, &groups);
    assert_eq!(differences, Vec::<String>::new(), "{spec:?}, stream {number}");
    if spec.records >= u64::from(spec.groups) {
        assert_eq!(groups.len(), spec.groups as usize, "every group of {spec:?}");
    }
}

/// The writes of a sender that copies packet by packet into a buffer.
fn collected(stream: &[u8], write_bytes: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut waiting = Vec::new();
    for packet in packets_of(stream) {
        waiting.extend_from_slice(packet);
        if waiting.len() >= write_bytes {
            found.push(std::mem::take(&mut waiting));
        }
    }
    if !waiting.is_empty() {
        found.push(waiting);
    }
    found
}

#[test]
fn packets_are_as_the_protocol_says() {
    for (records, packet_records, sizes) in [
        (0, 4, vec![271]),
        (3, 4, vec![1072]),
        (4, 4, vec![1072, 271]),
        (5, 4, vec![1072, 538]),
        (2, 1, vec![271, 271, 271]),
        (2, 960, vec![805]),
    ] {
        let stream = stream_of(&block_of(&spec(records, packet_records)), 0);
        let found: Vec<usize> = packets_of(&stream).iter().map(|packet| packet.len()).collect();
        assert_eq!(found, sizes);
        assert_eq!(records_of(&stream, packet_records).len() as u64, records);
    }
}

/// Lengths around every boundary where an off-by-one error could occur, with blocks of the real
/// size.
#[test]
fn streams_around_the_block_hold_what_they_should() {
    for packet_records in [1, 4, 960] {
        let block = block_of(&spec(1_000_000, packet_records));
        let in_block = block.order.len() as u64;
        assert!(block.size_bytes() >= SEND_BLOCK_BYTES);
        assert!(block.size_bytes() < SEND_BLOCK_BYTES + block.shape.packet_bytes);
        let one = packet_records as u64;
        let around = [0, 1, one - 1, one, one + 1, 125, in_block - 1, in_block, in_block + 1];
        for records in around.into_iter().chain([3 * in_block + one + 1]) {
            let block = block_of(&spec(records, packet_records));
            assert!(block.size_bytes() <= SEND_BLOCK_BYTES + block.shape.packet_bytes);
            assert_as_expected(&block, 0);
            assert_as_expected(&block, 3);
        }
    }
}

#[test]
fn a_description_and_a_number_give_the_same_stream() {
    let block = |seed| block_of(&StreamSpec { seed, ..spec(1000, 4) });
    assert_eq!(stream_of(&block(1), 5), stream_of(&block(1), 5));
    assert_ne!(stream_of(&block(1), 5), stream_of(&block(2), 5));
    assert_ne!(stream_of(&block(1), 5), stream_of(&block(1), 6));
    assert_eq!(block(1).distinct_streams(), 250);
    assert_eq!(stream_of(&block(1), 250), stream_of(&block(1), 0));
}

#[test]
fn a_shorter_stream_begins_like_a_longer_one() {
    let full_packets = |records| {
        let stream = stream_of(&block_of(&spec(records, 4)), 0);
        stream[..records as usize / 4 * 1072].to_vec()
    };
    assert!(full_packets(20_000).starts_with(&full_packets(403)));
}

/// A seed keeps giving the same bytes across versions, so that runs can be compared.
#[test]
fn the_bytes_of_the_built_in_record_stay_what_they_were() {
    for (padding, crc) in [
        (SentPadding::Space, 0x08ae_56ef),
        (SentPadding::Nul, 0x3f63_edad),
        (SentPadding::Mixed, 0x7569_f235),
    ] {
        let stream = stream_of(&block_of(&StreamSpec { padding, groups: 600, ..spec(5003, 4) }), 3);
        assert_eq!((stream.len(), crc32fast::hash(&stream)), (1_341_072, crc), "{padding:?}");
    }
}

/// A short stream must not allocate a large packet.
#[test]
fn a_block_is_not_larger_than_it_needs_to_be() {
    let size_bytes = |records, packet_records, groups| {
        block_of(&StreamSpec { groups, ..spec(records, packet_records) }).size_bytes()
    };
    assert_eq!(size_bytes(3, 1_000_000, 125), 4 + 3 * 267);
    assert_eq!(size_bytes(0, 4, u32::MAX), 0);
    assert_eq!(size_bytes(10, 4, u32::MAX), 3 * 4 + 10 * 267);
    assert_eq!(size_bytes(u64::MAX, 4, 10_000), 2500 * 1072);
    assert_eq!(size_bytes(u64::MAX, 4, 10_001), 2501 * 1072);
    assert_eq!(size_bytes(u64::MAX, 4, 125), SEND_BLOCK_BYTES.div_ceil(1072) * 1072);
}

/// A write size above the limit must not give an unbounded list of pieces.
#[test]
fn a_write_has_a_largest_size() {
    let block = block_of(&spec(u64::MAX, 4));
    let mut writes = block.writes(1, usize::MAX);
    let (held, pieces) = writes.next_write().unwrap();
    assert_eq!(held.packets, SEND_WRITE_BYTES.1.div_ceil(1072) as u64);
    assert!(pieces.len() <= 1024, "{} pieces", pieces.len());
    assert_eq!(writes.records_at_once(), held.records);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Small blocks, so that streams shorter than, equal to and many times the block all occur.
    #[test]
    fn any_stream_is_what_it_is_expected_to_be(
        records in 0_u64..3000,
        packet_records in prop::sample::select(PACKET_SIZES.to_vec()),
        groups in prop_oneof![1_u32..200, 1_u32..4000],
        padding in prop::sample::select(PADDINGS.to_vec()),
        seed: u64,
        number in 0_u32..2000,
        block_bytes in 1_usize..200_000,
    ) {
        let schema = Schema::built_in();
        let spec = StreamSpec { schema, records, packet_records, padding, seed, groups };
        let block = PacketBlock::of_bytes(&spec, block_bytes).unwrap();
        assert_as_expected(&block, number);
        prop_assert!(block.order.len() as u64 <= records);
    }

    #[test]
    fn writes_are_those_of_collected_packets(
        records in 0_u64..3000,
        packet_records in prop::sample::select(PACKET_SIZES.to_vec()),
        write_bytes in prop_oneof![Just(0), 0_usize..3000, 0_usize..400_000],
        number in 0_u32..100,
        block_bytes in 1_usize..100_000,
    ) {
        let block = PacketBlock::of_bytes(&spec(records, packet_records), block_bytes).unwrap();
        let found = writes_of(&block, number, write_bytes);
        prop_assert_eq!(found, collected(&stream_of(&block, number), write_bytes));
    }
}
