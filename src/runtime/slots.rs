//! Who may be connected and which worker gets them: counts, and touches no socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Slots for connections, taken by the acceptor and given back when the result is printed.
#[derive(Debug)]
pub struct Slots {
    limit: usize,
    /// Connections of each worker. Only the acceptor adds, so its reading is never too low.
    loads: Box<[AtomicUsize]>,
}

impl Slots {
    /// `limit` slots over `workers` workers.
    pub fn new(limit: usize, workers: usize) -> Arc<Self> {
        Arc::new(Slots { limit, loads: (0..workers).map(|_| AtomicUsize::new(0)).collect() })
    }

    /// Connections that have a slot.
    pub fn taken(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// A slot at the worker with the fewest connections, or `None` where none is free.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        if self.taken() >= self.limit {
            return None;
        }
        let load_of = |&worker: &usize| self.loads[worker].load(Ordering::Relaxed);
        let worker = (0..self.loads.len()).min_by_key(load_of)?;
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        Some(Slot { slots: Arc::clone(self), worker })
    }
}

/// One connection's slot, free again when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    worker: usize,
}

impl Slot {
    /// The worker that the connection goes to.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_to_the_worker_with_the_fewest() {
        let slots = Slots::new(6, 3);
        let mut held: Vec<Slot> = (0..6).map(|_| slots.take().unwrap()).collect();
        let mut workers: Vec<usize> = held.iter().map(Slot::worker).collect();
        workers.sort_unstable();
        assert_eq!(workers, [0, 0, 1, 1, 2, 2]);
        held.retain(|slot| slot.worker() != 1);
        assert_eq!(slots.take().map(|slot| slot.worker()), Some(1));
    }

    #[test]
    fn the_limit_holds_at_its_edge() {
        let slots = Slots::new(2, 2);
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(second);
        assert!(slots.take().is_some());
        assert_eq!(slots.taken(), 1);
    }
}
