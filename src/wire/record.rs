//! Length-prefixed packets of records: finds runs of whole records in received bytes, the end
//! record, and reasons for refusal. Decodes no field, keeps no byte and knows no socket.

use super::schema::RECORD_BYTES;

/// Bytes of a packet's length, which counts itself.
pub const HEADER_BYTES: usize = 4;
/// The smallest packet: a header and one record.
pub const PACKET_BYTES_MIN: usize = HEADER_BYTES + RECORD_BYTES;
/// The record that says that all records have been sent.
pub const END_RECORD: [u8; RECORD_BYTES] = [0; RECORD_BYTES];

/// Whole data records that lie end to end in the received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// First byte of the first record.
    pub offset: usize,
    /// How many records follow each other from there; at least one.
    pub records: usize,
    /// Whether the last of them is the last of its packet.
    pub ends_packet: bool,
}

const _: () = assert!(size_of::<Run>() == crate::config::RUN_BYTES);

impl Run {
    /// The bytes of the run within those that it was found in.
    pub fn bytes<'a>(&self, received: &'a [u8]) -> &'a [u8] {
        &received[self.offset..self.offset + self.records * RECORD_BYTES]
    }
}

/// The runs of one pass, in memory that is allocated once.
#[derive(Debug)]
pub struct RunList {
    runs: Vec<Run>,
    limit: usize,
    records: usize,
}

impl RunList {
    /// A list of at most `limit` runs.
    pub fn with_limit(limit: usize) -> Self {
        RunList { runs: Vec::with_capacity(limit), limit, records: 0 }
    }

    /// The runs that were found, in the order of their bytes.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Data records in all runs together.
    pub fn records(&self) -> usize {
        self.records
    }

    fn clear(&mut self) {
        self.runs.clear();
        self.records = 0;
    }

    fn push(&mut self, run: Run) {
        self.records += run.records;
        self.runs.push(run);
    }
}

/// How a peer broke the protocol. Each is refused from the header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The length is smaller than a header and one record.
    #[error("packet length {length} is below {PACKET_BYTES_MIN}, a header and one record")]
    LengthBelowMinimum {
        /// The length that the peer sent.
        length: u32,
    },
    /// The length does not leave a whole number of records.
    #[error(
        "packet length {length} leaves {remainder} bytes beside whole records of {RECORD_BYTES}"
    )]
    LengthNotWholeRecords {
        /// The length that the peer sent.
        length: u32,
        /// Bytes beyond the last whole record.
        remainder: u32,
    },
    /// The length is above the configured limit.
    #[error("packet length {length} is above the limit of {limit} (--packet-bytes-limit)")]
    LengthAboveLimit {
        /// The length that the peer sent.
        length: u32,
        /// The limit in force.
        limit: u64,
    },
}

/// Where in the stream the bytes stopped when no end record had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the first byte.
    BeforeData,
    /// After a whole packet.
    BetweenPackets,
    /// Within the four bytes of a length.
    InHeader,
    /// Within a packet, after a whole record or right after the length.
    InPacket,
    /// Within a record.
    InRecord,
}

/// Why a pass stopped where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The rest, if any, is the beginning of a length or a record.
    NeedMore,
    /// The list of runs is full, or holds as many records as were asked for; call again after
    /// digesting them.
    RunsFull,
    /// The end record was the last thing understood. What follows it is not data.
    End,
    /// The next four bytes are a length that is refused.
    Refused(Violation),
}

/// What one pass understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Bytes that were understood, from the start of what was given.
    pub bytes: usize,
    /// Why there was no more.
    pub stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Bytes of the packet's body that have not been seen: a multiple of the record, not zero.
    Body {
        bytes_left: usize,
    },
    Ended,
}

/// Follows one stream of packets. Remembers where in a packet it is, nothing else.
#[derive(Clone, Debug)]
pub struct PacketParser {
    state: State,
    packet_bytes_limit: u64,
}

impl PacketParser {
    /// A parser at the start of a stream, refusing packets of more than `packet_bytes_limit`.
    pub fn new(packet_bytes_limit: u64) -> Self {
        PacketParser { state: State::Header, packet_bytes_limit }
    }

    /// Reads on in `received[from..]`, replacing `list` by the runs found there, of at most
    /// `records_limit` records together. A run's offset counts from the start of `received`.
    pub fn parse(
        &mut self,
        received: &[u8],
        from: usize,
        records_limit: usize,
        list: &mut RunList,
    ) -> Pass {
        list.clear();
        let mut at = from;
        let stop = loop {
            let rest = &received[at..];
            match self.state {
                State::Ended => break Stop::End,
                State::Header => {
                    let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
                        break Stop::NeedMore;
                    };
                    match self.body_bytes(u32::from_be_bytes(*header)) {
                        Ok(bytes_left) => self.state = State::Body { bytes_left },
                        Err(violation) => break Stop::Refused(violation),
                    }
                    at += HEADER_BYTES;
                }
                State::Body { bytes_left } => {
                    let here = rest.len().min(bytes_left) / RECORD_BYTES;
                    if here == 0 {
                        break Stop::NeedMore;
                    }
                    let here = here.min(records_limit - list.records);
                    if here == 0 || list.runs.len() == list.limit {
                        break Stop::RunsFull;
                    }
                    at += self.take_records(&rest[..here * RECORD_BYTES], at, bytes_left, list);
                }
            }
        };
        Pass { bytes: at - from, stop }
    }

    /// Takes whole records, up to and including an end record, and returns their bytes.
    fn take_records(
        &mut self,
        whole: &[u8],
        offset: usize,
        bytes_left: usize,
        list: &mut RunList,
    ) -> usize {
        let end = find_end_record(whole);
        let records = end.unwrap_or(whole.len() / RECORD_BYTES);
        let left = bytes_left - whole.len();
        if records > 0 {
            let ends_packet = end.is_none() && left == 0;
            list.push(Run { offset, records, ends_packet });
        }
        if end.is_some() {
            self.state = State::Ended;
            return (records + 1) * RECORD_BYTES;
        }
        self.state = if left == 0 { State::Header } else { State::Body { bytes_left: left } };
        whole.len()
    }

    /// Bytes of the body that a length announces.
    fn body_bytes(&self, length: u32) -> Result<usize, Violation> {
        let bytes = length as usize;
        if bytes < PACKET_BYTES_MIN {
            return Err(Violation::LengthBelowMinimum { length });
        }
        if u64::from(length) > self.packet_bytes_limit {
            return Err(Violation::LengthAboveLimit { length, limit: self.packet_bytes_limit });
        }
        let remainder = (bytes - HEADER_BYTES) % RECORD_BYTES;
        if remainder != 0 {
            let remainder = remainder as u32;
            return Err(Violation::LengthNotWholeRecords { length, remainder });
        }
        Ok(bytes - HEADER_BYTES)
    }

    /// Whether the end record has come.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether a packet has begun and is not complete, when `unparsed_bytes` wait for more.
    pub fn in_packet(&self, unparsed_bytes: usize) -> bool {
        match self.state {
            State::Header => unparsed_bytes > 0,
            State::Body { .. } => true,
            State::Ended => false,
        }
    }

    /// Where the stream stands if it stops here with `unparsed_bytes` not understood, or `None`
    /// after the end record. `any_bytes` tells an empty stream from one between packets.
    pub fn cut(&self, unparsed_bytes: usize, any_bytes: bool) -> Option<Cut> {
        match (self.state, unparsed_bytes) {
            (State::Ended, _) => None,
            (State::Header, 0) if any_bytes => Some(Cut::BetweenPackets),
            (State::Header, 0) => Some(Cut::BeforeData),
            (State::Header, _) => Some(Cut::InHeader),
            (State::Body { .. }, 0) => Some(Cut::InPacket),
            (State::Body { .. }, _) => Some(Cut::InRecord),
        }
    }
}

/// Whether `bytes` are packets of the record protocol from the first byte to the last. Larger ones
/// than are allowed count, too: they are to be refused, not taken for something else.
pub fn is_whole_packets(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_be_bytes(*header) as usize;
        let whole =
            length >= PACKET_BYTES_MIN && (length - HEADER_BYTES).is_multiple_of(RECORD_BYTES);
        match rest.get(length..) {
            Some(after) if whole => rest = after,
            _ => return false,
        }
    }
    rest.is_empty() && !bytes.is_empty()
}

/// Index of the first record of `whole` that is all zero.
fn find_end_record(whole: &[u8]) -> Option<usize> {
    // One load tells nearly every data record apart: A, B and half of C all zero is rare.
    whole
        .chunks_exact(RECORD_BYTES)
        .position(|record| record.first_chunk::<8>() == Some(&[0; 8]) && record == END_RECORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 16 << 20;

    fn record(tag: u8) -> [u8; RECORD_BYTES] {
        let mut record = [b' '; RECORD_BYTES];
        record[0] = tag;
        record
    }

    fn packet(records: &[[u8; RECORD_BYTES]]) -> Vec<u8> {
        let length = (HEADER_BYTES + records.len() * RECORD_BYTES) as u32;
        [&length.to_be_bytes()[..], &records.concat()].concat()
    }

    /// Feeds `stream` in the given pieces, as a connection would, and returns the records found,
    /// the packets that runs ended, and what is left.
    fn feed(stream: &[u8], cuts: &[usize], runs_limit: usize) -> (Vec<u8>, usize, Stop, usize) {
        let records_limit = 3 * runs_limit;
        let mut parser = PacketParser::new(LIMIT);
        let mut list = RunList::with_limit(runs_limit);
        let (mut records, mut packets, mut at) = (Vec::new(), 0, 0);
        let mut stop = Stop::NeedMore;
        for &end in cuts.iter().chain([&stream.len()]) {
            loop {
                let pass = parser.parse(&stream[..end], at, records_limit, &mut list);
                at += pass.bytes;
                stop = pass.stop;
                assert!(list.records() <= records_limit && list.runs().len() <= runs_limit);
                for run in list.runs() {
                    records.extend_from_slice(run.bytes(stream));
                    packets += usize::from(run.ends_packet);
                }
                if stop != Stop::RunsFull {
                    break;
                }
            }
            if matches!(stop, Stop::Refused(_) | Stop::End) {
                break;
            }
        }
        (records, packets, stop, stream.len() - at)
    }

    #[test]
    fn every_two_way_split_gives_the_same_records() {
        let records = [record(1), record(2), record(3), record(4)];
        let stream = packet(&records);
        assert_eq!(stream.len(), 1072);
        for cut in 0..=stream.len() {
            let got = feed(&stream, &[cut], 8);
            assert_eq!(got, (records.concat(), 1, Stop::NeedMore, 0), "cut at {cut}");
        }
    }

    #[test]
    fn byte_by_byte_gives_the_same_records() {
        let records = [record(1), record(2), record(3), record(4)];
        let stream = [packet(&records[..1]), packet(&records[1..])].concat();
        let cuts: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(feed(&stream, &cuts, 8), (records.concat(), 2, Stop::NeedMore, 0));
    }

    #[test]
    fn a_thousand_packets_in_one_read_are_taken_in_passes() {
        let stream = packet(&[record(7)]).repeat(1000);
        for runs_limit in [1, 7, 512, 2000] {
            let (records, packets, stop, left) = feed(&stream, &[], runs_limit);
            assert_eq!((packets, stop, left), (1000, Stop::NeedMore, 0));
            assert_eq!(records, record(7).repeat(1000));
        }
    }

    #[test]
    fn lengths_are_refused_from_the_header_alone() {
        let parse = |length: u32| {
            let mut parser = PacketParser::new(1072);
            parser.parse(&length.to_be_bytes(), 0, 1, &mut RunList::with_limit(1)).stop
        };
        for length in [0, 1, 3, 4, 5, 267, 270] {
            let violation = Violation::LengthBelowMinimum { length };
            assert_eq!(parse(length), Stop::Refused(violation));
        }
        for (length, remainder) in [(272, 1), (537, 266), (539, 1)] {
            let violation = Violation::LengthNotWholeRecords { length, remainder };
            assert_eq!(parse(length), Stop::Refused(violation));
        }
        for length in [1073, 1339, u32::MAX] {
            let violation = Violation::LengthAboveLimit { length, limit: 1072 };
            assert_eq!(parse(length), Stop::Refused(violation));
        }
        for length in [271, 538, 805, 1072] {
            assert_eq!(parse(length), Stop::NeedMore);
        }
    }

    #[test]
    fn records_before_a_refused_length_are_found() {
        let stream = [packet(&[record(1)]), vec![0, 0, 0, 9]].concat();
        let (records, packets, stop, left) = feed(&stream, &[], 8);
        assert_eq!((records, packets, left), (record(1).to_vec(), 1, 4));
        assert_eq!(stop, Stop::Refused(Violation::LengthBelowMinimum { length: 9 }));
    }

    #[test]
    fn whole_packets_are_told_from_other_bytes() {
        let two = [packet(&[record(1)]), packet(&[record(2), record(3)])].concat();
        assert!(is_whole_packets(&two));
        assert!(is_whole_packets(&packet(&[END_RECORD])));
        for cut in 0..two.len() {
            assert_eq!(is_whole_packets(&two[..cut]), cut == 271, "cut at {cut}");
        }
        for other in [&b""[..], b"payload", &[0; 4], &[0; 271], &[two, vec![0]].concat()] {
            assert!(!is_whole_packets(other));
        }
    }

    #[test]
    fn the_end_record_ends_wherever_it_stands() {
        for before in 0..4 {
            let mut records = vec![record(9); before];
            records.push(END_RECORD);
            let stream = [packet(&records), b"after".to_vec()].concat();
            for cut in 0..stream.len() {
                let (found, packets, stop, left) = feed(&stream, &[cut], 8);
                assert_eq!(found, record(9).repeat(before), "cut at {cut}");
                // The packet of the end record is counted by whoever sees `Stop::End`.
                assert_eq!((packets, stop, left), (0, Stop::End, 5));
            }
        }
    }

    #[test]
    fn near_misses_of_the_end_record_are_data() {
        let mut misses: Vec<[u8; RECORD_BYTES]> = (0..RECORD_BYTES * 8)
            .map(|bit| {
                let mut record = END_RECORD;
                record[bit / 8] = 1 << (bit % 8);
                record
            })
            .collect();
        let mut spaces = END_RECORD;
        spaces[11..].fill(b' ');
        let mut negative_zero = END_RECORD;
        negative_zero[6] = 0x80;
        misses.extend([spaces, negative_zero]);
        for miss in misses {
            let (found, packets, stop, _) = feed(&packet(&[miss]), &[], 8);
            assert_eq!((found, packets, stop), (miss.to_vec(), 1, Stop::NeedMore));
        }
    }

    #[test]
    fn a_cut_says_where_the_stream_stopped() {
        let stream = packet(&[record(1), record(2)]);
        let cut = |bytes: usize| {
            let mut parser = PacketParser::new(LIMIT);
            let pass = parser.parse(&stream[..bytes], 0, 8, &mut RunList::with_limit(8));
            let unparsed = bytes - pass.bytes;
            assert_eq!(parser.in_packet(unparsed), !matches!(bytes, 0 | 538), "{bytes}");
            parser.cut(unparsed, bytes > 0)
        };
        assert_eq!(cut(0), Some(Cut::BeforeData));
        assert_eq!(cut(1), Some(Cut::InHeader));
        assert_eq!(cut(3), Some(Cut::InHeader));
        assert_eq!(cut(4), Some(Cut::InPacket));
        assert_eq!(cut(5), Some(Cut::InRecord));
        assert_eq!(cut(270), Some(Cut::InRecord));
        assert_eq!(cut(271), Some(Cut::InPacket));
        assert_eq!(cut(272), Some(Cut::InRecord));
        assert_eq!(cut(538), Some(Cut::BetweenPackets));
    }

    proptest! {
        #[test]
        fn any_cuts_of_any_packets_give_the_same_records(
            sizes in proptest::collection::vec(1usize..6, 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
            runs_limit in 1usize..5,
        ) {
            let mut tag = 0u8;
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for &size in &sizes {
                let records: Vec<_> = (0..size)
                    .map(|_| {
                        tag = tag.wrapping_add(1);
                        record(tag)
                    })
                    .collect();
                expected.extend(records.concat());
                stream.extend(packet(&records));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let (found, packets, stop, left) = feed(&stream, &cuts, runs_limit);
            prop_assert_eq!(found, expected);
            prop_assert_eq!((packets, stop, left), (sizes.len(), Stop::NeedMore, 0));
        }

        /// Whatever a peer sends, the parser stops, stays within the bytes and finds no end
        /// record that is not there.
        #[test]
        fn arbitrary_bytes_never_break_it(
            bytes in proptest::collection::vec(
                prop_oneof![4 => Just(0u8), 1 => Just(1u8), 1 => any::<u8>()],
                0..2000,
            )
        ) {
            let (found, _, stop, _) = feed(&bytes, &[bytes.len() / 2], 3);
            prop_assert!(found.len() <= bytes.len());
            if stop == Stop::End {
                prop_assert!(bytes.windows(RECORD_BYTES).any(|window| window == END_RECORD));
            }
        }
    }
}
