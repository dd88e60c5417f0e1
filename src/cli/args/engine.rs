//! Options of every command that starts or examines an engine: checks single values, combines none.

use super::cpu_list::{self, CpuList};
use super::schema::SchemaOptions;
use super::times::TimeOptions;
use crate::config::{AggregateMode, Config, DataMode, TlsOptions};
use bytesize::ByteSize;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// What the engine is started with; shared by every command that starts or examines one.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineOptions {
    /// Address or name to listen on
    #[arg(long, env = "RINGEST_HOST", default_value = "0.0.0.0")]
    pub host: String,
    /// Port of the record listener; 0 takes a free one, named on stderr
    #[arg(long, env = "RINGEST_RECORDS_PORT", default_value_t = 9000)]
    pub records_port: u16,
    /// Port of the message listener; 0 takes a free one, named on stderr
    #[arg(long, env = "RINGEST_PORT", default_value_t = 5000)]
    pub port: u16,
    /// No record listener
    #[arg(
        long,
        env = "RINGEST_NO_RECORDS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub no_records: bool,
    /// No message listener
    #[arg(
        long,
        env = "RINGEST_NO_MESSAGES",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub no_messages: bool,
    /// Address or name of the admin listener: metrics, health, state
    #[arg(long, env = "RINGEST_ADMIN_HOST", default_value = "127.0.0.1")]
    pub admin_host: String,
    /// Port of the admin listener, by default 1000 above --port; 0 takes a free one
    #[arg(long, env = "RINGEST_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// What records consist of
    #[command(flatten)]
    pub schema: SchemaOptions,
    /// What the message server lets its clients do
    #[command(flatten)]
    pub messages: MessageOptions,
    /// How long peers may take
    #[command(flatten)]
    pub times: TimeOptions,
    /// The limits
    #[command(flatten)]
    pub limits: LimitOptions,
}

/// What the message server lets its clients do.
#[derive(Debug, clap::Args)]
pub(crate) struct MessageOptions {
    /// Messages a second of one client, or of one user where authenticated; 0 is no limit
    /// [0 to 1000000000; RATE_LIMIT is read, too]
    #[arg(
        long,
        env = short_or_long("RATE_LIMIT", "RINGEST_RATE_LIMIT"),
        value_name = "N",
        default_value_t = 1000
    )]
    pub rate_limit: u32,
    /// Messages a second of all clients; 0 is no limit [0 to 1000000000]
    #[arg(long, env = "RINGEST_GLOBAL_RATE_LIMIT", value_name = "N", default_value_t = 50_000)]
    pub global_rate_limit: u32,
    /// Users who may authenticate, as `ringest token` writes them; read again at SIGHUP
    #[arg(long, env = "RINGEST_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Before a client has authenticated it may only PING and CLOSE
    #[arg(
        long,
        env = "RINGEST_REQUIRE_AUTH",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub require_auth: bool,
    /// AUTH succeeds for anyone, for trials; without this and an auth file it always fails
    #[arg(
        long,
        env = "RINGEST_AUTH_OPEN",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub auth_open: bool,
    /// What DATA carries: packets of records to be aggregated, or bytes that are only counted
    #[arg(long, env = "RINGEST_DATA", value_enum, default_value_t = DataOption::Records)]
    pub data: DataOption,
    /// TLS on the message listener
    #[arg(
        long,
        env = "RINGEST_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub tls: bool,
    /// TLS on the record listener
    #[arg(
        long,
        env = "RINGEST_RECORDS_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub records_tls: bool,
    /// Certificates of this server, in PEM, its own first; read again at SIGHUP
    #[arg(long, env = "RINGEST_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Key of the certificate, in PEM
    #[arg(long, env = "RINGEST_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Authorities of clients, in PEM: a client must then have a certificate of one of them
    #[arg(long, env = "RINGEST_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
}

/// What DATA carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataOption {
    /// Packets of records are aggregated and reported; anything else is only counted
    Records,
    /// Everything is only counted
    Opaque,
}

/// How records become groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AggregateOption {
    /// Polars groups whole columns of records
    Columns,
    /// Each read is folded into partials on its worker, and Polars groups those
    TwoPhase,
}

/// The variable of an option that has a short name, too: the one that is set, the long one first.
fn short_or_long(short: &'static str, long: &'static str) -> &'static str {
    let set = |name| std::env::var_os(name).is_some();
    if set(short) && !set(long) { short } else { long }
}

/// Limits of the engine.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitOptions {
    /// Cores that get a pinned worker each, as `taskset -c` takes them, or `all` that are allowed
    #[arg(
        long,
        env = "RINGEST_CORES",
        value_name = "LIST",
        default_value = "all",
        value_parser = cpu_list::parse
    )]
    pub cores: CpuList,
    /// Receive window of a connection [4KiB to 16MiB]
    #[arg(
        long,
        env = "RINGEST_BUFFER_BYTES",
        value_name = "SIZE",
        default_value = "256KiB",
        value_parser = size
    )]
    pub buffer_bytes: usize,
    /// Windows of each worker that are registered with its ring, in locked memory; connections
    /// beyond them use plain memory [0 to 1024]
    #[arg(long, env = "RINGEST_REGISTERED_BUFFERS", value_name = "N", default_value_t = 8)]
    pub registered_buffers: usize,
    /// How records become groups: folded into partials on the worker, or whole columns in Polars
    #[arg(
        long,
        env = "RINGEST_AGGREGATE",
        value_enum,
        default_value_t = AggregateOption::TwoPhase
    )]
    pub aggregate: AggregateOption,
    /// Rows of whole columns that Polars takes at a time (--aggregate columns) [1 to 16777216]
    #[arg(long, env = "RINGEST_BATCH_ROWS", value_name = "N", default_value_t = 65_536)]
    pub batch_rows: usize,
    /// Largest packet, refused above from its header alone [271 to 4294967295]
    #[arg(
        long,
        env = "RINGEST_PACKET_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "16MiB",
        value_parser = size
    )]
    pub packet_bytes_limit: usize,
    /// Groups of one record stream [1 to 4294967295]
    #[arg(long, env = "RINGEST_GROUPS_LIMIT", value_name = "N", default_value_t = 1_000_000)]
    pub groups_limit: usize,
    /// Distinct texts of one record stream, in bytes together [256 to 4294967295]
    #[arg(
        long,
        env = "RINGEST_STRINGS_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size
    )]
    pub strings_bytes_limit: usize,
    /// Connections at one time, on both listeners together [1 to 65536; MAX_CONNECTIONS is read,
    /// too]
    #[arg(
        long,
        env = short_or_long("MAX_CONNECTIONS", "RINGEST_MAX_CONNECTIONS"),
        value_name = "N",
        default_value_t = 1000
    )]
    pub max_connections: usize,
    /// Record streams at one time, counted until their result is printed [1 to 65536]
    #[arg(long, env = "RINGEST_MAX_STREAMS", value_name = "N", default_value_t = 256)]
    pub max_streams: usize,
    /// Longest silence between packets or frames [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    pub idle_timeout: Duration,
    /// Longest time from a packet's first byte to its last [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_PACKET_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub packet_timeout: Duration,
    /// Longest time that bytes of a record stream in small, fast segments wait for more, so that
    /// one read takes many; 0 reads each as it comes [0 to 1s]
    #[arg(
        long,
        env = "RINGEST_COALESCE_DELAY",
        value_name = "TIME",
        default_value = "1ms",
        value_parser = humantime::parse_duration
    )]
    pub coalesce_delay: Duration,
}

impl EngineOptions {
    /// The configuration that the options describe, not yet checked.
    pub(crate) fn config(&self) -> Config {
        let messages = &self.messages;
        Config {
            host: self.host.clone(),
            records_port: (!self.no_records).then_some(self.records_port),
            port: (!self.no_messages).then_some(self.port),
            admin_host: self.admin_host.clone(),
            admin_port: self.admin_port,
            rate_limit: messages.rate_limit,
            global_rate_limit: messages.global_rate_limit,
            auth_file: messages.auth_file.clone(),
            auth_open: messages.auth_open,
            require_auth: messages.require_auth,
            data: match messages.data {
                DataOption::Records => DataMode::Records,
                DataOption::Opaque => DataMode::Opaque,
            },
            tls: TlsOptions {
                messages: messages.tls,
                records: messages.records_tls,
                cert: messages.cert.clone(),
                key: messages.key.clone(),
                client_ca: messages.client_ca.clone(),
            },
            ..self.times.apply(self.limits.config())
        }
    }
}

impl LimitOptions {
    /// A configuration with these limits and otherwise the defaults, not yet checked.
    pub(crate) fn config(&self) -> Config {
        Config {
            cores: self.cores.0.clone(),
            buffer_bytes: self.buffer_bytes,
            registered_buffers: self.registered_buffers,
            aggregate: match self.aggregate {
                AggregateOption::Columns => AggregateMode::Columns,
                AggregateOption::TwoPhase => AggregateMode::TwoPhase,
            },
            batch_rows: self.batch_rows,
            packet_bytes_limit: self.packet_bytes_limit as u64,
            groups_limit: self.groups_limit,
            strings_bytes_limit: self.strings_bytes_limit,
            max_connections: self.max_connections,
            max_streams: self.max_streams,
            idle_timeout: self.idle_timeout,
            packet_timeout: self.packet_timeout,
            coalesce_delay: self.coalesce_delay,
            ..Config::default()
        }
    }
}

/// Bytes, with a unit or without.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write e.g. 64KiB"))?;
    usize::try_from(size.as_u64()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert!(size("many").unwrap_err().contains("64KiB"));
        assert!(size("-1").is_err());
    }
}
