//! `serve --interval`: a thread that prints throughput to stderr at each interval. It reads the
//! engine's counters and counts nothing itself.

use super::status_line;
use super::status_line::say;
use crate::engine::observe::counters::{Counters, Protocol};
use crate::engine::observe::snapshot::messages;
use crate::engine::stream::latency::Latency;
use crate::runtime::connection::defects::Defects;
use crate::runtime::failpoint::failpoint;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Which data listeners are open. Figures of the others are not shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listeners {
    /// The record listener.
    pub records: bool,
    /// The message listener.
    pub messages: bool,
}

/// The running thread.
pub(crate) struct Live {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Option<()>>,
}

impl Live {
    /// Starts printing what was counted in each `interval`. A panic is a defect of the engine.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(
        counters: Arc<Counters>,
        interval: Duration,
        listeners: Listeners,
        defects: &Defects,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || run(&counters, interval, listeners, &stopped);
        let thread = defects.spawn("live", run)?;
        Ok(Live { stop, thread })
    }

    /// Stops it, once everything has been counted. A last line covers the time since the line
    /// before, so that a log of these lines is complete.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // Fails only if it has panicked, which is reported as a defect.
        let _ = self.thread.join();
    }
}

fn run(counters: &Counters, interval: Duration, listeners: Listeners, stop: &mpsc::Receiver<()>) {
    let in_place = status_line::possible();
    let mut before = Totals::take(counters, Instant::now());
    let mut due = before.at + interval;
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        failpoint("live");
        let over = stop.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected);
        let now = Totals::take(counters, Instant::now());
        let progress = StreamProgress::between(&before, &now, listeners);
        if over {
            status_line::remove();
            if !(in_place || progress.is_nothing()) {
                say(progress.dated(SystemTime::now()));
            }
            return;
        }
        match in_place {
            true => status_line::show(progress.brief()),
            false => say(progress.dated(SystemTime::now())),
        }
        due += interval;
        if due <= now.at {
            // After a pause of the whole process, missed lines are not made up for.
            due = now.at + interval;
        }
        before = now;
    }
}

/// The counters at one moment.
struct Totals {
    at: Instant,
    records: u64,
    bytes: u64,
    messages: u64,
    active: [u64; 2],
    latency: Latency,
}

impl Totals {
    fn take(counters: &Counters, at: Instant) -> Self {
        Totals {
            at,
            records: counters.sum(|tally| &tally.records),
            bytes: Protocol::ALL
                .map(|from| counters.sum(|tally| &tally.bytes_received[from as usize]))
                .iter()
                .sum(),
            messages: messages(counters).sum(),
            active: Protocol::ALL.map(|protocol| counters.active(protocol)),
            latency: counters.packet_latency(),
        }
    }
}

/// What was counted between two moments.
#[derive(Clone, Debug)]
struct StreamProgress {
    seconds: f64,
    records: u64,
    bytes: u64,
    messages: u64,
    /// Of the packets finished in this time, if any.
    latency_us_p99: Option<f64>,
    /// Connections at the end of it, by protocol.
    active: [u64; 2],
    records_so_far: u64,
    packets_so_far: u64,
    listeners: Listeners,
}

impl StreamProgress {
    fn between(before: &Totals, now: &Totals, listeners: Listeners) -> Self {
        let latency = now.latency.since(&before.latency).summary();
        StreamProgress {
            seconds: now.at.saturating_duration_since(before.at).as_secs_f64(),
            records: now.records - before.records,
            bytes: now.bytes - before.bytes,
            messages: now.messages - before.messages,
            latency_us_p99: (latency.count > 0).then_some(latency.p99),
            active: now.active,
            records_so_far: now.records,
            packets_so_far: now.latency.summary().count,
            listeners,
        }
    }

    fn is_nothing(&self) -> bool {
        self.bytes == 0 && self.messages == 0 && self.latency_us_p99.is_none()
    }

    fn per_second(&self, amount: u64) -> f64 {
        if self.seconds > 0.0 { amount as f64 / self.seconds } else { 0.0 }
    }

    fn p99(&self) -> String {
        self.latency_us_p99.map_or("no packets".to_owned(), |p99| format!("p99 {p99:.1} µs"))
    }

    /// For a log: with the time, and the totals since the start.
    fn dated(&self, now: SystemTime) -> String {
        let moment = humantime::format_rfc3339_millis(now);
        let (records, megabytes) =
            (self.per_second(self.records), self.per_second(self.bytes) / 1e6);
        let [of_records, of_messages] = self.active;
        let connections = match (self.listeners.records, self.listeners.messages) {
            (true, true) => format!("{of_records} record and {of_messages} message connections"),
            (false, true) => format!("{of_messages} message connections"),
            _ => format!("{of_records} record connections"),
        };
        let messages = match self.listeners.messages {
            true => format!(", {:.0} messages/s", self.per_second(self.messages)),
            false => String::new(),
        };
        format!(
            "{moment}: {records:.0} records/s, {megabytes:.1} MB/s, {}, {connections}{messages}; \
             so far {} records in {} packets",
            self.p99(),
            self.records_so_far,
            self.packets_so_far,
        )
    }

    /// For a terminal: the most important figures first, since the end may be cut off.
    fn brief(&self) -> String {
        let (records, megabytes) =
            (self.per_second(self.records), self.per_second(self.bytes) / 1e6);
        let messages = match self.listeners.messages {
            true => format!(", {} messages/s", shortened(self.per_second(self.messages))),
            false => String::new(),
        };
        let [of_records, of_messages] = self.active;
        let connections = match (self.listeners.records, self.listeners.messages) {
            (true, true) => format!("{of_records} + {of_messages}"),
            (false, true) => of_messages.to_string(),
            _ => of_records.to_string(),
        };
        let (records, p99) = (shortened(records), self.p99());
        format!(
            "{records} records/s, {megabytes:.1} MB/s, {p99}{messages}, {connections} connections"
        )
    }
}

/// Three digits with a suffix, such as `1.23 M`.
fn shortened(amount: f64) -> String {
    // The bounds are where rounding would give 1000.
    let (amount, sign) = match amount {
        small if small < 999.5 => return format!("{small:.0}"),
        some if some < 999_500.0 => (some / 1e3, "k"),
        many if many < 999_500_000.0 => (many / 1e6, "M"),
        most => (most / 1e9, "G"),
    };
    let digits = if amount < 9.995 { 2 } else { usize::from(amount < 99.95) };
    format!("{amount:.digits$} {sign}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::observe::counters::TallyWriters;
    use crate::wire::messages::frame::FrameType;

    const BOTH: Listeners = Listeners { records: true, messages: true };

    fn counters() -> (Arc<Counters>, TallyWriters) {
        let (counters, writers) = Counters::new(2);
        let worker = &writers.workers[0];
        worker.add(|tally| &tally.opened[Protocol::Records as usize], 10);
        worker.add(|tally| &tally.opened[Protocol::Messages as usize], 4);
        worker.add(|tally| &tally.closed[Protocol::Messages as usize], 1);
        worker.add(|tally| &tally.records, 1_000_000);
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(1), 1000);
        worker.merge_packet_latency(&mut latency);
        (counters, writers)
    }

    /// Two seconds of two workers; what was counted before must not appear.
    fn progress(listeners: Listeners) -> StreamProgress {
        let (counters, writers) = counters();
        let start = Instant::now();
        let before = Totals::take(&counters, start);
        for worker in &writers.workers {
            worker.add(|tally| &tally.records, 5_012_345);
            worker.add(|tally| &tally.bytes_received[Protocol::Records as usize], 1_343_000_000);
            worker.add(|tally| &tally.bytes_received[Protocol::Messages as usize], 200_000);
            worker.add(|tally| &tally.messages[FrameType::Echo.index()], 1_200);
        }
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(25), 500);
        writers.workers[1].merge_packet_latency(&mut latency);
        StreamProgress::between(
            &before,
            &Totals::take(&counters, start + Duration::from_secs(2)),
            listeners,
        )
    }

    fn dated(listeners: Listeners) -> String {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_169_701_003);
        progress(listeners).dated(moment)
    }

    #[test]
    fn a_line_of_a_log_has_rates_of_the_interval_and_sums() {
        let expected = "2026-11-20T10:15:01.003Z: 5012345 records/s, 1343.2 MB/s, p99 25.0 µs, \
                        10 record and 3 message connections, 1200 messages/s; so far 11024690 \
                        records in 1500 packets";
        assert_eq!(dated(BOTH), expected);
        let records = dated(Listeners { records: true, messages: false });
        assert!(records.contains("µs, 10 record connections; so far"), "{records}");
        let messages = dated(Listeners { records: false, messages: true });
        assert!(messages.contains("µs, 3 message connections, 1200 messages/s;"), "{messages}");
    }

    #[test]
    fn a_line_on_a_terminal_is_short() {
        let expected = "5.01 M records/s, 1343.2 MB/s, p99 25.0 µs, 1.20 k messages/s, 10 + 3 \
                        connections";
        assert_eq!(progress(BOTH).brief(), expected);
        let records = progress(Listeners { records: true, messages: false }).brief();
        assert!(records.ends_with("p99 25.0 µs, 10 connections"), "{records}");
        let messages = progress(Listeners { records: false, messages: true }).brief();
        assert!(messages.ends_with("1.20 k messages/s, 3 connections"), "{messages}");
    }

    #[test]
    fn an_interval_in_which_nothing_came() {
        let (counters, _) = counters();
        let totals = Totals::take(&counters, Instant::now());
        let nothing = StreamProgress::between(&totals, &totals, BOTH);
        assert!(nothing.is_nothing() && !progress(BOTH).is_nothing());
        let line = nothing.dated(SystemTime::UNIX_EPOCH);
        assert!(line.contains(": 0 records/s, 0.0 MB/s, no packets, 10 record"), "{line}");
    }

    #[test]
    fn large_numbers_are_shortened() {
        for (amount, shown) in [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (9_994.0, "9.99 k"),
            (9_996.0, "10.0 k"),
            (99_960.0, "100 k"),
            (999_499.0, "999 k"),
            (999_500.0, "1.00 M"),
            (24_600_000.0, "24.6 M"),
            (2.5e9, "2.50 G"),
        ] {
            assert_eq!(shortened(amount), shown);
        }
    }
}
