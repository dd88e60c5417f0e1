//! Message clients and record streams with churn for a long time: no error, no result that is
//! wrong, and memory that does not grow.

use crate::common::beside::stats;
use crate::common::oracle::{Record, assert_result, end_record, packet, packets, records};
use crate::common::wire::*;
use crate::common::{Engine, connect_as_new, until};
use crate::setting;
use plotters::prelude::*;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Of the churn, so much is of record streams: each has a result that is compared.
const STREAMS_SHARE: u64 = 10;
/// Packets of a stream that are sent again and again.
const PACKET_RECORDS: usize = 8;

/// How long and how much, by environment variables.
#[derive(Clone, Copy)]
struct Settings {
    seconds: u64,
    clients: u64,
    streams: u64,
    churn: u64,
}

impl Settings {
    fn new() -> Self {
        Settings {
            seconds: setting("RINGEST_SOAK_SECONDS", 30),
            clients: setting("RINGEST_SOAK_CLIENTS", 300),
            streams: setting("RINGEST_SOAK_STREAMS", 25),
            churn: setting("RINGEST_SOAK_CHURN", 50),
        }
    }
}

/// What all threads of a run share.
struct Soak {
    settings: Settings,
    engine: Engine,
    /// Whether all clients are there.
    begun: AtomicBool,
    over: AtomicBool,
    churned: AtomicU64,
    pings: AtomicU64,
    /// How many packets each stream has sent that has ended, by its address.
    ended: Mutex<HashMap<SocketAddr, usize>>,
    packet: Vec<Record>,
}

/// When the next of so many a second is due.
struct Pace {
    begun: Instant,
    per_second: f64,
    done: u64,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Pace { begun: Instant::now(), per_second, done: 0 }
    }

    /// Whether one is due now; counts it.
    fn is_due(&mut self) -> bool {
        let due = (self.begun.elapsed().as_secs_f64() * self.per_second) as u64 > self.done;
        self.done += u64::from(due);
        due
    }
}

impl Soak {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Clients that ping in turn; some leave, and others come in their place.
    fn serve_clients(&self) {
        let connect = || {
            let mut client = Client::connect(self.engine.messages());
            client.ping(0);
            client
        };
        let mut clients: Vec<_> = (0..self.settings.clients).map(|_| connect()).collect();
        self.begun.store(true, Ordering::Relaxed);
        let churn = self.settings.churn - self.settings.churn / STREAMS_SHARE;
        let (mut pace, mut random) = (Pace::new(churn as f64), fastrand::Rng::with_seed(1));
        let mut number = 0;
        while !self.is_over() {
            let next = number as usize % clients.len();
            clients[next].ping(number);
            number += 1;
            self.pings.fetch_add(1, Ordering::Relaxed);
            while pace.is_due() {
                let leaving = random.usize(..clients.len());
                let mut left = std::mem::replace(&mut clients[leaving], connect());
                // Some say goodbye, others are just gone.
                if random.bool() {
                    left.send(&frame(CLOSE, b""));
                    left.expect_end();
                }
                self.churned.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(200));
        }
        for mut client in clients {
            client.send(&frame(CLOSE, b""));
            client.expect_end();
        }
    }

    /// Streams that send a packet in turn; some end, and others begin in their place.
    fn send_streams(&self) {
        let bytes = packets(&self.packet, PACKET_RECORDS);
        let connect = || (connect_as_new(self.engine.address).expect("the engine accepts"), 0);
        let mut streams: Vec<(TcpStream, usize)> =
            (0..self.settings.streams).map(|_| connect()).collect();
        let churn = self.settings.churn / STREAMS_SHARE;
        let (mut pace, mut random) = (Pace::new(churn as f64), fastrand::Rng::with_seed(2));
        while !self.is_over() {
            for (stream, sent) in &mut streams {
                stream.write_all(&bytes).expect("the engine reads");
                *sent += 1;
            }
            while pace.is_due() {
                let ending = random.usize(..streams.len());
                self.end(std::mem::replace(&mut streams[ending], connect()));
                self.churned.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(20));
        }
        streams.into_iter().for_each(|stream| self.end(stream));
    }

    fn end(&self, (mut stream, sent): (TcpStream, usize)) {
        self.ended.lock().unwrap().insert(stream.local_addr().unwrap(), sent);
        stream.write_all(&packet(&[end_record()])).expect("the engine reads");
    }

    /// Compares results as they come; gives how many there were.
    fn compare_results(&self) -> u64 {
        let mut file = BufReader::new(File::open(self.engine.results_path()).unwrap());
        let (mut line, mut compared) = (String::new(), 0);
        loop {
            let over = self.is_over() && self.ended.lock().unwrap().is_empty();
            let bytes = file.read_line(&mut line).unwrap();
            if line.ends_with('\n') {
                self.compare(&serde_json::from_str(&line).unwrap());
                compared += 1;
                line.clear();
            } else if over {
                return compared;
            } else if bytes == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn compare(&self, result: &Value) {
        let peer: SocketAddr = result["peer"].as_str().unwrap().parse().unwrap();
        let packets = self.ended.lock().unwrap().remove(&peer);
        let packets = packets.unwrap_or_else(|| panic!("{peer} has not ended, or has twice"));
        assert_eq!(result["status"], "complete", "{result}");
        let count = |group: &Value| group["count"].as_u64().unwrap();
        // Every packet is the same, so every count is a multiple, and everything else is as in one.
        let mut of_one = result.clone();
        let groups = of_one["groups"].as_array_mut().unwrap();
        for group in groups.iter_mut() {
            let times = packets.max(1) as u64;
            assert_eq!(count(group) % times, 0, "{result}");
            group["count"] = (count(group) / times).into();
            group["C_sum"] = (group["C_sum"].as_f64().unwrap() / times as f64).into();
        }
        assert_eq!(result["records"], packets * PACKET_RECORDS, "{result}");
        if packets > 0 {
            of_one["records"] = PACKET_RECORDS.into();
            assert_result(&of_one, &self.packet);
        }
    }

    /// Seconds since the start, and MiB of resident memory, every second.
    fn sample(&self) -> Vec<(f64, f64)> {
        while !self.begun.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        let mut samples = Vec::new();
        while begun.elapsed().as_secs() < self.settings.seconds {
            thread::sleep(Duration::from_secs(1));
            let mib = self.engine.memory_resident_kib() as f64 / 1024.0;
            samples.push((begun.elapsed().as_secs_f64(), mib));
        }
        self.over.store(true, Ordering::Relaxed);
        samples
    }
}

/// Slope by least squares, in MiB an hour.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| samples.iter().map(value).sum::<f64>() / n;
    let (at, mib) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = samples.iter().map(|sample| (sample.0 - at) * (sample.1 - mib)).sum();
    let variance: f64 = samples.iter().map(|sample| (sample.0 - at).powi(2)).sum();
    covariance / variance * 3600.0
}

#[test]
fn the_slope_of_a_line_is_its_slope() {
    let line: Vec<_> = (0..50).map(|n| (f64::from(n), 7.0 + f64::from(n) / 1800.0)).collect();
    assert!((slope(&line) - 2.0).abs() < 1e-9);
}

/// A socket on each side for each connection, and what else there is.
fn raise_open_files(settings: Settings) {
    let need = settings.clients + settings.streams + 500;
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= need, "{need} open files are needed, the hard limit is {most} (ulimit -Hn)");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Draws the samples where `RINGEST_SOAK_PLOT` says.
fn draw(samples: &[(f64, f64)]) {
    let Some(path) = std::env::var_os("RINGEST_SOAK_PLOT") else { return };
    let minutes = samples.iter().map(|(at, mib)| (at / 60.0, *mib));
    let most = samples.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
    let last = samples.last().map_or(1.0, |(at, _)| at / 60.0);
    let area = SVGBackend::new(&path, (800, 300)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, 0.0..most * 1.2)
        .unwrap();
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("minutes").y_desc("resident memory, MiB").draw().unwrap();
    chart.draw_series(LineSeries::new(minutes, &BLUE)).unwrap();
    area.present().unwrap();
}

#[test]
#[ignore = "long: RINGEST_SOAK_SECONDS, 30 by default"]
fn a_long_run_with_churn_has_no_error_and_does_not_grow() {
    let settings = Settings::new();
    raise_open_files(settings);
    let connections = (settings.clients + settings.streams + 100).to_string();
    let streams = (settings.streams + 50).to_string();
    // Each of many clients has its turn late on a busy machine.
    let options = ["--rate-limit", "0", "--global-rate-limit", "0", "--idle-timeout", "1h"];
    let limits = ["--max-connections", &connections, "--max-streams", &streams];
    let soak = Soak {
        settings,
        engine: Engine::start_both(&[&options[..], &limits].concat()),
        begun: AtomicBool::new(false),
        over: AtomicBool::new(false),
        churned: AtomicU64::new(0),
        pings: AtomicU64::new(0),
        ended: Mutex::default(),
        packet: records(PACKET_RECORDS, 5)
            .into_iter()
            .map(|record| Record { c: record.b.into(), ..record })
            .collect(),
    };
    let (samples, compared) = thread::scope(|scope| {
        let clients = scope.spawn(|| soak.serve_clients());
        let streams = scope.spawn(|| soak.send_streams());
        let sampling = scope.spawn(|| soak.sample());
        // It ends once everybody else has, and everything that has ended has been compared.
        let samples = sampling.join().unwrap();
        streams.join().unwrap();
        clients.join().unwrap();
        (samples, soak.compare_results())
    });
    until("everybody to be gone", || {
        let active = &stats(&soak.engine)["connections_active"];
        active["records"] == 0 && active["messages"] == 0
    });
    let stats = stats(&soak.engine);
    draw(&samples);
    // What is allocated for the first time is not growth.
    let settled = &samples[samples.len() / 3..];
    let growth = slope(settled);
    let (first, last) = (settled[0].1, settled[settled.len() - 1].1);
    println!(
        "soak: {} s, {} clients, {} streams, {} churned, {} pings, {compared} results exact; \
         {first:.1} MiB, then {last:.1} MiB; slope {growth:+.2} MiB/h",
        settings.seconds,
        settings.clients,
        settings.streams,
        soak.churned.load(Ordering::Relaxed),
        soak.pings.load(Ordering::Relaxed),
    );
    for key in ["faults", "slow_consumers", "rate_limited"] {
        assert_eq!(stats[key], 0, "{key}: {stats}");
    }
    assert_eq!(stats["streams_complete"], compared, "{stats}");
    // A short run says little about a slope: what is left over is bounded.
    assert!(last < first + 16.0, "{first} MiB, then {last} MiB");
    assert!(settings.seconds < 1200 || growth < 1.0, "{growth} MiB/h");
    soak.engine.signal(Signal::TERM);
    let (status, _, log) = soak.engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
