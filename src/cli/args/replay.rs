//! Options of `ringest replay`. Checks single values only.

use super::heading;
use super::host::host;
use super::size::size;
use super::trust::TrustOptions;
use crate::config::limits::{REPLAY_RATE_MAX, REPLAY_WRITE_BYTES};
use std::path::PathBuf;

/// Options of `ringest replay`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::SENDING)]
pub(crate) struct ReplayOptions {
    /// Captures from `serve --capture`, each with the bytes of one connection
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
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
    /// Connections at a time; each file gets its own [1 to 1000]
    #[arg(
        long,
        env = "RINGEST_CONNECTIONS",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub connections: u32,
    /// Size of each write, regardless of packets [1 to 256MiB]
    #[arg(
        long,
        env = "RINGEST_WRITE_BYTES",
        value_name = "SIZE",
        default_value = "60KiB",
        value_parser = write_size
    )]
    pub write_bytes: usize,
    /// Bytes per second over all connections, on a fixed schedule; 0 sends as fast as possible
    /// [0 to 1TB]
    ///
    /// The schedule does not wait for the engine. It times whole writes, so smaller --write-bytes
    /// send more evenly.
    // Not RINGEST_RATE, which counts records where `send` reads it.
    #[arg(
        long,
        env = "RINGEST_REPLAY_RATE",
        value_name = "SIZE",
        default_value = "0",
        value_parser = rate
    )]
    pub rate: u64,
    /// TCP congestion control by its kernel name, such as cubic; without it, the system's default
    #[arg(long, env = "RINGEST_CONGESTION", value_name = "NAME")]
    pub congestion: Option<String>,
    /// Use TLS, as the engine does with --records-tls; needs --ca or --insecure
    #[arg(
        long,
        env = "RINGEST_RECORDS_TLS",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        help_heading = heading::TLS_AND_USERS
    )]
    pub tls: bool,
    /// Whom to trust
    #[command(flatten)]
    pub trust: TrustOptions,
    /// Also send captures that were cut at their size limit (.cut.capture), whose streams are
    /// incomplete
    #[arg(
        long,
        env = "RINGEST_ALLOW_CUT",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub allow_cut: bool,
}

fn write_size(text: &str) -> Result<usize, String> {
    let (min, max) = REPLAY_WRITE_BYTES;
    let bytes = size(text)?;
    match (min..=max).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("{bytes} bytes; it must be between {min} and {max}")),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    match bytes {
        0..=REPLAY_RATE_MAX => Ok(bytes),
        _ => Err(format!("{bytes} bytes per second; it must be at most {REPLAY_RATE_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_have_edges() {
        assert_eq!(write_size("1"), Ok(1));
        assert_eq!(write_size("256MiB"), Ok(256 << 20));
        assert!(write_size("0").unwrap_err().contains("must be between 1 and 268435456"));
        assert!(write_size("268435457").is_err());
        assert_eq!(rate("1TB"), Ok(REPLAY_RATE_MAX));
        assert_eq!(rate("100MB"), Ok(100_000_000));
        assert!(rate("1000000000001").unwrap_err().contains("at most 1000000000000"));
        assert!(rate("fast").unwrap_err().contains("64KiB"));
    }
}
