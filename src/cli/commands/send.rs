//! `ringest send`: sends generated record streams to an engine and, on request, compares its
//! results with what was sent.

use super::client_tls::client_tls;
use crate::cli::args::environment::complain;
use crate::cli::args::send::SendOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::progress::{self, Unit};
use crate::cli::terminal::status_line::say;
use crate::client::messages::transport::ClientTls;
use crate::client::records::block::PacketBlock;
use crate::client::records::generate::StreamSpec;
use crate::client::records::pace::Pace;
use crate::client::records::sender::{SendError, SendSettings, Sent, send_stream};
use crate::client::verify::results::{ResultLine, finished_lines, parse_line};
use crate::wire::schema::Schema;
use crate::wire::text::{counted, time_text};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the result file is read.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &SendOptions) -> u8 {
    let address = match resolve(&options.host, options.records_port) {
        Ok(address) => address,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    // Opened first, so that a wrong path is reported before anything is sent, and so that older
    // results are skipped.
    let results = match options.verify.as_deref().map(ResultReader::open_at_end).transpose() {
        Ok(results) => results,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let prepared = client_tls(options.tls, &options.trust, &options.host)
        .and_then(|tls| Ok((tls, block(options)?)));
    let (tls, block) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let (sent, failures) = match send_all(options, address, tls.as_ref(), &block) {
        Ok(outcome) => outcome,
        Err(error) => {
            complain(error);
            return EXIT_HOST;
        }
    };
    summarise(&sent, options.rate);
    failures.iter().for_each(complain);
    let mut differences = 0;
    if let Some(results) = results {
        differences = verify(results, &block.spec().schema, &sent, options.verify_timeout);
    }
    if failures.is_empty() && differences == 0 { EXIT_OK } else { EXIT_FAILED }
}

fn block(options: &SendOptions) -> Result<Arc<PacketBlock>, String> {
    let spec = StreamSpec {
        schema: options.schema.load()?,
        records: options.records,
        packet_records: options.packet_records as usize,
        padding: options.padding.into(),
        seed: options.seed,
        groups: options.groups,
    };
    PacketBlock::new(&spec).map_err(|error| error.to_string())
}

/// The address of the engine.
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let name = host.escape_default();
    let resolved = (host, port).to_socket_addrs();
    let mut addresses =
        resolved.map_err(|error| format!("cannot resolve --host {name}: {error}"))?;
    addresses.next().ok_or_else(|| format!("--host {name} has no address"))
}

type Sender = JoinHandle<Result<Sent, SendError>>;

fn send_all(
    options: &SendOptions,
    address: SocketAddr,
    tls: Option<&ClientTls>,
    block: &Arc<PacketBlock>,
) -> Result<(Vec<Sent>, Vec<String>), String> {
    let pace = (options.rate > 0).then(|| Pace::new(options.rate, options.connections));
    let mut senders: Vec<(Sender, Arc<AtomicU64>)> = Vec::new();
    for number in 0..options.connections {
        let settings = SendSettings {
            number,
            write_bytes: options.write_bytes,
            pace: pace.clone(),
            tally: options.verify.is_some(),
            congestion: options.congestion.clone(),
            tls: tls.cloned(),
        };
        let progress = Arc::new(AtomicU64::new(0));
        let (block, counter) = (Arc::clone(block), Arc::clone(&progress));
        let send = move || send_stream(address, &block, &settings, &counter);
        // Those that run may wait for this one for ever: they end with the process.
        let sender = thread::Builder::new().spawn(send).map_err(|error| {
            format!(
                "cannot start a thread for each of {} connections: {error}; raise the limit of \
                 processes (ulimit -u), or lower --connections",
                options.connections
            )
        })?;
        senders.push((sender, progress));
    }
    let total = u64::from(options.connections).saturating_mul(options.records);
    let so_far = || senders.iter().map(|(_, n)| n.load(Ordering::Relaxed)).sum();
    let is_done = || senders.iter().all(|(sender, _)| sender.is_finished());
    progress::show(Unit::Records, total, so_far, is_done);
    let (mut sent, mut errors, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for (sender, _) in senders {
        match sender.join() {
            Ok(Ok(stream)) => sent.push(stream),
            Ok(Err(error)) => errors.push(error),
            Err(_) => failures.push("a sender panicked; this is a bug, please report it".into()),
        }
    }
    failures.extend(together(&errors));
    Ok((sent, failures))
}

/// A line for each cause, with the number of connections that it ended.
fn together(errors: &[SendError]) -> Vec<String> {
    let mut causes: Vec<(String, Vec<&SendError>)> = Vec::new();
    for error in errors {
        let cause = match error {
            SendError::Write { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, errors)) => errors.push(error),
            None => causes.push((cause, vec![error])),
        }
    }
    causes.iter().map(|(_, errors)| of_one_cause(errors)).collect()
}

fn of_one_cause(errors: &[&SendError]) -> String {
    let (count, first) = (errors.len(), errors[0]);
    if count == 1 {
        return first.to_string();
    }
    let SendError::Write { address, source, .. } = first else {
        return format!("{count} connections failed: {first}");
    };
    let records = errors.iter().filter_map(|error| match error {
        SendError::Write { records, .. } => Some(*records),
        _ => None,
    });
    let (least, most) = (records.clone().min().unwrap_or(0), records.max().unwrap_or(0));
    format!(
        "{count} connections to {address} broke after {least} to {most} records each: {source}; \
         the engine's results and log give the reason"
    )
}

fn summarise(sent: &[Sent], rate: u64) {
    let total = |of: fn(&Sent) -> u64| sent.iter().map(of).sum::<u64>();
    let (records, packets, bytes) =
        (total(|s| s.records), total(|s| s.packets), total(|s| s.bytes));
    let begun = sent.iter().map(|stream| stream.begun).min();
    let closed = sent.iter().map(|stream| stream.closed).max();
    let seconds = closed.zip(begun).map_or(0.0, |(closed, begun)| (closed - begun).as_secs_f64());
    let seconds = seconds.max(f64::MIN_POSITIVE);
    say(format_args!(
        "sent {} in {}, {} over {} in {seconds:.3} s: {:.0} records/s, {:.1} MB/s",
        counted(records, "record"),
        counted(packets, "packet"),
        counted(bytes, "byte"),
        counted(sent.len(), "connection"),
        records as f64 / seconds,
        bytes as f64 / seconds / 1e6,
    ));
    if let Some(delay) = sent.iter().filter_map(|stream| stream.delay_max).max() {
        let delay_ms = delay.as_secs_f64() * 1e3;
        say(format_args!("scheduled at {rate} records/s: largest delay {delay_ms:.1} ms"));
    }
}

/// Reads the engine's results as they are written.
struct ResultReader<'a> {
    path: &'a Path,
    file: File,
    unread: Vec<u8>,
}

impl<'a> ResultReader<'a> {
    fn open_at_end(path: &'a Path) -> Result<Self, String> {
        let open = || -> io::Result<File> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|error| {
            let path = path.display();
            format!(
                "cannot read --verify {path}: {error}; \
                 start `ringest serve --format ndjson > {path}` first"
            )
        })?;
        Ok(ResultReader { path, file, unread: Vec::new() })
    }

    /// The lines completed since the last call.
    fn new_lines(&mut self, schema: &Schema) -> Result<Vec<ResultLine>, String> {
        let path = self.path.display();
        let read = self.file.read_to_end(&mut self.unread);
        read.map_err(|error| format!("cannot read --verify {path}: {error}"))?;
        let (lines, bytes) = finished_lines(&self.unread);
        let parsed: Result<Vec<ResultLine>, String> = lines
            .map(|line| {
                parse_line(line, schema).map_err(|error| {
                    format!(
                        "--verify {path}: not an ndjson result of schema {}: {error}; is it from \
                         `serve --format ndjson` with the same schema?",
                        schema.name()
                    )
                })
            })
            .collect();
        self.unread.drain(..bytes);
        parsed
    }
}

/// Waits for the results of what was sent and compares them; returns how many streams differ.
fn verify(
    mut results: ResultReader<'_>,
    schema: &Schema,
    sent: &[Sent],
    timeout: Duration,
) -> usize {
    let deadline = Instant::now() + timeout;
    let mut waiting: HashMap<String, &Sent> =
        sent.iter().map(|stream| (stream.local.to_string(), stream)).collect();
    let mut differing = 0;
    while !waiting.is_empty() && Instant::now() < deadline {
        let lines = match results.new_lines(schema) {
            Ok(lines) => lines,
            Err(error) => {
                say(error);
                return waiting.len() + differing;
            }
        };
        if lines.is_empty() {
            thread::sleep(POLL);
        }
        for line in lines {
            if let Some(stream) = waiting.remove(&line.peer) {
                differing += usize::from(!agrees(stream, &line));
            }
        }
    }
    for peer in waiting.keys() {
        say(format_args!(
            "no result for {peer} within {}; results are matched by the sender's address, which \
             address translation (NAT) hides",
            time_text(timeout)
        ));
    }
    let agreeing = sent.len() - waiting.len() - differing;
    say(format_args!("{agreeing} of {} results match what was sent", sent.len()));
    waiting.len() + differing
}

fn agrees(stream: &Sent, line: &ResultLine) -> bool {
    let Some(expected) = &stream.expected else { return false };
    let differences = expected.differences(&line.status, line.records, &line.groups);
    for difference in differences.iter().take(10) {
        say(format_args!("{}: {difference}", line.peer));
    }
    differences.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind;

    #[test]
    fn each_cause_is_said_once() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9000));
        let connect =
            |kind: ErrorKind| SendError::Connect { address, source: io::Error::from(kind) };
        let write = |kind: ErrorKind, records| SendError::Write {
            address,
            records,
            source: io::Error::from(kind),
        };
        assert_eq!(together(&[]), [""; 0]);
        let errors = [
            connect(ErrorKind::ConnectionRefused),
            write(ErrorKind::BrokenPipe, 30),
            connect(ErrorKind::ConnectionRefused),
            write(ErrorKind::ConnectionReset, 5),
            write(ErrorKind::BrokenPipe, 7),
        ];
        assert_eq!(
            together(&errors),
            [
                "2 connections failed: cannot connect to 127.0.0.1:9000: connection refused; is an \
                 engine listening there?",
                "2 connections to 127.0.0.1:9000 broke after 7 to 30 records each: broken pipe; \
                 the engine's results and log give the reason",
                "the connection to 127.0.0.1:9000 broke after 5 records: connection reset; the \
                 engine's result and log give the reason",
            ]
        );
    }
}
