//! Packets that are built once and sent many times: their bytes, the writes of each stream, and the
//! result each stream must produce. Writes to no socket.
//!
//! A block consists of whole packets, and a stream cycles through them: it starts at one of them,
//! wraps around after the last, and ends with a separate packet that holds the remaining records
//! and, if the schema has one, the end record. Memory use therefore depends neither on the length
//! of the streams nor on their number.

use super::generate::{Generator, SpecError, StreamSpec, shuffled_groups};
use crate::client::verify::expected::{ExpectedGroups, name_of_record};
use crate::client::verify::tally::GroupTally;
use crate::config::limits::{
    RECORD_BYTES_MAX, SEND_BLOCK_BYTES, SEND_BLOCK_BYTES_MAX, SEND_WRITE_BYTES,
};
use crate::wire::schema::{End, Endian, Schema};
use fastrand::Rng;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

/// Source of the all-zero record that ends a stream.
static ZEROS: [u8; RECORD_BYTES_MAX] = [0; RECORD_BYTES_MAX];

/// The packets of all streams of one [`StreamSpec`]. It is immutable, so all connections share one.
///
/// Its size is 1 MiB or one record for each group, whichever is more, rounded up to whole packets;
/// less if the streams themselves are shorter.
#[derive(Debug)]
pub struct PacketBlock {
    spec: StreamSpec,
    shape: Shape,
    bytes: Vec<u8>,
    /// The group of each record.
    order: Vec<u32>,
    /// Packets after which a stream repeats.
    cycle: u64,
    /// Whether every stream contains all packets of the cycle, wherever it starts.
    may_turn: bool,
    last_length: PacketLength,
    /// The tally of one cycle, by group. Computed on first use.
    once: OnceLock<Once>,
}

/// The sizes shared by all packets of a block.
#[derive(Clone, Copy, Debug)]
struct Shape {
    length_bytes: usize,
    record_bytes: usize,
    packet_records: usize,
    packet_bytes: usize,
    /// Whether an all-zero record ends a stream.
    zeros_end: bool,
}

#[derive(Debug)]
struct Once {
    tally: GroupTally,
    names: Arc<[Box<str>]>,
}

impl PacketBlock {
    /// Builds the packets for the streams of `spec`. Takes about 0.1 µs for a record of a few
    /// hundred bytes.
    ///
    /// # Errors
    /// [`SpecError`] if no such packets or groups are possible.
    ///
    /// # Panics
    /// If `packet_records` or `groups` of `spec` is 0.
    pub fn new(spec: &StreamSpec) -> Result<Arc<Self>, SpecError> {
        Self::of_bytes(spec, SEND_BLOCK_BYTES)
    }

    /// The same with a size other than [`SEND_BLOCK_BYTES`].
    fn of_bytes(spec: &StreamSpec, block_bytes: usize) -> Result<Arc<Self>, SpecError> {
        spec.check()?;
        let generator = Generator::new(spec)?;
        let Layout { records, cycle, may_turn } = Layout::of(spec, block_bytes)?;
        let shape = Shape::of(spec);
        let mut random = Rng::with_seed(spec.seed);
        // A separate generator, so that a shorter stream begins like a longer one.
        let mut values = random.fork();
        let order = shuffled_groups(&mut random, spec.groups_used(), records);
        let packets = records.div_ceil(shape.packet_records);
        let bytes = packets * shape.length_bytes + records * shape.record_bytes;
        let mut bytes = Vec::with_capacity(bytes);
        let length = PacketLength::of(&spec.schema, shape.packet_records);
        for groups in order.chunks(shape.packet_records) {
            bytes.extend_from_slice(length.bytes());
            for &group in groups {
                generator.write_record(&mut values, group, &mut bytes);
            }
        }
        let left_over = (spec.records % shape.packet_records as u64) as usize;
        let last_length = PacketLength::of(&spec.schema, left_over + usize::from(shape.zeros_end));
        let (spec, once) = (spec.clone(), OnceLock::new());
        Ok(Arc::new(PacketBlock { spec, shape, bytes, order, cycle, may_turn, last_length, once }))
    }

    /// The description it was built from.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// Size of its packets in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of streams that differ; higher stream numbers repeat them.
    pub fn distinct_streams(&self) -> u64 {
        if self.may_turn { self.cycle } else { 1 }
    }

    /// The packet at which a stream begins: one later for each stream number.
    fn first_packet(&self, number: u32) -> u64 {
        u64::from(number) % self.distinct_streams()
    }

    /// Packets of a stream other than its last one.
    fn full_packets(&self) -> u64 {
        self.spec.records / self.shape.packet_records as u64
    }

    /// Data records in a stream's last packet.
    fn left_over(&self) -> usize {
        (self.spec.records % self.shape.packet_records as u64) as usize
    }

    /// The writes of stream `number`, each of about `write_bytes` bytes; see [`Writes`].
    pub fn writes(&self, number: u32, write_bytes: usize) -> Writes<'_> {
        let write_bytes = write_bytes.min(SEND_WRITE_BYTES.1);
        Writes {
            block: self,
            next: self.first_packet(number),
            packets_left: self.full_packets(),
            packets_at_once: write_bytes.div_ceil(self.shape.packet_bytes).max(1) as u64,
            ended: false,
            pieces: Vec::with_capacity(8),
        }
    }

    /// The result that stream `number` must produce: the tally of one cycle times the number of
    /// whole cycles, plus the records of the partial cycle at the end.
    pub fn expected(&self, number: u32) -> ExpectedGroups {
        let Once { tally: once, names } = self.once.get_or_init(|| self.add_up());
        let packet_records = self.shape.packet_records;
        let begin = self.first_packet(number) as usize * packet_records;
        let in_order = || (0..self.order.len()).cycle().skip(begin);
        let rounds = self.full_packets() / self.cycle;
        let mut tally = once.emptied();
        tally.add_times(once, rounds);
        if rounds > 0 && tally.has_ends() {
            for record in in_order().take(self.order.len()) {
                tally.add_ends(self.order[record] as usize, self.record(record));
            }
        }
        let packets = (self.full_packets() % self.cycle) as usize;
        for record in in_order().take(packets * packet_records + self.left_over()) {
            tally.add(self.order[record] as usize, self.record(record));
        }
        ExpectedGroups::new(
            Arc::clone(&self.spec.schema),
            self.spec.records,
            Arc::clone(names),
            tally,
        )
    }

    fn add_up(&self) -> Once {
        let groups = self.spec.groups_used() as usize;
        let mut tally = GroupTally::new(&self.spec.schema, groups);
        let mut names = vec![Box::default(); groups];
        for (i, &group) in self.order.iter().enumerate() {
            let (group, record) = (group as usize, self.record(i));
            if tally.count(group) == 0 {
                names[group] = name_of_record(&self.spec.schema, record).into_boxed_str();
            }
            tally.add(group, record);
        }
        Once { tally, names: names.into() }
    }

    fn record(&self, record: usize) -> &[u8] {
        let lengths = (record / self.shape.packet_records + 1) * self.shape.length_bytes;
        &self.bytes[lengths + record * self.shape.record_bytes..][..self.shape.record_bytes]
    }
}

impl Shape {
    fn of(spec: &StreamSpec) -> Self {
        let length_bytes = spec.schema.framing().length.bytes();
        let record_bytes = spec.schema.record_bytes();
        let packet_records = spec.records_per_packet();
        Shape {
            length_bytes,
            record_bytes,
            packet_records,
            packet_bytes: length_bytes + packet_records * record_bytes,
            zeros_end: spec.schema.framing().end == End::ZeroRecord,
        }
    }
}

/// The length field at the start of a packet.
#[derive(Clone, Copy, Debug)]
struct PacketLength {
    bytes: [u8; 4],
    width: usize,
}

impl PacketLength {
    /// The length of a packet of `records` records.
    fn of(schema: &Schema, records: usize) -> Self {
        let framing = schema.framing();
        let width = framing.length.bytes();
        let own = if framing.includes_itself { width } else { 0 };
        let length = (own + records * schema.record_bytes()) as u32;
        let mut bytes = [0; 4];
        match framing.endian {
            Endian::Big => bytes[..width].copy_from_slice(&length.to_be_bytes()[4 - width..]),
            Endian::Little => bytes[..width].copy_from_slice(&length.to_le_bytes()[..width]),
        }
        PacketLength { bytes, width }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.width]
    }
}

/// The size of a block.
struct Layout {
    records: usize,
    cycle: u64,
    may_turn: bool,
}

impl Layout {
    fn of(spec: &StreamSpec, block_bytes: usize) -> Result<Self, SpecError> {
        assert!(spec.packet_records > 0 && spec.groups > 0, "packet_records and groups are not 0");
        let packet_records = spec.records_per_packet() as u64;
        let for_groups = u64::from(spec.groups_used()).div_ceil(packet_records);
        let for_bytes = (block_bytes as u128).div_ceil(spec.packet_bytes()) as u64;
        let in_stream = spec.records / packet_records;
        let may_turn = in_stream >= for_groups.max(1);
        let (cycle, records) = if may_turn {
            // Every stream contains the whole block, hence all groups, wherever it starts.
            let cycle = for_groups.max(for_bytes).min(in_stream);
            (cycle, cycle * packet_records)
        } else {
            // Too few records for whole packets to contain every group: use the stream itself.
            (in_stream + 1, spec.records)
        };
        let length_bytes = spec.schema.framing().length.bytes() as u128;
        let bytes = u128::from(cycle) * length_bytes + u128::from(records) * spec.record_bytes();
        if bytes > SEND_BLOCK_BYTES_MAX {
            return Err(SpecError::TooLarge { bytes });
        }
        Ok(Layout { records: records as usize, cycle, may_turn })
    }
}

/// The writes of one stream, in order, as slices of the block; nothing is copied.
///
/// Each write collects packets until they fill the requested number of bytes (0: one packet a
/// write). The last write has the remaining packets, including the one with the end record. A
/// request above the limit of `send --write-bytes` is reduced to it.
pub struct Writes<'a> {
    block: &'a PacketBlock,
    next: u64,
    packets_left: u64,
    packets_at_once: u64,
    ended: bool,
    pieces: Vec<IoSlice<'a>>,
}

/// The contents of one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteContents {
    /// Packets in the write.
    pub packets: u64,
    /// Data records; the end record is not counted.
    pub records: u64,
    /// Bytes in the write.
    pub bytes: u64,
}

impl<'a> Writes<'a> {
    /// Data records in each write but the last.
    pub fn records_at_once(&self) -> u64 {
        self.packets_at_once * self.block.shape.packet_records as u64
    }

    /// The next write: its contents and the slices to pass to `write_vectored`; `None` after the
    /// last.
    #[inline]
    pub fn next_write(&mut self) -> Option<(WriteContents, &mut [IoSlice<'a>])> {
        if self.ended {
            return None;
        }
        self.pieces.clear();
        let shape = self.block.shape;
        let packets = self.packets_left.min(self.packets_at_once);
        self.packets_left -= packets;
        self.take(packets);
        let mut held = WriteContents {
            packets,
            records: packets * shape.packet_records as u64,
            bytes: packets * shape.packet_bytes as u64,
        };
        if packets < self.packets_at_once {
            self.ended = true;
            self.take_last(&mut held);
        }
        // If closing the connection ends the stream, nothing may be left after its whole packets.
        (!self.pieces.is_empty()).then_some((held, &mut self.pieces))
    }

    /// Takes whole packets from the next one on, wrapping around as often as needed.
    fn take(&mut self, packets: u64) {
        let (cycle, packet_bytes) = (self.block.cycle, self.block.shape.packet_bytes);
        let mut left = packets;
        while left > 0 {
            let end = cycle.min(self.next + left);
            let slice = self.next as usize * packet_bytes..end as usize * packet_bytes;
            self.pieces.push(IoSlice::new(&self.block.bytes[slice]));
            left -= end - self.next;
            self.next = if end == cycle { 0 } else { end };
        }
    }

    /// Takes the packet of the remaining records and the end record, unless there are neither.
    fn take_last(&mut self, held: &mut WriteContents) {
        let block = self.block;
        let Shape { length_bytes, record_bytes, packet_bytes, zeros_end, .. } = block.shape;
        let records = block.left_over();
        let all_records = records + usize::from(zeros_end);
        if all_records == 0 {
            return;
        }
        if length_bytes > 0 {
            self.pieces.push(IoSlice::new(block.last_length.bytes()));
        }
        if records > 0 {
            let begin = self.next as usize * packet_bytes + length_bytes;
            let data = &block.bytes[begin..begin + records * record_bytes];
            self.pieces.push(IoSlice::new(data));
        }
        if zeros_end {
            self.pieces.push(IoSlice::new(&ZEROS[..record_bytes]));
        }
        held.packets += 1;
        held.records += records as u64;
        held.bytes += (length_bytes + all_records * record_bytes) as u64;
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "block_schema_tests.rs"]
mod schema_tests;
