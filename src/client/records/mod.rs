//! Streams of records out: generated, paced, sent, replayed.

pub mod block;
pub mod generate;
pub mod keys;
pub mod pace;
pub mod replay;
pub mod sender;
