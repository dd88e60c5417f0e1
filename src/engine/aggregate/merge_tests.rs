//! Checks the merging of files against plain Rust over the original records.

use super::*;
use crate::engine::aggregate::partial_file::{BatchFacts, Origin, write_facts, write_groups};
use crate::engine::aggregate::seal;
use crate::engine::stream::latency::{Latency, summary};
use crate::wire::schema::{Aggregate, Endian, Framing, Function, Schema};
use crate::wire::text::Padding;
use crate::wire::text::{ShownText, TextEncoding};
use proptest::prelude::*;
use std::fs;
use std::io;
use std::time::Duration;

/// A record: two keys, a number to sum, and one whose first and last values are kept.
type Record = (u16, &'static [u8], i64, u8);

fn schema(keys: &[usize]) -> Schema {
    let text = Kind::Text { bytes: 8, padding: Padding::BOTH };
    let fields = [("K", Kind::U16), ("T", text), ("V", Kind::I64), ("W", Kind::U8)];
    let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
    let of = |field, function| Aggregate::Of { field, function };
    let aggregates = vec![
        of(2, Function::Sum),
        of(2, Function::Min),
        of(3, Function::First),
        of(3, Function::Last),
        of(3, Function::Var),
    ];
    let (endian, framing) = (Endian::Big, Framing::default());
    Schema::new("m".to_owned(), endian, framing, fields, keys.to_vec(), aggregates).unwrap()
}

fn shown(text: &[u8]) -> String {
    ShownText(text, TextEncoding::Utf8).to_string()
}

/// The groups of these records, as the engine writes them.
fn groups(schema: &Schema, records: &[Record]) -> DataFrame {
    let shown: Vec<String> = records.iter().map(|r| shown(r.1)).collect();
    let columns = vec![
        Column::new("K".into(), records.iter().map(|r| r.0).collect::<Vec<_>>()),
        Column::new("T".into(), shown),
        Column::new("V".into(), records.iter().map(|r| r.2).collect::<Vec<_>>()),
        Column::new("W".into(), records.iter().map(|r| u64::from(r.3)).collect::<Vec<_>>()),
    ];
    let frame = DataFrame::new(records.len(), columns).unwrap();
    parts::gathered(schema, &frame, ["K", "T"]).unwrap()
}

/// A directory to which partials are added.
struct Partials {
    directory: tempfile::TempDir,
    schema: Schema,
    groups: Vec<PathBuf>,
    streams: Vec<PathBuf>,
}

impl Partials {
    fn new() -> Self {
        let (directory, schema) = (tempfile::tempdir().unwrap(), schema(&[0, 1]));
        Partials { directory, schema, groups: Vec::new(), streams: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn add_groups(&mut self, origin: &Origin, records: &[Record]) -> PathBuf {
        let Origin { node, connection, batch, .. } = origin;
        let path = self.path(&format!("{node}-{connection}-{batch}.groups.parquet"));
        let mut file = Vec::new();
        write_groups(&self.schema, &groups(&self.schema, records), origin, &mut file).unwrap();
        fs::write(&path, file).unwrap();
        self.groups.push(path.clone());
        path
    }

    fn add_stream(&mut self, origin: &Origin, records: u64, status: Option<&'static str>) {
        let Origin { node, connection, batch, .. } = origin;
        let path = self.path(&format!("{node}-{connection}-{batch}.stream.parquet"));
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(1 + u64::from(*batch)), records);
        let reason = None;
        let (packets, bytes) = (records, records * 19);
        let facts = BatchFacts { status, reason, records, packets, bytes, latency };
        let mut file = Vec::new();
        write_facts(&self.schema, origin, &facts, &mut file).unwrap();
        fs::write(&path, file).unwrap();
        self.streams.push(path);
    }

    fn merge_by(&self, keys: &[usize]) -> Result<Merged, MergeError> {
        self.merge_with(keys, false, false)
    }

    fn merge_with(
        &self,
        keys: &[usize],
        skip_damaged: bool,
        complete_only: bool,
    ) -> Result<Merged, MergeError> {
        merge(&MergeOrder {
            schema: &self.schema,
            result: &Arc::new(schema(keys)),
            groups: &self.groups,
            streams: &self.streams,
            skip_damaged,
            complete_only,
        })
    }
}

fn is_damaged(error: &MergeError) -> bool {
    matches!(error, MergeError::File(PartialReadError::Damaged { .. }))
}

/// A file as a program that knows nothing of checksums would write it.
fn without_checksum(file: &[u8]) -> Vec<u8> {
    let key = memchr::memmem::rfind(file, seal::CHECKSUM_KEY.as_bytes()).unwrap();
    let mut file = file.to_vec();
    file[key] ^= 1;
    file
}

fn origin(node: &str, connection: &str, batch: u32, time_us: i64) -> Origin {
    let (node, connection) = (node.to_owned(), connection.to_owned());
    Origin { node, connection, batch, time_us }
}

/// The expected result: the records of each key, in order.
fn naive(records: &[Record], by_text: bool) -> BTreeMap<(u16, Vec<u8>), Vec<Record>> {
    let mut groups: BTreeMap<_, Vec<Record>> = BTreeMap::new();
    for record in records {
        let text = if by_text { record.1.to_vec() } else { Vec::new() };
        groups.entry((record.0, text)).or_default().push(*record);
    }
    groups
}

fn assert_merged(frame: &DataFrame, expected: &BTreeMap<(u16, Vec<u8>), Vec<Record>>) {
    assert_eq!(frame.height(), expected.len());
    let column = |name| frame.column(name).unwrap();
    for (row, ((key, text), records)) in expected.iter().enumerate() {
        assert_eq!(column("K").u16().unwrap().get(row), Some(*key));
        if let Ok(texts) = frame.column("T") {
            let shown = shown(text);
            assert_eq!(texts.str().unwrap().get(row), Some(shown.as_str()));
        }
        let sum: i128 = records.iter().map(|r| i128::from(r.2)).sum();
        let first_last = (records.first().map(|r| r.3), records.last().map(|r| r.3));
        assert_eq!(column("V_sum").i64().unwrap().get(row), i64::try_from(sum).ok());
        assert_eq!(column("V_min").i64().unwrap().get(row), records.iter().map(|r| r.2).min());
        // If groups of one batch are merged into one, the first value is not determined.
        if frame.column("T").is_ok() {
            let found = ["W_first", "W_last"].map(|name| column(name).u8().unwrap().get(row));
            assert_eq!(found, [first_last.0, first_last.1]);
        }
        assert_eq!(column("count").u64().unwrap().get(row), Some(records.len() as u64));
    }
}

/// Their order by bytes differs from that of their shown forms and of their characters: two of them
/// are no UTF-8, one of these begins like the character after it.
const TEXTS: [&[u8]; 9] = [
    b"a",
    b"b\\",
    b"\x00\x80",
    b"~",
    b"",
    "ü€".as_bytes(),
    b"\xc3",
    b"\xf0\x80",
    "\u{e0}".as_bytes(),
];

fn any_record() -> impl Strategy<Value = Record> {
    let value = prop_oneof![any::<i64>(), -5i64..5, Just(i64::MIN), Just(i64::MAX)];
    (0u16..3, prop::sample::select(TEXTS.to_vec()), value, any::<u8>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Batches of several streams and nodes, with files in any order and some duplicated.
    #[test]
    fn merging_files_gives_the_result_of_all_records(
        streams in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any_record(), 0..20), 1..4), 1..5),
        twice in any::<bool>(),
    ) {
        let mut partials = Partials::new();
        let mut batches = Vec::new();
        for (stream, parts) in streams.iter().enumerate() {
            let last = parts.len() - 1;
            let (node, connection) = (["n1", "n2"][stream % 2], format!("c{stream}"));
            for (batch, records) in parts.iter().enumerate() {
                // Batches of different streams alternate, and some begin in the same microsecond.
                let time = (batch as i64 * 10) + stream as i64 / 2;
                let origin = origin(node, &connection, batch as u32, time);
                partials.add_groups(&origin, records);
                let status = (batch == last).then_some("complete");
                partials.add_stream(&origin, records.len() as u64, status);
                batches.push((time, node, connection.clone(), batch, records));
            }
        }
        partials.groups.reverse();
        if twice {
            partials.groups.extend_from_within(1..);
            partials.streams.extend_from_within(..);
        }
        batches.sort();
        let records: Vec<Record> = batches.iter().flat_map(|b| b.4.iter().copied()).collect();
        let Merged { grouped, facts, .. } = partials.merge_by(&[0, 1]).unwrap();
        assert_merged(grouped.frame(), &naive(&records, true));
        prop_assert_eq!(facts.records, records.len() as u64);
        prop_assert_eq!(facts.latency.len(), records.len() as u64);
        prop_assert_eq!(facts.bytes, 19 * records.len() as u64);
        prop_assert_eq!(facts.ended, [streams.len() as u64, 0, 0]);
        prop_assert_eq!(facts.nodes, streams.len().min(2));
        prop_assert!(facts.faults.is_empty() && facts.unfinished.is_empty(), "{:?}", facts);
        let Merged { grouped, .. } = partials.merge_by(&[0]).unwrap();
        assert_merged(grouped.frame(), &naive(&records, false));
        partials.groups.reverse();
        let again = partials.merge_by(&[0]).unwrap().grouped;
        prop_assert!(again.frame().equals_missing(grouped.frame()), "{:?}", again);
    }
}

#[test]
fn latencies_of_all_batches_are_merged() {
    let mut partials = Partials::new();
    let mut all = Latency::default();
    for batch in 0..3 {
        let origin = origin("n", "c", batch, 0);
        let record: Record = (1, b"a", 1, 1);
        partials.add_groups(&origin, &[record; 50]);
        partials.add_stream(&origin, 50, None);
        all.record(Duration::from_micros(1 + u64::from(batch)), 50);
    }
    let Merged { facts, .. } = partials.merge_by(&[0, 1]).unwrap();
    assert_eq!(summary(&facts.latency), all.summary());
    assert_eq!(facts.unfinished, ["c of n"]);
}

#[test]
fn missing_and_contradictory_batches_are_reported() {
    let mut partials = Partials::new();
    let record: Record = (1, b"a", 1, 1);
    for (connection, batch, status) in
        [("rest", 1, None), ("rest", 3, Some("rejected")), ("more", 0, Some("incomplete"))]
    {
        let origin = origin("n", connection, batch, 0);
        partials.add_groups(&origin, &[record; 3]);
        partials.add_stream(&origin, if connection == "more" { 4 } else { 3 }, status);
    }
    partials.add_groups(&origin("n", "killed", 0, 0), &[record]);
    partials.add_stream(&origin("n", "gone", 0, 0), 2, Some("complete"));
    let Merged { facts, .. } = partials.merge_by(&[0, 1]).unwrap();
    assert_eq!(
        facts.faults,
        [
            "batch 0 of stream gone of n has groups of 0 records, it had 2",
            "batch 0 of stream more of n has groups of 3 records, it had 4",
            "stream rest of n lacks 2 of 4 batches, the first: 0",
        ]
    );
    assert_eq!(facts.unsaid, ["batch 0 of stream killed of n"]);
    assert_eq!(facts.unfinished, ["killed of n"]);
    assert_eq!((facts.ended, facts.records), ([1, 1, 1], 10));
}

#[test]
fn an_unusable_file_is_named() {
    let mut partials = Partials::new();
    let good = partials.add_groups(&origin("n", "c", 0, 0), &[(1, b"a", 1, 1)]);
    let bytes = fs::read(&good).unwrap();
    let bad = partials.path("bad.groups.parquet");
    partials.groups.push(bad.clone());
    for content in [&bytes[..bytes.len() - 20], b"not parquet", b""] {
        fs::write(&bad, content).unwrap();
        let error = partials.merge_by(&[0, 1]).unwrap_err();
        assert!(is_damaged(&error), "{error}");
        assert!(error.to_string().contains("bad.groups.parquet"), "{error}");
    }
    // A page is corrupt, but the footer is intact: with a checksum and without.
    for mut broken in [bytes.clone(), without_checksum(&bytes)] {
        broken[40..120].fill(0xff);
        fs::write(&bad, broken).unwrap();
        let error = partials.merge_by(&[0, 1]).unwrap_err();
        assert!(is_damaged(&error) && error.to_string().contains("bad.groups"), "{error}");
    }
    // Groups with other keys.
    let other = schema(&[0]);
    let mut file = Vec::new();
    let frame = groups(&partials.schema, &[(1, b"a", 1, 1)]);
    write_groups(&other, &frame, &origin("n", "c", 0, 0), &mut file).unwrap();
    fs::write(&bad, &file).unwrap();
    let error = partials.merge_by(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("bad.groups.parquet") && error.contains("another schema"), "{error}");
    // The columns tell, too, where another program has dropped the metadata.
    fs::write(&bad, without_metadata(&file)).unwrap();
    let error = partials.merge_by(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("bad.groups.parquet") && error.contains("no column T"), "{error}");
    partials.groups.pop();
    // A file of groups instead of facts about a batch.
    partials.streams.push(good);
    let error = partials.merge_by(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("does not belong to these partials: it has no column final"), "{error}");
    partials.streams.pop();
    // A column of another type.
    partials.add_stream(&origin("n", "c", 0, 0), 1, None);
    let file = &partials.streams[0];
    let mut facts = partial_reader::read(file, &partials.schema).unwrap().frame;
    let records = facts.column("records").unwrap().cast(&DataType::Int64).unwrap();
    facts.with_column(records).unwrap();
    let mut bare = Vec::new();
    polars_io::parquet::write::ParquetWriter::new(&mut bare).finish(&mut facts).unwrap();
    fs::write(file, bare).unwrap();
    let error = partials.merge_by(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("its column records is i64 instead of u64; move it"), "{error}");
}

/// The rows of a file alone.
fn without_metadata(file: &[u8]) -> Vec<u8> {
    use polars_io::SerReader;
    use polars_io::parquet::{read::ParquetReader, write::ParquetWriter};
    let mut frame = ParquetReader::new(io::Cursor::new(file)).finish().unwrap();
    let mut bare = Vec::new();
    ParquetWriter::new(&mut bare).finish(&mut frame).unwrap();
    bare
}

/// A stream of two batches, the first of which holds the files that are damaged.
fn two_batches() -> Partials {
    let mut partials = Partials::new();
    for (batch, status) in [(0, None), (1, Some("complete"))] {
        let origin = origin("n", "c", batch, i64::from(batch));
        partials.add_groups(&origin, &[(1, b"a", 7, 1), (2, b"b", -3, 2)]);
        partials.add_stream(&origin, 2, status);
    }
    partials
}

/// Every single bit of both files. Whatever the bit, the file is named; only where the checksum
/// itself cannot be found may the merge go on, and then it says so and the result is right.
#[test]
fn no_flipped_bit_changes_a_result() {
    let partials = two_batches();
    let sound = partials.merge_by(&[0, 1]).unwrap();
    for file in [&partials.groups[0], &partials.streams[0]] {
        let bytes = fs::read(file).unwrap();
        let mut unnoticed = 0;
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Decoding each would take minutes; what the checksum refuses is never decoded.
            if seal::check(&flipped).is_err() {
                continue;
            }
            unnoticed += 1;
            fs::write(file, &flipped).unwrap();
            match partials.merge_by(&[0, 1]) {
                Err(error) => {
                    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}")
                }
                Ok(merged) => {
                    assert_eq!(merged.facts.unsealed, [file.display().to_string()], "bit {bit}");
                    assert!(merged.grouped.frame().equals_missing(sound.grouped.frame()));
                    assert_eq!(merged.facts.latency, sound.facts.latency, "bit {bit}");
                    assert_eq!(merged.facts.bytes, sound.facts.bytes, "bit {bit}");
                }
            }
        }
        // The bits of the key, and of the lengths around it.
        let bits = 8 * (seal::CHECKSUM_KEY.len() + 4);
        assert!(unnoticed <= bits, "{unnoticed} of {bits}");
        fs::write(file, &bytes).unwrap();
    }
}

#[test]
fn a_damaged_file_is_named_and_can_be_left_out() {
    for which in 0..2 {
        let partials = two_batches();
        let file = [&partials.groups[0], &partials.streams[0]][which];
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(file, &bytes).unwrap();
        let error = partials.merge_by(&[0, 1]).unwrap_err();
        assert!(is_damaged(&error) && error.to_string().contains(file.to_str().unwrap()));
        assert!(error.to_string().contains("--skip-damaged"), "{error}");
        let Merged { facts, .. } = partials.merge_with(&[0, 1], true, false).unwrap();
        let said = facts.faults.join("; ");
        assert!(said.contains(file.to_str().unwrap()) && said.contains("was left out"), "{said}");
        match which {
            0 => {
                assert!(
                    said.contains("batch 0 of stream c of n has groups of 0 records, it had 2")
                );
                assert_eq!((facts.records, facts.packets), (2, 4));
            }
            _ => {
                assert!(said.contains("batch 0 of stream c of n has no .stream.parquet"), "{said}");
                assert_eq!((facts.records, facts.packets), (4, 2));
            }
        }
    }
    // Permissions are another cause; it is left out as well.
    let mut partials = two_batches();
    partials.groups.push(partials.path("gone.groups.parquet"));
    let error = partials.merge_by(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("gone.groups.parquet") && error.contains("No such file"), "{error}");
    assert_eq!(partials.merge_with(&[0, 1], true, false).unwrap().facts.records, 4);
}

/// Without metadata a file is merged by its columns, and it is said that nothing protects it.
#[test]
fn a_file_without_a_checksum_is_merged_and_listed() {
    let partials = two_batches();
    let sound = partials.merge_by(&[0, 1]).unwrap();
    let file = &partials.groups[1];
    fs::write(file, without_metadata(&fs::read(file).unwrap())).unwrap();
    let merged = partials.merge_by(&[0, 1]).unwrap();
    assert!(merged.grouped.frame().equals_missing(sound.grouped.frame()));
    assert_eq!(merged.facts.unsealed, [file.display().to_string()]);
    assert_eq!(partial_reader::schema_of(fs::read(file).unwrap()), None);
    assert_eq!(
        partial_reader::schema_of(fs::read(&partials.groups[0]).unwrap()),
        Some(partials.schema.clone())
    );
}

/// A stream counts only if its last batch says complete and each batch has what its row says.
#[test]
fn only_whole_streams_count_as_complete() {
    let mut partials = Partials::new();
    let record: Record = (1, b"a", 1, 1);
    let lacking = [("lacks groups", true, false), ("lacks facts", false, true)];
    for (connection, statuses) in [
        ("whole", &[None, Some("complete")][..]),
        ("running", &[None, None]),
        ("broken", &[None, Some("incomplete")]),
        ("lacks groups", &[None, Some("complete")]),
        ("lacks facts", &[None, Some("complete")]),
        ("lacks both", &[None, Some("complete")]),
    ] {
        for (batch, status) in (0..).zip(statuses) {
            let origin = origin("n", connection, batch, 0);
            let lacks = |kind: fn(&(&str, bool, bool)) -> bool| {
                let named = lacking.iter().any(|one| one.0 == connection && kind(one));
                batch == 0 && (named || connection == "lacks both")
            };
            if !lacks(|one| one.1) {
                partials.add_groups(&origin, &[record; 3]);
            }
            if !lacks(|one| one.2) {
                partials.add_stream(&origin, 3, *status);
            }
        }
    }
    let Merged { grouped, facts, .. } = partials.merge_with(&[0, 1], false, true).unwrap();
    assert_eq!((facts.records, facts.ended, facts.batches), (6, [1, 0, 0], 2));
    assert_eq!((facts.packets, facts.latency.len(), facts.nodes), (6, 6, 1));
    assert_eq!(grouped.frame().column("count").unwrap().u64().unwrap().get(0), Some(6));
    assert_eq!(facts.left_out, ["broken of n", "running of n"]);
    assert_eq!(facts.unfinished, [""; 0]);
    let missing = "ended complete, but not all of it is here; it was left out";
    assert_eq!(
        facts.faults,
        [
            "stream lacks both of n lacks 1 of 2 batches, the first: 0".to_owned(),
            format!("stream lacks both of n {missing}"),
            "batch 0 of stream lacks facts of n has no .stream.parquet, but a later one has: its \
             packets and latencies are missing"
                .to_owned(),
            format!("stream lacks facts of n {missing}"),
            "batch 0 of stream lacks groups of n has groups of 0 records, it had 3".to_owned(),
            format!("stream lacks groups of n {missing}"),
        ]
    );
    assert!(facts.unsaid.is_empty(), "{:?}", facts.unsaid);
    // Without any stream there is a result without groups.
    partials.streams.clear();
    let Merged { grouped, facts, .. } = partials.merge_with(&[0, 1], false, true).unwrap();
    assert_eq!((grouped.len(), facts.records, facts.left_out.len()), (0, 0, 6));
}

#[test]
fn an_invalid_histogram_is_rejected() {
    let mut bytes = Vec::new();
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    let mut latency = Histogram::<u64>::new(3).unwrap();
    latency.record(1000).unwrap();
    V2Serializer::new().serialize(&latency, &mut bytes).unwrap();
    assert_eq!(histogram(&bytes).unwrap(), latency);
    let mut long = bytes.clone();
    long[4..8].fill(0xff);
    for bad in [&long[..], &bytes[..bytes.len() - 1], &bytes[..6], b""] {
        assert!(histogram(bad).is_err());
    }
}
