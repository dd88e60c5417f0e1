//! Writes a result in a file format for other programs. The caller opens the file.

use super::grouped::GroupRow;
use super::grouped::Grouped;
use super::parquet_file::write_parquet;
use super::value::Value;
use crate::config::{FILE_ROWS, FileFormat};
use polars::prelude::{CompatLevel, DataFrame, PolarsResult};
use polars_io::SerWriter;
use polars_io::ipc::IpcWriter;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl Grouped {
    /// Writes the whole result in one format. `metadata` becomes file metadata in Parquet and
    /// Arrow; the other formats have none.
    ///
    /// Blocks on the writer and may run in Polars' threads, so call it from a plain thread.
    ///
    /// # Errors
    /// Returns the errors of the writer.
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

    /// A line of names, then one line per group. A cell without a value is empty; NaN and the
    /// infinities are `NaN`, `inf` and `-inf`.
    fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_rows(out).map_err(|error| match error.into_kind() {
            // Converted as a whole, it would lose the system's code.
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    }

    fn write_rows(&self, out: &mut impl Write) -> csv::Result<()> {
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
                        write!(cell, "{value}").expect("writing to a string cannot fail");
                        writer.write_field(&cell)?;
                    }
                }
            }
            writer.write_record(None::<&[u8]>)?;
        }
        Ok(writer.flush()?)
    }

    /// One line per group, each an object like those in the results on stdout.
    fn write_ndjson(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.columns();
        for row in 0..self.len() {
            serde_json::to_writer(&mut *out, &GroupRow { columns: &columns, row })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Writes uncompressed, so that the file can be memory-mapped, and with the old layout of texts,
/// which every reader knows. That layout repeats texts in each row, so it converts one batch at a
/// time.
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

/// Runs Polars on a writer so that a panic costs one file instead of the process. If the writer
/// failed, returns its own error, because Polars turns it into one about the format.
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
        (Err(_), None) => {
            Err(io::Error::other("Polars panicked (see the log); this is a bug, please report it"))
        }
    }
}

/// A writer that remembers its first error.
struct Witness<'a, W> {
    out: &'a mut W,
    error: Option<io::Error>,
}

impl<W> Witness<'_, W> {
    /// Remembers an error and returns another of the same kind. Interruptions do not count.
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
