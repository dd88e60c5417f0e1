//! Writes a frame as Parquet, with statistics that hold and types that every reader knows. The
//! caller names and opens the file.
//!
//! Statistics let a reader skip rows that cannot match a filter, so wrong ones hide rows without an
//! error. Three rules keep them right:
//!
//! - A column of floats has a least and a greatest value only where it has no NaN. Readers disagree
//!   on whether NaN exceeds every number, so no bounds without it suit all of them.
//! - A number column of a row group is one page. Polars combines the pages of unsigned numbers as
//!   if they were signed.
//! - There is no index of pages. It cannot leave out single columns.

use crate::config::FILE_ROWS;
use polars::prelude::*;
use polars_io::parquet::write::get_encodings;
use polars_parquet::read::ParquetError;
use polars_parquet::write::{
    CompressedPage, CompressionOptions, Compressor, DynIter, DynStreamingIterator, Encoding,
    FileWriter, KeyValue, ParquetType, StatisticsOptions, Version, WriteOptions, array_to_columns,
    fallible_streaming_iterator, schema_to_metadata_key,
};
use std::io::Write;
use std::thread;

/// Bytes of the widest number.
const NUMBER_BYTES_MAX: usize = 8;
/// Largest page: a row group of the widest numbers, for which Polars counts one byte more each.
const PAGE_BYTES: usize = FILE_ROWS * (NUMBER_BYTES_MAX + 1);
/// Row groups with fewer rows are encoded by one thread; starting others would take longer.
const PARALLEL_ROWS_MIN: usize = 16 << 10;

/// Writes a frame. `metadata` becomes file metadata.
///
/// Texts are declared with the old layout, as in Arrow files. Uses zstd instead of snappy: a
/// million groups of the built-in record take 12.0 instead of 18.8 MB in about the same time
/// (medians of seven runs on two cores: 259 and 293 ms), and all recent readers support it.
///
/// # Errors
/// Those of the writer.
pub(super) fn write_parquet(
    frame: &DataFrame,
    out: &mut impl Write,
    metadata: &[(String, String)],
) -> PolarsResult<()> {
    let fields =
        frame.columns().iter().map(|column| column.field().to_arrow(CompatLevel::oldest()));
    let schema: ArrowSchema = fields.collect();
    let encodings = get_encodings(&schema);
    let no_index = options_with(StatisticsOptions::empty());
    let mut writer = FileWriter::try_new(out, schema, no_index)?;
    let types = writer.parquet_schema().fields().to_vec();
    for offset in (0..frame.height()).step_by(FILE_ROWS) {
        let mut rows = frame.slice(offset as i64, FILE_ROWS);
        rows.rechunk_mut();
        let columns = rows.columns().iter().zip(types.iter().zip(encodings.iter()));
        let columns =
            columns.map(|(column, (of, encodings))| ColumnChunk { column, of, encodings });
        let columns = compressed(&columns.collect::<Vec<_>>(), rows.height())?;
        let columns = columns.iter().map(|pages| {
            let pages =
                fallible_streaming_iterator::convert(pages.iter().map(Ok::<_, PolarsError>));
            Ok(DynStreamingIterator::new(pages))
        });
        writer.write(rows.height() as u64, DynIter::new(columns))?;
    }
    let own = metadata.iter().cloned().map(|(key, value)| KeyValue { key, value: Some(value) });
    let all = [schema_to_metadata_key(writer.schema())].into_iter().chain(own).collect();
    writer.end(Some(all))?;
    Ok(())
}

fn options_with(statistics: StatisticsOptions) -> WriteOptions {
    WriteOptions {
        statistics,
        version: Version::V1,
        compression: CompressionOptions::Zstd(None),
        data_page_size: Some(PAGE_BYTES),
    }
}

/// A column of a row group, and how it is written.
struct ColumnChunk<'a> {
    column: &'a Column,
    of: &'a ParquetType,
    encodings: &'a [Encoding],
}

impl ColumnChunk<'_> {
    /// Its compressed pages.
    fn pages(&self) -> PolarsResult<Vec<CompressedPage>> {
        let series = self.column.as_materialized_series();
        let options = options_with(statistics_of(series));
        let array = series.to_arrow(0, CompatLevel::newest());
        let mut compressed = Vec::new();
        for pages in array_to_columns(array, self.of.clone(), options, self.encodings)? {
            let pages =
                pages.map(|page| page.map_err(|error| ParquetError::OutOfSpec(error.to_string())));
            for page in Compressor::new(pages, options.compression, Vec::new()) {
                compressed.push(page?);
            }
        }
        Ok(compressed)
    }
}

/// The statistics that hold for a column whatever a reader takes NaN for.
fn statistics_of(series: &Series) -> StatisticsOptions {
    let has_nan = match series.dtype() {
        DataType::Float32 => {
            series.f32().is_ok_and(|floats| floats.iter().flatten().any(f32::is_nan))
        }
        DataType::Float64 => {
            series.f64().is_ok_and(|floats| floats.iter().flatten().any(f64::is_nan))
        }
        _ => false,
    };
    let bounds = !has_nan;
    StatisticsOptions { min_value: bounds, max_value: bounds, ..StatisticsOptions::default() }
}

/// The compressed pages of each column. Large row groups are shared among threads, each of which
/// takes every n-th column.
fn compressed(columns: &[ColumnChunk<'_>], rows: usize) -> PolarsResult<Vec<Vec<CompressedPage>>> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(columns.len());
    if rows < PARALLEL_ROWS_MIN || cores == 1 {
        return columns.iter().map(ColumnChunk::pages).collect();
    }
    let of_thread = |first: usize| {
        let own = columns.iter().skip(first).step_by(cores);
        own.map(ColumnChunk::pages).collect::<PolarsResult<Vec<_>>>()
    };
    let of_threads = thread::scope(|scope| {
        let others = (1..cores).map(|first| scope.spawn(move || of_thread(first)));
        let others: Vec<_> = others.collect();
        let own = of_thread(0);
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        [own].into_iter().chain(others.into_iter().map(join)).collect::<PolarsResult<Vec<_>>>()
    })?;
    let mut of_threads: Vec<_> = of_threads.into_iter().map(Vec::into_iter).collect();
    Ok((0..columns.len()).filter_map(|column| of_threads[column % cores].next()).collect())
}

#[cfg(test)]
#[path = "parquet_file_tests.rs"]
mod tests;
