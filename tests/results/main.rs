//! What comes out: files, partials, live figures.

#[path = "../common/mod.rs"]
mod common;
mod live;
mod outputs;
mod partials;
