//! What moves on a screen, and the log.

pub mod live;
pub mod logging;
pub mod progress;
pub mod status_line;
pub mod stderr;
