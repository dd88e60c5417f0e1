//! Load on a message server: many connections on few threads, closed loop or open loop, and what
//! became of each message. Prints nothing, reads no argument, starts no server.
//!
//! * Closed loop: each connection keeps so many messages in flight. It finds out how much a server
//!   can do. A latency runs from the send to the answer; a server that stalls is sent less.
//! * Open loop: messages are sent by a schedule that does not wait for answers. It finds out how
//!   long users wait at a given rate. A latency runs from the moment at which the message was due,
//!   so a stall counts for every message that it delays, sent or not.
//!
//! Parts: [`tally`] counts, [`schedule`] says when messages are due, `timer` waits for that,
//! `traffic` makes and checks messages, `flow` counts broadcasts on their way, `peer` is one
//! connection, `worker` one thread.

mod flow;
mod peer;
pub mod schedule;
pub mod tally;
mod timer;
mod traffic;
mod worker;

use super::messages::DATA_BYTES_MAX;
use super::transport::ClientTls;
use crate::wire::frame::{OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};
use flow::Flow;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tally::Tally;
use worker::Worker;

/// Connections that are being made at a time, of all threads together: less than the backlog of
/// usual listeners, so that none waits for a second attempt.
const CONNECTS_AT_ONCE: usize = 256;
/// How long a connection may take to be made, with TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of messages in flight, of all connections together.
pub const IN_FLIGHT_BYTES_MAX: usize = 1 << 30;
/// Messages in flight of one connection in an open loop; the bytes may allow fewer.
const OPEN_LOOP_MESSAGES_MAX: usize = 4096;
/// Open files of a process beside its connections and its threads' own.
const FILES_OTHER: u64 = 64;
/// Open files of a thread: epoll, timer, waker.
const FILES_OF_THREAD: u64 = 3;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// PING, answered by PONG.
    Ping,
    /// ECHO, answered by ECHO_REPLY.
    Echo,
    /// DATA, answered by DATA_ACK.
    Data,
    /// BROADCAST, delivered to every other connection.
    Broadcast,
}

/// Who the connections say that they are. The token is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// What proves it.
    pub token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub address: SocketAddr,
    /// TLS, if it speaks that.
    pub tls: Option<ClientTls>,
    /// Authentication of every connection, if that is wanted.
    pub login: Option<Login>,
    /// Connections.
    pub connections: usize,
    /// Threads that share them.
    pub threads: usize,
    /// What is sent.
    pub traffic: Traffic,
    /// Bytes of each ECHO and BROADCAST, and of each DATA behind its sequence; PING has its 8.
    pub payload_bytes: usize,
    /// Messages that a connection keeps in flight in a closed loop.
    pub pipeline: usize,
    /// Messages a second over all connections: an open loop. `None` is a closed one.
    pub rate: Option<u64>,
    /// Connections that send BROADCASTs, the first ones; all receive them.
    pub senders: usize,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub duration: Duration,
    /// How long answers are waited for after it.
    pub drain: Duration,
}

impl Settings {
    /// A closed loop of PINGs over one connection, for ten seconds after one of warm-up.
    pub fn new(address: SocketAddr) -> Self {
        Settings {
            address,
            tls: None,
            login: None,
            connections: 1,
            threads: 1,
            traffic: Traffic::Ping,
            payload_bytes: 64,
            pipeline: 1,
            rate: None,
            senders: 1,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }

    /// Bytes of one message's frame.
    pub fn frame_bytes(&self) -> usize {
        let payload = match self.traffic {
            Traffic::Ping => 8,
            Traffic::Data => 4 + self.payload_bytes,
            Traffic::Echo | Traffic::Broadcast => self.payload_bytes,
        };
        OVERHEAD_BYTES + payload
    }

    fn check(&self) -> Result<(), LoadError> {
        let wrong = |why: String| Err(LoadError::Settings(why));
        let limit = match self.traffic {
            Traffic::Data => DATA_BYTES_MAX,
            _ => PAYLOAD_BYTES_MAX,
        };
        let &Settings { connections, threads, senders, .. } = self;
        if self.payload_bytes > limit {
            return wrong(format!("{} bytes of payload: at most {limit} fit", self.payload_bytes));
        }
        if connections == 0 || self.pipeline == 0 || self.rate == Some(0) {
            return wrong("connections, pipeline and rate must be 1 at least".to_owned());
        }
        if threads == 0 || threads > connections {
            return wrong(format!("{threads} threads for {connections} connections: 1 to as many"));
        }
        let broadcast = self.traffic == Traffic::Broadcast;
        if broadcast && (senders == 0 || senders > connections || connections < 2) {
            return wrong(format!(
                "{senders} senders and {connections} connections: broadcasts need a sender, and \
                 a second connection that receives"
            ));
        }
        let bytes = connections.saturating_mul(self.pipeline).saturating_mul(self.frame_bytes());
        if self.rate.is_none() && !broadcast && bytes > IN_FLIGHT_BYTES_MAX {
            return wrong(format!(
                "{bytes} bytes would be in flight, at most {IN_FLIGHT_BYTES_MAX} may be; lower the \
                 connections, the pipeline or the payload"
            ));
        }
        Ok(())
    }

    /// Messages that one connection of an open loop may have in flight.
    fn open_loop_messages(&self) -> usize {
        let fit = IN_FLIGHT_BYTES_MAX / self.connections / self.frame_bytes();
        fit.clamp(1, OPEN_LOOP_MESSAGES_MAX)
    }
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Settings that contradict each other or go beyond a limit.
    #[error("{0}")]
    Settings(String),
    /// The connections need more open files than the system allows.
    #[error(
        "{need} open files are needed and the hard limit is {hard}; raise it (`ulimit -Hn`, \
         LimitNOFILE= of a systemd unit, `ulimits: nofile` of a compose service) or take fewer \
         connections"
    )]
    OpenFiles {
        /// How many.
        need: u64,
        /// How many there may be.
        hard: u64,
    },
    /// Not one connection was made.
    #[error("no connection to {address}: {cause}; is a message server listening there?")]
    NoConnection {
        /// Where to.
        address: SocketAddr,
        /// Why the first one failed.
        cause: String,
    },
    /// The server did not believe the user.
    #[error("the server refused user {user:?}; check its name and token")]
    Refused {
        /// Name of the user.
        user: String,
    },
    /// The system refuses what the run needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What it needs.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// What a run has come to so far, for others to look at, and how they stop it.
#[derive(Debug, Default)]
pub struct Progress {
    connected: AtomicU64,
    answers: AtomicU64,
    running: AtomicBool,
    stopped: AtomicBool,
}

impl Progress {
    /// Connections made so far.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Answers and deliveries so far, those of the warm-up included.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether all connections have been made, so that the warm-up or the measurement is on.
    pub fn running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Ends the run early; what was measured so far is its outcome.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What a run has measured.
#[derive(Debug)]
pub struct Outcome {
    /// How long the measurement took.
    pub measured: Duration,
    /// Connections that were made.
    pub connected: u64,
    /// Everything that was counted.
    pub tally: Tally,
}

impl Outcome {
    /// Amounts of the measurement as a rate.
    pub fn per_second(&self, amount: u64) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { amount as f64 / seconds } else { 0.0 }
    }
}

/// Connects, sends and receives until the time is up, and returns what was measured. Blocks;
/// `progress` shows how far it is and can stop it.
///
/// # Errors
/// [`LoadError`]. Whatever goes wrong with single connections or messages is counted instead.
pub fn run(settings: &Settings, progress: &Progress) -> Result<Outcome, LoadError> {
    settings.check()?;
    raise_open_files(settings)?;
    let shared = Shared::new(settings, progress);
    let tallies = thread::scope(|scope| {
        let shared = &shared;
        let start = |number| scope.spawn(move || run_thread(shared, number));
        let threads: Vec<_> = (0..settings.threads).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect::<Vec<Result<Tally, LoadError>>>()
    });
    let mut tally = Tally::default();
    for of_thread in tallies {
        tally.merge(&of_thread?);
    }
    if let Some(error) = shared.error.lock().expect("no panic").take() {
        return Err(error);
    }
    let connected = progress.connected();
    if connected == 0 && !progress.stopped() {
        let cause = tally.first_problem.unwrap_or_else(|| "none was made in time".to_owned());
        return Err(LoadError::NoConnection { address: settings.address, cause });
    }
    Ok(Outcome { measured: shared.measured(), connected, tally })
}

fn run_thread(shared: &Shared<'_>, number: usize) -> Result<Tally, LoadError> {
    let done = Worker::new(shared, number).and_then(Worker::run);
    if done.is_err() {
        // The others would wait for this thread.
        shared.aborted.store(true, Ordering::Relaxed);
    }
    done
}

/// Raises the soft limit of open files to what the connections need, within the hard one.
fn raise_open_files(settings: &Settings) -> Result<(), LoadError> {
    let (connections, threads) = (settings.connections as u64, settings.threads as u64);
    let need = connections + threads * FILES_OF_THREAD + FILES_OTHER;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(hard) = maximum.filter(|&hard| hard < need) {
        return Err(LoadError::OpenFiles { need, hard });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum }).map_err(|error| {
        LoadError::System { what: "raise the limit of open files", source: error.into() }
    })
}

/// What the threads of a run share. Times are nanoseconds since `epoch`.
struct Shared<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
    epoch: Instant,
    /// Threads whose connections are all made or have failed.
    ready: AtomicUsize,
    /// When sending begins: when all threads are ready.
    start: OnceLock<u64>,
    /// When the measurement ends; earlier than planned if the run is stopped.
    end: AtomicU64,
    aborted: AtomicBool,
    error: Mutex<Option<LoadError>>,
    flow: Flow,
}

impl<'a> Shared<'a> {
    fn new(settings: &'a Settings, progress: &'a Progress) -> Self {
        Shared {
            settings,
            progress,
            epoch: Instant::now(),
            ready: AtomicUsize::new(0),
            start: OnceLock::new(),
            end: AtomicU64::new(u64::MAX),
            aborted: AtomicBool::new(false),
            error: Mutex::new(None),
            flow: Flow::default(),
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }

    /// Called once by each thread, when its connections stand; the last one starts the run.
    fn thread_is_ready(&self) {
        if self.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.settings.threads {
            if self.progress.connected() == 0 {
                return self.aborted.store(true, Ordering::Relaxed);
            }
            let start = self.now();
            let Settings { warm_up, duration, .. } = self.settings;
            let end = start.saturating_add(nanoseconds(*warm_up + *duration));
            self.end.store(end, Ordering::Relaxed);
            self.start.get_or_init(|| start);
            self.progress.running.store(true, Ordering::Relaxed);
        }
    }

    /// When the measurement begins, where sending has begun.
    fn begin(&self) -> Option<u64> {
        self.start.get().map(|start| start + nanoseconds(self.settings.warm_up))
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Looks whether somebody wants the run to end now.
    fn heed_stop(&self, now: u64) {
        if self.progress.stopped() {
            self.end.fetch_min(now, Ordering::Relaxed);
        }
    }

    /// Whether the run is not to begin.
    fn cancelled(&self) -> bool {
        self.progress.stopped() || self.aborted.load(Ordering::Relaxed)
    }

    fn abort(&self, error: LoadError) {
        self.error.lock().expect("no panic").get_or_insert(error);
        self.aborted.store(true, Ordering::Relaxed);
        self.progress.stop();
    }

    fn measured(&self) -> Duration {
        let nanoseconds = self.begin().map_or(0, |begin| self.end().saturating_sub(begin));
        Duration::from_nanos(nanoseconds)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
