//! Tests of the record stream within a message connection, without a socket: what the session is
//! told, what the aggregation gets, and which slots are taken.

use super::*;
use crate::config::Config;
use crate::engine::stream::received::{Reason, Received, Status};
use crate::runtime::results::aggregator::Job;
use crate::wire::schema::Schema;
use tokio::sync::mpsc;

struct Connection {
    carried: CarriedRecords,
    work: mpsc::Receiver<Job>,
}

impl Connection {
    /// A connection of a worker that allows `streams` open record streams.
    fn new(config: Config, streams: usize) -> Self {
        Connection::of(Worker::alone(config), streams)
    }

    fn of((worker, work): (Rc<Worker>, mpsc::Receiver<Job>), streams: usize) -> Self {
        let slots = Slots::new(1, streams, 1);
        Connection { carried: CarriedRecords::new(worker, slots, "[::1]:9".parse().unwrap()), work }
    }

    /// A connection that carries records of one field, without packets.
    fn bare(kind: &str) -> Self {
        let schema = format!(
            "name = 'bare'\nendian = 'big'\nfield = [{{ name = 'k', type = '{kind}' }}]\n\
             [packet]\nlength = 'none'\nend = 'close'\n[result]\nby = ['k']\naggregates = []"
        );
        let schema = Schema::from_toml(&schema).unwrap();
        Connection::of(Worker::alone_with(Arc::new(schema), Config::default()), 1)
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

/// A stream may pause, which needs a ring.
fn on_ring(test: impl Future<Output = ()>) {
    crate::runtime::ring::runtime().unwrap().block_on(test);
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

#[test]
fn bytes_that_do_not_begin_with_a_packet_are_counted_and_start_no_stream() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        for body in [&b""[..], b"text", &data_packet()[..3], &[0; 271]] {
            assert_eq!(connection.take_in(body).await, DataTaken::In);
        }
        assert_eq!((connection.opaque(), connection.carried.is_open()), (4, false));
        connection.carried.end(Ok(())).await;
        assert!(connection.reported().is_empty());
    });
}

/// In a schema with and without packets: nothing that was meant as records is acknowledged and not
/// counted.
#[test]
fn what_is_meant_as_records_is_taken_or_refused_as_a_whole() {
    on_ring(async {
        let cases: [(Vec<u8>, Reason); 3] = [
            (data_packet()[..270].to_vec(), Reason::DataNotWholePackets),
            ([data_packet(), vec![0]].concat(), Reason::DataNotWholePackets),
            ([data_packet(), vec![0, 0, 1, 0x10]].concat(), Reason::PacketLengthNotWholeRecords),
        ];
        for (body, reason) in cases {
            for before in [0, 2] {
                let mut connection = Connection::new(Config::default(), 1);
                for _ in 0..before {
                    assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
                }
                let DataTaken::Rejected(why) = connection.take_in(&body).await else {
                    panic!("{body:?} was taken");
                };
                let [received] = &connection.reported()[..] else {
                    panic!("the stream is reported")
                };
                assert_eq!(
                    (received.reason, received.detail.as_deref()),
                    (Some(reason), Some(&*why))
                );
                assert_eq!((received.counts.records, connection.opaque()), (before, 0));
            }
        }
    });
}

#[test]
fn without_packets_whole_records_begin_a_stream_and_then_nothing_else_is_taken() {
    on_ring(async {
        let mut connection = Connection::bare("u8");
        for body in [&[1, 2, 3][..], &[4]] {
            assert_eq!(connection.take_in(body).await, DataTaken::In);
        }
        assert_eq!((connection.opaque(), connection.carried.is_open()), (0, true));
        let mut connection = Connection::bare("u16");
        assert_eq!(connection.take_in(&[1, 2, 3]).await, DataTaken::In);
        assert_eq!((connection.opaque(), connection.carried.is_open()), (1, false));
        assert_eq!(connection.take_in(&[1, 2, 3, 4]).await, DataTaken::In);
        assert!(matches!(connection.take_in(&[1, 2, 3]).await, DataTaken::Rejected(_)));
        let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
        assert_eq!(received.reason, Some(Reason::DataNotWholePackets));
        assert_eq!(received.counts.records, 2);
    });
}

#[test]
fn opaque_data_starts_no_stream() {
    on_ring(async {
        let config = Config { data: DataMode::Opaque, ..Config::default() };
        let mut connection = Connection::new(config, 1);
        assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
        assert_eq!((connection.opaque(), connection.carried.is_open()), (1, false));
    });
}

/// An empty payload in between changes nothing, and the next stream may begin after its end record.
#[test]
fn a_stream_continues_across_frames_until_its_end_record() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        for body in [data_packet(), Vec::new(), data_packet().repeat(2)] {
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
    });
}

/// A payload whose form is wrong is refused as a whole: what was acknowledged is in the result, and
/// nothing else.
#[test]
fn a_stream_with_rejected_records_ends_and_is_reported() {
    on_ring(async {
        let config = Config { packet_bytes_limit: 271, ..Config::default() };
        let mut connection = Connection::new(config, 1);
        assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
        let two_records = [&538_u32.to_be_bytes()[..], &[1; 534]].concat();
        let body = [data_packet(), two_records].concat();
        assert!(matches!(connection.take_in(&body).await, DataTaken::Rejected(_)));
        assert!(!connection.carried.is_open());
        let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
        assert_eq!(received.counts.records, 1);
        assert_eq!(received.reason, Some(Reason::PacketLengthAboveLimit));
    });
}

#[test]
fn what_follows_an_end_record_in_its_payload_is_not_acknowledged() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        let body = [data_packet(), end_packet(), data_packet()].concat();
        assert!(matches!(connection.take_in(&body).await, DataTaken::Rejected(_)));
        let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
        assert_eq!((received.reason, received.counts.records), (Some(Reason::DataAfterEnd), 1));
        assert_eq!(received.counts.bytes_after_end, 271);
    });
}

/// After the end of its stream, a connection still carries records and nothing else.
#[test]
fn a_connection_that_carried_records_takes_nothing_else() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        assert_eq!(connection.take_in(&end_packet()).await, DataTaken::In);
        assert_eq!(connection.reported().len(), 1);
        assert!(matches!(connection.take_in(b"text").await, DataTaken::Rejected(_)));
        let [received] = &connection.reported()[..] else { panic!("another stream is reported") };
        assert_eq!((received.counts.records, connection.opaque()), (0, 0));
        assert_eq!(received.status(), Status::Rejected);
    });
}

#[test]
fn without_a_free_slot_no_stream_begins() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        let held = connection.carried.slots.take_stream();
        assert_eq!(connection.take_in(&data_packet()).await, DataTaken::NoStream);
        assert!(!connection.carried.is_open() && connection.reported().is_empty());
        drop(held);
        assert_eq!(connection.take_in(&data_packet()).await, DataTaken::In);
        assert!(connection.carried.is_open() && connection.carried.slots.take_stream().is_none());
    });
}

/// The report holds the slot until the result is printed.
#[test]
fn the_end_of_a_connection_ends_its_stream_with_the_reason() {
    on_ring(async {
        let mut connection = Connection::new(Config::default(), 1);
        connection.take_in(&data_packet()).await;
        connection.carried.end(Err(Failure::of(Reason::Reset, "gone"))).await;
        assert!(connection.carried.slots.take_stream().is_none());
        let [received] = &connection.reported()[..] else { panic!("the stream is reported") };
        assert_eq!(
            (received.reason, received.detail.as_deref()),
            (Some(Reason::Reset), Some("gone"))
        );
        assert!(connection.carried.slots.take_stream().is_some());
        connection.carried.end(Ok(())).await;
        assert!(connection.reported().is_empty());
    });
}
