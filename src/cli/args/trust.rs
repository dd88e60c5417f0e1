//! Options of clients for TLS: whom to trust, and who they are. Needs a switch `--tls` beside it.
//! Checks single values only.

use super::heading;
use std::path::PathBuf;

/// Whom a client with TLS trusts, and its own certificate.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::TLS_AND_USERS)]
pub(crate) struct TrustOptions {
    /// PEM file of the certificate authorities to trust
    #[arg(
        long,
        env = "RINGEST_CA",
        value_name = "FILE",
        requires = "tls",
        conflicts_with = "insecure",
        hide_short_help = true
    )]
    pub ca: Option<PathBuf>,
    /// Accept any certificate, for trials only
    #[arg(
        long,
        env = "RINGEST_INSECURE",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        requires = "tls",
        hide_short_help = true
    )]
    pub insecure: bool,
    /// PEM file of the client certificate, for servers that ask for one
    #[arg(
        long,
        env = "RINGEST_CLIENT_CERT",
        value_name = "FILE",
        requires_all = ["tls", "client_key"],
        hide_short_help = true
    )]
    pub client_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(
        long,
        env = "RINGEST_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert",
        hide_short_help = true
    )]
    pub client_key: Option<PathBuf>,
}
