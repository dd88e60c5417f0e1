//! A result as a file of another program's format: writes to any writer, opens no file and changes
//! no value.

use super::grouped::GroupRow;
use super::grouped::Grouped;
use super::value::Value;
use crate::config::{FILE_ROWS, FileFormat};
use polars::prelude::{CompatLevel, DataFrame, PolarsResult};
use polars_io::SerWriter;
use polars_io::ipc::IpcWriter;
use polars_io::parquet::write::{KeyValueMetadata, ParquetCompression, ParquetWriter};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl Grouped {
    /// Writes the whole result in one format. `metadata` is what else is known of it: Parquet and
    /// Arrow keep it beside the columns, the others have no place for it.
    ///
    /// Blocks on the writer, and may run in Polars' threads: call it from a plain thread.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(
        &self,
        format: FileFormat,
        out: &mut impl Write,
        metadata: &[(String, String)],
    ) -> io::Result<()> {
        match format {
            FileFormat::Parquet => guarded(out, |out| write_parquet(self.frame(), out, metadata)),
            FileFormat::Arrow => guarded(out, |out| write_arrow(self.frame(), out, metadata)),
            FileFormat::Csv => self.write_csv(out),
            FileFormat::Ndjson => self.write_ndjson(out),
        }
    }

    /// A line of names, then a line a group. A cell that there is not is empty; NaN and the
    /// infinities are `NaN`, `inf` and `-inf`.
    fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.columns();
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(columns.iter().map(|column| column.name()))?;
        let mut cell = String::new();
        for row in 0..self.len() {
            for column in &columns {
                match column.value(row) {
                    Value::Null => writer.write_field("")?,
                    Value::Text(text) => writer.write_field(text)?,
                    value => {
                        cell.clear();
                        write!(cell, "{value}").expect("a string takes all");
                        writer.write_field(&cell)?;
                    }
                }
            }
            writer.write_record(None::<&[u8]>)?;
        }
        writer.flush()
    }

    /// A line a group, each an object as in the results on stdout.
    fn write_ndjson(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.columns();
        for row in 0..self.len() {
            serde_json::to_writer(&mut *out, &GroupRow { columns: &columns, row })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// zstd and not snappy: a million groups of the built-in record are 12.0 instead of 18.8 MB, in the
/// same time (medians of seven on two cores: 259 and 293 ms). Whatever has read Parquet in the last
/// years reads it.
fn write_parquet(
    frame: &DataFrame,
    out: &mut impl Write,
    metadata: &[(String, String)],
) -> PolarsResult<()> {
    ParquetWriter::new(out)
        .with_compression(ParquetCompression::Zstd(None))
        .with_row_group_size(Some(FILE_ROWS))
        .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata.to_vec())))
        .finish(&mut frame.clone())?;
    Ok(())
}

/// Not compressed, so that it can be mapped and used as it is, and with the old form of texts,
/// which readers of any age know. That form has each text in each row, so a batch is turned into it
/// at a time.
fn write_arrow(
    frame: &DataFrame,
    out: &mut impl Write,
    metadata: &[(String, String)],
) -> PolarsResult<()> {
    let mut batches = frame.slice(0, FILE_ROWS);
    for offset in (FILE_ROWS..frame.height()).step_by(FILE_ROWS) {
        batches.vstack_mut(&frame.slice(offset as i64, FILE_ROWS))?;
    }
    let metadata = metadata.iter().map(|(key, value)| (key.into(), value.into())).collect();
    let mut writer = IpcWriter::new(out).with_compat_level(CompatLevel::oldest());
    writer.set_custom_schema_metadata(Arc::new(metadata));
    writer.finish(&mut batches)
}

/// Runs Polars over a writer, so that a defect in it costs one file and not the process. Where the
/// writer failed, its own error is the one that counts: Polars makes one about the format of it.
fn guarded<W: Write>(
    out: &mut W,
    write: impl FnOnce(&mut Witness<'_, W>) -> PolarsResult<()>,
) -> io::Result<()> {
    let mut witness = Witness { out, error: None };
    let written = catch_unwind(AssertUnwindSafe(|| write(&mut witness)));
    match (written, witness.error) {
        (Ok(Ok(())), None) => Ok(()),
        (_, Some(error)) => Err(error),
        (Ok(Err(error)), None) => Err(io::Error::other(error.to_string())),
        (Err(_), None) => Err(io::Error::other("Polars panicked, see the log; this is a defect")),
    }
}

/// A writer that keeps the first error.
struct Witness<'a, W> {
    out: &'a mut W,
    error: Option<io::Error>,
}

impl<W> Witness<'_, W> {
    /// Keeps an error and gives another of its kind; an interruption is none.
    fn see<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.error.get_or_insert(error);
            }
            kind.into()
        })
    }
}

impl<W: Write> Write for Witness<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.see(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.see(flushed)
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
pub(crate) mod tests;
