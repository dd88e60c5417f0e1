//! Full column sets into groups. Decodes nothing.
//!
//! Each way of aggregating is a [`Fold`]; a further one is one more implementation and one more
//! line in [`bench`].

use criterion::{BenchmarkId, Criterion, Throughput};
use ringest::config::{Config, FOLD_ROWS, FOLD_ROWS_MAX, ROW_BYTES};
use ringest::engine::aggregate::{Aggregate, Grouped};
use ringest::engine::columns::{ColumnSet, PartialSet, key_of};
use ringest::engine::groups::GroupTable;
use ringest::engine::intern::{Interner, Texts};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const GROUPS: [u32; 3] = [125, 10_000, 1_000_000];
/// A million groups have a row each, at least.
const SETS: usize = 16;
/// Distinct A; the texts follow from it.
const VALUES_OF_A: u32 = 5;

/// A way to aggregate.
trait Fold: Default {
    /// Takes the rows of a set and leaves it empty.
    fn fold(&mut self, set: &mut ColumnSet);
    /// The groups.
    fn finish(self, texts: &Texts) -> Grouped;
}

/// `columns`: each full set is grouped by Polars, the partials are merged by Polars.
#[derive(Default)]
struct Columns(Aggregate);

impl Fold for Columns {
    fn fold(&mut self, set: &mut ColumnSet) {
        self.0.add(set).expect("Polars takes any rows");
    }

    fn finish(self, texts: &Texts) -> Grouped {
        self.0.finish(texts).expect("Polars takes any partials")
    }
}

/// `two-phase`: rows are folded into a table, as many at a time as a worker does, and Polars groups
/// what has gathered there in the end.
struct TwoPhase(GroupTable, ColumnSet);

impl Default for TwoPhase {
    fn default() -> Self {
        let table = GroupTable::with_limits(usize::MAX, FOLD_ROWS_MAX);
        TwoPhase(table, ColumnSet::with_rows(FOLD_ROWS))
    }
}

impl Fold for TwoPhase {
    fn fold(&mut self, set: &mut ColumnSet) {
        let TwoPhase(table, part) = self;
        for begin in (0..set.rows()).step_by(FOLD_ROWS) {
            let rows = begin..(begin + FOLD_ROWS).min(set.rows());
            part.keys.extend_from_slice(&set.keys[rows.clone()]);
            part.b.extend_from_slice(&set.b[rows.clone()]);
            part.c.extend_from_slice(&set.c[rows.clone()]);
            part.d.extend_from_slice(&set.d[rows]);
            assert_eq!(table.fold(part), part.rows());
            part.truncate(0);
        }
        set.truncate(0);
    }

    fn finish(self, texts: &Texts) -> Grouped {
        let mut aggregate = Aggregate::default();
        let mut set = PartialSet::with_rows(Config::default().batch_rows);
        aggregate.add_partials(self.0.partials(), &mut set).expect("Polars takes any partials");
        aggregate.finish(texts).expect("Polars takes any partials")
    }
}

/// Aggregation of sets as the engine makes them by default, for few groups and for many.
pub fn bench(criterion: &mut Criterion) {
    // The engine's own pool has a thread for each worker; here is one.
    // SAFETY: criterion has made no thread yet: it analyses only what has been measured.
    unsafe { ringest::engine::aggregate::create_pool(1) };
    for groups in GROUPS {
        let rows = Rows::new(groups);
        bench_fold::<Columns>(criterion, "columns", &rows);
        bench_fold::<TwoPhase>(criterion, "two-phase", &rows);
    }
}

fn bench_fold<F: Fold>(criterion: &mut Criterion, name: &str, rows: &Rows) {
    rows.check::<F>();
    let set_rows = Config::default().batch_rows;
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::ElementsAndBytes {
        elements: set_rows as u64,
        bytes: (set_rows * ROW_BYTES) as u64,
    });
    // One for all samples, so that its groups are known by the time of the first.
    let mut fold = F::default();
    rows.fold(SETS as u64, &mut fold);
    group.bench_function(BenchmarkId::new(name, rows.groups), |bencher| {
        bencher.iter_custom(|rounds| rows.fold(rounds, &mut fold));
    });
    group.finish();
}

/// Records, sum of B, sum of C, minimum of D.
type Sum = (u64, u64, f64, i8);

struct Rows {
    groups: u32,
    sets: Vec<ColumnSet>,
    texts: Texts,
}

impl Rows {
    /// Sets in which every group occurs.
    fn new(groups: u32) -> Self {
        let mut interner = Interner::with_limits(groups as usize, 1 << 30);
        for text in 0..groups.div_ceil(VALUES_OF_A) {
            let mut field = [b' '; 256];
            field[..4].copy_from_slice(&text.to_be_bytes());
            // Not padding, whatever the number's last byte is.
            field[4] = b'.';
            interner.code(&field).expect("within the limits");
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut row = 0;
        let mut set = || {
            let mut set = ColumnSet::with_rows(Config::default().batch_rows);
            while set.rows_free() > 0 {
                let group = if row < groups { row } else { random.u32(..groups) };
                row += 1;
                let key = key_of(group % VALUES_OF_A) | u64::from(group / VALUES_OF_A);
                set.push_row(key, u64::from(random.u16(..)), random.f64(), random.i8(..));
            }
            set
        };
        let sets = (0..SETS).map(|_| set()).collect();
        Rows { groups, sets, texts: interner.into_texts() }
    }

    /// Folds so many sets, and gives the time that folding took.
    fn fold(&self, rounds: u64, fold: &mut impl Fold) -> Duration {
        let mut set = ColumnSet::with_rows(Config::default().batch_rows);
        let mut took = Duration::ZERO;
        for (rows, _) in self.sets.iter().cycle().zip(0..rounds) {
            set.keys.extend_from_slice(&rows.keys);
            set.b.extend_from_slice(&rows.b);
            set.c.extend_from_slice(&rows.c);
            set.d.extend_from_slice(&rows.d);
            let begun = Instant::now();
            fold.fold(&mut set);
            took += begun.elapsed();
            assert!(set.is_empty());
        }
        took
    }

    /// Compares the groups with a naive sum of the rows, each set folded once.
    fn check<F: Fold>(&self) {
        let mut fold = F::default();
        self.fold(SETS as u64, &mut fold);
        let mut naive: BTreeMap<(u32, Vec<u8>), Sum> = BTreeMap::new();
        for set in &self.sets {
            for row in 0..set.rows() {
                let (a, code) = ((set.keys[row] >> 32) as u32, set.keys[row] as u32);
                let text = [&code.to_be_bytes()[..], b"."].concat();
                let sum = naive.entry((a, text)).or_insert((0, 0, 0.0, i8::MAX));
                sum.0 += 1;
                sum.1 += set.b[row];
                sum.2 += set.c[row];
                sum.3 = sum.3.min(set.d[row]);
            }
        }
        let grouped = fold.finish(&self.texts);
        assert_eq!(grouped.len(), naive.len());
        for (group, ((a, text), (count, b, c, d))) in grouped.groups().zip(naive) {
            assert_eq!((group.a, group.e, group.count, group.d_min), (a, &text[..], count, d));
            assert_eq!(group.b_mean, b as f64 / count as f64);
            assert!((group.c_sum - c).abs() <= 1e-9 * c, "{} and {c}", group.c_sum);
        }
    }
}
