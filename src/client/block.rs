//! Packets that are made once and sent many times: their bytes, the writes that a stream of them
//! consists of, and what such a stream adds up to. Writes nothing to a socket.
//!
//! A block is whole packets. A stream goes round them: it begins at one of them, comes back to the
//! first after the last, and ends with a packet of its own that holds the records left over and
//! the end record. So memory does not follow the records of a stream, nor the number of streams.

use super::expected::{Expected, ExpectedGroup};
use super::generate::{
    RECORD_BYTES, StreamSpec, new_group, read_values, shuffled_groups, write_record,
};
use crate::config::limits::{SEND_BLOCK_BYTES, SEND_WRITE_BYTES};
use fastrand::Rng;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

/// Bytes of a packet's length, which counts itself.
const LENGTH_BYTES: usize = 4;
/// As many as a packet's length can say.
const PACKET_RECORDS_MAX: usize = (u32::MAX as usize - LENGTH_BYTES) / RECORD_BYTES;
/// The all-zero record that ends a stream.
static END_RECORD: [u8; RECORD_BYTES] = [0; RECORD_BYTES];

/// The packets of all streams of one description. Read only, so connections share one.
///
/// It takes [`SEND_BLOCK_BYTES`] or 267 bytes for each group, whichever is more, rounded up to
/// whole packets; less where the streams themselves are shorter.
#[derive(Debug)]
pub struct Block {
    spec: StreamSpec,
    bytes: Vec<u8>,
    /// The group of each record.
    order: Vec<u32>,
    /// Packets after which a stream repeats itself.
    cycle: u64,
    /// Whether a stream holds every packet of the cycle, wherever it begins.
    may_turn: bool,
    last_length: [u8; LENGTH_BYTES],
    /// What all records of the cycle add up to, by group. Made when it is first asked for.
    tally: OnceLock<Vec<ExpectedGroup>>,
}

impl Block {
    /// Makes the packets of streams of `spec`: about 0.1 µs a record.
    ///
    /// # Panics
    /// Where `spec` has no records in a packet, no groups, or packets above 4 GiB.
    pub fn new(spec: &StreamSpec) -> Arc<Self> {
        Self::of_bytes(spec, SEND_BLOCK_BYTES)
    }

    /// The same with another size in place of [`SEND_BLOCK_BYTES`].
    fn of_bytes(spec: &StreamSpec, block_bytes: usize) -> Arc<Self> {
        let Layout { records, cycle, may_turn } = Layout::of(spec, block_bytes);
        let mut random = Rng::with_seed(spec.seed);
        // Of its own, so that a shorter stream begins like a longer one.
        let mut values = random.fork();
        let order = shuffled_groups(&mut random, spec.groups_used(), records);
        let packets = records.div_ceil(spec.packet_records);
        let mut bytes = Vec::with_capacity(packets * LENGTH_BYTES + records * RECORD_BYTES);
        for groups in order.chunks(spec.packet_records) {
            bytes.extend(length(spec.packet_records));
            for &group in groups {
                write_record(&mut values, spec.padding, group, &mut bytes);
            }
        }
        let left_over = (spec.records % spec.packet_records as u64) as usize;
        let last_length = length(left_over + 1);
        let (spec, tally) = (*spec, OnceLock::new());
        Arc::new(Block { spec, bytes, order, cycle, may_turn, last_length, tally })
    }

    /// What its streams consist of.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// Bytes of its packets.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Streams that are different bytes; those of further numbers repeat them.
    pub fn distinct_streams(&self) -> u64 {
        if self.may_turn { self.cycle } else { 1 }
    }

    /// The packet at which a stream begins: one further for each number.
    fn first_packet(&self, number: u32) -> u64 {
        u64::from(number) % self.distinct_streams()
    }

    fn packet_bytes(&self) -> usize {
        LENGTH_BYTES + self.spec.packet_records * RECORD_BYTES
    }

    /// Packets of a stream before its last one.
    fn full_packets(&self) -> u64 {
        self.spec.records / self.spec.packet_records as u64
    }

    /// Data records of a stream's last packet.
    fn left_over(&self) -> usize {
        (self.spec.records % self.spec.packet_records as u64) as usize
    }

    /// The writes of a stream, see [`Writes`].
    pub fn writes(&self, number: u32, write_bytes: usize) -> Writes<'_> {
        let write_bytes = write_bytes.min(SEND_WRITE_BYTES.1);
        Writes {
            block: self,
            next: self.first_packet(number),
            packets_left: self.full_packets(),
            packets_at_once: write_bytes.div_ceil(self.packet_bytes()).max(1) as u64,
            ended: false,
            pieces: Vec::with_capacity(8),
        }
    }

    /// What a stream adds up to: the records of the block, so many times as it goes round, and
    /// those of the part at its end.
    pub fn expected(&self, number: u32) -> Expected {
        let tally = self.tally.get_or_init(|| self.tally());
        let rounds = self.full_packets() / self.cycle;
        let mut groups: Vec<ExpectedGroup> = tally.iter().map(ExpectedGroup::emptied).collect();
        for (group, once) in groups.iter_mut().zip(tally) {
            group.add_times(once, rounds);
        }
        let packet_records = self.spec.packet_records;
        let packets = (self.full_packets() % self.cycle) as usize;
        let begin = self.first_packet(number) as usize * packet_records;
        let part = packets * packet_records + self.left_over();
        for record in (0..self.order.len()).cycle().skip(begin).take(part) {
            self.add_to(&mut groups, record);
        }
        groups.retain(|group| group.count > 0);
        Expected::new(self.spec.records, groups)
    }

    fn tally(&self) -> Vec<ExpectedGroup> {
        let mut groups: Vec<ExpectedGroup> = (0..self.spec.groups_used()).map(new_group).collect();
        (0..self.order.len()).for_each(|record| self.add_to(&mut groups, record));
        groups
    }

    fn add_to(&self, groups: &mut [ExpectedGroup], record: usize) {
        let lengths = (record / self.spec.packet_records + 1) * LENGTH_BYTES;
        let (b, c, d) = read_values(&self.bytes[lengths + record * RECORD_BYTES..]);
        groups[self.order[record] as usize].add(b, c, d);
    }
}

/// The length of a packet of `records` records, as it stands in front of them.
fn length(records: usize) -> [u8; LENGTH_BYTES] {
    ((LENGTH_BYTES + records * RECORD_BYTES) as u32).to_be_bytes()
}

/// How large a block is.
struct Layout {
    records: usize,
    cycle: u64,
    may_turn: bool,
}

impl Layout {
    fn of(spec: &StreamSpec, block_bytes: usize) -> Self {
        assert!(spec.packet_records > 0 && spec.groups > 0, "packets with records, of groups");
        assert!(spec.packet_records <= PACKET_RECORDS_MAX, "packets of less than 4 GiB");
        let packet_records = spec.packet_records as u64;
        let packet_bytes = LENGTH_BYTES + spec.packet_records * RECORD_BYTES;
        let for_groups = u64::from(spec.groups_used()).div_ceil(packet_records);
        let for_bytes = block_bytes.div_ceil(packet_bytes) as u64;
        let in_stream = spec.records / packet_records;
        if in_stream >= for_groups.max(1) {
            // Each stream holds the whole block, hence all groups, wherever it begins.
            let cycle = for_groups.max(for_bytes).min(in_stream);
            let records = (cycle * packet_records) as usize;
            return Layout { records, cycle, may_turn: true };
        }
        // So few records that whole packets of them would lack a group: the stream itself.
        Layout { records: spec.records as usize, cycle: in_stream + 1, may_turn: false }
    }
}

/// The writes of one stream, in order. They are slices of the block, nothing is copied: packets
/// until they fill so many bytes (0: each packet by itself), and in the last write those that are
/// left, with the packet that has the end record. At most [`SEND_WRITE_BYTES`] are collected.
pub struct Writes<'a> {
    block: &'a Block,
    next: u64,
    packets_left: u64,
    packets_at_once: u64,
    ended: bool,
    pieces: Vec<IoSlice<'a>>,
}

/// What one write holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Packets.
    pub packets: u64,
    /// Data records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

impl<'a> Writes<'a> {
    /// Data records of each write but the last.
    pub fn records_at_once(&self) -> u64 {
        self.packets_at_once * self.block.spec.packet_records as u64
    }

    /// The next write: what it holds and where that lies; `None` after the last.
    #[inline]
    pub fn next_write(&mut self) -> Option<(Held, &mut [IoSlice<'a>])> {
        if self.ended {
            return None;
        }
        self.pieces.clear();
        let packets = self.packets_left.min(self.packets_at_once);
        self.packets_left -= packets;
        self.take(packets);
        let mut held = Held {
            packets,
            records: packets * self.block.spec.packet_records as u64,
            bytes: packets * self.block.packet_bytes() as u64,
        };
        if packets < self.packets_at_once {
            self.ended = true;
            self.take_last(&mut held);
        }
        Some((held, &mut self.pieces))
    }

    /// Whole packets from the next one on, as often round as it needs.
    fn take(&mut self, packets: u64) {
        let (cycle, packet_bytes) = (self.block.cycle, self.block.packet_bytes());
        let mut left = packets;
        while left > 0 {
            let end = cycle.min(self.next + left);
            let slice = self.next as usize * packet_bytes..end as usize * packet_bytes;
            self.pieces.push(IoSlice::new(&self.block.bytes[slice]));
            left -= end - self.next;
            self.next = if end == cycle { 0 } else { end };
        }
    }

    fn take_last(&mut self, held: &mut Held) {
        let block = self.block;
        let records = block.left_over();
        self.pieces.push(IoSlice::new(&block.last_length));
        if records > 0 {
            let begin = self.next as usize * block.packet_bytes() + LENGTH_BYTES;
            let data = &block.bytes[begin..begin + records * RECORD_BYTES];
            self.pieces.push(IoSlice::new(data));
        }
        self.pieces.push(IoSlice::new(&END_RECORD));
        held.packets += 1;
        held.records += records as u64;
        held.bytes += (LENGTH_BYTES + (records + 1) * RECORD_BYTES) as u64;
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
