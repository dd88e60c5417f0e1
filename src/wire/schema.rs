//! Where the fields of a record stand: describes bytes and decodes none of them.

/// A field of the record: its name, its first byte and how many bytes it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as it stands in results.
    pub name: &'static str,
    /// Offset of the first byte within the record.
    pub offset: usize,
    /// Bytes of the field.
    pub width: usize,
}

/// u32, big-endian. First part of the key.
pub const A: Field = Field { name: "A", offset: 0, width: 4 };
/// u16, big-endian. Its mean is reported.
pub const B: Field = Field { name: "B", offset: 4, width: 2 };
/// IEEE 754 binary32, big-endian. Its sum is reported, in binary64.
pub const C: Field = Field { name: "C", offset: 6, width: 4 };
/// i8. Its minimum is reported.
pub const D: Field = Field { name: "D", offset: 10, width: 1 };
/// Text, padded at its end with 0x00 and 0x20 in any mix. Second part of the key.
pub const E: Field = Field { name: "E", offset: 11, width: 256 };

/// The fields in the order of their bytes.
pub const FIELDS: [Field; 5] = [A, B, C, D, E];

/// Bytes of one record.
pub const RECORD_BYTES: usize = 267;

// The fields lie end to end and add up to the record.
const _: () = {
    let mut end = 0;
    let mut i = 0;
    while i < FIELDS.len() {
        assert!(FIELDS[i].offset == end);
        end += FIELDS[i].width;
        i += 1;
    }
    assert!(end == RECORD_BYTES);
};
