//! Parses packets of records split at every place and in every framing. Opens no socket.

use super::*;
use proptest::prelude::*;

const LIMIT: u64 = 16 << 20;
const RECORD_BYTES: usize = 267;
const HEADER_BYTES: usize = 4;
const END_RECORD: [u8; RECORD_BYTES] = [0; RECORD_BYTES];

fn form() -> RecordForm {
    RecordForm { record_bytes: RECORD_BYTES, framing: Framing::default() }
}

fn parser(packet_bytes_limit: u64) -> PacketParser {
    PacketParser::new(form(), packet_bytes_limit)
}

fn record(tag: u8) -> [u8; RECORD_BYTES] {
    let mut record = [b' '; RECORD_BYTES];
    record[0] = tag;
    record
}

fn packet(records: &[[u8; RECORD_BYTES]]) -> Vec<u8> {
    let length = (HEADER_BYTES + records.len() * RECORD_BYTES) as u32;
    [&length.to_be_bytes()[..], &records.concat()].concat()
}

/// Feeds `stream` cut into pieces, as a connection would. Returns the records, the number of
/// packets that ended, the last stop and the number of bytes left over.
fn feed(stream: &[u8], cuts: &[usize], runs_limit: usize) -> (Vec<u8>, usize, Stop, usize) {
    let records_limit = 3 * runs_limit;
    let mut parser = parser(LIMIT);
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
                records.extend_from_slice(run.bytes(stream, RECORD_BYTES));
                packets += run.packets(run.records);
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
fn a_thousand_packets_in_one_read_take_several_passes() {
    let stream = packet(&[record(7)]).repeat(1000);
    for runs_limit in [1, 7, 512, 2000] {
        let (records, packets, stop, left) = feed(&stream, &[], runs_limit);
        assert_eq!((packets, stop, left), (1000, Stop::NeedMore, 0));
        assert_eq!(records, record(7).repeat(1000));
    }
}

#[test]
fn lengths_are_rejected_from_the_header_alone() {
    let parse = |length: u32| {
        let mut parser = parser(1072);
        parser.parse(&length.to_be_bytes(), 0, 1, &mut RunList::with_limit(1)).stop
    };
    for length in [0, 1, 3, 4, 5, 267, 270] {
        let violation = Violation::BelowMinimum { length, min: 271 };
        assert_eq!(parse(length), Stop::Refused(violation));
    }
    for (length, remainder) in [(272, 1), (537, 266), (539, 1)] {
        let violation = Violation::NotWholeRecords { length, remainder, record_bytes: 267 };
        assert_eq!(parse(length), Stop::Refused(violation));
    }
    for length in [1073, 1339, u32::MAX] {
        let violation = Violation::AboveLimit { length, limit: 1072 };
        assert_eq!(parse(length), Stop::Refused(violation));
    }
    for length in [271, 538, 805, 1072] {
        assert_eq!(parse(length), Stop::NeedMore);
    }
}

#[test]
fn records_before_a_rejected_length_are_found() {
    let stream = [packet(&[record(1)]), vec![0, 0, 0, 9]].concat();
    let (records, packets, stop, left) = feed(&stream, &[], 8);
    assert_eq!((records, packets, left), (record(1).to_vec(), 1, 4));
    assert_eq!(stop, Stop::Refused(Violation::BelowMinimum { length: 9, min: 271 }));
}

fn is_whole_packets(form: &RecordForm, payload: &[u8]) -> bool {
    !payload.is_empty() && check_whole_packets(form, payload, u64::MAX).is_ok()
}

/// A payload is judged by its first length, and then must be whole packets to its last byte.
#[test]
fn payloads_that_begin_with_a_packet_must_be_whole_packets() {
    let form = form();
    let two = [packet(&[record(1)]), packet(&[record(2), record(3)])].concat();
    assert_eq!(check_whole_packets(&form, &two, LIMIT), Ok(()));
    assert_eq!(check_whole_packets(&form, &packet(&[END_RECORD]), LIMIT), Ok(()));
    for cut in 0..two.len() {
        assert_eq!(begins_with_packet(&form, &two[..cut], LIMIT), cut >= 4, "cut at {cut}");
        let (left, packets) = if cut < 271 { (cut, 0) } else { (cut - 271, 1) };
        // A length that is cut off itself says only that at least one record must follow.
        let need = if packets == 1 && left >= 4 { 538 } else { 271 };
        let expected = match left {
            0 => Ok(()),
            _ => Err(PayloadFault::CutOff { left, packets, need }),
        };
        assert_eq!(check_whole_packets(&form, &two[..cut], LIMIT), expected, "cut at {cut}");
    }
    let one_more = [&two[..], &[0]].concat();
    let fault = PayloadFault::CutOff { left: 1, packets: 2, need: 271 };
    assert_eq!(check_whole_packets(&form, &one_more, LIMIT), Err(fault));
    let said = "1 byte left after 2 whole packets, where the next one needs at least 271; \
                each DATA must be whole packets";
    assert_eq!(fault.to_string(), said);
    let wrong = [&two[..], &537_u32.to_be_bytes()].concat();
    let fault = Violation::NotWholeRecords { length: 537, remainder: 266, record_bytes: 267 };
    assert_eq!(check_whole_packets(&form, &wrong, LIMIT), Err(fault.into()));
}

#[test]
fn other_payloads_are_not_meant_as_packets() {
    let form = form();
    let lengths = [0, 270, 272, LIMIT as u32 + 1, 4 + 267 * 62_837].map(u32::to_be_bytes);
    let texts = [&b""[..], &[0; 3], b"payload", b"Large data payload...", &[0; 271]];
    for other in lengths.iter().map(|length| &length[..]).chain(texts) {
        assert!(!begins_with_packet(&form, other, LIMIT), "{other:?}");
    }
    // The largest packet within the limit is announced, and does not fit into a payload.
    let largest = (4 + 267 * 62_836_u32).to_be_bytes();
    assert!(begins_with_packet(&form, &largest, LIMIT));
    // A packet above the limit is recognized if it is all there, so that it is refused.
    let above = packet(&[record(1), record(2)]);
    assert!(begins_with_packet(&form, &above, 271));
    assert!(!begins_with_packet(&form, &above[..537], 271));
    let fault = Violation::AboveLimit { length: 538, limit: 271 };
    assert_eq!(check_whole_packets(&form, &above, 271), Err(fault.into()));
}

#[test]
fn the_end_record_ends_the_stream_anywhere_in_a_packet() {
    for before in 0..4 {
        let mut records = vec![record(9); before];
        records.push(END_RECORD);
        let stream = [packet(&records), b"after".to_vec()].concat();
        for cut in 0..stream.len() {
            let (found, packets, stop, left) = feed(&stream, &[cut], 8);
            assert_eq!(found, record(9).repeat(before), "cut at {cut}");
            // The packet of the end record is counted by the caller that gets `Stop::End`.
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
        let mut parser = parser(LIMIT);
        let pass = parser.parse(&stream[..bytes], 0, 8, &mut RunList::with_limit(8));
        let unparsed = bytes - pass.bytes;
        assert_eq!(parser.in_packet(unparsed), !matches!(bytes, 0 | 538), "{bytes}");
        parser.cut(unparsed, bytes > 0)
    };
    assert_eq!(cut(0), Some(StreamCut::BeforeData));
    assert_eq!(cut(1), Some(StreamCut::InHeader));
    assert_eq!(cut(3), Some(StreamCut::InHeader));
    assert_eq!(cut(4), Some(StreamCut::InPacket));
    assert_eq!(cut(5), Some(StreamCut::InRecord));
    assert_eq!(cut(270), Some(StreamCut::InRecord));
    assert_eq!(cut(271), Some(StreamCut::InPacket));
    assert_eq!(cut(272), Some(StreamCut::InRecord));
    assert_eq!(cut(538), Some(StreamCut::BetweenPackets));
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

    /// Whatever a peer sends, the parser stops, stays within the bytes and reports an end record
    /// only if there is one.
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

// ---- other framings ----

const LENGTHS: [(Length, bool); 4] =
    [(Length::U32, true), (Length::U32, false), (Length::U16, true), (Length::U16, false)];
const ENDIANS: [Endian; 2] = [Endian::Big, Endian::Little];

fn form_of(
    record_bytes: usize,
    (length, includes_itself): (Length, bool),
    endian: Endian,
) -> RecordForm {
    let framing = Framing { length, includes_itself, endian, end: End::ZeroRecord };
    RecordForm { record_bytes, framing }
}

fn bare(record_bytes: usize, end: End) -> RecordForm {
    let framing = Framing { length: Length::None, end, ..Framing::default() };
    RecordForm { record_bytes, framing }
}

/// A length as it is sent.
fn sent(form: &RecordForm, length: u64) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    let mut bytes = match form.framing.length {
        Length::U32 => bytes[4..].to_vec(),
        Length::U16 => bytes[6..].to_vec(),
        Length::None => Vec::new(),
    };
    if form.framing.endian == Endian::Little {
        bytes.reverse();
    }
    bytes
}

fn packet_of(form: &RecordForm, records: &[Vec<u8>]) -> Vec<u8> {
    let body = records.concat();
    let own = if form.framing.includes_itself { sent(form, 0).len() } else { 0 };
    [sent(form, (body.len() + own) as u64), body].concat()
}

/// What a parser finds in a stream cut into pieces.
#[derive(Debug, PartialEq)]
struct FoundRuns {
    records: Vec<u8>,
    packets: usize,
    stop: Stop,
    left: usize,
    cut: Option<StreamCut>,
}

fn feed_form(form: &RecordForm, stream: &[u8], cuts: &[usize], runs_limit: usize) -> FoundRuns {
    let mut parser = PacketParser::new(*form, LIMIT);
    let mut list = RunList::with_limit(runs_limit);
    let (mut records, mut packets, mut at) = (Vec::new(), 0, 0);
    let mut stop = Stop::NeedMore;
    'stream: for &end in cuts.iter().chain([&stream.len()]) {
        loop {
            let pass = parser.parse(&stream[..end], at, 3 * runs_limit, &mut list);
            at += pass.bytes;
            stop = pass.stop;
            assert!(list.records() <= 3 * runs_limit && list.runs().len() <= runs_limit);
            for run in list.runs() {
                records.extend_from_slice(run.bytes(stream, form.record_bytes));
            }
            packets += list.packets(list.records());
            match stop {
                Stop::RunsFull => {}
                Stop::NeedMore => break,
                Stop::End | Stop::Refused(_) => break 'stream,
            }
        }
    }
    let cut = parser.cut(stream.len() - at, !stream.is_empty());
    FoundRuns { records, packets, stop, left: stream.len() - at, cut }
}

/// The headers are written out byte by byte.
#[test]
fn each_length_is_read_as_it_is_sent() {
    let two = [1, 2, 3, 4, 5, 6];
    for ((length, endian), header) in [
        ((LENGTHS[0], Endian::Big), &[0, 0, 0, 10][..]),
        ((LENGTHS[0], Endian::Little), &[10, 0, 0, 0]),
        ((LENGTHS[1], Endian::Big), &[0, 0, 0, 6]),
        ((LENGTHS[1], Endian::Little), &[6, 0, 0, 0]),
        ((LENGTHS[2], Endian::Big), &[0, 8]),
        ((LENGTHS[2], Endian::Little), &[8, 0]),
        ((LENGTHS[3], Endian::Big), &[0, 6]),
        ((LENGTHS[3], Endian::Little), &[6, 0]),
    ] {
        let form = form_of(3, length, endian);
        let stream = [header, &two, header, &two].concat();
        for cut in 0..=stream.len() {
            let found = feed_form(&form, &stream, &[cut], 2);
            let expected = FoundRuns {
                records: two.repeat(2),
                packets: 2,
                stop: Stop::NeedMore,
                left: 0,
                cut: Some(StreamCut::BetweenPackets),
            };
            assert_eq!(found, expected, "{form:?} cut at {cut}");
        }
        assert!(is_whole_packets(&form, &stream));
        assert!(!is_whole_packets(&form, &stream[..stream.len() - 1]));
        assert_eq!(form.header_bytes(), header.len());
    }
}

/// Checks each rejection at its limit, for lengths that count themselves and those that do not.
#[test]
fn lengths_of_each_kind_are_rejected_at_their_limits() {
    for length in LENGTHS {
        for endian in ENDIANS {
            let form = form_of(3, length, endian);
            let own = form.header_bytes() as u64;
            let counted = if length.1 { own } else { 0 };
            // Four records are allowed.
            let limit = own + 12;
            let stop = |length: u64| {
                let mut parser = PacketParser::new(form, limit);
                parser.parse(&sent(&form, length), 0, 9, &mut RunList::with_limit(9)).stop
            };
            for records in 1..=4 {
                assert_eq!(stop(counted + 3 * records), Stop::NeedMore, "{form:?}");
            }
            for below in 0..counted + 3 {
                let violation = Violation::BelowMinimum { length: below as u32, min: counted + 3 };
                assert_eq!(stop(below), Stop::Refused(violation), "{form:?}");
            }
            for (body, remainder) in [(4, 1), (5, 2), (11, 2)] {
                let length = (counted + body) as u32;
                let violation = Violation::NotWholeRecords { length, remainder, record_bytes: 3 };
                assert_eq!(stop(counted + body), Stop::Refused(violation), "{form:?}");
            }
            for above in [counted + 13, counted + 15, 65_535] {
                let violation = Violation::AboveLimit { length: above as u32, limit };
                assert_eq!(stop(above), Stop::Refused(violation), "{form:?}");
            }
        }
    }
}

/// The largest packet that a two-byte length can express, with and without counting itself.
#[test]
fn the_largest_length_of_two_bytes() {
    for (record_bytes, includes_itself, limit) in [(65_535, false, 65_537), (65_533, true, 65_535)]
    {
        let form = form_of(record_bytes, (Length::U16, includes_itself), Endian::Big);
        let records = [vec![7; record_bytes]];
        let stream = packet_of(&form, &records);
        assert_eq!((stream.len() as u64, &stream[..2]), (limit, &[0xff, 0xff][..]));
        let mut list = RunList::with_limit(2);
        let pass = PacketParser::new(form, limit).parse(&stream, 0, 9, &mut list);
        assert_eq!((pass.stop, list.records(), list.packets(1)), (Stop::NeedMore, 1, 1));
        let pass = PacketParser::new(form, limit - 1).parse(&stream, 0, 9, &mut list);
        let violation = Violation::AboveLimit { length: 65_535, limit: limit - 1 };
        assert_eq!(pass.stop, Stop::Refused(violation));
    }
}

#[test]
fn each_bare_record_is_a_packet() {
    for end in [End::ZeroRecord, End::Close] {
        let form = bare(3, end);
        assert!(form.is_bare() && form.header_bytes() == 0);
        let stream: Vec<u8> = (1..=30).collect();
        for cut in 0..=stream.len() {
            let found = feed_form(&form, &stream, &[cut], 2);
            let cut_short = (end == End::ZeroRecord).then_some(StreamCut::BetweenPackets);
            assert_eq!((found.records, found.packets), (stream.clone(), 10));
            assert_eq!((found.stop, found.left, found.cut), (Stop::NeedMore, 0, cut_short));
            let whole = cut > 0 && cut % 3 == 0;
            assert_eq!(is_whole_packets(&form, &stream[..cut]), whole);
            assert_eq!(begins_with_packet(&form, &stream[..cut], LIMIT), whole);
        }
        for left in [1, 2] {
            let found = feed_form(&form, &stream[..27 + left], &[], 9);
            assert_eq!(
                (found.packets, found.left, found.cut),
                (9, left, Some(StreamCut::InRecord))
            );
        }
        assert_eq!(feed_form(&form, &[], &[], 9).cut, Some(StreamCut::BeforeData));
        let parser = PacketParser::new(form, LIMIT);
        assert!(!parser.in_packet(0) && parser.in_packet(1));
    }
}

/// If closing ends the stream, all-zero records are data, and the end must follow a whole packet.
#[test]
fn a_stream_that_ends_by_closing_has_no_end_record() {
    for (length, includes_itself) in LENGTHS {
        let framing = Framing { length, includes_itself, endian: Endian::Little, end: End::Close };
        let form = RecordForm { record_bytes: 2, framing };
        let records = [vec![0, 0], vec![1, 0], vec![0, 0]];
        let stream = [packet_of(&form, &records), packet_of(&form, &records[..1])].concat();
        let whole = feed_form(&form, &stream, &[], 9);
        assert_eq!((&whole.records[..], whole.packets), (&[0, 0, 1, 0, 0, 0, 0, 0][..], 2));
        assert_eq!((whole.stop, whole.left, whole.cut), (Stop::NeedMore, 0, None));
        let header = form.header_bytes();
        for bytes in 0..stream.len() {
            let in_packet = bytes % (header + 6);
            let expected = match (bytes, in_packet) {
                (0, _) => Some(StreamCut::BeforeData),
                (_, 0) => None,
                (_, within) if within < header => Some(StreamCut::InHeader),
                (_, within) if (within - header).is_multiple_of(2) => Some(StreamCut::InPacket),
                _ => Some(StreamCut::InRecord),
            };
            assert_eq!(feed_form(&form, &stream[..bytes], &[], 9).cut, expected, "{bytes}");
        }
    }
}

/// Covers widths below and above a single load, and records that differ from the end record in one
/// bit.
#[test]
fn the_end_record_is_found_in_records_of_any_width() {
    for record_bytes in 1..=20 {
        let zero = vec![0; record_bytes];
        let misses: Vec<Vec<u8>> = (0..8 * record_bytes)
            .map(|bit| {
                let mut miss = zero.clone();
                miss[bit / 8] = 1 << (bit % 8);
                miss
            })
            .collect();
        let framed = form_of(record_bytes, LENGTHS[0], Endian::Big);
        for form in [framed, bare(record_bytes, End::ZeroRecord)] {
            let mut records = misses.clone();
            let data = feed_form(&form, &packet_of(&form, &records), &[], 400);
            assert_eq!((data.records, data.stop), (misses.concat(), Stop::NeedMore));
            records.push(zero.clone());
            records.push(misses[0].clone());
            let ended = feed_form(&form, &packet_of(&form, &records), &[], 400);
            let packets = if form.is_bare() { misses.len() } else { 0 };
            assert_eq!((ended.records, ended.packets), (misses.concat(), packets));
            assert_eq!((ended.stop, ended.left, ended.cut), (Stop::End, record_bytes, None));
        }
    }
}

/// Counts packets within the first records of a pass; a limit may cut it off there.
#[test]
fn packets_within_part_of_a_pass() {
    let packets = |form: RecordForm, stream: &[u8]| -> Vec<usize> {
        let mut list = RunList::with_limit(9);
        PacketParser::new(form, LIMIT).parse(stream, 0, 100, &mut list);
        (0..=list.records()).map(|records| list.packets(records)).collect()
    };
    let form = form_of(1, LENGTHS[3], Endian::Big);
    let record = |n: u8| vec![n];
    let stream = [
        packet_of(&form, &[record(1), record(2)]),
        packet_of(&form, &[record(3)]),
        // Incomplete.
        packet_of(&form, &[record(4), record(5)])[..3].to_vec(),
    ];
    assert_eq!(packets(form, &stream.concat()), [0, 0, 1, 2, 2]);
    assert_eq!(packets(bare(2, End::Close), &[1; 7]), [0, 1, 2, 3]);
}

fn any_form() -> impl Strategy<Value = RecordForm> {
    let length = proptest::sample::select(&LENGTHS[..]);
    let endian = proptest::sample::select(&ENDIANS[..]);
    let end = proptest::sample::select(&[End::ZeroRecord, End::Close][..]);
    (1usize..20, proptest::option::of(length), endian, end).prop_map(
        |(record_bytes, length, endian, end)| {
            let (length, includes_itself) = length.unwrap_or((Length::None, true));
            let framing = Framing { length, includes_itself, endian, end };
            RecordForm { record_bytes, framing }
        },
    )
}

proptest! {
    #[test]
    fn any_cuts_of_any_form_give_the_same_records(
        form in any_form(),
        sizes in proptest::collection::vec(1usize..6, 0..12),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        runs_limit in 1usize..5,
        first in any::<u8>(),
    ) {
        // Skips 0, which would make an end record.
        let numbers = (0u8..=255).map(|n| n.wrapping_add(first)).filter(|&n| n != 0).cycle();
        let mut numbers = numbers.map(|n| vec![n; form.record_bytes]);
        let packets: Vec<Vec<Vec<u8>>> =
            sizes.iter().map(|&size| numbers.by_ref().take(size).collect()).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|packet| packet_of(&form, packet)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let cut = match form.framing.end {
            _ if stream.is_empty() => Some(StreamCut::BeforeData),
            End::ZeroRecord => Some(StreamCut::BetweenPackets),
            End::Close => None,
        };
        let expected = FoundRuns {
            records: packets.concat().concat(),
            packets: if form.is_bare() { sizes.iter().sum() } else { sizes.len() },
            stop: Stop::NeedMore,
            left: 0,
            cut,
        };
        prop_assert_eq!(feed_form(&form, &stream, &cuts, runs_limit), expected);
        prop_assert_eq!(is_whole_packets(&form, &stream), !stream.is_empty());
    }

    /// Whatever a peer sends in any form, cutting it into pieces does not change the outcome.
    #[test]
    fn arbitrary_bytes_of_any_form_are_the_same_in_pieces(
        form in any_form(),
        bytes in proptest::collection::vec(
            prop_oneof![6 => Just(0u8), 3 => 1u8..9, 1 => any::<u8>()], 0..300),
        cut in any::<proptest::sample::Index>(),
    ) {
        let whole = feed_form(&form, &bytes, &[], 400);
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(feed_form(&form, &bytes, &[cut], 2), whole);
    }
}
