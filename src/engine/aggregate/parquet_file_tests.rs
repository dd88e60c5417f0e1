//! Reads the statistics of written files, and compares them with the values of the columns.

use super::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_parquet::parquet::statistics::{ParquetStatistics, Statistics};
use polars_parquet::read::FileMetadata;
use std::io::Cursor;
use std::sync::Arc;

fn written(frame: &DataFrame) -> Vec<u8> {
    let mut file = Vec::new();
    write_parquet(frame, &mut file, &[("own".to_owned(), "value".to_owned())]).unwrap();
    let read = ParquetReader::new(Cursor::new(&file)).finish().unwrap();
    assert!(read.equals_missing(frame), "{read:?}");
    assert_eq!(read.schema(), frame.schema());
    file
}

fn metadata(file: &[u8]) -> Arc<FileMetadata> {
    Arc::clone(ParquetReader::new(Cursor::new(file)).get_metadata().unwrap())
}

/// The statistics of one column of a row group; there is an index of pages nowhere.
fn statistics(file: &FileMetadata, group: usize, column: &str) -> ParquetStatistics {
    let mut chunks = file.row_groups[group].parquet_columns().iter();
    let chunk = chunks.find(|chunk| chunk.descriptor().path_in_schema[0] == column).unwrap();
    assert_eq!(chunk.column_index_offset(), None);
    match chunk.statistics(&file.footer_buf).unwrap().unwrap() {
        Statistics::Binary(of) => of.serialize(),
        Statistics::Boolean(of) => of.serialize(),
        Statistics::FixedLen(of) => of.serialize(),
        Statistics::Int32(of) => of.serialize(),
        Statistics::Int64(of) => of.serialize(),
        Statistics::Int96(of) => of.serialize(),
        Statistics::Float(of) => of.serialize(),
        Statistics::Double(of) => of.serialize(),
    }
}

fn bounds(min: impl AsRef<[u8]>, max: impl AsRef<[u8]>) -> [Option<Vec<u8>>; 2] {
    [Some(min.as_ref().to_vec()), Some(max.as_ref().to_vec())]
}

/// Least value, greatest value and number of nulls of each column; NaN beside others, alone, and
/// in a column with nulls.
#[test]
fn statistics_bound_every_value_and_columns_with_nan_have_no_bounds() {
    let (big, huge) = (u32::MAX - 1, u64::MAX - 1);
    let columns = vec![
        Column::new("u32".into(), [7, big, 0]),
        Column::new("u64".into(), [7, huge, 1 << 63]),
        Column::new("i64".into(), [i64::MIN, 0, 5]),
        Column::new("f32".into(), [7.0_f32, f32::NAN, 1.0]),
        Column::new("f64".into(), [f64::NAN; 3]),
        Column::new("nulls".into(), [None, Some(f64::NAN), None]),
        Column::new("zeros".into(), [-0.0_f64, 0.0, -0.0]),
        Column::new("infinite".into(), [f64::INFINITY, f64::NEG_INFINITY, 1.0]),
        Column::new("none".into(), [None::<f64>; 3]),
        Column::new("some".into(), [Some(2.5_f32), None, Some(-2.5)]),
        Column::new("text".into(), ["", "z", "a"]),
        Column::new("bytes".into(), [&b"\x00"[..], b"\xff", b"\x80"]),
        Column::new("bool".into(), [true, false, true]),
    ];
    let file = metadata(&written(&DataFrame::new(3, columns).unwrap()));
    let unknown = || [None, None];
    let expected = [
        ("u32", bounds(0_u32.to_le_bytes(), big.to_le_bytes()), 0),
        ("u64", bounds(7_u64.to_le_bytes(), huge.to_le_bytes()), 0),
        ("i64", bounds(i64::MIN.to_le_bytes(), 5_i64.to_le_bytes()), 0),
        ("f32", unknown(), 0),
        ("f64", unknown(), 0),
        ("nulls", unknown(), 2),
        // The format wants -0.0 as the least and 0.0 as the greatest zero.
        ("zeros", bounds((-0.0_f64).to_le_bytes(), 0.0_f64.to_le_bytes()), 0),
        ("infinite", bounds(f64::NEG_INFINITY.to_le_bytes(), f64::INFINITY.to_le_bytes()), 0),
        ("none", unknown(), 3),
        ("some", bounds((-2.5_f32).to_le_bytes(), 2.5_f32.to_le_bytes()), 1),
        ("text", bounds("", "z"), 0),
        ("bytes", bounds(b"\x00", b"\xff"), 0),
        ("bool", bounds([0], [1]), 0),
    ];
    for (column, [min, max], nulls) in expected {
        let found = statistics(&file, 0, column);
        assert_eq!((found.min_value, found.max_value), (min, max), "{column}");
        assert_eq!(found.null_count, Some(nulls), "{column}");
    }
}

/// Several pages of unsigned numbers were combined as signed ones, and each of several pages with
/// a dictionary counted all nulls.
#[test]
fn row_groups_of_full_size_have_the_bounds_and_nulls_of_their_rows() {
    let rows = FILE_ROWS + 3;
    // The least value is at the end, the greatest in the middle.
    let wide = |row: usize| match row {
        _ if row == FILE_ROWS / 2 => u64::MAX,
        _ => (1 << 63) - row as u64,
    };
    let few = |row: usize| (!row.is_multiple_of(4)).then_some(row as u64 % 5);
    let columns = vec![
        Column::new("wide".into(), (0..rows).map(wide).collect::<Vec<_>>()),
        Column::new(
            "half".into(),
            (0..rows).map(|row| (wide(row) >> 32) as u32).collect::<Vec<_>>(),
        ),
        Column::new("few".into(), (0..rows).map(few).collect::<Vec<_>>()),
    ];
    let file = metadata(&written(&DataFrame::new(rows, columns).unwrap()));
    let heights: Vec<usize> = file.row_groups.iter().map(|group| group.num_rows()).collect();
    assert_eq!(heights, [FILE_ROWS, 3]);
    for (group, from) in [(0, 0), (1, FILE_ROWS)] {
        let own = from..rows.min(from + FILE_ROWS);
        let least = own.clone().map(wide).min().unwrap();
        let greatest = own.clone().map(wide).max().unwrap();
        let found = statistics(&file, group, "wide");
        let expected = bounds(least.to_le_bytes(), greatest.to_le_bytes());
        assert_eq!([found.min_value, found.max_value], expected, "{group}");
        let half = |number: u64| ((number >> 32) as u32).to_le_bytes();
        let found = statistics(&file, group, "half");
        assert_eq!([found.min_value, found.max_value], bounds(half(least), half(greatest)));
        let nulls = own.filter(|row| few(*row).is_none()).count() as i64;
        assert_eq!(statistics(&file, group, "few").null_count, Some(nulls), "{group}");
    }
}

#[test]
fn texts_are_declared_with_the_layout_that_every_reader_knows() {
    let columns = vec![Column::new("t".into(), ["a"]), Column::new("b".into(), [&b"b"[..]])];
    let frame = DataFrame::new(1, columns).unwrap();
    let file = metadata(&written(&frame));
    let entries = file.key_value_metadata().clone().unwrap();
    let declared = entries.iter().find(|entry| entry.key == "ARROW:schema").unwrap();
    let schema = |level| -> ArrowSchema {
        frame.columns().iter().map(|column| column.field().to_arrow(level)).collect()
    };
    assert_eq!(declared.value, schema_to_metadata_key(&schema(CompatLevel::oldest())).value);
    assert_ne!(declared.value, schema_to_metadata_key(&schema(CompatLevel::newest())).value);
    assert!(entries.iter().any(|entry| entry.key == "own"), "{entries:?}");
}
