//! When the small reads of a record stream are worth being gathered into large ones: bytes and
//! times come in, a decision comes out. Sets no socket option, reads no clock, waits for nothing.

use crate::config::{
    COALESCE_BYTES, COALESCE_FULL_READS, COALESCE_GAIN, COALESCE_READS, COALESCE_READS_MAX,
    COALESCE_READS_PER_DELAY,
};
use std::time::{Duration, Instant};

/// The rule for one connection. It either watches single reads or has them gathered: the socket's
/// low-water mark is raised, and each read waits until so many bytes are there or until
/// `--coalesce-delay` is nearly over.
///
/// * **Gathering begins** when [`COALESCE_READS`] reads in a row were small and fast. Small is at
///   most an eighth of the mark, so that a full mark holds [`COALESCE_READS_PER_DELAY`] of them at
///   least; fast is at least so many of them in a delay. A slow stream and a bulk stream never get
///   there, and pay a comparison or two for each read.
/// * **It goes on** while a wait brings [`COALESCE_GAIN`] times what a single read did. That is
///   less than comes in a wait at the pace that began it, so a stream near the edge rarely goes to
///   and fro.
/// * **It ends** with the first wait that brings less or finds nothing at all, and after
///   [`COALESCE_FULL_READS`] reads in a row that filled the window: that is a bulk stream.
/// * **Where it never paid** between beginning and end, twice as many small and fast reads are
///   asked for next time, up to [`COALESCE_READS_MAX`]; the first wait that pays forgets that.
#[derive(Clone, Debug)]
pub(crate) struct Coalesce {
    delay: Duration,
    mark_bytes: usize,
    /// Small and fast reads in a row that begin it the next time.
    reads_needed: u32,
    phase: CoalescePhase,
}

#[derive(Clone, Copy, Debug)]
enum CoalescePhase {
    /// Single reads; those since the last that was not small, or too late.
    Watching { since: Option<Instant>, reads: u32, bytes: usize },
    /// The mark is raised.
    Gathering {
        /// What a single read brought before, on average.
        read_bytes: usize,
        /// Whether any wait has been worth it.
        paid: bool,
        /// Reads in a row that filled the window.
        full_reads: u32,
    },
}

const WATCHING: CoalescePhase = CoalescePhase::Watching { since: None, reads: 0, bytes: 0 };

impl Coalesce {
    /// The rule for a connection with a window of `window_bytes`; `None` where `delay` is zero,
    /// which switches it off.
    pub(crate) fn new(delay: Duration, window_bytes: usize) -> Option<Self> {
        // A read that takes a whole mark leaves room in the window for what a late one brings.
        let mark_bytes = COALESCE_BYTES.min(window_bytes / 2);
        let reads_needed = COALESCE_READS;
        (!delay.is_zero()).then_some(Coalesce { delay, mark_bytes, reads_needed, phase: WATCHING })
    }

    /// Bytes that a read waits for while reads are gathered.
    pub(crate) fn mark_bytes(&self) -> usize {
        self.mark_bytes
    }

    /// Whether the next read is to wait for [`mark_bytes`](Self::mark_bytes).
    pub(crate) fn gathers(&self) -> bool {
        matches!(self.phase, CoalescePhase::Gathering { .. })
    }

    /// A read took `bytes` into a window that had room for `free`, at `now`.
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

    /// A wait was over and nothing had come.
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

    /// The longest time that the reads which begin gathering may take together.
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

    /// A rule with a clock of its own.
    struct World {
        rule: Coalesce,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            World { rule: Coalesce::new(DELAY, WINDOW).unwrap(), now: Instant::now() }
        }

        /// Reads of `bytes`, one each `pause`, until they are gathered; how many that took, if it
        /// did not take more than `limit`.
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
    fn no_delay_is_no_rule_and_a_mark_is_at_most_half_of_the_window() {
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
    fn slow_reads_and_large_ones_are_not() {
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

    /// A pause or a large read among them, and the small ones before it do not count.
    #[test]
    fn what_is_not_small_and_fast_begins_the_count_again() {
        let mut world = World::new();
        assert_eq!(world.reads_until_gathering(1072, FAST, COALESCE_READS - 1), None);
        assert!(!world.read(COALESCE_BYTES));
        assert_eq!(world.reads_until_gathering(1072, FAST, COALESCE_READS - 1), None);
        world.now += 10 * DELAY;
        // The read after the pause is the first of the next count.
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), Some(COALESCE_READS));
    }

    #[test]
    fn a_wait_that_brings_little_ends_it() {
        let mut world = World::new();
        world.reads_until_gathering(1000, FAST, 1000).unwrap();
        assert!(world.read(1000 * COALESCE_GAIN));
        assert!(!world.read(1000 * COALESCE_GAIN - 1));
        // It had paid: as many reads as the first time.
        assert_eq!(world.reads_until_gathering(1000, FAST, 1000), Some(COALESCE_READS));
    }

    #[test]
    fn gathering_that_does_not_pay_asks_for_more_each_time_until_it_pays() {
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
    fn a_stream_that_has_become_bulk_is_read_singly_again() {
        let mut world = World::new();
        world.reads_until_gathering(1072, FAST, 1000).unwrap();
        for _ in 0..10 {
            assert!((1..COALESCE_FULL_READS).all(|_| world.read(WINDOW)));
            assert!(world.read(COALESCE_BYTES), "one that leaves room begins the count again");
        }
        assert!((1..COALESCE_FULL_READS).all(|_| world.read(WINDOW)));
        assert!(!world.read(WINDOW));
        assert_eq!(world.reads_until_gathering(WINDOW, FAST, 1000), None);
    }

    /// In a window of 4 KiB a packet of 1072 bytes is not small: nothing could be gained.
    #[test]
    fn a_small_window_gathers_only_what_is_small_for_it() {
        let mut world = World::new();
        world.rule = Coalesce::new(DELAY, 4 << 10).unwrap();
        assert_eq!(world.reads_until_gathering(1072, FAST, 1000), None);
        assert_eq!(world.reads_until_gathering(100, FAST, 1000), Some(COALESCE_READS));
    }
}
