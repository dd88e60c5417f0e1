//! One process of the simulation: what `serve` opens at its start, record streams through the
//! intake, captures, aggregation, partials, writers and reporter, on one thread.

use super::oracle::Oracle;
use crate::cli::commands::serve::{Directories, open_results, to_output_and_files};
use crate::cli::output::format::Format;
use crate::config::{Config, FOLD_ROWS_MAX, FileFormat};
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriter};
use crate::engine::stream::intake::{NextStep, RecordIntake};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::connection::slots::{Slots, StreamHold};
use crate::runtime::disk::simulated::SimulatedDisk;
use crate::runtime::records::open_batch::OpenBatch;
use crate::runtime::results::aggregator::{self, Job, StreamRows};
use crate::runtime::results::capture::{self, Capture, CaptureWork};
use crate::runtime::results::partial_files::PartialFiles;
use crate::runtime::results::partial_writers::{PartialWriter, PartialWriters};
use crate::runtime::results::report::FileWriter;
use crate::runtime::results::reporter::{self, ReporterOutcome, Sink};
use crate::runtime::results::writers::Writers;
use crate::runtime::results::{mpsc, watch};
use crate::wire::schema::Schema;
use fastrand::Rng;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

const SCHEMA: &str = r#"
name = "disk"
endian = "little"
packet = { length = "none", end = "close" }
[[field]]
name = "k"
type = "u16"
[[field]]
name = "v"
type = "u32"
[result]
by = ["k"]
aggregates = ["v:sum"]
"#;

const RECORD_BYTES: usize = 6;
const WINDOW_BYTES: usize = 64 << 10;

/// What all lives on a disk have in common.
pub(super) struct Setting {
    pub config: Config,
    pub results: PathBuf,
    pub schema: Arc<Schema>,
    plan: Arc<Plan>,
}

impl Setting {
    pub(super) fn draw(disk: &SimulatedDisk, random: &mut Rng) -> Self {
        let schema = Arc::new(Schema::from_toml(SCHEMA).expect("a valid schema"));
        let directory = |name: &str| Some(disk.make_directory(name));
        let config = Config {
            node: Some("n".to_owned()),
            output: directory("output"),
            // Parquet and Arrow take longer to write and to check, and so do partials.
            output_format: match random.u8(..24) {
                0 => FileFormat::Parquet,
                1 => FileFormat::Arrow,
                2..8 => FileFormat::Csv,
                _ => FileFormat::Ndjson,
            },
            partials: directory("partials").filter(|_| random.u8(..4) == 0),
            capture: directory("capture"),
            capture_bytes_limit: if random.bool() { 1 << 30 } else { random.u64(..20_000) },
            hgrm: directory("hgrm"),
            ..Config::default()
        };
        let plan = Plan::new(Arc::clone(&schema));
        Setting { config, results: disk.root().join("results.ndjson"), schema, plan }
    }

    /// Streams of which no two begin at the same time.
    pub(super) fn draw_streams(&self, moment: SystemTime, random: &mut Rng) -> Vec<SentStream> {
        let count = random.u64(1..4);
        (1..=count).map(|at| SentStream::draw(moment + Duration::from_secs(at), random)).collect()
    }
}

/// What a sender sends, and what must come of it.
#[derive(Clone, Debug)]
pub(super) struct SentStream {
    pub started: SystemTime,
    pub records: Vec<(u16, u32)>,
}

impl SentStream {
    fn draw(started: SystemTime, random: &mut Rng) -> Self {
        let (count, keys) = (random.usize(1..600), random.u16(1..100));
        let records = (0..count).map(|_| (random.u16(..keys), random.u32(..))).collect();
        SentStream { started, records }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let record = |(k, v): &(u16, u32)| [&k.to_le_bytes()[..], &v.to_le_bytes()].concat();
        self.records.iter().flat_map(record).collect()
    }
}

/// The oracle sees each result when it is printed.
pub(super) type SharedOracle = Arc<Mutex<Oracle>>;

/// A running process.
pub(super) struct Life<'a> {
    setting: &'a Setting,
    writer: FileWriter,
    sink: Arc<Mutex<Sink>>,
    partials: Option<Arc<PartialFiles>>,
    captures: CaptureWork,
    counters: Arc<Counters>,
    tally: TallyWriter,
    missing: Box<dyn FnOnce() -> Vec<String>>,
    numbers: u64,
    outcomes: Vec<ReporterOutcome>,
}

/// What a life says of itself at its end.
pub(super) struct EndedLife {
    pub counters: Arc<Counters>,
    pub missing: Vec<String>,
    pub outcomes: Vec<ReporterOutcome>,
    pub capture_bytes_left: u64,
}

impl<'a> Life<'a> {
    /// What `serve` opens, in its order.
    pub(super) fn start(setting: &'a Setting) -> Result<Self, String> {
        let config = &setting.config;
        let directories = Directories::open(config, &setting.schema)?;
        let (printed_to, _) = open_results(Some(&setting.results))?;
        let missing = Box::new(directories.missing());
        let (writer, sink) = to_output_and_files(Format::Ndjson, config, printed_to, directories);
        let (counters, writers) = Counters::new(1);
        let partials = PartialFiles::start(config, &setting.schema, &counters.partials)
            .map_err(|error| error.to_string())?;
        Ok(Life {
            setting,
            writer: writer.expect("results have files"),
            sink: Arc::new(Mutex::new(sink)),
            partials,
            captures: capture::prepare(config)?.expect("captures are on"),
            counters,
            tally: writers.reporter,
            missing,
            numbers: 0,
            outcomes: Vec::new(),
        })
    }

    /// Streams that run at the same time, until their results are printed.
    pub(super) fn run(
        &mut self,
        streams: Vec<SentStream>,
        oracle: &SharedOracle,
        random: &mut Rng,
    ) {
        let (jobs, queue) = mpsc::channel(1000);
        let mut feeds: Vec<Feed> = streams
            .into_iter()
            .map(|sent| {
                self.numbers += 1;
                oracle.lock().unwrap().begins(self.numbers, &sent);
                Feed::new(self, self.numbers, sent)
            })
            .collect();
        while !feeds.is_empty() {
            let at = random.usize(..feeds.len());
            if feeds[at].is_done() {
                feeds.swap_remove(at).finish(&mut self.captures, &jobs, random);
            } else {
                feeds[at].read(&mut self.captures, &jobs, random);
            }
        }
        drop(jobs);
        self.report(queue, oracle);
    }

    /// What the aggregation thread, the writers and the reporter do.
    fn report(&mut self, jobs: mpsc::Receiver<Job>, oracle: &SharedOracle) {
        let (finished, results) = mpsc::channel(100);
        let Setting { plan, config, .. } = self.setting;
        let partials = self.partials.clone().map(PartialWriters::new);
        let writer = partials.as_ref().map(|writers| writers.writer());
        let source = partials.as_ref().map(|writers| writers.source());
        aggregator::run(jobs, finished, plan, config, source);
        writer.into_iter().for_each(PartialWriter::run);
        // It can still send results.
        drop(partials);
        let (writers, source) = Writers::new(results, Arc::clone(&self.writer));
        writers.run();
        // Dropped, so that the source ends.
        drop(writers);
        let (sink, oracle) = (Arc::clone(&self.sink), Arc::clone(oracle));
        let sink: Sink = Box::new(move |report, file| {
            (sink.lock().unwrap())(report, file)?;
            oracle.lock().unwrap().printed(&report.received, file);
            Ok(())
        });
        let (drain, _) = watch::channel(None);
        self.outcomes.push(reporter::run(source, sink, &drain, &self.tally));
    }

    pub(super) fn end(mut self) -> EndedLife {
        while self.captures.write_next() || self.captures.end_next() {}
        EndedLife {
            counters: self.counters,
            missing: (self.missing)(),
            outcomes: self.outcomes,
            capture_bytes_left: self.captures.bytes_left(),
        }
    }
}

/// A stream that is being received.
struct Feed {
    number: u64,
    started: SystemTime,
    bytes: Vec<u8>,
    at: usize,
    plan: Arc<Plan>,
    intake: RecordIntake,
    buffer: Vec<u8>,
    groups: Option<Box<GroupTable>>,
    /// With `--partials`.
    batch: Option<OpenBatch>,
    latency: Latency,
    capture: Capture,
}

impl Feed {
    fn new(life: &Life<'_>, number: u64, sent: SentStream) -> Self {
        let Setting { plan, config, .. } = life.setting;
        let now = Instant::now();
        Feed {
            number,
            started: sent.started,
            bytes: sent.bytes(),
            at: 0,
            plan: Arc::clone(plan),
            intake: RecordIntake::new(plan, config, WINDOW_BYTES, now),
            buffer: vec![0; WINDOW_BYTES],
            groups: None,
            batch: life.partials.as_ref().map(|_| OpenBatch::first(now, sent.started)),
            latency: Latency::default(),
            capture: life.captures.captures.stream(number),
        }
    }

    fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What a worker does after a read.
    fn read(&mut self, captures: &mut CaptureWork, jobs: &mpsc::Sender<Job>, random: &mut Rng) {
        let left = self.bytes.len() - self.at;
        let piece = &self.bytes[self.at..self.at + left.min(random.usize(1..RECORD_BYTES * 200))];
        self.at += piece.len();
        wait(self.capture.add(piece, self.started), captures, random);
        let now = Instant::now();
        let free = self.intake.free().start;
        self.buffer[free..free + piece.len()].copy_from_slice(piece);
        self.intake.handle_read(piece.len(), now);
        let Feed { plan, groups, .. } = self;
        let groups = groups
            .get_or_insert_with(|| Box::new(GroupTable::with_limits(plan, 1 << 20, FOLD_ROWS_MAX)));
        while self.intake.poll_groups(&self.buffer, groups).expect("right records")
            == NextStep::Rows
        {}
        self.intake.compact(&mut self.buffer);
        self.latency.record(Duration::from_micros(10), 1);
        if !self.is_done() && random.u8(..4) == 0 {
            self.close_batch(jobs);
        }
    }

    fn hand_over(&mut self, jobs: &mpsc::Sender<Job>) {
        let Some(groups) = self.groups.take() else { return };
        let (connection, rows) = (self.number, StreamRows::Groups(groups));
        send(jobs, Job::Add { connection, rows, over_groups: Arc::default() });
    }

    fn close_batch(&mut self, jobs: &mpsc::Sender<Job>) {
        self.hand_over(jobs);
        let Some(batch) = &mut self.batch else { return };
        let latency = std::mem::take(&mut self.latency);
        let batch = batch.close(&self.intake, latency, Instant::now(), self.started);
        let (connection, batch) = (self.number, Box::new(batch));
        send(jobs, Job::Close { connection, batch, over_groups: Arc::default() });
    }

    fn finish(mut self, captures: &mut CaptureWork, jobs: &mpsc::Sender<Job>, random: &mut Rng) {
        self.hand_over(jobs);
        let peer = "[::1]:9".parse().expect("an address");
        let mut received = Received::nothing(self.number, peer, Instant::now());
        received.started = self.started;
        received.counts = self.intake.counts();
        match self.batch {
            Some(batch) => {
                let batch = batch.close_last(received.counts, self.latency);
                received.batch = Some(Box::new(batch));
            }
            None => received.latency = self.latency,
        }
        received.texts = self.intake.into_texts();
        if random.u8(..12) > 0 {
            received.capture = Some(wait(self.capture.finish(), captures, random));
        } else {
            // As after a panic of its task.
            received.reason = Some(Reason::InternalError);
            drop(self.capture);
        }
        let slot = Slots::new(1, 1, 1).take(Protocol::Records).expect("a free slot");
        let held = StreamHold::Connection(slot);
        send(jobs, Job::Finish { received: Box::new(received), held });
    }
}

fn send(jobs: &mpsc::Sender<Job>, job: Job) {
    assert!(jobs.try_send(job).is_ok(), "the queue is large enough");
}

/// What a future gives while the capture threads work.
fn wait<T>(future: impl Future<Output = T>, captures: &mut CaptureWork, random: &mut Rng) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        let worked = match random.bool() {
            true => captures.write_next() || captures.end_next(),
            false => captures.end_next() || captures.write_next(),
        };
        assert!(worked, "a capture waits for nothing");
    }
}
