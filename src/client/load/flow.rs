//! Broadcasts on their way: how many deliveries are owed and how many have come. Sends nothing.
//!
//! A BROADCAST has no answer, so only its deliveries tell when the next one may follow. Senders and
//! receivers may be on different threads, and receivers may be lost, with what they are owed.

use mio::Waker;
use std::sync::{Mutex, OnceLock};

/// The deliveries of all threads.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    state: Mutex<FlowState>,
    /// Of the thread that sends, for the others.
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct FlowState {
    /// Connections that receive.
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

    /// Whom to wake when deliveries have come.
    pub(crate) fn wakes(&self, waker: Waker) {
        // A second one cannot be: there is one thread that sends.
        let _ = self.waker.set(waker);
    }

    /// Wakes the thread that sends.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            // It also looks by itself, a little later.
            let _ = waker.wake();
        }
    }

    /// A connection receives from now on.
    pub(crate) fn join(&self) {
        self.state().receivers += 1;
    }

    /// A connection receives no more: what it is owed never comes. It sent `own` BROADCASTs that
    /// were not refused, and `deliveries` have come to it.
    pub(crate) fn leave(&self, own: u64, deliveries: u64) {
        let mut state = self.state();
        state.receivers -= 1;
        state.settled += state.sent.saturating_sub(own + deliveries);
    }

    /// How many more BROADCASTs may be sent with `in_flight` at most on their way.
    pub(crate) fn room(&self, in_flight: u64) -> u64 {
        let state = self.state();
        let each = state.receivers.saturating_sub(1);
        let waiting = state.owed.saturating_sub(state.settled);
        // With nobody to receive there is no end to it.
        if each == 0 { 0 } else { in_flight.saturating_sub(waiting.div_ceil(each)) }
    }

    /// A connection that receives has sent `messages`.
    pub(crate) fn send(&self, messages: u64) {
        let mut state = self.state();
        state.sent += messages;
        state.owed += messages * state.receivers.saturating_sub(1);
    }

    /// So many deliveries have come.
    pub(crate) fn deliver(&self, deliveries: u64) {
        self.state().settled += deliveries;
    }

    /// The server has not passed a message on.
    pub(crate) fn refuse(&self) {
        let mut state = self.state();
        state.sent = state.sent.saturating_sub(1);
        state.settled += state.receivers.saturating_sub(1);
    }

    /// Deliveries that have not come.
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
        assert_eq!(flow.room(4), 0, "nobody would receive");
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
        // One has got both messages, the other is lost with one of them missing.
        flow.deliver(1);
        flow.leave(0, 1);
        assert_eq!((flow.room(4), flow.waiting()), (4, 0));
        flow.send(1);
        assert_eq!(flow.waiting(), 1);
    }
}
