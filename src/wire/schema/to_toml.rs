//! Writes a schema as TOML, with field offsets in comments. Equal schemas give equal text. The
//! caller writes the file.

use super::words::{ENCODINGS, ENDIANS, ENDS, LENGTHS, word_of};
use super::{Aggregate, Field, Framing, Kind, Length, Schema};
use crate::wire::text::counted;
use crate::wire::text::{Padding, TextEncoding};
use std::fmt::{self, Write};

/// Longest list, in characters, that is written on one line.
const LINE_COLUMNS: usize = 96;

impl Schema {
    /// The schema as TOML. [`Schema::from_toml`] reads the same schema back.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_toml(&mut text);
        text
    }

    /// The first line in which this schema's TOML differs from that of another, which is the one
    /// `here`; `None` if they are equal.
    pub(crate) fn difference(&self, here: &Schema) -> Option<String> {
        let (there, here) = (self.to_toml(), here.to_toml());
        let (mut there, mut here) = (there.lines(), here.lines());
        loop {
            let (left, right) = (there.next(), here.next());
            if left.is_none() && right.is_none() {
                return None;
            }
            if left != right {
                let line = |line: Option<&str>| line.unwrap_or("the end").trim().to_owned();
                return Some(format!("there `{}`, here `{}`", line(left), line(right)));
            }
        }
    }

    fn write_toml(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "name = \"{}\"", self.name())?;
        writeln!(out, "endian = \"{}\"", word_of(&ENDIANS, &self.endian()))?;
        write_packet(self.framing(), out)?;
        writeln!(out, "\n# A record has {}.", counted(self.record_bytes(), "byte"))?;
        for field in self.fields() {
            write_field(field, out)?;
        }
        writeln!(out, "[result]")?;
        write_list("by", self.keys().map(|key| key.name.clone()), out)?;
        let aggregates = self.aggregates().iter().map(|&aggregate| match aggregate {
            Aggregate::Count => "count".to_owned(),
            Aggregate::Of { field, function } => {
                format!("{}:{}", self.fields()[field].name, function.name())
            }
        });
        write_list("aggregates", aggregates, out)
    }
}

fn write_packet(framing: Framing, out: &mut String) -> fmt::Result {
    let Framing { length, includes_itself, endian, end } = framing;
    writeln!(out, "\n[packet]\nlength = \"{}\"", word_of(&LENGTHS, &length))?;
    if length != Length::None {
        writeln!(out, "length_includes_itself = {includes_itself}")?;
        writeln!(out, "length_endian = \"{}\"", word_of(&ENDIANS, &endian))?;
    }
    writeln!(out, "end = \"{}\"", word_of(&ENDS, &end))
}

fn write_field(field: &Field, out: &mut String) -> fmt::Result {
    let (first, last) = (field.offset, field.offset + field.kind.width() - 1);
    match last - first {
        0 => writeln!(out, "[[field]] # byte {first}")?,
        _ => writeln!(out, "[[field]] # bytes {first} to {last}")?,
    }
    if !field.name.is_empty() {
        writeln!(out, "name = \"{}\"", field.name)?;
    }
    writeln!(out, "type = \"{}\"", field.kind.name())?;
    if let Kind::Text { bytes, .. } | Kind::Bytes { bytes } | Kind::Skip { bytes } = field.kind {
        writeln!(out, "bytes = {bytes}")?;
    }
    if let Kind::Text { padding, .. } = field.kind {
        let words = match padding {
            Padding { nul: true, space: true } => "\"nul\", \"space\"",
            Padding { nul: true, space: false } => "\"nul\"",
            Padding { nul: false, space: true } => "\"space\"",
            Padding { nul: false, space: false } => "",
        };
        writeln!(out, "padding = [{words}]")?;
        if field.encoding != TextEncoding::default() {
            writeln!(out, "encoding = \"{}\"", word_of(&ENCODINGS, &field.encoding))?;
        }
    }
    writeln!(out)
}

fn write_list(key: &str, items: impl Iterator<Item = String>, out: &mut String) -> fmt::Result {
    let quoted: Vec<String> = items.map(|item| format!("\"{item}\"")).collect();
    let line = format!("{key} = [{}]", quoted.join(", "));
    if line.len() <= LINE_COLUMNS {
        return writeln!(out, "{line}");
    }
    writeln!(out, "{key} = [")?;
    for item in quoted {
        writeln!(out, "    {item},")?;
    }
    writeln!(out, "]")
}
