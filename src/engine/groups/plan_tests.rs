//! Checks the layout of keys and slots for any schema: nothing overlaps, and the sizes that a plan
//! reports are those that are allocated.

use super::*;
use crate::engine::groups::columns::{Column, ColumnSet, PartialSet};
use crate::engine::oracle::any;
use crate::wire::schema::{Aggregate, Framing, Function};
use crate::wire::text::Padding;
use proptest::prelude::*;

/// Marks bits as taken, which must have been free.
fn take(words: &mut [u64], word: usize, shift: u32, bits: u32) {
    assert!(shift + bits <= u64::BITS, "{bits} bits from {shift}");
    let mask = (u64::MAX >> (u64::BITS - bits)) << shift;
    assert_eq!(words[word] & mask, 0, "bits {shift} to {} of {word} are taken", shift + bits);
    words[word] |= mask;
}

fn check_keys(plan: &Plan) {
    let mut words = vec![0; plan.key_words()];
    let mut before = None;
    for (field, bits) in plan.schema().keys().zip(plan.key_bits()) {
        let expected = if field.kind.is_text() { 32 } else { 8 * field.kind.width() as u32 };
        assert_eq!(bits.bits, expected, "{field:?}");
        take(&mut words, bits.word, bits.shift, bits.bits);
        // The first keys have the highest bits, so that words compare as keys do.
        let place = (bits.word, u64::BITS - bits.shift);
        assert!(before < Some(place), "{field:?} is after {before:?}");
        before = Some(place);
    }
    assert!(words.iter().all(|&word| word != 0), "every word has a key");
    let keys = plan.numbers().len() + plan.texts().len();
    assert_eq!((keys, plan.key_bits().len()), (plan.schema().keys().len(), keys));
}

fn check_lanes(plan: &Plan) {
    let mut words = vec![0; plan.slots().words()];
    words[..plan.key_words()].fill(u64::MAX);
    take(&mut words, plan.count_word(), 0, COUNT_BITS);
    for (number, lane) in plan.lanes().iter().enumerate() {
        if lane.follows {
            let before = plan.lanes()[number - 1];
            assert_eq!(
                (lane.field, lane.word, lane.form),
                (before.field, before.word, before.form)
            );
            continue;
        }
        if let LaneForm::Squares { sum } = lane.form {
            let of_sum = |other: &&Lane| (other.field, other.part) == (lane.field, Part::Sum);
            assert_eq!(plan.lanes().iter().find(of_sum).unwrap().word, sum);
        }
        let bits = lane.form.bits(lane.kind);
        for word in 0..bits.div_ceil(u64::BITS) {
            take(&mut words, lane.word + word as usize, lane.shift, bits.min(u64::BITS));
        }
    }
    let parts: Vec<_> = plan.lanes().iter().map(|lane| (lane.field, lane.part)).collect();
    assert_eq!(parts, plan.schema().parts());
    assert_eq!(plan.slots().words() % 2, 0);
}

fn capacity(columns: &[Column]) -> usize {
    let bytes = columns.iter().map(|column| match column {
        Column::Unsigned(column) => 8 * column.capacity(),
        Column::Signed(column) => 8 * column.capacity(),
        Column::Float(column) => 8 * column.capacity(),
    });
    bytes.sum()
}

/// Compares the sizes that the plan reports with the sets as allocated.
fn check_sizes(plan: &Arc<Plan>) {
    let sizes = plan.sizes();
    let words = |keys: &[Vec<u64>]| keys.iter().map(|words| 8 * words.capacity()).sum::<usize>();
    let set = ColumnSet::with_rows(plan, 1);
    assert_eq!(sizes.row_bytes, words(&set.keys) + capacity(&set.values));
    let set = PartialSet::with_rows(plan, 1);
    let taken = words(&set.keys) + 8 * set.counts.capacity() + capacity(&set.parts);
    assert_eq!(sizes.partial_row_bytes, taken);
    assert_eq!(sizes.slot_bytes, 8 * plan.slots().words());
    let schema = plan.schema();
    let texts = schema.keys().map(|key| key.kind).filter(|kind| kind.is_text());
    let widths: Vec<usize> = texts.map(Kind::width).collect();
    assert_eq!((sizes.texts, sizes.text_bytes), (widths.len(), widths.iter().sum()));
    assert_eq!(sizes.record_bytes, schema.record_bytes());
    assert_eq!(sizes.packet_bytes_min, schema.packet_bytes_min());
}

/// `config` must not depend on schemas, so it repeats the built-in one's sizes as numbers.
#[test]
fn default_sizes_are_those_of_the_built_in_schema() {
    assert_eq!(Plan::new(Schema::built_in()).sizes(), RecordSizes::default());
}

/// The slot of the built-in schema takes half a cache line.
#[test]
fn the_built_in_schema_takes_four_words() {
    let plan = Plan::new(Schema::built_in());
    let lanes: Vec<_> =
        plan.lanes().iter().map(|lane| (lane.part, lane.word, lane.shift)).collect();
    let c = [(Part::Mean, 3, 0), (Part::Rest, 3, 0)];
    assert_eq!(lanes, [(Part::Sum, 2, 0), c[0], c[1], (Part::Min, 1, 32)]);
    assert_eq!((plan.key_words(), plan.count_word(), plan.slots().words()), (1, 1, 4));
}

/// Eight keys and sixty-four aggregates make the widest slot.
#[test]
fn the_widest_slot_is_laid_out() {
    let mut fields: Vec<(String, Kind)> = (0..8).map(|i| (format!("k{i}"), Kind::U64)).collect();
    fields.extend((0..64).map(|i| (format!("v{i}"), Kind::F64)));
    let made = (8..72).map(|field| Aggregate::Of { field, function: Function::Std }).collect();
    let (name, framing) = ("wide".to_owned(), Framing::default());
    let schema = Schema::new(name, Endian::Big, framing, fields, (0..8).collect(), made);
    let plan = Plan::new(Arc::new(schema.unwrap()));
    check_keys(&plan);
    check_lanes(&plan);
    check_sizes(&plan);
    assert_eq!(plan.slots().words(), (8 + 1 + 64 * (2 + 6_usize)).next_multiple_of(2));
}

/// Two texts share a word. A key that does not fit begins the next one.
#[test]
fn keys_share_words_in_their_order() {
    let text = Kind::Text { bytes: 9, padding: Padding::BOTH };
    let kinds = [text, text, Kind::U8, Kind::U64, Kind::I16, text];
    let fields = kinds.iter().enumerate().map(|(i, &kind)| (format!("k{i}"), kind)).collect();
    let (name, framing) = ("keys".to_owned(), Framing::default());
    let schema = Schema::new(name, Endian::Big, framing, fields, (0..6).collect(), Vec::new());
    let plan = Plan::new(Arc::new(schema.unwrap()));
    let places: Vec<_> =
        plan.key_bits().iter().map(|key| (key.word, key.shift, key.bits)).collect();
    let expected = [(0, 32, 32), (0, 0, 32), (1, 56, 8), (2, 0, 64), (3, 48, 16), (3, 16, 32)];
    assert_eq!(places, expected);
    check_keys(&plan);
}

proptest! {
    #[test]
    fn the_layout_of_any_schema_has_no_overlap(schema in any::schema()) {
        let plan = Plan::new(Arc::new(schema));
        check_keys(&plan);
        check_lanes(&plan);
        check_sizes(&plan);
    }
}
