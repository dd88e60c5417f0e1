//! Keeps a connection in its worker's counts and timer until it is dropped.

use super::deadlines::Deadlines;
use crate::engine::observe::counters::{Counters, Protocol, WorkerTally};
use std::rc::Rc;
use std::sync::Arc;

/// One connection of a worker. Dropped however the connection ends, even by a panic.
pub(crate) struct Presence {
    protocol: Protocol,
    number: u64,
    counters: Arc<Counters>,
    worker: usize,
    deadlines: Rc<Deadlines>,
}

impl Presence {
    /// Counts connection `number` of worker `worker` as open.
    pub(crate) fn new(
        protocol: Protocol,
        number: u64,
        (counters, worker): (&Arc<Counters>, usize),
        deadlines: &Rc<Deadlines>,
    ) -> Self {
        let counters = Arc::clone(counters);
        let presence =
            Presence { protocol, number, counters, worker, deadlines: Rc::clone(deadlines) };
        presence.tally().opened[protocol as usize].add(1);
        presence
    }

    fn tally(&self) -> &WorkerTally {
        &self.counters.workers[self.worker]
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.deadlines.remove(self.number);
        self.tally().closed[self.protocol as usize].add(1);
    }
}
