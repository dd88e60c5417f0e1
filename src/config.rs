//! Every limit of the engine, named once, and the memory that the limits imply. Reads no
//! environment, no arguments and no clock, and imports nothing of the crate.

use std::path::PathBuf;
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
/// Receive window of a message connection that sends much: the longest frame, at least.
pub const MESSAGE_WINDOW_BYTES: usize = 128 << 10;
/// Bytes of a quiet message connection, without TLS: window, state, its place in tables. Measured
/// with 10,000 connections (docs/OPERATIONS.md), rounded up.
pub const MESSAGE_IDLE_BYTES: usize = 8 << 10;
/// Bytes of a busy one beside that: its large window, and the replies to a window full of the
/// smallest frames, each refused by the rate limit.
pub const MESSAGE_BUSY_BYTES: usize =
    MESSAGE_WINDOW_BYTES + MESSAGE_WINDOW_BYTES / 12 * 48 + SMALL_LATENCY_BYTES;
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
/// Smallest and largest `--max-connections` and `--max-streams`.
pub const MAX_CONNECTIONS: (usize, usize) = (1, 65_536);
/// Smallest and largest `--rate-limit` and `--global-rate-limit`; 0 is no limit.
pub const RATE_LIMIT: (u64, u64) = (0, 1_000_000_000);
/// What the admin port lies above the message port by default.
pub const ADMIN_PORT_OFFSET: u16 = 1000;
/// Smallest and largest `--idle-timeout` and `--packet-timeout`: two ticks, and a week.
pub const TIMEOUT_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 7 * 24 * 3600 * 1000);

/// What becomes of the bytes that DATA carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    /// Packets of records are aggregated; anything else is acknowledged and counted.
    Records,
    /// Everything is acknowledged and counted.
    Opaque,
}

/// Where TLS is spoken and with which certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// On the message listener.
    pub messages: bool,
    /// On the record listener.
    pub records: bool,
    /// The server's certificates, in PEM.
    pub cert: Option<PathBuf>,
    /// Their key, in PEM.
    pub key: Option<PathBuf>,
    /// Authorities of clients, in PEM: clients must then have a certificate.
    pub client_ca: Option<PathBuf>,
}

/// What one engine is started with. Made by `cli` from flags and environment; checked by
/// [`Config::check`], which every start calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address or name that the listeners bind.
    pub host: String,
    /// Port of the record listener; 0 takes a free one, `None` listens for none.
    pub records_port: Option<u16>,
    /// Port of the message listener; 0 takes a free one, `None` listens for none.
    pub port: Option<u16>,
    /// Address or name that the admin listener binds.
    pub admin_host: String,
    /// Port of the admin listener; 0 takes a free one, `None` is 1000 above the message port.
    pub admin_port: Option<u16>,
    /// Cores that get a worker each, in this order; empty means all that the process may use.
    pub cores: Vec<usize>,
    /// Accept this many record connections, report them, and stop.
    pub exit_after: Option<u64>,
    /// Bytes of one record connection's receive window.
    pub buffer_bytes: usize,
    /// Receive windows of each worker that are registered with its ring.
    pub registered_buffers: usize,
    /// Rows of one column set.
    pub batch_rows: usize,
    /// Largest packet, its 4-byte length included.
    pub packet_bytes_limit: u64,
    /// Groups that one record stream may have.
    pub groups_limit: usize,
    /// Bytes of distinct texts that one record stream may have.
    pub strings_bytes_limit: usize,
    /// Connections at one time, on both listeners together.
    pub max_connections: usize,
    /// Record streams at one time, counted until their result is printed.
    pub max_streams: usize,
    /// Longest silence between packets or frames.
    pub idle_timeout: Duration,
    /// Longest time from the first byte of a packet to its last.
    pub packet_timeout: Duration,
    /// Messages a second of one client; 0 is no limit.
    pub rate_limit: u32,
    /// Messages a second of all clients; 0 is no limit.
    pub global_rate_limit: u32,
    /// Users who may authenticate.
    pub auth_file: Option<PathBuf>,
    /// Whether AUTH succeeds for anyone.
    pub auth_open: bool,
    /// Whether a client must authenticate before it may do more than PING.
    pub require_auth: bool,
    /// What DATA carries.
    pub data: DataMode,
    /// Where TLS is spoken.
    pub tls: TlsOptions,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "0.0.0.0".to_owned(),
            records_port: Some(9000),
            port: Some(5000),
            admin_host: "127.0.0.1".to_owned(),
            admin_port: None,
            cores: Vec::new(),
            exit_after: None,
            buffer_bytes: 128 << 10,
            registered_buffers: 16,
            batch_rows: 64 << 10,
            packet_bytes_limit: 16 << 20,
            groups_limit: 1_000_000,
            strings_bytes_limit: 64 << 20,
            max_connections: 1000,
            max_streams: 256,
            idle_timeout: Duration::from_secs(60),
            packet_timeout: Duration::from_secs(10),
            rate_limit: 1000,
            global_rate_limit: 50_000,
            auth_file: None,
            auth_open: false,
            require_auth: false,
            data: DataMode::Records,
            tls: TlsOptions::default(),
        }
    }
}

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Options that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
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
    /// The first value that lies outside, with its range, or options that do not go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_combinations().map_err(ConfigError::Conflict)
    }

    fn check_combinations(&self) -> Result<(), &'static str> {
        let TlsOptions { messages, records, cert, key, client_ca } = &self.tls;
        let encrypted = *messages || *records;
        if self.port.is_none() && self.records_port.is_none() {
            return Err("--no-records and --no-messages leave nothing to serve; leave one out");
        }
        if encrypted && (cert.is_none() || key.is_none()) {
            return Err("TLS needs --cert and --key; `ringest gen-cert` makes a pair for trials");
        }
        if !encrypted && (cert.is_some() || key.is_some() || client_ca.is_some()) {
            return Err("--cert, --key and --client-ca do nothing without --tls or --records-tls");
        }
        if *messages && self.port.is_none() || *records && self.records_port.is_none() {
            return Err("TLS is asked for on a listener that is switched off");
        }
        if self.require_auth && self.auth_file.is_none() && !self.auth_open {
            return Err("--require-auth without --auth-file would let nobody in; make the file \
                        with `ringest token USER --auth-file FILE`");
        }
        if self.auth_open && self.auth_file.is_some() {
            return Err("--auth-open believes everybody, so --auth-file would do nothing; leave \
                        one of them out");
        }
        match (self.admin_port, self.port) {
            (None, Some(port)) if port > u16::MAX - ADMIN_PORT_OFFSET => {
                Err("the admin port would be above 65535, 1000 above --port; name one with \
                     --admin-port")
            }
            _ => Ok(()),
        }
    }

    /// Port of the admin listener: the one asked for, else 1000 above the message port, and a free
    /// one where that is.
    pub fn admin_port(&self) -> u16 {
        let beside = match self.port {
            Some(0) => 0,
            Some(port) => port.saturating_add(ADMIN_PORT_OFFSET),
            None => 5000 + ADMIN_PORT_OFFSET,
        };
        self.admin_port.unwrap_or(beside)
    }

    fn check_ranges(&self) -> Result<(), OutOfRange> {
        within_sizes("buffer-bytes", self.buffer_bytes, BUFFER_BYTES)?;
        within_sizes("registered-buffers", self.registered_buffers, (0, REGISTERED_BUFFERS_MAX))?;
        within_sizes("batch-rows", self.batch_rows, BATCH_ROWS)?;
        let (packet_min, packet_max) = PACKET_BYTES_LIMIT;
        within("packet-bytes-limit", self.packet_bytes_limit, packet_min, packet_max)?;
        within_sizes("groups-limit", self.groups_limit, GROUPS_LIMIT)?;
        within_sizes("strings-bytes-limit", self.strings_bytes_limit, STRINGS_BYTES_LIMIT)?;
        within_sizes("max-connections", self.max_connections, MAX_CONNECTIONS)?;
        within_sizes("max-streams", self.max_streams, MAX_CONNECTIONS)?;
        within("rate-limit", u64::from(self.rate_limit), RATE_LIMIT.0, RATE_LIMIT.1)?;
        let global = u64::from(self.global_rate_limit);
        within("global-rate-limit", global, RATE_LIMIT.0, RATE_LIMIT.1)?;
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
            streams: self.max_streams.min(self.max_connections),
            message_idle: MESSAGE_IDLE_BYTES,
            message_busy: MESSAGE_BUSY_BYTES,
            // Without a message listener there are none.
            connections: if self.port.is_some() { self.max_connections } else { 0 },
            queues: QUEUED_BYTES + workers * HUB_QUEUE * MESSAGE_WINDOW_BYTES,
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
        self.registered + self.column_sets_at_start
    }

    /// Bytes when every stream has few groups and every message connection is quiet.
    pub fn all_receiving(&self) -> usize {
        self.at_start()
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
        let cases: [(&str, Set, u64, u64); 12] = [
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
            ("max-streams", |c, v| c.max_streams = v as usize, 1, 65_536),
            ("rate-limit", |c, v| c.rate_limit = v as u32, 0, 1_000_000_000),
            ("global-rate-limit", |c, v| c.global_rate_limit = v as u32, 0, 1_000_000_000),
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
                    let expected = OutOfRange { option, value, min, max };
                    assert_eq!(error, ConfigError::OutOfRange(expected));
                }
            }
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let pair = |tls: TlsOptions| TlsOptions {
            cert: Some("cert".into()),
            key: Some("key".into()),
            ..tls
        };
        let on = TlsOptions { messages: true, ..TlsOptions::default() };
        let cases: [(&str, Config); 8] = [
            ("nothing to serve", Config { port: None, records_port: None, ..Config::default() }),
            ("needs --cert", Config { tls: on.clone(), ..Config::default() }),
            ("do nothing", Config { tls: pair(TlsOptions::default()), ..Config::default() }),
            ("switched off", Config { port: None, tls: pair(on.clone()), ..Config::default() }),
            ("nobody in", Config { require_auth: true, ..Config::default() }),
            (
                "believes everybody",
                Config { auth_open: true, auth_file: Some("f".into()), ..Config::default() },
            ),
            ("above 65535", Config { port: Some(64_536), ..Config::default() }),
            (
                "switched off",
                Config {
                    records_port: None,
                    tls: pair(TlsOptions { records: true, ..TlsOptions::default() }),
                    ..Config::default()
                },
            ),
        ];
        for (words, config) in cases {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let edge = Config { port: Some(64_535), tls: pair(on), ..Config::default() };
        assert_eq!((edge.check(), edge.admin_port()), (Ok(()), 65_535));
    }

    #[test]
    fn the_sum_adds_its_parts() {
        let config = Config { max_streams: 3, max_connections: 7, ..Config::default() };
        let memory = config.memory(2);
        assert_eq!(memory.registered, 2 * 16 * (128 << 10));
        let idle = 7 * MESSAGE_IDLE_BYTES;
        let receiving = memory.at_start() + 3 * memory.connection_receiving + idle;
        assert_eq!(memory.all_receiving(), receiving);
        let worst = receiving + 3 * memory.connection_groups + 7 * MESSAGE_BUSY_BYTES;
        assert_eq!(memory.worst(), worst + QUEUED_BYTES + 2 * HUB_QUEUE * MESSAGE_WINDOW_BYTES);
    }
}
