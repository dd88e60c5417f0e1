//! The cursors of a receive window: owns no memory and reads no socket. The storage belongs to
//! whoever reads; between two reads it is lent to the methods that need it.
//!
//! ```text
//!   0        consumed        parsed          filled             capacity
//!   |  done     |  in columns?  |  not looked   |  free for the     |
//!   |           |  (runs)       |  at yet       |  next read        |
//! ```
//!
//! `consumed ≤ parsed ≤ filled ≤ capacity` always. Bytes below `consumed` stand in the columns and
//! may be overwritten; those up to `parsed` are known to be whole records; the rest up to `filled`
//! came from the kernel and wait for more.

use std::ops::Range;

/// Cursors over a window of `capacity` bytes. See the module's picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    consumed: usize,
    parsed: usize,
    filled: usize,
    capacity: usize,
}

impl Window {
    /// An empty window over a storage of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Window { consumed: 0, parsed: 0, filled: 0, capacity }
    }

    /// Where the next read may put bytes.
    pub(crate) fn free(&self) -> Range<usize> {
        self.filled..self.capacity
    }

    /// Bytes that stand in the window, consumed or not.
    pub(crate) fn received(&self) -> Range<usize> {
        0..self.filled
    }

    /// Bytes that have come in but were not parsed.
    pub(crate) fn unparsed(&self) -> Range<usize> {
        self.parsed..self.filled
    }

    /// A read put `bytes` bytes at the start of [`free`](Self::free).
    pub(crate) fn fill(&mut self, bytes: usize) {
        self.filled += bytes;
        self.check();
    }

    /// The first `bytes` of [`unparsed`](Self::unparsed) have been understood.
    pub(crate) fn parse(&mut self, bytes: usize) {
        self.parsed += bytes;
        self.check();
    }

    /// Everything parsed so far stands in the columns.
    pub(crate) fn consume_parsed(&mut self) {
        self.consumed = self.parsed;
        self.check();
    }

    /// Moves what is not consumed to the front, so that the next read has the most room. Moves
    /// less than one record as long as each pass consumes every whole record it finds.
    pub(crate) fn compact(&mut self, storage: &mut [u8]) {
        if self.consumed == 0 {
            return;
        }
        if self.consumed < self.filled {
            storage.copy_within(self.consumed..self.filled, 0);
        }
        self.parsed -= self.consumed;
        self.filled -= self.consumed;
        self.consumed = 0;
        self.check();
    }

    /// The order of the cursors. Cheap enough to hold in release builds, too: three compares a
    /// read, and a broken order would hand the kernel memory that is still in use.
    fn check(&self) {
        assert!(
            self.consumed <= self.parsed
                && self.parsed <= self.filled
                && self.filled <= self.capacity,
            "window out of order: {self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_moves_to_the_front() {
        let mut storage = *b"abcdefgh";
        let mut window = Window::new(8);
        assert_eq!(window.free(), 0..8);
        window.fill(8);
        window.parse(5);
        window.consume_parsed();
        window.compact(&mut storage);
        assert_eq!(&storage[..3], b"fgh");
        assert_eq!((window.unparsed(), window.free()), (0..3, 3..8));
    }

    #[test]
    fn parsed_bytes_survive_until_they_are_consumed() {
        let mut storage = *b"abcdefgh";
        let mut window = Window::new(8);
        window.fill(6);
        window.parse(4);
        window.compact(&mut storage);
        assert_eq!(&storage, b"abcdefgh");
        assert_eq!(window.unparsed(), 4..6);
    }

    #[test]
    #[should_panic(expected = "window out of order")]
    fn more_than_the_capacity_is_refused() {
        Window::new(8).fill(9);
    }

    #[test]
    #[should_panic(expected = "window out of order")]
    fn more_than_came_in_is_refused() {
        let mut window = Window::new(8);
        window.fill(2);
        window.parse(3);
    }
}
