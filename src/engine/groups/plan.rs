//! The memory layout that a schema implies: which bits of a key each field takes, and where a group
//! keeps the parts of its aggregates. Computed once per schema.

use super::lanes::{Lane, LaneForm};
use crate::config::RecordSizes;
use crate::config::limits::{
    FOLDED_ROW_COPIES, LATIN1_TEXT_COPIES, SPILLED_SUM_BYTES, TEXT_COPIES,
};
use crate::engine::blocks::paged::SlotForm;
use crate::engine::blocks::text_tag::TextForm;
use crate::wire::records::packets::RecordForm;
use crate::wire::schema::columns::Part;
use crate::wire::schema::{Endian, Field, Kind, Schema};
use crate::wire::text::TextEncoding;
use std::sync::Arc;

/// The count takes the lowest bits of its word, this many.
pub(crate) const COUNT_BITS: u32 = 32;
/// Bits of a text's code within a key.
const CODE_BITS: u32 = 32;

/// The bits of one key. The keys of a group are packed in order, from the highest bit of the first
/// word on, so that comparing words compares keys: numbers by value, texts by rank once their codes
/// are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBits {
    /// Index of the word.
    pub word: usize,
    /// Its lowest bit within the word.
    pub shift: u32,
    /// Number of bits.
    pub bits: u32,
}

impl KeyBits {
    /// The key's value in a word.
    #[inline]
    pub fn of(&self, word: u64) -> u64 {
        (word >> self.shift) & (u64::MAX >> (64 - self.bits))
    }

    /// The word with the key's value replaced.
    #[inline]
    pub fn replace(&self, word: u64, value: u64) -> u64 {
        let mask = (u64::MAX >> (64 - self.bits)) << self.shift;
        word & !mask | value << self.shift
    }
}

/// A key that is a number or bool.
#[derive(Clone, Copy, Debug)]
pub struct NumberKey {
    /// Its index among the schema's keys.
    pub key: usize,
    /// Offset within the record.
    pub offset: usize,
    /// Its type.
    pub kind: Kind,
    /// Its bits. The sign bit of signed numbers is flipped, so that they compare by value.
    pub bits: KeyBits,
}

/// A key that is text or bytes. A group stores its code.
#[derive(Clone, Copy, Debug)]
pub struct TextKey {
    /// Its index among the schema's keys.
    pub key: usize,
    /// Offset within the record.
    pub offset: usize,
    /// Its width and padding.
    pub form: TextForm,
    /// The bits of its code.
    pub bits: KeyBits,
}

/// A column of values, used if whole columns are aggregated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the field.
    pub name: String,
    /// Offset of the field within the record.
    pub offset: usize,
    /// Type of the field.
    pub kind: Kind,
}

/// The layout of a group's slot: the words of the key, a word with the count, and the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSlots {
    words: usize,
    count_word: usize,
}

impl SlotForm for GroupSlots {
    #[inline(always)]
    fn words(self) -> usize {
        self.words
    }

    #[inline(always)]
    fn live_word(self) -> usize {
        self.count_word
    }
}

/// The layout that all streams of one schema share.
#[derive(Debug)]
pub struct Plan {
    schema: Arc<Schema>,
    form: RecordForm,
    numbers: Vec<NumberKey>,
    texts: Vec<TextKey>,
    key_bits: Vec<KeyBits>,
    key_words: usize,
    lanes: Vec<Lane>,
    slots: GroupSlots,
    sources: Vec<Source>,
}

impl Plan {
    /// The plan for streams of a schema.
    pub fn new(schema: Arc<Schema>) -> Arc<Self> {
        let (key_bits, key_words) = pack_keys(&schema);
        let (lanes, words) = lay_out(&schema, key_words);
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for (key, (field, &bits)) in schema.keys().zip(&key_bits).enumerate() {
            let (offset, kind) = (field.offset, field.kind);
            match kind.is_text() {
                true => texts.push(TextKey { key, offset, form: TextForm::of(kind), bits }),
                false => numbers.push(NumberKey { key, offset, kind, bits }),
            }
        }
        let sources = sources_of(&schema);
        Arc::new(Plan {
            form: RecordForm::of(&schema),
            slots: GroupSlots { words, count_word: key_words },
            schema,
            numbers,
            texts,
            key_bits,
            key_words,
            lanes,
            sources,
        })
    }

    /// The schema.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Where records begin and end.
    pub fn form(&self) -> &RecordForm {
        &self.form
    }

    /// Whether numbers are big-endian.
    pub fn is_big_endian(&self) -> bool {
        self.schema.endian() == Endian::Big
    }

    /// The keys that are numbers.
    pub fn numbers(&self) -> &[NumberKey] {
        &self.numbers
    }

    /// The keys that are texts. Each has its own interner.
    pub fn texts(&self) -> &[TextKey] {
        &self.texts
    }

    /// The bits of all keys, in the schema's order.
    pub fn key_bits(&self) -> &[KeyBits] {
        &self.key_bits
    }

    /// Words of a key.
    pub fn key_words(&self) -> usize {
        self.key_words
    }

    /// The lanes, in the order of the schema's parts.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The layout of a group's slot.
    pub fn slots(&self) -> GroupSlots {
        self.slots
    }

    /// Index of the word whose lowest bits are the count.
    pub fn count_word(&self) -> usize {
        self.slots.count_word
    }

    /// The columns of values, used if whole columns are aggregated.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The number of sums that may be spilled.
    fn spilled_sums(&self) -> usize {
        let may_spill = |lane: &&Lane| {
            !lane.follows && matches!(lane.form, LaneForm::SingleSum | LaneForm::DoubleSum)
        };
        self.lanes.iter().filter(may_spill).count()
    }

    /// The memory that its records take.
    pub fn sizes(&self) -> RecordSizes {
        let word = size_of::<u64>();
        RecordSizes {
            record_bytes: self.form.record_bytes,
            packet_bytes_min: self.schema.packet_bytes_min(),
            row_bytes: (self.key_words + self.sources.len()) * word,
            partial_row_bytes: (self.key_words + 1 + self.lanes.len()) * word,
            slot_bytes: self.slots.words * word,
            spilled_bytes: self.spilled_sums() * (SPILLED_SUM_BYTES + (self.key_words + 1) * word),
            texts: self.texts.len(),
            text_bytes: self.texts.iter().map(|text| text.form.width()).sum(),
            text_copies: self.text_copies(),
        }
    }

    /// Bytes that a group takes while the result is made, in addition to its slot.
    pub(crate) fn result_bytes(&self) -> usize {
        FOLDED_ROW_COPIES * self.sizes().partial_row_bytes
    }

    /// Copies of the bytes of distinct texts in the result; those in `text_copies` besides are the
    /// interned one and the slack of its vector.
    pub(crate) fn text_result_copies(&self) -> usize {
        self.text_copies() - 2
    }

    /// Copies of the bytes of distinct texts at the peak, while a result is made.
    fn text_copies(&self) -> usize {
        let is_latin1 = |key: &Field| key.kind.is_text() && key.encoding == TextEncoding::Latin1;
        if self.schema.keys().any(is_latin1) { LATIN1_TEXT_COPIES } else { TEXT_COPIES }
    }
}

fn pack_keys(schema: &Schema) -> (Vec<KeyBits>, usize) {
    let (mut word, mut left) = (0, u64::BITS);
    let bits = schema.keys().map(|field| {
        let bits = match field.kind.is_text() {
            true => CODE_BITS,
            false => 8 * field.kind.width() as u32,
        };
        if bits > left {
            (word, left) = (word + 1, u64::BITS);
        }
        left -= bits;
        KeyBits { word, shift: left, bits }
    });
    let bits: Vec<KeyBits> = bits.collect();
    (bits, word + 1)
}

/// What the words of a part hold, and whether they are those of the part before, of the same field.
fn form_of(part: Part, kind: Kind) -> (LaneForm, bool) {
    let wide = kind.width() == size_of::<u64>();
    match part {
        Part::Min | Part::Max | Part::First | Part::Last => (LaneForm::Value, false),
        Part::Sum | Part::SumLow if wide => (LaneForm::HalfSum, false),
        Part::Sum | Part::SumLow => (LaneForm::Sum, part == Part::SumLow),
        // Where it is, is known once the lanes are laid out.
        Part::M2 if !kind.is_float() => (LaneForm::Squares { sum: 0 }, false),
        // Of floats. Sums do not follow from the distances: those are as large as the first value,
        // and their sum has lost what is left when large values cancel.
        Part::M2 | Part::Unit => (LaneForm::Distances, part == Part::Unit),
        _ if kind == Kind::F32 => (LaneForm::SingleSum, part != Part::Mean),
        _ => (LaneForm::DoubleSum, part != Part::Mean),
    }
}

fn lanes_of(schema: &Schema) -> Vec<Lane> {
    let parts = schema.parts();
    let lanes = parts.iter().map(|&(field, part)| {
        let crate::wire::schema::Field { offset, kind, .. } = schema.fields()[field];
        let (form, follows) = form_of(part, kind);
        Lane { field, part, form, follows, offset, kind, word: 0, shift: 0 }
    });
    lanes.collect()
}

/// Lays out the lanes and returns the number of words of a slot. Narrow lanes share words with the
/// count and one another; the rest take whole words. The number of words is even, so that few slots
/// straddle two cache lines.
fn lay_out(schema: &Schema, key_words: usize) -> (Vec<Lane>, usize) {
    let mut lanes = lanes_of(schema);
    let (mut word, mut used) = (key_words, COUNT_BITS);
    for lane in &mut lanes {
        let bits = lane.form.bits(lane.kind);
        if bits < u64::BITS {
            if used + bits > u64::BITS {
                (word, used) = (word + 1, 0);
            }
            (lane.word, lane.shift) = (word, used);
            used += bits;
        }
    }
    let (mut words, mut begun, mut sum) = (word + 1, 0, 0);
    for lane in &mut lanes {
        let bits = lane.form.bits(lane.kind);
        if bits < u64::BITS {
            continue;
        }
        if !lane.follows {
            begun = words;
            words += (bits / u64::BITS) as usize;
        }
        lane.word = begun;
        match &mut lane.form {
            // Sorted by field and part, squares come after the sum of their field.
            LaneForm::Squares { sum: of } => *of = sum,
            _ if lane.part == Part::Sum => sum = begun,
            _ => {}
        }
    }
    (lanes, words.next_multiple_of(2))
}

fn sources_of(schema: &Schema) -> Vec<Source> {
    let mut fields: Vec<usize> = schema.parts().into_iter().map(|(field, _)| field).collect();
    fields.dedup();
    let source = |field: usize| {
        let crate::wire::schema::Field { name, offset, kind, .. } = &schema.fields()[field];
        Source { name: name.clone(), offset: *offset, kind: *kind }
    };
    fields.into_iter().map(source).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
