//! A client that does no wrong, pinging on the same worker on which another misbehaves, and the
//! counts that say what was noticed of that.

use super::wire::Client;
use super::{Engine, one_core, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the engine says about itself.
pub fn stats(engine: &Engine) -> Value {
    let mut stream = TcpStream::connect(engine.admin()).expect("the admin listener");
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    stream
        .write_all(b"GET /stats.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).expect("JSON")
}

/// Every way in which a client can be counted as wrong, with how often it was.
pub type Wrongs = BTreeMap<String, u64>;

pub fn wrongs(engine: &Engine) -> Wrongs {
    let stats = stats(engine);
    let mut wrongs: Wrongs = ["rate_limited", "slow_consumers", "auth_failures"]
        .iter()
        .map(|&word| (word.to_owned(), stats[word].as_u64().expect("a count")))
        .collect();
    let faults = stats["faults_by_reason"].as_object().expect("faults");
    wrongs.extend(faults.iter().map(|(word, count)| (word.clone(), count.as_u64().unwrap())));
    wrongs
}

/// What was added.
pub fn added(before: &Wrongs, after: &Wrongs) -> Wrongs {
    let delta = |(word, count): (&String, &u64)| (word.clone(), count - before[word]);
    after.iter().map(delta).filter(|(_, count)| *count > 0).collect()
}

/// Waits until as much as expected was counted since `before`, and fails if anything else was.
pub fn assert_added(engine: &Engine, before: &Wrongs, expected: &Wrongs) {
    let sum = |wrongs: &Wrongs| wrongs.values().sum::<u64>();
    until("faults to be counted", || sum(&added(before, &wrongs(engine))) >= sum(expected));
    assert_eq!(added(before, &wrongs(engine)), *expected);
}

/// Lets the engine run for a time of its own clock: for what must not happen meanwhile.
pub fn let_run(engine: &Engine, time: Duration) {
    let uptime = || stats(engine)["uptime_seconds"].as_f64().expect("seconds");
    let end = uptime() + time.as_secs_f64();
    until("the engine to run on", || uptime() >= end);
}

/// Waits until the engine has read so many bytes on its message or record listener.
pub fn wait_for_bytes(engine: &Engine, listener: &str, bytes: u64) {
    until("the bytes to be read", || {
        stats(engine)["received_bytes"][listener].as_u64().expect("a count") >= bytes
    });
}

/// Waits until so many message connections are left.
pub fn wait_for_clients(engine: &Engine, count: u64) {
    until("the other clients to be gone", || {
        stats(engine)["connections_active"]["messages"] == count
    });
}

/// A client that PINGs every now and then, and when it is asked to, and expects each PONG.
pub struct Healthy {
    /// To ask for a PING; each is answered once its PONG has come.
    asked: Option<Sender<Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Healthy {
    pub fn start(address: SocketAddr) -> Self {
        Healthy::over(Client::connect(address))
    }

    pub fn over<S: Read + Write + Send + 'static>(mut client: Client<S>) -> Self {
        let (asked, questions) = mpsc::channel::<Sender<()>>();
        client.ping(u64::MAX);
        let thread = thread::spawn(move || {
            for number in 0.. {
                let question = questions.recv_timeout(Duration::from_millis(20));
                if matches!(question, Err(RecvTimeoutError::Disconnected)) {
                    return;
                }
                client.ping_amid_broadcasts(number);
                if let Ok(answer) = question {
                    let _ = answer.send(());
                }
            }
        });
        Healthy { asked: Some(asked), thread: Some(thread) }
    }

    /// Waits for the PONG to a PING of from now on.
    pub fn assert_well(&self) {
        let (answer, answered) = mpsc::channel();
        let asked = self.asked.as_ref().expect("until it is dropped").send(answer);
        assert!(asked.is_ok() && answered.recv().is_ok(), "the healthy client suffered");
    }
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.asked = None;
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the healthy client suffered");
    }
}

/// An engine with one worker, and a healthy client on it.
pub struct Beside {
    healthy: Healthy,
    pub engine: Engine,
}

impl Beside {
    pub fn start(options: &[&str]) -> Self {
        let core = one_core();
        let engine = Engine::start_messages(&[&["--cores", &core], options].concat());
        Beside { healthy: Healthy::start(engine.messages()), engine }
    }

    pub fn connect(&self) -> Client<TcpStream> {
        Client::connect(self.engine.messages())
    }

    /// Runs a case whose connections are over when it returns; fails unless all that was counted
    /// as wrong is `count` times `word`.
    pub fn counts<T>(&self, word: &str, count: u64, case: impl FnOnce() -> T) -> T {
        let before = wrongs(&self.engine);
        let outcome = case();
        wait_for_clients(&self.engine, 1);
        assert_added(&self.engine, &before, &[(word.to_owned(), count)].into());
        self.healthy.assert_well();
        outcome
    }

    /// Runs a case in which nothing is wrong.
    pub fn counts_nothing<T>(&self, case: impl FnOnce() -> T) -> T {
        let before = wrongs(&self.engine);
        let outcome = case();
        wait_for_clients(&self.engine, 1);
        assert_eq!(added(&before, &wrongs(&self.engine)), Wrongs::new());
        self.healthy.assert_well();
        outcome
    }

    pub fn assert_well(&self) {
        self.healthy.assert_well();
    }
}
