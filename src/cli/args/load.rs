//! Options of `ringest load`. Checks single values only.

use super::heading;
use super::host::host;
use super::send::client_time;
use super::trust::TrustOptions;
use crate::client::load::Traffic;
use crate::config::limits::LOAD_RATE;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrafficOption {
    /// PING, answered by PONG
    Ping,
    /// ECHO, answered by the same bytes
    Echo,
    /// DATA, answered by its sequence number
    Data,
    /// BROADCAST, delivered to all other connections
    Broadcast,
}

impl From<TrafficOption> for Traffic {
    fn from(option: TrafficOption) -> Self {
        match option {
            TrafficOption::Ping => Traffic::Ping,
            TrafficOption::Echo => Traffic::Echo,
            TrafficOption::Data => Traffic::Data,
            TrafficOption::Broadcast => Traffic::Broadcast,
        }
    }
}

/// The format of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadFormat {
    /// A few lines, for people
    Table,
    /// One JSON object, for programs
    Json,
}

/// Options of `ringest load`.
#[derive(Debug, clap::Args)]
#[command(
    next_help_heading = heading::SENDING,
    after_help = "These are the options that most people need; `ringest load --help` shows all.",
    after_long_help = "There is no option for the token, since other users of this host could see \
                       it. Put it into RINGEST_TOKEN or --token-file."
)]
pub(crate) struct LoadOptions {
    /// Address or host name of the server
    #[arg(
        long,
        env = "RINGEST_HOST",
        default_value = "127.0.0.1",
        value_parser = host,
        help_heading = heading::SERVER
    )]
    pub host: String,
    /// Message port of the server
    #[arg(
        long,
        env = "RINGEST_PORT",
        default_value_t = 5000,
        help_heading = heading::SERVER
    )]
    pub port: u16,
    /// Type of the messages
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = TrafficOption::Ping)]
    pub traffic: TrafficOption,
    /// Payload of each echo, data or broadcast, in bytes; a ping has 8 [0 to 65535]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(0..=65_535)
    )]
    pub payload_bytes: u32,
    /// Number of connections, all opened at once [1 to 65536]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub connections: u32,
    /// Messages that each sending connection keeps in flight (closed loop) [1 to 65536]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub pipeline: u32,
    /// Messages per second over all connections, on a fixed schedule (open loop) [1 to 1000000000]
    ///
    /// Latency then counts from the moment at which a message was due.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "pipeline",
        value_parser = clap::value_parser!(u64).range(LOAD_RATE.0..=LOAD_RATE.1)
    )]
    pub rate: Option<u64>,
    /// Connections that send, with `--type broadcast`; all of them receive [1 to 65536]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65_536),
        hide_short_help = true
    )]
    pub senders: u32,
    /// How long to measure [1ms to 7 days]
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = client_time
    )]
    pub duration: Duration,
    /// How long to send before the measurement begins [0 to 7 days]
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = client_time,
        hide_short_help = true
    )]
    pub warm_up: Duration,
    /// Threads that share the connections; each can use up a core [1 to 1024]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024),
        hide_short_help = true
    )]
    pub threads: u32,
    /// Use TLS; needs --ca or --insecure
    #[arg(long, help_heading = heading::TLS_AND_USERS, hide_short_help = true)]
    pub tls: bool,
    /// Whom to trust
    #[command(flatten)]
    pub trust: TrustOptions,
    /// Authenticate every connection as this user
    #[arg(
        long,
        value_name = "NAME",
        help_heading = heading::TLS_AND_USERS,
        hide_short_help = true
    )]
    pub user: Option<String>,
    /// File that holds the user's token; without it, RINGEST_TOKEN must hold the token
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        help_heading = heading::TLS_AND_USERS,
        hide_short_help = true
    )]
    pub token_file: Option<PathBuf>,
    /// Format of the result on stdout
    #[arg(
        long,
        value_enum,
        default_value_t = LoadFormat::Table,
        help_heading = heading::RESULTS
    )]
    pub format: LoadFormat,
    /// File to write the latency percentiles to as well, in HdrHistogram's text format and µs
    #[arg(
        long,
        value_name = "FILE",
        help_heading = heading::RESULTS,
        hide_short_help = true
    )]
    pub hgrm: Option<PathBuf>,
}
