//! Options of `serve` for partials. Checks single values only.

use super::heading;
use crate::config::Config;
use std::path::PathBuf;
use std::time::Duration;

/// Partials, to be merged later.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::CAPTURES_AND_PARTIALS)]
pub(crate) struct PartialsOptions {
    /// Directory for partial results, in batches, which `ringest merge` combines
    #[arg(long, env = "RINGEST_PARTIALS", value_name = "DIR", hide_short_help = true)]
    pub partials: Option<PathBuf>,
    /// Length of a batch, and so the most that is lost if this process is killed [100ms to 1h]
    #[arg(
        long,
        env = "RINGEST_PARTIALS_INTERVAL",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub partials_interval: Duration,
}

impl PartialsOptions {
    /// A configuration with these options.
    pub(crate) fn apply(&self, config: Config) -> Config {
        Config {
            partials: self.partials.clone(),
            partials_interval: self.partials_interval,
            ..config
        }
    }
}
