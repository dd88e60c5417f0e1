//! The memory that a configuration implies, part by part: measures nothing.

use super::limits::{
    BATCHES_IN_FLIGHT, CAPTURE_CHUNK_BYTES, CAPTURE_CHUNKS, FOLDED_TABLES, HUB_QUEUE,
    INTERN_CACHE_BYTES, LATENCY_BYTES, MESSAGE_BUSY_BYTES, MESSAGE_IDLE_BYTES,
    MESSAGE_WINDOW_BYTES, PENDING_ROWS, QUEUED_BYTES, RECEIVER_QUEUE_BYTES, RUN_BYTES, RUNS_LIMIT,
    SMALL_LATENCY_BYTES, TEXT_COPIES, TEXT_OVERHEAD_BYTES, TEXT_PAGE_BYTES,
};
use super::{AggregateMode, Config};

/// Bytes that may wait for the receivers of one of `workers` workers.
pub(crate) fn queued_bytes_of_worker(workers: usize) -> usize {
    (QUEUED_BYTES / workers).max(2 * RECEIVER_QUEUE_BYTES)
}

impl Config {
    /// The memory that these limits imply with `workers` workers.
    pub fn memory(&self, workers: usize) -> Memory {
        let rows = self.row_memory();
        let partials = self.partials.is_some();
        // Where partials are kept, the batch and all batches before it stand side by side, and the
        // aggregation has texts and latencies of its own; a batch under way has latencies, too.
        let (tables, copies, histograms) = if partials { (1, 2, 3) } else { (0, 1, 1) };
        let texts = self.record.texts * self.groups_limit * TEXT_OVERHEAD_BYTES
            + self.strings_bytes_limit * TEXT_COPIES;
        Memory {
            registered: workers * self.registered_buffers * self.buffer_bytes,
            rows_at_start: workers * rows.of_worker,
            // One more is being written.
            captured: match self.capture {
                Some(_) => (CAPTURE_CHUNKS + 1) * CAPTURE_CHUNK_BYTES,
                None => 0,
            },
            connection_receiving: self.buffer_bytes
                + rows.of_connection
                + RUNS_LIMIT * RUN_BYTES
                + self.record.texts * (INTERN_CACHE_BYTES + TEXT_PAGE_BYTES)
                + histograms * LATENCY_BYTES
                + SMALL_LATENCY_BYTES,
            connection_groups: rows.of_groups
                + tables * self.groups_limit * self.record.folded_group_bytes()
                + copies * texts,
            streams: self.max_streams.min(self.max_connections),
            message_idle: MESSAGE_IDLE_BYTES,
            message_busy: MESSAGE_BUSY_BYTES,
            // Without a message listener there are none.
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
                // Groups are counted when partials are merged: by then there may be as many
                // pending rows as groups allowed, and a batch.
                of_groups: (2 * self.groups_limit + PENDING_ROWS + self.batch_rows)
                    * record.group_bytes(),
            },
            AggregateMode::TwoPhase => RowMemory {
                // A table becomes columns when a stream ends.
                of_worker: 0,
                of_connection: record.group_page_bytes(),
                // No table has a group too many; what several have together is counted when they
                // are merged.
                of_groups: FOLDED_TABLES * self.groups_limit * record.folded_group_bytes(),
            },
        }
    }
}

/// Bytes that records take on their way to a result, which depend on how they are aggregated.
struct RowMemory {
    /// At start.
    of_worker: usize,
    /// While a connection sends, however much it sends.
    of_connection: usize,
    /// At its limit of groups, without their texts.
    of_groups: usize,
}

/// Bytes that the limits of a [`Config`] imply, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Registered receive windows of all workers: locked memory, taken at start.
    pub registered: usize,
    /// Columns made at start, which workers decode into where Polars gets whole columns.
    pub rows_at_start: usize,
    /// Chunks of captured bytes on their way to the disk.
    pub captured: usize,
    /// What a connection costs while it sends, however much it sends: window, column set or first
    /// page of groups, the interner's cache and first page, histograms.
    pub connection_receiving: usize,
    /// What a connection costs at most for its groups and texts, when it reaches both limits.
    pub connection_groups: usize,
    /// How many record streams there may be.
    pub streams: usize,
    /// What a message connection costs that is quiet.
    pub message_idle: usize,
    /// What a message connection costs at most while its bytes are under way.
    pub message_busy: usize,
    /// How many message connections there may be.
    pub connections: usize,
    /// What may wait for receivers, and for workers to deliver it.
    pub queues: usize,
}

impl Memory {
    /// Bytes taken at start.
    pub fn at_start(&self) -> usize {
        self.registered + self.rows_at_start
    }

    /// Bytes when every stream has few groups and every message connection is quiet.
    pub fn all_receiving(&self) -> usize {
        self.at_start()
            .saturating_add(self.captured)
            .saturating_add(self.streams.saturating_mul(self.connection_receiving))
            .saturating_add(self.connections.saturating_mul(self.message_idle))
    }

    /// Bytes when every stream also reaches its limits of groups and texts, every message
    /// connection is busy, and nobody reads.
    pub fn worst(&self) -> usize {
        self.all_receiving()
            .saturating_add(self.streams.saturating_mul(self.connection_groups))
            .saturating_add(self.connections.saturating_mul(self.message_busy))
            .saturating_add(self.queues)
    }
}
