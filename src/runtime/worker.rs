//! What the connections of one worker share: limits, counters, windows, the timer, and the queue of
//! its aggregation thread.

use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriter};
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
    /// How records are decoded.
    pub plan: Arc<Plan>,
    /// The pool of column sets.
    pub pool: Arc<ColumnPool>,
    /// Captures raw bytes; `None` if captures are off.
    pub captures: Option<Arc<Captures>>,
    /// The engine's counters.
    pub counters: Arc<Counters>,
    /// Writes its own.
    pub tally: Rc<TallyWriter>,
    /// Its index among the workers.
    pub index: usize,
    /// The queue of its aggregation thread.
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
    /// The worker's own counters.
    pub(crate) fn tally(&self) -> &TallyWriter {
        &self.tally
    }

    /// The length of batches; `None` if no partials are written.
    pub(crate) fn partials_interval(&self) -> Option<Duration> {
        self.config.partials.as_ref().map(|_| self.config.partials_interval)
    }

    /// Counts connection `number` as open until the result is dropped.
    pub(crate) fn presence(&self, protocol: Protocol, number: u64) -> Presence {
        Presence::new(protocol, number, &self.tally, &self.deadlines)
    }

    /// Called by the worker's timer at each tick.
    pub(crate) fn each_tick(&self) {
        self.tally().merge_packet_latency(&mut self.packet_latency.borrow_mut());
        self.tally().merge_message_latency(&mut self.message_latency.borrow_mut());
    }

    /// A single worker without registered windows, and the receiver of its jobs.
    #[cfg(test)]
    pub(crate) fn alone(config: Config) -> (Rc<Self>, mpsc::Receiver<Job>) {
        Self::alone_with(crate::wire::schema::Schema::built_in(), config)
    }

    /// The same, for records of a schema.
    #[cfg(test)]
    pub(crate) fn alone_with(
        schema: Arc<crate::wire::schema::Schema>,
        config: Config,
    ) -> (Rc<Self>, mpsc::Receiver<Job>) {
        let (jobs, work) = mpsc::channel(16);
        let plan = Plan::new(schema);
        let (counters, mut writers) = Counters::new(1);
        let worker = Rc::new(Worker {
            pool: ColumnPool::new(&plan, 4, 0, config.batch_rows),
            buffers: Buffers::plain(config.buffer_bytes),
            config: Arc::new(config),
            plan,
            captures: None,
            counters,
            index: 0,
            tally: Rc::new(writers.workers.remove(0)),
            jobs,
            deadlines: Rc::default(),
            packet_latency: RefCell::default(),
            message_latency: RefCell::default(),
        });
        (worker, work)
    }
}
