//! Tests of the record stream within a message connection, without a socket: what the session is
//! told, what the aggregation gets, and which slots are taken.

use super::*;
use crate::config::Config;
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::results::aggregator::Job;
use tokio::sync::mpsc;

struct Connection {
    carried: CarriedRecords,
    work: mpsc::Receiver<Job>,
}

impl Connection {
    /// A connection of a worker that allows `streams` open record streams.
    fn new(config: Config, streams: usize) -> Self {
        let (worker, work) = Worker::alone(config);
        let slots = Slots::new(1, streams, 1);
        Connection { carried: CarriedRecords::new(worker, slots, "[::1]:9".parse().unwrap()), work }
    }

    async fn take_in(&mut self, body: &[u8]) -> DataTaken {
        self.carried.take_in(body, Instant::now()).await
    }

    /// The streams that were reported since the last call.
    fn reported(&mut self) -> Vec<Received> {
        let jobs = std::iter::from_fn(|| self.work.try_recv().ok());
        let reports = jobs.filter_map(|job| match job {
            Job::Finish { received, .. } => Some(*received),
            _ => None,
        });
        reports.collect()
    }

    fn opaque(&self) -> u64 {
        self.carried.worker.tally().opaque_data.get()
    }
}

fn packet(record: [u8; 267]) -> Vec<u8> {
    [&271_u32.to_be_bytes()[..], &record].concat()
}

fn data_packet() -> Vec<u8> {
    packet([1; 267])
}

fn end_packet() -> Vec<u8> {
    packet([0; 267])
}

#[tokio::test]
async fn bytes_that_are_not_whole_packets_are_counted_and_start_no_stream() {
    let mut connection = Connection::new(Config::default(), 1);
    for body in [&b""[..], b"text", &data_packet()[..270]] {
        assert_eq!(connection.take_in(body).await, DataTaken::In);
    }
    assert_eq!((connection.opaque(), connection.carried.is_open()), (3, false));
    connection.carried.end(Ok(())).await;
    assert!(connection.reported().is_empty());
}

#[tokio::test]
async fn opaque_data_starts_no_stream() {
    let config = Config { data: DataMode::Opaque, ..Config::default() };
    let mut connection = Connection::new(config, 1);
    assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
    assert_eq!((connection.opaque(), connection.carried.is_open()), (1, false));
}

/// Opaque bytes in between do not end it, and the next stream may begin after its end record.
#[tokio::test]
async fn a_stream_continues_across_frames_until_its_end_record() {
    let mut connection = Connection::new(Config::default(), 1);
    for body in [data_packet(), b"text".to_vec(), data_packet().repeat(2)] {
        assert_eq!(connection.take_in(&body).await, DataTaken::In);
        assert!(connection.carried.is_open() && connection.reported().is_empty());
    }
    assert_eq!(connection.take_in(&end_packet()).await, DataTaken::In);
    assert!(!connection.carried.is_open());
    let [received] = &connection.reported()[..] else { panic!("one stream has ended") };
    assert_eq!((received.counts.records, received.counts.packets), (3, 4));
    assert!(received.reason.is_none());

    assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
    connection.carried.end(Ok(())).await;
    let [second] = &connection.reported()[..] else { panic!("another stream has ended") };
    assert_eq!((second.counts.records, second.reason), (1, None));
    assert_ne!(second.connection, received.connection);
}

#[tokio::test]
async fn a_stream_with_rejected_records_ends_and_is_reported() {
    let config = Config { packet_bytes_limit: 271, ..Config::default() };
    let mut connection = Connection::new(config, 1);
    let two_records = [&538_u32.to_be_bytes()[..], &[1; 534]].concat();
    let body = [data_packet(), two_records].concat();
    assert_eq!(connection.take_in(&body).await, DataTaken::Rejected);
    assert!(!connection.carried.is_open());
    let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
    assert_eq!(received.counts.records, 1);
    assert_eq!(received.reason, Some(Reason::PacketLengthAboveLimit));
}

#[tokio::test]
async fn without_a_free_slot_no_stream_begins() {
    let mut connection = Connection::new(Config::default(), 1);
    let held = connection.carried.slots.take_stream();
    assert_eq!(connection.take_in(&data_packet()).await, DataTaken::NoStream);
    assert!(!connection.carried.is_open() && connection.reported().is_empty());
    drop(held);
    assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
    assert!(connection.carried.is_open() && connection.carried.slots.take_stream().is_none());
}

/// The report holds the slot until the result is printed.
#[tokio::test]
async fn the_end_of_a_connection_ends_its_stream_with_the_reason() {
    let mut connection = Connection::new(Config::default(), 1);
    connection.take_in(&data_packet()).await;
    connection.carried.end(Err(Failure::of(Reason::Reset, "gone"))).await;
    assert!(connection.carried.slots.take_stream().is_none());
    let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
    assert_eq!((received.reason, received.detail.as_deref()), (Some(Reason::Reset), Some("gone")));
    assert!(connection.carried.slots.take_stream().is_some());
    connection.carried.end(Ok(())).await;
    assert!(connection.reported().is_empty());
}
