//! stderr: progress, the live line and the log.

pub(crate) mod live;
pub(crate) mod logging;
pub(crate) mod progress;
pub(crate) mod status_line;
pub(crate) mod stderr;
