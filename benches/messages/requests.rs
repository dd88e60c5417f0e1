//! Requests and replies over many connections on one thread, with the same client for every
//! protocol: only the bytes of a request and its reply differ.

use crate::process::own_cpu;
use crate::server::Server;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// Maximum bytes of one read; more than the replies to any pipeline here.
const READ_BYTES: usize = 64 << 10;
/// Longest time to wait for any reply.
const SILENCE: Duration = Duration::from_secs(5);

/// A request of a protocol and its exact reply.
#[derive(Clone, Copy)]
pub struct Dialect {
    /// What the client sends.
    pub request: &'static [u8],
    /// What the server answers.
    pub reply: &'static [u8],
}

/// PING with a timestamp, and its PONG.
pub const RINGEST: Dialect = Dialect {
    request: b"\xde\xad\xbe\xef\x01\x01\x00\x08\x00\x00\x01\x8b\xcf\xe5\x68\x00\xc8\xbc\x9e\xc8",
    reply: b"\xde\xad\xbe\xef\x01\x02\x00\x08\x00\x00\x01\x8b\xcf\xe5\x68\x00\x51\x5e\xf8\xc9",
};
/// PING as redis clients send it.
pub const REDIS: Dialect = Dialect { request: b"*1\r\n$4\r\nPING\r\n", reply: b"+PONG\r\n" };

/// How requests are sent.
#[derive(Clone, Copy)]
pub struct Load {
    /// Number of concurrent connections.
    pub connections: usize,
    /// Requests in flight on each connection, sent with one write.
    pub pipeline: usize,
}

/// The measurements of one round.
pub struct Sample {
    /// Number of replies, all checked.
    pub requests: u64,
    /// The time they took.
    pub elapsed: Duration,
    /// From the write that sent a request until its reply was read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Processor time of the server during that time.
    pub server_cpu: Duration,
    /// Processor time of this client during that time.
    pub client_cpu: Duration,
}

struct Connection {
    stream: TcpStream,
    /// Bytes received of the current batch's replies.
    received: usize,
    sent: Instant,
}

struct Client<'a> {
    batch: &'a [u8],
    expected: &'a [u8],
    reply_bytes: usize,
    connections: Vec<Connection>,
    memory: Vec<u8>,
    requests: u64,
    latency: Histogram<u64>,
}

/// Sends requests for `warm_up` and then for `measured`, which gives the sample.
pub fn run(
    server: &Server,
    dialect: Dialect,
    load: Load,
    warm_up: Duration,
    measured: Duration,
) -> Result<Sample, Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut client = Client {
        batch: &dialect.request.repeat(load.pipeline),
        expected: &dialect.reply.repeat(load.pipeline),
        reply_bytes: dialect.reply.len(),
        connections: Vec::with_capacity(load.connections),
        memory: vec![0; READ_BYTES],
        requests: 0,
        latency: Histogram::new_with_bounds(100, 60_000_000_000, 3)?,
    };
    for token in 0..load.connections {
        // Connects one at a time, so that the listener's backlog never fills up.
        let stream = std::net::TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
        client.connections.push(Connection { stream, received: 0, sent: Instant::now() });
    }
    for token in 0..load.connections {
        client.send(token, Instant::now())?;
    }
    client.pump(&mut poll, warm_up)?;
    client.requests = 0;
    client.latency.clear();
    let (server_cpu, client_cpu) = (server.cpu()?, own_cpu());
    let elapsed = client.pump(&mut poll, measured)?;
    Ok(Sample {
        server_cpu: server.cpu()?.saturating_sub(server_cpu),
        client_cpu: own_cpu().saturating_sub(client_cpu),
        requests: client.requests,
        elapsed,
        latency: client.latency,
    })
}

impl Client<'_> {
    /// Sends a new batch after each answered one, for `time`. Returns how long it took.
    fn pump(&mut self, poll: &mut Poll, time: Duration) -> Result<Duration, Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let begun = Instant::now();
        loop {
            match poll.poll(&mut events, Some(SILENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() {
                return Err(format!("no reply within {SILENCE:?}").into());
            }
            let mut now = begun;
            for event in &events {
                now = self.take_replies(event.token().0)?;
            }
            let elapsed = now - begun;
            if elapsed >= time {
                return Ok(elapsed);
            }
        }
    }

    /// Reads what is available, and sends the next batch once this one is answered. Reads the clock
    /// once: receiving a batch and sending the next count as the same instant.
    fn take_replies(&mut self, token: usize) -> Result<Instant, Box<dyn Error>> {
        let connection = &mut self.connections[token];
        let bytes = match connection.stream.read(&mut self.memory) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Instant::now()),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        let before = connection.received;
        let after = before + bytes;
        if self.expected.get(before..after) != Some(&self.memory[..bytes]) {
            return Err(format!("{bytes} bytes at {before} of a batch are not its replies").into());
        }
        let replies = (after / self.reply_bytes - before / self.reply_bytes) as u64;
        self.requests += replies;
        let latency = u64::try_from((now - connection.sent).as_nanos())?;
        self.latency.saturating_record_n(latency, replies);
        connection.received = after;
        if after == self.expected.len() {
            self.send(token, now)?;
        }
        Ok(now)
    }

    fn send(&mut self, token: usize, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[token];
        connection.received = 0;
        connection.sent = now;
        // Nothing else is in flight on this connection, so a batch of this size always fits.
        match connection.stream.write(self.batch)? {
            bytes if bytes == self.batch.len() => Ok(()),
            bytes => Err(io::Error::other(format!("only {bytes} bytes of a batch were accepted"))),
        }
    }
}
