//! Decodes and adds up records in the simplest way, field by field and group by group: a second
//! opinion that shares no code with the engine. Compares nothing.
//!
//! Integers are summed in 128 bits, floats and squares exactly. As all of these are sums, the
//! repeated cycles of a stream are multiplied rather than added.

use super::exact::ExactSum;
use crate::wire::schema::{Aggregate, Endian, Field, Function, Kind, Schema};
use crate::wire::text::{Padding, ShownText};

/// One number of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ExactNumber {
    Integer(i128),
    Float(f64),
}

/// The number in a field of a record. A bool is 0 or 1.
///
/// # Panics
/// If the record is too short or the field is not a number.
pub(crate) fn read_number(field: &Field, endian: Endian, record: &[u8]) -> ExactNumber {
    let width = field.kind.width();
    let bytes = record[field.offset..field.offset + width].iter();
    let with = |bits: i128, &byte: &u8| bits * 256 + i128::from(byte);
    let bits = match endian {
        Endian::Big => bytes.fold(0, with),
        Endian::Little => bytes.rev().fold(0, with),
    };
    let half = 1_i128 << (8 * width - 1);
    match field.kind {
        Kind::Bool => ExactNumber::Integer(i128::from(bits != 0)),
        Kind::F32 => ExactNumber::Float(f64::from(f32::from_bits(bits as u32))),
        Kind::F64 => ExactNumber::Float(f64::from_bits(bits as u64)),
        kind if kind.is_signed() && bits >= half => ExactNumber::Integer(bits - 2 * half),
        Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => panic!("not a number"),
        _ => ExactNumber::Integer(bits),
    }
}

/// A text or bytes field as results show it. Deliberately its own way to the value.
///
/// # Panics
/// If the record is too short or the field is neither.
pub(crate) fn read_text(field: &Field, record: &[u8]) -> String {
    let bytes = &record[field.offset..field.offset + field.kind.width()];
    match field.kind {
        Kind::Text { padding, .. } => {
            ShownText(trimmed(bytes, padding), field.encoding).to_string()
        }
        Kind::Bytes { .. } => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => panic!("neither text nor bytes"),
    }
}

fn trimmed(mut text: &[u8], padding: Padding) -> &[u8] {
    while let Some((last, before)) = text.split_last() {
        if !(*last == 0 && padding.nul || *last == 32 && padding.space) {
            break;
        }
        text = before;
    }
    text
}

/// A statistic kept of the values of a field in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TalliedPart {
    Sum,
    /// Sum of squares.
    Squares,
    Min,
    Max,
    First,
    Last,
}

fn parts_of(function: Function) -> &'static [TalliedPart] {
    match function {
        Function::Sum | Function::Mean => &[TalliedPart::Sum],
        Function::Min => &[TalliedPart::Min],
        Function::Max => &[TalliedPart::Max],
        Function::First => &[TalliedPart::First],
        Function::Last => &[TalliedPart::Last],
        Function::Var | Function::Std => &[TalliedPart::Sum, TalliedPart::Squares],
    }
}

/// The statistics that the aggregates of a schema need.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TallyPlan {
    endian: Endian,
    /// One entry for each field of the record.
    fields: Vec<(Field, Vec<TalliedPart>)>,
    /// Index of each field's first cell among the cells of a group.
    first_cells: Vec<usize>,
    cells: usize,
}

impl TallyPlan {
    pub(crate) fn new(schema: &Schema) -> Self {
        let mut plan = TallyPlan {
            endian: schema.endian(),
            fields: Vec::new(),
            first_cells: Vec::new(),
            cells: 0,
        };
        for (index, field) in schema.fields().iter().enumerate() {
            let of_field = schema.aggregates().iter().filter_map(|aggregate| match *aggregate {
                Aggregate::Of { field, function } if field == index => Some(function),
                _ => None,
            });
            let mut parts: Vec<TalliedPart> = of_field.flat_map(parts_of).copied().collect();
            parts.sort_unstable();
            parts.dedup();
            plan.first_cells.push(plan.cells);
            plan.cells += parts.len();
            plan.fields.push((field.clone(), parts));
        }
        plan
    }

    /// Index of a part of a field among the cells of a group.
    fn cell(&self, field: usize, part: TalliedPart) -> usize {
        let place = self.fields[field].1.iter().position(|&has| has == part);
        self.first_cells[field] + place.expect("some aggregate needs it")
    }

    fn has_ends(&self) -> bool {
        let is_end = |part: &TalliedPart| matches!(part, TalliedPart::First | TalliedPart::Last);
        self.fields.iter().any(|(_, parts)| parts.iter().any(is_end))
    }
}

/// The value of one part of one field in one group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExactValue {
    /// No record so far.
    Empty,
    Integer(i128),
    /// A value of a record.
    Float(f64),
    /// A sum of floats, or of squares.
    Sum(Box<ExactSum>),
}

impl ExactValue {
    /// Adds the contribution of one record.
    fn add(&mut self, part: TalliedPart, number: ExactNumber) {
        let is_sum = matches!(part, TalliedPart::Sum | TalliedPart::Squares);
        match (part, number) {
            (TalliedPart::Squares, ExactNumber::Integer(integer)) => {
                self.sum().add_integer_square(integer);
            }
            (TalliedPart::Squares, ExactNumber::Float(float)) => self.sum().add_square(float),
            (_, ExactNumber::Float(float)) if is_sum => self.sum().add(float),
            (_, ExactNumber::Integer(integer)) => self.merge(part, &ExactValue::Integer(integer)),
            (_, ExactNumber::Float(float)) => self.merge(part, &ExactValue::Float(float)),
        }
    }

    /// The sum, which begins if there is none.
    fn sum(&mut self) -> &mut ExactSum {
        if *self == ExactValue::Empty {
            *self = ExactValue::Sum(Box::default());
        }
        match self {
            ExactValue::Sum(sum) => sum,
            _ => unreachable!("a part of a field has one type"),
        }
    }

    fn merge(&mut self, part: TalliedPart, other: &ExactValue) {
        // Of -0.0 and 0.0 the first is less; of a number and NaN, it is the number.
        let least = |own: f64, other: f64, is_other: bool| match () {
            () if own.is_nan() || is_other && !other.is_nan() => other,
            () => own,
        };
        match (&mut *self, other) {
            (_, ExactValue::Empty) => {}
            (ExactValue::Empty, other) => *self = other.clone(),
            (ExactValue::Integer(own), &ExactValue::Integer(other)) => {
                *own = match part {
                    TalliedPart::Sum | TalliedPart::Squares => *own + other,
                    TalliedPart::Min => other.min(*own),
                    TalliedPart::Max => other.max(*own),
                    TalliedPart::First => *own,
                    TalliedPart::Last => other,
                };
            }
            (ExactValue::Float(own), &ExactValue::Float(other)) => {
                *own = match part {
                    TalliedPart::Min => least(*own, other, other.total_cmp(own).is_lt()),
                    TalliedPart::Max => least(*own, other, other.total_cmp(own).is_gt()),
                    TalliedPart::Last => other,
                    _ => *own,
                };
            }
            (ExactValue::Sum(own), ExactValue::Sum(other)) => own.plus(other),
            _ => unreachable!("a part of a field has one type"),
        }
    }

    fn times(&self, part: TalliedPart, times: u64) -> Self {
        match self {
            ExactValue::Integer(sum) if part == TalliedPart::Sum => {
                ExactValue::Integer(sum * i128::from(times))
            }
            ExactValue::Sum(sum) => ExactValue::Sum(Box::new(sum.times(times))),
            cell => cell.clone(),
        }
    }
}

/// The statistics of the records of each group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupTally {
    plan: TallyPlan,
    counts: Vec<u64>,
    /// Group by group.
    cells: Vec<ExactValue>,
}

impl GroupTally {
    /// The tally of `groups` groups without records.
    pub(crate) fn new(schema: &Schema, groups: usize) -> Self {
        let plan = TallyPlan::new(schema);
        let cells = vec![ExactValue::Empty; groups * plan.cells];
        GroupTally { plan, counts: vec![0; groups], cells }
    }

    /// The same groups without records.
    pub(crate) fn emptied(&self) -> Self {
        let cells = vec![ExactValue::Empty; self.cells.len()];
        GroupTally { plan: self.plan.clone(), counts: vec![0; self.counts.len()], cells }
    }

    pub(crate) fn groups(&self) -> usize {
        self.counts.len()
    }

    /// Number of records of a group.
    pub(crate) fn count(&self, group: usize) -> u64 {
        self.counts[group]
    }

    /// The value of a part of a field in a group.
    pub(crate) fn cell(&self, group: usize, field: usize, part: TalliedPart) -> &ExactValue {
        &self.cells[group * self.plan.cells + self.plan.cell(field, part)]
    }

    /// Adds a record that comes after all others.
    pub(crate) fn add(&mut self, group: usize, record: &[u8]) {
        self.counts[group] += 1;
        self.add_parts(group, record, |_| true);
    }

    /// Whether the order of the records matters.
    pub(crate) fn has_ends(&self) -> bool {
        self.plan.has_ends()
    }

    /// Updates only the first and last values, with a record that comes after all others.
    pub(crate) fn add_ends(&mut self, group: usize, record: &[u8]) {
        self.add_parts(group, record, |part| {
            matches!(part, TalliedPart::First | TalliedPart::Last)
        });
    }

    fn add_parts(&mut self, group: usize, record: &[u8], takes: impl Fn(TalliedPart) -> bool) {
        let own = &mut self.cells[group * self.plan.cells..][..self.plan.cells];
        let mut cells = own.iter_mut();
        for (field, parts) in self.plan.fields.iter().filter(|(_, parts)| !parts.is_empty()) {
            let number = read_number(field, self.plan.endian, record);
            for (&part, cell) in parts.iter().zip(&mut cells) {
                if takes(part) {
                    cell.add(part, number);
                }
            }
        }
    }

    /// Adds all records of `other`, which has the same groups, `times` times. Leaves first and last
    /// values to [`GroupTally::add_ends`].
    pub(crate) fn add_times(&mut self, other: &GroupTally, times: u64) {
        if times == 0 {
            return;
        }
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other * times;
        }
        let parts: Vec<TalliedPart> =
            self.plan.fields.iter().flat_map(|(_, parts)| parts).copied().collect();
        let cells = self.cells.iter_mut().zip(&other.cells).zip(parts.iter().cycle());
        for ((cell, other), &part) in cells {
            if !matches!(part, TalliedPart::First | TalliedPart::Last) {
                cell.merge(part, &other.times(part, times));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Framing;
    use crate::wire::text::TextEncoding;

    fn schema(kind: Kind, functions: &[Function], endian: Endian) -> Schema {
        let fields = vec![("k".to_owned(), Kind::Bool), ("v".to_owned(), kind)];
        let of = |&function| Aggregate::Of { field: 1, function };
        let aggregates = functions.iter().map(of).collect();
        Schema::new("t".into(), endian, Framing::default(), fields, vec![0], aggregates).unwrap()
    }

    #[test]
    fn numbers_are_read_in_both_orders() {
        let read = |kind, endian, bytes: &[u8]| {
            let record = [&[7], bytes].concat();
            read_number(&schema(kind, &[], endian).fields()[1], endian, &record)
        };
        use Endian::{Big, Little};
        assert_eq!(read(Kind::U16, Big, &[1, 2]), ExactNumber::Integer(258));
        assert_eq!(read(Kind::U16, Little, &[1, 2]), ExactNumber::Integer(513));
        assert_eq!(read(Kind::I8, Big, &[0x80]), ExactNumber::Integer(-128));
        assert_eq!(read(Kind::I32, Little, &[0xfe, 255, 255, 255]), ExactNumber::Integer(-2));
        assert_eq!(read(Kind::U64, Big, &[255; 8]), ExactNumber::Integer(u64::MAX.into()));
        assert_eq!(read(Kind::I64, Big, &[255; 8]), ExactNumber::Integer(-1));
        assert_eq!(read(Kind::Bool, Big, &[0x80]), ExactNumber::Integer(1));
        assert_eq!(read(Kind::F32, Big, &1.5_f32.to_be_bytes()), ExactNumber::Float(1.5));
        assert_eq!(
            read(Kind::F64, Little, &(-1e300_f64).to_le_bytes()),
            ExactNumber::Float(-1e300)
        );
    }

    #[test]
    fn texts_lose_the_padding_that_is_declared() {
        let read = |padding, bytes: &[u8]| {
            let kind = Kind::Text { bytes: bytes.len(), padding };
            let encoding = TextEncoding::Utf8;
            read_text(&Field { name: "E".into(), kind, offset: 0, encoding }, bytes)
        };
        assert_eq!(read(Padding::BOTH, b"a\\ \x01\0 \0"), r"a\\ \x01");
        assert_eq!(read(Padding::NONE, b"a \0"), r"a \x00");
        assert_eq!(read(Padding { nul: true, space: false }, b"a \0\0"), "a ");
        let (kind, encoding) = (Kind::Bytes { bytes: 3 }, TextEncoding::Utf8);
        let bytes = Field { name: "E".into(), kind, offset: 1, encoding };
        assert_eq!(read_text(&bytes, &[9, 0, 0xab, 0xff]), "00abff");
    }

    /// The expected value is computed with integers.
    #[test]
    fn many_times_at_once_are_as_good_as_one_by_one() {
        const TIMES: u64 = 123_456_789_013;
        // Each has 24 significant bits, so that an f32 holds it; their sum needs more than 53.
        let values =
            [(16_777_213_i128, 60), (3, 0), (12_345_677, 33), (-16_777_211, 59), (7_654_321, 11)];
        let schema = schema(Kind::F32, &[Function::Sum, Function::Min], Endian::Big);
        let record = |value: f32| [&[1][..], &value.to_be_bytes()].concat();
        let mut once = GroupTally::new(&schema, 2);
        for (bits, shift) in values {
            once.add(1, &record((bits << shift) as f32));
        }
        let mut all = once.emptied();
        all.add_times(&once, 0);
        assert_eq!(all, once.emptied());
        all.add(1, &record(5.0));
        all.add_times(&once, TIMES);
        all.add_times(&once.emptied(), 5);
        assert_eq!((all.count(0), all.count(1)), (0, 5 * TIMES + 1));
        let block: i128 = values.into_iter().map(|(bits, shift)| bits << shift).sum();
        let exact = (block * i128::from(TIMES) + 5) as f64;
        let value = |part| match all.cell(1, 1, part) {
            ExactValue::Float(float) => *float,
            ExactValue::Sum(sum) => sum.over(1.0),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(TalliedPart::Sum), exact);
        assert_eq!(value(TalliedPart::Min), (-16_777_211_i128 << 59) as f64);
        assert_eq!(all.cell(0, 1, TalliedPart::Sum), &ExactValue::Empty);
    }

    #[test]
    fn first_and_last_are_those_of_the_order_in_which_records_come() {
        let functions = [Function::First, Function::Last, Function::Sum, Function::Max];
        let schema = schema(Kind::I8, &functions, Endian::Big);
        let mut once = GroupTally::new(&schema, 1);
        [3, 250, 5].iter().for_each(|&value| once.add(0, &[0, value]));
        let mut all = once.emptied();
        all.add_times(&once, 10);
        assert_eq!(all.cell(0, 1, TalliedPart::First), &ExactValue::Empty);
        [250, 5, 3].iter().for_each(|&value| all.add_ends(0, &[0, value]));
        all.add(0, &[0, 7]);
        let cells = [TalliedPart::First, TalliedPart::Last, TalliedPart::Sum, TalliedPart::Max]
            .map(|p| all.cell(0, 1, p).clone());
        assert_eq!(cells, [-6, 7, 27, 7].map(ExactValue::Integer));
        assert_eq!(all.count(0), 31);
    }

    #[test]
    fn what_is_no_number_is_no_minimum() {
        let schema = schema(Kind::F64, &[Function::Min, Function::Max], Endian::Big);
        let mut tally = GroupTally::new(&schema, 2);
        for (group, value) in [(0, f64::NAN), (0, -1.0), (0, f64::NAN), (1, f64::NAN)] {
            tally.add(group, &[&[0][..], &value.to_be_bytes()].concat());
        }
        for part in [TalliedPart::Min, TalliedPart::Max] {
            assert_eq!(tally.cell(0, 1, part), &ExactValue::Float(-1.0));
            let ExactValue::Float(value) = tally.cell(1, 1, part) else { panic!("a float") };
            assert!(value.is_nan());
        }
    }
}
