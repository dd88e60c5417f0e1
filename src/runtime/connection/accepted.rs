//! An accepted connection on its way from the acceptor to a worker. Nothing has been read from it.

use super::quota::Ticket;
use super::slots::Slot;
use crate::engine::observe::counters::Protocol;
use crate::runtime::network::NewSocket;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;

/// An accepted connection, to be sent to a worker.
pub(crate) struct Accepted {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, counted from 1.
    pub number: u64,
    /// Its socket.
    pub stream: NewSocket,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Its slot.
    pub slot: Slot,
    /// Its TLS configuration; `None` for plain TCP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Its place among the connections that `--exit-after` counts; `None` for message connections.
    pub ticket: Option<Ticket>,
}
