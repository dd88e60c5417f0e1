//! Decides when small reads of a record stream should be gathered into large ones, given the sizes
//! and times of reads. Sets no socket option, reads no clock and never waits.

use crate::config::{
    COALESCE_BYTES, COALESCE_FULL_READS, COALESCE_GAIN, COALESCE_READS, COALESCE_READS_MAX,
    COALESCE_READS_PER_DELAY,
};
use std::time::{Duration, Instant};

/// The rule for one connection. It either watches single reads or gathers them: then the socket's
/// low-water mark is raised, and each read waits until that many bytes have arrived or
/// `--coalesce-delay` is nearly over.
///
/// * **Gathering begins** after [`COALESCE_READS`] small and fast reads in a row. Small means at
///   most an eighth of the mark, so that at least [`COALESCE_READS_PER_DELAY`] of them fit; fast
///   means at least that many per delay. A slow stream or a bulk stream never gets there, and pays
///   a comparison or two per read.
/// * **It continues** while a wait yields [`COALESCE_GAIN`] times as many bytes as a single read
///   did. That is less than a wait yields at the pace that started it, so a stream near the
///   threshold rarely switches back and forth.
/// * **It ends** with the first wait that yields less or times out, and after
///   [`COALESCE_FULL_READS`] reads in a row that filled the window, which means a bulk stream.
/// * **If it never paid off**, the next time needs twice as many small and fast reads, up to
///   [`COALESCE_READS_MAX`]. The first wait that pays off resets this.
#[derive(Clone, Debug)]
pub(crate) struct Coalesce {
    delay: Duration,
    mark_bytes: usize,
    /// Number of small and fast reads in a row that will start gathering.
    reads_needed: u32,
    phase: CoalescePhase,
}

#[derive(Clone, Copy, Debug)]
enum CoalescePhase {
    /// Single reads, with the small and fast ones counted so far.
    Watching { since: Option<Instant>, reads: u32, bytes: usize },
    /// The mark is raised.
    Gathering {
        /// Average bytes of a single read before.
        read_bytes: usize,
        /// Whether any wait has paid off.
        paid: bool,
        /// Number of reads in a row that filled the window.
        full_reads: u32,
    },
}

const WATCHING: CoalescePhase = CoalescePhase::Watching { since: None, reads: 0, bytes: 0 };

impl Coalesce {
    /// The rule for a connection with a window of `window_bytes`; `None` if `delay` is zero, which
    /// disables gathering.
    pub(crate) fn new(delay: Duration, window_bytes: usize) -> Option<Self> {
        // After a read of a whole mark, the window still has room for what a late read yields.
        let mark_bytes = COALESCE_BYTES.min(window_bytes / 2);
        let reads_needed = COALESCE_READS;
        (!delay.is_zero()).then_some(Coalesce { delay, mark_bytes, reads_needed, phase: WATCHING })
    }

    /// The number of bytes that a read waits for while gathering.
    pub(crate) fn mark_bytes(&self) -> usize {
        self.mark_bytes
    }

    /// Whether the next read should wait for [`mark_bytes`](Self::mark_bytes).
    pub(crate) fn gathers(&self) -> bool {
        matches!(self.phase, CoalescePhase::Gathering { .. })
    }

    /// Handles a read of `bytes` at `now`, into a window that had room for `free`.
    pub(crate) fn handle_read(&mut self, bytes: usize, free: usize, now: Instant) {
        match self.phase {
            CoalescePhase::Watching { since, reads, bytes: before } => {
                self.watch(since.unwrap_or(now), reads + 1, before + bytes, bytes, now);
            }
            CoalescePhase::Gathering { read_bytes, .. } if bytes < read_bytes * COALESCE_GAIN => {
                self.end()
            }
            CoalescePhase::Gathering { full_reads, .. } if bytes == free => {
                self.paid(full_reads + 1);
            }
            CoalescePhase::Gathering { .. } => self.paid(0),
        }
    }

    /// Handles a wait that timed out without any bytes.
    pub(crate) fn handle_silence(&mut self) {
        self.end();
    }

    fn watch(&mut self, since: Instant, reads: u32, all: usize, last: usize, now: Instant) {
        if last > self.mark_bytes / COALESCE_READS_PER_DELAY as usize {
            self.phase = WATCHING;
        } else if now.saturating_duration_since(since) > self.pace() {
            self.phase = CoalescePhase::Watching { since: Some(now), reads: 1, bytes: last };
        } else if reads >= self.reads_needed {
            let read_bytes = all / reads as usize;
            self.phase = CoalescePhase::Gathering { read_bytes, paid: false, full_reads: 0 };
        } else {
            self.phase = CoalescePhase::Watching { since: Some(since), reads, bytes: all };
        }
    }

    /// The longest time in which the reads that start gathering must arrive.
    fn pace(&self) -> Duration {
        self.delay * self.reads_needed / COALESCE_READS_PER_DELAY
    }

    fn paid(&mut self, full: u32) {
        self.reads_needed = COALESCE_READS;
        if full >= COALESCE_FULL_READS {
            self.phase = WATCHING;
        } else if let CoalescePhase::Gathering { paid, full_reads, .. } = &mut self.phase {
            (*paid, *full_reads) = (true, full);
        }
    }

    fn end(&mut self) {
        if matches!(self.phase, CoalescePhase::Gathering { paid: false, .. }) {
            self.reads_needed = (self.reads_needed * 2).min(COALESCE_READS_MAX);
        }
        self.phase = WATCHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(1);
    const WINDOW: usize = 128 << 10;

    /// A rule and a simulated clock.
    struct World {
        rule: Coalesce,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            World { rule: Coalesce::new(DELAY, WINDOW).unwrap(), now: Instant::now() }
        }

        /// Reads `bytes` every `pause` until gathering begins. Returns the number of reads, or
        /// `None` if `limit` reads were not enough.
        fn reads_until_gathering(
            &mut self,
            bytes: usize,
            pause: Duration,
            limit: u32,
        ) -> Option<u32> {
            (1..=limit).find(|_| {
                self.now += pause;
                self.rule.handle_read(bytes, WINDOW, self.now);
                self.rule.gathers()
            })
        }

        fn read(&mut self, bytes: usize) -> bool {
            self.rule.handle_read(bytes, WINDOW, self.now);
            self.rule.gathers()
        }
    }

    const FAST: Duration = Duration::from_micros(10);

    #[test]
    fn zero_delay_disables_it_and_the_mark_is_at_most_half_the_window() {
        assert!(Coalesce::new(Duration::ZERO, WINDOW).is_none());
        for (window, mark) in [(4 << 10, 2 << 10), (WINDOW, COALESCE_BYTES), (1 << 20, 64 << 10)] {
            assert_eq!(Coalesce::new(DELAY, window).unwrap().mark_bytes(), mark);
        }
    }

    #[test]
    fn small_and_fast_reads_are_gathered() {
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), Some(COALESCE_READS));
        assert!((0..100).all(|_| world.read(COALESCE_BYTES)));
    }

    #[test]
    fn slow_reads_and_large_reads_are_not_gathered() {
        let edge = DELAY / COALESCE_READS_PER_DELAY;
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(1072, edge * 2, 10_000), None);
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(1072, edge, 10_000), Some(COALESCE_READS));
        let small = COALESCE_BYTES / COALESCE_READS_PER_DELAY as usize;
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(small + 1, FAST, 10_000), None);
        assert_eq!(world.reads_until_gathering(small, FAST, 10_000), Some(COALESCE_READS));
    }

    /// After a pause or a large read, the small reads before it no longer count.
    #[test]
    fn a_slow_or_large_read_restarts_the_count() {
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(1072, FAST, COALESCE_READS - 1), None);
        assert!(!world.read(COALESCE_BYTES));
        assert_eq!(world.reads_until_gathering(1072, FAST, COALESCE_READS - 1), None);
        world.now += 10 * DELAY;
        // The count restarts with the read after the pause.
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), Some(COALESCE_READS));
    }

    #[test]
    fn a_wait_that_yields_little_ends_gathering() {
        let mut world = World::new();
        world.reads_until_gathering(1000, FAST, 1000).unwrap();
        assert!(world.read(1000 * COALESCE_GAIN));
        assert!(!world.read(1000 * COALESCE_GAIN - 1));
        // It had paid off, so it takes no more reads than the first time.
        assert_eq!(world.reads_until_gathering(1000, FAST, 1000), Some(COALESCE_READS));
    }

    #[test]
    fn gathering_that_does_not_pay_off_needs_more_reads_each_time() {
        let mut world = World::new();
        let mut needed = COALESCE_READS;
        for round in 0..20 {
            assert_eq!(world.reads_until_gathering(1072, FAST, 10_000), Some(needed));
            match round % 2 {
                0 => world.rule.handle_silence(),
                _ => assert!(!world.read(1072)),
            }
            needed = (needed * 2).min(COALESCE_READS_MAX);
        }
        world.reads_until_gathering(1072, FAST, 10_000).unwrap();
        assert!(world.read(COALESCE_BYTES));
        world.rule.handle_silence();
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), Some(COALESCE_READS));
    }

    #[test]
    fn a_bulk_stream_ends_gathering() {
        let mut world = World::new();
        world.reads_until_gathering(1072, FAST, 1000).unwrap();
        for _ in 0..10 {
            assert!((1..COALESCE_FULL_READS).all(|_| world.read(WINDOW)));
            assert!(world.read(COALESCE_BYTES), "a read that leaves room restarts the count");
        }
        assert!((1..COALESCE_FULL_READS).all(|_| world.read(WINDOW)));
        assert!(!world.read(WINDOW));
        assert_eq!(world.reads_until_gathering(WINDOW, FAST, 1000), None);
    }

    /// In a window of 4 KiB a packet of 1072 bytes is not small, so there is nothing to gain.
    #[test]
    fn a_small_window_gathers_only_what_is_small_for_it() {
        let mut world = World::new();
        world.rule = Coalesce::new(DELAY, 4 << 10).unwrap();
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), None);
        assert_eq!(world.reads_until_gathering(100, FAST, 1000), Some(COALESCE_READS));
    }
}
