//! Record streams: any schema, limits, framing, cuts and window, with bytes that are packets or
//! merely look like them. Rows and groups must be those of a plain reading of the same bytes.

use super::any_schema;
use super::input::FuzzInput;
use super::reading::{PlainKey, Reading, ReadingLimits, key_of};
use crate::config::Config;
use crate::engine::blocks::number::Wide;
use crate::engine::decode::texts::Texts;
use crate::engine::groups::columns::{Column, ColumnSet, PartialSet};
use crate::engine::groups::lanes::Lane;
use crate::engine::groups::plan::{KeyBits, Plan};
use crate::engine::groups::table::GroupTable;
use crate::engine::oracle::cells::{NaiveCell, read};
use crate::engine::oracle::exact::exact_mean;
use crate::engine::stream::intake::{NextStep, RecordIntake, Refused};
use crate::wire::schema::columns::Part;
use crate::wire::schema::{Endian, Kind, Length, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Relative to the largest value: a thousandth of what is promised of means.
const TOLERANCE: f64 = 1e-12;

/// How a stream goes through the engine.
struct Course {
    window_bytes: usize,
    /// Sizes of the reads, in turns.
    reads: Vec<usize>,
    /// Rows of a batch.
    rows: usize,
}

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let plan = Plan::new(Arc::new(any_schema::schema(&mut input)));
    let config = config(&mut input, plan.schema());
    let course = course(&mut input, &plan);
    let bytes = stream(&mut input, plan.schema());
    let limits = ReadingLimits {
        packet_bytes: config.packet_bytes_limit,
        groups: None,
        rows: course.rows,
        texts: config.groups_limit,
        text_bytes: config.strings_bytes_limit,
    };
    check_rows(&plan, &config, &course, &bytes, &limits);
    let limits = ReadingLimits { groups: Some(config.groups_limit), ..limits };
    check_groups(&plan, &config, &course, &bytes, &limits);
}

/// Limits as by default, or so low that they are met.
fn config(input: &mut FuzzInput<'_>, schema: &Schema) -> Config {
    let mut config = Config::default();
    let low = input.byte();
    if low & 1 == 1 {
        config.groups_limit = 1 + input.below(20);
    }
    if low & 2 == 2 {
        config.strings_bytes_limit = input.below(200);
    }
    if low & 4 == 4 {
        let packet = schema.packet_bytes_min() + input.below(8) * schema.record_bytes();
        config.packet_bytes_limit = packet as u64;
    }
    config
}

fn course(input: &mut FuzzInput<'_>, plan: &Plan) -> Course {
    let window_bytes = plan.sizes().window_bytes_min() + input.byte() as usize * 3;
    let rows = 1 + input.below(70);
    let reads = (0..1 + input.below(4)).map(|_| match input.byte() {
        0 => usize::MAX,
        bytes => usize::from(bytes),
    });
    Course { window_bytes, reads: reads.collect(), rows }
}

/// The rest of the input as it is, or as records of right packets.
fn stream(input: &mut FuzzInput<'_>, schema: &Schema) -> Vec<u8> {
    let (framed, at_a_time) = (input.byte(), 1 + input.below(9));
    let framing = schema.framing();
    if framed.is_multiple_of(3) || framing.length == Length::None {
        return input.rest().to_vec();
    }
    let own = if framing.length == Length::U32 { 4 } else { 2 };
    let counted = if framing.includes_itself { own } else { 0 };
    let mut stream = Vec::new();
    for body in input.rest().chunks(at_a_time * schema.record_bytes()) {
        // The last packet announces records that do not come, at times.
        let length = counted + body.len().next_multiple_of(schema.record_bytes());
        let length = (length as u32).to_be_bytes();
        let mut header = length[4 - own..].to_vec();
        if framing.endian == Endian::Little {
            header.reverse();
        }
        stream.extend(header);
        stream.extend_from_slice(body);
    }
    stream
}

/// Feeds a stream to an intake, and compares what it counts with the reading.
fn feed(
    intake: &mut RecordIntake,
    course: &Course,
    bytes: &[u8],
    reading: &Reading<'_>,
    mut poll: impl FnMut(&mut RecordIntake, &[u8]) -> Result<NextStep, Refused>,
) {
    let mut buffer = vec![0xaa; course.window_bytes];
    let (mut rest, mut reads) = (bytes, course.reads.iter().cycle());
    let mut refused = None;
    while !rest.is_empty() && refused.is_none() {
        let free = intake.free();
        let read = free.len().min(rest.len()).min(*reads.next().expect("there are sizes"));
        assert!(read > 0, "a window is never full between reads");
        let (now, later) = rest.split_at(read);
        buffer[free][..read].copy_from_slice(now);
        rest = later;
        intake.handle_read(read, Instant::now());
        refused = loop {
            match poll(intake, &buffer) {
                Ok(NextStep::Rows) => {}
                Ok(_) => break None,
                Err(refused) => break Some(refused),
            }
        };
        intake.compact(&mut buffer);
    }
    assert_eq!(refused, reading.refused);
    let counts = intake.counts();
    assert_eq!(counts.records, reading.records.len() as u64);
    assert_eq!(counts.packets, reading.packets);
    if refused.is_none() {
        assert_eq!(counts.bytes, bytes.len() as u64);
        assert_eq!(counts.bytes_after_end, reading.bytes_after_end as u64);
        assert_eq!(intake.ended(), reading.ended);
        assert_eq!(intake.cut(), reading.cut);
    }
}

fn check_rows(
    plan: &Arc<Plan>,
    config: &Config,
    course: &Course,
    bytes: &[u8],
    limits: &ReadingLimits,
) {
    let reading = Reading::of(plan.schema(), bytes, limits);
    let mut intake = RecordIntake::new(plan, config, course.window_bytes, Instant::now());
    let mut set = ColumnSet::with_rows(plan, course.rows);
    let mut records = reading.records.iter();
    let mut compare = |intake: &RecordIntake, set: &mut ColumnSet| {
        let texts: Vec<&Texts> = intake.texts().collect();
        for row in 0..set.rows() {
            let record = records.next().expect("no more rows than records");
            compare_row(plan, &texts, set, row, record);
        }
        set.clear();
    };
    feed(&mut intake, course, bytes, &reading, |intake, buffer| {
        let next = intake.poll_rows(buffer, &mut set);
        if set.rows_free() == 0 {
            compare(intake, &mut set);
        }
        next
    });
    compare(&intake, &mut set);
    assert_eq!(records.next(), None, "each record is a row");
}

fn compare_row(plan: &Plan, texts: &[&Texts], set: &ColumnSet, row: usize, record: &[u8]) {
    let words: Vec<u64> = set.keys.iter().map(|words| words[row]).collect();
    assert_eq!(key_from(plan, texts, &words), key_of(plan.schema(), record));
    for (source, column) in plan.sources().iter().zip(&set.values) {
        let is_source = |field: &&crate::wire::schema::Field| field.name == source.name;
        let field = plan.schema().fields().iter().find(is_source).expect("a field");
        let expected = read(field, plan.schema().endian(), record);
        assert!(is_number(wide_at(column, row), &expected), "{field:?}: {expected:?}");
    }
}

/// The key that packed words stand for.
fn key_from(plan: &Plan, texts: &[&Texts], words: &[u64]) -> PlainKey {
    let mut texts = texts.iter();
    let cells = plan.schema().keys().zip(plan.key_bits()).map(|(field, of)| {
        let KeyBits { word, shift, bits } = *of;
        let value = (words[word] >> shift) & (u64::MAX >> (64 - bits));
        if field.kind.is_text() {
            let texts = texts.next().expect("texts for each key that is text");
            return (0, texts.get(value as usize).to_vec());
        }
        let low = if field.kind.is_signed() { 1_i128 << (bits - 1) } else { 0 };
        (i128::from(value) - low, Vec::new())
    });
    cells.collect()
}

fn wide_at(column: &Column, row: usize) -> Wide {
    match column {
        Column::Unsigned(column) => Wide::Unsigned(column[row]),
        Column::Signed(column) => Wide::Signed(column[row]),
        Column::Float(column) => Wide::Float(column[row]),
    }
}

fn is_number(found: Wide, expected: &NaiveCell) -> bool {
    match (found, expected) {
        (Wide::Unsigned(found), NaiveCell::Integer(expected)) => i128::from(found) == *expected,
        (Wide::Signed(found), NaiveCell::Integer(expected)) => i128::from(found) == *expected,
        (Wide::Float(found), NaiveCell::Float(expected)) => {
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
        }
        _ => false,
    }
}

fn check_groups(
    plan: &Arc<Plan>,
    config: &Config,
    course: &Course,
    bytes: &[u8],
    limits: &ReadingLimits,
) {
    let reading = Reading::of(plan.schema(), bytes, limits);
    let mut intake = RecordIntake::new(plan, config, course.window_bytes, Instant::now());
    let table = || GroupTable::with_limits(plan, config.groups_limit, course.rows as u64);
    let (mut groups, mut rest) = (table(), &reading.records[..]);
    let mut compare = |intake: &RecordIntake, groups: &GroupTable| {
        let texts: Vec<&Texts> = intake.texts().collect();
        let (batch, later) = rest.split_at(groups.rows() as usize);
        compare_groups(plan, &texts, groups, batch);
        rest = later;
    };
    feed(&mut intake, course, bytes, &reading, |intake, buffer| {
        let next = intake.poll_groups(buffer, &mut groups);
        if groups.rows_free() == 0 {
            compare(intake, &std::mem::replace(&mut groups, table()));
        }
        next
    });
    compare(&intake, &groups);
    assert!(rest.is_empty(), "each record is in a group");
}

fn compare_groups(plan: &Arc<Plan>, texts: &[&Texts], groups: &GroupTable, records: &[&[u8]]) {
    let mut expected: BTreeMap<PlainKey, Vec<&[u8]>> = BTreeMap::new();
    for &record in records {
        expected.entry(key_of(plan.schema(), record)).or_default().push(record);
    }
    let mut partials = PartialSet::with_rows(plan, groups.groups());
    groups.partials().for_each(|slot| partials.push(slot, groups.spills()));
    partials.carry();
    for row in 0..groups.groups() {
        let words: Vec<u64> = partials.keys.iter().map(|words| words[row]).collect();
        let key = key_from(plan, texts, &words);
        let records = expected.remove(&key).expect("each group is there once");
        assert_eq!(partials.counts[row], records.len() as u64);
        for (at, lane) in plan.lanes().iter().enumerate() {
            let parts = partials.parts[at..].iter().map(|column| wide_at(column, row));
            compare_part(plan.schema(), lane, parts, &records);
        }
    }
    assert!(expected.is_empty(), "no group is missing");
}

/// Compares a part of a group. `parts` begins with it; the parts of the same field follow.
fn compare_part(
    schema: &Schema,
    lane: &Lane,
    mut parts: impl Iterator<Item = Wide>,
    records: &[&[u8]],
) {
    let field = &schema.fields()[lane.field];
    let cells = records.iter().map(|record| read(field, schema.endian(), record));
    let cells: Vec<NaiveCell> = cells.collect();
    let found = parts.next().expect("a part");
    let agrees = match lane.part {
        Part::First => is_number(found, &cells[0]),
        Part::Last => is_number(found, &cells[cells.len() - 1]),
        Part::Min => is_number(found, &extreme(&cells, false)),
        Part::Max => is_number(found, &extreme(&cells, true)),
        Part::Sum => {
            let sum: i128 = cells.iter().map(NaiveCell::integer).sum();
            match has_low(field.kind) {
                false => integer(found) == sum,
                true => {
                    let low = integer(parts.next().expect("the lower half follows"));
                    (integer(found) << 32) + low == sum && low >> 32 == 0
                }
            }
        }
        Part::Mean => is_mean(found, &cells.iter().map(NaiveCell::float).collect::<Vec<_>>()),
        // With the sum; and squares, which the tests of results compare.
        Part::SumLow | Part::Rest | Part::M2 | Part::Unit => true,
    };
    assert!(agrees, "{:?} of {field:?} is {found:?}: {cells:?}", lane.part);
}

/// Whether a sum is kept in two parts.
fn has_low(kind: Kind) -> bool {
    kind.width() >= 4
}

fn integer(found: Wide) -> i128 {
    match found {
        Wide::Unsigned(found) => found.into(),
        Wide::Signed(found) => found.into(),
        Wide::Float(found) => panic!("{found} is not an integer"),
    }
}

/// The minimum or the maximum. NaN counts only if all values are NaN.
fn extreme(cells: &[NaiveCell], greatest: bool) -> NaiveCell {
    if let NaiveCell::Integer(_) = cells[0] {
        let mut numbers: Vec<i128> = cells.iter().map(NaiveCell::integer).collect();
        numbers.sort_unstable();
        return NaiveCell::Integer(numbers[if greatest { numbers.len() - 1 } else { 0 }]);
    }
    let mut numbers: Vec<f64> = cells.iter().map(NaiveCell::float).collect();
    numbers.retain(|number| !number.is_nan());
    numbers.sort_unstable_by(f64::total_cmp);
    let found = if greatest { numbers.last() } else { numbers.first() };
    NaiveCell::Float(found.copied().unwrap_or(f64::NAN))
}

fn is_mean(found: Wide, values: &[f64]) -> bool {
    let Wide::Float(found) = found else { return false };
    if values.iter().any(|value| !value.is_finite()) {
        let expected: f64 = values.iter().filter(|value| !value.is_finite()).sum();
        return found.is_nan() && expected.is_nan() || found == expected;
    }
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    (found - exact_mean(values)).abs() <= TOLERANCE * largest + f64::MIN_POSITIVE
}
