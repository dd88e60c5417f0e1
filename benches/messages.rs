//! `cargo bench --bench messages`: compares the message server with redis-server and nats-server in
//! one run and in turns, with a client that checks every byte.
//!
//! The servers share one core and the client has another, so each figure is that of one server
//! core. If the client's core is the bottleneck instead, compare the processor time for each
//! request.

#[path = "messages/broadcast.rs"]
mod broadcast;
#[path = "common/process.rs"]
mod process;
#[path = "messages/requests.rs"]
mod requests;
#[path = "messages/server.rs"]
mod server;
#[path = "common/spread.rs"]
mod spread;

use clap::Parser;
use process::{in_path, pin, raise_open_files};
use requests::Load;
use serde_json::json;
use server::Server;
use spread::Spread;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Number of receivers of a broadcast.
const RECEIVERS: usize = 1000;
/// Payload sizes of broadcasts, in bytes.
const PAYLOADS: [usize; 2] = [16, 128];
const LOADS: [Load; 4] = [
    Load { connections: 1, pipeline: 1 },
    Load { connections: 50, pipeline: 1 },
    Load { connections: 1000, pipeline: 1 },
    Load { connections: 50, pipeline: 32 },
];

/// Compares `ringest serve` with redis-server (PING) and nats-server (broadcasts)
#[derive(Parser)]
struct Options {
    /// Number of rounds; in each, every server has one turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each turn, after a warm-up of a quarter of that time
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the client
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Also write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only rows whose name contains this: 1x1, 50x1, 1000x1, 50x32, broadcast-16, broadcast-128
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Compare with this other build of ringest instead
    #[arg(long, value_name = "PROGRAM")]
    against: Option<String>,
    /// Passed by `cargo bench`. Without it, as in `cargo test`, a single short round checks that
    /// everything works, and its figures mean nothing
    #[arg(long, hide = true)]
    bench: bool,
}

/// One turn of one server.
struct Turn {
    server: &'static str,
    rate: f64,
    /// Median and 99th percentile, in microseconds.
    latency_us: Option<(f64, f64)>,
    /// Processor time of the server for each request or delivery.
    server_ns: f64,
    /// Shares of their cores that the server and the client used.
    server_share: f64,
    client_share: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::parse();
    if !options.bench {
        (options.rounds, options.seconds) = (1, 0.05);
    }
    if options.rounds == 0 || !(0.01..=600.0).contains(&options.seconds) {
        return Err("--rounds must be at least 1 and --seconds from 0.01 to 600".into());
    }
    raise_open_files()?;
    pin(options.client_core)?;
    let mut rows = compare_requests(&options)?;
    rows.extend(compare_broadcasts(&options)?);
    if let Some(path) = &options.json {
        let machine = json!({
            "server_core": options.server_core,
            "client_core": options.client_core,
            "rounds": options.rounds,
            "seconds": options.seconds,
        });
        let all = json!({ "run": machine, "rows": rows });
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    Ok(())
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| row.contains(only.as_str()))
    }

    fn turn(&self) -> (Duration, Duration) {
        let measured = Duration::from_secs_f64(self.seconds);
        (measured / 4, measured)
    }

    /// Runs all turns; the servers alternate in going first.
    fn take_turns(
        &self,
        servers: &[Server],
        mut turn: impl FnMut(&Server) -> Result<Turn, Box<dyn Error>>,
    ) -> Result<Vec<Turn>, Box<dyn Error>> {
        let mut turns = Vec::new();
        for round in 0..self.rounds {
            for place in 0..servers.len() {
                let server = &servers[(place + round) % servers.len()];
                let done = turn(server).map_err(|error| format!("{}: {error}", server.name))?;
                turns.push(done);
            }
        }
        Ok(turns)
    }
}

/// Starts ringest and, if it is installed, its rival.
fn start(
    options: &Options,
    rival: &str,
    start_rival: fn(usize) -> Result<Server, Box<dyn Error>>,
) -> Result<Vec<Server>, Box<dyn Error>> {
    let mut servers = vec![Server::ringest(options.server_core)?];
    if let Some(program) = &options.against {
        servers.push(Server::ringest_at("other", program, options.server_core)?);
        return Ok(servers);
    }
    match in_path(rival) {
        Some(_) => servers.push(start_rival(options.server_core)?),
        None => println!("{rival} is not in PATH; there is nothing to compare with"),
    }
    Ok(servers)
}

fn compare_requests(options: &Options) -> Result<Vec<serde_json::Value>, Box<dyn Error>> {
    let name = |load: &Load| format!("{}x{}", load.connections, load.pipeline);
    let loads: Vec<_> = LOADS.iter().filter(|load| options.wants(&name(load))).collect();
    if loads.is_empty() {
        return Ok(Vec::new());
    }
    let servers = start(options, "redis-server", Server::redis)?;
    let (ringest, redis) = (requests::RINGEST, requests::REDIS);
    println!(
        "PING: ringest {} bytes and {} back, redis {} bytes and {} back; server on core {}, \
         client on core {}, {} rounds of {} s",
        ringest.request.len(),
        ringest.reply.len(),
        redis.request.len(),
        redis.reply.len(),
        options.server_core,
        options.client_core,
        options.rounds,
        options.seconds
    );
    print_head("connections × pipeline");
    let (warm_up, measured) = options.turn();
    let mut rows = Vec::new();
    for &load in loads {
        let turns = options.take_turns(&servers, |server| {
            let dialect = if server.name == "redis" { redis } else { ringest };
            let sample = requests::run(server, dialect, load, warm_up, measured)?;
            let us = |quantile| sample.latency.value_at_quantile(quantile) as f64 / 1e3;
            let latency_us = Some((us(0.5), us(0.99)));
            let cpu = (sample.server_cpu, sample.client_cpu);
            Ok(Turn::new(server, sample.requests as f64, sample.elapsed, cpu, latency_us))
        })?;
        rows.push(print_row(&name(&load), &turns));
    }
    println!();
    Ok(rows)
}

fn compare_broadcasts(options: &Options) -> Result<Vec<serde_json::Value>, Box<dyn Error>> {
    let name = |bytes: usize| format!("broadcast-{bytes}");
    let payloads: Vec<_> = PAYLOADS.into_iter().filter(|&p| options.wants(&name(p))).collect();
    if payloads.is_empty() {
        return Ok(Vec::new());
    }
    let servers = start(options, "nats-server", Server::nats)?;
    println!(
        "Broadcast to {RECEIVERS} receivers, deliveries per second; at most {} messages ahead of \
         the slowest receiver",
        broadcast::WINDOW
    );
    print_head("payload");
    let (warm_up, measured) = options.turn();
    let mut rows = Vec::new();
    for bytes in payloads {
        let payload = vec![b'b'; bytes];
        let dialects = [broadcast::Dialect::ringest(&payload), broadcast::Dialect::nats(&payload)];
        let turns = options.take_turns(&servers, |server| {
            let dialect = &dialects[usize::from(server.name == "nats")];
            let sample = broadcast::run(server, dialect, RECEIVERS, warm_up, measured)?;
            let cpu = (sample.server_cpu, sample.client_cpu);
            Ok(Turn::new(server, sample.deliveries, sample.elapsed, cpu, None))
        })?;
        rows.push(print_row(&name(bytes), &turns));
    }
    println!();
    Ok(rows)
}

impl Turn {
    fn new(
        server: &Server,
        done: f64,
        elapsed: Duration,
        (server_cpu, client_cpu): (Duration, Duration),
        latency_us: Option<(f64, f64)>,
    ) -> Self {
        Turn {
            server: server.name,
            rate: done / elapsed.as_secs_f64(),
            latency_us,
            server_ns: server_cpu.as_secs_f64() * 1e9 / done.max(1.0),
            server_share: server_cpu.as_secs_f64() / elapsed.as_secs_f64(),
            client_share: client_cpu.as_secs_f64() / elapsed.as_secs_f64(),
        }
    }
}

fn print_head(what: &str) {
    println!(
        "| {what} | server | per second (min–max) | p50 µs | p99 µs | server CPU ns each | \
         server core | client core | ratio (min–max) |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
}

/// Prints a line for each server. Returns all figures of the row.
fn print_row(row: &str, turns: &[Turn]) -> serde_json::Value {
    let mut names: Vec<_> = turns.iter().map(|turn| turn.server).collect();
    names.sort_unstable_by_key(|&name| name != "ringest");
    names.dedup();
    let of = |name: &str, value: &dyn Fn(&Turn) -> f64| -> Vec<f64> {
        turns.iter().filter(|turn| turn.server == name).map(value).collect()
    };
    let mut figures = Vec::new();
    for &name in &names {
        let rates = of(name, &|turn| turn.rate);
        let rate = Spread::of(&rates);
        let median = |value: &dyn Fn(&Turn) -> f64| Spread::of(&of(name, value)).median;
        let latency = |value: fn((f64, f64)) -> f64| {
            let us = median(&|turn| turn.latency_us.map_or(f64::NAN, value));
            if us.is_nan() { "–".to_owned() } else { format!("{us:.1}") }
        };
        let (p50, p99) = (latency(|both| both.0), latency(|both| both.1));
        let server_ns = median(&|turn| turn.server_ns);
        let (server, client) = (median(&|turn| turn.server_share), median(&|t| t.client_share));
        // The ratio within each round: anything that slows the machine down affects both.
        let ratio = (name == "ringest" && names.len() == 2).then(|| {
            let rivals = of(names[1], &|turn| turn.rate);
            Spread::of(
                &rates.iter().zip(&rivals).map(|(own, rival)| own / rival).collect::<Vec<_>>(),
            )
        });
        println!(
            "| {row} | {name} | {:.0} ({:.0}–{:.0}) | {p50} | {p99} | {server_ns:.0} | {:.0} % | \
             {:.0} % | {} |",
            rate.median,
            rate.min,
            rate.max,
            server * 100.0,
            client * 100.0,
            ratio.map_or(String::new(), |r| format!("{:.2} ({:.2}–{:.2})", r.median, r.min, r.max)),
        );
        figures.push(json!({
            "server": name,
            "per_second": rates,
            "p50_us": of(name, &|turn| turn.latency_us.map_or(0.0, |both| both.0)),
            "p99_us": of(name, &|turn| turn.latency_us.map_or(0.0, |both| both.1)),
            "server_cpu_ns": of(name, &|turn| turn.server_ns),
            "client_core_share": of(name, &|turn| turn.client_share),
        }));
    }
    json!({ "row": row, "servers": figures })
}
