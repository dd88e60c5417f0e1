//! The first records of a file as a schema decodes them, and whether the file is made of such
//! records at all: what `ringest schema check --sample` prints. The caller reads the file.

use super::columns::{Align, write_columns};
use crate::client::verify::tally::{ExactNumber, read_number, read_text};
use crate::config::Config;
use crate::config::limits::SAMPLE_RECORDS;
use crate::wire::records::packets::{PacketParser, RecordForm, RunList, Stop, StreamCut};
use crate::wire::schema::{End, Field, Kind, Schema};
use crate::wire::text::counted;
use std::fmt;

/// Runs of records that are parsed at a time.
const RUNS: usize = 64;
/// Records that are parsed at a time.
const PASS_RECORDS: usize = 1 << 16;
/// Widest cell of the table.
const CELL_CHARACTERS: usize = 24;

/// What a file holds according to a schema.
pub(crate) struct RecordSample<'a> {
    schema: &'a Schema,
    bytes: u64,
    first: Vec<&'a [u8]>,
    records: u64,
    /// Why the file is not a stream of such records.
    problem: Option<String>,
    remarks: Vec<String>,
}

impl<'a> RecordSample<'a> {
    /// Judges `sample`, the beginning of a file of `file_bytes` bytes.
    pub(crate) fn of(schema: &'a Schema, sample: &'a [u8], file_bytes: u64) -> Self {
        let bytes = file_bytes;
        let (first, remarks) = (Vec::new(), Vec::new());
        let mut found = RecordSample { schema, bytes, first, records: 0, problem: None, remarks };
        let form = RecordForm::of(schema);
        let mut parser = PacketParser::new(form, Config::default().packet_bytes_limit);
        let mut runs = RunList::with_limit(RUNS);
        let mut at = 0;
        let stop = loop {
            let pass = parser.parse(sample, at, PASS_RECORDS, &mut runs);
            at += pass.bytes;
            for run in runs.runs() {
                found.records += run.records as u64;
                let records = run.bytes(sample, form.record_bytes).chunks(form.record_bytes);
                found.first.extend(records.take(SAMPLE_RECORDS - found.first.len()));
            }
            if pass.stop != Stop::RunsFull {
                break pass.stop;
            }
        };
        let rest = sample.len() - at;
        let is_whole = sample.len() as u64 == file_bytes;
        let cut = parser.cut(rest, file_bytes > 0);
        found.judge(stop, at, rest, cut.filter(|_| is_whole));
        if !is_whole {
            found.remarks.push(format!("only the first {} bytes were looked at", sample.len()));
        }
        found.look_at_gaps();
        found
    }

    /// Whether the file is a stream of such records.
    pub(crate) fn fits(&self) -> bool {
        self.problem.is_none()
    }

    fn judge(&mut self, stop: Stop, at: usize, rest: usize, cut: Option<StreamCut>) {
        let (records, record_bytes) = (self.records, self.schema.record_bytes());
        let other_size = "the sender's record has another size, or the file is cut off";
        let is_bare = RecordForm::of(self.schema).is_bare();
        self.problem = match (stop, cut) {
            (Stop::Refused(violation), _) => Some(format!(
                "byte {at}: {violation}; compare the record's size with that of the sender, and \
                 [packet] with its lengths"
            )),
            (Stop::End, _) if is_bare && !rest.is_multiple_of(record_bytes) => Some(format!(
                "{} left after the end record, no whole number of records of {}: {other_size}",
                counted(rest, "byte"),
                counted(record_bytes, "byte")
            )),
            (Stop::End, _) => {
                let after = format!("ignores {} after the end record", counted(rest, "byte"));
                self.remarks.extend((rest > 0).then_some(after));
                None
            }
            (_, Some(StreamCut::BeforeData)) => Some("the file is empty".to_owned()),
            (_, Some(StreamCut::InHeader)) => {
                let left = counted(rest, "byte");
                Some(format!("{left} left over at the end, less than a length: {other_size}"))
            }
            (_, Some(StreamCut::InPacket)) => {
                Some(format!("the last packet is not whole: {other_size}"))
            }
            (_, Some(StreamCut::InRecord)) => Some(format!(
                "{} make {} of {} and {} more: {other_size}",
                counted(self.bytes, "byte"),
                counted(records, "record"),
                counted(record_bytes, "byte"),
                counted(rest, "byte")
            )),
            (_, Some(StreamCut::BetweenPackets) | None) => None,
        };
        if cut == Some(StreamCut::BetweenPackets) && self.schema.framing().end == End::ZeroRecord {
            self.remarks.push("no end record: as a stream this would be incomplete".to_owned());
        }
    }

    /// Notes gaps with other bytes than zero, as they are where a field is missing before them.
    fn look_at_gaps(&mut self) {
        let is_gap = |field: &&Field| matches!(field.kind, Kind::Skip { .. });
        let gaps: Vec<&Field> = self.schema.fields().iter().filter(is_gap).collect();
        let is_used = |record: &&&[u8]| {
            gaps.iter().any(|gap| bytes_of(gap, record).iter().any(|&byte| byte != 0))
        };
        let used = self.first.iter().filter(is_used).count();
        if used > 0 {
            self.remarks.push(format!(
                "skipped bytes are not zero in {used} of {} shown; gaps that a compiler makes \
                 mostly are, so compare the offsets with `offsetof`",
                counted(self.first.len(), "record")
            ));
        }
    }

    fn rows(&self) -> Vec<[String; 3 + SAMPLE_RECORDS]> {
        let row = |field: &Field| {
            let name = if field.name.is_empty() { "-" } else { &field.name };
            std::array::from_fn(|column| match column {
                0 => name.to_owned(),
                1 => field.kind.name().to_owned(),
                2 => field.offset.to_string(),
                _ => match self.first.get(column - 3) {
                    Some(record) => self.cell(field, record),
                    None => String::new(),
                },
            })
        };
        self.schema.fields().iter().map(row).collect()
    }

    fn cell(&self, field: &Field, record: &[u8]) -> String {
        let cell = match field.kind {
            Kind::Text { .. } => format!("\"{}\"", read_text(field, record)),
            Kind::Bytes { .. } => read_text(field, record),
            Kind::Skip { .. } => {
                bytes_of(field, record).iter().map(|byte| format!("{byte:02x}")).collect()
            }
            kind => match (kind, read_number(field, self.schema.endian(), record)) {
                (Kind::Bool, ExactNumber::Integer(number)) => (number != 0).to_string(),
                (Kind::F32, ExactNumber::Float(number)) => format!("{:?}", number as f32),
                (_, ExactNumber::Float(number)) => format!("{number:?}"),
                (_, ExactNumber::Integer(number)) => number.to_string(),
            },
        };
        if cell.chars().count() <= CELL_CHARACTERS {
            return cell;
        }
        cell.chars().take(CELL_CHARACTERS - 3).chain("...".chars()).collect()
    }
}

fn bytes_of<'a>(field: &Field, record: &'a [u8]) -> &'a [u8] {
    &record[field.offset..field.offset + field.kind.width()]
}

impl fmt::Display for RecordSample<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, records) = (counted(self.bytes, "byte"), counted(self.records, "record"));
        writeln!(out, "sample: {bytes}, {records}")?;
        writeln!(out)?;
        let names: [String; SAMPLE_RECORDS] = std::array::from_fn(|i| match i < self.first.len() {
            true => format!("record {}", i + 1),
            false => String::new(),
        });
        let headings = std::array::from_fn(|column| match column {
            0 => ("field", Align::Left),
            1 => ("type", Align::Left),
            2 => ("offset", Align::Right),
            _ => (names[column - 3].as_str(), Align::Left),
        });
        write_columns(out, headings, &self.rows())?;
        let lines = self.remarks.iter().map(|remark| ("note", remark));
        for (kind, line) in self.problem.iter().map(|problem| ("wrong", problem)).chain(lines) {
            writeln!(out)?;
            writeln!(out, "{kind}: {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packed description of the struct of docs/reference/schema.md, without its gaps.
    const PACKED: &str = "endian='little'\npacket={length='none', end='close'}\n\
        field=[{name='station', type='u16'}, {name='energy_wh', type='u64'}, \
        {name='power_w', type='f32'}, {name='online', type='bool'}, \
        {name='site', type='text', bytes=16}]\nresult.by=['site']";
    const WITH_GAPS: &str = "endian='little'\npacket={length='none', end='close'}\n\
        field=[{name='station', type='u16'}, {type='skip', bytes=6}, \
        {name='energy_wh', type='u64'}, \
        {name='power_w', type='f32'}, {name='online', type='bool'}, \
        {name='site', type='text', bytes=16}, {type='skip', bytes=3}]\nresult.by=['site']";

    /// That struct, as a compiler lays it out.
    fn structs(count: u16) -> Vec<u8> {
        let one = |number: u16| {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(8, 0);
            bytes.extend(120_500_u64.to_le_bytes());
            bytes.extend(2.5_f32.to_le_bytes());
            bytes.push(1);
            bytes.extend(b"Z\xc3\xbcrich\x1b\0\0\0\0\0\0\0\0");
            bytes.resize(40, 0);
            bytes
        };
        (0..count).flat_map(one).collect()
    }

    fn sample(schema: &str, bytes: &[u8]) -> (bool, String) {
        let schema =
            Schema::from_toml(schema).unwrap_or_else(|error| panic!("{}", error.in_file("")));
        let sample = RecordSample::of(&schema, bytes, bytes.len() as u64);
        (sample.fits(), sample.to_string())
    }

    #[test]
    fn records_are_shown_as_they_are_decoded() {
        let expected = r#"sample: 80 bytes, 2 records

field      type  offset  record 1      record 2
station    u16        0  0             1
-          skip       2  000000000000  000000000000
energy_wh  u64        8  120500        120500
power_w    f32       16  2.5           2.5
online     bool      20  true          true
site       text      21  "Zürich\x1b"  "Zürich\x1b"
-          skip      37  000000        000000
"#;
        assert_eq!(sample(WITH_GAPS, &structs(2)), (true, expected.to_owned()));
    }

    /// 31 structs of 40 bytes are 40 records of 31 bytes, which no count can tell.
    #[test]
    fn forgotten_gaps_are_seen_in_the_values_or_in_the_size() {
        let (fits, shown) = sample(PACKED, &structs(31));
        assert!(fits && shown.starts_with("sample: 1240 bytes, 40 records\n"), "{shown}");
        // The second record begins at byte 31: 9 bytes early.
        let energy = shown.lines().find(|line| line.starts_with("energy_wh")).unwrap();
        assert!(energy.contains(&(120_500_u64 << 48).to_string()), "{shown}");
        let (fits, shown) = sample(PACKED, &structs(30));
        assert!(!fits);
        let said = "wrong: 1200 bytes make 38 records of 31 bytes and 22 bytes more: the sender's";
        assert!(shown.contains(said), "{shown}");
        // A gap too few at the end only.
        let short = WITH_GAPS.replace(", {type='skip', bytes=3}]", "]");
        let (_, shown) = sample(&short, &structs(4));
        assert!(
            shown.contains("note: skipped bytes are not zero in 2 of 4 records shown"),
            "{shown}"
        );
    }

    #[test]
    fn packets_and_ends_are_judged() {
        let of = |packet: &str| {
            format!(
                "endian='big'\npacket={{{packet}}}\nfield=[{{name='A', type='u16'}}]\n\
                 result.by=['A']"
            )
        };
        let cases: [(&str, &[u8], bool, &str); 10] = [
            ("", b"\0\0\0\x08\0\x01\0\0", true, "sample: 8 bytes, 1 record\n"),
            ("", b"\0\0\0\x08\0\x01\0\x02", true, "note: no end record: as a stream"),
            ("", b"\0\0\0\x06\0\0abc", true, "note: ignores 3 bytes after the end record"),
            ("", b"\0\0\0\x06\0\x01\x09\0\0\0\0\x01", false, "wrong: byte 6: packet length 150"),
            ("", b"\0\0\0\x06\0\x01\0\0", false, "wrong: 2 bytes left over at the end, less"),
            ("", b"\0\0\0\x08\0\x01", false, "wrong: the last packet is not whole"),
            ("", b"", false, "wrong: the file is empty"),
            ("length='none'", b"\0\x01\0\0\0\0", true, "note: ignores 2 bytes after the end"),
            (
                "length='none'",
                b"\0\x01\0\0\0",
                false,
                "wrong: 1 byte left after the end record, no",
            ),
            (
                "length='none', end='close'",
                b"\0\x01\0",
                false,
                "3 bytes make 1 record of 2 bytes and 1 byte more",
            ),
        ];
        for (packet, bytes, fits, said) in cases {
            let (found, shown) = sample(&of(packet), bytes);
            assert!(found == fits && shown.contains(said), "{packet}, {bytes:?}: {shown}");
        }
    }
}
