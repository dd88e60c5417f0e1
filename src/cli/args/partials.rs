//! Options of `serve` about partials for a merge: checks single values, combines none.

use crate::config::Config;
use std::path::PathBuf;
use std::time::Duration;

/// Partials for a merge.
#[derive(Debug, clap::Args)]
pub(crate) struct PartialsOptions {
    /// Directory that batches of record streams are left in, for `ringest merge` and others
    #[arg(long, env = "RINGEST_PARTIALS", value_name = "DIR")]
    pub partials: Option<PathBuf>,
    /// How long a batch of a stream is: what is lost at most where this process is killed
    /// [100ms to 1h]
    #[arg(
        long,
        env = "RINGEST_PARTIALS_INTERVAL",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
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
