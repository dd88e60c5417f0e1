//! A finished connection with its result. Formatting and printing happen elsewhere.

use crate::engine::aggregate::Grouped;
use crate::engine::stream::received::Received;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file with the result of a stream, or why it could not be written; `None` for a connection
/// that had no slot.
pub(crate) type ResultFile = Option<Result<PathBuf, String>>;

/// Writes the files of a report; several threads call it at the same time. Returns the result file,
/// or `None` if results have no files.
pub(crate) type FileWriter = Arc<dyn Fn(&Report) -> Option<ResultFile> + Send + Sync>;

/// A finished connection with its result.
#[derive(Debug)]
pub struct Report {
    /// What was received. Its texts have moved into the result's keys.
    pub received: Received,
    /// The groups. Their counts add up to the records received.
    pub grouped: Grouped,
    /// When the result was ready.
    pub aggregated: Instant,
}

impl Report {
    /// From the first to the last received byte.
    pub fn receive_time(&self) -> Duration {
        self.received.last_byte - self.received.first_byte
    }

    /// From the last byte until the result was ready: aggregating the remaining batches, the last
    /// merge, sorting.
    pub fn aggregate_time(&self) -> Duration {
        self.aggregated.saturating_duration_since(self.received.last_byte)
    }
}
