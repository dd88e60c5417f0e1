//! What the records of a schema take, as plain numbers: knows no field.

use super::limits::{
    FOLDED_ROW_COPIES, GROUP_PAGE_SLOTS, PARTIAL_ROW_COPIES, SLOT_SIXTEENTHS, TEXT_COPIES,
    TEXT_OVERHEAD_BYTES,
};

/// Bytes that a schema implies. `engine::plan` makes them; the default is the built-in schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSizes {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Bytes of the smallest packet: its length, and one record.
    pub packet_bytes_min: usize,
    /// Bytes of a row in a column set.
    pub row_bytes: usize,
    /// Bytes of a group's partial in a column set.
    pub partial_row_bytes: usize,
    /// Bytes of a group's slot in a table.
    pub slot_bytes: usize,
    /// Keys that are text or bytes.
    pub texts: usize,
    /// Bytes of these fields together.
    pub text_bytes: usize,
}

impl Default for RecordSizes {
    fn default() -> Self {
        RecordSizes {
            record_bytes: 267,
            packet_bytes_min: 271,
            row_bytes: 32,
            partial_row_bytes: 40,
            slot_bytes: 32,
            texts: 1,
            text_bytes: 256,
        }
    }
}

impl RecordSizes {
    /// Bytes of a page of groups, of which each stream has at least one.
    pub fn group_page_bytes(&self) -> usize {
        GROUP_PAGE_SLOTS * self.slot_bytes
    }

    /// Bytes that one group or pending row costs at the worst moment where Polars groups whole
    /// columns.
    pub fn group_bytes(&self) -> usize {
        PARTIAL_ROW_COPIES * self.partial_row_bytes
    }

    /// Bytes that one group costs at the worst moment where a worker folds records into groups.
    pub fn folded_group_bytes(&self) -> usize {
        let (all, taken) = SLOT_SIXTEENTHS;
        (self.slot_bytes * all).div_ceil(taken) + FOLDED_ROW_COPIES * self.partial_row_bytes
    }

    /// Bytes that the texts of one group cost at most, where each is its own.
    pub fn group_text_bytes(&self) -> usize {
        self.texts * TEXT_OVERHEAD_BYTES + TEXT_COPIES * self.text_bytes
    }

    /// The smallest window for such records: one is read while another is unfinished.
    pub fn window_bytes_min(&self) -> usize {
        2 * self.packet_bytes_min
    }
}
