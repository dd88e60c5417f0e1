//! Tests of marks, waits and their timer, with real sockets and a real ring. No test asserts how
//! long a wait takes: if the timer must not end it, the delay is an hour.

use super::*;
use std::io::Write;
use std::net::Shutdown;

const WINDOW: usize = 128 << 10;
const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

/// A connection whose reads are gathered, and its peer.
struct GatheredReads {
    coalescer: Rc<Coalescer>,
    coalescing: Coalescing,
    stream: Rc<TcpStream>,
    peer: std::net::TcpStream,
}

impl GatheredReads {
    fn new(delay: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        peer.flush().unwrap();
        let stream = Rc::new(TcpStream::from_std(listener.accept().unwrap().0));
        let coalescer = Coalescer::new(delay);
        let mut coalescing = Coalescing::new(&coalescer, &stream, WINDOW).unwrap();
        let now = Instant::now();
        while !coalescing.rule.gathers() {
            assert_eq!(coalescing.handle_read(1000, WINDOW, now), None);
        }
        assert!(coalescing.mark.raised.get() && coalescer.raised.borrow().len() == 1);
        GatheredReads { coalescer, coalescing, stream, peer }
    }

    /// Runs the worker's timer.
    fn with_timer(self) -> Self {
        let coalescer = Rc::clone(&self.coalescer);
        tokio_uring::spawn(async move { coalescer.watch().await });
        self
    }

    async fn wait_and_read(&mut self) -> (usize, Option<Duration>) {
        self.coalescing.wait().await;
        let buffer = ring::ReadBuffer::Plain(vec![0; WINDOW]);
        let (read, _) = ring::read(&self.stream, buffer, 0..WINDOW).await;
        let bytes = read.unwrap();
        (bytes, self.coalescing.handle_read(bytes, WINDOW, Instant::now()))
    }
}

fn on_ring(test: impl Future<Output = ()>) {
    ring::runtime().unwrap().block_on(test);
}

#[test]
fn a_wait_gathers_bytes_until_the_mark_is_reached() {
    on_ring(async {
        let mut gathered = GatheredReads::new(HOUR);
        let mut peer = gathered.peer.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for _ in 0..64 {
                peer.write_all(&[7; 1024]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (bytes, waited) = gathered.wait_and_read().await;
        assert!(bytes >= 64 << 10, "{bytes}");
        assert!(waited.is_some() && gathered.coalescing.rule.gathers());
        assert_eq!(gathered.coalescing.waits.summary().count, 1);
        sender.join().unwrap();
    });
}

#[test]
fn the_timer_ends_a_wait_that_has_lasted_long_enough() {
    on_ring(async {
        let mut gathered = GatheredReads::new(SOON).with_timer();
        // Twice, because the timer must also wake up after being idle.
        for _ in 0..2 {
            gathered.peer.write_all(&[7; 5000]).unwrap();
            let (bytes, waited) = gathered.wait_and_read().await;
            assert_eq!((bytes, waited.is_some()), (5000, true));
            assert!(gathered.coalescing.mark.raised.get(), "5000 bytes are worth the wait");
        }
        gathered.peer.write_all(&[7]).unwrap();
        assert_eq!(gathered.wait_and_read().await.0, 1);
        assert!(!gathered.coalescing.mark.raised.get(), "one byte is not");
        assert!(gathered.coalescer.raised.borrow().is_empty());
        // With the mark down, nothing is delayed.
        gathered.peer.write_all(&[7]).unwrap();
        assert_eq!(gathered.wait_and_read().await, (1, None));
    });
}

#[test]
fn bytes_that_arrive_after_the_mark_was_lowered_are_not_delayed() {
    on_ring(async {
        let mut gathered = GatheredReads::new(SOON).with_timer();
        let (mut peer, mark) = (gathered.peer.try_clone().unwrap(), &gathered.coalescing.mark);
        let mark = Rc::clone(mark);
        tokio_uring::spawn(async move {
            while mark.raised.get() {
                tokio::time::sleep(SOON).await;
            }
            peer.write_all(&[7; 5000]).unwrap();
        });
        assert_eq!(gathered.wait_and_read().await, (5000, None));
        assert!(!gathered.coalescing.rule.gathers());
        assert_eq!(gathered.coalescing.waits.summary().count, 0);
    });
}

#[test]
fn every_end_of_the_stream_ends_a_wait() {
    let ends: [fn(&GatheredReads); 3] = [
        |gathered| gathered.stream.shutdown(Shutdown::Read).unwrap(),
        |gathered| gathered.peer.shutdown(Shutdown::Write).unwrap(),
        |gathered| gathered.peer.shutdown(Shutdown::Both).unwrap(),
    ];
    for end in ends {
        on_ring(async {
            let mut gathered = GatheredReads::new(HOUR);
            gathered.peer.write_all(b"some").unwrap();
            end(&gathered);
            // First the bytes that had arrived, then the end.
            assert_eq!(gathered.wait_and_read().await.0, 4);
            assert_eq!(gathered.wait_and_read().await.0, 0);
        });
    }
}

/// The same, with the shutdown during the wait.
#[test]
fn shutting_the_reading_side_ends_a_wait_in_progress() {
    on_ring(async {
        let mut gathered = GatheredReads::new(HOUR);
        let (stream, mark) = (Rc::clone(&gathered.stream), Rc::clone(&gathered.coalescing.mark));
        tokio_uring::spawn(async move {
            while mark.waiting_since.get().is_none() {
                ring::pause().await;
            }
            tokio::time::sleep(SOON).await;
            stream.shutdown(Shutdown::Read).unwrap();
        });
        assert_eq!(gathered.wait_and_read().await.0, 0);
    });
}

#[test]
fn a_dropped_connection_leaves_no_mark_behind() {
    on_ring(async {
        let gathered = GatheredReads::new(HOUR);
        drop(gathered.coalescing);
        assert!(gathered.coalescer.raised.borrow().is_empty());
        assert_eq!(gathered.coalescer.look(Instant::now()), None);
    });
}

/// One run of the timer ends two waits that are due at nearly the same time. It leaves a wait that
/// has just begun, and returns when that one is due.
#[test]
fn the_timer_ends_all_waits_that_are_nearly_due_at_once() {
    on_ring(async {
        let all = [1.0, 0.95, 0.1].map(|share| (share, GatheredReads::new(HOUR)));
        let coalescer = Coalescer::new(HOUR);
        let now = Instant::now() + HOUR;
        let due = HOUR.mul_f64(COALESCE_DUE);
        for (share, gathered) in &all {
            let mark = Rc::clone(&gathered.coalescing.mark);
            mark.waiting_since.set(Some(now - due.mul_f64(*share)));
            coalescer.raised.borrow_mut().push(mark);
        }
        assert_eq!(coalescer.look(now), Some(due - due.mul_f64(0.1)));
        let raised = all.each_ref().map(|(_, gathered)| gathered.coalescing.mark.raised.get());
        assert_eq!(raised, [false, false, true]);
    });
}
