//! Options of every command that starts or examines an engine. Checks single values; whether they
//! go together is for `Config::check` to say.

use super::cpu_list::{self, CpuList};
use super::heading;
use super::host::host;
use super::schema::SchemaOptions;
use super::size::size;
use super::times::{PeerTimeOptions, StreamTimeOptions};
use crate::config::{AggregateMode, Config, DataMode, TlsOptions};
use clap::ValueEnum;
use std::path::PathBuf;

/// Everything that an engine is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineOptions {
    /// Where it listens
    #[command(flatten)]
    pub listeners: ListenerOptions,
    /// What records consist of
    #[command(flatten)]
    pub schema: SchemaOptions,
    /// What message clients may do
    #[command(flatten)]
    pub messages: MessageOptions,
    /// Encryption and authentication
    #[command(flatten)]
    pub security: SecurityOptions,
    /// What it may use
    #[command(flatten)]
    pub resources: ResourceOptions,
    /// How long it waits for peers, and at its end
    #[command(flatten)]
    pub times: PeerTimeOptions,
}

/// Where an engine listens.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::LISTENERS)]
pub(crate) struct ListenerOptions {
    /// Address or host name to listen on; of a name, all addresses, and :: includes IPv4
    #[arg(long, env = "RINGEST_HOST", default_value = "0.0.0.0", value_parser = host)]
    pub host: String,
    /// Port for record streams; 0 picks a free one and prints it on stderr
    #[arg(long, env = "RINGEST_RECORDS_PORT", value_name = "PORT", default_value_t = 9000)]
    pub records_port: u16,
    /// Port for messages; 0 picks a free one and prints it on stderr
    #[arg(long, env = "RINGEST_PORT", default_value_t = 5000)]
    pub port: u16,
    /// Do not listen for record streams
    #[arg(
        long,
        env = "RINGEST_NO_RECORDS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub no_records: bool,
    /// Do not listen for messages
    #[arg(
        long,
        env = "RINGEST_NO_MESSAGES",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub no_messages: bool,
    /// Address or host name of the admin listener, which serves metrics, health and state
    #[arg(
        long,
        env = "RINGEST_ADMIN_HOST",
        value_name = "HOST",
        default_value = "127.0.0.1",
        value_parser = host,
        hide_short_help = true
    )]
    pub admin_host: String,
    /// Port of the admin listener, by default --port plus 1000; 0 picks a free one
    #[arg(long, env = "RINGEST_ADMIN_PORT", value_name = "PORT", hide_short_help = true)]
    pub admin_port: Option<u16>,
}

/// What message clients may do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::MESSAGES)]
pub(crate) struct MessageOptions {
    /// Messages per second from one client, or from one user once authenticated; 0 means no limit
    /// [0 to 1000000000]
    ///
    /// RATE_LIMIT is read as well; RINGEST_RATE_LIMIT wins.
    #[arg(
        long,
        env = short_or_long("RINGEST_RATE_LIMIT"),
        value_name = "N",
        default_value_t = 1000,
        hide_short_help = true
    )]
    pub rate_limit: u32,
    /// Messages per second from all clients together; 0 means no limit [0 to 1000000000]
    ///
    /// With --require-auth, clients that have not authenticated have a limit of their own of this
    /// size, over all of them.
    #[arg(
        long,
        env = "RINGEST_GLOBAL_RATE_LIMIT",
        value_name = "N",
        default_value_t = 50_000,
        hide_short_help = true
    )]
    pub global_rate_limit: u32,
    /// What to do with the payload of DATA
    #[arg(
        long,
        env = "RINGEST_DATA",
        value_name = "MODE",
        value_enum,
        default_value_t = DataOption::Records,
        hide_short_help = true
    )]
    pub data: DataOption,
}

/// Encryption and authentication.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::TLS_AND_USERS)]
pub(crate) struct SecurityOptions {
    /// Use TLS on the message listener
    #[arg(
        long,
        env = "RINGEST_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub tls: bool,
    /// Use TLS on the record listener
    #[arg(
        long,
        env = "RINGEST_RECORDS_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub records_tls: bool,
    /// PEM file with the server's certificate, followed by its chain; reread on SIGHUP
    #[arg(long, env = "RINGEST_CERT", value_name = "FILE", hide_short_help = true)]
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate; reread on SIGHUP
    #[arg(long, env = "RINGEST_KEY", value_name = "FILE", hide_short_help = true)]
    pub key: Option<PathBuf>,
    /// PEM file with certificate authorities; clients must then present a certificate from one of
    /// them
    #[arg(long, env = "RINGEST_CLIENT_CA", value_name = "FILE", hide_short_help = true)]
    pub client_ca: Option<PathBuf>,
    /// File of the users who may authenticate, as `ringest token` writes it; reread on SIGHUP
    #[arg(long, env = "RINGEST_AUTH_FILE", value_name = "FILE", hide_short_help = true)]
    pub auth_file: Option<PathBuf>,
    /// Accept only PING, AUTH and CLOSE until a client has authenticated
    #[arg(
        long,
        env = "RINGEST_REQUIRE_AUTH",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub require_auth: bool,
    /// Accept any user with any token, for trials only
    ///
    /// Without this and without --auth-file, every AUTH fails.
    #[arg(
        long,
        env = "RINGEST_AUTH_OPEN",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub auth_open: bool,
}

/// What to do with the payload of DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataOption {
    /// Aggregate and report packets of records, refuse broken ones; acknowledge and count anything
    /// else
    Records,
    /// Acknowledge and count everything
    Opaque,
}

/// How records become groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AggregateOption {
    /// Polars groups whole columns of records
    Columns,
    /// Workers fold each read into groups as it arrives
    TwoPhase,
}

/// The variable to read for an option that has a short one as well, such as `RATE_LIMIT` for
/// `RINGEST_RATE_LIMIT`: the short one only if it alone is set.
fn short_or_long(long: &'static str) -> &'static str {
    let short = long.trim_start_matches("RINGEST_");
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set(short) && !is_set(long) { short } else { long }
}

/// What an engine may use. `ringest demo` has these options as well.
#[derive(Debug, clap::Args)]
pub(crate) struct ResourceOptions {
    /// How much one connection and all of them may take
    #[command(flatten)]
    pub limits: LimitOptions,
    /// How long it waits for record streams
    #[command(flatten)]
    pub timeouts: StreamTimeOptions,
    /// How it uses the machine
    #[command(flatten)]
    pub host: HostOptions,
}

/// How much one connection and all of them may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::LIMITS)]
pub(crate) struct LimitOptions {
    /// Connections at a time, on both listeners together [1 to 65536]
    ///
    /// MAX_CONNECTIONS is read as well; RINGEST_MAX_CONNECTIONS wins.
    #[arg(
        long,
        env = short_or_long("RINGEST_MAX_CONNECTIONS"),
        value_name = "N",
        default_value_t = 1000,
        hide_short_help = true
    )]
    pub max_connections: usize,
    /// Record streams at a time, each counted until its result is printed [1 to 65536]
    #[arg(long, env = "RINGEST_MAX_STREAMS", value_name = "N", default_value_t = 256)]
    pub max_streams: usize,
    /// Memory for all streams and clients together [what one stream needs, to 1EiB]
    ///
    /// When it is used up, the stream that holds the most ends as `memory_limit`, with a result of
    /// the records before that. The program itself is counted; what the allocator, Polars and the
    /// kernel take in addition is not: leave them a quarter. Default: three quarters of what the
    /// host or its control group has.
    #[arg(
        long,
        env = "RINGEST_MEMORY_LIMIT",
        value_name = "SIZE",
        value_parser = size::<u64>,
        hide_short_help = true
    )]
    pub memory_limit: Option<u64>,
    /// Largest packet; a larger one is rejected by its length field, before it is received
    /// [271 to 4294967295]
    ///
    /// The smallest allowed value is a packet of one record: 271 bytes with the built-in schema.
    #[arg(
        long,
        env = "RINGEST_PACKET_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "16MiB",
        value_parser = size::<u64>,
        hide_short_help = true
    )]
    pub packet_bytes_limit: u64,
    /// Groups per record stream [1 to 4294967295]
    #[arg(
        long,
        env = "RINGEST_GROUPS_LIMIT",
        value_name = "N",
        default_value_t = 1_000_000,
        hide_short_help = true
    )]
    pub groups_limit: usize,
    /// Total size of the distinct texts in one record stream [256 to 4294967295]
    #[arg(
        long,
        env = "RINGEST_STRINGS_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size::<usize>,
        hide_short_help = true
    )]
    pub strings_bytes_limit: usize,
}

/// How an engine uses the machine.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::HOST)]
pub(crate) struct HostOptions {
    /// Cores to use, with one pinned worker each: a list such as 0,2-5, or `all`
    #[arg(
        long,
        env = "RINGEST_CORES",
        value_name = "LIST",
        default_value = "all",
        value_parser = cpu_list::parse
    )]
    pub cores: CpuList,
    /// Receive window of one connection [4KiB to 16MiB]
    #[arg(
        long,
        env = "RINGEST_BUFFER_BYTES",
        value_name = "SIZE",
        default_value = "256KiB",
        value_parser = size::<usize>,
        hide_short_help = true
    )]
    pub buffer_bytes: usize,
    /// Receive windows that each worker registers with its io_uring, in locked memory [0 to 1024]
    ///
    /// Connections beyond that number use ordinary memory.
    #[arg(
        long,
        env = "RINGEST_REGISTERED_BUFFERS",
        value_name = "N",
        default_value_t = 8,
        hide_short_help = true
    )]
    pub registered_buffers: usize,
    /// How records become groups
    #[arg(
        long,
        env = "RINGEST_AGGREGATE",
        value_name = "MODE",
        value_enum,
        default_value_t = AggregateOption::TwoPhase,
        hide_short_help = true
    )]
    pub aggregate: AggregateOption,
    /// Rows that Polars takes at a time, with `--aggregate columns` [1 to 16777216]
    #[arg(
        long,
        env = "RINGEST_BATCH_ROWS",
        value_name = "N",
        default_value_t = 65_536,
        hide_short_help = true
    )]
    pub batch_rows: usize,
}

impl EngineOptions {
    /// The configuration that the options describe, not yet checked.
    pub(crate) fn config(&self) -> Config {
        let EngineOptions { listeners, messages, security, .. } = self;
        Config {
            host: listeners.host.clone(),
            records_port: (!listeners.no_records).then_some(listeners.records_port),
            port: (!listeners.no_messages).then_some(listeners.port),
            admin_host: listeners.admin_host.clone(),
            admin_port: listeners.admin_port,
            rate_limit: messages.rate_limit,
            global_rate_limit: messages.global_rate_limit,
            data: match messages.data {
                DataOption::Records => DataMode::Records,
                DataOption::Opaque => DataMode::Opaque,
            },
            auth_file: security.auth_file.clone(),
            auth_open: security.auth_open,
            require_auth: security.require_auth,
            tls: TlsOptions {
                messages: security.tls,
                records: security.records_tls,
                cert: security.cert.clone(),
                key: security.key.clone(),
                client_ca: security.client_ca.clone(),
            },
            ..self.times.apply(self.resources.config())
        }
    }
}

impl ResourceOptions {
    /// A configuration with these limits and otherwise the defaults, not yet checked.
    pub(crate) fn config(&self) -> Config {
        let ResourceOptions { limits, timeouts, host } = self;
        Config {
            max_connections: limits.max_connections,
            max_streams: limits.max_streams,
            memory_limit: limits.memory_limit,
            packet_bytes_limit: limits.packet_bytes_limit,
            groups_limit: limits.groups_limit,
            strings_bytes_limit: limits.strings_bytes_limit,
            cores: host.cores.0.clone(),
            buffer_bytes: host.buffer_bytes,
            registered_buffers: host.registered_buffers,
            aggregate: match host.aggregate {
                AggregateOption::Columns => AggregateMode::Columns,
                AggregateOption::TwoPhase => AggregateMode::TwoPhase,
            },
            batch_rows: host.batch_rows,
            ..timeouts.apply(Config::default())
        }
    }
}
