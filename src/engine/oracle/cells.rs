//! Reads the fields of a record for tests, byte by byte. Shares no code with the engine.

use crate::wire::schema::{Endian, Field, Kind};

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NaiveCell {
    /// An integer, or a bool as 0 and 1.
    Integer(i128),
    /// A floating-point number.
    Float(f64),
    /// The value of a text, or bytes.
    Bytes(Vec<u8>),
}

impl NaiveCell {
    /// Its integer.
    pub(crate) fn integer(&self) -> i128 {
        match self {
            NaiveCell::Integer(value) => *value,
            other => panic!("{other:?} is not an integer"),
        }
    }

    /// Its number, as a float.
    pub(crate) fn float(&self) -> f64 {
        match self {
            NaiveCell::Integer(value) => *value as f64,
            NaiveCell::Float(value) => *value,
            NaiveCell::Bytes(bytes) => panic!("{bytes:?} is not a number"),
        }
    }
}

/// Reads a field of a record.
pub(crate) fn read(field: &Field, endian: Endian, record: &[u8]) -> NaiveCell {
    let bytes = &record[field.offset..field.offset + field.kind.width()];
    let mut number = 0u64;
    for i in 0..bytes.len().min(8) {
        let next = match endian {
            Endian::Big => bytes[i],
            Endian::Little => bytes[bytes.len() - 1 - i],
        };
        number = number << 8 | u64::from(next);
    }
    let unsigned = i128::from(number);
    let bits = 8 * bytes.len();
    match field.kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => NaiveCell::Integer(unsigned),
        Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => {
            let is_negative = number >> (bits - 1) == 1;
            NaiveCell::Integer(if is_negative { unsigned - (1 << bits) } else { unsigned })
        }
        Kind::F32 => NaiveCell::Float(f64::from(f32::from_bits(number as u32))),
        Kind::F64 => NaiveCell::Float(f64::from_bits(number)),
        Kind::Bool => NaiveCell::Integer(i128::from(number != 0)),
        Kind::Bytes { .. } => NaiveCell::Bytes(bytes.to_vec()),
        Kind::Text { padding, .. } => {
            let mut value = bytes.to_vec();
            while matches!(
                (value.last(), padding.nul, padding.space),
                (Some(0), true, _) | (Some(b' '), _, true)
            ) {
                value.pop();
            }
            NaiveCell::Bytes(value)
        }
        Kind::Skip { .. } => panic!("skipped bytes have no value"),
    }
}
