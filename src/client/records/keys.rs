//! Maps a group's number to the values of its key fields, so that no two groups have the same keys.
//! Fills no other field.
//!
//! The number is written in mixed radix, one digit for each key. Keys with few possible values
//! change fastest. Each key takes at most five values as long as that is enough for all groups.

use crate::wire::schema::{End, Endian, Field, Kind, Schema};
use std::io::Write;

/// Number of values that a key takes, unless more are needed to tell the groups apart.
const FEW: u64 = 5;
/// An odd factor: multiplying by it permutes the integers of any width and spreads them out.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// Characters of a text too short for words.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The key values of each group.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Fastest-changing first.
    digits: Vec<Digit>,
    endian: Endian,
    /// Added to each group's number: 1 if group 0 would be the end record.
    skipped: u64,
}

#[derive(Debug)]
struct Digit {
    offset: usize,
    kind: Kind,
    values: u64,
}

impl Keys {
    /// The keys of `groups` groups.
    ///
    /// # Errors
    /// The number of groups that are possible, if that is fewer.
    pub(crate) fn new(schema: &Schema, groups: u32) -> Result<Self, u64> {
        let skipped = u64::from(zeros_may_be_keys_alone(schema));
        let mut keys: Vec<&Field> = schema.keys().collect();
        keys.sort_by_key(|key| values_of(key.kind));
        let all: Vec<u64> = keys.iter().map(|key| values_of(key.kind)).collect();
        let tuples = u64::from(groups) + skipped;
        let possible = product(&all);
        if possible < tuples {
            return Err(possible - skipped);
        }
        let mut values: Vec<u64> = all.iter().map(|&all| all.min(FEW)).collect();
        for i in (0..values.len()).rev() {
            let others = product(&values) / values[i];
            if product(&values) < tuples {
                values[i] = tuples.div_ceil(others).min(all[i]);
            }
        }
        let digits = keys.iter().zip(values);
        let digits =
            digits.map(|(key, values)| Digit { offset: key.offset, kind: key.kind, values });
        Ok(Keys { digits: digits.collect(), endian: schema.endian(), skipped })
    }

    /// Writes a group's keys into a record whose key fields are zero. Does not pad texts.
    pub(crate) fn write(&self, group: u32, record: &mut [u8]) {
        let mut left = u64::from(group) + self.skipped;
        for &Digit { offset, kind, values } in &self.digits {
            let field = &mut record[offset..offset + kind.width()];
            write_value(kind, self.endian, values, left % values, field);
            left /= values;
        }
    }
}

/// Whether a record of this schema consists only of keys that could all be zero, which would make
/// it the end record.
fn zeros_may_be_keys_alone(schema: &Schema) -> bool {
    let text = |kind| matches!(kind, Kind::Text { .. });
    schema.framing().end == End::ZeroRecord
        && schema.keys().len() == schema.fields().len()
        && !schema.keys().any(|key| text(key.kind))
}

fn product(numbers: &[u64]) -> u64 {
    numbers.iter().fold(1, |all, &number| all.saturating_mul(number))
}

/// How many values a key can have, or 2⁶⁴ − 1 if there are more.
fn values_of(kind: Kind) -> u64 {
    let values = |of_byte: u64, bytes: usize| of_byte.saturating_pow(bytes.min(64) as u32);
    match kind {
        Kind::Bool => 2,
        Kind::Text { bytes, .. } => values(DIGITS.len() as u64, bytes),
        _ => values(256, kind.width()),
    }
}

/// Writes the `index`th of `values` values. Only index 0 may write zeros; a text never does.
fn write_value(kind: Kind, endian: Endian, values: u64, index: u64, field: &mut [u8]) {
    match kind {
        Kind::Bool => field[0] = index as u8,
        Kind::Text { .. } => write_text(values, index, field),
        Kind::Bytes { .. } => {
            let shift = 64 - 8 * field.len().min(8);
            let bytes = (index.wrapping_mul(SPREAD) << shift).to_be_bytes();
            let own = field.len().min(8);
            field.iter_mut().zip(bytes[..own].iter().cycle()).for_each(|(to, from)| *to = *from);
        }
        _ if values <= FEW => {
            const VALUES: [u64; FEW as usize] = [1, 42, 100, 200, 255];
            let value = VALUES[index as usize];
            // Negative numbers too, if the type is signed.
            let negative = kind.is_signed() && index % 2 == 1;
            put(endian, if negative { value.wrapping_neg() } else { value }, field);
        }
        _ => put(endian, index.wrapping_mul(SPREAD), field),
    }
}

/// Writes the lowest bytes of a number, as many as the field has.
pub(crate) fn put(endian: Endian, bits: u64, field: &mut [u8]) {
    let width = field.len();
    match endian {
        Endian::Big => field.copy_from_slice(&bits.to_be_bytes()[8 - width..]),
        Endian::Little => field.copy_from_slice(&bits.to_le_bytes()[..width]),
    }
}

/// Writes the `index`th of `values` texts: a pair of five words, followed by a number once the 25
/// pairs are used up. If the field is too short for that, the index alone in base 36.
pub(crate) fn write_text(values: u64, index: u64, mut field: &mut [u8]) {
    const WORDS: [&str; 5] = ["north", "pump", "valve", "sensor", "meter"];
    if field.len() < words_bytes_max(values) {
        return write_base_36(index, field);
    }
    let (first, second) = (WORDS[index as usize % 5], WORDS[index as usize / 5 % 5]);
    let written = match index / 25 {
        0 => write!(field, "{first} {second}"),
        number => write!(field, "{first} {second} {number}"),
    };
    written.expect("the field is long enough for the longest text");
}

/// Length in bytes of the longest of `values` texts of words.
fn words_bytes_max(values: u64) -> usize {
    let number_max = (values - 1) / 25;
    let digits = number_max.checked_ilog10().map_or(0, |log| log as usize + 2);
    "sensor sensor".len() + digits
}

fn write_base_36(mut index: u64, field: &mut [u8]) {
    let mut digits = [0; 13];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = DIGITS[(index % 36) as usize];
        index /= 36;
        if index == 0 {
            break;
        }
    }
    let text = &digits[begin..];
    field[..text.len()].copy_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Framing;
    use crate::wire::text::Padding;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// A schema of keys only, followed by a value if `value` is set.
    fn schema(kinds: &[Kind], end: End, value: bool) -> Schema {
        let mut fields: Vec<(String, Kind)> =
            kinds.iter().enumerate().map(|(i, &kind)| (format!("k{i}"), kind)).collect();
        let keys = (0..fields.len()).collect();
        fields.extend(value.then(|| ("value".to_owned(), Kind::U8)));
        let framing = Framing { end, ..Framing::default() };
        Schema::new("keys".into(), Endian::Little, framing, fields, keys, Vec::new()).unwrap()
    }

    fn records(keys: &Keys, schema: &Schema, groups: u32) -> Vec<Vec<u8>> {
        let record = |group| {
            let mut record = vec![0; schema.record_bytes()];
            keys.write(group, &mut record);
            record
        };
        (0..groups).map(record).collect()
    }

    #[test]
    fn keys_that_say_little_have_as_many_groups_as_values() {
        let possible = |kinds: &[Kind], end, value| {
            let limit = Keys::new(&schema(kinds, end, value), u32::MAX).unwrap_err();
            let schema = schema(kinds, end, value);
            let keys = Keys::new(&schema, limit as u32).unwrap();
            let records: HashSet<_> = records(&keys, &schema, limit as u32).into_iter().collect();
            assert_eq!(records.len() as u64, limit);
            let ends = records.contains(&vec![0; schema.record_bytes()]);
            assert!(!ends || value || end == End::Close, "no group is the end record");
            limit
        };
        assert_eq!(possible(&[Kind::Bool], End::Close, false), 2);
        assert_eq!(possible(&[Kind::Bool], End::ZeroRecord, true), 2);
        // The all-zero record would end the stream.
        assert_eq!(possible(&[Kind::Bool], End::ZeroRecord, false), 1);
        assert_eq!(possible(&[Kind::I8, Kind::Bool], End::ZeroRecord, false), 511);
        assert_eq!(possible(&[Kind::U8, Kind::I8], End::Close, false), 65_536);
        let (bytes, padding) = (2, Padding::BOTH);
        assert_eq!(possible(&[Kind::Text { bytes, padding }], End::ZeroRecord, false), 36 * 36);
        assert_eq!(possible(&[Kind::Bytes { bytes }], End::ZeroRecord, false), 65_535);
    }

    #[test]
    fn the_keys_of_the_built_in_record_are_a_number_and_two_words() {
        let (bytes, padding) = (32, Padding::BOTH);
        let schema = schema(&[Kind::U32, Kind::Text { bytes, padding }], End::ZeroRecord, false);
        for groups in [125, 1_000_000] {
            let keys = Keys::new(&schema, groups).unwrap();
            let first = records(&keys, &schema, 125);
            assert!(first[0].starts_with(b"\x01\0\0\0north north\0"));
            assert!(first[31].starts_with(b"\x2a\0\0\0pump pump\0"));
            assert!(first[124].starts_with(b"\xff\0\0\0meter meter\0"));
        }
        let keys = Keys::new(&schema, 200).unwrap();
        assert!(records(&keys, &schema, 132)[131].starts_with(b"\x2a\0\0\0pump north 1\0"));
    }

    #[test]
    fn texts_without_room_for_words_are_numbers() {
        let text = |values, index, width| {
            let mut field = vec![b'.'; width];
            write_text(values, index, &mut field);
            String::from_utf8(field).unwrap()
        };
        assert_eq!(text(25, 24, 13), "meter meter..");
        assert_eq!(text(25, 24, 12), "o...........");
        assert_eq!(text(26, 25, 15), "north north 1..");
        assert_eq!(text(26, 25, 14), "p.............");
        assert_eq!(text(276, 275, 16), "north north 11..");
        assert_eq!(text(276, 18, 15), "i..............");
        assert_eq!(text(1 << 40, 36 * 36 - 1, 2), "zz");
    }

    fn kind() -> impl Strategy<Value = Kind> {
        let padding = prop::sample::select(vec![Padding::BOTH, Padding::NONE]);
        prop_oneof![
            prop::sample::select(vec![Kind::U8, Kind::I8, Kind::Bool, Kind::U16, Kind::I16]),
            prop::sample::select(vec![Kind::U32, Kind::I32, Kind::U64, Kind::I64]),
            (1_usize..40, padding).prop_map(|(bytes, padding)| Kind::Text { bytes, padding }),
            (1_usize..40).prop_map(|bytes| Kind::Bytes { bytes }),
        ]
    }

    proptest! {
        #[test]
        fn no_two_groups_have_the_same_keys(
            kinds in prop::collection::vec(kind(), 1..=8),
            groups in 1_u32..5000,
            close: bool,
            value: bool,
        ) {
            let end = if close { End::Close } else { End::ZeroRecord };
            let schema = schema(&kinds, end, value);
            let groups = match Keys::new(&schema, groups) {
                Ok(_) => groups,
                Err(possible) => possible as u32,
            };
            let keys = Keys::new(&schema, groups).unwrap();
            let records = records(&keys, &schema, groups);
            if !close && !value {
                prop_assert!(!records.contains(&vec![0; schema.record_bytes()]));
            }
            prop_assert_eq!(records.into_iter().collect::<HashSet<_>>().len(), groups as usize);
        }
    }
}
