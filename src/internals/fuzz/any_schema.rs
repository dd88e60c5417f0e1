//! A valid schema from the input of a fuzz target: any fields, framing, keys and aggregates.

use super::input::FuzzInput;
use crate::engine::oracle::NUMBERS;
use crate::wire::schema::{Aggregate, End, Endian, Framing, Function, Kind, Length, Schema};
use crate::wire::text::Padding;

const FIELDS_MAX: usize = 10;
const KEYS_MAX: usize = 4;
const AGGREGATES_MAX: usize = 12;
/// Widths of most texts, and of a few.
const WIDTH_MAX: usize = 40;
const LARGE_WIDTH: usize = 300;

pub(super) fn schema(input: &mut FuzzInput<'_>) -> Schema {
    let endian = endian(input.byte());
    let framing = framing(input);
    let mut kinds: Vec<Kind> = (0..1 + input.below(FIELDS_MAX)).map(|_| kind(input)).collect();
    let can_be_key = |kind: &Kind| !kind.is_float() && !matches!(kind, Kind::Skip { .. });
    if !kinds.iter().any(can_be_key) {
        kinds.push(Kind::U8);
    }
    let that = |is_it: &dyn Fn(&Kind) -> bool| -> Vec<usize> {
        (0..kinds.len()).filter(|&i| is_it(&kinds[i])).collect()
    };
    let (may_be_keys, numbers) = (that(&can_be_key), that(&|kind| NUMBERS.contains(kind)));
    let mut keys = Vec::new();
    for _ in 0..1 + input.below(KEYS_MAX) {
        let key = may_be_keys[input.below(may_be_keys.len())];
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut aggregates = Vec::new();
    for _ in 0..input.below(AGGREGATES_MAX) {
        let (field, function) = (input.byte(), Function::ALL[input.below(Function::ALL.len())]);
        if let Some(&field) = numbers.get(usize::from(field) % numbers.len().max(1)) {
            let aggregate = Aggregate::Of { field, function };
            if !aggregates.contains(&aggregate) {
                aggregates.push(aggregate);
            }
        }
    }
    let fields = kinds.iter().enumerate().map(|(i, &kind)| match kind {
        Kind::Skip { .. } => (String::new(), kind),
        _ => (format!("f{i}"), kind),
    });
    Schema::new("any".to_owned(), endian, framing, fields.collect(), keys, aggregates)
        .expect("a valid schema")
}

fn endian(choice: u8) -> Endian {
    if choice.is_multiple_of(2) { Endian::Big } else { Endian::Little }
}

fn framing(input: &mut FuzzInput<'_>) -> Framing {
    let length = [Length::U32, Length::U16, Length::None][input.below(3)];
    let flags = input.byte();
    Framing {
        length,
        includes_itself: flags & 1 == 1 && length != Length::None,
        endian: endian(flags >> 1),
        end: if flags & 4 == 0 { End::ZeroRecord } else { End::Close },
    }
}

fn kind(input: &mut FuzzInput<'_>) -> Kind {
    let choice = input.below(NUMBERS.len() + 6);
    if let Some(&number) = NUMBERS.get(choice) {
        return number;
    }
    let bytes = match input.byte() {
        255 => LARGE_WIDTH,
        width => 1 + usize::from(width) % WIDTH_MAX,
    };
    match choice - NUMBERS.len() {
        0 => Kind::Bytes { bytes },
        1 => Kind::Skip { bytes },
        choice => {
            Kind::Text { bytes, padding: Padding { nul: choice & 1 == 0, space: choice & 2 == 0 } }
        }
    }
}
