//! The one table of column types: what each is in Polars, hence in Parquet and Arrow, and how its
//! cells are read. Which columns there are is up to `wire::schema::columns`.

use super::value::Value;
use crate::wire::schema::columns::{ColumnType, NamedType};
use polars::prelude::*;

fn unsigned<'a>(value: impl Into<u64>) -> Value<'a> {
    Value::Unsigned(value.into())
}

fn signed<'a>(value: impl Into<i64>) -> Value<'a> {
    Value::Signed(value.into())
}

fn float<'a>(value: impl Into<f64>) -> Value<'a> {
    Value::Float(value.into())
}

macro_rules! column_types {
    ($($type:ident $dtype:ident $chunked:ident $read:ident $value:expr;)*) => {
        /// The Polars type of a column.
        pub(crate) fn dtype_of(column_type: ColumnType) -> DataType {
            match column_type {
                $(ColumnType::$type => DataType::$dtype,)*
            }
        }

        /// The cells of a column in the type that they have.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Cells<'a> {
            $($type(&'a $chunked),)*
        }

        impl<'a> Cells<'a> {
            /// The cells of a column.
            ///
            /// # Errors
            /// If no column type has the column's Polars type.
            pub(super) fn of(column: &'a Column) -> PolarsResult<Self> {
                Ok(match column.dtype() {
                    $(DataType::$dtype => Cells::$type(column.$read()?),)*
                    other => polars_bail!(SchemaMismatch: "no column type is {other}"),
                })
            }

            /// The type of the column.
            pub(super) fn column_type(self) -> ColumnType {
                match self {
                    $(Cells::$type(_) => ColumnType::$type,)*
                }
            }

            /// The cell in a row.
            ///
            /// # Panics
            /// If there is no such row.
            pub(super) fn value(self, row: usize) -> Value<'a> {
                let value = match self {
                    $(Cells::$type(cells) => cells.get(row).map($value),)*
                };
                value.unwrap_or(Value::Null)
            }
        }
    };
}

column_types! {
    U8    UInt8   UInt8Chunked   u8     unsigned;
    U16   UInt16  UInt16Chunked  u16    unsigned;
    U32   UInt32  UInt32Chunked  u32    unsigned;
    U64   UInt64  UInt64Chunked  u64    unsigned;
    I8    Int8    Int8Chunked    i8     signed;
    I16   Int16   Int16Chunked   i16    signed;
    I32   Int32   Int32Chunked   i32    signed;
    I64   Int64   Int64Chunked   i64    signed;
    F32   Float32 Float32Chunked f32    float;
    F64   Float64 Float64Chunked f64    float;
    Bool  Boolean BooleanChunked bool   Value::Bool;
    Text  String  StringChunked  str    Value::Text;
    Bytes Binary  BinaryChunked  binary Value::Bytes;
}

/// A frame of these columns without rows.
///
/// # Errors
/// If two columns have the same name.
pub(super) fn empty_frame(columns: impl IntoIterator<Item = NamedType>) -> PolarsResult<DataFrame> {
    let columns = columns.into_iter();
    let columns = columns.map(|(name, of)| Column::new_empty(name.into(), &dtype_of(of)));
    DataFrame::new(0, columns.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::oracle::any::NUMBERS;
    use crate::wire::schema::columns::Part;
    use crate::wire::schema::{Function, Kind};
    use crate::wire::text::Padding;
    use polars_io::SerReader;
    use polars_io::parquet::read::ParquetReader;
    use polars_io::parquet::write::ParquetWriter;
    use std::io::Cursor;

    /// The kinds of fields that have values.
    fn kinds() -> impl Iterator<Item = Kind> {
        let texts = [Kind::Text { bytes: 4, padding: Padding::BOTH }, Kind::Bytes { bytes: 4 }];
        NUMBERS.into_iter().chain(texts)
    }

    /// The types as documents list them: that of values, in Polars and Parquet, of a sum.
    const DOCUMENTED: [(&str, &str, &str); 13] = [
        ("u8", "u8", "u64"),
        ("u16", "u16", "u64"),
        ("u32", "u32", "u64"),
        ("u64", "u64", "u64"),
        ("i8", "i8", "i64"),
        ("i16", "i16", "i64"),
        ("i32", "i32", "i64"),
        ("i64", "i64", "i64"),
        ("f32", "f32", "f64"),
        ("f64", "f64", "f64"),
        ("bool", "bool", "u64"),
        ("text", "str", ""),
        ("bytes", "binary", ""),
    ];

    #[test]
    fn each_type_and_function_gives_the_documented_column() {
        for (kind, (name, dtype, sum)) in kinds().zip(DOCUMENTED) {
            let of_field = ColumnType::of_field(kind);
            assert_eq!((kind.name(), of_field.name()), (name, name));
            assert_eq!(dtype_of(of_field).to_string(), dtype);
            if kind.is_text() {
                continue;
            }
            for function in Function::ALL {
                let expected = match function {
                    Function::Sum => sum,
                    Function::Mean | Function::Var | Function::Std => "f64",
                    _ => name,
                };
                assert_eq!(ColumnType::of_function(function, kind).name(), expected, "{kind:?}");
                for &part in Part::of(function, kind) {
                    let expected = match part {
                        Part::Sum => sum,
                        Part::SumLow => "u64",
                        Part::Mean | Part::Rest | Part::M2 | Part::Unit => "f64",
                        _ => name,
                    };
                    assert_eq!(ColumnType::of_part(part, kind).name(), expected, "{kind:?}");
                }
            }
        }
    }

    /// One row of 1, or of the text or byte `1`, in each type; in Parquet and in JSON.
    #[test]
    fn cells_are_the_same_from_parquet_and_have_one_form_in_json() {
        let one = |of: ColumnType| match of {
            ColumnType::Text => Column::new("x".into(), ["1"]),
            ColumnType::Bytes => Column::new("x".into(), [&b"1"[..]]),
            ColumnType::Bool => Column::new("x".into(), [true]),
            _ => Column::new("x".into(), [1_u8]).cast(&dtype_of(of)).unwrap(),
        };
        for kind in kinds() {
            let of = ColumnType::of_field(kind);
            let mut file = Vec::new();
            let mut frame = DataFrame::new(1, vec![one(of)]).unwrap();
            ParquetWriter::new(&mut file).finish(&mut frame).unwrap();
            let read = ParquetReader::new(Cursor::new(file)).finish().unwrap();
            let cells = Cells::of(read.column("x").unwrap()).unwrap();
            assert_eq!(cells.column_type(), of);
            let json = match of {
                ColumnType::F32 | ColumnType::F64 => "1.0",
                ColumnType::Bool => "true",
                ColumnType::Text => "\"1\"",
                ColumnType::Bytes => "\"31\"",
                _ => "1",
            };
            assert_eq!(serde_json::to_string(&cells.value(0)).unwrap(), json);
            let empty = empty_frame([("x".to_owned(), of)]).unwrap();
            assert_eq!(empty.schema(), read.schema());
        }
        let other = Column::new_empty("x".into(), &DataType::Null);
        assert!(Cells::of(&other).unwrap_err().to_string().contains("null"));
    }
}
