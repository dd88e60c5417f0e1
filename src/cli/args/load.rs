//! Options of `ringest load`: checks single values, combines none.

use crate::client::load::Traffic;
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
    /// DATA, answered by its sequence
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

/// How the result is printed.
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
    after_help = "A token is a secret and no argument: RINGEST_TOKEN or --token-file holds it."
)]
pub(crate) struct LoadOptions {
    /// Address or name of the server
    #[arg(long, env = "RINGEST_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the server's message listener
    #[arg(long, env = "RINGEST_PORT", default_value_t = 5000)]
    pub port: u16,
    /// Connections, all at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub connections: u32,
    /// Messages that each connection keeps in flight (closed loop); with broadcasts, each sender
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub pipeline: u32,
    /// Messages a second over all connections, on a fixed schedule (open loop); latencies then
    /// count from when a message was due
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "pipeline",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub rate: Option<u64>,
    /// What is sent
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = TrafficOption::Ping)]
    pub traffic: TrafficOption,
    /// Bytes of each echo, broadcast and data; a ping has 8
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(0..=65_535)
    )]
    pub payload_bytes: u32,
    /// Connections that send, with `--type broadcast`; all receive
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub senders: u32,
    /// Time that is measured
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub duration: Duration,
    /// Time before that, which is not measured
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = humantime::parse_duration
    )]
    pub warm_up: Duration,
    /// Threads that share the connections; each can use up a core
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub threads: u32,
    /// Speak TLS; needs --ca or --insecure
    #[arg(long)]
    pub tls: bool,
    /// PEM file of the authorities whose certificates are believed
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Believe any certificate: for trials only
    #[arg(long, requires = "tls")]
    pub insecure: bool,
    /// PEM file of the certificate that this side shows, where the server asks for one
    #[arg(long, value_name = "FILE", requires_all = ["tls", "client_key"])]
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Authenticate each connection as this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File that holds the user's token; else RINGEST_TOKEN does
    #[arg(long, value_name = "FILE", requires = "user")]
    pub token_file: Option<PathBuf>,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t = LoadFormat::Table)]
    pub format: LoadFormat,
    /// Also write the percentiles of the latencies, in microseconds, to this file, as the tools of
    /// HdrHistogram read them
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
}
