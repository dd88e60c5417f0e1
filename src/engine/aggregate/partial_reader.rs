//! Reads files of partials whole, and tells damaged and foreign ones apart. The caller finds the
//! files and decides what happens to those.

use super::column_types::{Cells, dtype_of};
use super::partial_file::{FACT_COLUMNS, SCHEMA_KEY};
use super::seal::{self, Seal};
use crate::wire::schema::Schema;
use crate::wire::schema::columns::{ColumnType, NamedType, ORIGIN_COLUMNS};
use polars::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use std::fs;
use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Why a file of partials cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialReadError {
    /// It cannot be read, or is not what was written.
    #[error(
        "{file} is damaged: {cause}; copy it again, seal it again if another program has \
         rewritten it, or merge without it (--skip-damaged)"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// It has another schema, or other columns.
    #[error("{file} does not belong to these partials: {difference}; move it elsewhere")]
    Foreign {
        /// The file.
        file: String,
        /// How it differs.
        difference: String,
    },
}

const PANICKED: &str = "Polars panicked while reading it";

/// A file of partials.
pub(super) struct PartialFrame {
    /// Its rows.
    pub frame: DataFrame,
    /// Whether it has a checksum.
    pub seal: Seal,
}

pub(super) fn damaged(file: &Path, cause: impl ToString) -> PartialReadError {
    PartialReadError::Damaged { file: file.display().to_string(), cause: cause.to_string() }
}

fn foreign(file: &Path, difference: String) -> PartialReadError {
    PartialReadError::Foreign { file: file.display().to_string(), difference }
}

/// Reads a file of either kind, whose schema must be `schema`.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(super) fn read(file: &Path, schema: &Schema) -> Result<PartialFrame, PartialReadError> {
    let (content, seal) = checked(file)?;
    // Without a checksum, damage is up to Polars to find, which sometimes panics.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut reader = ParquetReader::new(Cursor::new(content));
        Ok::<_, PolarsError>((schema_text(&mut reader)?, reader.finish()?))
    }));
    let read = read.map_err(|_| damaged(file, PANICKED))?;
    let (text, frame) = read.map_err(|error| damaged(file, error))?;
    if let Some(text) = text.filter(|text| *text != schema.to_toml()) {
        let own = Schema::from_toml(&text)
            .map_err(|complaint| foreign(file, complaint.in_file(SCHEMA_KEY)))?;
        if let Some(difference) = own.difference(schema) {
            return Err(foreign(file, format!("it has another schema ({difference})")));
        }
    }
    Ok(PartialFrame { frame, seal })
}

/// The schema that the content of a file of partials or a result says it has; `None` if it says
/// nothing or is damaged.
pub(crate) fn schema_of(content: Vec<u8>) -> Option<Schema> {
    seal::check(&content).ok()?;
    schema_in(Path::new(""), content).ok().flatten()
}

/// The schema that a file of partials says it has; `None` if it says nothing.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn own_schema(file: &Path) -> Result<Option<Schema>, PartialReadError> {
    let (content, _) = checked(file)?;
    schema_in(file, content)
}

fn schema_in(file: &Path, content: Vec<u8>) -> Result<Option<Schema>, PartialReadError> {
    let text = catch_unwind(AssertUnwindSafe(|| {
        schema_text(&mut ParquetReader::new(Cursor::new(content)))
    }));
    let text = text.map_err(|_| damaged(file, PANICKED))?.map_err(|error| damaged(file, error))?;
    let parsed = text.map(|text| Schema::from_toml(&text)).transpose();
    parsed.map_err(|complaint| foreign(file, complaint.in_file(SCHEMA_KEY)))
}

fn checked(file: &Path) -> Result<(Vec<u8>, Seal), PartialReadError> {
    let unreadable = |error: io::Error| damaged(file, format!("reading it: {error}"));
    match fs::metadata(file).map_err(unreadable)?.file_type() {
        kind if kind.is_dir() => return Err(foreign(file, "it is a directory".to_owned())),
        // Reading a pipe might never end.
        kind if !kind.is_file() => return Err(foreign(file, "it is not a file".to_owned())),
        _ => {}
    }
    let content = fs::read(file).map_err(unreadable)?;
    let seal = seal::check(&content).map_err(|cause| damaged(file, cause))?;
    Ok((content, seal))
}

fn schema_text(reader: &mut ParquetReader<Cursor<Vec<u8>>>) -> PolarsResult<Option<String>> {
    let metadata = reader.get_metadata()?.key_value_metadata().as_deref();
    let entry = metadata.unwrap_or_default().iter().find(|entry| entry.key == SCHEMA_KEY);
    Ok(entry.and_then(|entry| entry.value.clone()))
}

/// Fails unless a frame has exactly these columns, in any order.
pub(super) fn check_columns(
    file: &Path,
    frame: &DataFrame,
    expected: &[NamedType],
) -> Result<(), PartialReadError> {
    for (name, of) in expected {
        check_column(file, frame, name, *of)?;
    }
    let known = |name: &&PlSmallStr| expected.iter().any(|(known, _)| known == name.as_str());
    match frame.get_column_names().into_iter().find(|name| !known(name)) {
        Some(name) => Err(foreign(file, format!("it has an extra column {name}"))),
        None => Ok(()),
    }
}

/// Fails unless a frame has the columns of facts about batches that a merge reads.
pub(super) fn check_facts(file: &Path, frame: &DataFrame) -> Result<(), PartialReadError> {
    let columns = ORIGIN_COLUMNS.iter().chain(&FACT_COLUMNS);
    columns.into_iter().try_for_each(|&(name, of)| check_column(file, frame, name, of))
}

fn check_column(
    file: &Path,
    frame: &DataFrame,
    name: &str,
    expected: ColumnType,
) -> Result<(), PartialReadError> {
    let Ok(column) = frame.column(name) else {
        return Err(foreign(file, format!("it has no column {name}")));
    };
    if *column.dtype() == dtype_of(expected) {
        return Ok(());
    }
    let found = Cells::of(column).map_or("of another type", |cells| cells.column_type().name());
    let expected = expected.name();
    Err(foreign(file, format!("its column {name} is {found} instead of {expected}")))
}

/// What is wrong with the rows of a file about batches.
pub(super) fn not_about_batches(file: &Path, error: &PolarsError) -> PartialReadError {
    foreign(file, error.to_string())
}
