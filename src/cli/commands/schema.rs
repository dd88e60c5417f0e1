//! `ringest schema`: describes a schema, shows records as it decodes them, or prints it as TOML.

use crate::cli::args::environment::complain;
use crate::cli::args::schema::{SchemaAction, SchemaCheckOptions, SchemaCommandOptions};
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::output::columns::{Align, write_columns};
use crate::cli::output::record_sample::RecordSample;
use crate::cli::terminal::status_line::say;
use crate::config::limits::{SAMPLE_BYTES_MAX, TEXT_OVERHEAD_BYTES};
use crate::engine::groups::plan::Plan;
use crate::wire::schema::columns::NamedType;
use crate::wire::schema::toml::DEFAULT_TOML;
use crate::wire::schema::words::{ENCODINGS, ENDIANS, word_of};
use crate::wire::schema::{Aggregate, End, Field, Framing, Kind, Length, Schema};
use crate::wire::text::{TextEncoding, counted};
use bytesize::ByteSize;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &SchemaCommandOptions) -> u8 {
    match action(&options.action) {
        Ok(code) => code,
        Err(error) => {
            complain(error);
            EXIT_USAGE
        }
    }
}

fn action(action: &SchemaAction) -> Result<u8, String> {
    match action {
        SchemaAction::Show(chosen) => {
            let schema = chosen.load()?;
            let is_built_in = schema == Schema::built_in();
            Ok(print(&if is_built_in { DEFAULT_TOML.to_owned() } else { schema.to_toml() }))
        }
        SchemaAction::Check(SchemaCheckOptions { chosen, sample: None }) => {
            let schema = chosen.load()?;
            Ok(print(&Description(&schema).to_string()))
        }
        SchemaAction::Check(SchemaCheckOptions { chosen, sample: Some(path) }) => {
            let schema = chosen.load()?;
            let (bytes, file_bytes) = read_sample(path)?;
            let sample = RecordSample::of(&schema, &bytes, file_bytes);
            match print(&format!("{}\n{sample}", Description(&schema))) {
                EXIT_OK if !sample.fits() => Ok(EXIT_FAILED),
                code => Ok(code),
            }
        }
    }
}

/// Writes to stdout; returns the exit code.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            say(format_args!("cannot write to stdout: {error}"));
            EXIT_FAILED
        }
    }
}

/// The beginning of a file, and the size of all of it as far as that can be told.
fn read_sample(path: &Path) -> Result<(Vec<u8>, u64), String> {
    let cannot = |error| format!("cannot read --sample {}: {error}", path.display());
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(SAMPLE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let length = if path == Path::new("-") {
        read(&mut io::stdin().lock()).map_err(cannot)?;
        0
    } else {
        let mut file = File::open(path).map_err(cannot)?;
        read(&mut file).map_err(cannot)?;
        file.metadata().map_err(cannot)?.len()
    };
    let read = bytes.len() as u64;
    bytes.truncate(SAMPLE_BYTES_MAX as usize);
    Ok((bytes, read.max(length)))
}

/// The description of a schema, for people.
struct Description<'a>(&'a Schema);

impl fmt::Display for Description<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.0;
        writeln!(
            out,
            "schema {}: records of {}, {}-endian",
            schema.name(),
            counted(schema.record_bytes(), "byte"),
            word_of(&ENDIANS, &schema.endian())
        )?;
        writeln!(out)?;
        write_columns(
            out,
            [
                ("field", Align::Left),
                ("type", Align::Left),
                ("offset", Align::Right),
                ("bytes", Align::Right),
                ("role", Align::Left),
            ],
            &field_rows(schema),
        )?;
        writeln!(out)?;
        writeln!(out, "packet: {}", packet(schema))?;
        writeln!(out, "end of stream: {}", end(schema))?;
        writeln!(out)?;
        write_columns(out, two_columns("result"), &column_rows(schema.columns()))?;
        writeln!(out)?;
        write_columns(out, two_columns("partials"), &column_rows(schema.partial_columns()))?;
        writeln!(out)?;
        let memory = group_memory(schema);
        let million = |bytes: usize| ByteSize(bytes as u64 * 1_000_000).display().si();
        writeln!(
            out,
            "memory of a million groups: {} while receiving, {} at worst{}",
            million(memory.typical),
            million(memory.worst),
            if schema.keys().any(|key| key.kind.is_text()) {
                format!(
                    " (with texts of {TYPICAL_TEXT_BYTES} bytes; at worst every group has new \
                     texts that fill their fields)"
                )
            } else {
                String::new()
            }
        )
    }
}

/// Headings of a list of columns with their types.
fn two_columns(name: &str) -> [(&str, Align); 2] {
    [(name, Align::Left), ("type", Align::Left)]
}

fn field_rows(schema: &Schema) -> Vec<[String; 5]> {
    let row = |(index, field): (usize, &Field)| {
        let name = if field.name.is_empty() { "-" } else { &field.name };
        [
            name.to_owned(),
            type_of(field),
            field.offset.to_string(),
            field.kind.width().to_string(),
            role(schema, index, field),
        ]
    };
    schema.fields().iter().enumerate().map(row).collect()
}

/// The type of a field, with the encoding if it is a text of another than UTF-8.
fn type_of(field: &Field) -> String {
    match field.encoding {
        TextEncoding::Utf8 => field.kind.name().to_owned(),
        encoding => format!("{}, {}", field.kind.name(), word_of(&ENCODINGS, &encoding)),
    }
}

/// What a field is used for.
fn role(schema: &Schema, index: usize, field: &Field) -> String {
    if matches!(field.kind, Kind::Skip { .. }) {
        return "skipped".to_owned();
    }
    let mut roles = Vec::new();
    if let Some(place) = schema.keys().position(|key| key.offset == field.offset) {
        roles.push(format!("key {}", place + 1));
    }
    for aggregate in schema.aggregates() {
        match aggregate {
            Aggregate::Of { field, function } if *field == index => {
                roles.push(function.name().to_owned());
            }
            Aggregate::Of { .. } | Aggregate::Count => {}
        }
    }
    if roles.is_empty() { "not used".to_owned() } else { roles.join(", ") }
}

fn packet(schema: &Schema) -> String {
    let Framing { length, includes_itself, endian, .. } = schema.framing();
    let word = match length {
        Length::U32 => "u32",
        Length::U16 => "u16",
        Length::None => {
            let bytes = counted(schema.record_bytes(), "byte");
            return format!("none; records of {bytes} follow each other");
        }
    };
    let (own, record) = (length.bytes() as u64, schema.record_bytes() as u64);
    let records = (schema.packet_bytes_max() - own) / record;
    let said = |records: u64| records * record + if includes_itself { own } else { 0 };
    format!(
        "a {word} length, {}-endian, {}, then records; it is {} for 1 record and at most {} for \
         {records}{}",
        word_of(&ENDIANS, &endian),
        if includes_itself { "counting itself" } else { "not counting itself" },
        said(1),
        said(records),
        if length == Length::U32 { ", if --packet-bytes-limit allows" } else { "" }
    )
}

fn end(schema: &Schema) -> String {
    match schema.framing().end {
        End::ZeroRecord => {
            format!("a record of {}", counted(schema.record_bytes(), "zero byte"))
        }
        End::Close if schema.framing().length == Length::None => {
            "the sender closes after a whole record".to_owned()
        }
        End::Close => "the sender closes after a whole packet".to_owned(),
    }
}

/// Names and types of columns.
fn column_rows(columns: Vec<NamedType>) -> Vec<[String; 2]> {
    columns.into_iter().map(|(name, of)| [name, of.name().to_owned()]).collect()
}

/// Bytes of memory that one group takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GroupMemory {
    /// While its stream is received, with texts of a typical length.
    typical: usize,
    /// At the peak, while the result is built, with texts that fill their fields.
    worst: usize,
}

/// A typical length of a text.
const TYPICAL_TEXT_BYTES: usize = 16;

/// The memory of a group, as `Config::memory` counts it. The typical value assumes a table as full
/// as tables usually are.
fn group_memory(schema: &Schema) -> GroupMemory {
    let sizes = Plan::new(Arc::new(schema.clone())).sizes();
    let texts = schema.keys().map(|key| key.kind).filter(|kind| kind.is_text());
    let texts = texts.map(|kind| TEXT_OVERHEAD_BYTES + kind.width().min(TYPICAL_TEXT_BYTES));
    GroupMemory {
        typical: sizes.slot_bytes * 22 / 10 + texts.sum::<usize>(),
        worst: sizes.folded_group_bytes() + sizes.group_text_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::TEXT_COPIES;

    const METER: &str = "name = 'meter'\nendian = 'little'\n[packet]\nlength = 'u16'\n\
        length_includes_itself = false\nend = 'close'\n\
        [[field]]\nname = 'station'\ntype = 'u16'\n\
        [[field]]\ntype = 'skip'\nbytes = 6\n\
        [[field]]\nname = 'energy'\ntype = 'u64'\n\
        [[field]]\nname = 'power'\ntype = 'f32'\n\
        [[field]]\nname = 'ok'\ntype = 'bool'\n\
        [[field]]\nname = 'spare'\ntype = 'bytes'\nbytes = 3\n\
        [result]\nby = ['station', 'ok']\n\
        aggregates = ['energy:sum', 'power:max', 'power:std', 'ok:sum']\n";

    fn describe(text: &str) -> String {
        let schema =
            Schema::from_toml(text).unwrap_or_else(|error| panic!("{}", error.in_file("")));
        Description(&schema).to_string()
    }

    #[test]
    fn a_schema_is_described() {
        let expected = "\
schema meter: records of 24 bytes, little-endian

field    type   offset  bytes  role
station  u16         0      2  key 1
-        skip        2      6  skipped
energy   u64         8      8  sum
power    f32        16      4  max, std
ok       bool       20      1  key 2, sum
spare    bytes      21      3  not used

packet: a u16 length, little-endian, not counting itself, then records; it is 24 for 1 record and \
at most 65520 for 2730
end of stream: the sender closes after a whole packet

result      type
station     u16
ok          bool
energy_sum  u64
power_max   f32
power_std   f64
ok_sum      u64
count       u64

partials        type
node            text
connection      text
batch           u32
time_us         i64
station         u16
ok              bool
count           u64
sum_energy      u64
sum_low_energy  u64
max_power       f32
mean_power      f64
rest_power      f64
m2_power        f64
sum_ok          u64

memory of a million groups: 211.0 MB while receiving, 812.0 MB at worst
";
        assert_eq!(describe(METER), expected);
    }

    #[test]
    fn framings_are_described() {
        let of = |packet: &str| {
            let text = "field = [{ name = 'A', type = 'u8' }]\nresult.by = ['A']";
            describe(&format!("packet = {{ {packet} }}\n{text}"))
        };
        let bare = of("length = 'none', end = 'close'");
        assert!(bare.contains("packet: none; records of 1 byte follow each other\n"), "{bare}");
        assert!(bare.contains("end of stream: the sender closes after a whole record\n"), "{bare}");
        let largest = of("");
        let said = "it is 5 for 1 record and at most 4294967295 for 4294967291, if --packet-bytes";
        assert!(largest.contains(said), "{largest}");
        assert!(largest.contains("end of stream: a record of 1 zero byte\n"), "{largest}");
        let said = "it is 3 for 1 record and at most 65535 for 65533\n";
        assert!(of("length = 'u16'").contains(said), "{}", of("length = 'u16'"));
    }

    #[test]
    fn what_a_group_costs_follows_keys_parts_and_texts() {
        // Slot: a word of keys, the count, two sums and a minimum of 1 byte, 32 bytes in all. Row:
        // the word, the count and four parts. Of the sum of floats a part may be spilled.
        let text_bytes = |bytes| TEXT_OVERHEAD_BYTES + bytes;
        let built_in = GroupMemory {
            typical: 70 + text_bytes(16),
            worst: 103 + 144 + 48 * 5 + text_bytes(256 * TEXT_COPIES),
        };
        assert_eq!(group_memory(&Schema::built_in()), built_in);
    }
}
