//! Tests of a record connection's deadlines with a real socket and ring, and a clock of their own:
//! nothing here waits for a deadline to pass.

use super::*;
use crate::config::Config;
use crate::runtime::results::aggregator::Job;
use crate::runtime::ring;
use crate::runtime::tls::test_certs::TestCertificates;
use crate::runtime::tls::test_peer::{CertificateFiles, client_config};
use std::io::Write;
use std::time::Duration;
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3600);
/// Long after this, a test has failed.
const PATIENCE: Duration = Duration::from_secs(120);

fn packet(record: [u8; 267]) -> Vec<u8> {
    [&271_u32.to_be_bytes()[..], &record].concat()
}

/// A peer whose connection a worker serves.
fn served(worker: &Rc<Worker>) -> (std::net::TcpStream, JoinHandle<Option<Received>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    let coalescer = Coalescer::new(Duration::ZERO);
    let own = Rc::clone(worker);
    let serving = RecordConnection::serve(1, socket, address, None, None, own, coalescer);
    (peer, tokio_uring::spawn(serving))
}

/// Gives every task its turns, and then looks for connections that are overdue.
async fn look_in_turn(worker: &Worker, now: Instant) {
    for _ in 0..8 {
        ring::pause().await;
    }
    worker.deadlines.look(now, None);
}

/// A packet of many reads, all of which has arrived, is not late because the worker is: here its
/// time is over before the first read. What has not arrived is.
#[test]
fn a_peer_is_not_late_while_its_bytes_wait_to_be_read() {
    for missing in [0, 1] {
        ring::runtime().unwrap().block_on(async {
            let config = Config {
                packet_timeout: Duration::ZERO,
                linger: Duration::ZERO,
                buffer_bytes: 4096,
                ..Config::default()
            };
            let (worker, _work) = Worker::alone(config);
            let (mut peer, serving) = served(&worker);
            let records = [1; 267].repeat(100);
            let length = u32::try_from(4 + records.len()).unwrap();
            let bytes = [&length.to_be_bytes()[..], &records, &packet([0; 267])].concat();
            peer.write_all(&bytes[..bytes.len() - missing]).unwrap();
            while !serving.is_finished() {
                look_in_turn(&worker, Instant::now()).await;
            }
            let received = serving.await.unwrap().expect("a report");
            let reason = (missing > 0).then_some(Reason::PacketTimeout);
            assert_eq!((received.counts.records, received.reason), (100, reason));
        });
    }
}

/// A thread that was held up finds deadlines passed and bytes arrived at the same time. Which it
/// sees first must not matter.
#[test]
fn a_worker_that_was_held_up_does_not_blame_its_peers() {
    ring::runtime().unwrap().block_on(async {
        let config = Config { packet_timeout: HOUR, ..Config::default() };
        let (worker, _work) = Worker::alone(config);
        let (mut peer, serving) = served(&worker);
        let bytes = [packet([1; 267]), packet([0; 267])].concat();
        peer.write_all(&bytes[..100]).unwrap();
        while worker.tally().record_reads.get() == 0 {
            ring::pause().await;
        }
        // Two hours pass without the worker, and meanwhile the rest arrives.
        peer.write_all(&bytes[100..]).unwrap();
        drop(peer);
        worker.deadlines.look(Instant::now() + 2 * HOUR, None);
        let received = serving.await.unwrap().expect("a report");
        assert_eq!((received.counts.records, received.reason), (1, None));
    });
}

/// While a batch waits for a slow disk, the peer is not silent: nobody has read what it sent.
/// Afterwards its time runs again.
#[test]
fn a_wait_for_the_disk_is_no_silence_of_the_peer() {
    for silent in [false, true] {
        ring::runtime().unwrap().block_on(async {
            let config = Config {
                partials: Some("nowhere".into()),
                partials_interval: Duration::from_millis(100),
                idle_timeout: HOUR,
                ..Config::default()
            };
            let (worker, mut work) = Worker::alone(config);
            // There is room for the rows of a batch, and not for what closes it.
            let jobs = worker.jobs.clone();
            let taken = jobs.try_reserve_many(jobs.capacity() - 1).unwrap();
            let (mut peer, serving) = served(&worker);
            peer.write_all(&packet([1; 267])).unwrap();
            while jobs.capacity() > 0 {
                ring::pause().await;
            }
            worker.deadlines.look(Instant::now() + 2 * HOUR, None);
            drop(taken);
            assert!(matches!(work.recv().await, Some(Job::Add { .. })));
            assert!(matches!(work.recv().await, Some(Job::Close { .. })));
            if silent {
                // The second look ends it.
                worker.deadlines.look(Instant::now() + 2 * HOUR, None);
                worker.deadlines.look(Instant::now() + 2 * HOUR, None);
            } else {
                peer.write_all(&packet([1; 267])).unwrap();
                peer.write_all(&packet([0; 267])).unwrap();
                drop(peer);
            }
            let received = serving.await.unwrap().expect("a report");
            let expected = if silent { (1, Some(Reason::IdleTimeout)) } else { (2, None) };
            assert_eq!((received.counts.records, received.reason), expected);
        });
    }
}

/// All that the engine ever sends on a record connection is TLS's own, and of that only the
/// handshake can be long: this chain is longer than the buffers between the two.
#[test]
fn a_sender_that_does_not_read_the_certificates_is_cut() {
    let mut made = TestCertificates::valid();
    made.server.certificate += &made.ca.certificate.repeat(200);
    let tls = CertificateFiles::of(&made).load().current_for_senders();
    ring::runtime().unwrap().block_on(async {
        let times = Config {
            idle_timeout: 10 * HOUR,
            handshake_timeout: 10 * HOUR,
            write_timeout: HOUR,
            ..Config::default()
        };
        let (worker, _work) = Worker::alone(times);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        // The kernel makes these its least, some thousand bytes.
        socket2::SockRef::from(&peer).set_recv_buffer_size(1).unwrap();
        socket2::SockRef::from(&socket).set_send_buffer_size(1).unwrap();
        let config = client_config(&made, &rustls::version::TLS13, None);
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut peer).unwrap();
        let (own, coalescer) = (Rc::clone(&worker), Coalescer::new(Duration::ZERO));
        let serving = RecordConnection::serve(1, socket, address, Some(tls), None, own, coalescer);
        let serving = tokio_uring::spawn(serving);
        let begun = Instant::now();
        while !serving.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "the engine waits for the sender");
            ring::pause().await;
            worker.deadlines.look(Instant::now() + 2 * HOUR, None);
        }
        let received = serving.await.unwrap().expect("a report");
        assert_eq!(received.reason, Some(Reason::TlsTimeout), "{:?}", received.detail);
        assert!(received.detail.unwrap().contains("--write-timeout"));
    });
}
