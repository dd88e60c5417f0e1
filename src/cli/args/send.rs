//! Options of `ringest send`. Checks single values only.

use super::heading;
use super::host::host;
use super::schema::SchemaOptions;
use super::size::size;
use super::trust::TrustOptions;
use crate::client::records::generate;
use crate::config::limits::{CLIENT_TIME_MAX, SEND_GROUPS, SEND_RATE, SEND_WRITE_BYTES};
use crate::wire::text::time_text;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// Padding of text fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PaddingOption {
    /// Spaces (0x20)
    Space,
    /// Zero bytes (0x00)
    Nul,
    /// Zero bytes, then spaces, in varying proportions
    Mixed,
}

impl From<PaddingOption> for generate::SentPadding {
    fn from(padding: PaddingOption) -> Self {
        match padding {
            PaddingOption::Space => generate::SentPadding::Space,
            PaddingOption::Nul => generate::SentPadding::Nul,
            PaddingOption::Mixed => generate::SentPadding::Mixed,
        }
    }
}

/// Options of `ringest send`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "These are the options that most people need; `ringest send --help` shows all.",
    after_long_help = "Every option can be given as an environment variable instead; the command \
                       line wins."
)]
pub(crate) struct SendOptions {
    /// Address or host name of the engine
    #[arg(
        long,
        env = "RINGEST_HOST",
        default_value = "127.0.0.1",
        value_parser = host,
        help_heading = heading::SERVER
    )]
    pub host: String,
    /// Record port of the engine
    #[arg(
        long,
        // As the Python package calls it; without it, there is no suggestion either.
        alias = "port",
        env = "RINGEST_RECORDS_PORT",
        value_name = "PORT",
        default_value_t = 9000,
        help_heading = heading::SERVER
    )]
    pub records_port: u16,
    /// What records consist of: the engine must be given the same
    #[command(flatten)]
    pub schema: SchemaOptions,
    /// Records per connection
    #[arg(
        long,
        env = "RINGEST_RECORDS",
        value_name = "N",
        default_value_t = 1_000_000,
        help_heading = heading::RECORDS
    )]
    pub records: u64,
    /// Groups per connection [1 to 10000000]
    ///
    /// The key fields must have room for that many different values. A record per group is kept in
    /// memory, once for all connections.
    #[arg(
        long,
        env = "RINGEST_GROUPS",
        value_name = "N",
        default_value_t = 125,
        value_parser =
            clap::value_parser!(u32).range(i64::from(SEND_GROUPS.0)..=i64::from(SEND_GROUPS.1)),
        help_heading = heading::RECORDS
    )]
    pub groups: u32,
    /// Records per packet; without packets in the schema, each record is sent by itself
    /// [1 to 1000000]
    #[arg(
        long,
        env = "RINGEST_PACKET_RECORDS",
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = heading::RECORDS,
        hide_short_help = true
    )]
    pub packet_records: u32,
    /// Padding of text fields, where the schema allows it
    #[arg(
        long,
        env = "RINGEST_PADDING",
        value_enum,
        default_value_t = PaddingOption::Space,
        help_heading = heading::RECORDS,
        hide_short_help = true
    )]
    pub padding: PaddingOption,
    /// Seed of the generated records
    ///
    /// All connections send the same packets in a loop, each starting one packet later than the
    /// one before.
    #[arg(
        long,
        env = "RINGEST_SEED",
        value_name = "N",
        default_value_t = 1,
        help_heading = heading::RECORDS,
        hide_short_help = true
    )]
    pub seed: u64,
    /// Number of connections, all opened at once [1 to 1000]
    #[arg(
        long,
        env = "RINGEST_CONNECTIONS",
        help_heading = heading::SENDING,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub connections: u32,
    /// Records per second over all connections, on a fixed schedule; 0 sends as fast as possible
    /// [0 to 1000000000]
    ///
    /// The schedule does not wait for the engine. It times whole writes, so smaller --write-bytes
    /// send more evenly.
    #[arg(
        long,
        env = "RINGEST_RATE",
        help_heading = heading::SENDING,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(SEND_RATE.0..=SEND_RATE.1)
    )]
    pub rate: u64,
    /// Bytes to collect before each write; 0 writes each packet by itself [0 to 256MiB]
    // Loopback takes 65,483 bytes at a time. A little more is split into two segments, a small one
    // last, and was seen to halve the rate.
    #[arg(
        long,
        env = "RINGEST_WRITE_BYTES",
        help_heading = heading::SENDING,
        value_name = "SIZE",
        default_value = "60KiB",
        value_parser = write_size,
        hide_short_help = true
    )]
    pub write_bytes: usize,
    /// TCP congestion control by its kernel name, such as cubic; without it, the system's default
    #[arg(
        long,
        env = "RINGEST_CONGESTION",
        help_heading = heading::SENDING,
        value_name = "NAME",
        hide_short_help = true
    )]
    pub congestion: Option<String>,
    /// Use TLS, as the engine does with --records-tls; needs --ca or --insecure
    #[arg(
        long,
        env = "RINGEST_RECORDS_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        help_heading = heading::TLS_AND_USERS,
        hide_short_help = true
    )]
    pub tls: bool,
    /// Whom to trust
    #[command(flatten)]
    pub trust: TrustOptions,
    /// Compare the results in this file with what was sent
    ///
    /// `serve --format ndjson` must be writing its results there.
    #[arg(long, env = "RINGEST_VERIFY", value_name = "FILE", help_heading = heading::RESULTS)]
    pub verify: Option<PathBuf>,
    /// How long to wait for those results [0 to 7 days]
    #[arg(
        long,
        env = "RINGEST_VERIFY_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = client_time,
        help_heading = heading::RESULTS,
        hide_short_help = true
    )]
    pub verify_timeout: Duration,
}

/// A time up to [`CLIENT_TIME_MAX`], so that it can be added to the clock.
pub(crate) fn client_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time > CLIENT_TIME_MAX {
        true => Err(format!("it must be at most {}", time_text(CLIENT_TIME_MAX))),
        false => Ok(time),
    }
}

fn write_size(text: &str) -> Result<usize, String> {
    let (_, bytes_max) = SEND_WRITE_BYTES;
    let bytes = size(text)?;
    match bytes > bytes_max {
        true => Err(format!("{bytes} bytes; it must be at most {bytes_max}")),
        false => Ok(bytes),
    }
}
