//! Benchmarks folding records of other schemas into groups, as a worker does: the cost of a field,
//! of wide keys, of a text.

use criterion::{Criterion, Throughput};
use ringest::internals::{
    Config, Decoder, Ends, FOLD_ROWS, FOLD_ROWS_MAX, GroupAggregate, GroupTable, Grouped, Padding,
    Plan, Run, Value,
};
use ringest::schema::{Aggregate as Made, Endian, Field, Framing, Function, Kind, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one read.
const WINDOW_BYTES: usize = 128 << 10;
/// Number of windows, used in turn; each is copied just before it is folded.
const WINDOWS: usize = 32;
const GROUPS: u32 = 125;
/// Typical measurements: two integer and two float types.
const NUMBERS: [Kind; 4] = [Kind::U32, Kind::F32, Kind::I16, Kind::F64];

/// A schema built field by field, keys first.
pub struct Shape {
    fields: Vec<(String, Kind)>,
    keys: usize,
    made: Vec<Made>,
}

impl Shape {
    /// A schema with these keys.
    pub fn new(keys: &[Kind]) -> Self {
        let fields = keys.iter().enumerate().map(|(i, &kind)| (format!("f{i}"), kind)).collect();
        Shape { fields, keys: keys.len(), made: Vec::new() }
    }

    /// Adds another key: a padded text of `bytes` bytes.
    pub fn text_key(mut self, bytes: usize) -> Self {
        assert_eq!(self.keys, self.fields.len(), "keys are first");
        let text = Kind::Text { bytes, padding: Padding::BOTH };
        self.fields.push((format!("f{}", self.keys), text));
        self.keys += 1;
        self
    }

    /// Adds a field with these aggregates.
    pub fn field(mut self, kind: Kind, functions: &[Function]) -> Self {
        let field = self.fields.len();
        self.fields.push((format!("f{field}"), kind));
        self.made.extend(functions.iter().map(|&function| Made::Of { field, function }));
        self
    }

    /// Adds `count` numbers, each with these aggregates.
    fn numbers(self, count: usize, functions: &[Function]) -> Self {
        NUMBERS.iter().cycle().take(count).fold(self, |shape, &kind| shape.field(kind, functions))
    }

    /// The plan of its streams.
    pub fn plan(self) -> Arc<Plan> {
        let keys = (0..self.keys).collect();
        let (name, framing) = ("bench".to_owned(), Framing::default());
        let schema = Schema::new(name, Endian::Big, framing, self.fields, keys, self.made);
        Plan::new(Arc::new(schema.expect("the schema is valid")))
    }
}

/// A run of consecutive records.
pub fn run_of(offset: usize, records: usize) -> Run {
    Run { offset, records, ends: Ends::Last }
}

/// The schemas by name. The `numbers/…` differ only in the number of fields, so the cost of a field
/// is the difference divided by that number.
fn shapes() -> [(&'static str, Shape); 7] {
    let mean = &[Function::Mean][..];
    let ends = &[Function::Min, Function::Max, Function::Last][..];
    let key = || Shape::new(&[Kind::U32]);
    let wide = [Kind::U64, Kind::U64, Kind::U32, Kind::Bytes { bytes: 40 }];
    [
        ("numbers/4", key().numbers(4, mean)),
        ("numbers/16", key().numbers(16, mean)),
        ("numbers/64", key().numbers(64, mean)),
        ("extremes/16", key().numbers(16, ends)),
        ("variance/16", key().numbers(16, &[Function::Var])),
        ("wide-keys/4", Shape::new(&wide).text_key(16).numbers(4, mean)),
        ("narrow-text/4", Shape::new(&[]).text_key(8).numbers(4, mean)),
    ]
}

/// Benchmarks folding freshly copied windows into few groups.
pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schemas");
    for (name, shape) in shapes() {
        let stream = Stream::new(shape.plan());
        stream.check();
        let (rows, record_bytes) = (stream.window_records(), stream.record_bytes());
        group.throughput(Throughput::ElementsAndBytes {
            elements: rows as u64,
            bytes: (rows * record_bytes) as u64,
        });
        let mut worker = Worker::new(&stream.plan);
        stream.fold(WINDOWS as u64, &mut worker);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| stream.fold(rounds, &mut worker));
        });
    }
    group.finish();
}

struct Worker {
    decoder: Decoder,
    groups: GroupTable,
}

impl Worker {
    fn new(plan: &Arc<Plan>) -> Self {
        let decoder = Decoder::new(plan, &Config::default());
        Worker { decoder, groups: GroupTable::with_limits(plan, 1 << 20, FOLD_ROWS_MAX) }
    }

    /// Folds as many records at a time as a worker does.
    fn fold(&mut self, received: &[u8], record_bytes: usize) {
        let records = received.len() / record_bytes;
        for begin in (0..records).step_by(FOLD_ROWS) {
            let run = run_of(begin * record_bytes, FOLD_ROWS.min(records - begin));
            let folded = self.decoder.fold(received, &[run], &mut self.groups);
            assert_eq!(folded.records, run.records);
        }
    }

    fn finish(self) -> Grouped {
        let plan = self.decoder.plan();
        let mut aggregate = GroupAggregate::new(plan);
        aggregate.add_table(&self.groups).expect("Polars takes partials");
        let texts = self.decoder.into_texts();
        aggregate.finish(&texts).expect("Polars takes any partials").grouped
    }
}

struct Stream {
    plan: Arc<Plan>,
    bytes: Vec<u8>,
}

impl Stream {
    /// Records of a few groups. Their numbers are small, so that sums are exact.
    fn new(plan: Arc<Plan>) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut stream = Stream { plan, bytes: Vec::new() };
        let schema = Arc::clone(stream.plan.schema());
        for _ in 0..WINDOWS * stream.window_records() {
            let group = random.u32(..GROUPS);
            for (i, field) in schema.fields().iter().enumerate() {
                let is_key = i < schema.keys().len();
                let number = if is_key { group } else { random.u32(..1000) };
                append(&mut stream.bytes, field.kind, number);
            }
        }
        stream
    }

    fn record_bytes(&self) -> usize {
        self.plan.form().record_bytes
    }

    fn window_records(&self) -> usize {
        WINDOW_BYTES / self.record_bytes()
    }

    /// Folds `rounds` windows, each copied just before, as by a read. The copy is not timed.
    fn fold(&self, rounds: u64, worker: &mut Worker) -> Duration {
        let mut near = vec![0; self.window_records() * self.record_bytes()];
        let mut took = Duration::ZERO;
        for (window, _) in self.bytes.chunks(near.len()).cycle().zip(0..rounds) {
            near.copy_from_slice(window);
            let begun = Instant::now();
            worker.fold(&near, self.record_bytes());
            took += begun.elapsed();
        }
        took
    }

    /// Compares counts and means of the groups with a naive parse of the same bytes. Extremes and
    /// variances are covered by the engine's own tests.
    fn check(&self) {
        let mut worker = Worker::new(&self.plan);
        self.fold(WINDOWS as u64, &mut worker);
        let grouped = worker.finish();
        let columns = grouped.columns();
        let schema = self.plan.schema();
        let keys = schema.keys().len();
        let key_bytes: usize = schema.keys().map(|key| key.kind.width()).sum();
        // Keys are unsigned and big-endian, so their bytes sort in the order of results.
        let mut naive: BTreeMap<&[u8], (u64, Vec<f64>)> = BTreeMap::new();
        for record in self.bytes.chunks(self.record_bytes()) {
            let empty = || (0, vec![0.0; schema.fields().len()]);
            let (count, sums) = naive.entry(&record[..key_bytes]).or_insert_with(empty);
            *count += 1;
            for (sum, field) in sums.iter_mut().zip(schema.fields()).skip(keys) {
                *sum += read(field, record);
            }
        }
        assert_eq!(grouped.len(), naive.len());
        for (row, (count, sums)) in naive.into_values().enumerate() {
            let last = columns[columns.len() - 1];
            assert_eq!((last.name(), last.value(row)), ("count", Value::Unsigned(count)));
            for (column, made) in columns[keys..].iter().zip(schema.aggregates()) {
                if let Made::Of { field, function: Function::Mean } = *made {
                    assert_eq!(column.value(row), Value::Float(sums[field] / count as f64));
                }
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, kind: Kind, number: u32) {
    match kind {
        Kind::U16 | Kind::I16 => bytes.extend((number as u16).to_be_bytes()),
        Kind::U32 | Kind::I32 => bytes.extend(number.to_be_bytes()),
        Kind::U64 | Kind::I64 => bytes.extend(u64::from(number).to_be_bytes()),
        Kind::F32 => bytes.extend((number as f32).to_be_bytes()),
        Kind::F64 => bytes.extend(f64::from(number).to_be_bytes()),
        // Fixed length, and no trailing zero byte.
        _ => bytes.extend(format!("{number:0width$}", width = kind.width()).bytes()),
    }
}

fn read(field: &Field, record: &[u8]) -> f64 {
    let bytes = &record[field.offset..field.offset + field.kind.width()];
    let number = bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    match field.kind {
        Kind::F32 => f32::from_bits(number as u32).into(),
        Kind::F64 => f64::from_bits(number),
        _ => number as f64,
    }
}
