//! Benchmarks aggregation of records into groups, set by set, in both modes of the engine.
//!
//! Each mode is a [`Fold`]; adding one takes an implementation and a line in [`bench`].

use super::schemas::{Shape, run_of};
use criterion::{BenchmarkId, Criterion, Throughput};
use ringest::internals::{
    ColumnSet, Config, Decoder, FOLD_ROWS, FOLD_ROWS_MAX, GroupAggregate, GroupTable, Grouped,
    Plan, Value,
};
use ringest::schema::{Function, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const GROUPS: [u32; 3] = [125, 10_000, 1_000_000];
/// Enough sets for a million groups to have at least one row each.
const SETS: usize = 16;
/// Number of distinct values of A; it determines the texts.
const VALUES_OF_A: u32 = 5;
const RECORD_BYTES: usize = 27;

/// The built-in schema with a narrow E, so that the records of all sets fit into a small machine's
/// memory.
fn plan() -> Arc<Plan> {
    let shape = Shape::new(&[Kind::U32])
        .text_key(16)
        .field(Kind::U16, &[Function::Mean])
        .field(Kind::F32, &[Function::Sum])
        .field(Kind::I8, &[Function::Min]);
    shape.plan()
}

/// A way to aggregate.
trait Fold {
    /// Starts without groups.
    fn new(plan: &Arc<Plan>) -> Self;
    /// Adds a set's records. Returns the time this took.
    fn fold(&mut self, records: &[u8]) -> Duration;
    /// The groups.
    fn finish(self) -> Grouped;
}

/// `columns`: Polars groups each full set and merges the partials. The time excludes decoding.
struct Columns {
    decoder: Decoder,
    set: ColumnSet,
    aggregate: GroupAggregate,
}

impl Fold for Columns {
    fn new(plan: &Arc<Plan>) -> Self {
        let config = Config::default();
        Columns {
            decoder: Decoder::new(plan, &config),
            set: ColumnSet::with_rows(plan, config.batch_rows),
            aggregate: GroupAggregate::new(plan),
        }
    }

    fn fold(&mut self, records: &[u8]) -> Duration {
        let run = run_of(0, records.len() / RECORD_BYTES);
        self.decoder.decode(records, &[run], &mut self.set);
        let begun = Instant::now();
        self.aggregate.add(&mut self.set).expect("Polars takes any rows");
        begun.elapsed()
    }

    fn finish(self) -> Grouped {
        let texts = self.decoder.into_texts();
        self.aggregate.finish(&texts).expect("Polars takes any partials").grouped
    }
}

/// `two-phase`: records are decoded and folded into a table, as many at a time as in a worker, and
/// Polars makes the result at the end.
struct TwoPhase {
    decoder: Decoder,
    table: GroupTable,
}

impl Fold for TwoPhase {
    fn new(plan: &Arc<Plan>) -> Self {
        let decoder = Decoder::new(plan, &Config::default());
        TwoPhase { decoder, table: GroupTable::with_limits(plan, usize::MAX, FOLD_ROWS_MAX) }
    }

    fn fold(&mut self, records: &[u8]) -> Duration {
        let rows = records.len() / RECORD_BYTES;
        let begun = Instant::now();
        for begin in (0..rows).step_by(FOLD_ROWS) {
            let run = run_of(begin * RECORD_BYTES, FOLD_ROWS.min(rows - begin));
            let folded = self.decoder.fold(records, &[run], &mut self.table);
            assert_eq!(folded.records, run.records);
        }
        begun.elapsed()
    }

    fn finish(self) -> Grouped {
        let mut aggregate = GroupAggregate::new(self.decoder.plan());
        aggregate.add_table(&self.table).expect("Polars takes partials");
        let texts = self.decoder.into_texts();
        aggregate.finish(&texts).expect("Polars takes any partials").grouped
    }
}

/// Benchmarks sets of the engine's default size, with few and with many groups.
pub fn bench(criterion: &mut Criterion) {
    for groups in GROUPS {
        let rows = Rows::new(groups);
        bench_fold::<Columns>(criterion, "columns", &rows);
        bench_fold::<TwoPhase>(criterion, "two-phase", &rows);
        bench_result(criterion, &rows);
    }
}

/// From the table of a stream to its result: what a sender waits for after its last record.
fn bench_result(criterion: &mut Criterion, rows: &Rows) {
    let mut fold = TwoPhase::new(&plan());
    rows.fold(SETS as u64, &mut fold);
    let (plan, table, texts) =
        (Arc::clone(fold.decoder.plan()), fold.table, fold.decoder.into_texts());
    let mut group = criterion.benchmark_group("result");
    group.throughput(Throughput::Elements(rows.groups.into()));
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("one-table", rows.groups), |bencher| {
        bencher.iter(|| {
            let mut aggregate = GroupAggregate::new(&plan);
            aggregate.add_table(&table).expect("Polars takes the groups");
            let grouped = aggregate.finish(&texts).expect("Polars makes a result").grouped;
            assert_eq!(grouped.len(), rows.groups as usize);
        });
    });
    group.finish();
}

fn bench_fold<F: Fold>(criterion: &mut Criterion, name: &str, rows: &Rows) {
    rows.check::<F>();
    let set_rows = Config::default().batch_rows;
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::ElementsAndBytes {
        elements: set_rows as u64,
        bytes: (set_rows * RECORD_BYTES) as u64,
    });
    // Shared by all samples, so that its groups exist before the first one.
    let mut fold = F::new(&plan());
    rows.fold(SETS as u64, &mut fold);
    group.bench_function(BenchmarkId::new(name, rows.groups), |bencher| {
        bencher.iter_custom(|rounds| rows.fold(rounds, &mut fold));
    });
    group.finish();
}

struct Rows {
    groups: u32,
    records: Vec<u8>,
}

impl Rows {
    /// Records for all sets, in which every group occurs.
    fn new(groups: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let count = SETS * Config::default().batch_rows;
        let mut records = Vec::with_capacity(count * RECORD_BYTES);
        for row in 0..count as u32 {
            let group = if row < groups { row } else { random.u32(..groups) };
            records.extend((group % VALUES_OF_A).to_be_bytes());
            records.extend(format!("{:<16}", group / VALUES_OF_A).bytes());
            records.extend(random.u16(..).to_be_bytes());
            records.extend(random.f32().to_be_bytes());
            records.push(random.u8(..));
        }
        Rows { groups, records }
    }

    fn sets(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.records.chunks(Config::default().batch_rows * RECORD_BYTES)
    }

    /// Folds `rounds` sets. Returns the time that folding took.
    fn fold(&self, rounds: u64, fold: &mut impl Fold) -> Duration {
        self.sets().cycle().zip(0..rounds).map(|(records, _)| fold.fold(records)).sum()
    }

    /// Folds each set once and compares the groups with a naive sum of the records.
    fn check<F: Fold>(&self) {
        let mut fold = F::new(&plan());
        self.fold(SETS as u64, &mut fold);
        // By A and E: records, sum of B, sum of C, minimum of D.
        let mut naive: BTreeMap<&[u8], (u64, u64, f64, i8)> = BTreeMap::new();
        for record in self.records.chunks(RECORD_BYTES) {
            let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, &b| sum << 8 | u64::from(b));
            let sum = naive.entry(&record[..20]).or_insert((0, 0, 0.0, i8::MAX));
            sum.0 += 1;
            sum.1 += number(&record[20..22]);
            sum.2 += f64::from(f32::from_bits(number(&record[22..26]) as u32));
            sum.3 = sum.3.min(record[26].cast_signed());
        }
        let grouped = fold.finish();
        assert_eq!(grouped.len(), naive.len());
        let columns = grouped.columns();
        for (row, (key, (count, b, c, d))) in naive.into_iter().enumerate() {
            let value = |column: usize| columns[column].value(row);
            let a = u32::from_be_bytes(key[..4].try_into().expect("four bytes"));
            let text = std::str::from_utf8(&key[4..]).expect("digits").trim_end();
            assert_eq!((value(0), value(1)), (Value::Unsigned(a.into()), Value::Text(text)));
            assert_eq!(value(2), Value::Float(b as f64 / count as f64));
            let Value::Float(sum) = value(3) else { panic!("C_sum is {:?}", value(3)) };
            assert!((sum - c).abs() <= 1e-9 * c, "{sum} and {c}");
            assert_eq!((value(4), value(5)), (Value::Signed(d.into()), Value::Unsigned(count)));
        }
    }
}
