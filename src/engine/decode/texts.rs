//! Distinct texts by code, and the limits on them. Finds none: `intern` does.

/// Distinct texts, by code. A code is the order in which its text first came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<u32>,
}

impl Texts {
    /// How many texts there are; their codes are `0..len`.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of a code that was given out.
    ///
    /// # Panics
    /// If the code was not given out.
    pub fn get(&self, code: usize) -> &[u8] {
        let start = if code == 0 { 0 } else { self.ends[code - 1] as usize };
        &self.bytes[start..self.ends[code] as usize]
    }
}

impl Texts {
    /// A copy of those from code `first` on, with codes of their own from 0.
    pub fn since(&self, first: usize) -> Texts {
        let start = if first == 0 { 0 } else { self.ends[first - 1] };
        Texts {
            bytes: self.bytes[start as usize..].to_vec(),
            ends: self.ends[first..].iter().map(|end| end - start).collect(),
        }
    }

    /// Puts others behind these. Their codes go on from the last one here.
    pub fn append(&mut self, later: &Texts) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&later.bytes);
        self.ends.extend(later.ends.iter().map(|end| end + start));
    }
}

/// A text that would go beyond a limit. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextLimit {
    /// All distinct texts together would take too many bytes.
    #[error("distinct texts take more than {limit} bytes (--strings-bytes-limit)")]
    Bytes {
        /// The limit in force.
        limit: usize,
    },
    /// More distinct texts than there may be groups: each text makes at least one group.
    #[error("more than {limit} distinct texts, hence groups (--groups-limit)")]
    Groups {
        /// The limit in force.
        limit: usize,
    },
}
