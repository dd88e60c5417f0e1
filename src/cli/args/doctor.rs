//! Options of `ringest doctor`: those of `serve`.

use super::heading;
use super::serve::ServeOptions;
use clap::ValueEnum;

/// Options of `ringest doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It takes the options of `ringest serve`, and its environment variables, and \
                  checks whether that would start."
)]
pub(crate) struct DoctorOptions {
    /// What is to run here
    #[command(flatten)]
    pub serve: ServeOptions,
    /// Format of the findings on stdout
    #[arg(
        long,
        value_enum,
        default_value_t = DoctorFormat::Text,
        help_heading = heading::RESULTS
    )]
    pub format: DoctorFormat,
}

/// The format of findings. Those of `serve` are understood as well, so that its command line can be
/// checked as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorFormat {
    /// One line per finding, followed by its remedy
    #[value(alias = "table")]
    Text,
    /// One JSON object
    #[value(alias = "ndjson")]
    Json,
}
