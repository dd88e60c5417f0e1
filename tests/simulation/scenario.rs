//! What happens in a world: settings, peers and faults, all chosen by the seed. Each peer has a
//! seed of its own, so that taking one away leaves the others as they are.

use crate::line::{CERTIFICATE, KEY};
use crate::model::FORMS;
use fastrand::Rng;
use ringest::internals::simulation::{LineQuality, ThreadDelays};
use ringest::internals::{AggregateMode, Config, Plan, TlsOptions};
use ringest::schema::Schema;
use std::sync::Arc;
use std::time::Duration;

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Sends a whole record stream and closes.
    RightSender,
    /// The same, with pauses between its packets that are shorter than any timeout.
    SteadySender,
    /// The same as the first, over a good line and at once: it must be reported within a bound.
    WitnessSender,
    /// Breaks the rules of packets after some records.
    Liar,
    /// Sends its stream byte by byte, with pauses.
    Trickler,
    /// Sends part of its stream and then nothing.
    Silent,
    /// Sends part of its stream and closes.
    EarlyClose,
    /// Sends part of its stream and resets.
    ResetInStream,
    /// Connects and closes.
    Empty,
    /// Sends bytes after its end record.
    Talkative,
    /// Sends records of new groups until it is cut.
    Flood,
    /// Sends records in DATA, and waits for each acknowledgement or for none.
    DataSender,
    /// The same, and breaks off in the middle.
    DataBroken,
    /// Sends DATA that goes on after the end record.
    DataTalkative,
    /// Sends some DATA, and then only PINGs.
    DataIdle,
    /// Sends records of new groups in DATA until it is cut.
    DataFlood,
    /// Pings over a good line: each answer must come within a bound.
    WitnessPinger,
    /// Sends broadcasts.
    Broadcaster,
    /// Receives whatever comes.
    Listener,
    /// Sends many ECHOs and reads nothing.
    Deaf,
    /// Sends bytes that are no frames.
    Garbage,
    /// Connects to the message port and says nothing.
    SilentClient,
}

impl PeerKind {
    pub fn is_message_client(self) -> bool {
        use PeerKind::{
            Broadcaster, DataBroken, DataFlood, DataIdle, DataSender, DataTalkative, Deaf, Garbage,
            Listener, SilentClient, WitnessPinger,
        };
        matches!(
            self,
            Broadcaster
                | DataBroken
                | DataFlood
                | DataIdle
                | DataSender
                | DataTalkative
                | Deaf
                | Garbage
                | Listener
                | SilentClient
                | WitnessPinger
        )
    }

    pub fn is_flood(self) -> bool {
        matches!(self, PeerKind::Flood | PeerKind::DataFlood)
    }

    pub fn is_witness(self) -> bool {
        matches!(self, PeerKind::WitnessSender | PeerKind::WitnessPinger)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct PeerPlan {
    /// Its place in the first list, which is its address as well.
    pub number: usize,
    pub kind: PeerKind,
    pub start: Duration,
    pub seed: u64,
    pub quality: LineQuality,
    /// Whether the engine speaks TLS where it connects.
    pub tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Accepting fails for lack of descriptors.
    Emfile { messages: bool },
    /// A connection's task panics when it passes this place for the n-th time.
    Panic { place: &'static str, pass: u64 },
    /// A task that the connections of a worker share panics: the engine stops by itself.
    HelperPanic { place: &'static str, pass: u64 },
    /// The wall clock is set.
    WallStep { by_ms: i64 },
    /// The engine is told to stop.
    Stop { grace: Duration },
}

#[derive(Clone, Copy, Debug)]
pub struct FaultPlan {
    pub number: usize,
    pub at: Duration,
    pub kind: FaultKind,
}

/// What a world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Mixed,
    /// Far more streams than there are slots, all at once.
    Crowd,
    /// Aggregation stands still for long, while batches must be closed.
    SlowDisk,
    /// Little memory, and streams of endless new groups beside right ones.
    Flood,
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub form: usize,
    pub workers: usize,
    pub config: Config,
    pub delays: ThreadDelays,
    pub look_cost: Duration,
    pub peers: Vec<PeerPlan>,
    pub faults: Vec<FaultPlan>,
}

fn up_to(rng: &mut Rng, longest: Duration) -> Duration {
    Duration::from_micros(rng.u64(0..=longest.as_micros() as u64))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5EED);
        let form = rng.usize(..FORMS.len());
        let limited = rng.u8(..4) == 0;
        let config = Config {
            registered_buffers: 0,
            groups_limit: if rng.u8(..8) == 0 { rng.usize(1..30) } else { 1_000_000 },
            // The engine takes what it needs at least, so this is often more.
            memory_limit: (rng.u8(..8) == 0).then(|| rng.choice([1, 64 << 20, 256 << 20]).unwrap()),
            exit_after: (rng.u8(..16) == 0).then(|| rng.u64(1..5)),
            buffer_bytes: rng.choice([4 << 10, 8 << 10, 64 << 10]).unwrap(),
            aggregate: rng.choice([AggregateMode::Columns, AggregateMode::TwoPhase]).unwrap(),
            batch_rows: rng.choice([1, 7, 64, 4096]).unwrap(),
            packet_bytes_limit: 1 << 20,
            max_connections: if limited { 8 } else { 1000 },
            max_streams: if limited { 4 } else { 256 },
            admit_timeout: up_to(&mut rng, ms(3000)),
            report_empty: rng.u8(..4) == 0,
            idle_timeout: ms(rng.u64(2000..6000)),
            packet_timeout: ms(rng.u64(1000..3000)),
            frame_timeout: ms(rng.u64(1000..3000)),
            write_timeout: ms(rng.u64(1000..3000)),
            linger: ms(rng.u64(100..1000)),
            // Batches are closed in time; nobody writes them.
            partials: rng.bool().then(|| "nowhere".into()),
            partials_interval: ms(rng.u64(100..1000)),
            coalesce_delay: rng.choice([ms(0), ms(1), ms(20)]).unwrap(),
            rate_limit: 0,
            global_rate_limit: 0,
            ..Config::default()
        };
        let theme = match rng.u8(..6) {
            0 => Theme::Crowd,
            1 => Theme::SlowDisk,
            _ => Theme::Mixed,
        };
        let delays = ThreadDelays {
            aggregation: rng.choice([ms(0), ms(2), ms(100)]).unwrap(),
            stall: rng.choice([ms(0), ms(0), ms(20_000)]).unwrap(),
            report: rng.choice([ms(0), ms(2), ms(100)]).unwrap(),
        };
        let look_cost = rng.choice([Duration::ZERO, Duration::from_micros(1), ms(1) / 4]).unwrap();
        let mut scenario = Scenario {
            seed,
            form,
            workers: rng.usize(1..=3),
            config,
            delays,
            look_cost,
            peers: Vec::new(),
            faults: Vec::new(),
        };
        scenario.set_theme(theme, &mut rng);
        scenario.choose_peers(theme, &mut rng);
        scenario.choose_faults(theme, &mut rng);
        scenario.widen(seed);
        scenario
    }

    /// Themes that came later have dice of their own: other seeds keep their worlds.
    fn widen(&mut self, seed: u64) {
        let mut rng = Rng::with_seed(seed ^ 0xF100D);
        if rng.u8(..12) == 0 {
            self.set_theme(Theme::Flood, &mut rng);
            self.peers.clear();
            self.choose_peers(Theme::Flood, &mut rng);
            self.config.memory_limit = Some(self.room_for_right_streams() + rng.u64(1..4 << 20));
        }
        let mut rng = Rng::with_seed(seed ^ 0x715);
        let (records, messages) = (rng.u8(..6) == 0, rng.u8(..6) == 0);
        if records || messages {
            let (cert, key) = (Some(CERTIFICATE.into()), Some(KEY.into()));
            self.config.tls = TlsOptions { messages, records, cert, key, client_ca: None };
            self.config.handshake_timeout = ms(rng.u64(1000..3000));
            for peer in &mut self.peers {
                peer.tls = if peer.kind.is_message_client() { messages } else { records };
            }
        }
    }

    /// Memory with which only a flood can hold the most when it is used up.
    fn room_for_right_streams(&self) -> u64 {
        let schema = Schema::from_toml(FORMS[self.form].toml).expect("a schema of the world");
        let record = Plan::new(Arc::new(schema)).sizes();
        let memory = Config { record, ..self.config.clone() }.memory(self.workers);
        // Each sends a few hundred records; a client with DATA has a window besides.
        let of_peer = memory.connection_receiving + 300 * record.group_bytes() + (256 << 10);
        (memory.fixed() + self.peers.len() * of_peer) as u64
    }

    /// Whether only floods may be short of memory.
    pub fn has_flood(&self) -> bool {
        self.peers.iter().any(|peer| peer.kind.is_flood())
    }

    fn set_theme(&mut self, theme: Theme, rng: &mut Rng) {
        match theme {
            Theme::Mixed => {}
            Theme::Crowd => self.config.max_streams = rng.usize(1..=4),
            Theme::SlowDisk => {
                self.workers = 1;
                self.config.aggregate = AggregateMode::Columns;
                self.config.batch_rows = 1;
                self.config.partials = Some("nowhere".into());
                self.delays.stall = ms(20_000);
            }
            Theme::Flood => {
                // Those with any number of groups.
                self.form = rng.choice([0, 2, 3]).unwrap();
                self.config.groups_limit = 1_000_000;
                self.config.exit_after = None;
                // A job for each record of a flood would only take time.
                self.config.batch_rows = rng.choice([64, 512, 4096]).unwrap();
                (self.config.max_connections, self.config.max_streams) = (1000, 256);
            }
        }
    }

    fn choose_peers(&mut self, theme: Theme, rng: &mut Rng) {
        use PeerKind::*;
        const KINDS: [PeerKind; 22] = [
            SteadySender,
            RightSender,
            RightSender,
            RightSender,
            RightSender,
            Liar,
            Trickler,
            Silent,
            EarlyClose,
            ResetInStream,
            Empty,
            Talkative,
            DataSender,
            DataSender,
            DataBroken,
            DataTalkative,
            DataIdle,
            Broadcaster,
            Listener,
            Deaf,
            Garbage,
            SilentClient,
        ];
        let mut kinds = Vec::new();
        if rng.bool() || theme == Theme::Flood {
            kinds.extend([WitnessSender, WitnessPinger]);
        }
        if theme == Theme::Flood {
            kinds.push(*rng.choice(&[Flood, DataFlood]).unwrap());
            kinds.extend(rng.choice([None, Some(Flood), Some(DataFlood)]).unwrap());
        }
        let others = rng.usize(1..=if theme == Theme::Flood { 6 } else { 10 });
        kinds.extend((0..others).map(|_| *rng.choice(&KINDS).unwrap()));
        let more = rng.usize(2..=8);
        kinds.extend((0..more).filter_map(|_| match theme {
            Theme::Mixed | Theme::Flood => None,
            Theme::Crowd => rng.choice([RightSender, SteadySender]),
            Theme::SlowDisk => rng.choice([RightSender, SteadySender, SteadySender]),
        }));
        for (number, kind) in kinds.into_iter().enumerate() {
            let latest = if theme == Theme::Crowd { ms(500) } else { ms(4000) };
            let start = if kind.is_witness() { ms(0) } else { up_to(rng, latest) };
            let quality = if kind.is_witness() {
                LineQuality {
                    piece_bytes: 1500,
                    delay: ms(1),
                    window_to_engine: 64 << 10,
                    window_to_peer: 64 << 10,
                    completion_delay: ms(1),
                }
            } else {
                LineQuality {
                    piece_bytes: *rng.choice(&[1, 40, 1500, 65536]).unwrap(),
                    delay: *rng.choice(&[ms(0), ms(1), ms(50)]).unwrap(),
                    window_to_engine: *rng.choice(&[512, 16 << 10, 256 << 10]).unwrap(),
                    window_to_peer: *rng.choice(&[512, 16 << 10, 256 << 10]).unwrap(),
                    completion_delay: *rng.choice(&[ms(0), ms(1), ms(20)]).unwrap(),
                }
            };
            let seed = rng.u64(..);
            let mut plan = PeerPlan { number, kind, start, seed, quality, tls: false };
            if kind.is_flood() {
                // Packets of a flood are long, and none may come too late.
                plan.quality.window_to_engine = 256 << 10;
            }
            self.peers.push(plan);
        }
    }

    fn choose_faults(&mut self, theme: Theme, rng: &mut Rng) {
        let count = rng.usize(0..=2);
        for number in 0..count {
            let kind = match rng.u8(..6) {
                5 => {
                    let (place, passes) =
                        rng.choice([("timer", 100), ("coalescer", 30), ("hub", 20)]).unwrap();
                    FaultKind::HelperPanic { place, pass: rng.u64(1..=passes) }
                }
                0 => FaultKind::Emfile { messages: rng.bool() },
                1 => FaultKind::Panic {
                    place: rng
                        .choice(["record_connection", "message_connection", "outbox"])
                        .unwrap(),
                    pass: rng.u64(1..=12),
                },
                2 => FaultKind::WallStep { by_ms: rng.i64(-10_000_000..10_000_000) },
                _ => FaultKind::Stop { grace: up_to(rng, ms(3000)) },
            };
            let at = match (kind, theme) {
                (FaultKind::Panic { .. } | FaultKind::HelperPanic { .. }, _) => Duration::ZERO,
                (_, Theme::Crowd) => up_to(rng, ms(1500)),
                _ => up_to(rng, ms(5000)),
            };
            self.faults.push(FaultPlan { number, at, kind });
        }
    }

    /// Without these peers and faults.
    pub fn without(&self, peers: &[usize], faults: &[usize]) -> Self {
        let mut less = self.clone();
        less.peers.retain(|peer| !peers.contains(&peer.number));
        less.faults.retain(|fault| !faults.contains(&fault.number));
        less
    }

    /// Whether the panic of a shared task is planned.
    pub fn plans_helper_panic(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, FaultKind::HelperPanic { .. }))
    }

    /// Whether a task's panic is planned.
    pub fn plans_panic(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, FaultKind::Panic { .. }))
    }
}
