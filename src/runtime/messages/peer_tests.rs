//! Tests of the sending side, with real sockets and a real ring.

use super::*;
use crate::config::Config;
use crate::runtime::connection::deadlines::SocketReads;
use crate::runtime::ring;
use std::io::Read;
use std::net::Shutdown;

/// A connected client of a worker, and the other end.
fn connected() -> (Rc<Peer>, std::net::TcpStream) {
    let (worker, _work) = Worker::alone(Config::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Rc::new(TcpStream::from_std(listener.accept().unwrap().0));
    let reads = SocketReads { end: ring::cancel, nothing_waits: ring::has_nothing_to_read };
    let control = worker.deadlines.add(1, &stream, reads);
    (Peer::new(1, stream, control, None, Peers::new(worker)), other)
}

fn counted(peer: &Peer) -> (u64, u64) {
    let worker = peer.shared.worker.message_latency.borrow().summary().count;
    (peer.latency().summary().count, worker)
}

#[test]
fn only_replies_that_were_sent_have_a_latency() {
    ring::runtime().unwrap().block_on(async {
        let (peer, mut other) = connected();
        peer.send(b"sent", Instant::now(), 2);
        assert_eq!(counted(&peer), (2, 2));
        let mut received = [0; 4];
        other.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"sent");
        // Nothing can be written any more.
        peer.stream.shutdown(Shutdown::Write).unwrap();
        peer.send(b"lost", Instant::now(), 3);
        assert_eq!(counted(&peer), (2, 2));
        peer.send(b"lost", Instant::now(), 3);
        assert_eq!(counted(&peer), (2, 2));
    });
}

/// One reply too long for what may wait for a client.
#[test]
fn a_reply_that_cuts_its_client_has_no_latency() {
    ring::runtime().unwrap().block_on(async {
        let (peer, _other) = connected();
        peer.send(&vec![0; 64 * RECEIVER_QUEUE_BYTES], Instant::now(), 1);
        assert_eq!(peer.control.cut(), Some(DeadlineCut::SlowConsumer));
        assert_eq!(counted(&peer), (0, 0));
    });
}

/// Short replies, each to a read of its own: what is kept of them is bounded, too, and by what the
/// memory sum counts.
#[test]
fn a_client_is_not_read_while_the_replies_to_many_reads_wait() {
    ring::runtime().unwrap().block_on(async {
        let (peer, mut other) = connected();
        // Until the kernel takes no more.
        while peer.waiting_bytes() == 0 {
            peer.send(&[0; 4096], Instant::now(), 0);
        }
        let mut reads = 0;
        while peer.has_room() {
            peer.send(b"reply", Instant::now(), 1);
            reads += 1;
        }
        assert_eq!(reads, OWED_READS);
        assert!(peer.waiting_bytes() < REPLIES_WAITING_BYTES);
        // The last read may have been answered in a few pieces.
        (0..8).for_each(|_| peer.send(b"reply", Instant::now(), 1));
        assert!(peer.owed.borrow().capacity() <= 2 * OWED_READS);
        let reader = std::thread::spawn(move || std::io::copy(&mut other, &mut std::io::sink()));
        peer.wait_for_room().await;
        assert!(peer.has_room());
        peer.finish_writing().await;
        assert_eq!(counted(&peer).0, OWED_READS as u64 + 8);
        peer.stream.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap().unwrap();
    });
}
