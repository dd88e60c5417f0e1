//! What a load run does: traffic, rates, limits on what is in flight. Runs nothing.

use crate::client::messages::session::DATA_BYTES_MAX;
use crate::client::messages::transport::ClientTls;
use crate::wire::messages::frame::{OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of messages in flight, of all connections together.
pub const IN_FLIGHT_BYTES_MAX: usize = 1 << 30;
/// Messages in flight of one connection in an open loop; the bytes may allow fewer.
const OPEN_LOOP_MESSAGES_MAX: usize = 4096;

/// What is sent.
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

/// Who the connections say that they are. The token is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// What proves it.
    pub token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub address: SocketAddr,
    /// TLS, if it speaks that.
    pub tls: Option<ClientTls>,
    /// Authentication of every connection, if that is wanted.
    pub login: Option<Login>,
    /// Connections.
    pub connections: usize,
    /// Threads that share them.
    pub threads: usize,
    /// What is sent.
    pub traffic: Traffic,
    /// Bytes of each ECHO and BROADCAST, and of each DATA behind its sequence; PING has its 8.
    pub payload_bytes: usize,
    /// Messages that a connection keeps in flight in a closed loop.
    pub pipeline: usize,
    /// Messages a second over all connections: an open loop. `None` is a closed one.
    pub rate: Option<u64>,
    /// Connections that send BROADCASTs, the first ones; all receive them.
    pub senders: usize,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub duration: Duration,
    /// How long answers are waited for after it.
    pub drain: Duration,
}

impl Settings {
    /// A closed loop of PINGs over one connection, for ten seconds after one of warm-up.
    pub fn new(address: SocketAddr) -> Self {
        Settings {
            address,
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

    /// Bytes of one message's frame.
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
            return wrong(format!("{} bytes of payload: at most {limit} fit", self.payload_bytes));
        }
        if connections == 0 || self.pipeline == 0 || self.rate == Some(0) {
            return wrong("connections, pipeline and rate must be 1 at least".to_owned());
        }
        if threads == 0 || threads > connections {
            return wrong(format!("{threads} threads for {connections} connections: 1 to as many"));
        }
        let broadcast = self.traffic == Traffic::Broadcast;
        if broadcast && (senders == 0 || senders > connections || connections < 2) {
            return wrong(format!(
                "{senders} senders and {connections} connections: broadcasts need a sender, and \
                 a second connection that receives"
            ));
        }
        let bytes = connections.saturating_mul(self.pipeline).saturating_mul(self.frame_bytes());
        if self.rate.is_none() && !broadcast && bytes > IN_FLIGHT_BYTES_MAX {
            return wrong(format!(
                "{bytes} bytes would be in flight, at most {IN_FLIGHT_BYTES_MAX} may be; lower the \
                 connections, the pipeline or the payload"
            ));
        }
        Ok(())
    }

    /// Messages that one connection of an open loop may have in flight.
    pub(crate) fn open_loop_messages(&self) -> usize {
        let fit = IN_FLIGHT_BYTES_MAX / self.connections / self.frame_bytes();
        fit.clamp(1, OPEN_LOOP_MESSAGES_MAX)
    }
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Settings that contradict each other or go beyond a limit.
    #[error("{0}")]
    Settings(String),
    /// The connections need more open files than the system allows.
    #[error(
        "{need} open files are needed and the hard limit is {hard}; raise it (`ulimit -Hn`, \
         LimitNOFILE= of a systemd unit, `ulimits: nofile` of a compose service) or take fewer \
         connections"
    )]
    OpenFiles {
        /// How many.
        need: u64,
        /// How many there may be.
        hard: u64,
    },
    /// Not one connection was made.
    #[error("no connection to {address}: {cause}; is a message server listening there?")]
    NoConnection {
        /// Where to.
        address: SocketAddr,
        /// Why the first one failed.
        cause: String,
    },
    /// The server did not believe the user.
    #[error("the server refused user {user:?}; check its name and token")]
    Refused {
        /// Name of the user.
        user: String,
    },
    /// The system refuses what the run needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What it needs.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
