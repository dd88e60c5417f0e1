//! Runs one turn of one receiver: measures the time until it has answered and its processor time,
//! and checks the answer.

use crate::process::own_cpu;
use crate::sender::Stream;
use crate::servers::Server;
use ringest::client::verify::results::{ResultLine, finished_lines, parse_line};
use ringest::schema::Schema;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::{Duration, Instant};

/// Maximum number of differences listed in an error.
const DIFFERENCES_SHOWN: usize = 3;

/// The measurements of one turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Data records of all connections.
    pub records: u64,
    /// Bytes of all connections.
    pub bytes: u64,
    /// From before the first connection until the last answer was read.
    pub seconds: f64,
    /// From before the first connection until the last was closed.
    pub send_seconds: f64,
    /// Processor time of the receiver, user and system.
    pub cpu_seconds: f64,
    /// Processor time of the sender.
    pub sender_cpu_seconds: f64,
    /// The engine's own figures, each the worst over all connections.
    pub engine: Option<EngineFigures>,
}

/// Figures from the engine's own result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct EngineFigures {
    /// Median latency of a packet, from its arrival until it was decoded.
    pub latency_us_p50: f64,
    /// 99th percentile of the same latency.
    pub latency_us_p99: f64,
    /// From the first byte to the last.
    pub receive_seconds: f64,
    /// From the last byte until the groups were ready.
    pub aggregate_seconds: f64,
}

impl Turn {
    /// Records per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// Bytes per second.
    pub fn byte_rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// Processor time of the receiver for each record.
    pub fn cpu_ns(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.records as f64
    }
}

impl EngineFigures {
    fn worse(self, other: Self) -> Self {
        EngineFigures {
            latency_us_p50: self.latency_us_p50.max(other.latency_us_p50),
            latency_us_p99: self.latency_us_p99.max(other.latency_us_p99),
            receive_seconds: self.receive_seconds.max(other.receive_seconds),
            aggregate_seconds: self.aggregate_seconds.max(other.aggregate_seconds),
        }
    }
}

/// The answer of a drain.
#[derive(Deserialize)]
struct Drained {
    bytes: u64,
}

/// The fields of the engine's result that are used here, apart from its groups.
#[derive(Deserialize)]
struct EngineLine {
    latency_us: LatencyLine,
    receive_seconds: f64,
    aggregate_seconds: f64,
}

#[derive(Deserialize)]
struct LatencyLine {
    p50: f64,
    p99: f64,
}

/// Sends `stream` over `connections` connections and waits for the answers, which are checked after
/// the clock has stopped. `answers` is a reusable buffer for them.
///
/// # Errors
/// If anything is lost, or an answer is wrong.
pub fn run(
    server: &mut Server,
    connections: usize,
    stream: &Stream,
    answers: &mut Vec<u8>,
) -> Result<Turn, Box<dyn Error>> {
    let (cpu, sender_cpu) = (server.cpu()?, own_cpu());
    let begun = Instant::now();
    let senders = stream.send(server.address, connections);
    // If the receiver has failed, sending fails too; its own output explains more.
    let sent = std::thread::spawn(move || (senders.finish(), Instant::now()));
    let answered = server.read_answers(connections, answers);
    let elapsed = begun.elapsed();
    let (cpu, sender_cpu) = (server.cpu()? - cpu, own_cpu() - sender_cpu);
    let (sent, closed) = sent.join().expect("no panic");
    answered?;
    let sent_bytes = sent?;

    let engine = judge(server, stream, sent_bytes, answers)?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(Turn {
        records: stream.records * connections as u64,
        bytes: sent_bytes * connections as u64,
        seconds: seconds(elapsed),
        send_seconds: seconds(closed - begun),
        cpu_seconds: seconds(cpu),
        sender_cpu_seconds: seconds(sender_cpu),
        engine,
    })
}

/// Checks every line. Returns the figures of the engine's own lines.
fn judge(
    server: &Server,
    stream: &Stream,
    sent_bytes: u64,
    answers: &[u8],
) -> Result<Option<EngineFigures>, Box<dyn Error>> {
    let (lines, _) = finished_lines(answers);
    let mut slowest: Option<EngineFigures> = None;
    for line in lines {
        if !server.kind.aggregates() {
            let Drained { bytes } = serde_json::from_slice(line)?;
            if bytes != sent_bytes {
                return Err(format!("{bytes} bytes received, {sent_bytes} sent").into());
            }
            continue;
        }
        judge_groups(line, stream)?;
        if let Ok(line) = serde_json::from_slice::<EngineLine>(line) {
            let figures = line.figures();
            slowest = Some(slowest.map_or(figures, |slowest| slowest.worse(figures)));
        }
    }
    Ok(slowest)
}

impl EngineLine {
    fn figures(&self) -> EngineFigures {
        EngineFigures {
            latency_us_p50: self.latency_us.p50,
            latency_us_p99: self.latency_us.p99,
            receive_seconds: self.receive_seconds,
            aggregate_seconds: self.aggregate_seconds,
        }
    }
}

/// Compares an answer with the expected result of the stream.
fn judge_groups(line: &[u8], stream: &Stream) -> Result<(), Box<dyn Error>> {
    let ResultLine { status, records, groups, .. } = parse_line(line, &Schema::built_in())?;
    let differences = stream.expected.differences(&status, records, &groups);
    if differences.is_empty() {
        return Ok(());
    }
    let (count, shown) = (differences.len(), differences.len().min(DIFFERENCES_SHOWN));
    let shown = differences[..shown].join("; ");
    Err(format!("the answer has {count} differences: {shown}").into())
}
