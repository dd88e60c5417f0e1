//! Every limit of the engine, named once, and the memory that the limits imply. Reads no
//! environment, no arguments and no clock, and imports nothing of the crate.

use std::time::Duration;

/// Bytes that one row occupies in a column set: key 8, B 8, C 8, D 1. `engine::columns` asserts it.
pub const ROW_BYTES: usize = 25;

/// Rows of partials that a connection keeps before they are merged, however few groups it has.
pub const PENDING_ROWS: usize = 256 << 10;

/// Bytes that one group or pending row costs at the worst moment, while partials are merged or the
/// result is made: old rows, new rows, Polars' hash table, the order of the result. Measured from
/// 250,000 to a million groups (docs/OPERATIONS.md shows how), rounded up.
pub const GROUP_BYTES: usize = 320;

/// How often the bytes of distinct texts may be there: interned, in the slack of a vector that has
/// just doubled, and in the result.
pub const TEXT_COPIES: usize = 3;

/// Bytes that one distinct text costs beside its own bytes: offset, hash table slot and the slack
/// of a table that has just doubled.
pub const TEXT_OVERHEAD_BYTES: usize = 32;

/// Bytes of the raw-field cache that each connection's interner keeps (256 fields of 256 bytes,
/// their codes). `engine::intern` asserts it.
pub const INTERN_CACHE_BYTES: usize = 256 * (256 + 4);

/// Runs that one parsing pass may produce; a read with more runs is digested in several passes.
/// 512 covers a 128 KiB read of the smallest packets.
pub const RUNS_LIMIT: usize = 512;
/// Bytes of one run. `wire::record` asserts it.
pub const RUN_BYTES: usize = 24;

/// Latencies are told apart down to this many nanoseconds.
pub const LATENCY_NS_MIN: u64 = 64;
/// Longer latencies are recorded as this one; a histogram never grows.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;
/// Bytes of one histogram with the three values above. `engine::latency` asserts it.
pub const LATENCY_BYTES: usize = 21 * 1024 * 8;

/// Significant decimal digits of the latencies that each message connection keeps.
pub const SMALL_LATENCY_DIGITS: u8 = 2;
/// Bytes that they take at most. `engine::latency` tests it.
pub const SMALL_LATENCY_BYTES: usize = 13 << 10;

/// Column sets that may be under way to the aggregation, for each worker, beside the one that each
/// connection may hold. As many are made at start.
pub const BATCHES_IN_FLIGHT: usize = 4;
/// Jobs (full column sets, finished connections) that wait for one aggregation thread.
pub const AGGREGATION_QUEUE: usize = 32;
/// Results that wait to be printed.
pub const REPORT_QUEUE: usize = 4;
/// Accepted connections that wait for one worker to take them over.
pub const INBOX: usize = 64;
/// Connections that the kernel holds before they are accepted.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Submission queue entries of each worker's ring.
pub const RING_ENTRIES: u32 = 256;
/// The most buffers that one ring may register; tokio-uring drops the excess without a word.
pub const REGISTERED_BUFFERS_MAX: usize = 1024;

/// How often deadlines are looked at, hence how late one may be noticed.
pub const TICK: Duration = Duration::from_millis(50);
/// How long running connections may go on after the first SIGTERM or SIGINT.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to close after its all-zero record before the engine closes for it.
pub const END_LINGER: Duration = Duration::from_secs(1);
/// How long the acceptor rests after the process ran out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Log lines about single connections that are written in one second; the rest are counted.
pub const LOG_LINES_PER_SECOND: u32 = 20;

/// Longest payload that a client may send before it has authenticated, where that is required.
pub const PAYLOAD_BYTES_BEFORE_AUTH: usize = 512;
/// Failures to authenticate after which a connection is closed.
pub const AUTH_FAILURES_MAX: u8 = 3;
/// How long a client may take to authenticate, where that is required.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to wrong credentials is held back.
pub const AUTH_FAILURE_DELAY: Duration = Duration::from_millis(100);
/// Longest time from the first byte of a frame to its last.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of a TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Receive window of a message connection that is idle or sends little.
pub const SMALL_WINDOW_BYTES: usize = 2 << 10;
/// Bytes that may wait for one receiver that does not read; one more and it is cut.
pub const RECEIVER_QUEUE_BYTES: usize = 1 << 20;
/// Bytes that may wait for all receivers together.
pub const QUEUED_BYTES: usize = 64 << 20;
/// Bytes that may wait for a client before no more of its requests are read.
pub const REPLIES_WAITING_BYTES: usize = 64 << 10;
/// How long a write may make no progress before its receiver is cut.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces of broadcasts that wait for one worker to deliver them; senders wait beyond.
pub const HUB_QUEUE: usize = 64;
/// Receivers that a worker serves before it looks after its sockets again.
pub const DELIVERIES_AT_ONCE: usize = 64;
/// Refused connections that the acceptor keeps until they have read why.
pub const REFUSED_LINGERING: usize = 256;
/// How long it keeps them.
pub const REFUSED_LINGER: Duration = Duration::from_millis(100);

/// Smallest and largest `--buffer-bytes`. The smallest keeps a window from ever being full of one
/// unfinished record; the largest is what one `read` can sensibly bring.
pub const BUFFER_BYTES: (usize, usize) = (4 << 10, 16 << 20);
/// Smallest and largest `--batch-rows`.
pub const BATCH_ROWS: (usize, usize) = (1, 16 << 20);
/// Smallest and largest `--packet-bytes-limit`: one record, and what a u32 length can say.
pub const PACKET_BYTES_LIMIT: (u64, u64) = (4 + 267, u32::MAX as u64);
/// Smallest and largest `--groups-limit`: codes of texts are u32.
pub const GROUPS_LIMIT: (usize, usize) = (1, u32::MAX as usize);
/// Smallest and largest `--strings-bytes-limit`: one text, and what a u32 offset can say.
pub const STRINGS_BYTES_LIMIT: (usize, usize) = (256, u32::MAX as usize);
/// Smallest and largest `--max-connections`.
pub const MAX_CONNECTIONS: (usize, usize) = (1, 65_536);
/// Smallest and largest `--idle-timeout` and `--packet-timeout`: two ticks, and a week.
pub const TIMEOUT_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 7 * 24 * 3600 * 1000);

/// What one engine is started with. Made by `cli` from flags and environment; checked by
/// [`Config::check`], which every start calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address or name that the listener binds.
    pub host: String,
    /// Port of the record listener; 0 takes a free one.
    pub records_port: u16,
    /// Cores that get a worker each, in this order; empty means all that the process may use.
    pub cores: Vec<usize>,
    /// Accept this many record connections, report them, and stop.
    pub exit_after: Option<u64>,
    /// Bytes of one connection's receive window.
    pub buffer_bytes: usize,
    /// Receive windows of each worker that are registered with its ring.
    pub registered_buffers: usize,
    /// Rows of one column set.
    pub batch_rows: usize,
    /// Largest packet, its 4-byte length included.
    pub packet_bytes_limit: u64,
    /// Groups that one connection may have.
    pub groups_limit: usize,
    /// Bytes of distinct texts that one connection may have.
    pub strings_bytes_limit: usize,
    /// Connections at one time, counted until their result is printed.
    pub max_connections: usize,
    /// Longest silence between packets.
    pub idle_timeout: Duration,
    /// Longest time from the first byte of a packet to its last.
    pub packet_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "0.0.0.0".to_owned(),
            records_port: 9000,
            cores: Vec::new(),
            exit_after: None,
            buffer_bytes: 128 << 10,
            registered_buffers: 16,
            batch_rows: 64 << 10,
            packet_bytes_limit: 16 << 20,
            groups_limit: 1_000_000,
            strings_bytes_limit: 64 << 20,
            max_connections: 256,
            idle_timeout: Duration::from_secs(60),
            packet_timeout: Duration::from_secs(10),
        }
    }
}

/// A value outside its range: which, what it was, what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{option} is {value}, allowed is {min} to {max}")]
pub struct OutOfRange {
    /// Name of the option, without dashes.
    pub option: &'static str,
    /// What was asked for.
    pub value: u64,
    /// Smallest allowed value.
    pub min: u64,
    /// Largest allowed value.
    pub max: u64,
}

fn within(option: &'static str, value: u64, min: u64, max: u64) -> Result<(), OutOfRange> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(OutOfRange { option, value, min, max })
}

fn within_sizes(
    option: &'static str,
    value: usize,
    range: (usize, usize),
) -> Result<(), OutOfRange> {
    within(option, value as u64, range.0 as u64, range.1 as u64)
}

fn within_times(option: &'static str, value: Duration) -> Result<(), OutOfRange> {
    let value_ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    within(option, value_ms, TIMEOUT_MS.0, TIMEOUT_MS.1)
}

impl Config {
    /// Checks each value against its range.
    ///
    /// # Errors
    /// The first value that lies outside, with its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        within_sizes("buffer-bytes", self.buffer_bytes, BUFFER_BYTES)?;
        within_sizes("registered-buffers", self.registered_buffers, (0, REGISTERED_BUFFERS_MAX))?;
        within_sizes("batch-rows", self.batch_rows, BATCH_ROWS)?;
        let (packet_min, packet_max) = PACKET_BYTES_LIMIT;
        within("packet-bytes-limit", self.packet_bytes_limit, packet_min, packet_max)?;
        within_sizes("groups-limit", self.groups_limit, GROUPS_LIMIT)?;
        within_sizes("strings-bytes-limit", self.strings_bytes_limit, STRINGS_BYTES_LIMIT)?;
        within_sizes("max-connections", self.max_connections, MAX_CONNECTIONS)?;
        within_times("idle-timeout (ms)", self.idle_timeout)?;
        within_times("packet-timeout (ms)", self.packet_timeout)?;
        within("exit-after", self.exit_after.unwrap_or(1), 1, u64::MAX)
    }

    /// The memory that these limits imply with `workers` workers.
    pub fn memory(&self, workers: usize) -> Memory {
        let set_bytes = self.batch_rows * ROW_BYTES;
        Memory {
            registered: workers * self.registered_buffers * self.buffer_bytes,
            column_sets_at_start: workers * BATCHES_IN_FLIGHT * set_bytes,
            connection_receiving: self.buffer_bytes
                + set_bytes
                + RUNS_LIMIT * RUN_BYTES
                + INTERN_CACHE_BYTES
                + LATENCY_BYTES,
            // Groups are counted when partials are merged: by then there may be as many pending
            // rows as groups allowed, and a batch.
            connection_groups: (2 * self.groups_limit + PENDING_ROWS + self.batch_rows)
                * GROUP_BYTES
                + self.groups_limit * TEXT_OVERHEAD_BYTES
                + self.strings_bytes_limit * TEXT_COPIES,
            connections: self.max_connections,
        }
    }
}

/// Bytes that the limits of a [`Config`] imply, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Registered receive windows of all workers: locked memory, taken at start.
    pub registered: usize,
    /// Column sets made at start.
    pub column_sets_at_start: usize,
    /// What a connection costs while it sends, however much it sends: window, column set, the
    /// interner's cache, histogram.
    pub connection_receiving: usize,
    /// What a connection costs at most for its groups and texts, when it reaches both limits.
    pub connection_groups: usize,
    /// How many connections there may be.
    pub connections: usize,
}

impl Memory {
    /// Bytes taken at start.
    pub fn at_start(&self) -> usize {
        self.registered + self.column_sets_at_start
    }

    /// Bytes when every slot is taken by a connection with few groups.
    pub fn all_receiving(&self) -> usize {
        self.at_start().saturating_add(self.connections.saturating_mul(self.connection_receiving))
    }

    /// Bytes when every connection also reaches its limits of groups and texts.
    pub fn worst(&self) -> usize {
        self.all_receiving().saturating_add(self.connections.saturating_mul(self.connection_groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    /// Each limit at its edge: the edge is allowed, one beyond is not, and the message says which.
    #[test]
    fn each_limit_holds_at_its_edge() {
        type Set = fn(&mut Config, u64);
        let cases: [(&str, Set, u64, u64); 9] = [
            ("buffer-bytes", |c, v| c.buffer_bytes = v as usize, 4096, 16 << 20),
            ("registered-buffers", |c, v| c.registered_buffers = v as usize, 0, 1024),
            ("batch-rows", |c, v| c.batch_rows = v as usize, 1, 16 << 20),
            ("packet-bytes-limit", |c, v| c.packet_bytes_limit = v, 271, u32::MAX as u64),
            ("groups-limit", |c, v| c.groups_limit = v as usize, 1, u32::MAX as u64),
            (
                "strings-bytes-limit",
                |c, v| c.strings_bytes_limit = v as usize,
                256,
                u32::MAX as u64,
            ),
            ("max-connections", |c, v| c.max_connections = v as usize, 1, 65_536),
            (
                "idle-timeout (ms)",
                |c, v| c.idle_timeout = Duration::from_millis(v),
                100,
                604_800_000,
            ),
            (
                "packet-timeout (ms)",
                |c, v| c.packet_timeout = Duration::from_millis(v),
                100,
                604_800_000,
            ),
        ];
        for (option, set, min, max) in cases {
            for (value, allowed) in [
                (Some(min), true),
                (Some(max), true),
                (min.checked_sub(1), false),
                (Some(max + 1), false),
            ] {
                let Some(value) = value else { continue };
                let mut config = Config::default();
                set(&mut config, value);
                let checked = config.check();
                assert_eq!(checked.is_ok(), allowed, "{option} = {value}");
                if let Err(error) = checked {
                    assert_eq!(error, OutOfRange { option, value, min, max });
                }
            }
        }
    }

    #[test]
    fn the_sum_adds_its_parts() {
        let config = Config { max_connections: 3, ..Config::default() };
        let memory = config.memory(2);
        assert_eq!(memory.registered, 2 * 16 * (128 << 10));
        assert_eq!(memory.all_receiving(), memory.at_start() + 3 * memory.connection_receiving);
        assert_eq!(memory.worst(), memory.all_receiving() + 3 * memory.connection_groups);
    }
}
