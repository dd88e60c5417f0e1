//! Models of the counters: one thread writes, others read, in every order and with every value that
//! the memory model allows.

use super::*;
use crate::sync::modelled::{model, spawn};

fn tally() -> (Arc<WorkerTally>, TallyWriter) {
    let tally = Arc::default();
    let writer = TallyWriter::new(&tally);
    (tally, writer)
}

#[test]
fn one_writer_loses_nothing_and_no_reader_sees_a_count_go_back() {
    model(|| {
        let (tally, writer) = tally();
        let thread = spawn(move || {
            writer.add(|tally| &tally.records, 3);
            writer.add(|tally| &tally.records, 4);
        });
        let (first, second) = (tally.records.get(), tally.records.get());
        assert!([0, 3, 7].contains(&first) && first <= second, "{first}, then {second}");
        thread.join().unwrap();
        assert_eq!(tally.records.get(), 7);
    });
}

/// What the type rules out: a second writer of the same tally.
#[test]
#[should_panic(expected = "left: 4")]
fn two_writers_would_lose_counts() {
    model(|| {
        let (tally, writer) = tally();
        let second = TallyWriter::new(&tally);
        let thread = spawn(move || second.add(|tally| &tally.records, 3));
        writer.add(|tally| &tally.records, 4);
        thread.join().unwrap();
        assert_eq!(tally.records.get(), 7);
    });
}

/// One connection stays while another comes and goes.
#[test]
fn a_connection_that_stays_is_always_counted() {
    const KIND: usize = Protocol::Records as usize;
    model(|| {
        let (counters, mut writers) = Counters::new(1);
        let writer = writers.workers.remove(0);
        writer.add(|tally| &tally.opened[KIND], 1);
        let thread = spawn(move || {
            writer.add(|tally| &tally.opened[KIND], 1);
            writer.add(|tally| &tally.closed[KIND], 1);
        });
        let active = counters.active(Protocol::Records);
        assert!((1..=2).contains(&active), "{active} connections");
        thread.join().unwrap();
        assert_eq!(counters.active(Protocol::Records), 1);
    });
}
