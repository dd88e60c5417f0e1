//! What comes out: files, partials, live figures.

#[path = "../common/mod.rs"]
mod common;
mod live;
mod output_columns;
mod outputs;
mod partials;
mod results_file;
mod slow_disk;
mod texts;
