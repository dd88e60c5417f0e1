//! Tests blocks of arbitrary schemas by parsing and adding up their streams with code independent
//! of the expectations under test. Opens no socket.

use super::*;
use crate::client::records::generate::SentPadding;
use crate::client::verify::expected::{ExpectedValue, ReportedGroup};
use crate::engine::oracle::any::NUMBERS;
use crate::wire::schema::{Aggregate, Field, Framing, Function, Kind, Length};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PADDINGS: [SentPadding; 3] = [SentPadding::Space, SentPadding::Nul, SentPadding::Mixed];

fn schema(
    endian: Endian,
    framing: Framing,
    kinds: &[Kind],
    keys: &[usize],
    aggregates: &[Aggregate],
) -> Arc<Schema> {
    let name = |(i, &kind): (usize, &Kind)| match kind {
        Kind::Skip { .. } => (String::new(), kind),
        _ => (format!("f{i}"), kind),
    };
    let fields = kinds.iter().enumerate().map(name).collect();
    let schema =
        Schema::new("test".into(), endian, framing, fields, keys.into(), aggregates.into());
    Arc::new(schema.unwrap())
}

/// Every function of each of these fields.
fn all_of(fields: &[usize]) -> Vec<Aggregate> {
    let of = |&field| Function::ALL.map(|function| Aggregate::Of { field, function });
    fields.iter().flat_map(of).collect()
}

fn spec(schema: Arc<Schema>, records: u64, packet_records: usize, groups: u32) -> StreamSpec {
    let (padding, seed) = (SentPadding::Mixed, 11);
    StreamSpec { schema, records, packet_records, padding, seed, groups }
}

fn text(bytes: usize) -> Kind {
    Kind::Text { bytes, padding: crate::wire::text::Padding::BOTH }
}

fn stream_of(block: &PacketBlock, number: u32, write_bytes: usize) -> (Vec<u8>, WriteContents) {
    let (mut stream, mut sum) = (Vec::new(), WriteContents::default());
    let mut writes = block.writes(number, write_bytes);
    while let Some((held, pieces)) = writes.next_write() {
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "no empty piece");
        let before = stream.len();
        pieces.iter().for_each(|piece| stream.extend_from_slice(piece));
        assert_eq!(held.bytes, (stream.len() - before) as u64);
        sum.records += held.records;
        sum.packets += held.packets;
        sum.bytes += held.bytes;
    }
    (stream, sum)
}

/// The data records of a whole stream, and its packets.
fn parse<'a>(schema: &Schema, mut stream: &'a [u8]) -> (Vec<&'a [u8]>, u64) {
    let (framing, record_bytes) = (schema.framing(), schema.record_bytes());
    let (mut records, mut packets) = (Vec::new(), 0);
    while !stream.is_empty() {
        let (length, after) = match (framing.length, framing.endian, stream) {
            (Length::None, ..) => (record_bytes, stream),
            (Length::U16, Endian::Big, [a, b, after @ ..]) => {
                (u16::from_be_bytes([*a, *b]).into(), after)
            }
            (Length::U16, Endian::Little, [a, b, after @ ..]) => {
                (u16::from_le_bytes([*a, *b]).into(), after)
            }
            (Length::U32, Endian::Big, [a, b, c, d, after @ ..]) => {
                (u32::from_be_bytes([*a, *b, *c, *d]) as usize, after)
            }
            (Length::U32, Endian::Little, [a, b, c, d, after @ ..]) => {
                (u32::from_le_bytes([*a, *b, *c, *d]) as usize, after)
            }
            _ => panic!("incomplete length"),
        };
        let own = if framing.includes_itself { stream.len() - after.len() } else { 0 };
        let (body, after) = after.split_at(length - own);
        assert!(!body.is_empty() && body.len().is_multiple_of(record_bytes), "whole records");
        records.extend(body.chunks(record_bytes));
        packets += 1;
        stream = after;
    }
    if framing.end == End::ZeroRecord {
        assert!(
            records.pop().unwrap().iter().all(|&byte| byte == 0),
            "the last record is the end record"
        );
        let is_end = |record: &&[u8]| record.iter().all(|&byte| byte == 0);
        assert!(!records.iter().any(is_end), "there is only one end record");
    }
    (records, packets)
}

#[derive(Clone, Copy, Debug)]
enum FieldNumber {
    Integer(i128),
    Float(f64),
}

fn number(endian: Endian, field: &Field, record: &[u8]) -> FieldNumber {
    let mut bytes = record[field.offset..][..field.kind.width()].to_vec();
    if endian == Endian::Big {
        bytes.reverse();
    }
    bytes.resize(8, 0);
    let bits = u64::from_le_bytes(bytes.try_into().unwrap());
    match field.kind {
        Kind::I8 => FieldNumber::Integer((bits as i8).into()),
        Kind::I16 => FieldNumber::Integer((bits as i16).into()),
        Kind::I32 => FieldNumber::Integer((bits as i32).into()),
        Kind::I64 => FieldNumber::Integer((bits as i64).into()),
        Kind::F32 => FieldNumber::Float(f32::from_bits(bits as u32).into()),
        Kind::F64 => FieldNumber::Float(f64::from_bits(bits)),
        Kind::Bool => FieldNumber::Integer((bits > 0).into()),
        _ => FieldNumber::Integer(bits.into()),
    }
}

fn key(schema: &Schema, field: &Field, record: &[u8]) -> ExpectedValue {
    let bytes = &record[field.offset..][..field.kind.width()];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match field.kind {
        Kind::Bytes { .. } => ExpectedValue::Text(hex(bytes)),
        // Generated texts are ASCII without a backslash.
        Kind::Text { padding, .. } => {
            let text = std::str::from_utf8(bytes).unwrap();
            let value =
                text.trim_end_matches(|c| c == '\0' && padding.nul || c == ' ' && padding.space);
            assert!(value.bytes().all(|byte| (32..127).contains(&byte)), "{value:?}");
            ExpectedValue::Text(value.to_owned())
        }
        kind => column(kind, number(schema.endian(), field, record)),
    }
}

fn column(kind: Kind, number: FieldNumber) -> ExpectedValue {
    match number {
        FieldNumber::Integer(bit) if kind == Kind::Bool => ExpectedValue::Bool(bit == 1),
        FieldNumber::Integer(integer) => ExpectedValue::Integer(integer),
        FieldNumber::Float(float) => ExpectedValue::Float(float),
    }
}

fn as_float(number: &FieldNumber) -> f64 {
    match *number {
        FieldNumber::Integer(integer) => integer as f64,
        FieldNumber::Float(float) => float,
    }
}

/// Applies a function to all values of a group, in two passes.
fn apply(function: Function, kind: Kind, values: &[FieldNumber]) -> ExpectedValue {
    let integers: Option<Vec<i128>> = values
        .iter()
        .map(|value| match value {
            FieldNumber::Integer(integer) => Some(*integer),
            FieldNumber::Float(_) => None,
        })
        .collect();
    let floats: Vec<f64> = values.iter().map(as_float).collect();
    let n = values.len() as f64;
    let float_sum = floats.iter().sum::<f64>();
    let mean = integers.as_ref().map_or(float_sum, |all| all.iter().sum::<i128>() as f64) / n;
    // Of distances from the first value, which are exact for integers.
    let distances: Vec<f64> = match &integers {
        Some(all) => all.iter().map(|integer| (integer - all[0]) as f64).collect(),
        None => floats.iter().map(|value| value - floats[0]).collect(),
    };
    let middle = distances.iter().sum::<f64>() / n;
    let var = distances.iter().map(|one| (one - middle).powi(2)).sum::<f64>() / (n - 1.0);
    let by = |a: &&FieldNumber, b: &&FieldNumber| match (a, b) {
        (FieldNumber::Integer(a), FieldNumber::Integer(b)) => a.cmp(b),
        (a, b) => as_float(a).total_cmp(&as_float(b)),
    };
    match function {
        Function::Sum => match integers.map(|all| all.iter().sum::<i128>()) {
            Some(sum) if kind.is_signed() => i64::try_from(sum).map(|sum| sum.into()).ok(),
            Some(sum) => u64::try_from(sum).map(|sum| sum.into()).ok(),
            None => return ExpectedValue::Float(float_sum),
        }
        .map_or(ExpectedValue::Null, ExpectedValue::Integer),
        Function::Mean => ExpectedValue::Float(mean),
        Function::Min => column(kind, *values.iter().min_by(by).unwrap()),
        Function::Max => column(kind, *values.iter().max_by(by).unwrap()),
        Function::First => column(kind, values[0]),
        Function::Last => column(kind, *values.last().unwrap()),
        Function::Var | Function::Std if values.len() == 1 => ExpectedValue::Null,
        Function::Var => ExpectedValue::Float(var),
        Function::Std => ExpectedValue::Float(var.sqrt()),
    }
}

/// The groups of records, added up in the simplest way.
fn groups_of(schema: &Schema, records: &[&[u8]]) -> Vec<ReportedGroup> {
    let mut groups: BTreeMap<String, (Vec<ExpectedValue>, Vec<&[u8]>)> = BTreeMap::new();
    for record in records {
        let keys: Vec<ExpectedValue> =
            schema.keys().map(|field| key(schema, field, record)).collect();
        let group = groups.entry(format!("{keys:?}")).or_insert((keys, Vec::new()));
        group.1.push(record);
    }
    let reported = |(mut values, records): (Vec<ExpectedValue>, Vec<&[u8]>)| {
        values.extend(schema.aggregates().iter().map(|&aggregate| match aggregate {
            Aggregate::Count => ExpectedValue::Integer(records.len() as i128),
            Aggregate::Of { field, function } => {
                let field = &schema.fields()[field];
                let numbers = records.iter().map(|record| number(schema.endian(), field, record));
                apply(function, field.kind, &numbers.collect::<Vec<_>>())
            }
        }));
        ReportedGroup::new(schema, values)
    };
    groups.into_values().map(reported).collect()
}

fn assert_as_expected(block: &PacketBlock, number: u32) {
    let spec = block.spec();
    let schema = &spec.schema;
    let (stream, held) = stream_of(block, number, 0);
    let (records, packets) = parse(schema, &stream);
    assert_eq!((records.len() as u64, packets), (held.records, held.packets));
    assert_eq!(held.records, spec.records);
    let groups = groups_of(schema, &records);
    let expected = block.expected(number);
    let differences = expected.differences("complete", spec.records, &groups);
    assert_eq!(differences, Vec::<String>::new(), "{spec:?}, stream {number}");
    assert_eq!(expected.groups(), groups.len());
    if spec.records >= u64::from(spec.groups) {
        assert_eq!(groups.len(), spec.groups as usize, "every group of {spec:?}");
    }
    let (at_once, held_at_once) = stream_of(block, number, 3000);
    assert!(at_once == stream && held_at_once == held, "larger writes contain the same bytes");
}

/// Streams shorter than the block, one cycle long, and several cycles long.
fn assert_all_lengths(schema: &Arc<Schema>, groups: u32) {
    for records in [1, 2, 50, 399, 400, 401, 5003] {
        for packet_records in [1, 3, 100] {
            let spec = spec(Arc::clone(schema), records, packet_records, groups);
            let block = PacketBlock::of_bytes(&spec, 400 * schema.record_bytes()).unwrap();
            [0, 1, 5].into_iter().for_each(|number| assert_as_expected(&block, number));
        }
    }
}

#[test]
fn little_endian_records_with_a_length_of_their_own() {
    let framing = Framing {
        length: Length::U16,
        includes_itself: false,
        endian: Endian::Big,
        end: End::ZeroRecord,
    };
    let kinds = [Kind::I16, Kind::U64, Kind::F64, Kind::Skip { bytes: 3 }, Kind::I64, Kind::Bool];
    let aggregates = [all_of(&[1, 2, 4, 5]), vec![Aggregate::Count]].concat();
    let schema = schema(Endian::Little, framing, &kinds, &[0, 5], &aggregates);
    assert_all_lengths(&schema, 60);
}

#[test]
fn bare_records_until_the_close() {
    let framing = Framing { length: Length::None, end: End::Close, ..Framing::default() };
    let kinds = [Kind::U8, Kind::F32, Kind::I32];
    let schema = schema(Endian::Little, framing, &kinds, &[0], &all_of(&[0, 1, 2]));
    assert_all_lengths(&schema, 256);
    // Each record is a packet, whatever packet_records is.
    let block = PacketBlock::new(&spec(schema, 10, 4, 3)).unwrap();
    let (stream, held) = stream_of(&block, 0, 0);
    assert_eq!((stream.len(), held.packets), (90, 10));
}

/// A stream without framing also ends with an end record if its schema says so.
#[test]
fn bare_records_until_the_end_record() {
    let framing = Framing { length: Length::None, ..Framing::default() };
    let schema = schema(Endian::Big, framing, &[Kind::Bool, Kind::Bool], &[0], &all_of(&[1]));
    assert_all_lengths(&schema, 2);
    let block = PacketBlock::new(&spec(schema, 10, 4, 2)).unwrap();
    let (stream, held) = stream_of(&block, 0, 0);
    assert_eq!((stream.len(), held.packets, held.records), (22, 11, 10));
}

#[test]
fn wide_keys_of_every_kind() {
    let none = Kind::Text { bytes: 5, padding: crate::wire::text::Padding::NONE };
    let kinds = [
        text(4095),
        Kind::Bytes { bytes: 4095 },
        none,
        Kind::U64,
        Kind::I8,
        Kind::Bool,
        Kind::Skip { bytes: 20_000 },
        Kind::Bytes { bytes: 100 },
        text(3),
        Kind::U16,
    ];
    let keys = [0, 1, 2, 3, 4, 5, 7, 8];
    let schema = schema(Endian::Big, Framing::default(), &kinds, &keys, &all_of(&[9, 5]));
    for groups in [1, 5, 300] {
        let block =
            PacketBlock::of_bytes(&spec(Arc::clone(&schema), 650, 4, groups), 1 << 20).unwrap();
        assert_as_expected(&block, 1);
    }
}

#[test]
fn what_cannot_be_sent_is_refused_with_what_could() {
    let framing = |length, includes_itself, end| Framing {
        length,
        includes_itself,
        end,
        ..Framing::default()
    };
    let of =
        |framing, bytes| schema(Endian::Big, framing, &[Kind::U8, Kind::Skip { bytes }], &[0], &[]);
    let error = |schema, records, packet_records, groups| {
        PacketBlock::new(&spec(schema, records, packet_records, groups)).unwrap_err().to_string()
    };
    // A u16 length that includes itself leaves 65,533 bytes; otherwise 65,535.
    let short = of(framing(Length::U16, true, End::ZeroRecord), 99);
    let found = error(Arc::clone(&short), 1, 656, 1);
    assert_eq!(
        found,
        "656 records of 100 bytes do not fit into one packet: schema test allows 65535 bytes; \
         use --packet-records 655 or less"
    );
    let (stream, _) = stream_of(&PacketBlock::new(&spec(short, 655, 655, 1)).unwrap(), 0, 0);
    assert_eq!(stream[..2], 65_502_u16.to_be_bytes());
    let whole = |bytes| of(framing(Length::U16, false, End::Close), bytes);
    let (stream, _) = stream_of(&PacketBlock::new(&spec(whole(65_534), 1, 1, 1)).unwrap(), 0, 0);
    assert_eq!((stream.len(), &stream[..2]), (65_537, &[255; 2][..]));

    let few = error(whole(1), 1000, 4, 300);
    assert!(few.contains("the keys of schema test (u8) can distinguish only 256;"), "{few}");
    assert!(few.ends_with("use --groups 256 or less"), "{few}");
    let nothing = error(whole(1), 0, 4, 1);
    assert!(nothing.ends_with("use --records 1 or more"), "{nothing}");

    let kinds = [Kind::U32, Kind::Skip { bytes: 60_000 }];
    let wide = schema(Endian::Big, Framing::default(), &kinds, &[0], &[]);
    let large = error(wide, u64::MAX, 4, 100_000);
    assert!(large.contains("these need 6000500000 bytes"), "{large}");
}

fn kind() -> impl Strategy<Value = Kind> {
    let text = (1_usize..40, any::<(bool, bool)>()).prop_map(|(bytes, (nul, space))| Kind::Text {
        bytes,
        padding: crate::wire::text::Padding { nul, space },
    });
    prop_oneof![
        6 => prop::sample::select(&NUMBERS[..]),
        2 => text,
        1 => (1_usize..20).prop_map(|bytes| Kind::Bytes { bytes }),
        1 => (1_usize..20).prop_map(|bytes| Kind::Skip { bytes }),
    ]
}

fn any_endian() -> impl Strategy<Value = Endian> {
    prop::sample::select(vec![Endian::Big, Endian::Little])
}

fn any_framing() -> impl Strategy<Value = Framing> {
    let length = prop::sample::select(vec![Length::U32, Length::U16, Length::None]);
    let end = prop::sample::select(vec![End::ZeroRecord, End::Close]);
    (length, any::<bool>(), any_endian(), end).prop_map(|(length, includes_itself, endian, end)| {
        Framing { length, includes_itself, endian, end }
    })
}

/// Arbitrary fields, of which some that can be keys are keys, with arbitrary functions of those
/// that can be aggregated.
fn any_schema() -> impl Strategy<Value = Arc<Schema>> {
    let fields = prop::collection::vec((kind(), any::<bool>(), any::<[bool; 8]>()), 1..8);
    (any_endian(), any_framing(), fields, any::<bool>()).prop_map(
        |(endian, framing, fields, count_first)| {
            let mut kinds: Vec<Kind> = fields.iter().map(|(kind, ..)| *kind).collect();
            let is_key = |kind: &Kind| !kind.is_float() && !matches!(kind, Kind::Skip { .. });
            let mut keys: Vec<usize> = (0..kinds.len())
                .filter(|&field| fields[field].1 && is_key(&kinds[field]))
                .collect();
            if keys.is_empty() {
                keys.push(kinds.len());
                kinds.push(Kind::U8);
            }
            // Not in the order of the record's fields.
            keys.reverse();
            let mut aggregates = vec![Aggregate::Count; usize::from(count_first)];
            for (field, (kind, _, functions)) in fields.iter().enumerate() {
                if !kind.is_text() && !matches!(kind, Kind::Skip { .. }) {
                    let of = |function| Aggregate::Of { field, function };
                    let chosen = Function::ALL.iter().zip(functions).filter(|(_, is)| **is);
                    aggregates.extend(chosen.map(|(&function, _)| of(function)));
                }
            }
            schema(endian, framing, &kinds, &keys, &aggregates)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_stream_of_any_schema_is_what_it_is_expected_to_be(
        schema in any_schema(),
        records in 0_u64..1500,
        packet_records in prop::sample::select(vec![1, 3, 4, 7, 100]),
        padding in prop::sample::select(PADDINGS.to_vec()),
        seed: u64,
        groups in prop_oneof![1_u32..20, 1_u32..2000],
        number in 0_u32..500,
        block_bytes in 1_usize..20_000,
    ) {
        let spec = StreamSpec { schema, records, packet_records, padding, seed, groups };
        let block = match PacketBlock::of_bytes(&spec, block_bytes) {
            Err(SpecError::TooManyGroups { limit, .. }) => {
                prop_assert!(limit < u64::from(groups));
                let groups = limit as u32;
                PacketBlock::of_bytes(&StreamSpec { groups, ..spec.clone() }, block_bytes)
            }
            block => block,
        };
        match block {
            Ok(block) => assert_as_expected(&block, number),
            Err(error) => {
                let nothing = matches!(error, SpecError::NothingToSend { .. });
                prop_assert!(nothing && records == 0 && spec.schema.framing().end == End::Close);
            }
        }
    }
}
