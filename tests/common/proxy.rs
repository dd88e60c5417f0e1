//! A byte proxy between a peer and the engine, which cuts, delays, damages and doubles what passes
//! at the bytes that a test names. Knows no protocol.

use super::connect_as_new;
use rustix::net::connect_unspec;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// The receiver sees the end of the stream; the other direction goes on.
    End,
    /// Both sides see a reset.
    Reset,
}

/// What happens to the bytes of one direction, counted from 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// After so many bytes nothing more passes.
    pub cut: Option<(u64, CutBy)>,
    /// This byte is changed by an exclusive or.
    pub flip: Option<(u64, u8)>,
    /// Passes pieces of random sizes with random pauses, by this seed.
    pub pieces: Option<u64>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mischief {
    /// From the peer to the engine.
    pub up: Course,
    /// From the engine to the peer.
    pub down: Course,
    /// A second connection to the engine gets the same bytes; its answers are dropped.
    pub twice: bool,
}

/// A proxy for one connection.
pub struct Proxy {
    /// Where the peer connects to.
    pub address: SocketAddr,
    /// What the engine sees as the peer.
    pub upstream: SocketAddr,
    /// The same of the second connection.
    pub second: Option<SocketAddr>,
    passed: [Arc<AtomicU64>; 2],
}

impl Proxy {
    /// Connects to the engine at once, and waits for the peer.
    pub fn to(engine: SocketAddr, mischief: Mischief) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let connect = || connect_as_new(engine).expect("the engine accepts");
        let (above, copy) = (connect(), mischief.twice.then(connect));
        let passed = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            upstream: above.local_addr().unwrap(),
            second: copy.as_ref().map(|copy| copy.local_addr().unwrap()),
            passed: passed.clone(),
        };
        thread::spawn(move || {
            let (below, _) = listener.accept().expect("the peer connects");
            below.set_nodelay(true).unwrap();
            let [passed_up, passed_down] = passed;
            let (mut up, mut down) = (
                Pump::between(&below, &above, mischief.up, passed_up),
                Pump::between(&above, &below, mischief.down, passed_down),
            );
            up.copy = copy;
            thread::spawn(move || down.run());
            up.run();
        });
        proxy
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the proxy accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream
    }

    /// Bytes that have passed from the peer to the engine.
    pub fn passed_up(&self) -> u64 {
        self.passed[0].load(Ordering::SeqCst)
    }

    /// Bytes that have passed from the engine to the peer.
    pub fn passed_down(&self) -> u64 {
        self.passed[1].load(Ordering::SeqCst)
    }
}

/// One direction.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    copy: Option<TcpStream>,
    course: Course,
    passed: Arc<AtomicU64>,
}

impl Pump {
    fn between(from: &TcpStream, to: &TcpStream, course: Course, passed: Arc<AtomicU64>) -> Self {
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        Pump { from: clone(from), to: clone(to), copy: None, course, passed }
    }

    fn run(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        let mut random = self.course.pieces.map(fastrand::Rng::with_seed);
        loop {
            let limit = random.as_mut().map_or(buffer.len(), |random| random.usize(1..1500));
            let bytes = match self.from.read(&mut buffer[..limit]) {
                Ok(0) => break self.end(),
                Ok(bytes) => bytes,
                Err(_) => break self.reset(),
            };
            if let Some(random) = &mut random
                && random.u8(..8) == 0
            {
                thread::sleep(Duration::from_micros(random.u64(..2000)));
            }
            if !self.pass(&mut buffer[..bytes]) {
                break;
            }
        }
    }

    /// Passes bytes on; false if nothing more passes.
    fn pass(&mut self, bytes: &mut [u8]) -> bool {
        let begin = self.passed.load(Ordering::SeqCst);
        if let Some((at, mask)) = self.course.flip
            && let Some(byte) = at.checked_sub(begin).and_then(|at| bytes.get_mut(at as usize))
        {
            *byte ^= mask;
        }
        let left = self.course.cut.map_or(u64::MAX, |(after, _)| after - begin);
        let allowed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let written = self.to.write_all(&bytes[..allowed]);
        if let Some(copy) = &mut self.copy {
            // The engine may have refused it.
            let _ = copy.write_all(&bytes[..allowed]);
        }
        self.passed.fetch_add(allowed as u64, Ordering::SeqCst);
        if allowed as u64 == left {
            match self.course.cut {
                Some((_, CutBy::Reset)) => self.reset(),
                _ => {
                    self.end();
                    // The sender must not be stuck, nor see a reset.
                    let mut rest = [0; 4096];
                    while self.from.read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
                }
            }
            return false;
        }
        if written.is_err() {
            self.reset();
        }
        written.is_ok()
    }

    fn end(&self) {
        for to in [Some(&self.to), self.copy.as_ref()].into_iter().flatten() {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Disconnecting a socket resets its connection at once, whoever else has a descriptor of it.
    fn reset(&self) {
        let _ = connect_unspec(&self.to);
        let _ = connect_unspec(&self.from);
    }
}
