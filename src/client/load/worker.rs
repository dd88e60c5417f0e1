//! One thread of a load run: makes its connections, drives them with one epoll, and waits for the
//! last answers. Reading and writing are left to `peer`.

use super::flow::Flow;
use super::peer::{Core, LoadPace, LoadPeer};
use super::schedule::Schedule;
use super::settings::{LoadError, Traffic};
use super::shared::{Shared, nanoseconds};
use super::tally::{LoadTally, MeasuredTime};
use super::timer::Timer;
use super::traffic::MessageSource;
use mio::{Events, Poll, Token, Waker};
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Connections being made at a time, over all threads: less than the usual backlog of a listener,
/// so that none has to retry.
const CONNECTS_AT_ONCE: usize = 256;
/// Bytes of one read. All connections of a thread share one buffer.
const READ_BYTES: usize = 256 << 10;
/// Maximum events of one wait.
const EVENTS: usize = 1024;
/// Longest wait, which bounds how soon a stop or the failure of another thread is noticed.
const WAIT: Duration = Duration::from_millis(10);
/// Messages of an open loop to send before looking for answers again.
const DUE_AT_ONCE: usize = 256;
/// How many times that many are sent at the end if they became due while the thread was busy.
const CATCH_UPS: usize = 256;
/// Waits shorter than this are spun, since waking up may take as long.
const AWAKE_NS: u64 = 100_000;
/// Tokens that no connection uses.
const TIMER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// One thread.
pub(crate) struct LoadWorker<'a> {
    shared: &'a Shared<'a>,
    /// Numbers of the connections still to be made, the next one last.
    to_connect: Vec<usize>,
    peers: Vec<LoadPeer>,
    core: Core<'a>,
    poll: Poll,
    events: Events,
    timer: Timer,
    /// Indexes in `peers` of the connections that send, ordered by number.
    lanes: Vec<usize>,
    turn: Turn,
    /// Indexes of the connections with bytes to write.
    unwritten: Vec<usize>,
}

/// Which message of an open loop is due next.
#[derive(Default)]
struct Turn {
    lane: usize,
    message: u64,
    due_ns: u64,
}

impl<'a> LoadWorker<'a> {
    /// Thread `number` of a run, with its share of the connections.
    pub(crate) fn new(shared: &'a Shared<'a>, number: usize) -> Result<Self, LoadError> {
        let settings = shared.settings;
        // All broadcast senders are on the first thread: sending depends on the deliveries of all
        // threads, and only one thread should have to watch those.
        let senders = if settings.traffic == Traffic::Broadcast { settings.senders } else { 0 };
        let thread_of = |n: usize| if n < senders { 0 } else { n % settings.threads };
        let mut to_connect: Vec<usize> =
            (0..settings.connections).filter(|&n| thread_of(n) == number).collect();
        to_connect.reverse();
        let prepare = || -> io::Result<(Poll, Timer)> {
            let poll = Poll::new()?;
            let timer = Timer::new(poll.registry(), TIMER)?;
            if number == 0 && senders > 0 && settings.threads > 1 {
                shared.flow.wakes(Waker::new(poll.registry(), WAKER)?);
            }
            Ok((poll, timer))
        };
        let (poll, timer) = prepare().map_err(|source| system("prepare a thread", source))?;
        let core = Core {
            shared,
            tally: LoadTally::default(),
            window: MeasuredTime::NEVER,
            messages: MessageSource::new(settings.traffic, settings.payload_bytes),
            pace: LoadPace::Rest,
            now: shared.now(),
            in_flight: 0,
            backlog: 0,
            answers_untold: 0,
            deliveries_untold: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        Ok(LoadWorker {
            shared,
            peers: Vec::with_capacity(to_connect.len()),
            to_connect,
            core,
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            lanes: Vec::new(),
            turn: Turn::default(),
            unwritten: Vec::new(),
        })
    }

    /// Does this thread's part of the run and returns its counts.
    pub(crate) fn run(mut self) -> Result<LoadTally, LoadError> {
        self.connect()?;
        if !self.shared.cancelled() {
            self.shared.thread_is_ready();
        }
        while self.shared.begin().is_none() && !self.shared.cancelled() {
            self.turn(Duration::from_millis(1))?;
        }
        if let Some(begin) = self.shared.begin() {
            self.measure(begin)?;
            self.drain()?;
        }
        self.core.tick();
        for peer in &mut self.peers {
            peer.settle(&mut self.core);
            peer.close(&mut self.core);
        }
        Ok(self.core.tally)
    }

    // ---- connecting ----

    /// Makes all connections, a limited number at a time.
    fn connect(&mut self) -> Result<(), LoadError> {
        let at_once = CONNECTS_AT_ONCE.div_ceil(self.shared.settings.threads);
        let mut pending: Vec<usize> = Vec::new();
        while !self.shared.cancelled() {
            self.core.tick();
            for &at in &pending {
                self.peers[at].check_age(&mut self.core);
            }
            pending.retain(|&at| self.peers[at].is_pending());
            while pending.len() < at_once
                && let Some(number) = self.to_connect.pop()
            {
                let at = self.peers.len();
                let registry = self.poll.registry();
                self.peers.push(LoadPeer::connect(number, Token(at), registry, &mut self.core));
                pending.push(at);
            }
            if pending.is_empty() {
                break;
            }
            self.turn(WAIT)?;
        }
        Ok(())
    }

    // ---- measuring ----

    fn measure(&mut self, begin: u64) -> Result<(), LoadError> {
        self.core.window = MeasuredTime { begin, end: self.shared.end() };
        let settings = self.shared.settings;
        let broadcast = settings.traffic == Traffic::Broadcast;
        let senders = if broadcast { settings.senders } else { settings.connections };
        self.lanes =
            (0..self.peers.len()).filter(|&at| self.peers[at].number() < senders).collect();
        self.core.tick();
        match settings.rate {
            Some(rate) => self.measure_open(rate, senders as u64),
            None if broadcast => self.measure_deliveries((settings.pipeline * senders) as u64),
            None => self.measure_closed(settings.pipeline),
        }
    }

    /// Whether the time of the measurement is up.
    fn is_over(&mut self) -> bool {
        let now = self.core.tick();
        self.shared.heed_stop(now);
        self.core.window.end = self.shared.end();
        now >= self.core.window.end
    }

    /// How long to wait for events before reading the clock again.
    fn wait(&self) -> Duration {
        let left = self.core.window.end.saturating_sub(self.core.now);
        WAIT.min(Duration::from_nanos(left))
    }

    fn measure_closed(&mut self, pipeline: usize) -> Result<(), LoadError> {
        self.core.pace = LoadPace::Closed { pipeline };
        for peer in &mut self.peers {
            self.core.tick();
            peer.fill(&mut self.core);
            peer.flush(&mut self.core);
        }
        while !self.is_over() {
            self.turn(self.wait())?;
        }
        self.core.pace = LoadPace::Rest;
        Ok(())
    }

    /// Keeps `in_flight` broadcasts on their way to their receivers.
    fn measure_deliveries(&mut self, in_flight: u64) -> Result<(), LoadError> {
        let mut next = 0;
        while !self.is_over() {
            if self.lanes.is_empty() {
                self.turn(self.wait())?;
                continue;
            }
            let room = self.shared.flow.room(in_flight);
            for _ in 0..room {
                let at = self.lanes[next % self.lanes.len()];
                next += 1;
                if self.peers[at].broadcast(&mut self.core) {
                    self.unwritten.push(at);
                }
            }
            self.write();
            self.turn(self.wait())?;
        }
        Ok(())
    }

    fn measure_open(&mut self, rate: u64, senders: u64) -> Result<(), LoadError> {
        let start = self.core.window.begin - nanoseconds(self.shared.settings.warm_up);
        let schedule = Schedule::new(start, rate, senders);
        let messages = self.shared.settings.open_loop_messages();
        self.core.pace = LoadPace::Open { schedule, messages };
        self.turn = self.due_at(schedule, 0, 0);
        while !self.is_over() {
            self.send_due(schedule);
            let left = self.turn.due_ns.saturating_sub(self.core.tick());
            if left < AWAKE_NS {
                self.turn(Duration::ZERO)?;
                continue;
            }
            let armed = self.timer.arm(left - AWAKE_NS / 2);
            armed.map_err(|source| system("set a timer", source))?;
            self.turn(self.wait())?;
        }
        Ok(())
    }

    fn due_at(&self, schedule: Schedule, lane: usize, message: u64) -> Turn {
        let Some(&at) = self.lanes.get(lane) else {
            // This thread has no senders.
            return Turn { lane, message, due_ns: u64::MAX };
        };
        let due_ns = schedule.due_ns(self.peers[at].number() as u64, message);
        Turn { lane, message, due_ns }
    }

    /// Sends the messages due by now, with one write for each connection.
    fn send_due(&mut self, schedule: Schedule) {
        let now = self.core.now;
        for _ in 0..DUE_AT_ONCE {
            if self.turn.due_ns > now || self.turn.due_ns >= self.core.window.end {
                break;
            }
            let at = self.lanes[self.turn.lane];
            if self.peers[at].become_due(self.turn.due_ns, &mut self.core) {
                self.unwritten.push(at);
            }
            let (lane, message) = match self.turn.lane + 1 {
                lane if lane < self.lanes.len() => (lane, self.turn.message),
                _ => (0, self.turn.message + 1),
            };
            self.turn = self.due_at(schedule, lane, message);
        }
        self.write();
    }

    fn write(&mut self) {
        for at in self.unwritten.drain(..) {
            self.peers[at].flush(&mut self.core);
        }
    }

    // ---- the end ----

    /// Waits for outstanding answers, and sends the messages that were due and held back.
    fn drain(&mut self) -> Result<(), LoadError> {
        // Messages that became due while the thread was busy with earlier ones.
        if let LoadPace::Open { schedule, .. } = self.core.pace {
            for _ in 0..CATCH_UPS {
                if self.turn.due_ns >= self.core.window.end {
                    break;
                }
                self.send_due(schedule);
            }
            self.hold_back_rest(schedule);
        }
        let deadline = self.core.tick() + nanoseconds(self.shared.settings.drain);
        let broadcast = self.shared.settings.traffic == Traffic::Broadcast;
        loop {
            let deliveries = if broadcast { self.shared.flow.waiting() } else { 0 };
            let waiting = self.core.in_flight + self.core.backlog + deliveries;
            if waiting == 0 || self.shared.aborted.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.core.tick() >= deadline {
                // All threads see the same number, so only the one with connection 0 counts it.
                let sends = self.lanes.first().is_some_and(|&at| self.peers[at].number() == 0);
                self.core.tally.unanswered += if sends { deliveries } else { 0 };
                return Ok(());
            }
            self.turn(Duration::from_millis(1))?;
        }
    }

    /// Holds back what is due before the end and was not even looked at, which may be billions of
    /// messages where the rate is more than this thread can do.
    fn hold_back_rest(&mut self, schedule: Schedule) {
        if self.turn.due_ns >= self.core.window.end {
            return;
        }
        let Turn { lane: next, message, .. } = self.turn;
        for (lane, &at) in self.lanes.iter().enumerate() {
            let peer = &mut self.peers[at];
            let all = schedule.due_before(peer.number() as u64, self.core.window.end);
            let done = message + u64::from(lane < next);
            peer.many_become_due(all.saturating_sub(done), &mut self.core);
        }
        self.turn.due_ns = u64::MAX;
    }

    /// Waits for events and handles them.
    fn turn(&mut self, wait: Duration) -> Result<(), LoadError> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(|source| system("wait for sockets", source))?,
        }
        self.core.tick();
        for event in &self.events {
            if let Some(peer) = self.peers.get_mut(event.token().0) {
                let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                peer.ready(readable, &mut self.core);
            }
        }
        tell(&self.shared.flow, &mut self.core);
        Ok(())
    }
}

/// Reports new answers and deliveries to the other threads.
fn tell(flow: &Flow, core: &mut Core<'_>) {
    if core.answers_untold > 0 {
        core.shared.progress.answers.fetch_add(core.answers_untold, Ordering::Relaxed);
        core.answers_untold = 0;
    }
    if core.deliveries_untold > 0 {
        flow.deliver(core.deliveries_untold);
        flow.wake();
        core.deliveries_untold = 0;
    }
}

fn system(what: &'static str, source: io::Error) -> LoadError {
    LoadError::System { what, source }
}
