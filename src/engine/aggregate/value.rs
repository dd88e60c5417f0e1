//! One cell of a result, and its form in JSON and in text.

use serde::{Serialize, Serializer};
use std::fmt;

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// No value, such as the variance of a single number.
    Null,
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i64),
    /// A floating-point number, widened if the column is binary32.
    Float(f64),
    /// A bool.
    Bool(bool),
    /// Text, escaped for display.
    Text(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
}

impl Serialize for Value<'_> {
    /// Numbers are exact: an integer has all of its digits, a float enough to read back as the same
    /// binary64. NaN and the infinities, which JSON cannot represent as numbers, are strings.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Value::Null => serializer.serialize_unit(),
            Value::Unsigned(value) => serializer.serialize_u64(value),
            Value::Signed(value) => serializer.serialize_i64(value),
            Value::Float(value) if value.is_finite() => serializer.serialize_f64(value),
            Value::Float(_) => serializer.collect_str(self),
            Value::Bool(value) => serializer.serialize_bool(value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(_) => serializer.collect_str(self),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// The cell as text: the fewest digits that read back as the same number, bytes as lowercase
    /// hexadecimal digits, and no value as `null`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Null => f.write_str("null"),
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::Signed(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Text(text) => f.write_str(text),
            Value::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_cell_has_its_json_and_text() {
        for (value, json, text) in [
            (Value::Null, "null", "null"),
            (Value::Unsigned(u64::MAX), "18446744073709551615", "18446744073709551615"),
            (Value::Signed(i64::MIN), "-9223372036854775808", "-9223372036854775808"),
            (Value::Float(5.0), "5.0", "5.0"),
            (Value::Float(-0.0), "-0.0", "-0.0"),
            (Value::Float(f64::from(0.1_f32)), "0.10000000149011612", "0.10000000149011612"),
            (Value::Float(f64::NAN), "\"NaN\"", "NaN"),
            (Value::Float(f64::INFINITY), "\"inf\"", "inf"),
            (Value::Float(f64::NEG_INFINITY), "\"-inf\"", "-inf"),
            (Value::Bool(true), "true", "true"),
            (Value::Text("a\\\\\"b"), r#""a\\\\\"b""#, "a\\\\\"b"),
            (Value::Bytes(&[0, 0xAB, 9]), "\"00ab09\"", "00ab09"),
            (Value::Bytes(&[]), "\"\"", ""),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(value.to_string(), text);
        }
    }

    /// Numbers written as text or JSON read back as the same number.
    #[test]
    fn floats_round_trip() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..10_000 {
            let number = f64::from_bits(random.u64(..));
            if !number.is_finite() {
                continue;
            }
            let value = Value::Float(number);
            for text in [value.to_string(), serde_json::to_string(&value).unwrap()] {
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{text}");
            }
        }
    }
}
