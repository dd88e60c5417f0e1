//! Sends a stream of records over one connection with blocking writes. Generates no records and
//! checks no results.

use super::block::{PacketBlock, WriteContents, Writes};
use super::pace::{Pace, Pacer};
use super::socket::RecordSocket;
pub use super::socket::SendError;
use crate::client::messages::transport::ClientTls;
use crate::client::verify::expected::ExpectedGroups;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How to send one of a block's streams.
#[derive(Clone, Debug, Default)]
pub struct SendSettings {
    /// Which of the block's streams to send. Each starts one packet later than the one before.
    pub number: u32,
    /// Bytes of packets to collect before each write; 0 writes every packet by itself. Capped at
    /// the limit of `send --write-bytes`.
    pub write_bytes: usize,
    /// The rate, shared by all connections. `None` sends as fast as possible.
    pub pace: Option<Arc<Pace>>,
    /// Whether to compute the expected result; see [`Sent::expected`].
    pub tally: bool,
    /// Name of the TCP congestion control algorithm; `None` uses the system default.
    pub congestion: Option<String>,
    /// TLS, if the engine's record port uses it.
    pub tls: Option<ClientTls>,
}

/// What was sent over one connection.
#[derive(Debug)]
pub struct Sent {
    /// The sender's own address, which identifies its result: the engine reports it as `peer`.
    pub local: SocketAddr,
    /// Data records sent; the end record is not counted.
    pub records: u64,
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// When it could have sent its first byte: once it was connected and, if paced, once all other
    /// connections were too.
    pub begun: Instant,
    /// When its last byte had been handed to the kernel.
    pub closed: Instant,
    /// The longest time from when a write was due until the kernel had accepted it; `None` if not
    /// paced.
    pub delay_max: Option<Duration>,
    /// The expected result, if [`SendSettings::tally`] asked for it.
    pub expected: Option<ExpectedGroups>,
}

/// Sends one stream of a block over a new connection, and blocks until it is sent and the engine
/// has closed, or has had ten seconds to do so.
/// Stores the number of records sent so far in `progress` after each write.
///
/// A paced stream begins once all connections of its [`Pace`] are made or have failed, so call this
/// once for each of them, each on its own thread.
///
/// # Errors
/// [`SendError`].
pub fn send_stream(
    address: SocketAddr,
    block: &PacketBlock,
    settings: &SendSettings,
    progress: &AtomicU64,
) -> Result<Sent, SendError> {
    let (congestion, tls) = (settings.congestion.as_deref(), settings.tls.as_ref());
    let connected = RecordSocket::connect(address, congestion, tls);
    let start = settings.pace.as_deref().map(Pace::begin);
    let (mut stream, local) = connected?;

    let mut writes = block.writes(settings.number, settings.write_bytes);
    let mut pacer = settings.pace.as_ref().zip(start).map(|(pace, start)| {
        Pacer::new(pace.times(settings.number, writes.records_at_once()), start)
    });
    let begun = start.unwrap_or_else(Instant::now);
    let mut held = WriteContents::default();
    let closed = write_stream(&mut stream, &mut writes, pacer.as_mut(), &mut held, progress)
        .and_then(|()| stream.close())
        .map_err(|source| SendError::of_stream(address, held.records, source))?;
    let WriteContents { records, packets, bytes } = held;
    let delay_max = pacer.map(|pacer| pacer.delay_max());
    let expected = settings.tally.then(|| block.expected(settings.number));
    Ok(Sent { local, records, packets, bytes, begun, closed, delay_max, expected })
}

/// Makes all writes, each when it is due, and adds up in `held` what the finished ones contained.
fn write_stream(
    out: &mut impl Write,
    writes: &mut Writes<'_>,
    mut pacer: Option<&mut Pacer>,
    held: &mut WriteContents,
    progress: &AtomicU64,
) -> io::Result<()> {
    while let Some((this, pieces)) = writes.next_write() {
        let due_ns = pacer.as_mut().map(|pacer| pacer.wait(this.records));
        write_pieces(out, pieces)?;
        if let Some((pacer, due_ns)) = pacer.as_mut().zip(due_ns) {
            pacer.written(due_ns);
        }
        held.packets += this.packets;
        held.records += this.records;
        held.bytes += this.bytes;
        progress.store(held.records, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes all pieces, however few bytes the socket accepts at a time.
fn write_pieces(out: &mut impl Write, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !pieces.is_empty() {
        let written = match pieces {
            // A plain send is cheaper than a vectored one with a single piece.
            [piece] => out.write(piece),
            _ => out.write_vectored(pieces),
        };
        match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => IoSlice::advance_slices(&mut pieces, bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::records::generate::{SentPadding, StreamSpec};
    use crate::wire::schema::Schema;

    fn block(records: u64) -> Arc<PacketBlock> {
        let (padding, seed, groups) = (SentPadding::Space, 1, 125);
        let (schema, packet_records) = (Schema::built_in(), 4);
        let spec = StreamSpec { schema, records, packet_records, padding, seed, groups };
        PacketBlock::new(&spec).unwrap()
    }

    /// Accepts a few bytes at a time, with interruptions, as a socket may.
    struct Dribble {
        taken: Vec<u8>,
        calls: usize,
        bytes_max: usize,
    }

    impl Write for Dribble {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(ErrorKind::Interrupted.into());
            }
            let fits = bytes.len().min(1 + self.calls * 37 % 5000);
            if self.taken.len() + fits > self.bytes_max {
                return Err(ErrorKind::ConnectionReset.into());
            }
            self.taken.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        /// May take bytes past the end of the first piece.
        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dribble(block: &PacketBlock, bytes_max: usize) -> (Dribble, WriteContents, io::Result<()>) {
        let mut out = Dribble { taken: Vec::new(), calls: 0, bytes_max };
        let (mut held, progress) = (WriteContents::default(), AtomicU64::new(0));
        let mut writes = block.writes(1, 3000);
        let done = write_stream(&mut out, &mut writes, None, &mut held, &progress);
        assert_eq!(progress.into_inner(), held.records);
        (out, held, done)
    }

    #[test]
    fn nothing_is_lost_where_the_socket_takes_little_at_a_time() {
        let block = block(1003);
        let (out, held, done) = dribble(&block, usize::MAX);
        done.unwrap();
        let mut writes = block.writes(1, 0);
        let mut expected = Vec::new();
        while let Some((_, pieces)) = writes.next_write() {
            pieces.iter().for_each(|piece| expected.extend_from_slice(piece));
        }
        assert!(out.taken == expected);
        let bytes = expected.len() as u64;
        assert_eq!(held, WriteContents { packets: 251, records: 1003, bytes });
    }

    #[test]
    fn an_error_says_how_many_records_were_written_before() {
        // Three packets a write; the third write does not fit.
        let (_, held, done) = dribble(&block(1003), 9 * 1072 - 1);
        assert_eq!(done.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(held, WriteContents { packets: 6, records: 24, bytes: 6 * 1072 });
    }
}
