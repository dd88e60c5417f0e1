//! Options that say how long peers may take: checks single values, combines none. Those of a silent
//! peer and of an unfinished packet are among the limits.

use crate::config::Config;
use std::time::Duration;

/// How long peers may take.
#[derive(Debug, clap::Args)]
pub(crate) struct TimeOptions {
    /// Longest time from a frame's first byte to its last [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_FRAME_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub frame_timeout: Duration,
    /// Longest TLS handshake [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub handshake_timeout: Duration,
    /// How long a client may take to authenticate, with --require-auth [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_AUTH_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub auth_timeout: Duration,
    /// How long a write to a message client may make no progress before the client is cut off
    /// [100ms to 7days]
    #[arg(
        long,
        env = "RINGEST_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub write_timeout: Duration,
    /// How long a peer may take to close once everything is said; then the engine closes
    /// [0 to 1min]
    #[arg(
        long,
        env = "RINGEST_LINGER",
        value_name = "TIME",
        default_value = "1s",
        value_parser = humantime::parse_duration
    )]
    pub linger: Duration,
    /// The same for a message client that was refused because no connection was free
    /// [0 to 1min]
    #[arg(
        long,
        env = "RINGEST_REFUSED_LINGER",
        value_name = "TIME",
        default_value = "100ms",
        value_parser = humantime::parse_duration
    )]
    pub refused_linger: Duration,
    /// How long running connections may go on after the first SIGTERM or SIGINT [0 to 7days]
    #[arg(
        long,
        env = "RINGEST_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub drain_timeout: Duration,
}

impl TimeOptions {
    /// A configuration with these times, not yet checked.
    pub(crate) fn apply(&self, config: Config) -> Config {
        Config {
            frame_timeout: self.frame_timeout,
            handshake_timeout: self.handshake_timeout,
            auth_timeout: self.auth_timeout,
            write_timeout: self.write_timeout,
            linger: self.linger,
            refused_linger: self.refused_linger,
            drain_timeout: self.drain_timeout,
            ..config
        }
    }
}
