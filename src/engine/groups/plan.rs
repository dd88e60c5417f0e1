//! What a schema means for a stream's memory: which bits of a key a field becomes, and where a
//! group keeps what its aggregates need. Made once; decodes nothing and adds nothing up.

use crate::config::RecordSizes;
use crate::engine::blocks::paged::SlotForm;
use crate::engine::blocks::text_tag::TextForm;
use crate::wire::records::packets::RecordForm;
use crate::wire::schema::columns::Part;
use crate::wire::schema::{Endian, Kind, Schema};
use std::sync::Arc;

/// Bits that the count takes of its word, the lowest ones.
pub(crate) const COUNT_BITS: u32 = 32;
/// Bits that a text's code takes of a key.
const CODE_BITS: u32 = 32;
/// Words that mean, sum of squares and number of values take.
const MOMENTS_WORDS: usize = 3;

/// A key's bits. All keys of a group, in their order from the highest bit of the first word on, so
/// that words compare as keys do: numbers by value, and texts by rank once codes are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBits {
    /// Which word of the key.
    pub word: usize,
    /// The lowest of its bits there.
    pub shift: u32,
    /// How many there are.
    pub bits: u32,
}

impl KeyBits {
    /// What stands there.
    #[inline]
    pub fn of(&self, word: u64) -> u64 {
        (word >> self.shift) & (u64::MAX >> (64 - self.bits))
    }

    /// A word with something else there.
    #[inline]
    pub fn replace(&self, word: u64, value: u64) -> u64 {
        let mask = (u64::MAX >> (64 - self.bits)) << self.shift;
        word & !mask | value << self.shift
    }
}

/// A key that is a number or bool.
#[derive(Clone, Copy, Debug)]
pub struct NumberKey {
    /// Its place among the schema's keys.
    pub key: usize,
    /// First byte within the record.
    pub offset: usize,
    /// Its type.
    pub kind: Kind,
    /// Its bits. Those of signed numbers have their sign turned, so that they compare by value.
    pub bits: KeyBits,
}

/// A key that is text or bytes, of which a group has the code.
#[derive(Clone, Copy, Debug)]
pub struct TextKey {
    /// Its place among the schema's keys.
    pub key: usize,
    /// First byte within the record.
    pub offset: usize,
    /// How it is wide and padded.
    pub form: TextForm,
    /// The bits of its code.
    pub bits: KeyBits,
}

/// Where a group keeps a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Index of the field that it is made of.
    pub field: usize,
    /// What is made of it.
    pub(crate) part: Part,
    /// First byte of the field within the record.
    pub offset: usize,
    /// Type of the field.
    pub kind: Kind,
    /// The word of the slot.
    pub word: usize,
    /// The lowest of its bits there.
    pub shift: u32,
}

/// A column of values that parts are made of where whole columns are aggregated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name: that of the field, or of a half of it.
    pub name: String,
    /// First byte of the field within the record.
    pub offset: usize,
    /// Type of the field.
    pub kind: Kind,
    /// Which bits of it.
    pub bits: Half,
}

/// Which part of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The number itself.
    Whole,
    /// The upper half of a 64-bit integer, with its sign.
    High,
    /// The lower half, without a sign.
    Low,
}

/// Slots of groups: the words of the key, a word with the count, and the lanes.
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

/// Everything that the streams of one schema share.
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

    /// Whether numbers have their highest byte first.
    pub fn is_big_endian(&self) -> bool {
        self.schema.endian() == Endian::Big
    }

    /// The keys that are numbers.
    pub fn numbers(&self) -> &[NumberKey] {
        &self.numbers
    }

    /// The keys that are texts. Each has an interner of its own.
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

    /// The form of a group's slot.
    pub fn slots(&self) -> GroupSlots {
        self.slots
    }

    /// The word of a slot whose lowest bits are the count.
    pub fn count_word(&self) -> usize {
        self.slots.count_word
    }

    /// The columns of values, where whole columns are aggregated.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What its records take.
    pub fn sizes(&self) -> RecordSizes {
        let word = size_of::<u64>();
        RecordSizes {
            record_bytes: self.form.record_bytes,
            packet_bytes_min: self.schema.packet_bytes_min(),
            row_bytes: (self.key_words + self.sources.len()) * word,
            partial_row_bytes: (self.key_words + 1 + self.lanes.len()) * word,
            slot_bytes: self.slots.words * word,
            texts: self.texts.len(),
            text_bytes: self.texts.iter().map(|text| text.form.width()).sum(),
        }
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

/// Bits that a part takes of a slot.
fn lane_bits(part: Part, kind: Kind) -> u32 {
    match part {
        Part::Min | Part::Max | Part::First | Part::Last => 8 * kind.width() as u32,
        Part::Sum | Part::SumLow | Part::Mean | Part::M2 => u64::BITS,
    }
}

/// The lanes, and the words of a slot: narrow lanes beside the count and each other, then those
/// that take a word. An even number of words, so that few slots lie across two lines of the cache.
fn lay_out(schema: &Schema, key_words: usize) -> (Vec<Lane>, usize) {
    let mut lanes: Vec<Lane> = schema
        .parts()
        .into_iter()
        .map(|(field, part)| {
            let crate::wire::schema::Field { offset, kind, .. } = schema.fields()[field];
            Lane { field, part, offset, kind, word: 0, shift: 0 }
        })
        .collect();
    let (mut word, mut used) = (key_words, COUNT_BITS);
    for lane in &mut lanes {
        let bits = lane_bits(lane.part, lane.kind);
        if bits < u64::BITS {
            if used + bits > u64::BITS {
                (word, used) = (word + 1, 0);
            }
            (lane.word, lane.shift) = (word, used);
            used += bits;
        }
    }
    let mut words = word + 1;
    for lane in &mut lanes {
        if lane_bits(lane.part, lane.kind) == u64::BITS {
            // The squares stand behind the mean, which comes before them.
            lane.word = if lane.part == Part::M2 { words - MOMENTS_WORDS + 1 } else { words };
            words += match lane.part {
                Part::Mean => MOMENTS_WORDS,
                Part::M2 => 0,
                _ => 1,
            };
        }
    }
    (lanes, words.next_multiple_of(2))
}

fn sources_of(schema: &Schema) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for (field, part) in schema.parts() {
        let field = &schema.fields()[field];
        let halves = matches!(field.kind, Kind::U64 | Kind::I64);
        let (bits, name) = match part {
            Part::Sum if halves => (Half::High, format!("{}.high", field.name)),
            Part::SumLow => (Half::Low, format!("{}.low", field.name)),
            _ => (Half::Whole, field.name.clone()),
        };
        let source = Source { name, offset: field.offset, kind: field.kind, bits };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
