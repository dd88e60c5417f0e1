//! The memory that a configuration implies, part by part. Computed from the limits, not measured.

use super::limits::{
    BATCHES_IN_FLIGHT, CAPTURE_CHUNK_BYTES, CAPTURE_CHUNKS, FOLDED_TABLES, HUB_QUEUE,
    INTERN_CACHE_BYTES, LATENCY_BYTES, LEAST_GROWTH_BYTES, MESSAGE_BUSY_BYTES, MESSAGE_IDLE_BYTES,
    MESSAGE_WINDOW_BYTES, PARTIALS_WAITING_BYTES, PENDING_ROWS, PROGRAM_BYTES, QUEUED_BYTES,
    RECEIVER_QUEUE_BYTES, RUN_BYTES, RUNS_LIMIT, SMALL_LATENCY_BYTES, TEXT_OVERHEAD_BYTES,
    TEXT_PAGE_BYTES,
};
use super::{AggregateMode, Config};

/// Bytes that may wait for the receivers of one of `workers` workers.
pub(crate) fn queued_bytes_of_worker(workers: usize) -> usize {
    (QUEUED_BYTES / workers).max(2 * RECEIVER_QUEUE_BYTES)
}

impl Config {
    /// The memory that these limits imply with this number of workers.
    pub fn memory(&self, workers: usize) -> Memory {
        let rows = self.row_memory();
        let partials = self.partials.is_some();
        // With partials, the current batch and the sum of earlier ones both exist, and the
        // aggregation keeps its own texts and latencies; a batch in flight has latencies as well.
        let (tables, copies, histograms) = if partials { (1, 2, 3) } else { (0, 1, 1) };
        let texts = self.record.texts * self.groups_limit * TEXT_OVERHEAD_BYTES
            + self.strings_bytes_limit * self.record.text_copies;
        let stream = self.buffer_bytes
            + RUNS_LIMIT * RUN_BYTES
            + self.record.texts * (INTERN_CACHE_BYTES + TEXT_PAGE_BYTES)
            + histograms * LATENCY_BYTES
            + SMALL_LATENCY_BYTES;
        Memory {
            registered: workers * self.registered_buffers * self.buffer_bytes,
            rows_at_start: workers * rows.of_worker,
            // One more is being written to disk.
            captured: match self.capture {
                Some(_) => (CAPTURE_CHUNKS + 1) * CAPTURE_CHUNK_BYTES,
                None => 0,
            },
            partials: if partials { PARTIALS_WAITING_BYTES } else { 0 },
            stream_at_start: match self.aggregate {
                AggregateMode::Columns => stream,
                AggregateMode::TwoPhase => stream + rows.of_connection,
            },
            connection_receiving: stream + rows.of_connection,
            connection_groups: rows.of_groups
                + tables * self.groups_limit * self.record.folded_group_bytes()
                + copies * texts,
            streams: self.max_streams.min(self.max_connections),
            message_idle: MESSAGE_IDLE_BYTES,
            message_busy: MESSAGE_BUSY_BYTES,
            // Without a message listener there are no message connections.
            connections: if self.port.is_some() { self.max_connections } else { 0 },
            queues: workers * (queued_bytes_of_worker(workers) + HUB_QUEUE * MESSAGE_WINDOW_BYTES),
        }
    }

    fn row_memory(&self) -> RowMemory {
        let record = &self.record;
        let set_bytes = self.batch_rows * record.row_bytes;
        match self.aggregate {
            AggregateMode::Columns => RowMemory {
                of_worker: BATCHES_IN_FLIGHT * set_bytes,
                of_connection: set_bytes,
                // Groups are only counted when partials are merged. By then there may be as many
                // pending rows as groups are allowed, and a batch.
                of_groups: (2 * self.groups_limit + PENDING_ROWS + self.batch_rows)
                    * record.group_bytes(),
            },
            AggregateMode::TwoPhase => RowMemory {
                // A table only becomes columns when its stream ends.
                of_worker: 0,
                of_connection: record.group_page_bytes(),
                // Each table keeps to the limit of groups; their sum is only counted when they are
                // merged.
                of_groups: FOLDED_TABLES * self.groups_limit * record.folded_group_bytes(),
            },
        }
    }
}

/// Bytes that records take on their way to a result; they depend on the aggregate mode.
struct RowMemory {
    /// At start.
    of_worker: usize,
    /// While a connection sends, regardless of how much.
    of_connection: usize,
    /// For a connection at its limit of groups, without their texts.
    of_groups: usize,
}

/// Bytes that the limits of a [`Config`] imply, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Registered receive windows of all workers: locked memory, allocated at start.
    pub registered: usize,
    /// Columns allocated at start, which workers decode into where Polars takes whole columns.
    pub rows_at_start: usize,
    /// Chunks of captured bytes on their way to the disk.
    pub captured: usize,
    /// Encoded batches of partials on their way to the disk.
    pub partials: usize,
    /// What a record connection is counted for before its first record.
    pub stream_at_start: usize,
    /// A record connection while it sends, regardless of how much: its window, column set or first
    /// page of groups, the interner's cache and first page, histograms.
    pub connection_receiving: usize,
    /// The groups and texts of a record connection that reaches both limits.
    pub connection_groups: usize,
    /// Number of record streams allowed.
    pub streams: usize,
    /// A quiet message connection.
    pub message_idle: usize,
    /// The most that a busy message connection takes in addition.
    pub message_busy: usize,
    /// Number of message connections allowed.
    pub connections: usize,
    /// Data that may wait for receivers, and for workers to deliver it.
    pub queues: usize,
}

impl Memory {
    /// Bytes allocated at start.
    pub fn at_start(&self) -> usize {
        self.registered + self.rows_at_start
    }

    /// Bytes that are in use whatever peers do: the program, its start, captures and partials.
    pub fn fixed(&self) -> usize {
        PROGRAM_BYTES
            .saturating_add(self.at_start())
            .saturating_add(self.captured)
            .saturating_add(self.partials)
    }

    /// Bytes without which no stream can be received.
    pub fn least(&self) -> usize {
        self.fixed()
            .saturating_add(self.connection_receiving)
            .saturating_add(self.message_idle)
            .saturating_add(LEAST_GROWTH_BYTES)
    }

    /// Bytes with every connection open, few groups per stream and quiet message connections.
    pub fn all_receiving(&self) -> usize {
        self.at_start()
            .saturating_add(self.captured)
            .saturating_add(self.partials)
            .saturating_add(self.streams.saturating_mul(self.connection_receiving))
            .saturating_add(self.connections.saturating_mul(self.message_idle))
    }

    /// Bytes when, in addition, every stream reaches its limits of groups and texts, every message
    /// connection is busy, and no receiver reads.
    pub fn worst(&self) -> usize {
        self.all_receiving()
            .saturating_add(self.streams.saturating_mul(self.connection_groups))
            .saturating_add(self.connections.saturating_mul(self.message_busy))
            .saturating_add(self.queues)
    }
}
