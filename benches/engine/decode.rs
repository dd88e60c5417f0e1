//! Benchmarks decoding of records into columns, with E interned: from memory just written, as in a
//! worker, and from memory outside the caches.

use super::schemas::run_of;
use criterion::{BenchmarkId, Criterion, Throughput};
use ringest::internals::{Column, ColumnSet, Config, Decoder, Plan, Texts};
use ringest::schema::Schema;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

const DISTINCT: [u32; 3] = [25, 1_000, 1_000_000];
const RECORD_BYTES: usize = 267;
/// Records of one read: as many as fit into 128 KiB.
const WINDOW_RECORDS: usize = (128 << 10) / RECORD_BYTES;
/// All windows together, 66 MB, exceed a core's own caches.
const WINDOWS: usize = 512;

/// Where the records are when they are decoded.
#[derive(Clone, Copy)]
enum Buffer {
    /// Copied just before, as by a read; the copy is not timed.
    Warm,
    /// Not touched since all other windows were decoded.
    Cold,
}

/// Benchmarks decoding with numbers of distinct E that fit into the text cache, into the core's
/// caches, and into neither.
pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::ElementsAndBytes {
        elements: WINDOW_RECORDS as u64,
        bytes: (WINDOW_RECORDS * RECORD_BYTES) as u64,
    });
    for distinct in DISTINCT {
        let stream = Stream::new(distinct);
        stream.check();
        let mut decoder = stream.decoder();
        for (name, buffer) in [("warm", Buffer::Warm), ("cold", Buffer::Cold)] {
            let id = BenchmarkId::new(name, distinct);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| stream.decode(rounds, buffer, &mut decoder));
            });
        }
    }
    group.finish();
}

struct Stream {
    bytes: Vec<u8>,
    distinct: u32,
}

impl Stream {
    /// Records with texts drawn from `distinct`.
    fn new(distinct: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut bytes = Vec::with_capacity(WINDOWS * WINDOW_RECORDS * RECORD_BYTES);
        for _ in 0..WINDOWS * WINDOW_RECORDS {
            bytes.extend(random.u32(..5).to_be_bytes());
            bytes.extend(random.u16(..).to_be_bytes());
            bytes.extend((random.f32() * 1e6).to_be_bytes());
            bytes.push(random.u8(..));
            bytes.extend(field_of(random.u32(..distinct)));
        }
        Stream { bytes, distinct }
    }

    /// A decoder that has interned every text, as after the first records of a long stream.
    fn decoder(&self) -> Decoder {
        let mut decoder = Decoder::new(&Plan::new(Schema::built_in()), &Config::default());
        let mut set = ColumnSet::with_rows(decoder.plan(), 1);
        for text in 0..self.distinct {
            let record = [&[0; 11][..], &field_of(text)].concat();
            assert_eq!(decoder.decode(&record, &[run_of(0, 1)], &mut set).limit, None);
            set.truncate(0);
        }
        decoder
    }

    fn windows(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.bytes.chunks(WINDOW_RECORDS * RECORD_BYTES)
    }

    /// Decodes `rounds` windows. Returns the time that decoding took.
    fn decode(&self, rounds: u64, buffer: Buffer, decoder: &mut Decoder) -> Duration {
        let run = run_of(0, WINDOW_RECORDS);
        let mut set = ColumnSet::with_rows(decoder.plan(), WINDOW_RECORDS);
        let mut near = vec![0; WINDOW_RECORDS * RECORD_BYTES];
        let mut took = Duration::ZERO;
        for (window, _) in self.windows().cycle().zip(0..rounds) {
            let received = match buffer {
                Buffer::Cold => window,
                Buffer::Warm => {
                    near.copy_from_slice(window);
                    &near
                }
            };
            let begun = Instant::now();
            let decoded = decoder.decode(received, &[run], &mut set);
            black_box(&set);
            took += begun.elapsed();
            assert_eq!(decoded.records, WINDOW_RECORDS);
            set.truncate(0);
        }
        took
    }

    /// Compares all columns with a naive parse of the same bytes.
    fn check(&self) {
        let mut decoder = self.decoder();
        let mut set = ColumnSet::with_rows(decoder.plan(), WINDOWS * WINDOW_RECORDS);
        for window in self.windows() {
            decoder.decode(window, &[run_of(0, WINDOW_RECORDS)], &mut set);
        }
        assert_eq!(sums_of_columns(&set, &decoder.into_texts()[0]), self.sums());
    }

    /// For each text: records, sums of A, B and C's bits, minimum of D.
    fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        for record in self.bytes.chunks(RECORD_BYTES) {
            let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, &b| sum << 8 | u64::from(b));
            let text = record[11..].split(|&byte| byte == b' ').next().unwrap_or_default();
            let c = f32::from_bits(number(&record[6..10]) as u32);
            let d = record[10].cast_signed();
            add(&mut sums, text, (number(&record[..4]), number(&record[4..6]), c, d));
        }
        sums
    }
}

type Sums = HashMap<Vec<u8>, (u64, u64, u64, u64, i8)>;

fn add(sums: &mut Sums, text: &[u8], (a, b, c, d): (u64, u64, f32, i8)) {
    if !sums.contains_key(text) {
        sums.insert(text.to_vec(), (0, 0, 0, 0, i8::MAX));
    }
    let sum = sums.get_mut(text).expect("it was just inserted");
    *sum = (sum.0 + 1, sum.1 + a, sum.2 + b, sum.3 + u64::from(c.to_bits()), sum.4.min(d));
}

fn sums_of_columns(set: &ColumnSet, texts: &Texts) -> Sums {
    let mut sums = Sums::new();
    let [Column::Unsigned(b), Column::Float(c), Column::Signed(d)] = &set.values[..] else {
        panic!("B, C and D");
    };
    for row in 0..set.rows() {
        // A, then the code of E.
        let (a, code) = (set.keys[0][row] >> 32, set.keys[0][row] as u32);
        add(&mut sums, texts.get(code as usize), (a, b[row], c[row] as f32, d[row] as i8));
    }
    sums
}

/// The field E for a text: no spaces inside, padded with spaces.
fn field_of(text: u32) -> [u8; 256] {
    let mut field = [b' '; 256];
    let text = format!("sensor-{text}");
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}
