//! Sends the prebuilt packets of `ringest send`, with one thread for each connection.

use crate::shapes::Shape;
use ringest::client::records::block::PacketBlock;
use ringest::client::records::generate::{SentPadding, StreamSpec};
use ringest::client::records::sender::{SendError, SendSettings, Sent, send_stream};
use ringest::client::verify::expected::ExpectedGroups;
use ringest::schema::Schema;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

/// Size of the unit that a turn sends a whole number of: enough records for every group to occur,
/// and at least a few thousand.
pub fn unit_records(shape: &Shape, tiny: bool) -> u64 {
    match tiny {
        true => 2 * shape.packet_records as u64,
        false => u64::from(shape.groups).max(4096).next_multiple_of(shape.packet_records as u64),
    }
}

/// The stream that each connection sends.
pub struct Stream {
    block: Arc<PacketBlock>,
    settings: SendSettings,
    /// Number of data records.
    pub records: u64,
    /// The result they must produce.
    pub expected: ExpectedGroups,
}

impl Stream {
    /// A stream of `records` records of a shape.
    pub fn new(shape: &Shape, records: u64, congestion: Option<&str>) -> Self {
        let block = PacketBlock::new(&StreamSpec {
            schema: Schema::built_in(),
            records,
            packet_records: shape.packet_records,
            padding: SentPadding::Space,
            seed: 1,
            groups: shape.groups,
        });
        let block = block.expect("each shape has packets");
        // All connections send the same.
        let settings = SendSettings {
            number: 0,
            write_bytes: shape.write_bytes,
            congestion: congestion.map(str::to_owned),
            ..SendSettings::default()
        };
        Stream { expected: block.expected(settings.number), block, settings, records }
    }

    /// Starts sending over `connections` connections.
    pub fn send(&self, address: SocketAddr, connections: usize) -> Senders {
        let thread = |_| {
            let (block, settings) = (Arc::clone(&self.block), self.settings.clone());
            thread::spawn(move || send_stream(address, &block, &settings, &AtomicU64::new(0)))
        };
        Senders((0..connections).map(thread).collect())
    }
}

/// Connections still being written to.
pub struct Senders(Vec<JoinHandle<Result<Sent, SendError>>>);

impl Senders {
    /// Waits until all have written everything and closed. Returns the bytes sent by each.
    ///
    /// # Errors
    /// The first error of any connection.
    pub fn finish(self) -> Result<u64, SendError> {
        let mut bytes = 0;
        for thread in self.0 {
            bytes = thread.join().expect("no panic")?.bytes;
        }
        Ok(bytes)
    }
}
