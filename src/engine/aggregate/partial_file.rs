//! Writes the two Parquet files of a batch of a stream: its mergeable groups, and one row of facts
//! about it. The caller names and opens the files; `merge` reads them.

use super::column_types::dtype_of;
use super::merge_plan::{MERGE_KEY, merge_plan};
use super::parquet_file::write_parquet;
use super::seal::{self, CHECKSUM_KEY};
use crate::engine::stream::latency::Latency;
use crate::wire::schema::Schema;
use crate::wire::schema::columns::{ColumnType, ORIGIN_COLUMNS};
use hdrhistogram::serialization::{Serializer, V2Serializer};
use polars::prelude::*;
use std::io::{self, Write};

/// The key of the schema in the metadata of both files, and of results; its value is TOML.
pub(crate) const SCHEMA_KEY: &str = "ringest.schema_toml";

/// The columns of the facts about a batch that a merge reads, besides its origin.
pub(super) const FACT_COLUMNS: [(&str, ColumnType); 6] = [
    ("final", ColumnType::Bool),
    ("status", ColumnType::Text),
    ("records", ColumnType::U64),
    ("packets", ColumnType::U64),
    ("bytes", ColumnType::U64),
    ("latency_v2", ColumnType::Bytes),
];

/// Why a file of partials could not be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum PartialFileError {
    /// The writer failed.
    Io(#[from] io::Error),
    /// Polars could not compute or write the contents.
    Polars(#[from] PolarsError),
}

impl From<PartialFileError> for io::Error {
    fn from(error: PartialFileError) -> Self {
        match error {
            PartialFileError::Io(error) => error,
            PartialFileError::Polars(error) => io::Error::other(error.to_string()),
        }
    }
}

/// Which batch of which stream. A merge keeps one copy of rows that agree in the keys and in all of
/// these but the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node that received it.
    pub node: String,
    /// The name of the stream, unique across runs.
    pub connection: String,
    /// Number of the batch within the stream, from 0.
    pub batch: u32,
    /// When the batch began, in microseconds since the Unix epoch.
    pub time_us: i64,
}

/// The facts recorded about a batch besides its groups.
#[derive(Clone, Debug)]
pub(crate) struct BatchFacts {
    /// The status of the stream, if it ended with this batch: `complete`, `incomplete`,
    /// `rejected`.
    pub status: Option<&'static str>,
    /// Why it is not complete.
    pub reason: Option<&'static str>,
    /// Records of this batch.
    pub records: u64,
    /// Packets that ended in this batch.
    pub packets: u64,
    /// Bytes of this batch.
    pub bytes: u64,
    /// Latencies of its packets.
    pub latency: Latency,
}

fn origin_columns(origin: &Origin, rows: usize) -> [Column; 4] {
    let Origin { node, connection, batch, time_us } = origin;
    let [node_name, connection_name, batch_name, time_name] =
        ORIGIN_COLUMNS.map(|(name, _)| name.into());
    let text = |name, value: &str| {
        let scalar = Scalar::new(DataType::String, AnyValue::StringOwned(value.into()));
        Column::new_scalar(name, scalar, rows)
    };
    [
        text(node_name, node),
        text(connection_name, connection),
        Column::new_scalar(batch_name, Scalar::from(*batch), rows),
        Column::new_scalar(time_name, Scalar::from(*time_us), rows),
    ]
}

/// Writes the groups of a batch. `frame` has the keys under their names with their final types,
/// `count`, and the parts; numbers may be wider than their fields, and columns in any order.
///
/// # Errors
/// Returns the errors of the writer, or reports a bug.
pub(crate) fn write_groups(
    schema: &Schema,
    frame: &DataFrame,
    origin: &Origin,
    out: &mut impl Write,
) -> Result<(), PartialFileError> {
    let mut columns: Vec<Column> = origin_columns(origin, frame.height()).into();
    for (name, of) in schema.partial_columns().into_iter().skip(columns.len()) {
        columns.push(frame.column(&name)?.strict_cast(&dtype_of(of))?);
    }
    let plan = (MERGE_KEY, merge_plan(schema));
    write(DataFrame::new(frame.height(), columns)?, schema, Some(plan), out)
}

/// Writes the row of facts about a batch.
///
/// # Errors
/// Returns the errors of the writer.
pub(crate) fn write_facts(
    schema: &Schema,
    origin: &Origin,
    facts: &BatchFacts,
    out: &mut impl Write,
) -> Result<(), PartialFileError> {
    let mut latency = Vec::new();
    V2Serializer::new()
        .serialize(facts.latency.histogram(), &mut latency)
        .map_err(io::Error::other)?;
    let column = |name: &str, value: AnyValue<'static>, dtype: DataType| {
        Column::new_scalar(name.into(), Scalar::new(dtype, value), 1)
    };
    let text = |name, word: Option<&'static str>| {
        column(name, word.map_or(AnyValue::Null, AnyValue::String), DataType::String)
    };
    let number = |name, n| column(name, AnyValue::UInt64(n), DataType::UInt64);
    let mut columns: Vec<Column> = origin_columns(origin, 1).into();
    let last = AnyValue::Boolean(facts.status.is_some());
    columns.extend([
        column("final", last, DataType::Boolean),
        text("status", facts.status),
        text("reason", facts.reason),
        number("records", facts.records),
        number("packets", facts.packets),
        number("bytes", facts.bytes),
        column("latency_v2", AnyValue::BinaryOwned(latency), DataType::Binary),
    ]);
    write(DataFrame::new(1, columns)?, schema, None, out)
}

/// Writes a file that says which schema it has and that its content can be checked. It is made in
/// memory first, where it takes less than the frame, because its checksum is inside it.
fn write(
    frame: DataFrame,
    schema: &Schema,
    more: Option<(&str, String)>,
    out: &mut impl Write,
) -> Result<(), PartialFileError> {
    let own = [(SCHEMA_KEY, schema.to_toml()), (CHECKSUM_KEY, seal::BLANK.to_owned())];
    let metadata = more.into_iter().chain(own).map(|(key, value)| (key.to_owned(), value));
    let mut file = Vec::new();
    write_parquet(&frame, &mut file, &metadata.collect::<Vec<_>>())?;
    seal::seal(&mut file);
    out.write_all(&file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::aggregate::parts;
    use crate::wire::schema::{Aggregate, Endian, Framing, Function, Kind};
    use crate::wire::text::Padding;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use polars_io::SerReader;
    use polars_io::parquet::read::ParquetReader;
    use std::io::Cursor;

    fn origin() -> Origin {
        let connection = "20261120T200201.123456Z-42-7".to_owned();
        Origin { node: "a".to_owned(), connection, batch: 3, time_us: 1_795_204_921_123_456 }
    }

    fn schema() -> Schema {
        let padding = Padding::BOTH;
        let fields = [
            ("A", Kind::U32),
            ("D", Kind::I8),
            ("E", Kind::Text { bytes: 8, padding }),
            ("F", Kind::I64),
            ("G", Kind::Bool),
            ("H", Kind::F32),
            ("K", Kind::Bytes { bytes: 2 }),
        ];
        let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
        let of = |field, function| Aggregate::Of { field, function };
        let aggregates = vec![
            of(1, Function::Min),
            of(3, Function::Mean),
            of(4, Function::Last),
            of(5, Function::First),
            of(5, Function::Std),
        ];
        let (endian, framing) = (Endian::Big, Framing::default());
        Schema::new("t".to_owned(), endian, framing, fields, vec![0, 2, 6], aggregates).unwrap()
    }

    /// Wide columns as in a worker's groups, with `rows` groups.
    fn wide(rows: usize) -> DataFrame {
        let n = 0..rows as u64;
        let unsigned = |name: &str, values: Vec<u64>| Column::new(name.into(), values);
        let texts: Vec<String> = n.clone().map(|n| format!("{n:03}")).collect();
        let bytes: Vec<&[u8]> = n.clone().map(|_| &b"\xff\x00"[..]).collect();
        let floats: Vec<f64> = n.clone().map(|n| n as f64 + 0.5).collect();
        let signed: Vec<i64> = n.clone().map(|n| n as i64 % 100 - 5).collect();
        let columns = vec![
            unsigned("last_G", n.clone().map(|n| n % 2).collect()),
            Column::new("min_D".into(), signed.clone()),
            Column::new("sum_F".into(), signed),
            unsigned("sum_low_F", n.clone().collect()),
            Column::new("first_H".into(), floats.clone()),
            Column::new("mean_H".into(), floats.clone()),
            Column::new("rest_H".into(), floats.clone()),
            Column::new("m2_H".into(), floats),
            unsigned("count", n.clone().map(|n| n + 1).collect()),
            Column::new("A".into(), n.map(|n| n as u32).collect::<Vec<_>>()),
            Column::new("E".into(), texts),
            Column::new("K".into(), bytes),
        ];
        DataFrame::new(rows, columns).unwrap()
    }

    fn read(file: &[u8]) -> DataFrame {
        ParquetReader::new(Cursor::new(file)).finish().unwrap()
    }

    #[test]
    fn groups_are_written_with_the_documented_columns() {
        for rows in [0, 1, 200] {
            let mut file = Vec::new();
            write_groups(&schema(), &wide(rows), &origin(), &mut file).unwrap();
            let frame = read(&file);
            let shown: Vec<String> =
                frame.schema().iter().map(|(name, dtype)| format!("{name} {dtype}")).collect();
            let own = ["node str", "connection str", "batch u32", "time_us i64"];
            let rest = [
                "A u32",
                "E str",
                "K binary",
                "count u64",
                "min_D i8",
                "sum_F i64",
                "sum_low_F u64",
                "last_G bool",
                "first_H f32",
                "mean_H f64",
                "rest_H f64",
                "m2_H f64",
            ];
            assert_eq!(shown, [&own[..], &rest].concat());
            let names: Vec<&str> =
                shown.iter().map(|name| name.split(' ').next().unwrap()).collect();
            let columns = schema().partial_columns();
            assert!(names.into_iter().eq(columns.iter().map(|(name, _)| name)));
            assert_eq!(frame.height(), rows);
        }
        let mut file = Vec::new();
        write_groups(&schema(), &wide(3), &origin(), &mut file).unwrap();
        let frame = read(&file);
        let connections = frame.column("connection").unwrap().str().unwrap();
        assert!(connections.iter().all(|name| name == Some(origin().connection.as_str())));
        assert_eq!(frame.column("min_D").unwrap().i8().unwrap().get(2), Some(-3));
        assert_eq!(frame.column("last_G").unwrap().bool().unwrap().get(1), Some(true));
        // The file can be merged and finished.
        let merged = parts::merged(&schema(), &frame, ["A", "E", "K"]).unwrap();
        assert_eq!(parts::finish(&schema(), &merged).unwrap().frame.height(), 3);
    }

    #[test]
    fn a_file_of_groups_says_how_it_is_merged_and_which_schema_it_has() {
        let mut file = Vec::new();
        write_groups(&schema(), &wide(3), &origin(), &mut file).unwrap();
        assert_eq!(seal::check(&file), Ok(seal::Seal::Intact));
        let mut reader = ParquetReader::new(Cursor::new(file));
        let metadata = reader.get_metadata().unwrap().key_value_metadata().clone().unwrap();
        let value = |key| metadata.iter().find(|entry| entry.key == key).unwrap().value.clone();
        assert_eq!(value(MERGE_KEY), Some(merge_plan(&schema())));
        assert_eq!(value(SCHEMA_KEY), Some(schema().to_toml()));
    }

    #[test]
    fn a_value_out_of_its_fields_range_is_rejected() {
        let mut frame = wide(2);
        frame.with_column(Column::new("min_D".into(), [1_i64, -129])).unwrap();
        let error = write_groups(&schema(), &frame, &origin(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("-129"), "{error}");
    }

    #[test]
    fn the_facts_of_a_batch_keep_its_latencies() {
        let mut latency = Latency::default();
        latency.record(std::time::Duration::from_millis(1), 5);
        let facts = BatchFacts {
            status: None,
            reason: None,
            records: 10,
            packets: 5,
            bytes: 2700,
            latency: latency.clone(),
        };
        let (status, reason) = (Some("rejected"), Some("groups_limit"));
        let last = BatchFacts { status, reason, ..facts.clone() };
        for (facts, ended) in [(facts, false), (last, true)] {
            let mut file = Vec::new();
            write_facts(&schema(), &origin(), &facts, &mut file).unwrap();
            let row = read(&file);
            assert_eq!(row.height(), 1);
            assert_eq!(row.column("final").unwrap().bool().unwrap().get(0), Some(ended));
            assert_eq!(row.column("status").unwrap().str().unwrap().get(0), facts.status);
            assert_eq!(row.column("reason").unwrap().str().unwrap().get(0), facts.reason);
            assert_eq!(row.column("bytes").unwrap().u64().unwrap().get(0), Some(2700));
            let bytes = row.column("latency_v2").unwrap().binary().unwrap();
            let mut bytes = bytes.get(0).unwrap();
            let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes).unwrap();
            assert_eq!(read, *latency.histogram());
        }
    }
}
