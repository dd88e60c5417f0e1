//! Models of the slots: connections and streams that come and go on several threads.

use super::*;
use crate::sync::modelled::{block_on, model, spawn};
use Protocol::{Messages, Records};

/// Slots, and how many of them are held according to their holders.
struct Held {
    slots: Arc<Slots>,
    connections_limit: usize,
    streams: AtomicUsize,
}

impl Held {
    /// So many connections, and one stream.
    fn new(connections_limit: usize) -> Arc<Self> {
        let slots = Slots::new(connections_limit, 1, 1);
        Arc::new(Held { slots, connections_limit, streams: AtomicUsize::new(0) })
    }

    /// Holds a stream's slot while others try to get one too many.
    fn hold_stream(&self, slot: impl Sized) {
        let others = self.streams.fetch_add(1, Ordering::AcqRel);
        assert_eq!(others, 0, "a second stream within a limit of 1");
        self.streams.fetch_sub(1, Ordering::AcqRel);
        drop(slot);
    }

    fn assert_all_free(&self) {
        let Slots { connections, streams, loads, .. } = &*self.slots;
        let loads: Vec<usize> = loads.iter().map(|l| l[0].load(Ordering::Relaxed)).collect();
        let free = (connections.available_permits(), streams.available_permits(), &loads[..]);
        assert_eq!(free, (self.connections_limit, 1, &[0, 0][..]));
    }
}

/// A client that gets only one of its two slots gives that one back.
#[test]
fn tries_never_hold_more_than_the_limits_and_leave_nothing_behind() {
    model(|| {
        let held = Held::new(2);
        let threads = [Records, Messages].map(|protocol| {
            let held = Arc::clone(&held);
            spawn(move || {
                let connection = held.slots.take(protocol);
                let stream = match protocol {
                    Records => None,
                    Messages => held.slots.take_stream(),
                };
                if stream.is_some() || (protocol == Records && connection.is_some()) {
                    held.hold_stream((connection, stream));
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        held.assert_all_free();
    });
}

/// A sender that needs a connection and a stream, and a client that has a connection and waits for
/// a stream, where there is one of each.
#[test]
fn those_who_wait_for_two_slots_never_wait_for_each_other() {
    model(|| {
        let held = Held::new(1);
        let client = Arc::clone(&held);
        let thread = spawn(move || {
            block_on(async {
                let connection = client.slots.admit(Messages).await;
                let stream = client.slots.admit_stream().await;
                client.hold_stream((connection, stream));
            });
        });
        block_on(async {
            let slot = held.slots.admit(Records).await;
            held.hold_stream(slot);
        });
        thread.join().unwrap();
        held.assert_all_free();
    });
}
