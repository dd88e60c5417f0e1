//! Options of `ringest token`. Runs nothing.

use std::path::PathBuf;

/// Options of `ringest token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenOptions {
    /// Name of the user [1 to 255 bytes]
    pub user: String,
    /// File of users to add the line to; made where it is missing. Without it, the line is shown
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
}
