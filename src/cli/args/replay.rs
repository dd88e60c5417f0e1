//! Options of `ringest replay`: checks single values, combines none.

use crate::config::limits::{REPLAY_RATE_MAX, REPLAY_WRITE_BYTES};
use bytesize::ByteSize;
use std::path::PathBuf;

/// Options of `ringest replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayOptions {
    /// Captured streams, as `serve --capture` stores them: the bytes of one connection each
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Address or name of the engine
    #[arg(long, env = "RINGEST_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the engine's record listener
    #[arg(long, env = "RINGEST_RECORDS_PORT", default_value_t = 9000)]
    pub records_port: u16,
    /// Connections at one time; each file has one of its own
    #[arg(
        long,
        env = "RINGEST_CONNECTIONS",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub connections: u32,
    /// Bytes of each write, whatever packets they are [1 to 256MiB]
    #[arg(
        long,
        env = "RINGEST_WRITE_BYTES",
        value_name = "SIZE",
        default_value = "60KiB",
        value_parser = write_size
    )]
    pub write_bytes: usize,
    /// Bytes a second over all connections, on a fixed schedule that waits for nobody; 0 is as
    /// fast as they are taken. Each write has its time, so small --write-bytes are more even
    // Not RINGEST_RATE, which counts records where `send` reads it.
    #[arg(
        long,
        env = "RINGEST_REPLAY_RATE",
        value_name = "SIZE",
        default_value = "0",
        value_parser = rate
    )]
    pub rate: u64,
    /// Congestion control of the connections, as the kernel names it, such as cubic; without this
    /// the system's own
    #[arg(long, env = "RINGEST_CONGESTION", value_name = "NAME")]
    pub congestion: Option<String>,
    /// Send captures, too, that stopped at their limit (.cut.capture): their streams are incomplete
    #[arg(
        long,
        env = "RINGEST_ALLOW_CUT",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub allow_cut: bool,
}

fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write e.g. 64KiB"))?;
    Ok(size.as_u64())
}

fn write_size(text: &str) -> Result<usize, String> {
    let (min, max) = REPLAY_WRITE_BYTES;
    let bytes = size(text)?;
    match usize::try_from(bytes) {
        Ok(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{bytes} bytes, allowed are {min} to {max}")),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    match bytes {
        0..=REPLAY_RATE_MAX => Ok(bytes),
        _ => Err(format!("{bytes} bytes a second, at most {REPLAY_RATE_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_have_edges() {
        assert_eq!(write_size("1"), Ok(1));
        assert_eq!(write_size("256MiB"), Ok(256 << 20));
        assert!(write_size("0").unwrap_err().contains("allowed are 1 to 268435456"));
        assert!(write_size("268435457").is_err());
        assert_eq!(rate("1TB"), Ok(REPLAY_RATE_MAX));
        assert_eq!(rate("100MB"), Ok(100_000_000));
        assert!(rate("1000000000001").unwrap_err().contains("at most 1000000000000"));
        assert!(rate("fast").unwrap_err().contains("64KiB"));
    }
}
