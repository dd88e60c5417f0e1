//! Options of `ringest token`.

use std::path::PathBuf;

/// Options of `ringest token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenOptions {
    /// Name of the user [1 to 255 bytes]
    pub user: String,
    /// File of users to add the user to; created if it does not exist. Without it, the line for
    /// that file is printed on stderr
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// New file to write the token to, readable by its owner only. Without it, the token is printed
    /// on stdout
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
