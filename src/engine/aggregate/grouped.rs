//! A finished result: a DataFrame with the columns of its schema and one row per group, and access
//! to its cells.

use super::parts::{sum_type, type_of};
use super::value::Value;
use crate::wire::schema::{Aggregate, Function, Kind, Schema};
use polars::prelude::{
    BinaryChunked, BooleanChunked, Column, DataFrame, DataType, Float32Chunked, Float64Chunked,
    Int8Chunked, Int16Chunked, Int32Chunked, Int64Chunked, PolarsResult, StringChunked,
    UInt8Chunked, UInt16Chunked, UInt32Chunked, UInt64Chunked,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::sync::Arc;

/// A finished result: a DataFrame with exactly the columns of the schema's result, in one chunk,
/// with one row per group, sorted by the keys. Text columns hold their values escaped for display,
/// bytes columns the raw bytes.
#[derive(Clone, Debug)]
pub struct Grouped {
    schema: Arc<Schema>,
    frame: DataFrame,
}

impl Grouped {
    /// Wraps a frame as a result.
    ///
    /// # Panics
    /// Panics in debug builds if its columns are not those of the schema's result.
    pub fn new(schema: Arc<Schema>, mut frame: DataFrame) -> Self {
        debug_assert_eq!(
            frame.get_column_names().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            schema.column_names()
        );
        frame.rechunk_mut();
        Grouped { schema, frame }
    }

    /// The result without records: columns, but no rows.
    pub fn empty(schema: Arc<Schema>) -> Self {
        let frame = column_types(&schema)
            .into_iter()
            .map(|(name, dtype)| Column::new_empty(name.into(), &dtype));
        let frame = DataFrame::new_infer_height(frame.collect()).expect("names are distinct");
        Grouped { schema, frame }
    }

    /// Its schema.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The DataFrame itself.
    pub fn frame(&self) -> &DataFrame {
        &self.frame
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.frame.height()
    }

    /// Whether it has no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its columns, in order.
    pub fn columns(&self) -> Vec<GroupColumn<'_>> {
        self.frame.columns().iter().map(GroupColumn::of).collect()
    }
}

/// The names and types of a result's columns.
fn column_types(schema: &Schema) -> Vec<(String, DataType)> {
    let keys = schema.keys().map(|key| (key.name.clone(), type_of(key.kind)));
    let aggregates = schema.aggregates().iter().map(|&aggregate| {
        let dtype = match aggregate {
            Aggregate::Count => DataType::UInt64,
            Aggregate::Of { field, function } => {
                function_type(function, schema.fields()[field].kind)
            }
        };
        (schema.column_name(aggregate), dtype)
    });
    keys.chain(aggregates).collect()
}

/// The type of a column with what a function makes of a field's values.
fn function_type(function: Function, kind: Kind) -> DataType {
    match function {
        Function::Sum => sum_type(kind),
        Function::Mean | Function::Var | Function::Std => DataType::Float64,
        Function::Min | Function::Max | Function::First | Function::Last => type_of(kind),
    }
}

/// One column of a result.
#[derive(Clone, Copy, Debug)]
pub struct GroupColumn<'a> {
    name: &'a str,
    cells: Cells<'a>,
}

/// The cells of a column in the type that they have.
#[derive(Clone, Copy, Debug)]
enum Cells<'a> {
    U8(&'a UInt8Chunked),
    U16(&'a UInt16Chunked),
    U32(&'a UInt32Chunked),
    U64(&'a UInt64Chunked),
    I8(&'a Int8Chunked),
    I16(&'a Int16Chunked),
    I32(&'a Int32Chunked),
    I64(&'a Int64Chunked),
    F32(&'a Float32Chunked),
    F64(&'a Float64Chunked),
    Bool(&'a BooleanChunked),
    Text(&'a StringChunked),
    Bytes(&'a BinaryChunked),
}

impl<'a> GroupColumn<'a> {
    fn of(column: &'a Column) -> Self {
        let cells = Cells::of(column).expect("a result has columns of these types");
        GroupColumn { name: column.name(), cells }
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The word for its type: `u8` to `f64`, `bool`, `text` or `bytes`.
    pub fn type_name(&self) -> &'static str {
        match self.cells {
            Cells::U8(_) => "u8",
            Cells::U16(_) => "u16",
            Cells::U32(_) => "u32",
            Cells::U64(_) => "u64",
            Cells::I8(_) => "i8",
            Cells::I16(_) => "i16",
            Cells::I32(_) => "i32",
            Cells::I64(_) => "i64",
            Cells::F32(_) => "f32",
            Cells::F64(_) => "f64",
            Cells::Bool(_) => "bool",
            Cells::Text(_) => "text",
            Cells::Bytes(_) => "bytes",
        }
    }

    /// The cell in a row.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn value(&self, row: usize) -> Value<'a> {
        fn unsigned<'a>(value: impl Into<u64>) -> Value<'a> {
            Value::Unsigned(value.into())
        }
        fn signed<'a>(value: impl Into<i64>) -> Value<'a> {
            Value::Signed(value.into())
        }
        let value = match self.cells {
            Cells::U8(cells) => cells.get(row).map(unsigned),
            Cells::U16(cells) => cells.get(row).map(unsigned),
            Cells::U32(cells) => cells.get(row).map(unsigned),
            Cells::U64(cells) => cells.get(row).map(unsigned),
            Cells::I8(cells) => cells.get(row).map(signed),
            Cells::I16(cells) => cells.get(row).map(signed),
            Cells::I32(cells) => cells.get(row).map(signed),
            Cells::I64(cells) => cells.get(row).map(signed),
            Cells::F32(cells) => cells.get(row).map(|value| Value::Float(value.into())),
            Cells::F64(cells) => cells.get(row).map(Value::Float),
            Cells::Bool(cells) => cells.get(row).map(Value::Bool),
            Cells::Text(cells) => cells.get(row).map(Value::Text),
            Cells::Bytes(cells) => cells.get(row).map(Value::Bytes),
        };
        value.unwrap_or(Value::Null)
    }
}

impl<'a> Cells<'a> {
    fn of(column: &'a Column) -> PolarsResult<Self> {
        Ok(match column.dtype() {
            DataType::UInt8 => Cells::U8(column.u8()?),
            DataType::UInt16 => Cells::U16(column.u16()?),
            DataType::UInt32 => Cells::U32(column.u32()?),
            DataType::UInt64 => Cells::U64(column.u64()?),
            DataType::Int8 => Cells::I8(column.i8()?),
            DataType::Int16 => Cells::I16(column.i16()?),
            DataType::Int32 => Cells::I32(column.i32()?),
            DataType::Int64 => Cells::I64(column.i64()?),
            DataType::Float32 => Cells::F32(column.f32()?),
            DataType::Float64 => Cells::F64(column.f64()?),
            DataType::Boolean => Cells::Bool(column.bool()?),
            DataType::String => Cells::Text(column.str()?),
            // Any other type is an error that says which it is.
            _ => Cells::Bytes(column.binary()?),
        })
    }
}

/// One row of a result, serialised as a JSON object with the columns in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupRow<'a> {
    /// The columns.
    pub columns: &'a [GroupColumn<'a>],
    /// The row.
    pub row: usize,
}

impl Serialize for GroupRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            object.serialize_entry(column.name(), &column.value(self.row))?;
        }
        object.end()
    }
}
