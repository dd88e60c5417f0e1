//! Stores distinct texts by code, and defines the limits on them. `intern` looks them up.

/// Distinct texts, by code. Codes number the texts in the order in which they first appeared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<u32>,
}

impl Texts {
    /// Number of texts. Their codes are `0..len`.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that they take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text with this code.
    ///
    /// # Panics
    /// Panics if there is no such code.
    pub fn get(&self, code: usize) -> &[u8] {
        let start = if code == 0 { 0 } else { self.ends[code - 1] as usize };
        &self.bytes[start..self.ends[code] as usize]
    }
}

impl Texts {
    /// A copy of the texts from code `first` on, with codes from 0.
    pub fn since(&self, first: usize) -> Texts {
        let start = if first == 0 { 0 } else { self.ends[first - 1] };
        Texts {
            bytes: self.bytes[start as usize..].to_vec(),
            ends: self.ends[first..].iter().map(|end| end - start).collect(),
        }
    }

    /// Appends other texts. Their codes continue after the last one here.
    pub fn append(&mut self, later: &Texts) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&later.bytes);
        self.ends.extend(later.ends.iter().map(|end| end + start));
    }
}

/// The limit that a text would have exceeded. The text was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextLimit {
    /// The distinct texts would take too many bytes in all.
    #[error("distinct texts take more than {limit} bytes (--strings-bytes-limit)")]
    Bytes {
        /// The limit in force.
        limit: usize,
    },
    /// There is no memory for another text now. Once there is, the stream may go on.
    #[error("no memory for another distinct text (--memory-limit)")]
    Memory,
    /// There would be more distinct texts than allowed groups, and each makes at least one group.
    #[error(
        "more than {}, each of them a group (--groups-limit)", counted(.limit, "distinct text")
    )]
    Groups {
        /// The limit in force.
        limit: usize,
    },
}
use crate::wire::text::counted;
