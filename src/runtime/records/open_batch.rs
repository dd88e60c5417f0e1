//! The open batch of a stream, if partials are written: when it ends, and its counts, texts and
//! latencies. Holds no records and writes nothing.

use crate::engine::decode::texts::Texts;
use crate::engine::stream::intake::{Counts, RecordIntake};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::ClosedBatch;
use std::time::{Duration, Instant};

/// The batch that a stream's records currently belong to.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    number: u32,
    began: Instant,
    /// The stream's counts when the batch began.
    before: Counts,
    /// For each text key, how many texts the stream had before the batch.
    texts_before: Vec<usize>,
}

impl OpenBatch {
    /// The first batch of a stream.
    pub(crate) fn first(began: Instant) -> Self {
        OpenBatch { number: 0, began, before: Counts::default(), texts_before: Vec::new() }
    }

    /// The time from which records belong to the next batch.
    pub(crate) fn ends(&self, interval: Duration) -> Instant {
        self.began + interval
    }

    /// Whether nothing has arrived since the batch began; `counts` are the stream's current counts.
    pub(crate) fn is_empty(&self, counts: Counts) -> bool {
        counts == self.before
    }

    /// Moves the start of an empty batch to `now`.
    pub(crate) fn begin_at(&mut self, now: Instant) {
        self.began = now;
    }

    /// Closes the batch and opens the next one, which begins at `now`.
    pub(crate) fn close(
        &mut self,
        intake: &RecordIntake,
        latency: Latency,
        now: Instant,
    ) -> ClosedBatch {
        let texts = intake.texts().enumerate().map(|(key, texts)| {
            let known = self.texts_before.get(key).copied().unwrap_or_default();
            texts.since(known)
        });
        let texts = texts.collect();
        let closed = self.closed(intake.counts(), latency, texts);
        self.texts_before = intake.texts().map(Texts::len).collect();
        (self.number, self.began, self.before) = (self.number + 1, now, intake.counts());
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
        ClosedBatch { number: self.number, began: self.began, counts, latency, texts }
    }
}
