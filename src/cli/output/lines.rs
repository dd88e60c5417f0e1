//! What the renderers of results share: groups and latencies, for people and as JSON.

use crate::engine::aggregate::{GroupColumn, GroupRow, Grouped, Value};
use crate::engine::stream::latency::LatencySummary;
use crate::wire::schema::columns::ColumnType;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

// ---- latencies ----

/// Percentiles of latencies on one line, for people.
pub(crate) struct Percentiles<'a>(pub &'a LatencySummary);

impl fmt::Display for Percentiles<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencySummary { p50, p90, p99, p99_9, max, count } = self.0;
        if *count == 0 {
            return out.write_str("none measured");
        }
        write!(
            out,
            "p50 {p50:.1} µs, p90 {p90:.1} µs, p99 {p99:.1} µs, p99.9 {p99_9:.1} µs, \
             max {max:.1} µs"
        )
    }
}

/// A summary of latencies as JSON, in microseconds.
#[derive(Serialize)]
pub(crate) struct LatencyLine {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    count: u64,
}

impl From<LatencySummary> for LatencyLine {
    fn from(summary: LatencySummary) -> Self {
        let LatencySummary { p50, p90, p99, p99_9, max, count } = summary;
        LatencyLine { p50, p90, p99, p99_9, max, count }
    }
}

// ---- groups ----

/// Serializes all groups, each as an object.
///
/// # Errors
/// Those of the serializer.
pub(crate) fn serialize_groups<S: Serializer>(
    grouped: &&Grouped,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let columns = grouped.columns();
    let mut sequence = serializer.serialize_seq(Some(grouped.len()))?;
    for row in 0..grouped.len() {
        sequence.serialize_element(&GroupRow { columns: &columns, row })?;
    }
    sequence.end()
}

/// Writes all groups as a table.
///
/// It is streamed row by row, in two passes, the first for the widths. Polars' own display builds
/// the whole text in memory, and cuts rows, columns and strings unless told otherwise.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_groups(grouped: &Grouped, out: &mut impl Write) -> io::Result<()> {
    let columns: Vec<TableColumn<'_>> = grouped
        .columns()
        .into_iter()
        .map(|column| TableColumn::new(column, grouped.len()))
        .collect();
    writeln!(out, "shape: ({}, {})", grouped.len(), columns.len())?;
    write_rule(out, &columns, ['┌', '┬', '┐'])?;
    for column in &columns {
        column.write(out, column.column.name())?;
    }
    writeln!(out, "│")?;
    for column in &columns {
        column.write(out, column.column.column_type().name())?;
    }
    writeln!(out, "│")?;
    write_rule(out, &columns, ['├', '┼', '┤'])?;
    let mut text = String::new();
    for row in 0..grouped.len() {
        for column in &columns {
            cell(&column.column, row, &mut text);
            column.write(out, &text)?;
        }
        writeln!(out, "│")?;
    }
    write_rule(out, &columns, ['└', '┴', '┘'])
}

/// A column and its width on the screen, where a character may take two columns or none.
struct TableColumn<'a> {
    column: GroupColumn<'a>,
    width: usize,
    left: bool,
}

impl<'a> TableColumn<'a> {
    fn new(column: GroupColumn<'a>, rows: usize) -> Self {
        let mut text = String::new();
        let mut width = column.name().len().max(column.column_type().name().len());
        for row in 0..rows {
            cell(&column, row, &mut text);
            width = width.max(text.width());
        }
        TableColumn {
            column,
            width,
            left: matches!(column.column_type(), ColumnType::Text | ColumnType::Bytes),
        }
    }

    fn write(&self, out: &mut impl Write, cell: &str) -> io::Result<()> {
        let space = self.width.saturating_sub(cell.width());
        match self.left {
            true => write!(out, "│ {cell}{:space$} ", ""),
            false => write!(out, "│ {:space$}{cell} ", ""),
        }
    }
}

/// Puts a cell into `text`, in a form for people: a fraction has the fewest digits that read back
/// as the same number of its type.
fn cell(column: &GroupColumn<'_>, row: usize, text: &mut String) {
    text.clear();
    let written = match column.value(row) {
        Value::Float(value) if column.column_type() == ColumnType::F32 => {
            write!(text, "{:?}", value as f32)
        }
        value => write!(text, "{value}"),
    };
    written.expect("a string takes all");
}

fn write_rule(
    out: &mut impl Write,
    columns: &[TableColumn<'_>],
    [left, inner, right]: [char; 3],
) -> io::Result<()> {
    for (i, column) in columns.iter().enumerate() {
        let corner = if i == 0 { left } else { inner };
        write!(out, "{corner}{}", "─".repeat(column.width + 2))?;
    }
    writeln!(out, "{right}")
}
