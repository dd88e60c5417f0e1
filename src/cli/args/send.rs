//! Options of `ringest send`: checks single values, combines none.

use super::engine::size;
use super::schema::SchemaOptions;
use crate::client::records::generate;
use crate::config::limits::{SEND_GROUPS, SEND_RATE, SEND_WRITE_BYTES};
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// Padding of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PaddingOption {
    /// 0x20 only
    Space,
    /// 0x00 only
    Nul,
    /// 0x00, then 0x20, in changing shares
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
pub(crate) struct SendOptions {
    /// Address or name of the engine
    #[arg(long, env = "RINGEST_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the engine's record listener
    #[arg(long, env = "RINGEST_RECORDS_PORT", default_value_t = 9000)]
    pub records_port: u16,
    /// What records consist of: as the engine was told
    #[command(flatten)]
    pub schema: SchemaOptions,
    /// Connections, all at once
    #[arg(
        long,
        env = "RINGEST_CONNECTIONS",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub connections: u32,
    /// Records over each connection
    #[arg(long, env = "RINGEST_RECORDS", value_name = "N", default_value_t = 1_000_000)]
    pub records: u64,
    /// Records in a packet; bare records are packets of their own
    #[arg(
        long,
        env = "RINGEST_PACKET_RECORDS",
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub packet_records: u32,
    /// Bytes that are collected before each write; 0 writes each packet by itself [0 to 256MiB]
    // Loopback takes 65,483 bytes at a time. A little more goes as two pieces, a small one last,
    // and has been seen to halve the rate.
    #[arg(
        long,
        env = "RINGEST_WRITE_BYTES",
        value_name = "SIZE",
        default_value = "60KiB",
        value_parser = write_size
    )]
    pub write_bytes: usize,
    /// Records a second over all connections, on a fixed schedule that waits for nobody; 0 is as
    /// fast as they are taken. Each write has its time, so small --write-bytes are more even
    #[arg(
        long,
        env = "RINGEST_RATE",
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(SEND_RATE.0..=SEND_RATE.1)
    )]
    pub rate: u64,
    /// Congestion control of the connections, as the kernel names it, such as cubic; without this
    /// the system's own
    #[arg(long, env = "RINGEST_CONGESTION", value_name = "NAME")]
    pub congestion: Option<String>,
    /// Padding of texts, as far as the schema allows it
    #[arg(long, env = "RINGEST_PADDING", value_enum, default_value_t = PaddingOption::Space)]
    pub padding: PaddingOption,
    /// Seed of the records. All connections send the same packets round and round, each beginning
    /// one further
    #[arg(long, env = "RINGEST_SEED", value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Groups of each connection, as far as its keys can tell them apart; they take a record each,
    /// of the connections together
    #[arg(
        long,
        env = "RINGEST_GROUPS",
        value_name = "N",
        default_value_t = 125,
        value_parser =
            clap::value_parser!(u32).range(i64::from(SEND_GROUPS.0)..=i64::from(SEND_GROUPS.1))
    )]
    pub groups: u32,
    /// File that `serve --format ndjson` writes its results to: wait for the results of these
    /// connections and compare them with what was sent
    #[arg(long, env = "RINGEST_VERIFY", value_name = "FILE")]
    pub verify: Option<PathBuf>,
    /// How long to wait for those results
    #[arg(
        long,
        env = "RINGEST_VERIFY_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    pub verify_timeout: Duration,
}

fn write_size(text: &str) -> Result<usize, String> {
    let (_, bytes_max) = SEND_WRITE_BYTES;
    let bytes = size(text)?;
    if bytes > bytes_max { Err(format!("{bytes} bytes, at most {bytes_max}")) } else { Ok(bytes) }
}
