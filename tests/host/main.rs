//! The program as a process: start, signals, exit codes, health.

#[path = "../common/mod.rs"]
mod common;
mod environment;
mod health;
mod process;
mod signals;
