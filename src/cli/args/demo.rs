//! Options of `ringest demo`.

use super::engine::ResourceOptions;
use super::heading;
use crate::cli::output::format::Format;

/// Options of `ringest demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoOptions {
    /// Number of connections, all opened at once [1 to 1000]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000),
        help_heading = heading::SENDING
    )]
    pub connections: u32,
    /// Records per connection
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        help_heading = heading::SENDING
    )]
    pub records: u64,
    /// Format of the results on stdout
    #[arg(
        long,
        env = "RINGEST_FORMAT",
        value_enum,
        default_value_t = Format::Table,
        help_heading = heading::RESULTS
    )]
    pub format: Format,
    /// What the engine may use
    #[command(flatten)]
    pub resources: ResourceOptions,
}
