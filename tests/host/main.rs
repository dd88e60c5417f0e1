//! The program as a process: start, signals, exit codes, health.

mod addresses;
#[path = "../common/mod.rs"]
mod common;
mod confined;
mod defects;
mod doctor;
mod environment;
mod file_size;
mod health;
mod process;
mod signals;
