//! Decodes runs of records into groups or columns, one tight loop per field. Finding the records is
//! up to the parser; the received bytes are not modified.

use super::intern::Interner;
use super::texts::{TextLimit, Texts};
use crate::config::Config;
use crate::engine::blocks::block::{BLOCK_RECORDS, Block, BlockRecords, Rows};
use crate::engine::blocks::number::{Number, with_number};
use crate::engine::groups::columns::{Column, ColumnSet};
use crate::engine::groups::plan::{KeyBits, NumberKey, Plan, Source};
use crate::engine::groups::table::GroupTable;
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use crate::wire::records::packets::Run;
use crate::wire::schema::Kind;
use std::sync::Arc;

/// The result of [`Decoder::decode`] or [`Decoder::fold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Records taken; each is one row.
    pub records: usize,
    /// Why the remaining records were left out, if any were.
    pub limit: Option<RowLimit>,
}

/// The limit that a record would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLimit {
    /// A limit on texts.
    Text(TextLimit),
    /// The limit on groups.
    Groups,
    /// There is no memory for a text or a group now. Once there is, the stream may go on.
    Memory,
}

impl From<TextLimit> for RowLimit {
    fn from(limit: TextLimit) -> Self {
        match limit {
            TextLimit::Memory => RowLimit::Memory,
            limit => RowLimit::Text(limit),
        }
    }
}

/// Decodes the records of one stream and keeps the texts of its keys.
pub struct Decoder {
    plan: Arc<Plan>,
    /// One for each key that is text.
    interners: Vec<Interner>,
    strings_bytes_limit: usize,
    /// The keys of a block, one after another.
    keys: Vec<u64>,
    codes: Vec<u32>,
}

impl Decoder {
    /// A decoder for a stream at its start.
    pub fn new(plan: &Arc<Plan>, config: &Config) -> Self {
        let (groups_limit, bytes_limit) = (config.groups_limit, config.strings_bytes_limit);
        let interner = |text: &crate::engine::groups::plan::TextKey| {
            Interner::with_limits(text.form, groups_limit, bytes_limit)
        };
        Decoder {
            plan: Arc::clone(plan),
            interners: plan.texts().iter().map(interner).collect(),
            strings_bytes_limit: bytes_limit,
            keys: vec![0; BLOCK_RECORDS * plan.key_words()],
            codes: vec![0; BLOCK_RECORDS],
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The distinct values of each key that is text, in the order of the keys.
    pub fn texts(&self) -> impl Iterator<Item = &Texts> {
        self.interners.iter().map(Interner::texts)
    }

    /// The same, at the end of the stream.
    pub fn into_texts(self) -> Vec<Texts> {
        self.interners.into_iter().map(Interner::into_texts).collect()
    }

    /// Hands over what the texts hold.
    pub(crate) fn take_memory(&mut self) -> Vec<HeldBytes> {
        self.interners.iter_mut().map(Interner::take_memory).collect()
    }

    /// Counts what the texts take as part of `share`.
    pub(crate) fn count_in(&mut self, share: &Arc<MemoryShare>) {
        let result_copies = self.plan.text_result_copies();
        for interner in &mut self.interners {
            interner.count_in(share, result_copies);
        }
    }

    /// Appends the records of `runs` to `set`, directly from the received bytes.
    ///
    /// The set must have room for them: [`PacketParser::parse`] takes the number of free rows as
    /// its limit. If a text exceeds a limit, the records before it are in the columns, and its own
    /// record and later ones are not.
    ///
    /// [`PacketParser::parse`]: crate::wire::records::packets::PacketParser
    pub fn decode(&mut self, received: &[u8], runs: &[Run], set: &mut ColumnSet) -> Decoded {
        let mut records = BlockRecords::of(runs, received, self.plan.form().record_bytes);
        let mut block = Block::new();
        let mut decoded = Decoded { records: 0, limit: None };
        while decoded.limit.is_none() && block.fill(&mut records) {
            let (rows, limit) = self.make_keys(&block);
            self.append(&block, rows, set);
            decoded.records += rows;
            decoded.limit = limit.map(RowLimit::from);
        }
        decoded
    }

    /// Folds the records of `runs` into their groups. If a text or a group exceeds a limit, the
    /// records before it are folded in, and its own record and later ones are not. Without memory
    /// for one it is the same, but later they may be.
    pub fn fold(&mut self, received: &[u8], runs: &[Run], groups: &mut GroupTable) -> Decoded {
        #[cfg(target_arch = "x86_64")]
        if wide_registers() {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { self.fold_avx2(received, runs, groups) };
        }
        self.fold_anywhere(received, runs, groups)
    }

    /// The same code with wider registers: texts are examined 32 bytes at a time instead of 16.
    ///
    /// # Safety
    /// The processor must have AVX2, LZCNT, BMI1 and BMI2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn fold_avx2(&mut self, received: &[u8], runs: &[Run], groups: &mut GroupTable) -> Decoded {
        self.fold_anywhere(received, runs, groups)
    }

    #[inline(always)]
    fn fold_anywhere(&mut self, received: &[u8], runs: &[Run], groups: &mut GroupTable) -> Decoded {
        let mut records = BlockRecords::of(runs, received, self.plan.form().record_bytes);
        let mut block = Block::new();
        let mut decoded = Decoded { records: 0, limit: None };
        while decoded.limit.is_none() && block.fill(&mut records) {
            let (rows, limit) = self.make_keys(&block);
            let folded = groups.fold(&block, rows, &self.keys);
            decoded.records += folded;
            decoded.limit = match limit {
                _ if folded == rows => limit.map(RowLimit::from),
                _ if groups.is_full() => Some(RowLimit::Groups),
                _ => Some(RowLimit::Memory),
            };
        }
        decoded
    }

    /// Computes the keys of a block. Returns their number and the limit that the next record
    /// exceeds, if any.
    #[inline(always)]
    fn make_keys(&mut self, block: &Block<'_>) -> (usize, Option<TextLimit>) {
        let plan = &*self.plan;
        let key_words = plan.key_words();
        let keys = &mut self.keys[..block.len() * key_words];
        keys.fill(0);
        for number in plan.numbers() {
            add_number(number, plan.is_big_endian(), block, keys, key_words);
        }
        if !self.has_room_for_texts(block.len()) {
            return self.code_texts_by_row(block);
        }
        let (mut to, mut limit) = (block.len(), None);
        for i in 0..self.interners.len() {
            let text = &self.plan.texts()[i];
            let fields = block.texts(Rows { from: 0, to }, text.offset, text.form.width());
            let (coded, beyond) = self.interners[i].code_fields(fields, &mut self.codes[..to]);
            limit = beyond.map(|limit| self.whole_limit(limit)).or(limit);
            to = coded;
            add_codes(&text.bits, &self.codes[..to], &mut self.keys, key_words);
        }
        (to, limit)
    }

    /// Whether the texts of this many records cannot exceed the limit of bytes that all texts of a
    /// stream share. A single interner enforces that limit itself.
    #[inline(always)]
    fn has_room_for_texts(&self, rows: usize) -> bool {
        let texts = self.plan.texts();
        if texts.len() < 2 {
            return true;
        }
        let widths: usize = texts.iter().map(|text| text.form.width()).sum();
        self.text_bytes() + rows * widths <= self.strings_bytes_limit
    }

    fn text_bytes(&self) -> usize {
        self.interners.iter().map(Interner::text_bytes).sum()
    }

    /// Codes texts record by record when the limit of their bytes is near, because the record that
    /// exceeds it must not depend on how the stream was split.
    #[cold]
    fn code_texts_by_row(&mut self, block: &Block<'_>) -> (usize, Option<TextLimit>) {
        let key_words = self.plan.key_words();
        for row in 0..block.len() {
            for i in 0..self.interners.len() {
                let others = self.text_bytes() - self.interners[i].text_bytes();
                self.interners[i].limit_bytes(self.strings_bytes_limit - others);
                let text = &self.plan.texts()[i];
                let rows = Rows { from: row, to: row + 1 };
                let field = block.texts(rows, text.offset, text.form.width()).get(0);
                match self.interners[i].code(field) {
                    Ok(code) => self.codes[0] = code,
                    Err(limit) => return (row, Some(self.whole_limit(limit))),
                }
                let key = &mut self.keys[row * key_words..];
                add_codes(&text.bits, &self.codes[..1], key, key_words);
            }
        }
        (block.len(), None)
    }

    /// Replaces an interner's share of the limit with the limit of all texts together.
    fn whole_limit(&self, limit: TextLimit) -> TextLimit {
        match limit {
            TextLimit::Bytes { .. } => TextLimit::Bytes { limit: self.strings_bytes_limit },
            groups => groups,
        }
    }

    fn append(&self, block: &Block<'_>, rows: usize, set: &mut ColumnSet) {
        let key_words = self.plan.key_words();
        for (i, words) in set.keys.iter_mut().enumerate() {
            words.extend(self.keys[i..].iter().step_by(key_words).take(rows));
        }
        let rows = Rows { from: 0, to: rows };
        for (source, column) in self.plan.sources().iter().zip(&mut set.values) {
            append_values(source, self.plan.is_big_endian(), block, rows, column);
        }
    }
}

/// Whether the processor has the features that [`Decoder::fold_avx2`] is compiled for.
#[cfg(target_arch = "x86_64")]
fn wide_registers() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2")
        && std::is_x86_feature_detected!("lzcnt")
}

/// Writes the bits of a number into the keys of a block.
#[inline(always)]
fn add_number(key: &NumberKey, big: bool, block: &Block<'_>, keys: &mut [u64], key_words: usize) {
    // Flips the sign bit of signed numbers, so that they compare by value.
    let sign = if key.kind.is_signed() { 1 << (key.bits.bits - 1) } else { 0 };
    let rows = Rows { from: 0, to: block.len() };
    with_number!(key.kind, T => {
        let fields = block.fields::<<T as Number>::Bytes>(rows, key.offset);
        match big {
            true => add_bits(&key.bits, fields.map(T::read::<true>), sign, keys, key_words),
            false => add_bits(&key.bits, fields.map(T::read::<false>), sign, keys, key_words),
        }
    });
}

#[inline(always)]
fn add_bits<T: Number>(
    bits: &KeyBits,
    numbers: impl Iterator<Item = T>,
    sign: u64,
    keys: &mut [u64],
    key_words: usize,
) {
    let add = |word: &mut u64, number: T| *word |= (number.to_lane() ^ sign) << bits.shift;
    match key_words {
        1 => keys.iter_mut().zip(numbers).for_each(|(word, number)| add(word, number)),
        _ => {
            let words = keys[bits.word..].iter_mut().step_by(key_words);
            words.zip(numbers).for_each(|(word, number)| add(word, number));
        }
    }
}

/// Writes the codes of a text into the keys of a block.
#[inline(always)]
fn add_codes(bits: &KeyBits, codes: &[u32], keys: &mut [u64], key_words: usize) {
    let add = |word: &mut u64, &code: &u32| *word |= u64::from(code) << bits.shift;
    match key_words {
        1 => keys.iter_mut().zip(codes).for_each(|(word, code)| add(word, code)),
        _ => {
            let words = keys[bits.word..].iter_mut().step_by(key_words);
            words.zip(codes).for_each(|(word, code)| add(word, code));
        }
    }
}

/// Appends a field of each record to a column of values.
fn append_values(source: &Source, big: bool, block: &Block<'_>, rows: Rows, column: &mut Column) {
    with_number!(source.kind, T => {
        for bytes in block.fields::<<T as Number>::Bytes>(rows, source.offset) {
            let number = if big { T::read::<true>(bytes) } else { T::read::<false>(bytes) };
            column.push(number.widened());
        }
    });
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
