//! What the engine must make of bytes, computed the slow way: packets are cut by hand, groups are
//! kept in a map, and sums are exact. Shares no code with the engine.

use fastrand::Rng;
use ringest::internals::{Grouped, Reason, Value};
use std::collections::BTreeMap;

/// A field of a record.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    U8,
    U16,
    U32,
    I8,
    I32,
    I64,
    F32,
    F64,
    Text(usize),
    Skip(usize),
}

impl Kind {
    fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::U16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::I64 | Kind::F64 => 8,
            Kind::Text(bytes) | Kind::Skip(bytes) => bytes,
        }
    }
}

/// The length before the records of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    None,
    U16,
    U32,
}

/// A schema, as the engine reads it and as the model does.
#[derive(Debug)]
pub struct Form {
    pub toml: &'static str,
    pub fields: &'static [(&'static str, Kind)],
    pub little_endian: bool,
    pub length: Length,
    pub length_includes_itself: bool,
    /// Whether a record of zeros ends the stream; otherwise closing does.
    pub zero_record: bool,
    pub by: &'static [&'static str],
    pub aggregates: &'static [(&'static str, &'static str)],
}

/// The schemas of the world.
pub const FORMS: &[Form] = &[
    Form {
        toml: include_str!("../../src/wire/schema/default.toml"),
        fields: &[
            ("A", Kind::U32),
            ("B", Kind::U16),
            ("C", Kind::F32),
            ("D", Kind::I8),
            ("E", Kind::Text(256)),
        ],
        little_endian: false,
        length: Length::U32,
        length_includes_itself: true,
        zero_record: true,
        by: &["A", "E"],
        aggregates: &[("B", "mean"), ("C", "sum"), ("D", "min")],
    },
    Form {
        toml: "name = 'small'\nendian = 'little'\n\
               packet = { length = 'u16', length_includes_itself = false, end = 'zero-record' }\n\
               field = [{ name = 'k', type = 'u8' }, { name = 'v', type = 'i32' },\n\
               { name = 'f', type = 'f64' }]\n\
               result = { by = ['k'], aggregates = ['v:sum', 'v:min', 'v:max', 'f:mean'] }",
        fields: &[("k", Kind::U8), ("v", Kind::I32), ("f", Kind::F64)],
        little_endian: true,
        length: Length::U16,
        length_includes_itself: false,
        zero_record: true,
        by: &["k"],
        aggregates: &[("v", "sum"), ("v", "min"), ("v", "max"), ("f", "mean")],
    },
    Form {
        toml: "name = 'bare'\nendian = 'big'\npacket = { length = 'none', end = 'close' }\n\
               field = [{ name = 'k', type = 'u16' }, { type = 'skip', bytes = 3 },\n\
               { name = 'v', type = 'i64' }, { name = 't', type = 'text', bytes = 5 }]\n\
               result = { by = ['t', 'k'], aggregates = ['v:sum', 'v:max'] }",
        fields: &[("k", Kind::U16), ("", Kind::Skip(3)), ("v", Kind::I64), ("t", Kind::Text(5))],
        little_endian: false,
        length: Length::None,
        length_includes_itself: false,
        zero_record: false,
        by: &["t", "k"],
        aggregates: &[("v", "sum"), ("v", "max")],
    },
    Form {
        toml: "name = 'closing'\nendian = 'big'\n\
               packet = { length = 'u32', length_includes_itself = false, end = 'close' }\n\
               field = [{ name = 'k', type = 'u32' }, { name = 'v', type = 'f32' }]\n\
               result = { by = ['k'], aggregates = ['v:sum', 'v:mean'] }",
        fields: &[("k", Kind::U32), ("v", Kind::F32)],
        little_endian: false,
        length: Length::U32,
        length_includes_itself: false,
        zero_record: false,
        by: &["k"],
        aggregates: &[("v", "sum"), ("v", "mean")],
    },
];

/// A value of a field.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Cell {
    Integer(i128),
    Float(f64),
    Text(Vec<u8>),
    /// A sum that does not fit.
    Null,
    /// A value that the model does not know.
    Any,
}

/// Where a stream stands after some bytes.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The data records so far.
    pub records: Vec<Vec<u8>>,
    /// Whole packets; none are counted for records without packets.
    pub packets: u64,
    /// Whether the end record has come.
    pub ended: bool,
    /// Bytes after it.
    pub after_end: u64,
    /// The rule that was broken, if one was.
    pub broken: Option<Reason>,
    /// The reason if the peer closes now.
    pub if_closed: Option<Reason>,
}

impl Form {
    pub fn record_bytes(&self) -> usize {
        self.fields.iter().map(|(_, kind)| kind.width()).sum()
    }

    fn length_bytes(&self) -> usize {
        match self.length {
            Length::None => 0,
            Length::U16 => 2,
            Length::U32 => 4,
        }
    }

    /// A record with values from small ranges, so that there are few groups.
    pub fn record(&self, rng: &mut Rng) -> Vec<u8> {
        let mut record = Vec::new();
        for (_, kind) in self.fields {
            let integer = rng.u8(1..=7);
            let bytes = match kind {
                Kind::U8 | Kind::I8 => vec![integer],
                Kind::U16 => u16::from(integer).to_be_bytes().to_vec(),
                Kind::U32 => u32::from(integer).to_be_bytes().to_vec(),
                Kind::I32 => rng.i32(-1_000_000..1_000_000).to_be_bytes().to_vec(),
                Kind::I64 => rng.i64(-1_000_000_000..1_000_000_000).to_be_bytes().to_vec(),
                Kind::F32 => ((rng.f32() - 0.3) * 1000.0).to_be_bytes().to_vec(),
                Kind::F64 => ((rng.f64() - 0.3) * 1e6).to_be_bytes().to_vec(),
                Kind::Text(width) => {
                    let words = ["", "a", "Ab", "word", "a b"];
                    let mut text = rng.choice(words).unwrap().as_bytes().to_vec();
                    text.resize(*width, if rng.bool() { 0 } else { b' ' });
                    record.extend(text);
                    continue;
                }
                Kind::Skip(width) => {
                    record.extend((0..*width).map(|_| rng.u8(..)));
                    continue;
                }
            };
            match self.little_endian {
                true => record.extend(bytes.iter().rev()),
                false => record.extend(bytes),
            }
        }
        record
    }

    /// A record of the group with this number, of any number of groups.
    pub fn record_of_group(&self, rng: &mut Rng, number: u32) -> Vec<u8> {
        let mut record = self.record(rng);
        let mut at = 0;
        for (name, kind) in self.fields {
            let bytes = &mut record[at..at + kind.width()];
            at += kind.width();
            match kind {
                _ if !self.by.contains(name) => {}
                Kind::U32 => bytes.copy_from_slice(&number.to_be_bytes()),
                Kind::U16 => bytes.copy_from_slice(&(number as u16).to_be_bytes()),
                Kind::Text(width) => {
                    let width = *width;
                    let text = format!("{number:0>width$x}");
                    bytes.copy_from_slice(&text.as_bytes()[text.len() - width..]);
                }
                _ => panic!("{name} has too few values"),
            }
        }
        record
    }

    /// A packet of records.
    pub fn packet(&self, records: &[Vec<u8>]) -> Vec<u8> {
        let body = records.concat();
        let own = self.length_bytes();
        let length = (body.len() + if self.length_includes_itself { own } else { 0 }) as u32;
        let length = length.to_be_bytes();
        let mut packet = length[4 - own..].to_vec();
        if self.little_endian {
            packet.reverse();
        }
        packet.extend(body);
        packet
    }

    /// What ends a stream, as a packet; empty if closing does.
    pub fn end(&self) -> Vec<u8> {
        match self.zero_record {
            true => self.packet(&[vec![0; self.record_bytes()]]),
            false => Vec::new(),
        }
    }

    /// Cuts a stream into records.
    pub fn parse(&self, bytes: &[u8], packet_bytes_limit: u64) -> Parsed {
        let (own, size) = (self.length_bytes(), self.record_bytes());
        let mut parsed = Parsed {
            records: Vec::new(),
            packets: 0,
            ended: false,
            after_end: 0,
            broken: None,
            if_closed: None,
        };
        let mut rest = bytes;
        let between = if self.zero_record { Some(Reason::ClosedBeforeEnd) } else { None };
        parsed.if_closed = if bytes.is_empty() { Some(Reason::ClosedBeforeData) } else { between };
        while !rest.is_empty() {
            let mut left = if own == 0 { size } else { 0 };
            if own > 0 {
                if rest.len() < own {
                    parsed.if_closed = Some(Reason::ClosedInHeader);
                    return parsed;
                }
                let (header, body) = rest.split_at(own);
                let mut header = header.to_vec();
                if self.little_endian {
                    header.reverse();
                }
                let length = header.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
                let includes = if self.length_includes_itself { own as u64 } else { 0 };
                let whole = length + own as u64 - includes;
                parsed.broken = match length {
                    _ if length < includes + size as u64 => Some(Reason::PacketLengthBelowMinimum),
                    _ if whole > packet_bytes_limit => Some(Reason::PacketLengthAboveLimit),
                    _ if !(length - includes).is_multiple_of(size as u64) => {
                        Some(Reason::PacketLengthNotWholeRecords)
                    }
                    _ => None,
                };
                if parsed.broken.is_some() {
                    return parsed;
                }
                left = (length - includes) as usize;
                rest = body;
            }
            while left > 0 {
                if rest.len() < size {
                    let in_record = !rest.is_empty();
                    parsed.if_closed = Some(match in_record {
                        true => Reason::ClosedInRecord,
                        false => Reason::ClosedInPacket,
                    });
                    return parsed;
                }
                let (record, more) = rest.split_at(size);
                (rest, left) = (more, left - size);
                if self.zero_record && record.iter().all(|byte| *byte == 0) {
                    // The end record ends its packet, and what follows is not looked at.
                    parsed.packets += 1;
                    parsed.ended = true;
                    parsed.after_end = rest.len() as u64;
                    parsed.if_closed = None;
                    return parsed;
                }
                parsed.records.push(record.to_vec());
            }
            parsed.packets += 1;
            parsed.if_closed = between;
        }
        parsed
    }

    fn cell(&self, field: &str, record: &[u8]) -> Cell {
        let mut at = 0;
        for (name, kind) in self.fields {
            let bytes = &record[at..at + kind.width()];
            at += kind.width();
            if *name != field {
                continue;
            }
            if let Kind::Text(_) = kind {
                let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | 32));
                return Cell::Text(bytes[..end.map_or(0, |last| last + 1)].to_vec());
            }
            let mut bytes = bytes.to_vec();
            if self.little_endian {
                bytes.reverse();
            }
            let number = bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            return match kind {
                Kind::U8 | Kind::U16 | Kind::U32 => Cell::Integer(number.into()),
                Kind::I8 => Cell::Integer((number as u8 as i8).into()),
                Kind::I32 => Cell::Integer((number as u32 as i32).into()),
                Kind::I64 => Cell::Integer((number as i64).into()),
                Kind::F32 => Cell::Float(f32::from_bits(number as u32).into()),
                Kind::F64 => Cell::Float(f64::from_bits(number)),
                Kind::Text(_) | Kind::Skip(_) => unreachable!("not a number"),
            };
        }
        panic!("no field {field}");
    }

    /// Whether a sum of a group of these records does not fit into its column.
    pub fn overflows(&self, records: &[Vec<u8>]) -> bool {
        let groups = self.groups(records);
        groups.iter().any(|(_, members)| self.folded(members).contains(&Cell::Null))
    }

    fn folded(&self, members: &[&Vec<u8>]) -> Vec<Cell> {
        let fold = |(field, function): &(&str, &str)| {
            let cells = members.iter().map(|record| self.cell(field, record));
            fold(function, cells.collect())
        };
        self.aggregates.iter().map(fold).collect()
    }

    /// The groups of records, by their keys.
    fn groups<'a>(&self, records: &'a [Vec<u8>]) -> Vec<(Vec<Cell>, Vec<&'a Vec<u8>>)> {
        let key = |record: &Vec<u8>| -> Vec<Cell> {
            self.by.iter().map(|field| self.cell(field, record)).collect()
        };
        let mut groups: Vec<(Vec<Cell>, Vec<&Vec<u8>>)> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for record in records {
            let key = key(record);
            let place = *places.entry(format!("{key:?}")).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(record);
        }
        groups.sort_by(|a, b| a.0.partial_cmp(&b.0).expect("keys have an order"));
        groups
    }

    /// Compares a result with the groups of `records`.
    pub fn compare(&self, grouped: &Grouped, records: &[Vec<u8>]) -> Result<(), String> {
        let groups = self.groups(records);
        if grouped.len() != groups.len() {
            return Err(format!("{} groups instead of {}", grouped.len(), groups.len()));
        }
        // How other texts are shown, and so their order, is not the simulation's affair.
        if groups.iter().any(|(key, _)| key.iter().any(is_odd)) {
            return Ok(());
        }
        let columns = grouped.columns();
        for (row, (key, members)) in groups.iter().enumerate() {
            let mut expected = key.clone();
            expected.extend(self.folded(members));
            expected.push(Cell::Integer(members.len() as i128));
            for (column, expected) in columns.iter().zip(&expected) {
                let value = column.value(row);
                if !same(value, expected) {
                    let name = column.name();
                    return Err(format!("{name} in row {row} is {value:?}, not {expected:?}"));
                }
            }
            if columns.len() != expected.len() {
                return Err(format!("{} columns", columns.len()));
            }
        }
        Ok(())
    }
}

/// Whether a text is shown other than as it is.
fn is_odd(cell: &Cell) -> bool {
    match cell {
        Cell::Text(text) => text.iter().any(|byte| !(32..127).contains(byte) || *byte == 92),
        _ => false,
    }
}

fn fold(function: &str, cells: Vec<Cell>) -> Cell {
    let integers: Option<Vec<i128>> = cells
        .iter()
        .map(|cell| if let Cell::Integer(value) = cell { Some(*value) } else { None })
        .collect();
    let count = cells.len() as f64;
    match (function, integers) {
        ("sum", Some(integers)) => match integers.iter().sum::<i128>() {
            sum if i64::try_from(sum).is_ok() => Cell::Integer(sum),
            _ => Cell::Null,
        },
        ("min", Some(integers)) => Cell::Integer(*integers.iter().min().expect("a member")),
        ("max", Some(integers)) => Cell::Integer(*integers.iter().max().expect("a member")),
        ("mean", Some(integers)) => Cell::Float(integers.iter().sum::<i128>() as f64 / count),
        ("sum", None) => float_sum(&cells).map_or(Cell::Any, Cell::Float),
        ("mean", None) => float_sum(&cells).map_or(Cell::Any, |sum| Cell::Float(sum / count)),
        (function, _) => unreachable!("{function} is not used in these schemas"),
    }
}

/// Sums in integers; `None` for values that damage has made too large for that.
fn float_sum(cells: &[Cell]) -> Option<f64> {
    let part = |cell: &Cell| match cell {
        Cell::Float(value) => (value.abs() < 1e12).then_some((value * 2f64.powi(60)) as i128),
        other => unreachable!("{other:?} is not a float"),
    };
    let sum: Option<i128> = cells.iter().map(part).sum();
    Some(sum? as f64 / 2f64.powi(60))
}

fn same(value: Value<'_>, expected: &Cell) -> bool {
    match (value, expected) {
        (Value::Unsigned(value), Cell::Integer(expected)) => i128::from(value) == *expected,
        (Value::Signed(value), Cell::Integer(expected)) => i128::from(value) == *expected,
        (Value::Float(value), Cell::Float(expected)) => {
            (value - expected).abs() <= 1e-9 * expected.abs().max(1e-3)
        }
        (Value::Null, Cell::Null) | (_, Cell::Any) => true,
        (Value::Text(value), Cell::Text(expected)) => value.as_bytes() == &expected[..],
        _ => false,
    }
}
