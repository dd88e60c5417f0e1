//! Options of `ringest doctor`.

use super::engine::EngineOptions;
use super::heading;
use clap::ValueEnum;

/// Options of `ringest doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorOptions {
    /// The engine that is to run here
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Format of the findings on stdout
    #[arg(
        long,
        value_enum,
        default_value_t = DoctorFormat::Text,
        help_heading = heading::RESULTS
    )]
    pub format: DoctorFormat,
}

/// The format of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorFormat {
    /// One line per finding, followed by its remedy
    Text,
    /// One JSON object
    Json,
}
