//! A connection on its way from the acceptor to a worker. Nothing of it has been read.

use super::slots::Slot;
use crate::engine::observe::counters::Protocol;
use rustls::ServerConfig;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A connection on its way to a worker.
pub(crate) struct Accepted {
    /// What it speaks.
    pub protocol: Protocol,
    /// Number of the connection, from 1.
    pub number: u64,
    /// Its socket.
    pub stream: TcpStream,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Its slot.
    pub slot: Slot,
    /// How it is encrypted, if it is.
    pub tls: Option<Arc<ServerConfig>>,
}
