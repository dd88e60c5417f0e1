//! A finished connection with its result. Formats nothing and prints nothing.

use crate::engine::aggregate::Grouped;
use crate::engine::stream::received::Received;
use std::time::{Duration, Instant};

/// A finished connection with its result.
#[derive(Debug)]
pub struct Report {
    /// What the receiving side knows. The texts have become the result's keys.
    pub received: Received,
    /// The groups. Their counts add up to the records received.
    pub grouped: Grouped,
    /// When the result was ready.
    pub aggregated: Instant,
}

impl Report {
    /// From the first byte until the socket was done.
    pub fn receive_time(&self) -> Duration {
        self.received.last_byte - self.received.first_byte
    }

    /// From the end of receiving until the result was ready: batches still under way, the last
    /// merge, sorting.
    pub fn aggregate_time(&self) -> Duration {
        self.aggregated.saturating_duration_since(self.received.last_byte)
    }
}
