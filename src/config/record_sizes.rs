//! Sizes that follow from a schema, as plain numbers. `config` knows nothing of fields.

use super::limits::{
    FOLDED_ROW_COPIES, GROUP_PAGE_SLOTS, PARTIAL_ROW_COPIES, SLOT_SIXTEENTHS, TEXT_COPIES,
    TEXT_OVERHEAD_BYTES,
};

/// Sizes that follow from a schema. `engine::groups::plan` computes them; the default is that of
/// the built-in schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSizes {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Bytes of the smallest packet: its length field and one record.
    pub packet_bytes_min: usize,
    /// Bytes of a row in a column set.
    pub row_bytes: usize,
    /// Bytes of a partial group in a column set.
    pub partial_row_bytes: usize,
    /// Bytes of a group's slot in a table.
    pub slot_bytes: usize,
    /// Bytes of what a group's slot has no room for, at most.
    pub spilled_bytes: usize,
    /// Number of keys that are text or bytes.
    pub texts: usize,
    /// Total bytes of these fields in a record.
    pub text_bytes: usize,
    /// Copies of the bytes of distinct texts at the peak.
    pub text_copies: usize,
}

impl Default for RecordSizes {
    fn default() -> Self {
        RecordSizes {
            record_bytes: 267,
            packet_bytes_min: 271,
            row_bytes: 32,
            partial_row_bytes: 48,
            slot_bytes: 32,
            spilled_bytes: 144,
            texts: 1,
            text_bytes: 256,
            text_copies: TEXT_COPIES,
        }
    }
}

impl RecordSizes {
    /// Bytes of a page of groups; each stream has at least one.
    pub fn group_page_bytes(&self) -> usize {
        GROUP_PAGE_SLOTS * self.slot_bytes
    }

    /// Peak bytes of one group or pending row where Polars groups whole columns.
    pub fn group_bytes(&self) -> usize {
        PARTIAL_ROW_COPIES * self.partial_row_bytes
    }

    /// Peak bytes of one group where workers fold records into groups.
    pub fn folded_group_bytes(&self) -> usize {
        let (all, taken) = SLOT_SIXTEENTHS;
        let slots = (self.slot_bytes * all).div_ceil(taken);
        slots + self.spilled_bytes + FOLDED_ROW_COPIES * self.partial_row_bytes
    }

    /// Peak bytes of the texts of one group, if no other group shares them.
    pub fn group_text_bytes(&self) -> usize {
        self.texts * TEXT_OVERHEAD_BYTES + self.text_copies * self.text_bytes
    }

    /// The smallest receive window for such records: room to read one packet while another is
    /// unfinished.
    pub fn window_bytes_min(&self) -> usize {
        2 * self.packet_bytes_min
    }
}
