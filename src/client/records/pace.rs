//! Paces open-loop sending at a rate of records or bytes: when each write is due, and how late it
//! was. Sends nothing itself; a sender that has fallen behind is never held up.

use crate::client::load::schedule::Schedule;
use crate::config::limits::SEND_SLEEP_MIN;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// A rate of records that several connections share. They all begin at the same time.
#[derive(Debug)]
pub struct Pace {
    rate: u64,
    connections: u32,
    ready: Barrier,
    start: OnceLock<Instant>,
}

impl Pace {
    /// `rate` records per second over `connections` connections.
    ///
    /// # Panics
    /// If either is 0.
    pub fn new(rate: u64, connections: u32) -> Arc<Self> {
        assert!(rate > 0 && connections > 0, "rate and connections are not 0");
        let (ready, start) = (Barrier::new(connections as usize), OnceLock::new());
        Arc::new(Pace { rate, connections, ready, start })
    }

    /// Waits until every connection, failed ones included, has called this. Returns the common
    /// start; without it, a connection made late would be behind from the beginning.
    pub(crate) fn begin(&self) -> Instant {
        self.ready.wait();
        *self.start.get_or_init(Instant::now)
    }

    /// The due times of connection `number`, counted from 0 and taken modulo the number of
    /// connections, with `records_at_once` records in each write.
    pub(crate) fn times(&self, number: u32, records_at_once: u64) -> Times {
        let connections = u64::from(self.connections);
        let records_of_all = connections.saturating_mul(records_at_once.max(1));
        let schedule = Schedule::new(0, self.rate, records_of_all);
        let sleep_ns_min = SEND_SLEEP_MIN.as_nanos() as u64;
        let distance_ns = schedule.due_ns(0, 1);
        Times {
            schedule,
            number: u64::from(number) % connections,
            sleep_ns_min: if distance_ns < sleep_ns_min { sleep_ns_min } else { 0 },
            writes: 0,
            delay_ns_max: 0,
        }
    }
}

/// When the writes of one connection are due. Pure arithmetic without a clock; all times are
/// nanoseconds since the start.
#[derive(Debug)]
pub(crate) struct Times {
    /// In units of records: one round of all connections' writes is one message of the schedule,
    /// and each record one lane.
    schedule: Schedule,
    number: u64,
    sleep_ns_min: u64,
    writes: u64,
    delay_ns_max: u64,
}

impl Times {
    /// When the next write, of `records` records, is due. The connections take turns, a write each,
    /// and records are due one after another; a write is due when its last record is, so that at
    /// no time has more been sent than the rate allows.
    pub(crate) fn due_ns(&self, records: u64) -> u64 {
        self.schedule.due_ns((self.number + 1).saturating_mul(records), self.writes)
    }

    /// How long to sleep before a write that is due at `due_ns`; `None` means send it now.
    pub(crate) fn sleep_ns(&self, now_ns: u64, due_ns: u64) -> Option<u64> {
        let early = due_ns.checked_sub(now_ns).filter(|&early| early > 0)?;
        Some(early.max(self.sleep_ns_min))
    }

    /// Records that the kernel accepted the write at `now_ns`.
    pub(crate) fn written(&mut self, now_ns: u64, due_ns: u64) {
        self.writes += 1;
        self.delay_ns_max = self.delay_ns_max.max(now_ns.saturating_sub(due_ns));
    }
}

/// [`Times`] on a real clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    times: Times,
    start: Instant,
    /// The last reading of the clock, so never later than the true time.
    now_ns: u64,
}

impl Pacer {
    pub(crate) fn new(times: Times, start: Instant) -> Self {
        Pacer { times, start, now_ns: 0 }
    }

    fn read_clock(&mut self) -> u64 {
        self.now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.now_ns
    }

    /// Sleeps until the next write, of `records` records, is due. Returns at once if it is overdue.
    /// The result is the due time.
    pub(crate) fn wait(&mut self, records: u64) -> u64 {
        let due_ns = self.times.due_ns(records);
        if due_ns > self.now_ns {
            let now_ns = self.read_clock();
            if let Some(sleep_ns) = self.times.sleep_ns(now_ns, due_ns) {
                thread::sleep(Duration::from_nanos(sleep_ns));
            }
        }
        due_ns
    }

    /// Records that the kernel has now accepted the write due at `due_ns`.
    pub(crate) fn written(&mut self, due_ns: u64) {
        let now_ns = self.read_clock();
        self.times.written(now_ns, due_ns);
    }

    /// The longest time so far from when a write was due until the kernel had accepted it.
    pub(crate) fn delay_max(&self) -> Duration {
        Duration::from_nanos(self.times.delay_ns_max)
    }
}

/// A rate of bytes that several connections share, however much each has to send and whenever it
/// starts: writes are scheduled in the order in which they ask.
#[derive(Debug)]
pub(crate) struct BytePace {
    rate: u64,
    /// Bytes of all writes scheduled so far.
    scheduled: AtomicU64,
    /// When the first write asked.
    start: OnceLock<Instant>,
}

impl BytePace {
    /// `rate` bytes per second.
    ///
    /// # Panics
    /// If it is 0.
    pub(crate) fn new(rate: u64) -> Self {
        assert!(rate > 0, "rate is not 0");
        BytePace { rate, scheduled: AtomicU64::new(0), start: OnceLock::new() }
    }

    /// When the next write, of `bytes` bytes, is due, in nanoseconds since the start. A write is
    /// due when its last byte is, so that never more has been sent than the rate allows.
    fn due_ns(&self, bytes: u64) -> u64 {
        let end = self.scheduled.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let due_ns = u128::from(end) * 1_000_000_000 / u128::from(self.rate);
        u64::try_from(due_ns).unwrap_or(u64::MAX)
    }

    /// Sleeps until the next write is due. Returns at once if it is overdue.
    pub(crate) fn wait(&self, bytes: u64) {
        let due = Duration::from_nanos(self.due_ns(bytes));
        let elapsed = self.start.get_or_init(Instant::now).elapsed();
        if let Some(early) = due.checked_sub(elapsed).filter(|early| !early.is_zero()) {
            thread::sleep(early.max(SEND_SLEEP_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn times(rate: u64, connections: u32, number: u32, records_at_once: u64) -> Times {
        Pace::new(rate, connections).times(number, records_at_once)
    }

    #[test]
    fn writes_of_all_connections_are_due_at_equal_distances() {
        let mut all = Vec::new();
        for number in 0..3 {
            let mut times = times(1000, 3, number, 20);
            for _ in 0..50 {
                all.push(times.due_ns(20));
                times.written(0, 0);
            }
            // The shorter last write is due when its own records are, not when a full one would be.
            assert_eq!(times.due_ns(1), (3000 + u64::from(number) + 1) * SECOND_NS / 1000);
            assert_eq!(times.due_ns(0), 3000 * SECOND_NS / 1000);
        }
        all.sort_unstable();
        let expected: Vec<u64> = (1..=150).map(|write| write * 20 * SECOND_NS / 1000).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let mut times = times(3_333_333, 7, 6, 4);
        times.writes = 3_333_333 * 3600 - 1;
        assert_eq!(times.due_ns(4), 7 * 4 * 3600 * SECOND_NS);
        times.writes = u64::MAX;
        assert_eq!(times.due_ns(4), u64::MAX);
    }

    /// Sends on a virtual clock: each sleep overruns by `late_ns`, and each write takes `write_ns`.
    /// Returns when the last write was accepted, and how often it slept.
    fn run(
        times: &mut Times,
        records: u64,
        writes: u64,
        late_ns: u64,
        write_ns: u64,
    ) -> (u64, u64) {
        let (mut now_ns, mut sleeps) = (0, 0);
        for _ in 0..writes {
            let due_ns = times.due_ns(records);
            if let Some(sleep_ns) = times.sleep_ns(now_ns, due_ns) {
                now_ns += sleep_ns + late_ns;
                sleeps += 1;
            }
            assert!(now_ns >= due_ns, "nothing is sent before it is due");
            now_ns += write_ns;
            times.written(now_ns, due_ns);
        }
        (now_ns, sleeps)
    }

    #[test]
    fn late_sleeps_do_not_add_up() {
        // One write per millisecond for ten seconds.
        let mut times = times(4000, 1, 0, 4);
        let end = run(&mut times, 4, 10_000, 60_000, 1000);
        assert_eq!(end, (10 * SECOND_NS + 61_000, 10_000));
        assert_eq!(times.delay_ns_max, 61_000);
    }

    #[test]
    fn short_distances_are_slept_over_several_at_a_time() {
        // One write every 4 µs for a second: it wakes about every 150 µs and sends what is due.
        let mut times = times(1_000_000, 1, 0, 4);
        let (end_ns, sleeps) = run(&mut times, 4, 250_000, 50_000, 500);
        assert!((SECOND_NS..SECOND_NS + 200_000).contains(&end_ns), "{end_ns}");
        assert!((4000..10_000).contains(&sleeps), "{sleeps}");
        assert!(times.delay_ns_max < 200_000, "{}", times.delay_ns_max);
    }

    #[test]
    fn who_is_behind_sends_at_once_and_says_how_far_it_was() {
        // Each write takes twice the time allotted to it.
        let mut times = times(1000, 1, 0, 1);
        let (end_ns, sleeps) = run(&mut times, 1, 500, 0, 2_000_000);
        assert_eq!((end_ns, sleeps), (1_000_000 + 500 * 2_000_000, 1));
        assert_eq!(times.delay_ns_max, end_ns - 500 * 1_000_000);
    }

    #[test]
    fn bytes_are_due_in_order_for_every_caller() {
        let pace = BytePace::new(3_000);
        assert_eq!(
            [1000, 0, 1000, 1].map(|bytes| pace.due_ns(bytes)),
            [SECOND_NS / 3, SECOND_NS / 3, SECOND_NS * 2 / 3, SECOND_NS * 2001 / 3000,]
        );
        // Still exact after an hour; beyond the range of u64 it saturates.
        pace.due_ns(3_000 * 3600 - 2001 - 1);
        assert_eq!(pace.due_ns(1), 3600 * SECOND_NS);
        assert_eq!(BytePace::new(1).due_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn connections_begin_together() {
        let pace = Pace::new(1, 3);
        let starts: Vec<Instant> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| pace.begin())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(starts.iter().all(|start| *start == starts[0]));
    }
}
