//! A block of records and the slots of their groups. Bounds are checked once per field for a whole
//! block, so that the loops over its records need no further checks. Decodes nothing and looks
//! nothing up.

use super::paged::SlotWords;
use crate::wire::records::packets::Run;
use std::cell::Cell;
use std::marker::PhantomData;

/// Records that are decoded and folded together: few enough that all their bytes stay in the L1
/// cache from one field's loop to the next.
pub(crate) const BLOCK_RECORDS: usize = 64;

/// The bytes of a number. Every bit pattern is valid.
///
/// # Safety
/// Implement it for arrays of `u8` only: they have alignment 1 and no invalid values.
pub unsafe trait Bytes {}

// SAFETY: an array of `u8`.
unsafe impl<const N: usize> Bytes for [u8; N] {}

/// Iterates over the records of several runs.
pub struct BlockRecords<'a> {
    runs: std::slice::Iter<'a, Run>,
    /// The rest of the current run.
    rest: &'a [u8],
    received: &'a [u8],
    record_bytes: usize,
}

impl<'a> BlockRecords<'a> {
    /// The records of `runs`, which were found in `received`.
    pub fn of(runs: &'a [Run], received: &'a [u8], record_bytes: usize) -> Self {
        BlockRecords { runs: runs.iter(), rest: &[], received, record_bytes }
    }
}

/// Up to [`BLOCK_RECORDS`] whole records, anywhere in the received bytes.
///
/// Each of the first `filled` pointers in `starts` points to `record_bytes` bytes that live for
/// `'a` and are not written to during that time.
pub struct Block<'a> {
    starts: [*const u8; BLOCK_RECORDS],
    filled: usize,
    record_bytes: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Block<'a> {
    /// An empty block.
    #[inline(always)]
    pub fn new() -> Self {
        let starts = [std::ptr::null(); BLOCK_RECORDS];
        Block { starts, filled: 0, record_bytes: 0, bytes: PhantomData }
    }

    /// Replaces the contents with the next records. Returns false if there are none.
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

    /// Number of records.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The bytes of one field in these records.
    ///
    /// # Panics
    /// Panics if the block has fewer records or the field exceeds the record.
    #[inline(always)]
    pub fn fields<B: Bytes + 'a>(&self, rows: Rows, offset: usize) -> impl Iterator<Item = &'a B> {
        self.check(offset, size_of::<B>());
        // SAFETY: each start points to `record_bytes` bytes, and the check above keeps the field
        // within them. A `B` has alignment 1 and no invalid values.
        self.starts[..self.filled][rows.range()]
            .iter()
            .map(move |&start| unsafe { &*start.add(offset).cast::<B>() })
    }

    /// The same as [`fields`](Self::fields), for a field of any width.
    ///
    /// # Panics
    /// Panics as [`fields`](Self::fields) does.
    #[inline(always)]
    pub fn texts(&self, rows: Rows, offset: usize, width: usize) -> Fields<'_, 'a> {
        self.check(offset, width);
        let starts = &self.starts[..self.filled][rows.range()];
        Fields { starts, offset, width, bytes: PhantomData }
    }

    #[inline(always)]
    fn check(&self, offset: usize, width: usize) {
        assert!(offset + width <= self.record_bytes, "a field exceeds its record");
    }
}

impl Default for Block<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// One field of several records of a block.
///
/// Every pointer in `starts` points to at least `offset + width` bytes, as those of the block do.
#[derive(Clone, Copy)]
pub struct Fields<'b, 'a> {
    starts: &'b [*const u8],
    offset: usize,
    width: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Fields<'_, 'a> {
    /// Number of records.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The fields from this position on.
    ///
    /// # Panics
    /// Panics if there are fewer.
    #[inline(always)]
    pub fn from(self, place: usize) -> Self {
        Fields { starts: &self.starts[place..], ..self }
    }

    /// The field at this position.
    ///
    /// # Panics
    /// Panics if the position is out of range.
    #[inline(always)]
    pub fn get(&self, place: usize) -> &'a [u8] {
        // SAFETY: each start points to at least `offset + width` bytes that live for `'a`.
        unsafe { std::slice::from_raw_parts(self.starts[place].add(self.offset), self.width) }
    }
}

impl<'b, 'a> Fields<'b, 'a> {
    /// The first `N` bytes of each field.
    ///
    /// # Panics
    /// Panics if fields have fewer.
    #[inline(always)]
    pub fn first<const N: usize>(&self) -> FieldBytes<'b, 'a, N> {
        assert!(N <= self.width, "more bytes than a field has");
        FieldBytes { starts: self.starts, offset: self.offset, bytes: PhantomData }
    }

    /// The last `N` bytes of each field.
    ///
    /// # Panics
    /// Panics if fields have fewer.
    #[inline(always)]
    pub fn last<const N: usize>(&self) -> FieldBytes<'b, 'a, N> {
        assert!(N <= self.width, "more bytes than a field has");
        let offset = self.offset + self.width - N;
        FieldBytes { starts: self.starts, offset, bytes: PhantomData }
    }
}

/// `N` bytes at the same position of several fields.
///
/// Every pointer in `starts` points to at least `offset + N` bytes, as those of the fields do.
#[derive(Clone, Copy)]
pub struct FieldBytes<'b, 'a, const N: usize> {
    starts: &'b [*const u8],
    offset: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a, const N: usize> FieldBytes<'_, 'a, N> {
    /// The bytes at this position among the fields.
    ///
    /// # Panics
    /// Panics if the position is out of range.
    #[inline(always)]
    pub fn get(&self, place: usize) -> &'a [u8; N] {
        // SAFETY: each start points to at least `offset + N` bytes that live for `'a`; a
        // `[u8; N]` has alignment 1 and no invalid values.
        unsafe { &*self.starts[place].add(self.offset).cast() }
    }
}

/// A range of records of a block.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

impl Rows {
    #[inline(always)]
    fn range(self) -> std::ops::Range<usize> {
        self.from..self.to
    }
}

/// The group slot of each record of a block.
///
/// Every pointer in `starts` points to `words` cells that live for `'a`.
pub struct BlockSlots<'a> {
    starts: [*const Cell<u64>; BLOCK_RECORDS],
    words: usize,
    slots: PhantomData<&'a SlotWords>,
}

impl<'a> BlockSlots<'a> {
    /// Starts every record with the slot `nothing`, a placeholder that is never read.
    #[inline(always)]
    pub fn of(nothing: &'a SlotWords) -> Self {
        let starts = [nothing.as_ptr(); BLOCK_RECORDS];
        BlockSlots { starts, words: nothing.len(), slots: PhantomData }
    }

    /// A setter for the slots of records.
    #[inline(always)]
    pub fn setter(&mut self) -> SlotSetter<'_, 'a> {
        SlotSetter { starts: &mut self.starts, words: self.words, slots: PhantomData }
    }

    /// One word of the slots of these records.
    ///
    /// # Panics
    /// Panics if slots have fewer words.
    #[inline(always)]
    pub fn words(&self, rows: Rows, word: usize) -> impl Iterator<Item = &'a Cell<u64>> {
        assert!(word < self.words, "a word beyond its slot");
        // SAFETY: each start points to `words` cells, and `word` is less than that.
        self.starts[rows.range()].iter().map(move |&start| unsafe { &*start.add(word) })
    }
}

/// Sets the slots of records. A separate value, so that what it checks stays in registers.
pub struct SlotSetter<'s, 'a> {
    starts: &'s mut [*const Cell<u64>; BLOCK_RECORDS],
    words: usize,
    slots: PhantomData<&'a SlotWords>,
}

impl<'a> SlotSetter<'_, 'a> {
    /// Sets the slot of a record.
    ///
    /// # Panics
    /// Panics if the slot has another number of words than the rest.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: &'a SlotWords) {
        assert!(slot.len() == self.words, "slots of one table have the same size");
        self.starts[row] = slot.as_ptr();
    }
}
