//! Bytes that a part of a stream or client holds of its share, given back when it is dropped. A
//! part without a share may hold any number, as in tests and benchmarks.

use super::account::MemoryShare;
use std::sync::Arc;

/// Bytes of a share.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes {
    share: Option<Arc<MemoryShare>>,
    bytes: usize,
}

impl HeldBytes {
    /// No bytes yet, of `share`.
    pub(crate) fn of(share: &Arc<MemoryShare>) -> Self {
        HeldBytes { share: Some(Arc::clone(share)), bytes: 0 }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds `more`, unless there is no room for them: then nothing changes.
    pub(crate) fn ask(&mut self, more: usize) -> bool {
        let granted = self.share.as_ref().is_none_or(|share| share.ask(more));
        if granted {
            self.bytes += more;
        }
        granted
    }

    /// Holds exactly `bytes` from now on, whether there is room for them or not.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let Some(share) = &self.share else { return };
        match bytes.checked_sub(before) {
            Some(0) => {}
            Some(more) => share.force(more),
            None => share.give_back(before - bytes),
        }
    }

    /// Holds what the other held as well.
    pub(crate) fn absorb(&mut self, mut other: HeldBytes) {
        match (&self.share, &other.share) {
            (_, None) => {}
            (None, Some(_)) => *self = other,
            (Some(_), Some(_)) => self.bytes += std::mem::take(&mut other.bytes),
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.give_back(self.bytes);
        }
    }
}
