//! Parses the engine's ndjson results. Does not judge them.

use super::expected::{ExpectedValue, ReportedGroup};
use crate::wire::schema::{Aggregate, Function, Kind, Schema};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use std::borrow::Cow;
use std::fmt;

/// One result line, reduced to what a sender needs.
#[derive(Debug, PartialEq)]
pub struct ResultLine {
    /// The sender's address as the engine saw it: `address:port`.
    pub peer: String,
    /// `complete`, `incomplete` or `rejected`.
    pub status: String,
    /// Number of records received.
    pub records: u64,
    /// The groups, in the order reported.
    pub groups: Vec<ReportedGroup>,
}

/// The JSON type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonColumnType {
    Integer,
    Float,
    Bool,
    Text,
}

fn type_of_field(kind: Kind) -> JsonColumnType {
    match kind {
        Kind::Bool => JsonColumnType::Bool,
        Kind::F32 | Kind::F64 => JsonColumnType::Float,
        Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => JsonColumnType::Text,
        _ => JsonColumnType::Integer,
    }
}

/// The columns of a result, in order.
fn columns_of(schema: &Schema) -> Vec<(String, JsonColumnType)> {
    let keys = schema.keys().map(|key| type_of_field(key.kind));
    let aggregates = schema.aggregates().iter().map(|aggregate| match *aggregate {
        Aggregate::Count => JsonColumnType::Integer,
        Aggregate::Of { field, function } => {
            match (function, type_of_field(schema.fields()[field].kind)) {
                (Function::Mean | Function::Var | Function::Std, _) => JsonColumnType::Float,
                (Function::Sum, JsonColumnType::Bool) => JsonColumnType::Integer,
                (_, of_field) => of_field,
            }
        }
    });
    schema.column_names().into_iter().zip(keys.chain(aggregates)).collect()
}

/// Parses one result line, of a stream of `schema`. `line` may include its line end.
///
/// # Errors
/// If it is not a result of the engine, or the result of another schema.
pub fn parse_line(line: &[u8], schema: &Schema) -> serde_json::Result<ResultLine> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let columns = columns_of(schema);
    let result = ReportedLine { schema, columns: &columns }.deserialize(&mut json)?;
    json.end()?;
    Ok(result)
}

/// Deserializes a line. Groups are converted one at a time, since there may be millions.
#[derive(Clone, Copy)]
struct ReportedLine<'a> {
    schema: &'a Schema,
    columns: &'a [(String, JsonColumnType)],
}

impl<'de> DeserializeSeed<'de> for ReportedLine<'_> {
    type Value = ResultLine;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ResultLine, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReportedLine<'_> {
    type Value = ResultLine;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a result")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ResultLine, M::Error> {
        let (mut peer, mut status, mut records, mut groups) = (None, None, None, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "peer" => peer = Some(map.next_value()?),
                "status" => status = Some(map.next_value()?),
                "records" => records = Some(map.next_value()?),
                "groups" => groups = Some(map.next_value_seed(Groups(self))?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(ResultLine {
            peer: peer.ok_or_else(|| M::Error::missing_field("peer"))?,
            status: status.ok_or_else(|| M::Error::missing_field("status"))?,
            records: records.ok_or_else(|| M::Error::missing_field("records"))?,
            groups: groups.ok_or_else(|| M::Error::missing_field("groups"))?,
        })
    }
}

struct Groups<'a>(ReportedLine<'a>);

impl<'de> DeserializeSeed<'de> for Groups<'_> {
    type Value = Vec<ReportedGroup>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Groups<'_> {
    type Value = Vec<ReportedGroup>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of groups")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut groups = Vec::new();
        while let Some(group) = list.next_element_seed(Group(self.0))? {
            groups.push(group);
        }
        Ok(groups)
    }
}

struct Group<'a>(ReportedLine<'a>);

impl<'de> DeserializeSeed<'de> for Group<'_> {
    type Value = ReportedGroup;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ReportedGroup, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Group<'_> {
    type Value = ReportedGroup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<ReportedGroup, M::Error> {
        let ReportedLine { schema, columns } = self.0;
        let mut values = vec![None; columns.len()];
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let Some(i) = columns.iter().position(|(name, _)| *name == key) else {
                return Err(M::Error::custom(format_args!("unexpected column {key:?} in a group")));
            };
            values[i] = Some(map.next_value_seed(columns[i].1)?);
        }
        let values = values.into_iter().zip(columns).map(|(value, (name, _))| {
            value.ok_or_else(|| M::Error::custom(format_args!("missing column {name} in a group")))
        });
        Ok(ReportedGroup::new(schema, values.collect::<Result<_, _>>()?))
    }
}

impl<'de> DeserializeSeed<'de> for JsonColumnType {
    type Value = ExpectedValue;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ExpectedValue, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for JsonColumnType {
    type Value = ExpectedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonColumnType::Integer => "an integer",
            JsonColumnType::Float => "a number, NaN, inf or -inf",
            JsonColumnType::Bool => "true or false",
            JsonColumnType::Text => "a text",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<ExpectedValue, E> {
        Ok(ExpectedValue::Null)
    }

    fn visit_bool<E: Error>(self, bool: bool) -> Result<ExpectedValue, E> {
        match self {
            JsonColumnType::Bool => Ok(ExpectedValue::Bool(bool)),
            _ => Err(E::invalid_type(Unexpected::Bool(bool), &self)),
        }
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<ExpectedValue, E> {
        match self {
            JsonColumnType::Integer => Ok(ExpectedValue::Integer(integer.into())),
            JsonColumnType::Float => Ok(ExpectedValue::Float(integer as f64)),
            _ => Err(E::invalid_type(Unexpected::Unsigned(integer), &self)),
        }
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<ExpectedValue, E> {
        match self {
            JsonColumnType::Integer => Ok(ExpectedValue::Integer(integer.into())),
            JsonColumnType::Float => Ok(ExpectedValue::Float(integer as f64)),
            _ => Err(E::invalid_type(Unexpected::Signed(integer), &self)),
        }
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<ExpectedValue, E> {
        match self {
            JsonColumnType::Float => Ok(ExpectedValue::Float(float)),
            _ => Err(E::invalid_type(Unexpected::Float(float), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ExpectedValue, E> {
        match (self, text) {
            (JsonColumnType::Text, text) => Ok(ExpectedValue::Text(text.to_owned())),
            // JSON has no numbers for these values.
            (JsonColumnType::Float, "NaN") => Ok(ExpectedValue::Float(f64::NAN)),
            (JsonColumnType::Float, "inf") => Ok(ExpectedValue::Float(f64::INFINITY)),
            (JsonColumnType::Float, "-inf") => Ok(ExpectedValue::Float(f64::NEG_INFINITY)),
            _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }
}

/// The finished lines of `bytes` without their line ends, and the number of bytes they occupy with
/// them. Any bytes after that belong to a line still being written.
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
    use crate::wire::schema::{Endian, Framing};

    #[test]
    fn a_line_is_read_with_its_words_for_numbers() {
        let schema = Schema::built_in();
        let line = br#"{"connection":1,"peer":"127.0.0.1:5","status":"complete","records":2,
            "groups":[{"A":1,"E":"a\\x00b","B_mean":1.5,"C_sum":"-inf","D_min":-128,"count":2}]}"#;
        let line = parse_line(line, &schema).unwrap();
        assert_eq!((line.peer.as_str(), line.records), ("127.0.0.1:5", 2));
        let values = vec![
            ExpectedValue::Integer(1),
            ExpectedValue::Text(r"a\x00b".to_owned()),
            ExpectedValue::Float(1.5),
            ExpectedValue::Float(f64::NEG_INFINITY),
            ExpectedValue::Integer(-128),
            ExpectedValue::Integer(2),
        ];
        assert_eq!(line.groups, [ReportedGroup::new(&schema, values)]);
        assert!(parse_line(b"{}", &schema).is_err());
    }

    fn error_of(group: &str) -> String {
        let line = format!(r#"{{"peer":"x","status":"complete","records":1,"groups":[{group}]}}"#);
        parse_line(line.as_bytes(), &Schema::built_in()).unwrap_err().to_string()
    }

    #[test]
    fn groups_of_another_schema_are_told() {
        let right = r#""A":1,"E":"","B_mean":1,"C_sum":1,"D_min":1"#;
        let with = |column: &str| error_of(&format!("{{{right}{column}}}"));
        assert!(with("").starts_with("missing column count"));
        assert!(
            with(",\"count\":1.5").starts_with("invalid type: floating point `1.5`, expected an")
        );
        assert!(with(",\"count\":1,\"F\":1").starts_with("unexpected column \"F\""));
        assert!(with(",\"count\":\"many\"").starts_with("invalid type: string \"many\""));
        assert!(
            with(",\"count\":1,\"E\":1").starts_with("invalid type: integer `1`, expected a text")
        );
        assert!(error_of("1").contains("expected a group"));
        assert!(error_of("]").contains("column"));
        let whole = br#"{"peer":"x","status":"complete","records":1,"groups":[]}"#;
        assert!(parse_line(whole, &Schema::built_in()).is_ok());
        assert!(parse_line(&[whole, &b" x"[..]].concat(), &Schema::built_in()).is_err());
    }

    /// No value is converted to binary64 on the way.
    #[test]
    fn large_integers_are_exact() {
        let fields = [
            ("big", Kind::U64),
            ("low", Kind::I64),
            ("on", Kind::Bool),
            ("raw", Kind::Bytes { bytes: 2 }),
        ];
        let of = |field, function| Aggregate::Of { field, function };
        let aggregates = vec![
            of(0, Function::Sum),
            of(1, Function::Min),
            of(2, Function::Last),
            of(2, Function::Sum),
            of(0, Function::Var),
        ];
        let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).into();
        let framing = Framing::default();
        let schema = Schema::new("t".into(), Endian::Big, framing, fields, vec![3], aggregates);
        let schema = schema.unwrap();
        let line = br#"{"peer":"x","status":"complete","records":1,"groups":[{"raw":"00ff",
            "big_sum":18446744073709551615,"low_min":-9223372036854775807,"on_last":true,
            "on_sum":1,"big_var":null,"count":1}]}"#;
        let values = vec![
            ExpectedValue::Text("00ff".to_owned()),
            ExpectedValue::Integer(u64::MAX.into()),
            ExpectedValue::Integer(-9_223_372_036_854_775_807),
            ExpectedValue::Bool(true),
            ExpectedValue::Integer(1),
            ExpectedValue::Null,
            ExpectedValue::Integer(1),
        ];
        let line = parse_line(line, &schema).unwrap();
        assert_eq!(line.groups, [ReportedGroup::new(&schema, values)]);
    }

    #[test]
    fn an_unfinished_line_is_left() {
        let (lines, bytes) = finished_lines(b"one\n\ntwo\nthr");
        assert_eq!(lines.collect::<Vec<_>>(), [&b"one"[..], b"", b"two"]);
        assert_eq!(bytes, 9);
        assert_eq!(finished_lines(b"thr").1, 0);
    }
}
