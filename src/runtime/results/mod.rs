//! What happens after a stream is received: aggregation threads, reports, files.

pub(crate) mod aggregator;
pub(crate) mod capture;
pub(crate) mod column_pool;
pub(crate) mod output_path;
pub(crate) mod partial_files;
pub(crate) mod partial_writers;
pub(crate) mod report;
pub(crate) mod reporter;
pub(crate) mod schema_file;
pub(crate) mod whole_file;
pub(crate) mod writers;

/// For tests above this layer, which name no runtime.
#[cfg(test)]
#[cfg(feature = "simulated-disk")]
pub(crate) use tokio::sync::{mpsc, watch};
