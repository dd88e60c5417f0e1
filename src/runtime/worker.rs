//! What the connections of one worker share: limits, counts, windows, timer, and the way to the
//! worker's aggregation thread. Serves none of them.

use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::engine::observe::counters::{Counters, Protocol, WorkerTally};
use crate::engine::stream::latency::Latency;
use crate::runtime::connection::deadlines::Deadlines;
use crate::runtime::connection::presence::Presence;
use crate::runtime::results::aggregator::Job;
use crate::runtime::results::capture::Captures;
use crate::runtime::results::column_pool::ColumnPool;
use crate::runtime::ring::Buffers;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the connections of one worker share.
pub(crate) struct Worker {
    /// The limits.
    pub config: Arc<Config>,
    /// What records are.
    pub plan: Arc<Plan>,
    /// Where column sets come from.
    pub pool: Arc<ColumnPool>,
    /// Where raw bytes go; `None` where none are captured.
    pub captures: Option<Arc<Captures>>,
    /// Where the worker counts, in `workers`.
    pub counters: Arc<Counters>,
    /// Its place among the workers.
    pub index: usize,
    /// Its aggregation thread.
    pub jobs: mpsc::Sender<Job>,
    /// Its registered windows.
    pub buffers: Buffers,
    /// Its timer.
    pub deadlines: Rc<Deadlines>,
    /// Latencies of packets since the last tick.
    pub packet_latency: RefCell<Latency>,
    /// Latencies of messages since the last tick.
    pub message_latency: RefCell<Latency>,
}

impl Worker {
    /// The worker's own counts.
    pub(crate) fn tally(&self) -> &WorkerTally {
        &self.counters.workers[self.index]
    }

    /// How long batches are, where partials are kept.
    pub(crate) fn partials_interval(&self) -> Option<Duration> {
        self.config.partials.as_ref().map(|_| self.config.partials_interval)
    }

    /// Counts connection `number` as there, until what is given is dropped.
    pub(crate) fn presence(&self, protocol: Protocol, number: u64) -> Presence {
        Presence::new(protocol, number, (&self.counters, self.index), &self.deadlines)
    }

    /// What the worker's timer does at each tick.
    pub(crate) fn each_tick(&self) {
        self.tally().merge_packet_latency(&mut self.packet_latency.borrow_mut());
        self.tally().merge_message_latency(&mut self.message_latency.borrow_mut());
    }

    /// The first of one worker, without registered windows, and where its jobs come out.
    #[cfg(test)]
    pub(crate) fn alone(config: Config) -> (Rc<Self>, mpsc::Receiver<Job>) {
        let (jobs, work) = mpsc::channel(16);
        let plan = Plan::new(crate::wire::schema::Schema::built_in());
        let worker = Rc::new(Worker {
            pool: ColumnPool::new(&plan, 4, 0, config.batch_rows),
            buffers: Buffers::plain(config.buffer_bytes),
            config: Arc::new(config),
            plan,
            captures: None,
            counters: Counters::new(1),
            index: 0,
            jobs,
            deadlines: Rc::default(),
            packet_latency: RefCell::default(),
            message_latency: RefCell::default(),
        });
        (worker, work)
    }
}
