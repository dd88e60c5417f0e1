//! The queue of bytes to be written to one receiver: its own and shared pieces, in order, with a
//! limit per receiver and one for all receivers of a worker. Performs no I/O.

use crate::config::RECEIVER_QUEUE_PIECES;
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Consecutive broadcasts of one client, shared by all receivers.
#[derive(Clone, Debug)]
pub(crate) struct Broadcasts {
    /// Number of the connection that sent them; it does not receive them.
    pub from: u64,
    /// The frames as received.
    pub frames: Arc<[u8]>,
    /// Number of frames.
    pub messages: u32,
}

/// A limit on the bytes queued for all receivers of a worker.
#[derive(Debug)]
pub struct QueueBudget {
    queued_bytes: AtomicUsize,
    limit: usize,
}

impl QueueBudget {
    /// An unused budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(QueueBudget { queued_bytes: AtomicUsize::new(0), limit })
    }

    /// Bytes queued now.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a piece was not queued. The caller must cut its receiver, or another one with more queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overflow {
    /// Too many bytes are queued for this receiver.
    #[error("{more} more bytes would exceed the limit of {limit}; {waiting} are queued for it")]
    Receiver {
        /// Bytes queued.
        waiting: usize,
        /// Bytes of the piece.
        more: usize,
        /// The limit in force.
        limit: usize,
    },
    /// Too many pieces are queued for this receiver.
    #[error("{RECEIVER_QUEUE_PIECES} pieces are queued for it, which is the limit")]
    Pieces,
    /// Too many bytes are queued for all receivers of the worker.
    #[error("{waiting} bytes are queued for all receivers of the worker, which is the limit")]
    All {
        /// Bytes queued.
        waiting: usize,
    },
}

/// Small writes are gathered into pieces of up to this many bytes.
const PIECE_BYTES: usize = 16 << 10;

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// The queue of one receiver.
#[derive(Debug)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have been written.
    written: usize,
    waiting_bytes: usize,
    limit: usize,
    budget: Arc<QueueBudget>,
    memory: HeldBytes,
}

impl Outbox {
    /// An empty queue for at most `limit` bytes, within `budget`. Allocates on the first push.
    pub(crate) fn new(limit: usize, budget: Arc<QueueBudget>) -> Self {
        Outbox {
            pieces: VecDeque::new(),
            written: 0,
            waiting_bytes: 0,
            limit,
            budget,
            memory: HeldBytes::default(),
        }
    }

    /// Counts what is queued as part of `share`.
    pub(crate) fn count_in(mut self, share: &Arc<MemoryShare>) -> Self {
        self.memory = HeldBytes::of(share);
        self
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes queued.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Queues a copy of bytes that are for this receiver only.
    ///
    /// # Errors
    /// [`Overflow`]; nothing was queued.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.reserve(bytes.len())?;
        match self.pieces.back_mut() {
            // The size is limited because a piece is freed only when all of it is written.
            Some(Piece::Own(last)) if last.len() + bytes.len() <= PIECE_BYTES => {
                last.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back(Piece::Own(bytes.to_vec())),
        }
        Ok(())
    }

    /// Queues bytes shared with other receivers, from `skip` on. `skip` must be 0 unless the
    /// outbox is empty.
    ///
    /// # Errors
    /// [`Overflow`]; nothing was queued.
    pub(crate) fn push_shared(&mut self, bytes: &Arc<[u8]>, skip: usize) -> Result<(), Overflow> {
        debug_assert!(skip == 0 || self.is_empty());
        self.reserve(bytes.len() - skip)?;
        if skip > 0 {
            self.written = skip;
        }
        self.pieces.push_back(Piece::Shared(Arc::clone(bytes)));
        Ok(())
    }

    fn reserve(&mut self, more: usize) -> Result<(), Overflow> {
        if self.pieces.len() >= RECEIVER_QUEUE_PIECES {
            return Err(Overflow::Pieces);
        }
        let waiting = self.waiting_bytes;
        if waiting + more > self.limit {
            return Err(Overflow::Receiver { waiting, more, limit: self.limit });
        }
        if !self.budget.take(more) {
            return Err(Overflow::All { waiting: self.budget.queued_bytes() });
        }
        self.waiting_bytes += more;
        self.memory.set(self.waiting_bytes);
        Ok(())
    }

    /// Fills `slices` with the first pieces and returns their number.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let skip = if count == 0 { self.written } else { 0 };
            *slot = IoSlice::new(&piece.bytes()[skip..]);
            count += 1;
        }
        count
    }

    /// Removes the first `bytes`, which have been written.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.waiting_bytes -= bytes;
        self.budget.give_back(bytes);
        self.memory.set(self.waiting_bytes);
        self.written += bytes;
        while let Some(first) = self.pieces.front() {
            let length = first.bytes().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            // Thousands of receivers are idle most of the time; they should not hold memory.
            self.pieces = VecDeque::new();
        }
    }

    /// Drops everything queued.
    pub(crate) fn clear(&mut self) {
        self.budget.give_back(self.waiting_bytes);
        self.waiting_bytes = 0;
        self.memory.set(0);
        self.written = 0;
        self.pieces = VecDeque::new();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first_bytes(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn own_and_shared_pieces_keep_their_order() {
        let budget = QueueBudget::new(100);
        let mut outbox = Outbox::new(50, Arc::clone(&budget));
        outbox.push(b"ab").unwrap();
        outbox.push(b"cd").unwrap();
        outbox.push_shared(&Arc::from(&b"efg"[..]), 0).unwrap();
        outbox.push(b"h").unwrap();
        assert_eq!(first_bytes(&outbox), b"abcdefgh");
        outbox.advance(5);
        assert_eq!((first_bytes(&outbox), outbox.waiting_bytes()), (b"fgh".to_vec(), 3));
        assert_eq!(budget.queued_bytes(), 3);
        outbox.advance(3);
        assert!(outbox.is_empty() && budget.queued_bytes() == 0);
        outbox.push_shared(&Arc::from(&b"efg"[..]), 2).unwrap();
        assert_eq!(first_bytes(&outbox), b"g");
        drop(outbox);
        assert_eq!(budget.queued_bytes(), 0);
    }

    #[test]
    fn the_limit_per_receiver_is_exact() {
        let mut outbox = Outbox::new(4, QueueBudget::new(100));
        outbox.push(b"abc").unwrap();
        let over = Overflow::Receiver { waiting: 3, more: 2, limit: 4 };
        assert_eq!(outbox.push(b"de"), Err(over));
        assert_eq!(outbox.push_shared(&Arc::from(&b"de"[..]), 0), Err(over));
        outbox.push(b"d").unwrap();
        assert_eq!(first_bytes(&outbox), b"abcd");
    }

    #[test]
    fn the_limit_for_all_receivers_is_exact() {
        let budget = QueueBudget::new(5);
        let mut one = Outbox::new(100, Arc::clone(&budget));
        let mut other = Outbox::new(100, Arc::clone(&budget));
        one.push(b"abc").unwrap();
        assert_eq!(other.push(b"def"), Err(Overflow::All { waiting: 3 }));
        other.push(b"de").unwrap();
        one.clear();
        other.push(b"fgh").unwrap();
        assert_eq!(budget.queued_bytes(), 5);
    }

    #[test]
    fn the_limit_of_pieces_is_exact() {
        let mut outbox = Outbox::new(1 << 20, QueueBudget::new(1 << 20));
        let piece: Arc<[u8]> = Arc::from(&b"x"[..]);
        for _ in 0..RECEIVER_QUEUE_PIECES {
            outbox.push_shared(&piece, 0).unwrap();
        }
        assert_eq!(outbox.push_shared(&piece, 0), Err(Overflow::Pieces));
        outbox.advance(1);
        outbox.push_shared(&piece, 0).unwrap();
    }

    /// A receiver that is always slightly behind must not hold bytes that were written.
    #[test]
    fn written_bytes_are_freed_even_if_the_outbox_is_never_empty() {
        let mut outbox = Outbox::new(1 << 20, QueueBudget::new(1 << 20));
        outbox.push(&[1; 1000]).unwrap();
        for _ in 0..10_000 {
            outbox.push(&[1; 1000]).unwrap();
            outbox.advance(1000);
            let held: usize = outbox.pieces.iter().map(|piece| piece.bytes().len()).sum();
            assert!(held <= 2 * PIECE_BYTES, "{held} bytes are held for 1000 queued");
        }
    }

    proptest! {
        /// Whatever is pushed comes out once and in order, however it is written.
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in proptest::collection::vec((any::<bool>(), 1usize..40), 1..30),
            steps in proptest::collection::vec(1usize..50, 1..60),
        ) {
            let budget = QueueBudget::new(10_000);
            let mut outbox = Outbox::new(10_000, Arc::clone(&budget));
            let mut expected = Vec::new();
            for (tag, &(shared, length)) in (0u8..).zip(&pieces) {
                let bytes = vec![tag; length];
                expected.extend_from_slice(&bytes);
                if shared {
                    outbox.push_shared(&Arc::from(bytes), 0).unwrap();
                } else {
                    outbox.push(&bytes).unwrap();
                }
            }
            let mut written = Vec::new();
            for step in steps.iter().cycle() {
                let next = first_bytes(&outbox);
                let taken = next.len().min(*step);
                written.extend_from_slice(&next[..taken]);
                outbox.advance(taken);
                if outbox.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(written, expected);
            prop_assert_eq!(budget.queued_bytes(), 0);
        }
    }
}
