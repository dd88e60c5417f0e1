//! The settings of a load run and their checks: traffic, rate, limits on messages in flight.

use crate::client::messages::session::DATA_BYTES_MAX;
use crate::client::messages::transport::ClientTls;
use crate::config::limits::{CLIENT_TIME_MAX, LOAD_DURATION_MIN, LOAD_RATE};
use crate::wire::messages::frame::{OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};
use crate::wire::text::{counted, time_text};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Maximum bytes of messages in flight over all connections.
pub const IN_FLIGHT_BYTES_MAX: usize = 1 << 30;
/// Maximum messages in flight on one connection of an open loop; the byte limit may allow fewer.
const OPEN_LOOP_MESSAGES_MAX: usize = 4096;

/// The type of message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// PING, answered by PONG.
    Ping,
    /// ECHO, answered by ECHO_REPLY.
    Echo,
    /// DATA, answered by DATA_ACK.
    Data,
    /// BROADCAST, delivered to every other connection.
    Broadcast,
}

/// The credentials of the connections. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// The user's token.
    pub token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a load run does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the server.
    pub address: SocketAddr,
    /// A connection that was made to find out whether the address accepts. It becomes the first
    /// connection of the run, so that it takes no place of its own at the server.
    pub found: Option<Arc<TcpStream>>,
    /// TLS, if the server uses it.
    pub tls: Option<ClientTls>,
    /// Credentials with which every connection authenticates, if any.
    pub login: Option<Login>,
    /// Number of connections; 1 or more, 2 or more for broadcasts.
    pub connections: usize,
    /// Number of threads that share them; 1 up to the number of connections.
    pub threads: usize,
    /// The type of message to send.
    pub traffic: Traffic,
    /// Payload bytes of each ECHO and BROADCAST, and of each DATA after its sequence. Ignored for
    /// PING, which always has 8.
    pub payload_bytes: usize,
    /// Messages that each connection keeps in flight in a closed loop; 1 or more. For broadcasts,
    /// messages in flight for each sender.
    pub pipeline: usize,
    /// Messages per second over all connections, as an open loop; `None` runs a closed loop.
    pub rate: Option<u64>,
    /// Number of connections that send BROADCASTs; all connections receive them. Used only for
    /// [`Traffic::Broadcast`].
    pub senders: usize,
    /// Time to send before the measurement begins.
    pub warm_up: Duration,
    /// Length of the measurement.
    pub duration: Duration,
    /// How long to wait for outstanding answers afterwards.
    pub drain: Duration,
}

impl Settings {
    /// A closed loop of PINGs over one connection: ten seconds after one second of warm-up.
    pub fn new(address: SocketAddr) -> Self {
        Settings {
            address,
            found: None,
            tls: None,
            login: None,
            connections: 1,
            threads: 1,
            traffic: Traffic::Ping,
            payload_bytes: 64,
            pipeline: 1,
            rate: None,
            senders: 1,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }

    /// Size of one message's frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        let payload = match self.traffic {
            Traffic::Ping => 8,
            Traffic::Data => 4 + self.payload_bytes,
            Traffic::Echo | Traffic::Broadcast => self.payload_bytes,
        };
        OVERHEAD_BYTES + payload
    }

    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let wrong = |why: String| Err(LoadError::Settings(why));
        let limit = match self.traffic {
            Traffic::Data => DATA_BYTES_MAX,
            _ => PAYLOAD_BYTES_MAX,
        };
        let &Settings { connections, threads, senders, .. } = self;
        if self.payload_bytes > limit {
            let bytes = self.payload_bytes;
            return wrong(format!("a payload of {bytes} bytes is too long; the limit is {limit}"));
        }
        if connections == 0 || self.pipeline == 0 {
            return wrong("connections and pipeline must be at least 1".to_owned());
        }
        let (rate_min, rate_max) = LOAD_RATE;
        if self.rate.is_some_and(|rate| !(rate_min..=rate_max).contains(&rate)) {
            return wrong(format!("the rate must be between {rate_min} and {rate_max}"));
        }
        if self.duration < LOAD_DURATION_MIN || self.duration.max(self.warm_up) > CLIENT_TIME_MAX {
            return wrong(format!(
                "the duration must be between {LOAD_DURATION_MIN:?} and {}, and the warm-up at \
                 most that",
                time_text(CLIENT_TIME_MAX)
            ));
        }
        if threads == 0 || threads > connections {
            return wrong(format!(
                "{} for {}; use at least 1 thread and no more than there are connections",
                counted(threads, "thread"),
                counted(connections, "connection")
            ));
        }
        let broadcast = self.traffic == Traffic::Broadcast;
        if broadcast && (senders == 0 || senders > connections || connections < 2) {
            return wrong(format!(
                "{} and {}: broadcasts need at least one sender and two connections, and no more \
                 senders than connections",
                counted(senders, "sender"),
                counted(connections, "connection")
            ));
        }
        let bytes = connections.saturating_mul(self.pipeline).saturating_mul(self.frame_bytes());
        if self.rate.is_none() && !broadcast && bytes > IN_FLIGHT_BYTES_MAX {
            return wrong(format!(
                "{bytes} bytes would be in flight, the limit is {IN_FLIGHT_BYTES_MAX}; use fewer \
                 connections, a shorter pipeline or a smaller payload"
            ));
        }
        Ok(())
    }

    /// Maximum messages in flight on one connection of an open loop.
    pub(crate) fn open_loop_messages(&self) -> usize {
        let fit = IN_FLIGHT_BYTES_MAX / self.connections / self.frame_bytes();
        fit.clamp(1, OPEN_LOOP_MESSAGES_MAX)
    }
}

/// What to look at, unless the cause of a failure says it behind a semicolon.
fn next_step(cause: &str) -> &'static str {
    if cause.contains("; ") { "" } else { "; is a message server listening there?" }
}

/// Why a load run failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The settings contradict each other or exceed a limit.
    #[error("{0}")]
    Settings(String),
    /// The connections need more open files than the system allows.
    #[error(
        "{need} open files are needed but the hard limit is {hard}; raise it (`ulimit -Hn`, \
         LimitNOFILE= in a systemd unit, `ulimits: nofile` in a compose service) or use fewer \
         connections"
    )]
    OpenFiles {
        /// Open files needed.
        need: u64,
        /// The hard limit.
        hard: u64,
    },
    /// No connection was made.
    #[error("no connection to {address}: {cause}{}", next_step(.cause))]
    NoConnection {
        /// Address of the server.
        address: SocketAddr,
        /// Why the first one failed.
        cause: String,
    },
    /// The server rejected the credentials.
    #[error("the server refused user {user:?}; check its name and token")]
    Refused {
        /// Name of the user.
        user: String,
    },
    /// A system call failed.
    #[error(
        "cannot {what}: {source}; raise the limits of open files and of processes (ulimit -n, \
         ulimit -u)"
    )]
    System {
        /// What it was for, as an infinitive.
        what: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}
