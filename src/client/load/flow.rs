//! Flow control of broadcasts: counts the deliveries that are expected and those that have arrived.
//!
//! A BROADCAST has no answer, so only its deliveries tell when the next one may be sent. Senders
//! and receivers may be on different threads, and a lost receiver never gets its deliveries.

use mio::Waker;
use std::sync::{Mutex, OnceLock};

/// The deliveries of all threads.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    state: Mutex<FlowState>,
    /// Wakes the sending thread.
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct FlowState {
    /// Number of receiving connections.
    receivers: u64,
    /// BROADCASTs sent and not refused.
    sent: u64,
    owed: u64,
    settled: u64,
}

impl Flow {
    fn state(&self) -> std::sync::MutexGuard<'_, FlowState> {
        self.state.lock().expect("no panic")
    }

    /// Sets the waker of the sending thread, to be used when deliveries arrive.
    pub(crate) fn wakes(&self, waker: Waker) {
        // Set only once: there is one sending thread.
        let _ = self.waker.set(waker);
    }

    /// Wakes the sending thread.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            // A failure is harmless: the thread also wakes up by itself a little later.
            let _ = waker.wake();
        }
    }

    /// Registers a connection as a receiver.
    pub(crate) fn join(&self) {
        self.state().receivers += 1;
    }

    /// Removes a lost connection, whose outstanding deliveries will never arrive. It had sent `own`
    /// BROADCASTs that were not refused, and received `deliveries`.
    pub(crate) fn leave(&self, own: u64, deliveries: u64) {
        let mut state = self.state();
        state.receivers -= 1;
        state.settled += state.sent.saturating_sub(own + deliveries);
    }

    /// How many more BROADCASTs may be sent so that at most `in_flight` are on their way.
    pub(crate) fn room(&self, in_flight: u64) -> u64 {
        let state = self.state();
        let each = state.receivers.saturating_sub(1);
        let waiting = state.owed.saturating_sub(state.settled);
        // Without receivers, sending would never stop.
        if each == 0 { 0 } else { in_flight.saturating_sub(waiting.div_ceil(each)) }
    }

    /// Counts `messages` BROADCASTs sent by one of the receivers.
    pub(crate) fn send(&self, messages: u64) {
        let mut state = self.state();
        state.sent += messages;
        state.owed += messages * state.receivers.saturating_sub(1);
    }

    /// Counts deliveries that have arrived.
    pub(crate) fn deliver(&self, deliveries: u64) {
        self.state().settled += deliveries;
    }

    /// Counts a BROADCAST that the server refused to pass on.
    pub(crate) fn refuse(&self) {
        let mut state = self.state();
        state.sent = state.sent.saturating_sub(1);
        state.settled += state.receivers.saturating_sub(1);
    }

    /// Number of deliveries still expected.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.state();
        state.owed.saturating_sub(state.settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_all_receivers_have_got() {
        let flow = Flow::default();
        flow.join();
        assert_eq!(flow.room(4), 0, "there is no receiver");
        flow.join();
        flow.join();
        assert_eq!(flow.room(4), 4);
        flow.send(3);
        assert_eq!((flow.room(4), flow.waiting()), (1, 6));
        flow.deliver(1);
        assert_eq!(flow.room(4), 1, "one receiver has one message, the other none");
        flow.deliver(1);
        assert_eq!(flow.room(4), 2);
        flow.refuse();
        assert_eq!((flow.room(4), flow.waiting()), (3, 2));
        // One receiver has both messages; the other is lost with one of them missing.
        flow.deliver(1);
        flow.leave(0, 1);
        assert_eq!((flow.room(4), flow.waiting()), (4, 0));
        flow.send(1);
        assert_eq!(flow.waiting(), 1);
    }
}
