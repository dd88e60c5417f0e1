//! The open batch of a stream, if partials are written: when it ends, and its counts, texts and
//! latencies. Holds no records and writes nothing.

use crate::engine::decode::texts::Texts;
use crate::engine::stream::intake::{Counts, RecordIntake};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::ClosedBatch;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The batch that a stream's records currently belong to.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    number: u32,
    began: Instant,
    /// The same time on the wall clock, as it is then: the clock may be set while a stream runs,
    /// and a suspended machine stops the other one. Never before the previous batch, since `first`
    /// and `last` order batches by it.
    began_at: SystemTime,
    /// When the previous batch began.
    previous: SystemTime,
    /// The stream's counts when the batch began.
    before: Counts,
    /// For each text key, how many texts the stream had before the batch.
    texts_before: Vec<usize>,
}

impl OpenBatch {
    /// The first batch of a stream.
    pub(crate) fn first(began: Instant, began_at: SystemTime) -> Self {
        OpenBatch {
            number: 0,
            began,
            began_at,
            previous: UNIX_EPOCH,
            before: Counts::default(),
            texts_before: Vec::new(),
        }
    }

    /// The time from which records belong to the next batch.
    pub(crate) fn ends(&self, interval: Duration) -> Instant {
        self.began + interval
    }

    /// Whether nothing has arrived since the batch began; `counts` are the stream's current counts.
    pub(crate) fn is_empty(&self, counts: Counts) -> bool {
        counts == self.before
    }

    /// Moves the start of an empty batch to `now`, which is `wall` on the wall clock.
    pub(crate) fn begin_at(&mut self, now: Instant, wall: SystemTime) {
        (self.began, self.began_at) = (now, wall.max(self.previous));
    }

    /// Closes the batch and opens the next one, which begins at `now`: `wall` on the wall clock.
    pub(crate) fn close(
        &mut self,
        intake: &RecordIntake,
        latency: Latency,
        now: Instant,
        wall: SystemTime,
    ) -> ClosedBatch {
        let texts = intake.texts().enumerate().map(|(key, texts)| {
            let known = self.texts_before.get(key).copied().unwrap_or_default();
            texts.since(known)
        });
        let texts = texts.collect();
        let closed = self.closed(intake.counts(), latency, texts);
        self.texts_before = intake.texts().map(Texts::len).collect();
        (self.number, self.before) = (self.number + 1, intake.counts());
        self.previous = self.began_at;
        self.begin_at(now, wall);
        closed
    }

    /// Closes the last batch of a stream. Its texts are handed over with the stream.
    pub(crate) fn close_last(self, counts: Counts, latency: Latency) -> ClosedBatch {
        self.closed(counts, latency, Vec::new())
    }

    fn closed(&self, counts: Counts, latency: Latency, texts: Vec<Texts>) -> ClosedBatch {
        let Counts { records, packets, bytes, bytes_after_end } = self.before;
        let counts = Counts {
            records: counts.records - records,
            packets: counts.packets - packets,
            bytes: counts.bytes - bytes,
            bytes_after_end: counts.bytes_after_end - bytes_after_end,
        };
        ClosedBatch { number: self.number, began: self.began_at, counts, latency, texts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::groups::plan::Plan;
    use crate::wire::schema::Schema;

    /// The clock is set by a year, then back; the other clock hardly moves, as in a suspended
    /// machine.
    #[test]
    fn batches_have_the_time_of_the_wall_clock_and_never_go_back() {
        let now = Instant::now();
        let intake =
            RecordIntake::new(&Plan::new(Schema::built_in()), &Config::default(), 4096, now);
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let mut batch = OpenBatch::first(now, at(1000));
        let mut close = |wall| batch.close(&intake, Latency::default(), now, wall);
        let closed: Vec<_> = [at(1365), at(1001), at(1400)].into_iter().map(&mut close).collect();
        let began: Vec<SystemTime> = closed.iter().map(|closed| closed.began).collect();
        assert_eq!(began, [at(1000), at(1365), at(1365)]);
        assert!(closed.iter().map(|closed| closed.number).eq(0..3));
        batch.begin_at(now, at(1399));
        let last = batch.close_last(intake.counts(), Latency::default());
        assert_eq!((last.number, last.began), (3, at(1399)));
    }
}
