//! Options of `ringest health`. Runs nothing.

/// Options of `ringest health`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthOptions {
    /// Address or name of the admin listener; 0.0.0.0 and :: are asked on loopback
    #[arg(long, env = "RINGEST_ADMIN_HOST", default_value = "127.0.0.1")]
    pub admin_host: String,
    /// Port of the admin listener; by default 1000 above --port
    #[arg(long, env = "RINGEST_ADMIN_PORT")]
    pub admin_port: Option<u16>,
    /// Port of the message listener
    #[arg(long, env = "RINGEST_PORT", default_value_t = 5000)]
    pub port: u16,
    /// Ask nobody: only see in the kernel's table whether something listens on this record port
    #[arg(long, value_name = "PORT")]
    pub records_port: Option<u16>,
}
