//! The expected groups of a stream, and their comparison with the reported ones: a second opinion
//! in plain Rust that shares no decoding or aggregation code with the engine.

use super::exact::ExactSum;
use super::tally::{ExactNumber, ExactValue, GroupTally, TalliedPart, read_number, read_text};
use crate::wire::schema::{Aggregate, Field, Function, Kind, Schema};
use crate::wire::text::counted;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Relative difference allowed between a reported sum, mean, variance or deviation and the exact
/// one.
pub const TOLERANCE: f64 = 1e-9;

/// One value of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedValue {
    /// No value: the variance of a single record, or a sum that does not fit its column.
    Null,
    /// An integer.
    Integer(i128),
    /// A floating-point number.
    Float(f64),
    /// A bool.
    Bool(bool),
    /// A text in escaped form (`docs/reference/protocol.md`), or bytes as lower-case hex.
    Text(String),
}

impl fmt::Display for ExpectedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedValue::Null => f.write_str("null"),
            ExpectedValue::Integer(integer) => integer.fmt(f),
            ExpectedValue::Float(float) => write!(f, "{float:?}"),
            ExpectedValue::Bool(bool) => bool.fmt(f),
            ExpectedValue::Text(text) => f.write_str(text),
        }
    }
}

/// One group of a result, as the engine reported it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedGroup {
    name: String,
    values: Vec<ExpectedValue>,
}

impl ReportedGroup {
    /// Builds a group from the values of all columns of the result, in column order: the keys, then
    /// the aggregates.
    pub fn new(schema: &Schema, mut values: Vec<ExpectedValue>) -> Self {
        let others = values.split_off(schema.keys().len().min(values.len()));
        ReportedGroup { name: name_of(schema, &values), values: others }
    }
}

/// Separates the keys in a group's name. No escaped text contains it, so different keys give
/// different names.
const BETWEEN_KEYS: char = '\n';

/// A group's keys as a text that identifies the group.
fn name_of(schema: &Schema, keys: &[ExpectedValue]) -> String {
    let mut name = String::new();
    for (key, value) in schema.keys().zip(keys) {
        if !name.is_empty() {
            name.push(BETWEEN_KEYS);
        }
        let written = match value {
            // Differs from the text "null".
            ExpectedValue::Null => write!(name, "{} is null", key.name),
            value => write!(name, "{}={value}", key.name),
        };
        written.expect("writing to a string cannot fail");
    }
    name.shrink_to_fit();
    name
}

/// The name of the group that a record belongs to.
pub(crate) fn name_of_record(schema: &Schema, record: &[u8]) -> String {
    let keys: Vec<ExpectedValue> = schema.keys().map(|key| key_of(key, schema, record)).collect();
    name_of(schema, &keys)
}

fn key_of(key: &Field, schema: &Schema, record: &[u8]) -> ExpectedValue {
    match key.kind {
        Kind::Text { .. } | Kind::Bytes { .. } => ExpectedValue::Text(read_text(key, record)),
        kind => value_of(kind, read_number(key, schema.endian(), record)),
    }
}

fn value_of(kind: Kind, number: ExactNumber) -> ExpectedValue {
    match (kind, number) {
        (Kind::Bool, ExactNumber::Integer(integer)) => ExpectedValue::Bool(integer != 0),
        (_, ExactNumber::Integer(integer)) => ExpectedValue::Integer(integer),
        (_, ExactNumber::Float(float)) => ExpectedValue::Float(float),
    }
}

/// The groups that the result of one stream must have.
#[derive(Clone, Debug)]
pub struct ExpectedGroups {
    schema: Arc<Schema>,
    records: u64,
    /// Shared, because many streams may have the same groups.
    names: Arc<[Box<str>]>,
    tally: GroupTally,
}

impl ExpectedGroups {
    /// The groups of a stream of `records` records. Groups without a record do not count.
    pub(crate) fn new(
        schema: Arc<Schema>,
        records: u64,
        names: Arc<[Box<str>]>,
        tally: GroupTally,
    ) -> Self {
        ExpectedGroups { schema, records, names, tally }
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.numbers().count()
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.tally.groups()).filter(|&group| self.tally.count(group) > 0)
    }

    /// Compares with a reported result: its status, its record count and its groups. Returns one
    /// sentence for each difference; none if all is as expected.
    ///
    /// Counts, integers, minima, maxima, first and last values must be equal. Means, variances,
    /// deviations and sums of floats may differ from the exact value by [`TOLERANCE`] of it.
    pub fn differences(&self, status: &str, records: u64, groups: &[ReportedGroup]) -> Vec<String> {
        let mut found = Vec::new();
        if status != "complete" {
            found.push(format!("status is {status}, expected complete"));
        }
        if records != self.records {
            found.push(format!("records: {records} reported, {} sent", self.records));
        }
        let mut reported: HashMap<&str, &ReportedGroup> =
            groups.iter().map(|group| (group.name.as_str(), group)).collect();
        if reported.len() != groups.len() {
            found.push(format!("duplicate groups: {}", groups.len() - reported.len()));
        }
        for group in self.numbers() {
            let name = &*self.names[group];
            match reported.remove(name) {
                Some(reported) => self.compare(group, reported, &mut found),
                None => found.push(format!("{}: missing", named(name))),
            }
        }
        let mut strangers: Vec<&str> = reported.into_keys().collect();
        strangers.sort_unstable();
        found.extend(strangers.into_iter().map(|name| format!("{}: was never sent", named(name))));
        found
    }

    fn compare(&self, group: usize, reported: &ReportedGroup, found: &mut Vec<String>) {
        let columns = self.schema.aggregates();
        let name = || named(&self.names[group]);
        if reported.values.len() != columns.len() {
            let (there, all) = (reported.values.len(), columns.len());
            let there = counted(there, "value");
            found.push(format!("{}: {there} after the keys, expected {all}", name()));
        }
        for (&aggregate, reported) in columns.iter().zip(&reported.values) {
            let wanted = self.wanted(group, aggregate);
            if !wanted.is_met_by(reported) {
                let column = self.schema.column_name(aggregate);
                found.push(format!("{}: {column} {reported} reported, expected {wanted}", name()));
            }
        }
    }

    fn wanted(&self, group: usize, aggregate: Aggregate) -> Wanted {
        let count = self.tally.count(group);
        let Aggregate::Of { field, function } = aggregate else {
            return Wanted::Exactly(ExpectedValue::Integer(count.into()));
        };
        let kind = self.schema.fields()[field].kind;
        let cell = |part| self.tally.cell(group, field, part);
        let exactly = |part| match *cell(part) {
            ExactValue::Integer(integer) => {
                Wanted::Exactly(value_of(kind, ExactNumber::Integer(integer)))
            }
            ExactValue::Float(float) if kind == Kind::F32 => Wanted::Single(float as f32),
            ExactValue::Float(float) => Wanted::Exactly(ExpectedValue::Float(float)),
            _ => unreachable!("a group has records"),
        };
        match function {
            Function::Sum => match cell(TalliedPart::Sum) {
                ExactValue::Integer(sum) => Wanted::Exactly(fitting(kind, *sum)),
                sum => Wanted::About(exact(sum).over(1.0)),
            },
            Function::Mean => Wanted::About(exact(cell(TalliedPart::Sum)).over(count as f64)),
            Function::Min => exactly(TalliedPart::Min),
            Function::Max => exactly(TalliedPart::Max),
            Function::First => exactly(TalliedPart::First),
            Function::Last => exactly(TalliedPart::Last),
            Function::Var | Function::Std if count == 1 => Wanted::Exactly(ExpectedValue::Null),
            Function::Var | Function::Std => {
                let [sum, squares] =
                    [TalliedPart::Sum, TalliedPart::Squares].map(|part| exact(cell(part)));
                let (variance, deviation) = sum.spread(&squares, count);
                Wanted::About(if function == Function::Var { variance } else { deviation })
            }
        }
    }
}

fn named(name: &str) -> String {
    format!("group {}", name.replace(BETWEEN_KEYS, " "))
}

/// The sum of integers of a type, or null if its column cannot hold it.
fn fitting(kind: Kind, sum: i128) -> ExpectedValue {
    let fits = match kind.is_signed() {
        true => i64::try_from(sum).is_ok(),
        false => u64::try_from(sum).is_ok(),
    };
    if fits { ExpectedValue::Integer(sum) } else { ExpectedValue::Null }
}

fn exact(cell: &ExactValue) -> ExactSum {
    match cell {
        ExactValue::Integer(integer) => (*integer).into(),
        ExactValue::Sum(sum) => (**sum).clone(),
        _ => unreachable!("a group has records"),
    }
}

/// The condition that a reported value must meet.
#[derive(Clone, Debug)]
enum Wanted {
    Exactly(ExpectedValue),
    /// Exactly this binary32, whatever number of digits it was written with.
    Single(f32),
    /// This number but for the tolerance.
    About(f64),
}

impl Wanted {
    fn is_met_by(&self, reported: &ExpectedValue) -> bool {
        match (self, reported) {
            (Wanted::Exactly(ExpectedValue::Float(wanted)), &ExpectedValue::Float(value)) => {
                same(*wanted, value) || same(read_back(*wanted), value)
            }
            (Wanted::Exactly(wanted), reported) => wanted == reported,
            (Wanted::Single(wanted), &ExpectedValue::Float(value)) => {
                same(f64::from(*wanted), f64::from(value as f32))
            }
            (&Wanted::About(wanted), &ExpectedValue::Float(value)) => near(wanted, value),
            _ => false,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Exactly(value) => value.fmt(f),
            Wanted::Single(value) => write!(f, "{value:?}"),
            Wanted::About(value) => write!(f, "{value:?}"),
        }
    }
}

fn same(left: f64, right: f64) -> bool {
    left == right || left.is_nan() && right.is_nan()
}

/// The number after a round trip through JSON: the parser may be off by one unit in the last place,
/// always in the same way for the same number.
fn read_back(value: f64) -> f64 {
    let text = serde_json::to_string(&value).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(value)
}

fn near(wanted: f64, value: f64) -> bool {
    // Only an infinity is near an infinity, although the tolerance would be infinite.
    same(wanted, value) || value.is_finite() && (wanted - value).abs() <= TOLERANCE * wanted.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::{Endian, Framing};

    fn record(a: u32, b: u16, c: f32, d: i8, e: &[u8]) -> Vec<u8> {
        let mut record = a.to_be_bytes().to_vec();
        record.extend(b.to_be_bytes());
        record.extend(c.to_be_bytes());
        record.extend(d.to_be_bytes());
        record.extend(e);
        record.resize(267, b' ');
        record
    }

    fn of(schema: Arc<Schema>, records: &[Vec<u8>]) -> ExpectedGroups {
        let mut tally = GroupTally::new(&schema, 1);
        records.iter().for_each(|record| tally.add(0, record));
        let names = vec![name_of_record(&schema, &records[0]).into()].into();
        ExpectedGroups::new(schema, records.len() as u64, names, tally)
    }

    fn expected() -> ExpectedGroups {
        let records = [record(7, 10, 1.5, 3, b"pump\x01"), record(7, 20, 2.5, -3, b"pump\x01")];
        of(Schema::built_in(), &records)
    }

    fn reported(values: [ExpectedValue; 6]) -> ReportedGroup {
        ReportedGroup::new(&Schema::built_in(), values.into())
    }

    fn right() -> [ExpectedValue; 6] {
        [
            ExpectedValue::Integer(7),
            ExpectedValue::Text(r"pump\x01".to_owned()),
            ExpectedValue::Float(15.0),
            ExpectedValue::Float(4.0),
            ExpectedValue::Integer(-3),
            ExpectedValue::Integer(2),
        ]
    }

    #[test]
    fn equal_groups_have_no_difference() {
        let found = expected().differences("complete", 2, &[reported(right())]);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(expected().groups(), 1);
    }

    #[test]
    fn each_difference_is_found() {
        let with = |column: usize, value| {
            let mut values = right();
            values[column] = value;
            expected().differences("complete", 2, &[reported(values)]).join("; ")
        };
        let found = with(5, ExpectedValue::Integer(3));
        assert_eq!(found, r"group A=7 E=pump\x01: count 3 reported, expected 2");
        assert!(with(4, ExpectedValue::Integer(3)).contains("D_min 3 reported, expected -3"));
        assert!(with(4, ExpectedValue::Null).contains("D_min null reported"));
        assert!(with(2, ExpectedValue::Float(15.0001)).contains("B_mean"));
        assert!(with(3, ExpectedValue::Float(f64::NAN)).contains("C_sum"));
        assert!(with(3, ExpectedValue::Float(f64::INFINITY)).contains("C_sum"));
        assert!(with(0, ExpectedValue::Integer(8)).contains("missing"));
        assert!(with(0, ExpectedValue::Integer(8)).contains("A=8 E=pump\\x01: was never sent"));
        let twice = expected().differences("complete", 2, &[reported(right()), reported(right())]);
        assert_eq!(twice, ["duplicate groups: 1"]);
        let group = [reported(right())];
        assert!(expected().differences("incomplete", 2, &group)[0].contains("status"));
        assert!(expected().differences("complete", 1, &group)[0].contains("records"));
        let short = ReportedGroup::new(&Schema::built_in(), right()[..5].to_vec());
        assert!(expected().differences("complete", 2, &[short])[0].contains("3 values"));
    }

    /// Applies all functions to the values of one field; returns the differences to `reported`.
    fn wrong(kind: Kind, values: &[&[u8]], reported: [ExpectedValue; 8]) -> String {
        let fields = vec![("k".to_owned(), Kind::Bool), ("v".to_owned(), kind)];
        let functions = Function::ALL.iter();
        let aggregates = functions.map(|&function| Aggregate::Of { field: 1, function }).collect();
        let framing = Framing::default();
        let schema = Schema::new("t".into(), Endian::Big, framing, fields, vec![0], aggregates);
        let schema = Arc::new(schema.unwrap());
        let records: Vec<Vec<u8>> =
            values.iter().map(|value| [&[1][..], *value].concat()).collect();
        let count = ExpectedValue::Integer(records.len() as i128);
        let all = [vec![ExpectedValue::Bool(true)], reported.into(), vec![count]].concat();
        let group = ReportedGroup::new(&schema, all);
        let found = of(schema, &records).differences("complete", records.len() as u64, &[group]);
        found.join("; ")
    }

    #[test]
    fn all_functions_of_integers_are_judged() {
        let integers = [5, -3, 5].map(ExpectedValue::Integer);
        let [first, min, last] = integers.clone();
        let right = [
            ExpectedValue::Integer(9),
            ExpectedValue::Float(3.0),
            min,
            ExpectedValue::Integer(7),
            first,
            last,
            ExpectedValue::Float(28.0),
            ExpectedValue::Float(28_f64.sqrt()),
        ];
        let values: [&[u8]; 4] = [&[5], &[0xfd], &[7], &[5]];
        // The results without the last value.
        let found = wrong(Kind::I8, &values, right.clone());
        assert!(["v_sum", "v_mean", "v_var", "v_std"].iter().all(|column| found.contains(column)));
        assert!(!found.contains("v_min") && !found.contains("v_last"), "{found}");
        let mut right = right;
        (right[0], right[1]) = (ExpectedValue::Integer(14), ExpectedValue::Float(3.5));
        let var = (1.5_f64.powi(2) * 2.0 + 6.5_f64.powi(2) + 3.5_f64.powi(2)) / 3.0;
        (right[6], right[7]) = (ExpectedValue::Float(var), ExpectedValue::Float(var.sqrt()));
        assert_eq!(wrong(Kind::I8, &values, right.clone()), "");
        right[7] = ExpectedValue::Float(-var.sqrt());
        assert!(wrong(Kind::I8, &values, right).starts_with("group k=true: v_std"));
    }

    #[test]
    fn one_record_has_no_variance_and_a_sum_may_not_fit() {
        let value = ExpectedValue::Integer(u64::MAX.into());
        let ends = || value.clone();
        let mean = ExpectedValue::Float(u64::MAX as f64);
        let null = || ExpectedValue::Null;
        let of_one = [ends(), mean.clone(), ends(), ends(), ends(), ends(), null(), null()];
        assert_eq!(wrong(Kind::U64, &[&[255; 8]], of_one), "");
        let zero = || ExpectedValue::Float(0.0);
        let of_two = [null(), mean, ends(), ends(), ends(), ends(), zero(), zero()];
        assert_eq!(wrong(Kind::U64, &[&[255; 8], &[255; 8]], of_two), "");
    }

    #[test]
    fn floats_that_json_rounds_are_themselves() {
        let numbers = [1.234_567_890_123_456_7e-133, 9.007_199_254_740_993e139, 0.1, f64::MIN];
        for number in numbers {
            let value = Wanted::Exactly(ExpectedValue::Float(number));
            assert!(value.is_met_by(&ExpectedValue::Float(number)));
            assert!(value.is_met_by(&ExpectedValue::Float(read_back(number))));
            assert!(!value.is_met_by(&ExpectedValue::Float(number * (1.0 + 4.0 * f64::EPSILON))));
        }
        // The digits of the binary32, and those of the same number as a binary64.
        assert!(Wanted::Single(0.1).is_met_by(&ExpectedValue::Float(0.1)));
        assert!(Wanted::Single(0.1).is_met_by(&ExpectedValue::Float(0.1_f32.into())));
        assert!(!Wanted::Single(0.1).is_met_by(&ExpectedValue::Float(0.100_000_01)));
    }

    /// Values close together and far from zero, of which binary64 loses digits in any order.
    #[test]
    fn what_binary64_loses_is_noticed() {
        let judged = |values: &[f64], reported: [f64; 4]| {
            let bytes: Vec<[u8; 8]> = values.iter().map(|value| value.to_be_bytes()).collect();
            let bytes: Vec<&[u8]> = bytes.iter().map(|value| &value[..]).collect();
            let float = ExpectedValue::Float;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let [sum, mean, var, std] = reported.map(float);
            let (first, last) = (float(values[0]), float(values[values.len() - 1]));
            wrong(Kind::F64, &bytes, [sum, mean, float(least), float(most), first, last, var, std])
        };
        let values = [1e16, 1e16 + 2.0, 1e16 + 4.0];
        assert_eq!(judged(&values, [3e16 + 6.0, 1e16 + 2.0, 4.0, 2.0]), "");
        // What Welford's method makes of them.
        let found = judged(&values, [3e16 + 6.0, 1e16 + 2.0, 6.0, 6_f64.sqrt()]);
        assert!(found.contains("v_var 6.0 reported, expected 4.0"), "{found}");
        assert!(found.contains("v_std"), "{found}");
        let values = [1e16, 1.0, -1e16];
        let deviation = 1e16;
        assert_eq!(judged(&values, [1.0, 1.0 / 3.0, 1e32, deviation]), "");
        let found = judged(&values, [0.0, 0.0, 1e32, deviation]);
        assert!(found.contains("v_sum 0.0 reported, expected 1.0"), "{found}");
        assert!(found.contains("v_mean"), "{found}");
        let (infinity, large) = (f64::INFINITY, 2_f64.sqrt() * 1e308);
        assert_eq!(judged(&[1e308, -1e308], [0.0, 0.0, infinity, large]), "");
        assert!(judged(&[1e308, -1e308], [0.0, 0.0, f64::NAN, infinity]).contains("v_std"));
    }
}
