//! Steady state: once a stream has shown its groups, a worker takes its reads, packets and batches
//! without asking the allocator for anything. Each test runs an engine in this process, sends over
//! loopback, and compares the counts of the worker's thread between two moments within the streams.
//!
//! `ALLOCATIONS_SHOWN=5` shows on stderr where the first five calls come from.

mod allocator;

use allocator::{Asked, CountingAllocator, ThreadCounts};
use ringest::client::messages::client::MessageClient;
use ringest::client::messages::tls::{Trust, client_config};
use ringest::client::records::block::{PacketBlock, Writes};
use ringest::client::records::generate::{SentPadding, StreamSpec};
use ringest::internals::{
    AggregateMode, BufferKind, Config, Engine, Padding as TextPadding, Report, TlsOptions,
    WorkerTally,
};
use ringest::schema::{Aggregate, End, Endian, Framing, Function, Kind, Length, Schema};
use rustls::{ClientConnection, StreamOwned};
use std::collections::BTreeSet;
use std::fs;
use std::io::{IoSlice, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Longer than anything here takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// Reads, at least, that must not allocate.
const READS: u64 = 250;
/// Gathered reads, at least, that must not allocate. How many other reads come between them depends
/// on how busy the machine is.
const GATHERED_READS: u64 = 50;
/// Ticks of the worker's timer, at least, that must not allocate.
const TICKS: u32 = 3;
/// Messages with records that must not allocate, and as many without.
const MESSAGES: u64 = 300;
const PACKET_RECORDS: usize = 4;
const PACKET_BYTES: usize = 4 + PACKET_RECORDS * 267;
/// What `send` writes at a time.
const BULK: usize = 60 << 10;
/// Each packet by itself.
const PACKETS: usize = 0;
/// More records than any test sends.
const ENDLESS: u64 = 1 << 40;

const HELP: &str = "ALLOCATIONS_SHOWN=5 shows where it comes from";

/// One engine at a time: its worker is found by its thread's name.
static ALONE: Mutex<()> = Mutex::new(());

/// What a report said.
struct Reported {
    records: u64,
    groups: usize,
    buffer: BufferKind,
}

/// A stream that is being sent.
struct Stream<'a> {
    socket: Box<dyn Write>,
    source: Source<'a>,
    records: u64,
}

/// What is sent, again and again.
enum Source<'a> {
    /// A block's writes.
    Block(Writes<'a>),
    /// Pieces of a stream of another schema, each with so many records, and which is next.
    Pieces(&'a [(u64, Vec<u8>)], usize),
}

impl<'a> Stream<'a> {
    fn new(socket: Box<dyn Write>, source: Source<'a>) -> Self {
        Stream { socket, source, records: 0 }
    }

    fn write(&mut self) {
        self.records += match &mut self.source {
            Source::Block(writes) => {
                let (held, mut pieces) = writes.next_write().expect("the streams have no end");
                while !pieces.is_empty() {
                    let written = self.socket.write_vectored(pieces).unwrap();
                    IoSlice::advance_slices(&mut pieces, written);
                }
                held.records
            }
            Source::Pieces(pieces, next) => {
                let (records, bytes) = &pieces[*next];
                *next = (*next + 1) % pieces.len();
                self.socket.write_all(bytes).unwrap();
                *records
            }
        }
    }
}

/// An engine with one worker, and the streams that are sent to it.
struct World<'a> {
    engine: Option<Engine>,
    worker: &'static ThreadCounts,
    streams: Vec<Stream<'a>>,
    reported: Arc<Mutex<Vec<Reported>>>,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> World<'a> {
    fn start(config: Config, connections: u32, block: &'a PacketBlock, write_bytes: usize) -> Self {
        let source = |number| Source::Block(block.writes(number, write_bytes));
        let sources = (0..connections).map(source).collect();
        Self::start_with(config, &Schema::built_in(), sources)
    }

    fn start_with(config: Config, schema: &Arc<Schema>, sources: Vec<Source<'a>>) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = worker_threads();
        let reported = Arc::new(Mutex::new(Vec::new()));
        let encrypted = config.tls.records;
        let engine = Engine::start(config, schema, None, keeping(&reported)).unwrap();
        let new: Vec<i32> = worker_threads().difference(&before).copied().collect();
        assert_eq!(new.len(), 1, "one worker");
        let address = engine.records_address().unwrap();
        let streams =
            sources.into_iter().map(|source| Stream::new(connect(address, encrypted), source));
        World {
            worker: ThreadCounts::of(new[0]),
            streams: streams.collect(),
            engine: Some(engine),
            reported,
            _alone: alone,
        }
    }

    fn tally(&self) -> &WorkerTally {
        &self.engine.as_ref().unwrap().counters().workers[0]
    }

    fn sent(&self) -> u64 {
        self.streams.iter().map(|stream| stream.records).sum()
    }

    /// One write of each stream, as fast as they are taken.
    fn write(&mut self) {
        self.streams.iter_mut().for_each(Stream::write);
    }

    /// One write of each stream, each a read of its own.
    fn write_and_wait(&mut self) {
        self.write();
        self.wait_until_all_arrived();
    }

    /// One write of each stream, and a pause in which the worker has little to do.
    fn write_and_rest(&mut self) {
        self.write();
        thread::sleep(Duration::from_micros(100));
    }

    fn wait_until_all_arrived(&self) {
        let sent = self.sent();
        until("all records arrived", || self.tally().records.get() == sent);
    }

    /// Waits until the worker's timer has run so many times: each time it says how much processor
    /// time the worker has used, which is more than the time before.
    fn wait_for_ticks(&self) {
        let mut last = self.tally().cpu_ns.get();
        for _ in 0..=TICKS {
            until("a tick", || self.tally().cpu_ns.get() != last);
            last = self.tally().cpu_ns.get();
        }
    }

    /// Sends each group several times, so that all tables are as large as they become.
    fn warm_up(&mut self, block: &PacketBlock) {
        self.warm_up_records((3 * block.size_bytes() / 267) as u64);
    }

    /// The same, with so many records of each stream.
    fn warm_up_records(&mut self, records: u64) {
        let records = records * self.streams.len() as u64;
        let begun = Instant::now();
        while self.sent() < records {
            assert!(begun.elapsed() < PATIENCE, "the warm-up is not taken");
            self.write();
        }
        self.wait_until_all_arrived();
        self.wait_for_ticks();
    }

    /// What the worker asks the allocator for while it takes so many reads, of records that `send`
    /// sends, and then while nothing comes.
    fn measure(&mut self, reads_min: u64, send: impl FnMut(&mut Self)) -> Measured {
        self.measure_until(|tally| tally.record_reads.get(), reads_min, send)
    }

    /// The same, until a count has grown by `min`.
    fn measure_until(
        &mut self,
        count: impl Fn(&WorkerTally) -> u64,
        min: u64,
        mut send: impl FnMut(&mut Self),
    ) -> Measured {
        self.show_if_asked();
        let asked = self.worker.asked();
        let (records, reads) = (self.tally().records.get(), self.tally().record_reads.get());
        let (begun, before) = (Instant::now(), count(self.tally()));
        while count(self.tally()) - before < min {
            assert!(begun.elapsed() < PATIENCE, "the records are not taken");
            send(self);
        }
        self.wait_until_all_arrived();
        self.wait_for_ticks();
        let measured = Measured {
            asked: self.worker.asked().since(asked),
            reads: self.tally().record_reads.get() - reads,
            records: self.tally().records.get() - records,
        };
        self.worker.show(0);
        eprintln!("{measured:?}");
        measured
    }

    fn show_if_asked(&self) {
        let times = std::env::var("ALLOCATIONS_SHOWN").ok();
        self.worker.show(times.and_then(|times| times.parse().ok()).unwrap_or(0));
    }

    fn stop(&mut self) {
        let engine = self.engine.take().unwrap();
        engine.stopper().stop(Duration::ZERO);
        engine.wait();
    }

    /// Ends streams and engine; every record that was sent must be in the results.
    fn finish(mut self) -> Vec<Reported> {
        let sent = self.sent();
        let connections = self.streams.len();
        self.streams.clear();
        let reported = Arc::clone(&self.reported);
        until("all results", || reported.lock().unwrap().len() == connections);
        self.stop();
        let reported = std::mem::take(&mut *reported.lock().unwrap());
        assert_eq!(reported.iter().map(|stream| stream.records).sum::<u64>(), sent);
        reported
    }
}

/// What happened between two moments.
#[derive(Debug)]
struct Measured {
    asked: Asked,
    reads: u64,
    records: u64,
}

impl Measured {
    fn assert_nothing_asked(&self) {
        assert_eq!(self.asked, Asked::default(), "in {self:?}; {HELP}");
    }
}

fn keeping(reported: &Arc<Mutex<Vec<Reported>>>) -> ringest::internals::Sink {
    let reported = Arc::clone(reported);
    Box::new(move |report: &Report, _| {
        reported.lock().unwrap().push(Reported {
            records: report.received.counts.records,
            groups: report.grouped.len(),
            buffer: report.received.buffer,
        });
        Ok(())
    })
}

/// The threads of this process that are called as workers are.
fn worker_threads() -> BTreeSet<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let paths = tasks.map(|task| task.unwrap().path());
    let workers = paths.filter(|path| {
        // A thread may end meanwhile.
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    });
    workers.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect()
}

fn connect(address: SocketAddr, encrypted: bool) -> Box<dyn Write> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    if !encrypted {
        return Box::new(socket);
    }
    let tls = client_config(&Trust::Anybody, None).unwrap();
    let connection = ClientConnection::new(tls, "localhost".try_into().unwrap()).unwrap();
    Box::new(StreamOwned::new(connection, socket))
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

/// An engine with one worker and listeners on loopback.
fn config() -> Config {
    let core = core_affinity::get_core_ids().expect("cores")[0].id;
    Config {
        host: "127.0.0.1".to_owned(),
        records_port: Some(0),
        port: None,
        admin_port: Some(0),
        cores: vec![core],
        ..Config::default()
    }
}

fn block(groups: u32) -> Arc<PacketBlock> {
    let (padding, seed) = (SentPadding::Mixed, 1);
    let spec = StreamSpec {
        schema: Schema::built_in(),
        records: ENDLESS,
        packet_records: PACKET_RECORDS,
        padding,
        seed,
        groups,
    };
    PacketBlock::new(&spec).unwrap()
}

/// Sends `connections` streams, the one way and the other, and asserts that the worker, once it
/// knows their groups, asks for nothing.
fn assert_steady(config: Config, connections: u32, groups: u32, write_bytes: usize) {
    let block = block(groups);
    let mut world = World::start(config, connections, &block, write_bytes);
    world.warm_up(&block);
    world.measure(READS, World::write).assert_nothing_asked();
    world.measure(READS, World::write_and_wait).assert_nothing_asked();
    for stream in world.finish() {
        assert_eq!(stream.groups, groups as usize);
    }
}

#[test]
fn bulk_with_few_groups() {
    assert_steady(config(), 1, 125, BULK);
    assert_steady(config(), 10, 125, BULK);
}

#[test]
fn bulk_with_many_groups() {
    assert_steady(config(), 1, 10_000, BULK);
    assert_steady(config(), 10, 10_000, BULK);
}

/// Reads go to and fro between single and gathered ones here, as time will have it.
#[test]
fn packets_one_by_one() {
    assert_steady(config(), 1, 125, PACKETS);
    assert_steady(config(), 10, 125, PACKETS);
    assert_steady(config(), 10, 10_000, PACKETS);
}

#[test]
fn packets_one_by_one_and_never_gathered() {
    let config = || Config { coalesce_delay: Duration::ZERO, ..config() };
    assert_steady(config(), 1, 125, PACKETS);
    assert_steady(config(), 10, 125, PACKETS);
    assert_steady(config(), 10, 10_000, PACKETS);
}

/// With the longest delay, reads are gathered on a slow machine as well, though less often.
#[test]
fn packets_that_wait_to_be_gathered() {
    for connections in [1, 10] {
        let block = block(125);
        let config = Config { coalesce_delay: Duration::from_secs(1), ..config() };
        let mut world = World::start(config, connections, &block, PACKETS);
        world.warm_up(&block);
        until("reads are gathered", || {
            world.write_and_rest();
            world.tally().coalesced_reads.get() >= 4 * u64::from(connections)
        });
        let gathered = |tally: &WorkerTally| tally.coalesced_reads.get();
        world.measure_until(gathered, GATHERED_READS, World::write_and_rest).assert_nothing_asked();
        world.finish();
    }
}

/// Keys of six words with two texts, one of them longer than what is looked at first, every
/// function of numbers of three classes, little-endian behind a length of two bytes.
fn wide_schema() -> Arc<Schema> {
    let text = |bytes| Kind::Text { bytes, padding: TextPadding::BOTH };
    let kinds = [
        Kind::U64,
        text(100),
        Kind::I64,
        text(12),
        Kind::U64,
        Kind::Bool,
        Kind::U64,
        Kind::I32,
        Kind::F32,
    ];
    let fields = kinds.iter().enumerate().map(|(i, &kind)| (format!("f{i}"), kind)).collect();
    let of = |field| Function::ALL.map(|function| Aggregate::Of { field, function });
    let made = [of(6), of(7), of(8)].concat();
    let framing = Framing {
        length: Length::U16,
        includes_itself: false,
        endian: Endian::Little,
        end: End::Close,
    };
    let (name, keys) = ("wide".to_owned(), (0..6).collect());
    Arc::new(Schema::new(name, Endian::Little, framing, fields, keys, made).unwrap())
}

/// Packets of four records in pieces of so many packets, in which each group comes twice.
fn wide_pieces(groups: u32, packets: usize) -> Vec<(u64, Vec<u8>)> {
    let record = |number: u32| {
        let group = number % groups;
        let mut record = u64::from(group).to_le_bytes().to_vec();
        record.extend(
            format!("{:<100}", format!("{} of a long name, {group}", "x".repeat(40))).bytes(),
        );
        record.extend((-i64::from(group)).to_le_bytes());
        record.extend(format!("{:<12}", group % 100).bytes());
        record.extend(u64::MAX.to_le_bytes());
        record.push((group % 2) as u8);
        record.extend((u64::MAX / 3 + u64::from(number)).to_le_bytes());
        record.extend((number as i32).to_le_bytes());
        record.extend((number as f32).to_le_bytes());
        record
    };
    let numbers: Vec<u32> = (0..2 * groups).collect();
    let packets_of = numbers.chunks(PACKET_RECORDS).map(|numbers| {
        let body: Vec<u8> = numbers.iter().flat_map(|&number| record(number)).collect();
        let length = (body.len() as u16).to_le_bytes();
        (numbers.len() as u64, [&length[..], &body].concat())
    });
    let all: Vec<(u64, Vec<u8>)> = packets_of.collect();
    let joined = all.chunks(packets).map(|packets| {
        let records = packets.iter().map(|(records, _)| records).sum();
        (records, packets.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect())
    });
    joined.collect()
}

/// Another schema than the built-in one costs no allocation either, whatever it has.
#[test]
fn wide_keys_two_texts_and_all_functions() {
    let schema = wide_schema();
    for (connections, groups, packets) in [(1, 100, 100), (4, 100, 1)] {
        let pieces = wide_pieces(groups, packets);
        let sources = (0..connections).map(|_| Source::Pieces(&pieces, 0)).collect();
        let mut world = World::start_with(config(), &schema, sources);
        world.warm_up_records(u64::from(6 * groups));
        world.measure(READS, World::write).assert_nothing_asked();
        world.measure(READS, World::write_and_wait).assert_nothing_asked();
        for stream in world.finish() {
            assert_eq!(stream.groups, groups as usize);
        }
    }
}

#[test]
fn windows_of_plain_memory() {
    for write_bytes in [BULK, PACKETS] {
        let block = block(125);
        let config = Config { registered_buffers: 0, ..config() };
        let mut world = World::start(config, 10, &block, write_bytes);
        world.warm_up(&block);
        world.measure(READS, World::write).assert_nothing_asked();
        assert!(world.finish().iter().all(|stream| stream.buffer == BufferKind::Plain));
    }
}

/// Here a batch goes to the aggregation through a queue, and its column set comes back to a pool.
/// Neither allocates for each batch; what they may still allocate, however many batches there are:
///
/// * Each column set is made once, which may be at any time: as many as there are streams and four
///   a worker, which are made at start. A set is four columns in two lists.
/// * tokio's queue is a list of blocks of 32 jobs, which the receiver gives back to the sender. At
///   most 32 jobs wait, and a block comes back one job late, so three blocks are in use at most,
///   of which the first is there from the start.
#[test]
fn batches_of_columns() {
    const ALLOCATIONS_OF_SET: u64 = 6;
    const BLOCKS_OF_QUEUE: u64 = 2;
    for connections in [1, 10] {
        let block = block(125);
        let config = Config {
            aggregate: AggregateMode::Columns,
            batch_rows: 512,
            max_streams: connections as usize,
            ..config()
        };
        let batch_rows = config.batch_rows as u64;
        let once = ALLOCATIONS_OF_SET * u64::from(connections) + BLOCKS_OF_QUEUE;
        let mut world = World::start(config, connections, &block, BULK);
        world.warm_up(&block);
        let enough = world.sent() + 9 * once * batch_rows;
        let measured = world.measure(1, |world| {
            while world.sent() < enough {
                world.write();
            }
        });
        let batches = measured.records / batch_rows;
        assert!(batches > 8 * once, "too few batches to tell: {batches}");
        assert!(measured.asked.allocations <= once, "{measured:?}, {batches} batches");
        assert_eq!(Asked { allocations: 0, ..measured.asked }, Asked::default());
        world.finish();
    }
}

/// rustls gives the plaintext of each TLS record in a vector of its own. And the storage for what
/// TLS receives grows and shrinks with what comes, at most once a read, since thousands of quiet
/// clients have one. Nothing beside that.
#[test]
fn encrypted_streams() {
    const TLS_RECORD_BYTES: usize = 16 << 10;
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (files.path().join("cert"), files.path().join("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls =
        TlsOptions { records: true, cert: Some(cert), key: Some(key), ..TlsOptions::default() };
    let block = block(125);
    let mut world = World::start(Config { tls, ..config() }, 1, &block, BULK);
    world.warm_up(&block);
    let measured = world.measure(READS, World::write);
    // Each write makes TLS records of its own; where it comes round the block, one more.
    let write_records = block.writes(0, BULK).records_at_once();
    let tls_records_of_write = BULK.div_ceil(TLS_RECORD_BYTES) as u64 + 1;
    let tls_records = measured.records.div_ceil(write_records) * tls_records_of_write;
    let Asked { allocations, reallocations, frees } = measured.asked;
    assert!(allocations <= tls_records && frees <= tls_records, "{measured:?}, {tls_records}");
    assert!(reallocations <= measured.reads, "{measured:?}");
    world.finish();
}

/// A client that waits for the answer to each message, with frames that fit a small window and
/// with frames that take a large, registered one. The histogram that each client has of its own
/// latencies doubles until it has 2 KiB, where a reply takes longer than any before.
#[test]
fn records_in_messages() {
    const GROWTHS_MAX: u64 = 5;
    for packets in [1, 60] {
        let block = block(125);
        let config = Config { port: Some(0), rate_limit: 0, global_rate_limit: 0, ..config() };
        let mut world = World::start(config, 0, &block, BULK);
        let address = world.engine.as_ref().unwrap().messages_addresses()[0];
        let mut client =
            MessageClient::connect("127.0.0.1", address.port(), PATIENCE, None).unwrap();
        let mut writes = block.writes(0, packets * PACKET_BYTES);
        let mut send = || {
            let (_, pieces) = writes.next_write().unwrap();
            let body: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            client.send_data(&body).unwrap();
            client.ping().unwrap();
        };
        // All groups come.
        (0..block.size_bytes() / PACKET_BYTES).for_each(|_| send());
        world.show_if_asked();
        let asked = world.worker.asked();
        (0..MESSAGES).for_each(|_| send());
        let asked = world.worker.asked().since(asked);
        world.worker.show(0);
        eprintln!("{asked:?} in {MESSAGES} messages of {packets} packets");
        assert!(asked.reallocations <= GROWTHS_MAX, "{asked:?}; {HELP}");
        assert_eq!(Asked { reallocations: 0, ..asked }, Asked::default(), "{HELP}");
        client.close().unwrap();
        world.stop();
    }
}
