//! Checks that splitting a stream does not change its rows. The oracle reads the whole stream byte
//! by byte and shares no code with the intake.

use super::*;
use crate::config::FOLD_ROWS_MAX;
use crate::engine::groups::columns::{Column, PartialSet};
use crate::engine::groups::moments::sum_of;
use crate::engine::memory::account::MemoryAccount;
use crate::wire::schema::Schema;
use proptest::prelude::*;

const RECORD: usize = 267;

fn plan() -> Arc<Plan> {
    Plan::new(Schema::built_in())
}

/// Key, B, bits of C, D, text: comparable even with NaN.
type IntakeRow = (u32, u64, u64, i8, Vec<u8>);

/// Reads a whole, valid stream.
fn naive(stream: &[u8]) -> (Vec<IntakeRow>, Counts) {
    let mut rows = Vec::new();
    let mut counts = Counts { bytes: stream.len() as u64, ..Counts::default() };
    let mut at = 0;
    while at < stream.len() {
        let length = stream[at..at + 4].iter().fold(0, |n, &byte| n * 256 + usize::from(byte));
        counts.packets += 1;
        for record in stream[at + 4..at + length].chunks(RECORD) {
            if record.iter().all(|&byte| byte == 0) {
                counts.bytes_after_end = (stream.len() - at - length) as u64;
                return (rows, counts);
            }
            let number = |range: Range<usize>| {
                record[range].iter().fold(0u32, |n, &byte| n << 8 | u32::from(byte))
            };
            let c = f64::from(f32::from_bits(number(6..10)));
            let c = if c.is_nan() { f64::NAN } else { c };
            let mut text = record[11..].to_vec();
            while text.last().is_some_and(|&byte| byte == 0 || byte == 32) {
                text.pop();
            }
            let d = number(10..11) as u8 as i8;
            rows.push((number(0..4), u64::from(number(4..6)), c.to_bits(), d, text));
            counts.records += 1;
        }
        at += length;
    }
    (rows, counts)
}

/// Feeds a stream split at `cuts`, through a buffer and column sets of the given sizes, as a
/// connection does.
fn feed(
    stream: &[u8],
    cuts: &[usize],
    buffer_bytes: usize,
    batch_rows: usize,
) -> (Vec<IntakeRow>, Counts) {
    let mut intake = RecordIntake::new(&plan(), &Config::default(), buffer_bytes, Instant::now());
    let mut buffer = vec![0xaa; buffer_bytes];
    let mut set = ColumnSet::with_rows(&plan(), batch_rows);
    let mut all = Vec::new();
    let mut at = 0;
    for &end in cuts.iter().chain([&stream.len()]) {
        while at < end {
            let free = intake.free();
            let bytes = free.len().min(end - at);
            buffer[free.start..free.start + bytes].copy_from_slice(&stream[at..at + bytes]);
            at += bytes;
            intake.handle_read(bytes, Instant::now());
            while intake.poll_rows(&buffer, &mut set).expect("a valid stream") == NextStep::Rows {
                append(&mut all, &mut set);
            }
            append(&mut all, &mut set);
            intake.compact(&mut buffer);
            assert!(intake.waiting_bytes() < RECORD && !intake.free().is_empty());
        }
    }
    let counts = intake.counts();
    let texts = intake.into_texts();
    let rows = all.into_iter().map(|(key, b, c, d)| {
        let c = if c.is_nan() { f64::NAN } else { c };
        ((key >> 32) as u32, b, c.to_bits(), d, text_of(&texts, key))
    });
    (rows.collect(), counts)
}

fn text_of(texts: &[Texts], key: u64) -> Vec<u8> {
    texts[0].get((key & 0xffff_ffff) as usize).to_vec()
}

fn append(all: &mut Vec<(u64, u64, f64, i8)>, set: &mut ColumnSet) {
    let [Column::Unsigned(b), Column::Float(c), Column::Signed(d)] = &set.values[..] else {
        panic!("B, C and D: {:?}", set.values);
    };
    for row in 0..set.rows() {
        all.push((set.keys[0][row], b[row], c[row], i8::try_from(d[row]).unwrap()));
    }
    set.clear();
}

/// A record determined by its number, with one of several texts and paddings.
fn record(number: u32) -> Vec<u8> {
    let mut record: Vec<u8> = number.wrapping_mul(2_654_435_761).to_be_bytes().to_vec();
    record.extend((number as u16).to_be_bytes());
    record.extend((number as f32 * 1.5e30).to_be_bytes());
    record.push(number as u8);
    record.extend(format!("text {}", number % 7).bytes());
    let nul_end = RECORD - (number as usize * 31) % 240;
    record.resize(record.len().max(nul_end), 0);
    record.resize(RECORD, b' ');
    record
}

fn packet(records: &[Vec<u8>]) -> Vec<u8> {
    let length = (4 + records.len() * RECORD) as u32;
    [&length.to_be_bytes()[..], &records.concat()].concat()
}

/// Packets with these numbers of records; the last one also gets the end record.
fn stream(sizes: &[usize]) -> Vec<u8> {
    let mut number = 0;
    let mut packets: Vec<Vec<Vec<u8>>> = Vec::new();
    for &size in sizes {
        packets.push(
            (0..size)
                .map(|_| {
                    number += 1;
                    record(number)
                })
                .collect(),
        );
    }
    packets.last_mut().unwrap().push(vec![0; RECORD]);
    packets.iter().flat_map(|records| packet(records)).collect()
}

#[test]
fn every_two_way_split_and_byte_by_byte_give_the_same_rows() {
    let stream = stream(&[3]);
    assert_eq!(stream.len(), 1072);
    let whole = naive(&stream);
    for cut in 0..=stream.len() {
        assert_eq!(feed(&stream, &[cut], 4096, 100), whole, "cut at {cut}");
    }
    let every: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(feed(&stream, &every, 4096, 100), whole);
}

#[test]
fn ten_thousand_random_three_way_splits_give_the_same_rows() {
    let stream = stream(&[4, 1, 2, 3]);
    let whole = naive(&stream);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..10_000 {
        let mut cuts = [random.usize(..stream.len()), random.usize(..stream.len())];
        cuts.sort_unstable();
        assert_eq!(feed(&stream, &cuts, 4096, 1 + random.usize(..8)), whole, "{cuts:?}");
    }
}

#[test]
fn a_thousand_packets_in_one_read() {
    let stream = stream(&[4; 1000]);
    let whole = naive(&stream);
    assert_eq!(whole.1.packets, 1000);
    for batch_rows in [1, 1000, 4000] {
        assert_eq!(feed(&stream, &[], 2 << 20, batch_rows), whole);
    }
}

/// A pass is short, into columns and into groups, so that a stream can give way to others after it.
#[test]
fn a_pass_takes_so_many_records_and_no_more() {
    let bytes = packet(&vec![record(1); 4 * FOLD_ROWS]);
    let mut set = ColumnSet::with_rows(&plan(), 10 * FOLD_ROWS);
    let mut groups = GroupTable::with_limits(&plan(), 10, FOLD_ROWS_MAX);
    for folds in [false, true] {
        let now = Instant::now();
        let mut intake = RecordIntake::new(&plan(), &Config::default(), bytes.len() + 1, now);
        intake.handle_read(bytes.len(), now);
        for pass in 1..4 {
            let next = match folds {
                false => intake.poll_rows(&bytes, &mut set),
                true => intake.poll_groups(&bytes, &mut groups),
            };
            assert_eq!(next, Ok(NextStep::Rows));
            assert_eq!(intake.counts().records, (pass * FOLD_ROWS) as u64);
        }
    }
}

#[test]
fn bytes_after_the_end_are_counted() {
    let stream = [stream(&[2]), vec![0xee; 300]].concat();
    let whole = naive(&stream);
    assert_eq!((whole.1.packets, whole.1.bytes_after_end), (1, 300));
    for cut in 0..=stream.len() {
        assert_eq!(feed(&stream, &[cut], 4096, 100), whole, "cut at {cut}");
    }
}

#[test]
fn rows_before_a_rejection_are_kept() {
    let config = Config::default();
    let mut intake = RecordIntake::new(&plan(), &config, config.buffer_bytes, Instant::now());
    let mut buffer = [packet(&[record(1), record(2)]), vec![0, 0, 0, 5]].concat();
    let bytes = buffer.len();
    buffer.resize(config.buffer_bytes, 0);
    intake.handle_read(bytes, Instant::now());
    let mut set = ColumnSet::with_rows(&plan(), 10);
    let violation = Violation::BelowMinimum { length: 5, min: 271 };
    let refused = Err(Refused::Packet(violation));
    assert_eq!(intake.poll_rows(&buffer, &mut set), refused);
    assert_eq!((set.rows(), intake.counts().records, intake.counts().packets), (2, 2, 1));
}

proptest! {
    #[test]
    fn any_split_through_any_buffer_gives_the_same_rows(
        sizes in proptest::collection::vec(1usize..40, 1..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        buffer_bytes in 4096usize..9000,
        batch_rows in 1usize..50,
    ) {
        let stream = stream(&sizes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(feed(&stream, &cuts, buffer_bytes, batch_rows), naive(&stream));
    }
}

/// Folding a stream gives the sums of its rows, and the same `Counts`.
#[test]
fn folding_a_split_stream_gives_the_sums_of_its_rows() {
    let stream = stream(&[40, 1, 700, 3]);
    let (rows, counts) = naive(&stream);
    let mut expected = std::collections::BTreeMap::new();
    for (a, b, c, d, text) in rows {
        let sum = expected.entry((a, text)).or_insert((0, 0.0, i64::MAX, 0));
        *sum = (sum.0 + b, sum.1 + f64::from_bits(c), sum.2.min(d.into()), sum.3 + 1);
    }
    for piece_bytes in [1, 300, 4096, 1 << 20] {
        let config = Config::default();
        let mut intake = RecordIntake::new(&plan(), &config, config.buffer_bytes, Instant::now());
        let mut buffer = vec![0xaa; config.buffer_bytes];
        let mut groups = GroupTable::with_limits(&plan(), 1000, 1 << 20);
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let free = intake.free();
            let bytes = free.len().min(piece_bytes).min(rest.len());
            buffer[free.start..free.start + bytes].copy_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            intake.handle_read(bytes, Instant::now());
            while intake.poll_groups(&buffer, &mut groups).unwrap() == NextStep::Rows {}
            intake.compact(&mut buffer);
        }
        assert_eq!((intake.counts(), groups.rows()), (counts, counts.records));
        let texts = intake.into_texts();
        let mut set = PartialSet::with_rows(&plan(), groups.groups());
        groups.partials().for_each(|partial| set.push(partial, groups.spills()));
        let [Column::Unsigned(b), Column::Float(mean), Column::Float(rest), Column::Signed(d)] =
            &set.parts[..]
        else {
            panic!("sum of B, mean of C and the rest, minimum of D: {:?}", set.parts);
        };
        let c = |i: usize| sum_of(set.counts[i], mean[i], rest[i]);
        let found = set.keys[0].iter().enumerate().map(|(i, &key)| {
            (((key >> 32) as u32, text_of(&texts, key)), (b[i], c(i), d[i], set.counts[i]))
        });
        assert_eq!(found.collect::<std::collections::BTreeMap<_, _>>(), expected);
    }
}

/// Packets of two records, ten groups, five allowed: the sixth record is not received.
#[test]
fn a_group_too_many_stops_the_stream_before_its_record() {
    let config = Config { groups_limit: 5, ..Config::default() };
    let mut intake = RecordIntake::new(&plan(), &config, config.buffer_bytes, Instant::now());
    let record = |a: u32| [&a.to_be_bytes()[..], &[1; 7], &[b' '; 256]].concat();
    let mut buffer: Vec<u8> =
        (0..5).flat_map(|n| packet(&[record(2 * n), record(2 * n + 1)])).collect();
    intake.handle_read(buffer.len(), Instant::now());
    buffer.resize(config.buffer_bytes, 0);
    let mut groups = GroupTable::with_limits(&plan(), config.groups_limit, 1 << 20);
    let refused = Err(Refused::Groups { limit: 5 });
    assert_eq!(intake.poll_groups(&buffer, &mut groups), refused);
    assert_eq!((intake.counts().records, intake.counts().packets, groups.groups()), (5, 2, 5));
}

/// Wherever memory runs short, and however little more there is each time: once there is enough,
/// the stream has every record once. At the edge: what was counted before is enough, one byte less
/// is not.
#[test]
fn waiting_for_memory_changes_nothing() {
    let record = |a: u32| {
        let text = format!("{:0>200}", a / 3);
        [&a.to_be_bytes()[..], &[1; 7], format!("{text: <256}").as_bytes()].concat()
    };
    let sizes = [1, 700, 2, 63, 64, 65, 1105];
    let mut next = 0..2000;
    let packets: Vec<u8> = sizes
        .iter()
        .flat_map(|&size| packet(&next.by_ref().take(size).map(record).collect::<Vec<_>>()))
        .collect();
    // Returns how often it waited, and what it held at the end.
    let receive = |free: usize, step: usize| {
        let account = MemoryAccount::new(1 << 30, 0);
        let (ballast, owner) = (account.join(), account.join());
        ballast.share().force((1 << 30) - free);
        let config = Config { buffer_bytes: packets.len() + 1000, ..Config::default() };
        let mut intake = RecordIntake::new(&plan(), &config, config.buffer_bytes, Instant::now());
        intake.count_in(owner.share());
        let mut buffer = packets.clone();
        intake.handle_read(packets.len(), Instant::now());
        buffer.resize(config.buffer_bytes, 0);
        let table = GroupTable::with_limits(&plan(), config.groups_limit, 1 << 20);
        let mut groups = table.count_in(owner.share());
        let mut waited = 0;
        loop {
            match intake.poll_groups(&buffer, &mut groups).unwrap() {
                NextStep::Rows => {}
                NextStep::Memory => {
                    waited += 1;
                    ballast.share().give_back(step);
                }
                _ => break,
            }
        }
        let Counts { records, packets, .. } = intake.counts();
        assert_eq!((records, packets), (2000, sizes.len() as u64));
        assert_eq!((groups.rows(), groups.groups()), (2000, 2000));
        assert_eq!(intake.texts().map(Texts::len).collect::<Vec<_>>(), [667]);
        assert!(groups.partials().all(|slot| slot[1].get() << 32 == 1 << 32), "one of each");
        let held = owner.share().bytes();
        // Tables and texts as they are, without what their growth and their results take.
        let (pages, texts) = (4 * 32 * 1024, 667 * 200);
        assert!(held > pages + texts, "{held}");
        drop((intake, groups));
        assert_eq!(owner.share().bytes(), 0);
        (waited, held)
    };
    let (waited, held) = receive(1 << 29, 0);
    assert_eq!(waited, 0);
    for step in [1 << 20, 100_000, 997] {
        let (waited, held_then) = receive(0, step);
        assert_eq!(held_then, held);
        assert!(waited >= held / step, "{waited} times {step}");
    }
}

/// A stream whose three limits are easy to tell apart. Times are in seconds since it began.
struct Timed {
    intake: RecordIntake,
    begun: Instant,
    buffer: Vec<u8>,
    set: ColumnSet,
}

impl Timed {
    fn new() -> Self {
        let config = Config {
            idle_timeout: Duration::from_secs(1000),
            packet_timeout: Duration::from_secs(100),
            linger: Duration::from_secs(10),
            ..Config::default()
        };
        let begun = Instant::now();
        Timed {
            intake: RecordIntake::new(&plan(), &config, config.buffer_bytes, begun),
            begun,
            buffer: vec![0; config.buffer_bytes],
            set: ColumnSet::with_rows(&plan(), 100),
        }
    }

    /// Bytes come `at` seconds, and it takes `spent` to understand them.
    fn read(&mut self, bytes: &[u8], at: u64, spent: u64) {
        let free = self.intake.free();
        self.buffer[free.start..free.start + bytes.len()].copy_from_slice(bytes);
        self.intake.handle_read(bytes.len(), self.begun + Duration::from_secs(at));
        while self.intake.poll_rows(&self.buffer, &mut self.set).unwrap() == NextStep::Rows {}
        self.intake.compact(&mut self.buffer);
        self.intake.forgive(Duration::from_secs(spent));
    }

    fn deadline(&self) -> (u64, Awaited) {
        let (at, awaited) = self.intake.deadline();
        ((at - self.begun).as_secs(), awaited)
    }
}

#[test]
fn silence_is_timed_from_the_last_byte() {
    let mut timed = Timed::new();
    assert_eq!(timed.deadline(), (1000, Awaited::Packet));
    timed.read(&packet(&[record(1)]), 5, 0);
    assert_eq!(timed.deadline(), (1005, Awaited::Packet));
    timed.read(&packet(&[record(2)]), 7, 2);
    assert_eq!(timed.deadline(), (1009, Awaited::Packet), "two seconds were the engine's");
}

/// More bytes of a packet win no time; only the engine's own time is given back.
#[test]
fn a_packet_is_timed_from_its_first_byte() {
    let mut timed = Timed::new();
    let bytes = packet(&[record(1), record(2)]);
    timed.read(&bytes[..1], 5, 0);
    assert_eq!(timed.deadline(), (105, Awaited::RestOfPacket));
    timed.read(&bytes[1..300], 50, 0);
    assert_eq!(timed.deadline(), (105, Awaited::RestOfPacket));
    timed.read(&bytes[300..400], 60, 3);
    assert_eq!(timed.deadline(), (108, Awaited::RestOfPacket));
    timed.read(&bytes[400..], 70, 0);
    assert_eq!(timed.deadline(), (1070, Awaited::Packet));
}

/// The read that completes a packet begins the next one, where it brings some of it.
#[test]
fn the_rest_of_a_read_begins_a_packet_anew() {
    let mut timed = Timed::new();
    let bytes = packet(&[record(1)]);
    timed.read(&bytes[..100], 5, 0);
    timed.read(&[&bytes[100..], &bytes[..7]].concat(), 20, 4);
    assert_eq!(timed.deadline(), (124, Awaited::RestOfPacket));
}

/// A peer that keeps sending after the end record gains no time, however slowly that is dropped.
#[test]
fn the_close_is_timed_from_the_end_record() {
    let mut timed = Timed::new();
    timed.read(&packet(&[record(1), vec![0; RECORD]]), 5, 2);
    assert_eq!(timed.deadline(), (17, Awaited::Close));
    timed.read(b"more", 9, 3);
    assert_eq!(timed.deadline(), (17, Awaited::Close));
}

/// What a schema without packets makes of these bytes, however they are split in two.
fn cut_of_bare(bytes: &[u8]) -> Option<StreamCut> {
    let schema = "packet.length='none'\nendian='big'\n\
        field=[{name='A', type='u16'}, {name='B', type='u8'}]\nresult.by=['A']";
    let plan = Plan::new(Arc::new(Schema::from_toml(schema).unwrap()));
    let cuts = (0..=bytes.len()).map(|split| {
        let now = Instant::now();
        let mut intake = RecordIntake::new(&plan, &Config::default(), 64, now);
        let (mut buffer, mut set) = (vec![0; 64], ColumnSet::with_rows(&plan, 32));
        for piece in [&bytes[..split], &bytes[split..]] {
            let free = intake.free().start;
            buffer[free..free + piece.len()].copy_from_slice(piece);
            intake.handle_read(piece.len(), now);
            while intake.poll_rows(&buffer, &mut set).unwrap() == NextStep::Rows {}
            intake.compact(&mut buffer);
        }
        intake.cut()
    });
    let cuts: Vec<Option<StreamCut>> = cuts.collect();
    assert!(cuts.iter().all(|cut| *cut == cuts[0]), "{cuts:?}");
    cuts[0]
}

/// Records of 3 bytes. Zeros within records of another size were taken for the end, and the rest
/// was ignored as bytes after it.
#[test]
fn a_bare_stream_of_no_whole_number_of_records_is_not_complete() {
    assert_eq!(cut_of_bare(b"\0\x01\x02\0\0\0"), None);
    assert_eq!(cut_of_bare(b"\0\x01\x02\0\0\0abc"), None);
    assert_eq!(cut_of_bare(b"\0\x01\x02\0\0\0\0"), Some(StreamCut::InRecord));
    assert_eq!(cut_of_bare(b"\0\x01\x02\0\0\0\0\x09"), Some(StreamCut::InRecord));
    assert_eq!(cut_of_bare(b"\0\x01\x02\0"), Some(StreamCut::InRecord));
    assert_eq!(cut_of_bare(b"\0\x01\x02"), Some(StreamCut::BetweenPackets));
}
