//! Sends prebuilt packets with a plain write loop, a thread for each connection: reads no answer.

use crate::shapes::Shape;
use ringest::client::expected::Expected;
use ringest::client::generate::{Packets, Padding, StreamSpec};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A block is as long as this, or as all groups need. Of this size it stays in the sender's cache.
const BLOCK_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 267;

/// Whole packets, made once and sent again and again.
pub struct Block {
    bytes: Vec<u8>,
    /// Data records in it.
    pub records: u64,
    /// What one of it adds up to.
    pub expected: Expected,
}

impl Block {
    /// The packets of a shape. With `tiny`, two of them.
    pub fn new(shape: &Shape, tiny: bool) -> Self {
        let packet_bytes = 4 + shape.packet_records * RECORD_BYTES;
        let packets = match tiny {
            true => 2,
            false => (BLOCK_BYTES / packet_bytes)
                .max((shape.groups as usize).div_ceil(shape.packet_records)),
        };
        let records = (packets * shape.packet_records) as u64;
        let spec = StreamSpec {
            records,
            packet_records: shape.packet_records,
            padding: Padding::Space,
            seed: 1,
            groups: shape.groups,
        };
        let mut bytes = Vec::with_capacity(packets * packet_bytes);
        let mut made = Packets::new(spec, true);
        // The end record would come in a packet of its own after these.
        for _ in 0..packets {
            made.write_next(&mut bytes);
        }
        let expected = made.expected().expect("a tally was asked for");
        Block { bytes, records, expected }
    }
}

/// The packet that ends a stream: nothing but the end record.
fn end_packet() -> Vec<u8> {
    let mut packet = vec![0; 4 + RECORD_BYTES];
    packet[..4].copy_from_slice(&(4 + RECORD_BYTES as u32).to_be_bytes());
    packet
}

/// What each connection sends.
#[derive(Clone)]
pub struct Stream {
    /// The packets.
    pub block: Arc<Block>,
    /// How many times.
    pub cycles: u64,
    /// Bytes of each write.
    pub write_bytes: usize,
}

impl Stream {
    /// Data records.
    pub fn records(&self) -> u64 {
        self.block.records * self.cycles
    }

    /// Bytes, those of the end record's packet included.
    pub fn bytes(&self) -> u64 {
        self.block.bytes.len() as u64 * self.cycles + end_packet().len() as u64
    }

    fn write(&self, mut socket: TcpStream) -> io::Result<()> {
        for _ in 0..self.cycles {
            for piece in self.block.bytes.chunks(self.write_bytes) {
                socket.write_all(piece)?;
            }
        }
        socket.write_all(&end_packet())
    }
}

/// Connections that wait for their start.
pub struct Senders {
    start: Arc<Barrier>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Senders {
    /// Connects `connections` times and makes their threads; nothing is written yet.
    ///
    /// # Errors
    /// Those of the connections.
    pub fn connect(address: SocketAddr, connections: usize, stream: &Stream) -> io::Result<Self> {
        let start = Arc::new(Barrier::new(connections + 1));
        let mut sockets = Vec::new();
        for _ in 0..connections {
            let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        let threads = sockets.into_iter().map(|socket| {
            let (stream, start) = (stream.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                stream.write(socket)
            })
        });
        Ok(Senders { threads: threads.collect(), start })
    }

    /// Lets all of them write.
    pub fn start(&self) {
        self.start.wait();
    }

    /// Waits until all have written everything and closed.
    ///
    /// # Errors
    /// The first of theirs.
    pub fn finish(self) -> io::Result<()> {
        let results = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        results.collect()
    }
}
