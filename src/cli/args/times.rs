//! Options that say how long an engine waits. Checks single values only.

use super::heading;
use crate::config::Config;
use std::time::Duration;

/// How long an engine waits for record streams.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::TIMEOUTS)]
pub(crate) struct StreamTimeOptions {
    /// Longest time that a connection waits until one of --max-connections or --max-streams is
    /// free, before it is refused; 0 refuses it at once [0 to 7 days]
    ///
    /// Connections wait in the listen queue. The time counts from when they were established.
    #[arg(
        long,
        env = "RINGEST_ADMIT_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub admit_timeout: Duration,
    /// Longest silence between packets or frames before the connection is closed [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub idle_timeout: Duration,
    /// Longest time from a packet's first byte to its last [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_PACKET_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub packet_timeout: Duration,
    /// Longest time that small segments in quick succession wait to be read together; 0 reads each
    /// as it arrives [0 to 1s]
    ///
    /// This applies to record streams only.
    #[arg(
        long,
        env = "RINGEST_COALESCE_DELAY",
        value_name = "TIME",
        default_value = "1ms",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub coalesce_delay: Duration,
}

/// How long an engine waits for peers, and at its end.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::TIMEOUTS)]
pub(crate) struct PeerTimeOptions {
    /// Longest time from a frame's first byte to its last [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_FRAME_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub frame_timeout: Duration,
    /// Longest time of a TLS handshake [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub handshake_timeout: Duration,
    /// How long a client may take to authenticate, with --require-auth [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_AUTH_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub auth_timeout: Duration,
    /// How long a write to a message client, or of TLS to a sender, may make no progress before the
    /// connection is ended [100ms to 7 days]
    #[arg(
        long,
        env = "RINGEST_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub write_timeout: Duration,
    /// How long a finished peer may take to close before the engine closes the connection
    /// [0 to 1min]
    #[arg(
        long,
        env = "RINGEST_LINGER",
        value_name = "TIME",
        default_value = "1s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub linger: Duration,
    /// The same for a message client that was refused for lack of a free connection [0 to 1min]
    #[arg(
        long,
        env = "RINGEST_REFUSED_LINGER",
        value_name = "TIME",
        default_value = "100ms",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub refused_linger: Duration,
    /// How long to go on accepting connections after the first SIGTERM or SIGINT, while /readyz
    /// already answers 503 [0 to 7 days]
    ///
    /// A load balancer needs this time to notice. Default: 5s if /readyz has been asked since the
    /// start, otherwise 0.
    #[arg(
        long,
        env = "RINGEST_DRAIN_DELAY",
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub drain_delay: Option<Duration>,
    /// How long running connections may go on once a signal has closed the listeners [0 to 7 days]
    #[arg(
        long,
        env = "RINGEST_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
    pub drain_timeout: Duration,
}

impl StreamTimeOptions {
    /// A configuration with these times, not yet checked.
    pub(crate) fn apply(&self, config: Config) -> Config {
        Config {
            admit_timeout: self.admit_timeout,
            idle_timeout: self.idle_timeout,
            packet_timeout: self.packet_timeout,
            coalesce_delay: self.coalesce_delay,
            ..config
        }
    }
}

impl PeerTimeOptions {
    /// A configuration with these times, not yet checked.
    pub(crate) fn apply(&self, config: Config) -> Config {
        Config {
            frame_timeout: self.frame_timeout,
            handshake_timeout: self.handshake_timeout,
            auth_timeout: self.auth_timeout,
            write_timeout: self.write_timeout,
            linger: self.linger,
            refused_linger: self.refused_linger,
            drain_delay: self.drain_delay,
            drain_timeout: self.drain_timeout,
            ..config
        }
    }
}
