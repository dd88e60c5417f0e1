//! What happens after the socket: aggregation threads, reports, files.

pub mod aggregator;
pub mod capture;
pub mod column_pool;
pub mod partial_files;
pub mod report;
pub mod reporter;
pub mod whole_file;
