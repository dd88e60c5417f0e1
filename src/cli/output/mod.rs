//! Forms of results: tables, JSON, CSV, latency files.

pub mod format;
pub mod hgrm;
pub mod latency_files;
pub mod load_report;
pub mod merge_render;
pub mod output_files;
pub mod render;
