//! Writes results with every type in every format and checks them: CSV and ndjson as text, Parquet
//! and Arrow read back by Polars. `.ci/outputs.sh` reads those with another program.

use super::*;
use crate::wire::schema::{Aggregate, Endian, Framing, Function, Kind, Schema};
use crate::wire::text::Padding;
use polars::prelude::Column;
use polars_io::SerReader;
use polars_io::ipc::IpcReader;
use polars_io::parquet::read::ParquetReader;
use std::io::Cursor;

/// A result with text, bytes and bool as keys, and with extremes, NaN and nulls.
pub(crate) fn of_every_type() -> Grouped {
    let text = Kind::Text { bytes: 8, padding: Padding::BOTH };
    let fields = [
        ("T", text),
        ("R", Kind::Bytes { bytes: 3 }),
        ("O", Kind::Bool),
        ("U", Kind::U64),
        ("I", Kind::I8),
        ("F", Kind::F32),
        ("P", Kind::U16),
    ];
    let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).into();
    let of = |field, function| Aggregate::Of { field, function };
    let aggregates = vec![
        of(3, Function::Sum),
        of(4, Function::Min),
        of(5, Function::First),
        of(5, Function::Var),
        of(6, Function::Max),
    ];
    let (name, framing) = ("all-types".to_owned(), Framing::default());
    let schema = Schema::new(name, Endian::Big, framing, fields, vec![0, 1, 2], aggregates);
    let columns: Vec<Column> = vec![
        Column::new("T".into(), ["", "a,\"b\\\\", "x\\x1b"]),
        Column::new("R".into(), [&[0_u8, 1, 0xFF][..], b"abc", b"   "]),
        Column::new("O".into(), [false, true, true]),
        Column::new("U_sum".into(), [Some(u64::MAX), None, Some(0)]),
        Column::new("I_min".into(), [-128_i8, 0, 127]),
        Column::new("F_first".into(), [0.1_f32, f32::NAN, -0.0]),
        Column::new("F_var".into(), [None, Some(f64::INFINITY), Some(f64::NEG_INFINITY)]),
        Column::new("P_max".into(), [0_u16, 7, 65_535]),
        Column::new("count".into(), [1_u64, 2, 3]),
    ];
    let frame = DataFrame::new_infer_height(columns).unwrap();
    Grouped::new(Arc::new(schema.unwrap()), frame)
}

fn written(grouped: &Grouped, format: FileFormat) -> Vec<u8> {
    let mut out = Vec::new();
    grouped.write_to(format, &mut out, &metadata()).unwrap();
    out
}

fn metadata() -> [(String, String); 1] {
    [("ringest.peer".to_owned(), "[::1]:9".to_owned())]
}

fn text(grouped: &Grouped, format: FileFormat) -> String {
    String::from_utf8(written(grouped, format)).unwrap()
}

#[test]
fn csv_has_names_then_groups() {
    let expected = "\
T,R,O,U_sum,I_min,F_first,F_var,P_max,count
,0001ff,false,18446744073709551615,-128,0.10000000149011612,,0,1
\"a,\"\"b\\\\\",616263,true,,0,NaN,inf,7,2
x\\x1b,202020,true,0,127,-0.0,-inf,65535,3
";
    assert_eq!(text(&of_every_type(), FileFormat::Csv), expected);
}

#[test]
fn ndjson_has_one_group_per_line() {
    let expected = concat!(
        r#"{"T":"","R":"0001ff","O":false,"U_sum":18446744073709551615,"I_min":-128,"#,
        r#""F_first":0.10000000149011612,"F_var":null,"P_max":0,"count":1}"#,
        "\n",
        r#"{"T":"a,\"b\\\\","R":"616263","O":true,"U_sum":null,"I_min":0,"#,
        r#""F_first":"NaN","F_var":"inf","P_max":7,"count":2}"#,
        "\n",
        r#"{"T":"x\\x1b","R":"202020","O":true,"U_sum":0,"I_min":127,"#,
        r#""F_first":-0.0,"F_var":"-inf","P_max":65535,"count":3}"#,
        "\n",
    );
    assert_eq!(text(&of_every_type(), FileFormat::Ndjson), expected);
}

fn read_back(format: FileFormat, bytes: Vec<u8>) -> DataFrame {
    let bytes = Cursor::new(bytes);
    match format {
        FileFormat::Parquet => ParquetReader::new(bytes).finish().unwrap(),
        _ => IpcReader::new(bytes).finish().unwrap(),
    }
}

#[test]
fn parquet_and_arrow_hold_the_frame() {
    let grouped = of_every_type();
    for format in [FileFormat::Parquet, FileFormat::Arrow] {
        let bytes = written(&grouped, format);
        let named = bytes.windows(12).any(|window| window == b"ringest.peer");
        assert!(named, "{format:?} has its metadata");
        let read = read_back(format, bytes);
        assert!(read.equals_missing(grouped.frame()), "{format:?}: {read:?}");
        assert_eq!(read.schema(), grouped.frame().schema(), "{format:?}");
    }
}

#[test]
fn a_result_without_a_group_has_its_columns() {
    let grouped = Grouped::empty(Arc::clone(of_every_type().schema()));
    let header = "T,R,O,U_sum,I_min,F_first,F_var,P_max,count\n";
    assert_eq!(text(&grouped, FileFormat::Csv), header);
    assert_eq!(text(&grouped, FileFormat::Ndjson), "");
    for format in [FileFormat::Parquet, FileFormat::Arrow] {
        let read = read_back(format, written(&grouped, format));
        assert_eq!(
            (read.height(), read.schema()),
            (0, of_every_type().frame().schema()),
            "{format:?}"
        );
    }
}

/// More rows than one batch holds.
#[test]
fn rows_keep_their_order_across_batches() {
    let rows = 2 * FILE_ROWS as u64 + 1;
    let name = "many".to_owned();
    let fields = vec![("K".to_owned(), Kind::U64)];
    let schema =
        Schema::new(name, Endian::Big, Framing::default(), fields, vec![0], vec![]).unwrap();
    let columns = vec![
        Column::new("K".into(), (0..rows).collect::<Vec<u64>>()),
        Column::new("count".into(), vec![1_u64; rows as usize]),
    ];
    let grouped = Grouped::new(Arc::new(schema), DataFrame::new_infer_height(columns).unwrap());
    for format in [FileFormat::Parquet, FileFormat::Arrow] {
        let read = read_back(format, written(&grouped, format));
        assert!(read.equals_missing(grouped.frame()), "{format:?}");
    }
}

/// A writer that fails after this many bytes, like a full disk.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.min(bytes.len()) {
            0 => Err(io::Error::from_raw_os_error(28)),
            taken => {
                self.0 -= taken;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_gives_the_error_of_the_system() {
    for format in [FileFormat::Parquet, FileFormat::Arrow, FileFormat::Csv, FileFormat::Ndjson] {
        let whole = written(&of_every_type(), format).len();
        of_every_type().write_to(format, &mut Full(whole), &metadata()).unwrap();
        for room in [0, 1, 10, whole / 2, whole - 1] {
            let error = of_every_type().write_to(format, &mut Full(room), &metadata()).unwrap_err();
            let words = "No space left on device (os error 28)";
            assert_eq!(error.to_string(), words, "{format:?}, {room}");
        }
    }
}
