//! Tests of the writers of partials with a disk in the test's hands.

use super::*;
use crate::config::{Config, FILE_WRITERS};
use crate::engine::observe::counters::PartialCounts;
use crate::engine::stream::received::Received;
use crate::wire::schema::Schema;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Names of batches in the order in which they were written.
type Log = Arc<Mutex<Vec<String>>>;

struct Fixture {
    writers: Arc<PartialWriters>,
    counts: Arc<PartialCounts>,
    _directory: tempfile::TempDir,
}

fn fixture(store: impl Fn(&EncodedBatch) -> Result<(), String> + Send + Sync + 'static) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { partials: Some(directory.path().to_owned()), ..Config::default() };
    let counts = Arc::<PartialCounts>::default();
    let files = PartialFiles::start(&config, &Schema::built_in(), &counts).unwrap().unwrap();
    let writers = PartialWriters::with_store(files, Box::new(store));
    Fixture { writers, counts, _directory: directory }
}

fn batch(stream: u64, number: u32, bytes: usize) -> EncodedBatch {
    EncodedBatch::of(&format!("{stream}-{number}"), &vec![0; bytes])
}

fn finished(stream: u64) -> FinishedConnection {
    let received = Received::nothing(stream, "[::1]:9".parse().unwrap(), Instant::now());
    FinishedConnection::refused(received, &Schema::built_in())
}

fn log_of(log: &Log, stream: u64) -> Vec<String> {
    let of_stream = |name: &&String| name.starts_with(&format!("{stream}-"));
    log.lock().unwrap().iter().filter(of_stream).cloned().collect()
}

/// The first batches of as many streams as there are writers are written at the same time: none is
/// done before all have begun. The later ones follow in their order, and the result comes last.
#[test]
fn a_stream_is_written_in_its_order_and_streams_at_the_same_time() {
    const STREAMS: u64 = FILE_WRITERS as u64;
    let log = Log::default();
    let (all, written) = (Barrier::new(FILE_WRITERS), Arc::clone(&log));
    let Fixture { writers, counts, _directory } = fixture(move |batch| {
        if batch.name.ends_with("-0") {
            all.wait();
        }
        written.lock().unwrap().push(batch.name.clone());
        Ok(())
    });
    let (results, mut reported) = mpsc::channel(STREAMS as usize);
    thread::scope(|scope| {
        let source = writers.source();
        for _ in 0..FILE_WRITERS {
            let writer = writers.writer();
            scope.spawn(|| writer.run());
        }
        for stream in 0..STREAMS {
            for number in 0..20 {
                source.write(stream, batch(stream, number, 10)).unwrap();
            }
            source.finish(finished(stream), &results);
        }
        for _ in 0..STREAMS {
            let stream = reported.blocking_recv().unwrap().report.received.connection;
            let expected: Vec<_> = (0..20).map(|number| format!("{stream}-{number}")).collect();
            assert_eq!(log_of(&log, stream), expected, "all batches come before the result");
        }
        drop(source);
    });
    assert_eq!(counts.waiting_bytes(), 0);
    assert!(writers.lock().streams.is_empty());
}

/// The disk takes nothing until it is told to. Two batches of half the room wait, and nobody can
/// add a third before one of them is written.
#[test]
fn no_more_waits_than_there_is_room_for() {
    const HALF: usize = PARTIALS_WAITING_BYTES / 2 - 3;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (closed, stored) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&stored);
    let Fixture { writers, counts, _directory } = fixture(move |_| {
        let (open, changed) = &*closed;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        seen.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    thread::scope(|scope| {
        let source = writers.source();
        let writer = writers.writer();
        scope.spawn(|| writer.run());
        for stream in 1..=2 {
            source.write(stream, batch(stream, 0, HALF)).unwrap();
        }
        assert_eq!(counts.waiting_bytes(), PARTIALS_WAITING_BYTES as u64);
        assert_eq!(counts.wait_seconds(), 0.0);
        let others: Vec<_> = (3..6)
            .map(|stream| {
                let (source, stored) = (source.clone(), Arc::clone(&stored));
                scope.spawn(move || {
                    source.write(stream, batch(stream, 0, HALF)).unwrap();
                    assert!(stored.load(Ordering::SeqCst) > 0, "there was no room");
                })
            })
            .collect();
        // Those that wait have taken a turn.
        while writers.lock().turns.0 < 5 {
            thread::yield_now();
        }
        assert_eq!(counts.waiting_bytes(), PARTIALS_WAITING_BYTES as u64);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        others.into_iter().for_each(|other| other.join().unwrap());
        drop(source);
    });
    assert!(counts.wait_seconds() > 0.0);
    assert_eq!((stored.load(Ordering::SeqCst), counts.waiting_bytes()), (5, 0));
}

/// It could never be written otherwise.
#[test]
fn a_batch_that_is_larger_than_all_the_room_waits_until_it_is_alone() {
    let log = Log::default();
    let written = Arc::clone(&log);
    let Fixture { writers, .. } = fixture(move |batch| {
        written.lock().unwrap().push(batch.name.clone());
        Ok(())
    });
    thread::scope(|scope| {
        let source = writers.source();
        let writer = writers.writer();
        scope.spawn(|| writer.run());
        source.write(1, batch(1, 0, 10)).unwrap();
        source.write(2, batch(2, 0, PARTIALS_WAITING_BYTES + 1)).unwrap();
        source.write(3, batch(3, 0, 10)).unwrap();
        drop(source);
    });
    assert_eq!(*log.lock().unwrap(), ["1-0", "2-0", "3-0"]);
}

#[test]
fn a_result_says_which_batches_of_its_stream_could_not_be_written() {
    let Fixture { writers, counts, _directory } = fixture(|batch| match batch.name.as_str() {
        "1-1" => Err("no ink".to_owned()),
        "1-2" => panic!("no paper"),
        _ => Ok(()),
    });
    let (results, mut reported) = mpsc::channel(2);
    thread::scope(|scope| {
        let source = writers.source();
        let writer = writers.writer();
        scope.spawn(|| writer.run());
        for stream in 1..=2 {
            (0..4).for_each(|number| source.write(stream, batch(stream, number, 10)).unwrap());
            let mut finished = finished(stream);
            finished.report.received.partials.add("not encoded".to_owned());
            source.finish(finished, &results);
        }
        drop(source);
    });
    let mut lacks = [(); 2].map(|()| reported.blocking_recv().unwrap().report.received);
    lacks.sort_by_key(|received| received.connection);
    assert_eq!(lacks.map(|received| received.partials.failed), [3, 1]);
    // The one that the disk refused was counted by the files, of which there are none here.
    assert_eq!(counts.failed(), 1);
    assert_eq!(counts.waiting_bytes(), 0);
    assert!(writers.lock().streams.is_empty());
}

/// A defect stops the engine, and nobody may wait for what will never come.
#[test]
fn without_writers_batches_are_missing_and_results_come_all_the_same() {
    let Fixture { writers, counts, _directory } = fixture(|_| Ok(()));
    let (source, writer) = (writers.source(), writers.writer());
    source.write(1, batch(1, 0, PARTIALS_WAITING_BYTES)).unwrap();
    let waiting = {
        let source = source.clone();
        thread::spawn(move || source.write(2, batch(2, 0, 10)))
    };
    while writers.lock().turns.0 < 2 {
        thread::yield_now();
    }
    drop(writer);
    assert!(waiting.join().unwrap().unwrap_err().contains("died"));
    assert!(source.write(1, batch(1, 1, 10)).is_err());
    assert_eq!(counts.failed(), 2);
    let (results, mut reported) = mpsc::channel(1);
    source.finish(finished(1), &results);
    assert_eq!(reported.blocking_recv().unwrap().report.received.connection, 1);
}

/// What a thread has taken when it dies is left to the others.
#[test]
fn a_writer_that_dies_loses_nothing() {
    let log = Log::default();
    let written = Arc::clone(&log);
    let Fixture { writers, counts, _directory } = fixture(move |batch| {
        written.lock().unwrap().push(batch.name.clone());
        Ok(())
    });
    let (source, writer) = (writers.source(), writers.writer());
    (0..2).for_each(|number| source.write(1, batch(1, number, 10)).unwrap());
    drop(writers.take().expect("the first batch"));
    drop(source);
    writer.run();
    assert_eq!(*log.lock().unwrap(), ["1-0", "1-1"]);
    assert_eq!(counts.waiting_bytes(), 0);
}
