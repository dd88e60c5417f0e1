//! A small blocking server of the message protocol for the tests: a thread a connection, and on
//! demand something else than the right answer. Shares frames with the crate and nothing more.

use ringest::protocol::frame::{self, Frame, FrameType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a server does about a message.
pub enum Reaction {
    /// What it should.
    Usual,
    /// Sends these bytes instead; none, and it stays silent.
    Instead(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Waits, then does what it should.
    Late(Duration),
    /// Waits for a word, then does what it should.
    Held(Arc<Mutex<Receiver<()>>>),
}

/// Judges each message: the connection's number, the message's number on it, the message.
pub type Judge = dyn Fn(usize, u64, Frame<'_>) -> Reaction + Send + Sync;

/// A running server; its threads end with the test.
pub struct Server {
    pub address: SocketAddr,
}

impl Server {
    /// One that does everything right.
    pub fn start() -> Self {
        Self::with(None, |_, _, _| Reaction::Usual)
    }

    /// One that does what `judge` says.
    pub fn judged(
        judge: impl Fn(usize, u64, Frame<'_>) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::with(None, judge)
    }

    /// One that speaks TLS if `tls` is given. BROADCAST works without TLS only.
    pub fn with(
        tls: Option<Arc<ServerConfig>>,
        judge: impl Fn(usize, u64, Frame<'_>) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let judge: Arc<Judge> = Arc::new(judge);
        let others: Others = Arc::default();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("a socket option");
                let writer = stream.try_clone().expect("a second handle");
                others.lock().unwrap().push((number, writer));
                let (judge, others, tls) = (Arc::clone(&judge), Arc::clone(&others), tls.clone());
                thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = ServerConnection::new(config).expect("a TLS server");
                        serve(StreamOwned::new(connection, stream), number, &*judge, &others);
                    }
                    None => serve(stream, number, &*judge, &others),
                });
            }
        });
        Server { address }
    }
}

type Others = Arc<Mutex<Vec<(usize, TcpStream)>>>;

fn serve(mut stream: impl Read + Write, number: usize, judge: &Judge, others: &Others) {
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 64 << 10];
    let mut messages = 0;
    'connection: while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        received.extend_from_slice(&buffer[..bytes]);
        let mut done = 0;
        while let Some(frame) = frame::decode(&received[done..]).expect("clients send frames") {
            done += frame.bytes.len();
            let reaction = judge(number, messages, frame);
            messages += 1;
            match reaction {
                Reaction::Usual => {}
                Reaction::Instead(bytes) => {
                    out.extend(bytes);
                    continue;
                }
                Reaction::Last(bytes) => {
                    out.extend(bytes);
                    break 'connection;
                }
                Reaction::Late(time) => thread::sleep(time),
                Reaction::Held(word) => word.lock().unwrap().recv().expect("a word"),
            }
            if frame.kind == FrameType::Close {
                break 'connection;
            }
            answer(frame, number, others, &mut out);
        }
        received.drain(..done);
        if stream.write_all(&out).is_err() {
            break;
        }
        out.clear();
    }
    let _ = stream.write_all(&out).and_then(|()| stream.flush());
    // The other handle would keep the connection open.
    let mut others = others.lock().unwrap();
    if let Some(at) = others.iter().position(|(other, _)| *other == number) {
        let (_, stream) = others.swap_remove(at);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn answer(frame: Frame<'_>, number: usize, others: &Others, out: &mut Vec<u8>) {
    match frame.kind {
        FrameType::Ping => frame::encode(FrameType::Pong, &[frame.payload], out),
        FrameType::Echo => frame::encode(FrameType::EchoReply, &[frame.payload], out),
        FrameType::Data => frame::encode(FrameType::DataAck, &[&frame.payload[..4]], out),
        FrameType::Auth => {
            let believed = frame.payload == b"\x05alices3cret";
            let reply: &[u8] = if believed { b"\x01f00d" } else { b"\0" };
            frame::encode(FrameType::AuthReply, &[reply], out);
        }
        FrameType::Broadcast => {
            for (_, other) in others.lock().unwrap().iter().filter(|(other, _)| *other != number) {
                let mut other: &TcpStream = other;
                let _ = other.write_all(frame.bytes);
            }
        }
        kind => panic!("a client sent {}", kind.name()),
    }
}

/// An ERROR frame.
pub fn error(code: u8, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(FrameType::Error, &[&[code], message.as_bytes()], &mut out);
    out
}

/// A certificate for `localhost` and 127.0.0.1 as PEM, and a server's configuration with it.
pub fn certificate() -> (String, Arc<ServerConfig>) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    (made.cert.pem(), Arc::new(config))
}
