//! Records of a block, and the slots of their groups, side by side: decodes nothing and looks for
//! nothing. A field or a word is checked once for the whole block to lie within them, and then
//! read without another check: that is what this file is for.

use super::paged::SlotWords;
use crate::wire::records::packets::Run;
use std::cell::Cell;
use std::marker::PhantomData;

/// Records that are decoded and folded together: few enough that all their bytes stay in the core's
/// first cache from one field's loop to the next.
pub(crate) const BLOCK_RECORDS: usize = 64;

/// The bytes of a number: any bytes are some.
///
/// # Safety
/// Only for arrays of `u8`: of alignment 1, and without values that are none.
pub unsafe trait Bytes {}

// SAFETY: an array of `u8`.
unsafe impl<const N: usize> Bytes for [u8; N] {}

/// The records of runs, one after the other.
pub struct BlockRecords<'a> {
    runs: std::slice::Iter<'a, Run>,
    /// What is left of the run that was begun.
    rest: &'a [u8],
    received: &'a [u8],
    record_bytes: usize,
}

impl<'a> BlockRecords<'a> {
    /// Those of `runs`, which were found in `received`.
    pub fn of(runs: &'a [Run], received: &'a [u8], record_bytes: usize) -> Self {
        BlockRecords { runs: runs.iter(), rest: &[], received, record_bytes }
    }
}

/// Whole records, wherever in the received bytes they are.
///
/// The first `filled` of `starts` point to `record_bytes` bytes each, which live for `'a` and are
/// not written to in that time.
pub struct Block<'a> {
    starts: [*const u8; BLOCK_RECORDS],
    filled: usize,
    record_bytes: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Block<'a> {
    /// None.
    #[inline(always)]
    pub fn new() -> Self {
        let starts = [std::ptr::null(); BLOCK_RECORDS];
        Block { starts, filled: 0, record_bytes: 0, bytes: PhantomData }
    }

    /// Takes the next records in the place of those before; false where there are none.
    #[inline(always)]
    pub fn fill(&mut self, records: &mut BlockRecords<'a>) -> bool {
        self.record_bytes = records.record_bytes;
        self.filled = 0;
        while self.filled < BLOCK_RECORDS {
            if records.rest.is_empty() {
                let Some(run) = records.runs.next() else { break };
                records.rest = run.bytes(records.received, self.record_bytes);
            }
            let places = &mut self.starts[self.filled..];
            let count = (records.rest.len() / self.record_bytes).min(places.len());
            let (now, rest) = records.rest.split_at(count * self.record_bytes);
            let mut at = now.as_ptr();
            for place in &mut places[..count] {
                *place = at;
                at = at.wrapping_add(self.record_bytes);
            }
            self.filled += count;
            records.rest = rest;
        }
        self.filled > 0
    }

    /// Records in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The same bytes of some records.
    ///
    /// # Panics
    /// Where there are not so many records, or these bytes lie outside of them.
    #[inline(always)]
    pub fn fields<B: Bytes + 'a>(&self, rows: Rows, offset: usize) -> impl Iterator<Item = &'a B> {
        self.check(offset, size_of::<B>());
        // SAFETY: each start points to `record_bytes` bytes, of which these are a part; any bytes
        // are a `B`, of alignment 1.
        self.starts[..self.filled][rows.range()]
            .iter()
            .map(move |&start| unsafe { &*start.add(offset).cast::<B>() })
    }

    /// The same for fields of any width.
    ///
    /// # Panics
    /// As [`fields`](Self::fields).
    #[inline(always)]
    pub fn texts(&self, rows: Rows, offset: usize, width: usize) -> Fields<'_, 'a> {
        self.check(offset, width);
        let starts = &self.starts[..self.filled][rows.range()];
        Fields { starts, offset, width, bytes: PhantomData }
    }

    #[inline(always)]
    fn check(&self, offset: usize, width: usize) {
        assert!(offset + width <= self.record_bytes, "a field lies within its record");
    }
}

impl Default for Block<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The same bytes of some records of a block.
///
/// All of `starts` point to `offset + width` bytes at least, as those of the block do.
#[derive(Clone, Copy)]
pub struct Fields<'b, 'a> {
    starts: &'b [*const u8],
    offset: usize,
    width: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Fields<'_, 'a> {
    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Those from a place on.
    ///
    /// # Panics
    /// Where there are not so many.
    #[inline(always)]
    pub fn from(self, place: usize) -> Self {
        Fields { starts: &self.starts[place..], ..self }
    }

    /// That of one record, by its place among them.
    ///
    /// # Panics
    /// Where there is none.
    #[inline(always)]
    pub fn get(&self, place: usize) -> &'a [u8] {
        // SAFETY: each start points to so many bytes, which live for `'a`.
        unsafe { std::slice::from_raw_parts(self.starts[place].add(self.offset), self.width) }
    }
}

impl<'b, 'a> Fields<'b, 'a> {
    /// The first `N` bytes of each.
    ///
    /// # Panics
    /// Where fields have fewer.
    #[inline(always)]
    pub fn first<const N: usize>(&self) -> FieldBytes<'b, 'a, N> {
        assert!(N <= self.width, "a part of a field");
        FieldBytes { starts: self.starts, offset: self.offset, bytes: PhantomData }
    }

    /// The last `N` bytes of each.
    ///
    /// # Panics
    /// Where fields have fewer.
    #[inline(always)]
    pub fn last<const N: usize>(&self) -> FieldBytes<'b, 'a, N> {
        assert!(N <= self.width, "a part of a field");
        let offset = self.offset + self.width - N;
        FieldBytes { starts: self.starts, offset, bytes: PhantomData }
    }
}

/// The same `N` bytes of some fields.
///
/// All of `starts` point to `offset + N` bytes at least, as those of the fields do.
#[derive(Clone, Copy)]
pub struct FieldBytes<'b, 'a, const N: usize> {
    starts: &'b [*const u8],
    offset: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a, const N: usize> FieldBytes<'_, 'a, N> {
    /// Those of one record, by its place among them.
    ///
    /// # Panics
    /// Where there is none.
    #[inline(always)]
    pub fn get(&self, place: usize) -> &'a [u8; N] {
        // SAFETY: each start points to so many bytes, which live for `'a`; any bytes are a
        // `[u8; N]`, of alignment 1.
        unsafe { &*self.starts[place].add(self.offset).cast() }
    }
}

/// Some records of a block that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The first.
    pub from: usize,
    /// Behind the last.
    pub to: usize,
}

impl Rows {
    #[inline(always)]
    fn range(self) -> std::ops::Range<usize> {
        self.from..self.to
    }
}

/// The slots of the groups of a block's records.
///
/// The starts that were set point to `words` cells each, which live for `'a`.
pub struct BlockSlots<'a> {
    starts: [*const Cell<u64>; BLOCK_RECORDS],
    words: usize,
    slots: PhantomData<&'a SlotWords>,
}

impl<'a> BlockSlots<'a> {
    /// One slot for each record: that of nothing, which is never looked at.
    #[inline(always)]
    pub fn of(nothing: &'a SlotWords) -> Self {
        let starts = [nothing.as_ptr(); BLOCK_RECORDS];
        BlockSlots { starts, words: nothing.len(), slots: PhantomData }
    }

    /// What sets the slots of records.
    #[inline(always)]
    pub fn setter(&mut self) -> SlotSetter<'_, 'a> {
        SlotSetter { starts: &mut self.starts, words: self.words, slots: PhantomData }
    }

    /// The same word of the slots of some records.
    ///
    /// # Panics
    /// Where slots have not so many words.
    #[inline(always)]
    pub fn words(&self, rows: Rows, word: usize) -> impl Iterator<Item = &'a Cell<u64>> {
        assert!(word < self.words, "a word of a slot");
        // SAFETY: each start points to `words` cells, of which this is one.
        self.starts[rows.range()].iter().map(move |&start| unsafe { &*start.add(word) })
    }
}

/// Sets the slots of records. A value of its own, so that what it checks stays in registers.
pub struct SlotSetter<'s, 'a> {
    starts: &'s mut [*const Cell<u64>; BLOCK_RECORDS],
    words: usize,
    slots: PhantomData<&'a SlotWords>,
}

impl<'a> SlotSetter<'_, 'a> {
    /// Sets the slot of a record.
    ///
    /// # Panics
    /// Where it has not as many words as the others.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: &'a SlotWords) {
        assert!(slot.len() == self.words, "all slots have the same words");
        self.starts[row] = slot.as_ptr();
    }
}
