//! Sends message clients for whom no slot is free an ERROR, and closes their connections.
//!
//! Closing a socket with unread bytes resets the connection, and the reset may overtake the ERROR.
//! So a refused client gets the ERROR and the end of the stream at once, while the bytes that it
//! sends are read and discarded for a moment.

use crate::config::REFUSED_LINGERING;
use crate::runtime::clock;
use crate::runtime::network::{self, NewSocket};
use crate::wire::messages::fault::Fault;
use crate::wire::messages::payload::encode_error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Refuses clients, and keeps their connections open for a moment.
pub(crate) struct Refusals {
    error: Vec<u8>,
    linger: Duration,
    lingering: Arc<Semaphore>,
}

impl Refusals {
    /// Refuses clients, keeping each for at most `linger`.
    pub(crate) fn new(linger: Duration) -> Self {
        let mut error = Vec::new();
        let fault = Fault::ConnectionsLimit;
        encode_error(fault.code().expect("this fault has a code"), fault.message(), &mut error);
        Refusals { error, linger, lingering: Arc::new(Semaphore::new(REFUSED_LINGERING)) }
    }

    /// Sends the ERROR and the end of the stream, and closes a moment later, or at once if too many
    /// others are lingering. Must run on a tokio runtime.
    pub(crate) fn tell(&self, stream: NewSocket) {
        network::say_last(&stream, &self.error);
        if let Ok(permit) = Arc::clone(&self.lingering).try_acquire_owned() {
            let linger = self.linger;
            network::spawn_accepting(async move {
                let _ = clock::timeout(linger, network::drop_all(stream)).await;
                drop(permit);
            });
        }
    }
}
