//! One publisher and many receivers on one thread. Checks and counts every delivery, for any
//! protocol.

use crate::process::own_cpu;
use crate::server::Server;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use ringest::protocol::frame::{self, FrameType};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// How many messages the publisher may be ahead of the slowest receiver.
pub const WINDOW: u64 = 512;
/// The publisher waits until it may send this many, so that all servers get the same batches.
const BATCH: u64 = WINDOW / 2;
const READ_BYTES: usize = 64 << 10;
const SILENCE: Duration = Duration::from_secs(5);

type Greeting = fn(&mut std::net::TcpStream, bool) -> Result<(), Box<dyn Error>>;

/// The handshake of a protocol, and the bytes of a message in each direction.
pub struct Dialect {
    /// Prepares a connection, blocking; `true` for receivers.
    greet: Greeting,
    /// Waits for whatever the server does on each connection once all are ready.
    settle: fn(&mut std::net::TcpStream) -> Result<(), Box<dyn Error>>,
    /// A message as the publisher sends it.
    pub published: Vec<u8>,
    /// The same message as a receiver gets it.
    pub delivered: Vec<u8>,
}

impl Dialect {
    /// BROADCAST frames: the same bytes in both directions.
    pub fn ringest(payload: &[u8]) -> Self {
        let mut frame = Vec::new();
        frame::encode(FrameType::Broadcast, &[payload], &mut frame);
        Dialect {
            greet: |stream, _| {
                // A client gets every broadcast from its first answer on.
                stream.write_all(crate::requests::RINGEST.request)?;
                expect(stream, crate::requests::RINGEST.reply)
            },
            settle: |_| Ok(()),
            published: frame.clone(),
            delivered: frame,
        }
    }

    /// PUB and MSG on a one-letter subject.
    pub fn nats(payload: &[u8]) -> Self {
        let message = |head: &str| {
            let mut message = format!("{head} {}\r\n", payload.len()).into_bytes();
            message.extend_from_slice(payload);
            message.extend_from_slice(b"\r\n");
            message
        };
        Dialect {
            greet: |stream, receives| {
                expect(stream, b"INFO ")?;
                let mut byte = [0];
                while byte != *b"\n" {
                    stream.read_exact(&mut byte)?;
                }
                stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n")?;
                if receives {
                    stream.write_all(b"SUB x 1\r\n")?;
                }
                stream.write_all(b"PING\r\n")?;
                expect(stream, b"PONG\r\n")
            },
            // The server sends each new client a PING within 3 seconds, and the next minutes later.
            settle: |stream| {
                expect(stream, b"PING\r\n")?;
                Ok(stream.write_all(b"PONG\r\n")?)
            },
            published: message("PUB x"),
            delivered: message("MSG x 1"),
        }
    }
}

fn expect(stream: &mut std::net::TcpStream, expected: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes)?;
    match bytes == expected {
        true => Ok(()),
        false => Err(format!("received {:?}, expected {:?}", bytes, expected).into()),
    }
}

/// The measurements of one round.
pub struct Sample {
    /// Number of deliveries, all checked.
    pub deliveries: f64,
    /// The time they took.
    pub elapsed: Duration,
    /// Processor time of the server during that time.
    pub server_cpu: Duration,
    /// Processor time of this client during that time.
    pub client_cpu: Duration,
}

struct Client {
    publisher: std::net::TcpStream,
    receivers: Vec<(TcpStream, u64)>,
    /// Repeated messages: as many as one write or read can take, and one more.
    publish_run: Vec<u8>,
    deliver_run: Vec<u8>,
    message_bytes: (u64, u64),
    /// Bytes that should have been sent by now, and that have been.
    due_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
    memory: Vec<u8>,
}

/// Publishes to `receivers` receivers for `warm_up` and then for `measured`, which gives the
/// sample. Afterwards checks that every receiver has every message exactly once.
pub fn run(
    server: &Server,
    dialect: &Dialect,
    receivers: usize,
    warm_up: Duration,
    measured: Duration,
) -> Result<Sample, Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut client = Client::connect(server, dialect, receivers, &poll)?;
    client.pump(&mut poll, Some(warm_up))?;
    let before = client.received_bytes;
    let (server_cpu, client_cpu) = (server.cpu()?, own_cpu());
    let elapsed = client.pump(&mut poll, Some(measured))?;
    let server_cpu = server.cpu()?.saturating_sub(server_cpu);
    let client_cpu = own_cpu().saturating_sub(client_cpu);
    let deliveries = (client.received_bytes - before) as f64 / client.message_bytes.1 as f64;
    client.pump(&mut poll, None)?;
    client.check()?;
    Ok(Sample { deliveries, elapsed, server_cpu, client_cpu })
}

impl Client {
    fn connect(
        server: &Server,
        dialect: &Dialect,
        receivers: usize,
        poll: &Poll,
    ) -> Result<Self, Box<dyn Error>> {
        let connect = |receives| {
            let mut stream = std::net::TcpStream::connect(server.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE))?;
            (dialect.greet)(&mut stream, receives)?;
            Ok::<_, Box<dyn Error>>(stream)
        };
        let mut publisher = connect(false)?;
        let mut streams = (0..receivers).map(|_| connect(true)).collect::<Result<Vec<_>, _>>()?;
        streams.iter_mut().chain([&mut publisher]).try_for_each(dialect.settle)?;
        let mut registered = Vec::with_capacity(receivers);
        for (token, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            registered.push((stream, 0));
        }
        publisher.set_nonblocking(true)?;
        let (published, delivered) = (&dialect.published, &dialect.delivered);
        Ok(Client {
            publisher,
            receivers: registered,
            publish_run: published.repeat(WINDOW as usize + 1),
            deliver_run: delivered.repeat(READ_BYTES / delivered.len() + 2),
            message_bytes: (published.len() as u64, delivered.len() as u64),
            due_bytes: 0,
            sent_bytes: 0,
            received_bytes: 0,
            memory: vec![0; READ_BYTES],
        })
    }

    /// Publishes and receives for `time`, or receives what is outstanding if there is none. Returns
    /// how long it took.
    fn pump(
        &mut self,
        poll: &mut Poll,
        time: Option<Duration>,
    ) -> Result<Duration, Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let begun = Instant::now();
        loop {
            if time.is_some() {
                self.permit();
            }
            self.publish()?;
            let elapsed = begun.elapsed();
            match time {
                Some(time) if elapsed >= time => return Ok(elapsed),
                None if self.behind() == 0 => return Ok(elapsed),
                _ => {}
            }
            match poll.poll(&mut events, Some(SILENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() {
                let behind = self.behind();
                return Err(format!("no delivery within {SILENCE:?}; {behind} are missing").into());
            }
            for event in &events {
                self.receive(event.token().0)?;
            }
        }
    }

    /// Lets the publisher continue once the slowest receiver has caught up enough.
    fn permit(&mut self) {
        let slowest = self.receivers.iter().map(|&(_, bytes)| bytes).min().unwrap_or(0);
        let (published, delivered) = self.message_bytes;
        let allowed = slowest / delivered + WINDOW - self.due_bytes / published;
        if allowed >= BATCH {
            self.due_bytes += allowed * published;
        }
    }

    fn publish(&mut self) -> Result<(), Box<dyn Error>> {
        while self.sent_bytes < self.due_bytes {
            let phase = (self.sent_bytes % self.message_bytes.0) as usize;
            let bytes = (self.due_bytes - self.sent_bytes) as usize;
            match self.publisher.write(&self.publish_run[phase..phase + bytes]) {
                Ok(bytes) => self.sent_bytes += bytes as u64,
                // Continued after the next deliveries, which make room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads everything available for one receiver.
    fn receive(&mut self, token: usize) -> Result<(), Box<dyn Error>> {
        let (stream, received) = &mut self.receivers[token];
        loop {
            let bytes = match stream.read(&mut self.memory) {
                Ok(0) => return Err("the server closed a receiver's connection".into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let phase = (*received % self.message_bytes.1) as usize;
            if self.memory[..bytes] != self.deliver_run[phase..phase + bytes] {
                return Err(format!("a delivery differs after {received} bytes").into());
            }
            *received += bytes as u64;
            self.received_bytes += bytes as u64;
            if bytes < READ_BYTES {
                return Ok(());
            }
        }
    }

    /// Number of outstanding deliveries.
    fn behind(&self) -> u64 {
        let messages = self.due_bytes / self.message_bytes.0;
        let all = messages * self.message_bytes.1 * self.receivers.len() as u64;
        all.saturating_sub(self.received_bytes).div_ceil(self.message_bytes.1)
    }

    /// Checks that every receiver has every message exactly once and nothing else.
    fn check(&mut self) -> Result<(), Box<dyn Error>> {
        let messages = self.due_bytes / self.message_bytes.0;
        std::thread::sleep(Duration::from_millis(20));
        for (stream, received) in &mut self.receivers {
            let deliveries = *received as f64 / self.message_bytes.1 as f64;
            if *received != messages * self.message_bytes.1 {
                return Err(format!("{deliveries} of {messages} messages were delivered").into());
            }
            match stream.read(&mut self.memory) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                more => return Err(format!("unexpected after the last message: {more:?}").into()),
            }
        }
        Ok(())
    }
}
