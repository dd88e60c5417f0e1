//! Keeps a connection in its worker's counts and timer until it is dropped.

use super::deadlines::Deadlines;
use crate::engine::observe::counters::{Protocol, TallyWriter};
use std::rc::Rc;

/// One connection of a worker. Dropped however the connection ends, even by a panic.
pub(crate) struct Presence {
    protocol: Protocol,
    number: u64,
    tally: Rc<TallyWriter>,
    deadlines: Rc<Deadlines>,
}

impl Presence {
    /// Counts connection `number` as open.
    pub(crate) fn new(
        protocol: Protocol,
        number: u64,
        tally: &Rc<TallyWriter>,
        deadlines: &Rc<Deadlines>,
    ) -> Self {
        tally.add(|tally| &tally.opened[protocol as usize], 1);
        let (tally, deadlines) = (Rc::clone(tally), Rc::clone(deadlines));
        Presence { protocol, number, tally, deadlines }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.deadlines.remove(self.number);
        self.tally.add(|tally| &tally.closed[self.protocol as usize], 1);
    }
}
