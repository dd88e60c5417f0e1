//! The plain drains that the engine is compared with, each in its own process: they count bytes and
//! discard them.
//!
//! Each announces its address on stderr, as `ringest serve` does, and prints one line on stdout for
//! each finished connection.

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
    /// With the engine's listener, runtime, registered buffers and reads; one task for each
    /// connection.
    Uring,
    /// With blocking reads of the standard library; one thread for each connection.
    Blocking,
}

/// Number of registered buffers, the default of `ringest serve`.
const REGISTERED_BUFFERS: usize = 16;

/// Receives until killed.
///
/// # Errors
/// Errors of the listener and of the ring.
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

/// Prints the line of a finished connection.
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
