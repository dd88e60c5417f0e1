//! Options of `ringest health`.

use super::host::host;

/// Options of `ringest health`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthOptions {
    /// Address or host name of the admin listener; 0.0.0.0 and :: mean loopback
    #[arg(
        long,
        env = "RINGEST_ADMIN_HOST",
        value_name = "HOST",
        default_value = "127.0.0.1",
        value_parser = host
    )]
    pub admin_host: String,
    /// Port of the admin listener, by default --port plus 1000
    #[arg(long, env = "RINGEST_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Port of the message listener
    #[arg(long, env = "RINGEST_PORT", default_value_t = 5000)]
    pub port: u16,
    /// Connect to nothing: only check in the kernel's socket table that something listens on this
    /// record port
    #[arg(long, value_name = "PORT")]
    pub records_port: Option<u16>,
}
