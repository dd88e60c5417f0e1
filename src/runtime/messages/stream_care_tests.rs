//! Tests of a record stream whose connection waits, without a client: no test waits for a time that
//! it measures.

use super::*;
use crate::config::Config;
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::connection::deadlines::{DeadlineCut, SocketReads};
use crate::runtime::connection::slots::Slots;
use crate::runtime::messages::carried::DataTaken;
use crate::runtime::results::aggregator::Job;
use crate::runtime::ring;
use crate::runtime::worker::Worker;
use crate::wire::messages::frame::{self, FrameType};
use crate::wire::messages::limiter::{SharedBucket, TokenBucket};
use crate::wire::messages::session::Policy;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_uring::net::TcpStream;

const HOUR: Duration = Duration::from_secs(3600);

/// A message connection's state, with an open record stream of one record.
struct Carrying {
    worker: Rc<Worker>,
    work: mpsc::Receiver<Job>,
    records: CarriedRecords,
    session: Session,
    control: Rc<Control>,
}

impl Carrying {
    async fn begin(config: Config, now: Instant) -> Self {
        let policy = Policy {
            require_auth: false,
            idle_timeout: config.idle_timeout,
            frame_timeout: config.frame_timeout,
            auth_timeout: HOUR,
            all: TokenBucket::new(0, 0),
            strangers: TokenBucket::new(0, 0),
            epoch: now,
        };
        let bucket = SharedBucket::new(TokenBucket::new(0, 0));
        let (worker, work) = Worker::alone(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = std::net::TcpStream::connect(address).unwrap();
        let stream = Rc::new(TcpStream::from_std(socket));
        let reads = SocketReads { end: ring::cancel, nothing_waits: ring::has_nothing_to_read };
        let control = worker.deadlines.add(1, &stream, reads);
        let slots = Slots::new(1, 1, 1);
        let mut records = CarriedRecords::new(Rc::clone(&worker), slots, address);
        let packet = [&271_u32.to_be_bytes()[..], &[1; 267]].concat();
        assert_eq!(records.take_in(&packet, now).await, DataTaken::In);
        let session = Session::new(Arc::new(policy), bucket, now);
        Carrying { worker, work, records, session, control }
    }

    fn care(&mut self, idle_ends: bool) -> StreamCare<'_> {
        let Carrying { records, session, control, .. } = self;
        StreamCare { records, session, control, idle_ends }
    }
}

fn on_ring(test: impl Future<Output = ()>) {
    ring::runtime().unwrap().block_on(test);
}

async fn next_finish(work: &mut mpsc::Receiver<Job>) -> Received {
    loop {
        match work.recv().await.expect("a job") {
            Job::Finish { received, .. } => return *received,
            Job::Add { .. } | Job::Close { .. } => {}
        }
    }
}

#[test]
fn a_stream_without_records_ends_and_its_connection_goes_on() {
    on_ring(async {
        let config = Config { idle_timeout: Duration::from_millis(100), ..Config::default() };
        let mut carrying = Carrying::begin(config, Instant::now()).await;
        let mut work = std::mem::replace(&mut carrying.work, mpsc::channel(1).1);
        // The connection waits for as long as this test does.
        let received = carrying.care(true).during(pin!(next_finish(&mut work))).await;
        assert_eq!((received.reason, received.counts.records), (Some(Reason::IdleTimeout), 1));
        assert!(!carrying.records.is_open() && carrying.control.cut().is_none());
    });
}

/// Only records keep a stream: a frame that began in time may still bring some, a later one comes
/// too late.
#[test]
fn a_frame_that_began_in_time_may_be_finished() {
    on_ring(async {
        let now = Instant::now();
        let mut carrying = Carrying::begin(Config::default(), now).await;
        let idle_at = now + carrying.worker.config.idle_timeout;
        let due = carrying.care(true).next().map(|(at, _)| at);
        assert_eq!(due, Some(idle_at));
        assert!(carrying.care(false).next().is_none(), "nobody reads its records");
        let mut ping = Vec::new();
        frame::encode(FrameType::Ping, &[b"12345678"], &mut ping);
        let mut out = Vec::new();
        // A whole frame of another kind changes nothing.
        carrying.session.poll(&ping, idle_at, &mut out);
        assert!(carrying.care(true).next().is_some());
        carrying.session.poll(&ping[..5], idle_at, &mut out);
        assert!(carrying.care(true).next().is_none());
        carrying.session.poll(&ping, idle_at, &mut out);
        carrying.session.poll(&ping[..5], idle_at + Duration::from_nanos(1), &mut out);
        assert!(carrying.care(true).next().is_some());
    });
}

/// While a batch waits for a slow disk, the client is not silent: nobody reads what it sends.
#[test]
fn a_wait_for_the_disk_is_no_silence_of_the_client() {
    on_ring(async {
        let config = Config {
            partials: Some("nowhere".into()),
            partials_interval: Duration::from_millis(100),
            idle_timeout: HOUR,
            ..Config::default()
        };
        let mut carrying = Carrying::begin(config, Instant::now()).await;
        let armed = Instant::now() + HOUR;
        carrying.control.arm(armed, DeadlineCut::Idle);
        let jobs = carrying.worker.jobs.clone();
        let worker = Rc::clone(&carrying.worker);
        let mut work = std::mem::replace(&mut carrying.work, mpsc::channel(1).1);
        let (done, closed) = tokio::sync::oneshot::channel();
        let disk = async move {
            let taken = jobs.try_reserve_many(jobs.capacity() - 1).unwrap();
            while jobs.capacity() > 0 {
                ring::pause().await;
            }
            worker.deadlines.look(Instant::now() + 2 * HOUR, None);
            drop(taken);
            assert!(matches!(work.recv().await, Some(Job::Add { .. })));
            assert!(matches!(work.recv().await, Some(Job::Close { .. })));
            let _ = done.send(());
        };
        tokio_uring::spawn(disk);
        carrying.care(true).during(pin!(closed)).await.expect("the batch was closed");
        assert_eq!(carrying.control.cut(), None);
        // The deadline holds again, later by the wait.
        let (at, cut) = carrying.control.disarm().expect("a deadline");
        assert!(at > armed && cut == DeadlineCut::Idle);
    });
}
