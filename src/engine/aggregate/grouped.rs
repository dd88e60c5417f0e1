//! A finished result: a DataFrame with the columns of its schema and one row per group, and access
//! to its cells.

use super::column_types::{Cells, empty_frame};
use super::value::Value;
use crate::wire::schema::Schema;
use crate::wire::schema::columns::ColumnType;
use polars::prelude::{Column, DataFrame, PlSmallStr, Scalar};
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
        let frame = empty_frame(schema.columns()).expect("names are distinct");
        Grouped { schema, frame }
    }

    /// The same result with columns added before the others, for a file.
    pub(crate) fn with_first(&self, added: &[AddedColumn]) -> Self {
        let rows = self.len();
        let mut columns: Vec<Column> = added.iter().map(|added| added.column(rows)).collect();
        columns.extend(self.frame.columns().iter().cloned());
        let frame = DataFrame::new(rows, columns).expect("the caller has compared the names");
        Grouped { schema: Arc::clone(&self.schema), frame }
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

    /// Bytes that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.frame.estimated_size()
    }

    /// Its columns, in order.
    pub fn columns(&self) -> Vec<GroupColumn<'_>> {
        self.frame.columns().iter().map(GroupColumn::of).collect()
    }
}

/// A column that a file has before those of the schema: a name, and the value of all rows.
#[derive(Clone, Debug)]
pub(crate) enum AddedColumn {
    /// A u64.
    Number(&'static str, u64),
    /// A text.
    Text(&'static str, String),
}

impl AddedColumn {
    fn column(&self, rows: usize) -> Column {
        let (name, scalar) = match self {
            AddedColumn::Number(name, number) => (name, Scalar::from(*number)),
            AddedColumn::Text(name, text) => (name, Scalar::from(PlSmallStr::from_str(text))),
        };
        Column::new_scalar(PlSmallStr::from_static(name), scalar, rows)
    }
}

/// One column of a result.
#[derive(Clone, Copy, Debug)]
pub struct GroupColumn<'a> {
    name: &'a str,
    cells: Cells<'a>,
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

    /// Its type.
    pub(crate) fn column_type(&self) -> ColumnType {
        self.cells.column_type()
    }

    /// The cell in a row.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn value(&self, row: usize) -> Value<'a> {
        self.cells.value(row)
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
