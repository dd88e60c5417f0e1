//! Runs worlds: all of a seed, or what a shrinker has left of it.

use crate::model::{FORMS, Form};
use crate::oracle::{Run, told_to_stop};
use crate::peers::{PeerStory, live};
use crate::scenario::{FaultKind, FaultPlan, Scenario};
use ringest::internals::limits::QUEUED_BYTES;
use ringest::internals::simulation::{
    EngineRemains, Protocol, SimulatedEngine, VirtualSleep, WorldSettings, note, plan_panic,
    run_world, step_wall_clock, take_log,
};
use ringest::internals::{Config, Counters, WorkerTally};
use ringest::schema::Schema;
use std::cell::RefCell;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The virtual time after which a world is given up.
const LIMIT: Duration = Duration::from_secs(3600);

/// Small windows and the like are counted without asking; those who ask make room for them.
const FORCED_BYTES: usize = 1 << 20;

/// A system error: no more descriptors.
const EMFILE: i32 = 24;

/// What of a seed's world is run.
#[derive(Clone, Debug)]
pub struct Selection {
    pub seed: u64,
    pub without_peers: Vec<usize>,
    pub without_faults: Vec<usize>,
}

/// What a run says.
pub struct Judged {
    pub verdict: Result<(), String>,
    pub log: Vec<String>,
}

fn numbers(name: &str) -> Vec<usize> {
    let text = env::var(name).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap_or_else(|_| panic!("{name}: {part:?}"))).collect()
}

impl Selection {
    pub fn all(seed: u64) -> Self {
        Selection { seed, without_peers: Vec::new(), without_faults: Vec::new() }
    }

    pub fn from_environment(seed: u64) -> Self {
        Selection {
            seed,
            without_peers: numbers("RINGEST_SIM_WITHOUT_PEERS"),
            without_faults: numbers("RINGEST_SIM_WITHOUT_FAULTS"),
        }
    }

    fn scenario(&self) -> Scenario {
        Scenario::of(self.seed).without(&self.without_peers, &self.without_faults)
    }

    pub fn describe(&self) -> String {
        let scenario = self.scenario();
        let peers: Vec<_> =
            scenario.peers.iter().map(|p| format!("{} {:?}", p.number, p.kind)).collect();
        let faults = scenario.faults.iter();
        let faults: Vec<_> =
            faults.map(|f| format!("{} {:?} at {:?}", f.number, f.kind, f.at)).collect();
        format!("peers: {}; faults: {}", peers.join(", "), faults.join(", "))
    }
}

/// The command that repeats a run.
pub fn repeat_of(selection: &Selection) -> String {
    let list =
        |numbers: &[usize]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    format!(
        "RINGEST_SIM_SEED={} RINGEST_SIM_WITHOUT_PEERS={} RINGEST_SIM_WITHOUT_FAULTS={} \
         cargo test --features simulation --test ringest-sim worlds_hold -- --nocapture",
        selection.seed,
        list(&selection.without_peers),
        list(&selection.without_faults)
    )
}

pub fn fails(selection: &Selection) -> bool {
    run(selection).verdict.is_err()
}

/// Takes peers and faults away as long as the world still fails.
pub fn shrink(selection: &Selection) -> Selection {
    let mut small = selection.clone();
    loop {
        let scenario = small.scenario();
        let fewer_faults = scenario.faults.iter().map(|fault| {
            let mut fewer = small.clone();
            fewer.without_faults.push(fault.number);
            fewer
        });
        let fewer_peers = scenario.peers.iter().map(|peer| {
            let mut fewer = small.clone();
            fewer.without_peers.push(peer.number);
            fewer
        });
        match fewer_faults.chain(fewer_peers).find(fails) {
            Some(fewer) => small = fewer,
            None => return small,
        }
    }
}

/// Runs a world and judges it.
pub fn run(selection: &Selection) -> Judged {
    let scenario = selection.scenario();
    let form = &FORMS[scenario.form];
    let settings =
        WorldSettings { seed: scenario.seed, look_cost: scenario.look_cost, limit: LIMIT };
    let ran = catch_unwind(AssertUnwindSafe(|| run_world(settings, play(&scenario, form))));
    let log = take_log();
    let verdict = match ran {
        Ok(Ok((stories, remains, broken_limit))) => {
            let told_to_stop = told_to_stop(&scenario);
            Run { scenario, form, stories, remains, broken_limit, told_to_stop }.judge()
        }
        Ok(Err(stuck)) => Err(format!("the world is stuck: {stuck:?}")),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("a panic: {}", said.unwrap_or_default()))
        }
    };
    Judged { verdict, log }
}

/// What was seen, what is left, and which limit was passed if one was.
type Played = (Vec<PeerStory>, EngineRemains, Option<String>);

async fn play(scenario: &Scenario, form: &'static Form) -> Played {
    let schema = Arc::new(Schema::from_toml(form.toml).expect("a schema of the world"));
    let (workers, delays) = (scenario.workers, scenario.delays);
    for fault in &scenario.faults {
        if let FaultKind::Panic { place, pass } | FaultKind::HelperPanic { place, pass } =
            fault.kind
        {
            plan_panic(place, pass);
        }
    }
    let config = scenario.config.clone();
    let engine = Rc::new(SimulatedEngine::start(config, &schema, workers, delays));
    let stories = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = Vec::new();
    for peer in scenario.peers.clone() {
        let protocol = match peer.kind.is_message_client() {
            true => Protocol::Messages,
            false => Protocol::Records,
        };
        let dialer = engine.dialer(protocol).clone();
        let (stories, idle) = (Rc::clone(&stories), scenario.config.idle_timeout);
        tasks.push(tokio::task::spawn_local(async move {
            let story = live(peer, form, dialer, idle).await;
            stories.borrow_mut().push(story);
        }));
    }
    for fault in scenario.faults.clone() {
        let engine = Rc::clone(&engine);
        tasks.push(tokio::task::spawn_local(async move { happen(fault, &engine).await }));
    }
    let broken_limit = Rc::new(RefCell::new(None));
    let watching = tokio::task::spawn_local(watch_limits(
        Arc::clone(engine.counters()),
        scenario.config.clone(),
        Rc::clone(&broken_limit),
    ));
    for task in tasks {
        task.await.expect("peers do not panic");
    }
    if !engine.is_stopping() {
        engine.stop(LIMIT);
    }
    note("all peers are done");
    let engine = Rc::into_inner(engine).expect("the faults are over");
    let remains = engine.wait().await;
    note("the engine has stopped");
    watching.abort();
    let broken_limit = broken_limit.borrow_mut().take();
    let mut stories = Rc::into_inner(stories).expect("the peers are over").into_inner();
    stories.sort_by_key(|story| story.plan.number);
    (stories, remains, broken_limit)
}

/// Looks all the time whether what is open and queued stays within its limits.
async fn watch_limits(
    counters: Arc<Counters>,
    config: Config,
    broken: Rc<RefCell<Option<String>>>,
) {
    let memory = (counters.memory.limit() + FORCED_BYTES) as u64;
    loop {
        let open = |protocol: Protocol| -> u64 {
            let counts = |worker: &Arc<WorkerTally>| {
                let kind = protocol as usize;
                worker.opened[kind].get() - worker.closed[kind].get()
            };
            counters.workers.iter().map(counts).sum()
        };
        let (streams, clients) = (open(Protocol::Records), open(Protocol::Messages));
        let queued = counters.queued_bytes();
        for (what, count, limit) in [
            ("streams", streams, config.max_streams as u64),
            ("connections", streams + clients, config.max_connections as u64),
            ("queued bytes", queued as u64, QUEUED_BYTES as u64),
            ("bytes of memory", counters.memory.used() as u64, memory),
        ] {
            if count > limit {
                broken.borrow_mut().get_or_insert(format!("{count} {what}, and {limit} may be"));
            }
        }
        VirtualSleep::of(Duration::from_millis(20)).await;
    }
}

async fn happen(fault: FaultPlan, engine: &SimulatedEngine) {
    VirtualSleep::until(fault.at).await;
    match fault.kind {
        FaultKind::Emfile { messages } => {
            let protocol = if messages { Protocol::Messages } else { Protocol::Records };
            engine.dialer(protocol).fail(EMFILE);
        }
        FaultKind::WallStep { by_ms } => step_wall_clock(by_ms),
        FaultKind::Stop { grace } => engine.stop(grace),
        FaultKind::Panic { .. } | FaultKind::HelperPanic { .. } => {}
    }
}
