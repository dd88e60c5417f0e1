//! The cursors of a receive window. Owns no memory and reads no socket: the storage belongs to the
//! reader, which lends it to the methods that need it between two reads.
//!
//! ```text
//!   0        consumed        parsed          filled             capacity
//!   |  done     |  runs not     |  not parsed   |  free for the     |
//!   |           |  consumed     |  yet          |  next read        |
//! ```
//!
//! `consumed ≤ parsed ≤ filled ≤ capacity` always holds. Bytes below `consumed` have been copied to
//! the columns and may be overwritten; those up to `parsed` are whole records; the rest up to
//! `filled` has been received but not parsed.

use std::ops::Range;

/// Cursors over a window of `capacity` bytes, as drawn above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    consumed: usize,
    parsed: usize,
    filled: usize,
    capacity: usize,
}

impl Window {
    /// An empty window over storage of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Window { consumed: 0, parsed: 0, filled: 0, capacity }
    }

    /// Where the next read may put bytes.
    pub(crate) fn free(&self) -> Range<usize> {
        self.filled..self.capacity
    }

    /// All bytes in the window, consumed or not.
    pub(crate) fn received(&self) -> Range<usize> {
        0..self.filled
    }

    /// Bytes that were received but not parsed.
    pub(crate) fn unparsed(&self) -> Range<usize> {
        self.parsed..self.filled
    }

    /// Records that a read put `bytes` bytes at the start of [`free`](Self::free).
    pub(crate) fn fill(&mut self, bytes: usize) {
        self.filled += bytes;
        self.check();
    }

    /// Marks the first `bytes` of [`unparsed`](Self::unparsed) as parsed.
    pub(crate) fn parse(&mut self, bytes: usize) {
        self.parsed += bytes;
        self.check();
    }

    /// Marks everything parsed so far as consumed.
    pub(crate) fn consume_parsed(&mut self) {
        self.consumed = self.parsed;
        self.check();
    }

    /// Moves the bytes not yet consumed to the front to make room for the next read. That is less
    /// than one record as long as each pass consumes every whole record it finds.
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

    /// Checks the order of the cursors, in release builds too: it costs three comparisons per read,
    /// and a broken order would hand the kernel memory that is still in use.
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
    fn filling_beyond_the_capacity_panics() {
        Window::new(8).fill(9);
    }

    #[test]
    #[should_panic(expected = "window out of order")]
    fn parsing_beyond_the_received_bytes_panics() {
        let mut window = Window::new(8);
        window.fill(2);
        window.parse(3);
    }
}
