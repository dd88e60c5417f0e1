//! Every limit of the engine, and the memory that the limits imply. Reads no environment, arguments
//! or clock, and imports nothing from the crate.
//!
//! * [`limits`]: fixed limits, and the ranges of configurable ones
//! * [`memory`]: the memory they add up to

mod amount;
pub mod limits;
pub(crate) mod memory;
pub(crate) mod record_sizes;

pub(crate) use amount::{Amount, counted, time_text};
pub use limits::*;
pub(crate) use memory::queued_bytes_of_worker;
pub(crate) use record_sizes::RecordSizes;

use std::path::PathBuf;
use std::time::Duration;

/// What to do with the payload of DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    /// Aggregate packets of records; acknowledge and count anything else.
    Records,
    /// Acknowledge and count everything.
    Opaque,
}

/// Where the records of a stream are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateMode {
    /// Full column sets go to Polars, on the aggregation thread.
    Columns,
    /// Workers fold each read into partial groups, which go to Polars.
    TwoPhase,
}

/// The format of a result file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC file.
    Arrow,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

impl FileFormat {
    /// All formats.
    pub const ALL: [FileFormat; 4] =
        [FileFormat::Parquet, FileFormat::Arrow, FileFormat::Csv, FileFormat::Ndjson];

    /// The extension of such files.
    pub fn extension(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Arrow => "arrow",
            FileFormat::Csv => "csv",
            FileFormat::Ndjson => "ndjson",
        }
    }
}

/// A column about the stream that result files can have before those of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputColumn {
    /// Number of the connection.
    Connection,
    /// Address of the sender.
    Peer,
    /// How the stream ended.
    Status,
}

impl OutputColumn {
    /// The name of the column.
    pub fn name(self) -> &'static str {
        match self {
            OutputColumn::Connection => "connection",
            OutputColumn::Peer => "peer",
            OutputColumn::Status => "status",
        }
    }
}

/// The listeners that use TLS, and its certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// TLS on the message listener.
    pub messages: bool,
    /// TLS on the record listener.
    pub records: bool,
    /// PEM file with the server's certificate and its chain.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// PEM file of certificate authorities; clients must then present a certificate.
    pub client_ca: Option<PathBuf>,
}

/// The configuration of an engine. `cli` makes it from options and variables; every start calls
/// [`Config::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address or name that the listeners bind.
    pub host: String,
    /// Port of the record listener; 0 picks a free one, `None` means no listener.
    pub records_port: Option<u16>,
    /// Port of the message listener; 0 picks a free one, `None` means no listener.
    pub port: Option<u16>,
    /// Address or name that the admin listener binds.
    pub admin_host: String,
    /// Port of the admin listener; 0 picks a free one, `None` is 1000 above the message port.
    pub admin_port: Option<u16>,
    /// Cores that get one worker each, in this order; empty means all that the process may use.
    pub cores: Vec<usize>,
    /// Accept this many record connections, report them, and stop.
    pub exit_after: Option<u64>,
    /// How often throughput is printed on stderr.
    pub interval: Option<Duration>,
    /// Directory for a latency file per record stream.
    pub hgrm: Option<PathBuf>,
    /// Name of this engine in file names; `None` means the host name.
    pub node: Option<String>,
    /// Directory for a result file per record stream.
    pub output: Option<PathBuf>,
    /// The format of those files.
    pub output_format: FileFormat,
    /// Columns about the stream that come first in those files, in this order.
    pub output_columns: Vec<OutputColumn>,
    /// Directory for the raw bytes of each record stream.
    pub capture: Option<PathBuf>,
    /// Total size of all captures of the process.
    pub capture_bytes_limit: u64,
    /// Directory for partial results, to be merged later.
    pub partials: Option<PathBuf>,
    /// Shortest length of a batch of partial results.
    pub partials_interval: Duration,
    /// Bytes of one record connection's receive window.
    pub buffer_bytes: usize,
    /// Receive windows that each worker registers with its ring.
    pub registered_buffers: usize,
    /// Sizes of the schema's records.
    pub record: RecordSizes,
    /// How records become groups.
    pub aggregate: AggregateMode,
    /// Rows of a column set, the unit that Polars takes.
    pub batch_rows: usize,
    /// Largest packet, including its length field.
    pub packet_bytes_limit: u64,
    /// Groups that one record stream may have.
    pub groups_limit: usize,
    /// Total size of the distinct texts that one record stream may have.
    pub strings_bytes_limit: usize,
    /// Memory that all peers together may make the engine take, and the engine's own; `None` is
    /// [`MEMORY_LIMIT_SHARE`] of what the host or its control group has.
    pub memory_limit: Option<u64>,
    /// Connections at a time, on both listeners together.
    pub max_connections: usize,
    /// Record streams at a time, each counted until its result is printed.
    pub max_streams: usize,
    /// Longest time that a connection or a stream may wait for a slot; zero refuses it at once.
    pub admit_timeout: Duration,
    /// Whether record connections that close without a byte are reported.
    pub report_empty: bool,
    /// Longest silence between packets or frames.
    pub idle_timeout: Duration,
    /// Longest time from the first byte of a packet to its last.
    pub packet_timeout: Duration,
    /// Longest time from a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// How long a client may take to authenticate, with `require_auth`.
    pub auth_timeout: Duration,
    /// How long a write may make no progress before its receiver is disconnected.
    pub write_timeout: Duration,
    /// How long a finished peer may take to close before the engine closes the connection.
    pub linger: Duration,
    /// The same for a message client that was refused because no connection was free.
    pub refused_linger: Duration,
    /// How long connections are still accepted after the first SIGTERM or SIGINT, while `/readyz`
    /// says that the engine is stopping; `None` is [`DRAIN_DELAY_CHECKED`] where `/readyz` has been
    /// asked, and otherwise zero.
    pub drain_delay: Option<Duration>,
    /// How long running connections may go on once a signal has closed the listeners.
    pub drain_timeout: Duration,
    /// Longest time that small segments wait in the kernel to be read together; zero reads each as
    /// it arrives.
    pub coalesce_delay: Duration,
    /// Messages per second from one client; 0 means no limit.
    pub rate_limit: u32,
    /// Messages per second from all clients together; 0 means no limit.
    pub global_rate_limit: u32,
    /// File of the users who may authenticate.
    pub auth_file: Option<PathBuf>,
    /// Whether AUTH succeeds for any user and token.
    pub auth_open: bool,
    /// Whether clients must authenticate before they may do more than PING and CLOSE.
    pub require_auth: bool,
    /// What to do with the payload of DATA.
    pub data: DataMode,
    /// Where and how to use TLS.
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
            interval: None,
            hgrm: None,
            node: None,
            output: None,
            output_format: FileFormat::Parquet,
            output_columns: Vec::new(),
            capture: None,
            capture_bytes_limit: 1 << 30,
            partials: None,
            partials_interval: Duration::from_secs(10),
            buffer_bytes: 256 << 10,
            registered_buffers: 8,
            record: RecordSizes::default(),
            aggregate: AggregateMode::TwoPhase,
            batch_rows: 64 << 10,
            packet_bytes_limit: 16 << 20,
            groups_limit: 1_000_000,
            strings_bytes_limit: 64 << 20,
            memory_limit: None,
            max_connections: 1000,
            max_streams: 256,
            admit_timeout: Duration::from_secs(5),
            report_empty: false,
            idle_timeout: Duration::from_secs(60),
            packet_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            auth_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            refused_linger: Duration::from_millis(100),
            drain_delay: None,
            drain_timeout: Duration::from_secs(10),
            coalesce_delay: Duration::from_millis(1),
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
    /// A value out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Options that contradict or need each other.
    #[error("{0}")]
    Conflict(&'static str),
}

/// A value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{option} is {value}; it must be between {min} and {max}")]
pub struct OutOfRange {
    /// Name of the option, without dashes.
    pub option: &'static str,
    /// The value given.
    pub value: Amount,
    /// Smallest value allowed.
    pub min: Amount,
    /// Largest value allowed.
    pub max: Amount,
}

fn within(option: &'static str, value: u64, min: u64, max: u64) -> Result<(), OutOfRange> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let [value, min, max] = [value, min, max].map(Amount::Number);
    Err(OutOfRange { option, value, min, max })
}

fn within_sizes(
    option: &'static str,
    value: usize,
    range: (usize, usize),
) -> Result<(), OutOfRange> {
    within(option, value as u64, range.0 as u64, range.1 as u64)
}

fn within_times(
    option: &'static str,
    value: Duration,
    (min_ms, max_ms): (u64, u64),
) -> Result<(), OutOfRange> {
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let [value, min, max] = [value, min, max].map(Amount::Time);
    Err(OutOfRange { option, value, min, max })
}

/// Whether a node may have this name, which becomes part of file names.
pub(crate) fn is_node_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NODE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

impl Config {
    /// Checks each value against its range.
    ///
    /// # Errors
    /// The first value that is out of range, or options that contradict or need each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_combinations().map_err(ConfigError::Conflict)
    }

    fn check_combinations(&self) -> Result<(), &'static str> {
        let TlsOptions { messages, records, cert, key, client_ca } = &self.tls;
        let encrypted = *messages || *records;
        if self.port.is_none() && self.records_port.is_none() {
            return Err("--no-records and --no-messages leave nothing to serve; drop one of them");
        }
        if encrypted && (cert.is_none() || key.is_none()) {
            return Err("TLS needs --cert and --key; for a trial, `ringest gen-cert` creates both");
        }
        if !encrypted && (cert.is_some() || key.is_some() || client_ca.is_some()) {
            return Err(
                "--cert, --key and --client-ca have no effect without --tls or --records-tls",
            );
        }
        if *messages && self.port.is_none() || *records && self.records_port.is_none() {
            return Err("--tls or --records-tls is set for a listener that is turned off");
        }
        if self.require_auth && self.auth_file.is_none() && !self.auth_open {
            return Err(
                "--require-auth without --auth-file locks everyone out; create the file with \
                        `ringest token USER --auth-file FILE`",
            );
        }
        if self.auth_open && self.auth_file.is_some() {
            return Err(
                "--auth-open accepts any user, so --auth-file has no effect; drop one of them",
            );
        }
        if self.node.as_deref().is_some_and(|node| !is_node_name(node)) {
            return Err(
                "--node becomes part of file names: use 1 to 64 letters, digits, `.`, `_` \
                        or `-`",
            );
        }
        let columns = &self.output_columns;
        if (1..columns.len()).any(|i| columns[..i].contains(&columns[i])) {
            return Err("--output-columns names a column twice; name each once");
        }
        if self.admin_port.is_none()
            && self.port.is_some_and(|port| port > u16::MAX - ADMIN_PORT_OFFSET)
        {
            return Err(
                "the admin port defaults to 1000 above --port, which is beyond 65535; set \
                        --admin-port",
            );
        }
        let ports = [self.records_port, self.port, Some(self.admin_port())];
        let taken = |i: usize| ports[i].filter(|&port| port != 0);
        if (0..3).any(|i| taken(i).is_some() && (taken(i) == taken((i + 1) % 3))) {
            return Err(
                "two of --port, --records-port and the admin port are the same; give each \
                 listener its own port",
            );
        }
        Ok(())
    }

    /// Port of the admin listener: `admin_port` if set, otherwise 1000 above the message port. 0
    /// picks a free one, also if the message port is 0.
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
        let packet_min = packet_min.max(self.record.packet_bytes_min as u64);
        within("packet-bytes-limit", self.packet_bytes_limit, packet_min, packet_max)?;
        let (_, buffer_max) = BUFFER_BYTES;
        within_sizes(
            "buffer-bytes",
            self.buffer_bytes,
            (self.record.window_bytes_min(), buffer_max),
        )?;
        within_sizes("groups-limit", self.groups_limit, GROUPS_LIMIT)?;
        within_sizes("strings-bytes-limit", self.strings_bytes_limit, STRINGS_BYTES_LIMIT)?;
        within("memory-limit", self.memory_limit.unwrap_or(1), 1, MEMORY_LIMIT_MAX)?;
        within_sizes("max-connections", self.max_connections, MAX_CONNECTIONS)?;
        within_sizes("max-streams", self.max_streams, MAX_CONNECTIONS)?;
        within("rate-limit", u64::from(self.rate_limit), RATE_LIMIT.0, RATE_LIMIT.1)?;
        let global = u64::from(self.global_rate_limit);
        within("global-rate-limit", global, RATE_LIMIT.0, RATE_LIMIT.1)?;
        self.check_times()?;
        if let Some(interval) = self.interval {
            within_times("interval", interval, INTERVAL_MS)?;
        }
        within_times("partials-interval", self.partials_interval, PARTIALS_INTERVAL_MS)?;
        within_times("coalesce-delay", self.coalesce_delay, COALESCE_DELAY_MS)?;
        let (captured_min, captured_max) = CAPTURE_BYTES_LIMIT;
        within("capture-bytes-limit", self.capture_bytes_limit, captured_min, captured_max)?;
        within("exit-after", self.exit_after.unwrap_or(1), 1, u64::MAX)
    }

    /// Checks the times that peers are given, and that the engine takes to stop.
    fn check_times(&self) -> Result<(), OutOfRange> {
        within_times("admit-timeout", self.admit_timeout, ADMIT_TIMEOUT_MS)?;
        within_times("idle-timeout", self.idle_timeout, TIMEOUT_MS)?;
        within_times("packet-timeout", self.packet_timeout, TIMEOUT_MS)?;
        within_times("frame-timeout", self.frame_timeout, TIMEOUT_MS)?;
        within_times("handshake-timeout", self.handshake_timeout, TIMEOUT_MS)?;
        within_times("auth-timeout", self.auth_timeout, TIMEOUT_MS)?;
        within_times("write-timeout", self.write_timeout, TIMEOUT_MS)?;
        within_times("linger", self.linger, LINGER_MS)?;
        within_times("refused-linger", self.refused_linger, LINGER_MS)?;
        within_times("drain-delay", self.drain_delay.unwrap_or_default(), DRAIN_DELAY_MS)?;
        within_times("drain-timeout", self.drain_timeout, DRAIN_TIMEOUT_MS)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
