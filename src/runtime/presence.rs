//! That a connection is there: counted, and looked after by its worker's timer, until it is
//! dropped. Serves nothing.

use super::deadlines::Deadlines;
use super::record_stream::Streams;
use crate::engine::counters::Protocol;
use std::rc::Rc;

/// One connection of a worker. Dropped in whatever way the connection ends, a defect included.
pub struct Presence {
    protocol: Protocol,
    number: u64,
    streams: Rc<Streams>,
    deadlines: Rc<Deadlines>,
}

impl Presence {
    /// Counts connection `number` as there.
    pub fn new(
        protocol: Protocol,
        number: u64,
        streams: &Rc<Streams>,
        deadlines: &Rc<Deadlines>,
    ) -> Self {
        streams.tally().opened[protocol as usize].add(1);
        Presence { protocol, number, streams: Rc::clone(streams), deadlines: Rc::clone(deadlines) }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.deadlines.remove(self.number);
        self.streams.tally().closed[self.protocol as usize].add(1);
    }
}
