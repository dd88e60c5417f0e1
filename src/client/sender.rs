//! One connection that sends a stream of records with blocking writes: generates none and checks
//! nothing that comes of them.

use super::expected::Expected;
use super::generate::{Packets, StreamSpec};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was sent over one connection.
#[derive(Debug)]
pub struct Sent {
    /// The sender's own address, by which the engine's result is found.
    pub local: SocketAddr,
    /// Data records.
    pub records: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the socket was closed.
    pub closed: Instant,
    /// What the records add up to, if that was asked for.
    pub expected: Option<Expected>,
}

/// Why a stream could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error("cannot connect to {address}: {source}; is an engine listening there?")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The engine closed the connection.
    #[error(
        "the connection to {address} broke after {records} records: {source}; \
         the engine's result and log name the reason"
    )]
    Write {
        /// Where to.
        address: SocketAddr,
        /// Records written before.
        records: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// Sends one stream: packets are collected until they fill `write_bytes`, then written at once; 0
/// writes each packet by itself. Each record sent is counted in `progress`.
///
/// # Errors
/// [`SendError`].
pub fn send_stream(
    address: SocketAddr,
    spec: StreamSpec,
    write_bytes: usize,
    tally: bool,
    progress: &AtomicU64,
) -> Result<Sent, SendError> {
    let connect = |source| SendError::Connect { address, source };
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(connect)?;
    let local = stream.local_addr().map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;

    let mut packets = Packets::new(spec, tally);
    let closed = Instant::now();
    let mut sent = Sent { local, records: 0, packets: 0, bytes: 0, closed, expected: None };
    let mut out = Vec::with_capacity(write_bytes + 4 + (spec.packet_records + 1) * 267);
    loop {
        let packet = packets.write_next(&mut out);
        if let Some(records) = packet {
            sent.packets += 1;
            sent.records += records as u64;
        }
        if out.len() >= write_bytes || packet.is_none() {
            let records = sent.records;
            stream.write_all(&out).map_err(|source| SendError::Write {
                address,
                records,
                source,
            })?;
            sent.bytes += out.len() as u64;
            progress.store(sent.records, Ordering::Relaxed);
            out.clear();
        }
        if packet.is_none() {
            break;
        }
    }
    drop(stream);
    sent.closed = Instant::now();
    sent.expected = packets.expected();
    Ok(sent)
}
