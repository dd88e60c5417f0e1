//! Strategies for schemas and records in property tests. Values repeat, so that groups form, and
//! include the extremes of every type.

#[cfg(feature = "aggregate")]
use super::streams::Path;
use crate::wire::schema::{Aggregate, End, Endian, Field, Framing, Function, Kind, Length, Schema};
use crate::wire::text::Padding;
use proptest::prelude::*;
use proptest::sample::{Index, select};

pub(crate) use super::NUMBERS;

/// Every way to pad a text.
pub(crate) const PADDINGS: [Padding; 4] = [
    Padding::BOTH,
    Padding::NONE,
    Padding { nul: true, space: false },
    Padding { nul: false, space: true },
];

const FIELDS_MAX: usize = 16;
const KEYS_MAX: usize = 8;

fn kind() -> impl Strategy<Value = Kind> {
    let width = || prop_oneof![4 => 1usize..12, 3 => 28usize..40, 2 => 1usize..300];
    prop_oneof![
        8 => select(&NUMBERS[..]),
        3 => (width(), select(&PADDINGS[..]))
            .prop_map(|(bytes, padding)| Kind::Text { bytes, padding }),
        2 => width().prop_map(|bytes| Kind::Bytes { bytes }),
        1 => (1usize..20).prop_map(|bytes| Kind::Skip { bytes }),
    ]
}

fn endian() -> impl Strategy<Value = Endian> {
    select(&[Endian::Big, Endian::Little][..])
}

/// Every way to frame records.
pub(crate) fn framing() -> impl Strategy<Value = Framing> {
    let length = select(&[Length::U32, Length::U16, Length::None][..]);
    let end = select(&[End::ZeroRecord, End::Close][..]);
    (length, any::<bool>(), endian(), end).prop_map(|(length, includes_itself, endian, end)| {
        let includes_itself = includes_itself && length != Length::None;
        Framing { length, includes_itself, endian, end }
    })
}

/// A valid schema as close as possible to what is asked for. Its fields are named `f0`, `f1`, ….
pub(crate) fn schema_of(
    endian: Endian,
    framing: Framing,
    mut kinds: Vec<Kind>,
    keys: &[Index],
    aggregates: &[(Index, Function)],
    count: Option<Index>,
) -> Schema {
    let can_be_key = |kind: &Kind| !kind.is_float() && !matches!(kind, Kind::Skip { .. });
    if !kinds.iter().any(can_be_key) {
        kinds.push(Kind::U8);
    }
    let of = |is_it: &dyn Fn(&Kind) -> bool| -> Vec<usize> {
        (0..kinds.len()).filter(|&i| is_it(&kinds[i])).collect()
    };
    let may_be_keys = of(&can_be_key);
    let numbers = of(&|kind| NUMBERS.contains(kind));
    let mut chosen_keys = Vec::new();
    for key in keys.iter().map(|key| *key.get(&may_be_keys)) {
        if !chosen_keys.contains(&key) {
            chosen_keys.push(key);
        }
    }
    let mut made = Vec::new();
    for (field, function) in aggregates.iter().filter(|_| !numbers.is_empty()) {
        let aggregate = Aggregate::Of { field: *field.get(&numbers), function: *function };
        if !made.contains(&aggregate) {
            made.push(aggregate);
        }
    }
    if let Some(count) = count {
        made.insert(count.index(made.len() + 1), Aggregate::Count);
    }
    let name = |i: usize, kind: &Kind| match kind {
        Kind::Skip { .. } => String::new(),
        _ => format!("f{i}"),
    };
    let fields = kinds.iter().enumerate().map(|(i, &kind)| (name(i, &kind), kind)).collect();
    Schema::new("any".to_owned(), endian, framing, fields, chosen_keys, made)
        .expect("a valid schema")
}

/// Any schema with up to sixteen fields.
pub(crate) fn schema() -> impl Strategy<Value = Schema> {
    let keys = prop::collection::vec(any::<Index>(), 1..=KEYS_MAX);
    let function = select(&Function::ALL[..]);
    let aggregates = prop::collection::vec((any::<Index>(), function), 0..40);
    let kinds = prop::collection::vec(kind(), 1..FIELDS_MAX);
    let count = proptest::option::of(any::<Index>());
    (endian(), framing(), kinds, keys, aggregates, count).prop_map(
        |(endian, framing, kinds, keys, aggregates, count)| {
            schema_of(endian, framing, kinds, &keys, &aggregates, count)
        },
    )
}

/// A record, as a choice of value for each field.
pub(crate) type Choices = [u16; FIELDS_MAX];

/// Up to `records_max` records.
pub(crate) fn choices(records_max: usize) -> impl Strategy<Value = Vec<Choices>> {
    prop::collection::vec(prop::array::uniform16(any::<u16>()), 0..records_max)
}

/// Any path of a stream through the engine.
#[cfg(feature = "aggregate")]
pub(crate) fn path() -> impl Strategy<Value = (Vec<Index>, Path)> {
    let cuts = prop::collection::vec(any::<Index>(), 0..12);
    let window_bytes = prop_oneof![Just(0usize), 0usize..200, 0usize..20_000];
    (cuts, window_bytes, 1usize..40).prop_map(|(cuts, window_bytes, rows)| {
        (cuts, Path { cuts: Vec::new(), window_bytes, rows })
    })
}

/// The records for these choices, without any that would end the stream.
pub(crate) fn records_of(schema: &Schema, choices: &[Choices]) -> Vec<Vec<u8>> {
    let is_key = |field: &Field| schema.keys().any(|key| key.offset == field.offset);
    let record = |choices: &Choices| -> Vec<u8> {
        let fields = schema.fields().iter().zip(choices.iter().cycle());
        let bytes = fields.flat_map(|(field, &choice)| {
            // Few values, so that groups form.
            let choice = if is_key(field) && choice < 60_000 { choice % 3 } else { choice };
            bytes_of(field.kind, schema.endian(), choice)
        });
        bytes.collect()
    };
    let ends_by_record = schema.framing().end == End::ZeroRecord;
    let records = choices.iter().map(record);
    records.filter(|record| !ends_by_record || record.iter().any(|&byte| byte != 0)).collect()
}

/// The bytes of a field, determined by the choice.
pub(crate) fn bytes_of(kind: Kind, endian: Endian, choice: u16) -> Vec<u8> {
    let width = kind.width();
    match kind {
        Kind::F32 => ordered((float(choice) as f32).to_be_bytes().to_vec(), endian),
        Kind::F64 => ordered(float(choice).to_be_bytes().to_vec(), endian),
        Kind::Bool => vec![[0, 1, 0, 1, 2, 0x80, 0xff][usize::from(choice) % 7]],
        Kind::Text { .. } | Kind::Bytes { .. } => text(width, choice),
        Kind::Skip { .. } => mixed(choice).to_be_bytes().into_iter().cycle().take(width).collect(),
        _ => {
            let number = integer(8 * width as u32, choice).to_be_bytes();
            ordered(number[8 - width..].to_vec(), endian)
        }
    }
}

fn ordered(mut bytes: Vec<u8>, endian: Endian) -> Vec<u8> {
    if endian == Endian::Little {
        bytes.reverse();
    }
    bytes
}

/// Pseudo-random bits.
fn mixed(choice: u16) -> u64 {
    let mixed = (u64::from(choice) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The extremes of signed and unsigned integers with this many bits, small numbers, or any.
fn integer(bits: u32, choice: u16) -> u64 {
    let sign = 1 << (bits - 1);
    match choice % 16 {
        0 => sign,
        1 => sign - 1,
        2 => u64::MAX,
        3 => 0,
        4..=9 => u64::from(choice % 16),
        _ => mixed(choice),
    }
}

/// Mostly small numbers, with some special ones.
fn float(choice: u16) -> f64 {
    match choice % 97 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => f64::MAX,
        4 => f64::from(f32::MAX),
        5 => f64::from(f32::MIN_POSITIVE) / 4.0,
        6..=12 => -0.0,
        13..=20 => 0.0,
        other => f64::from(other) * 1.37 - 70.0,
    }
}

/// One of several texts, short or as long as the field, with one of several paddings.
fn text(width: usize, choice: u16) -> Vec<u8> {
    let long = |last: u8| [&vec![b'x'; width * 2 / 3][..], &[last]].concat();
    let mut text = match choice % 7 {
        0 => b"a\0 b".to_vec(),
        1 => long(b'1'),
        2 => Vec::new(),
        3 => long(b'2'),
        4 => vec![0xff; width],
        5 => b"\\x\n\x7f".to_vec(),
        _ => format!("text {}", choice / 7 % 50).into_bytes(),
    };
    text.truncate(width);
    let padding: &[u8] = match choice / 7 % 4 {
        0 => b" ",
        1 => b"\0",
        2 => b" \0\0",
        _ => b"\0  ",
    };
    let padding = padding.iter().copied().cycle().take(width - text.len());
    text.into_iter().chain(padding).collect()
}
