//! The plain drains that the engine is measured beside, each a process of its own: bytes are counted
//! and dropped. Understands no byte.
//!
//! Each says on stderr where it listens, as `ringest serve` does, and for each connection that has
//! ended one line on stdout.

use clap::ValueEnum;
use ringest::internals::{Buffers, RECORDS, listen, read, ring_runtime};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;

/// How a drain reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Drain {
    /// With the engine's listener, runtime, registered windows and read, a task for each
    /// connection.
    Uring,
    /// With read(2) of the standard library, a thread for each connection.
    Blocking,
}

/// Registered windows of the ring, as many as `ringest serve` has by default.
const REGISTERED_BUFFERS: usize = 16;

/// Receives until it is killed.
///
/// # Errors
/// Those of the listener and of the ring.
pub fn run(drain: Drain, buffer_bytes: usize) -> Result<(), Box<dyn Error>> {
    let listener = match drain {
        Drain::Uring => listen(RECORDS, "127.0.0.1", 0)?,
        Drain::Blocking => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    };
    listener.set_nonblocking(false)?;
    eprintln!("ready for records on {}", listener.local_addr()?);
    match drain {
        Drain::Uring => drain_with_ring(listener, buffer_bytes),
        Drain::Blocking => drain_with_threads(&listener, buffer_bytes),
    }
}

/// The line of a connection.
fn answer(peer: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, r#"{{"peer":"{peer}","bytes":{bytes}}}"#)?;
    out.flush()
}

fn drain_with_ring(listener: TcpListener, buffer_bytes: usize) -> Result<(), Box<dyn Error>> {
    ring_runtime()?.block_on(async {
        let buffers = Rc::new(Buffers::register(REGISTERED_BUFFERS, buffer_bytes)?);
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        loop {
            let (stream, peer) = listener.accept().await?;
            tokio_uring::spawn(drain_task(stream, peer, Rc::clone(&buffers)));
        }
    })
}

async fn drain_task(stream: tokio_uring::net::TcpStream, peer: SocketAddr, buffers: Rc<Buffers>) {
    let stream = Rc::new(stream);
    let mut buffer = buffers.take();
    let mut total = 0;
    loop {
        let free = 0..buffer.len();
        let (read, given_back) = read(&stream, buffer, free).await;
        buffer = given_back;
        match read {
            Ok(0) => break,
            Ok(bytes) => total += bytes as u64,
            Err(error) => return eprintln!("{peer}: {error}"),
        }
    }
    if let Err(error) = answer(peer, total) {
        eprintln!("{peer}: {error}");
    }
}

fn drain_with_threads(listener: &TcpListener, buffer_bytes: usize) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, peer) = listener.accept()?;
        thread::spawn(move || {
            let drained = drain_blocking(stream, buffer_bytes);
            if let Err(error) = drained.and_then(|bytes| answer(peer, bytes)) {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

fn drain_blocking(mut stream: TcpStream, buffer_bytes: usize) -> io::Result<u64> {
    let mut buffer = vec![0; buffer_bytes];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(bytes) => total += bytes as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
