//! Sends record streams: generates, paces, sends and replays them.

pub mod answer;
pub mod block;
pub mod generate;
pub mod keys;
pub mod pace;
pub mod replay;
pub mod sender;
mod socket;
