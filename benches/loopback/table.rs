//! Prints the tables of a run in Markdown.

use crate::Options;
use crate::goals::Verdict;
use crate::run::Measured;
use crate::servers::Kind;
use crate::shapes::{Cores, Shape};
use crate::spread::Spread;
use crate::turn::{EngineFigures, Turn};

/// Pairs of receivers to compare: the first divided by the second.
const PAIRS: [(Kind, Kind); 5] = [
    (Kind::Ingest, Kind::Drain),
    (Kind::Drain, Kind::Blocking),
    (Kind::Ingest, Kind::Pandas),
    (Kind::Ingest, Kind::PandasGathering),
    (Kind::Ingest, Kind::Other),
];

/// Prints the conditions of the run.
pub fn print_head(options: &Options) {
    println!(
        "Record streams: receivers on core {}, sender on core {}, {} rounds, turns of about {} s, \
         {} KiB reads",
        options.server_core,
        options.client_core,
        options.rounds,
        options.seconds,
        options.buffer_bytes >> 10,
    );
    if options.free_core() == options.client_core {
        println!("The additional core of the free-core… shapes is the sender's.");
    }
}

/// Prints the table of one shape.
pub fn print_shape(measured: &Measured, options: &Options) {
    println!("\n### {}: {}\n", measured.shape.name, described(&measured.shape, options));
    println!(
        "| receiver | M records/s (min–max) | received | GB/s | CPU ns a record (min–max) | receiver's core | \
         sender's core | packet p50 / p99 µs |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    let order = [
        Kind::Drain,
        Kind::Ingest,
        Kind::Other,
        Kind::Blocking,
        Kind::Pandas,
        Kind::PandasGathering,
    ];
    for name in order.map(Kind::name) {
        if measured.turns.contains_key(name) {
            print_receiver(measured, name);
        }
    }
    println!();
    for (kind, other) in PAIRS.map(|(kind, other)| (kind.name(), other.name())) {
        let ratio = |figure: fn(&Turn) -> f64| measured.ratios(kind, other, figure);
        if let (Some(rate), Some(cpu)) = (ratio(Turn::rate), ratio(Turn::cpu_ns)) {
            let (rate, cpu) = (shown(Spread::of(&rate)), shown(Spread::of(&cpu)));
            println!("{kind} / {other}: rate {rate}, CPU a record {cpu}");
        }
    }
}

fn described(shape: &Shape, options: &Options) -> String {
    let Shape { connections, groups, packet_records, write_bytes, cores, .. } = shape;
    let where_ = match cores {
        Cores::One => "whole engine on one core".to_owned(),
        Cores::FreeCore => format!("aggregation may also use core {}", options.free_core()),
    };
    format!(
        "{connections} connections, {groups} groups each, {packet_records} records a packet, \
         writes of {write_bytes} bytes, {where_}"
    )
}

fn print_receiver(measured: &Measured, name: &str) {
    let spread = |figure: &dyn Fn(&Turn) -> f64| {
        Spread::of(&measured.figures(name, figure).expect("it had its turns"))
    };
    let cpu = spread(&Turn::cpu_ns);
    let rate = spread(&|turn| turn.rate() / 1e6);
    let receiver = spread(&|turn| turn.cpu_seconds / turn.seconds * 100.0).median;
    let sender = spread(&|turn| turn.sender_cpu_seconds / turn.seconds * 100.0).median;
    let engine = |figure: fn(&Turn, EngineFigures) -> f64| {
        let figure = |turn: &Turn| turn.engine.map_or(f64::NAN, |engine| figure(turn, engine));
        let median = spread(&figure).median;
        if median.is_nan() { "–".to_owned() } else { format!("{median:.1}") }
    };
    println!(
        "| {name} | {} | {} | {:.2} | {:.1} ({:.1}–{:.1}) | {receiver:.0} % | {sender:.0} % | {} / {} |",
        shown(rate),
        engine(|turn, engine| turn.records as f64 / engine.receive_seconds / 1e6),
        spread(&|turn| turn.byte_rate() / 1e9).median,
        cpu.median,
        cpu.min,
        cpu.max,
        engine(|_, engine| engine.latency_us_p50),
        engine(|_, engine| engine.latency_us_p99),
    );
}

fn shown(spread: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}

/// Prints every goal, whether it was measured or not.
pub fn print_goals(goals: &[Verdict], options: &Options) {
    println!(
        "\n### Goals\n\n| shape | what | goal | measured (min–max) | |\n| --- | --- | --- | --- | --- |"
    );
    if !options.bench {
        println!("| A tiny round to check that everything works; the figures mean nothing. |");
        return;
    }
    for Verdict { shape, what, goal, measured, met } in goals {
        let measured = measured.map_or("not run".to_owned(), shown);
        let met = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        println!("| {shape} | {what} | {goal} | {measured} | {met} |");
    }
}
